"""One person's motion on another's face: landmarks that keep the source's shape and take the driver's movement."""

from typing import NamedTuple

import torch
from torch import Tensor

from thead_eval.errors import NoFaceFound
from thead_eval.types import NUM_POINTS, Landmarks

STABLE = [*range(27, 36), 36, 39, 42, 45]  # nose and corners of the eyes: they move with the skull alone


def relative_motion(driving: Landmarks, source_points: Tensor, neutral: int | None = None) -> Landmarks:
    """The driver's movement since its neutral frame, applied to the source's points [68, 2], in the source's pixels.

    Both neutral faces are brought together by a similarity, so where the driver's camera stood, how near and how
    tilted, has no effect (Procrustes on all points: a ratio of eye distances would change with the yaw of either).
    Then each frame moves the source's points as a whole by the driver's head motion, a similarity of its nose and
    eyes, and adds what is left (expression, turns of the head) point by point. At the neutral frame the result is
    `source_points`.

    Args:
        driving: Rows without a face stay so.
        source_points: A face at rest, best seen from the front.
        neutral: The driver's frame at rest; None looks for it, see `find_neutral`.

    Raises:
        NoFaceFound: no driving row, the neutral one, or the source has no landmarks.
        ValueError: source_points are not [68, 2].
    """
    if source_points.shape != (NUM_POINTS, 2):
        raise ValueError(f"source points must be [68, 2], not {list(source_points.shape)}")
    if not source_points.isfinite().all():
        raise NoFaceFound("the source picture has no landmarks; choose a picture with one clear face")
    index = find_neutral(driving) if neutral is None else neutral
    if not driving.found[index]:
        raise NoFaceFound(f"driving frame {index} has no landmarks, so it cannot be the neutral one; choose another")

    source = _complex(source_points)[None]  # [1, 68]
    moving = _complex(driving.points)  # [T, 68]
    moving = _fit(moving[index : index + 1], source).apply(moving)  # in the source's pixels
    rest = moving[index : index + 1]
    head = _fit(rest[:, STABLE], moving[:, STABLE])
    result = head.apply(source) + (moving - head.apply(rest))
    points = torch.view_as_real(result).float()
    return Landmarks(points.where(driving.found[:, None, None], torch.nan), driving.found)


def find_neutral(driving: Landmarks) -> int:
    """The frame where the mouth is most closed, the eyes are most open and the face looks most to the front.

    The three count as fractions: of the eyes' distance, of the eyes' usual opening, of the face's half width.

    Raises:
        NoFaceFound: no row has landmarks.
    """
    if not driving.found.any():
        raise NoFaceFound(f"none of {len(driving)} driving frames has landmarks; check the driving video")
    p = driving.points.double()  # [T, 68, 2]

    def distance(a: int, b: int) -> Tensor:
        return (p[:, a] - p[:, b]).square().sum(-1).sqrt()  # [T]

    eyes = distance(36, 45)
    mouth = (distance(61, 67) + distance(62, 66) + distance(63, 65)) / (3 * eyes)
    opening = (distance(37, 41) + distance(38, 40) + distance(43, 47) + distance(44, 46)) / (4 * eyes)
    closed = (1 - opening / opening[driving.found].median().clamp_min(1e-6)).clamp_min(0)
    left, right = distance(30, 2), distance(30, 14)
    turned = (left - right).abs() / (left + right)
    return int((mouth + closed + turned).where(driving.found, torch.inf).argmin())


class _Similarity(NamedTuple):
    """Scale, rotation and shift of the picture's plane, in complex numbers: z -> turn * z + shift."""

    turn: Tensor  # [T, 1]
    shift: Tensor  # [T, 1]

    def apply(self, points: Tensor) -> Tensor:
        return self.turn * points + self.shift


def _fit(points: Tensor, target: Tensor) -> _Similarity:
    """The similarity that brings points [T or 1, N] nearest to the target [T or 1, N] in least squares."""
    centre, target_centre = points.mean(1, keepdim=True), target.mean(1, keepdim=True)
    spread = points - centre
    turn = (spread.conj() * (target - target_centre)).sum(1, keepdim=True)
    turn = turn / spread.abs().square().sum(1, keepdim=True).clamp_min(1e-12)
    return _Similarity(turn, target_centre - turn * centre)


def _complex(points: Tensor) -> Tensor:
    """Points [..., 2] as complex numbers x + iy."""
    return torch.view_as_complex(points.double().contiguous())
