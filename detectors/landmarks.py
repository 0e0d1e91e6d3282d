"""How a face moves: blinks, turns of the head and trembling points, in sixteen consecutive frames, and a line.

After Li et al. 2018 (blinks) and Yang et al. 2019 (head pose); no pixel is looked at but by the landmarks' finder.
"""

from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from detectors.linear import Line
from thead_eval.backends import (
    CONFIDENT,
    load_backends,
)
from thead_eval.metrics.geometry import fit_similarity
from thead_eval.tracking import track_faces
from thead_eval.types import NUM_POINTS

EVERY = 8  # frames from one search for the face to the next; between them its landmarks are followed
PARTS = {
    "oval": range(17),
    "brows": range(17, 27),
    "nose": range(27, 36),
    "eyes": range(36, 48),
    "mouth": range(48, 68),
}
EYES = np.array([[36, 37, 38, 39, 40, 41], [42, 43, 44, 45, 46, 47]])
NAMES = (
    *(f"tremble_{part}" for part in PARTS),
    *(f"bend_{part}" for part in PARTS),
    "eye_mean",
    "eye_deviation",
    "eye_least",
    "eye_difference",
    "mouth_mean",
    "mouth_deviation",
    *(f"{turn}_{what}" for turn in ("roll", "yaw", "pitch") for what in ("deviation", "speed", "tremble")),
)


class Motion(nn.Module):
    """Twenty-five numbers of the 68 points in a window of frames."""

    window = 16
    stride = 1
    fits_on = "train"
    defaults: ClassVar = {"frames": 4, "validation_frames": 4}

    def __init__(self) -> None:
        super().__init__()
        self.rule = Line(len(NAMES))

    def forward(self, frames: Tensor) -> Tensor:
        """uint8 [T, 3, H, W], consecutive, to logits [T]: each frame that of the window around it, or NaN."""
        points = find_points(frames)
        T = len(points)
        logits = torch.full((T,), torch.nan)
        if self.window > T:
            return logits
        rows = np.stack([measure(points[start : start + self.window]) for start in range(T - self.window + 1)])
        judged = self.rule(torch.from_numpy(rows).float())
        middle = [min(max(frame - self.window // 2, 0), T - self.window) for frame in range(T)]
        logits[:] = judged[middle]
        return logits

    def measure(self, windows: Tensor) -> Tensor:
        """uint8 [B, 16, 3, H, W] to [B, 25]; NaN where the face could not be followed through all of them."""
        return torch.from_numpy(np.stack([measure(find_points(window)) for window in windows])).float()


def find_points(frames: Tensor) -> NDArray[np.float32]:
    """[T, 68, 2] of the face that is followed longest; NaN where it is not."""
    pictures = [np.ascontiguousarray(frame.permute(1, 2, 0).cpu().numpy()) for frame in frames]
    points = np.full((len(frames), NUM_POINTS, 2), np.nan, np.float32)
    tracks = track_faces(pictures, *load_backends(), CONFIDENT["dlib"], EVERY).tracks
    if tracks:
        longest = max(tracks, key=len)
        points[longest.first_frame : longest.first_frame + len(longest)] = longest.points
    return points


def measure(points: NDArray[np.float32]) -> NDArray[np.float64]:
    """[25] of the points [T, 68, 2] of one window, in distances of the eyes; NaN where a point is."""
    if not np.isfinite(points).all():
        return np.full(len(NAMES), np.nan)
    x = points.astype(np.float64)
    centres = x[:, EYES].mean(axis=2)  # [T, 2, 2]
    apart = np.linalg.norm(centres[:, 1] - centres[:, 0], axis=1)
    x = x / np.median(apart)
    still = fit_similarity(x, np.broadcast_to(x.mean(axis=0), x.shape)).move(x)  # what is left is expression
    tremble = np.linalg.norm(np.diff(x, 2, axis=0), axis=2).mean(axis=0)  # [68] acceleration in a frame
    bend = np.linalg.norm(np.diff(still, axis=0), axis=2).mean(axis=0)  # [68] movement that is not the head's
    parts = [values[list(part)].mean() for values in (tremble, bend) for part in PARTS.values()]
    eyes = x[:, EYES]  # [T, 2, 6, 2]
    height = np.linalg.norm(eyes[:, :, [1, 2]] - eyes[:, :, [5, 4]], axis=3).mean(axis=2)
    opened = height / np.linalg.norm(eyes[:, :, 0] - eyes[:, :, 3], axis=2)  # [T, 2] the eye aspect ratio
    mouth = np.linalg.norm(x[:, 62] - x[:, 66], axis=1) / np.linalg.norm(x[:, 48] - x[:, 54], axis=1)
    across = centres[:, 1] - centres[:, 0]
    middle = centres.mean(axis=1) / np.median(apart)
    nose = x[:, 30] - middle
    turns = (
        np.arctan2(across[:, 1], across[:, 0]),
        nose[:, 0],  # the tip of the nose wanders sideways as the head turns,
        nose[:, 1],  # and down as it nods
    )
    pose = [
        part for turn in turns for part in (turn.std(), np.abs(np.diff(turn)).mean(), np.abs(np.diff(turn, 2)).mean())
    ]
    blink = [opened.mean(), opened.std(axis=0).mean(), opened.min(), np.abs(opened[:, 0] - opened[:, 1]).mean()]
    return np.array([*parts, *blink, mouth.mean(), mouth.std(), *pose])
