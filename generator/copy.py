"""The control without any motion: repeats the support frame whose landmarks lie nearest to the driving ones."""

from dataclasses import dataclass

import torch
from torch import Tensor

from thead_eval.errors import NoFaceFound
from thead_eval.types import Clip, Landmarks


@dataclass(frozen=True)
class CopyTalker:
    """Support frames with their landmarks, to choose from."""

    support: Clip
    points: Tensor  # [K, 68, 2] float32, a row per support frame, no NaN

    def animate(self, driving: Landmarks, fps: float) -> Clip:
        """The nearest support frame for each driving row; a row without a face holds the one before it.

        Raises:
            NoFaceFound: no driving row has landmarks.
        """
        chosen = nearest_frames(self.points, held_points(driving, self.support.id))  # [T]
        return Clip(self.support.id, self.support.frames[chosen], fps)


@dataclass(frozen=True)
class CopyGenerator:
    """Learns nothing: its Talker only looks up."""

    name: str = "copy"

    def adapt(self, support: Clip, landmarks: Landmarks) -> CopyTalker:
        """A Talker over the support frames that have landmarks.

        Raises:
            NoFaceFound: none has.
        """
        return CopyTalker(*usable_support(support, landmarks))


def copy(device: torch.device) -> CopyGenerator:
    """Repeats the support frame whose landmarks lie nearest: the control without motion."""
    return CopyGenerator()


def usable_support(support: Clip, landmarks: Landmarks) -> tuple[Clip, Tensor]:
    """The support frames that have landmarks, and those landmarks [K, 68, 2].

    Raises:
        NoFaceFound: none has.
        ValueError: frames and landmarks differ in number.
    """
    if len(support) != len(landmarks):
        raise ValueError(f"clip '{support.id}' has {len(support)} frames, its landmarks {len(landmarks)}")
    rows = landmarks.found.nonzero().flatten().tolist()
    if not rows:
        raise NoFaceFound(
            f"clip '{support.id}': none of {len(support)} support frames has landmarks; choose other support frames"
        )
    return support.take(rows), landmarks.points[rows]


def held_points(driving: Landmarks, id: str) -> Tensor:
    """Driving points [T, 68, 2] without NaN: a row without a face takes the last found row before it, else the first.

    Raises:
        NoFaceFound: no row has a face.
    """
    if not driving.found.any():
        raise NoFaceFound(f"clip '{id}': none of {len(driving)} driving frames has landmarks; check the driving video")
    last = torch.where(driving.found, torch.arange(len(driving)), -1).cummax(0).values  # [T]
    first = int(driving.found.nonzero()[0])
    return driving.points[torch.where(last < 0, first, last)]


def nearest_frames(support_points: Tensor, driving_points: Tensor) -> Tensor:
    """For each driving row [T, 68, 2] the index of the nearest of the support rows [K, 68, 2].

    The distance is plain L2 in pixels, without alignment: the picture must show the head where it is. For `warp` too:
    by shape after a similarity, alone or mixed with this, it came no nearer on real clips.
    """
    return torch.cdist(driving_points.flatten(1), support_points.flatten(1)).argmin(1)  # [T]
