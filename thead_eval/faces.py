"""Face boxes and 68 landmarks of frames, by backends with names: whatever depends on one carries its name."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from thead_eval.backends import (
    DetectorName,
    LandmarkerName,
    load_picture_detector,
    load_picture_landmarker,
)
from thead_eval.pictures import Picture
from thead_eval.types import NUM_POINTS, Landmarks

__all__ = [
    "Detector",
    "DetectorName",
    "Landmarker",
    "LandmarkerName",
    "find_landmarks",
    "largest",
    "load_detector",
    "load_landmarker",
]

# [B, 3, H, W] uint8 RGB -> a tensor per frame, [n, 5] float32: x0, y0, x1, y1, score
Detector = Callable[[Tensor], list[Tensor]]
# ([B, 3, H, W] uint8 RGB, [B, 4] float32 boxes) -> [B, 68, 2] float32
Landmarker = Callable[[Tensor, Tensor], Tensor]


def load_detector(name: DetectorName, device: torch.device, *, doubtful: bool = False) -> Detector:
    """A face detector: see `backends.load_picture_detector`, which this is for tensors.

    Raises:
        WeightsMissing: a network's file is not on this machine.
        WeightsCorrupt: it is another file.
    """
    find = load_picture_detector(name, str(device), doubtful=doubtful)
    return lambda frames: [torch.from_numpy(boxes) for boxes in find(_pictures(frames))]


def load_landmarker(name: LandmarkerName, device: torch.device) -> Landmarker:
    """A landmark network: see `backends.load_picture_landmarker`, which this is for tensors.

    Raises:
        WeightsMissing: its file is not on this machine.
        WeightsCorrupt: it is another file.
    """
    predict = load_picture_landmarker(name, str(device))
    return lambda frames, boxes: torch.from_numpy(predict(_pictures(frames), boxes.numpy()))


def find_landmarks(frames: Tensor, detector: Detector, landmarker: Landmarker) -> Landmarks:
    """68 points of the largest face in each of [T, 3, H, W] uint8 frames, each frame by itself; NaN where none is."""
    points = torch.full((len(frames), NUM_POINTS, 2), torch.nan)
    boxes = [largest(boxes) for boxes in detector(frames)]
    found = torch.tensor([box is not None for box in boxes], dtype=torch.bool)
    if found.any():
        points[found] = landmarker(frames[found], torch.stack([box for box in boxes if box is not None]))
    return Landmarks(points, found)


def largest(boxes: Tensor) -> Tensor | None:
    """[4]: the largest of [n, 5] boxes, without its score; None where there is none."""
    if not len(boxes):
        return None
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return boxes[areas.argmax(), :4]


def _pictures(frames: Tensor) -> list[Picture]:
    """Contiguous [H, W, 3] arrays, as the backends take them."""
    return [np.ascontiguousarray(frame.permute(1, 2, 0).cpu().numpy()) for frame in frames]
