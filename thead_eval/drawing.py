"""Landmarks to the picture that networks see: coloured lines on black.

Colours and lines are those of the Samsung group's own code (latent-pose-reenactment, `dataloaders/common/voxceleb.py`):
the inner lips are not drawn.
"""

from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # an exported avatar draws without torch
    from torch import Tensor

    from thead_eval.types import Landmarks

# First and last point, closed, RGB.
LINES = (
    (0, 16, False, (255, 255, 255)),  # oval
    (17, 21, False, (255, 0, 0)),  # brows
    (22, 26, False, (0, 255, 0)),
    (27, 30, False, (0, 0, 255)),  # nose
    (31, 35, False, (0, 0, 255)),
    (36, 41, True, (255, 0, 255)),  # eyes
    (42, 47, True, (0, 255, 255)),
    (48, 59, True, (255, 255, 0)),  # outer lips
)


def draw_landmarks(points: "Tensor", height: int, width: int) -> "Tensor":
    """The picture [3, H, W] uint8 RGB of 68 points [68, 2] in its pixels; black where any is NaN (no face).

    Lines are 2 pixels thick at 256 and scale with the picture's height.

    Raises:
        ValueError: points are not [68, 2].
    """
    import torch

    from thead_eval.types import NUM_POINTS

    if points.shape != (NUM_POINTS, 2):
        raise ValueError(f"68 points [68, 2] make a picture, not {list(points.shape)}")
    picture = paint_landmarks(points.detach().cpu().numpy(), height, width)
    return torch.from_numpy(picture).permute(2, 0, 1).contiguous()


def paint_landmarks(corners: NDArray[np.floating], height: int, width: int) -> NDArray[np.uint8]:
    """The same picture [H, W, 3] of points [68, 2] without torch: for threads beside it, and where there is none."""
    picture = np.zeros((height, width, 3), np.uint8)
    if np.isfinite(corners).all():
        # Far outside is far outside: the clip keeps what OpenCV's 16-bit line code sees in range.
        corners = np.rint(corners.clip(-8 * width, 8 * width)).astype(np.int32)
        thickness = max(1, round(height / 128))
        for first, last, closed, colour in LINES:
            cv2.polylines(picture, [corners[first : last + 1]], closed, colour, thickness)
    return picture


def draw_clip(landmarks: "Landmarks", size: tuple[int, int]) -> "Tensor":
    """A picture for each row: [T, 3, H, W] uint8 RGB, `size` = (H, W); black where no face was found."""
    import torch

    height, width = size
    pictures = torch.zeros(len(landmarks), 3, height, width, dtype=torch.uint8)
    for t in landmarks.found.nonzero().flatten().tolist():
        pictures[t] = draw_landmarks(landmarks.points[t], height, width)
    return pictures
