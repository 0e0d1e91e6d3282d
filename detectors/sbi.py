"""Self-blended images (Shiohara and Yamasaki, CVPR 2022): a real frame pasted onto itself, as fakes are made of two.

The two copies differ in colour, sharpness and place; the seam and the difference inside it are what a detector learns.
"""

from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from detectors.efflite0 import EfficientNetLite0
from thead_eval.pictures import Picture

Points = NDArray[np.float32]  # [68, 2] pixels of the picture


class SelfBlended(EfficientNetLite0):
    """The network of `efflite0`, for which every fake is made of the real frame beside it."""

    defaults: ClassVar = {"blends": 1.0}  # of TrainConfig


def self_blend(picture: Picture, points: Points, seed: int) -> Picture:
    """The picture [S, S, 3] with its own face blended into it; the same seed makes the same change."""
    draw = np.random.default_rng(seed)
    side = len(picture)
    inner, outer = picture, picture
    # Either copy is changed, so that neither the face nor its surround is always the clean one.
    if draw.random() < 0.5:
        inner = _alter(picture, draw)
    else:
        outer = _alter(picture, draw)
    moved = _move(draw, side)
    shifted = cv2.warpAffine(inner, moved, (side, side), borderMode=cv2.BORDER_REFLECT_101)
    mask = _mask(points, side, draw)  # [S, S, 1] 0..1
    blended = shifted.astype(np.float32) * mask + outer.astype(np.float32) * (1 - mask)
    return blended.round().clip(0, 255).astype(np.uint8)


def _alter(picture: Picture, draw: np.random.Generator) -> Picture:
    """Colours of another camera, and another sharpness."""
    x = picture.astype(np.float32)
    x = x * (1 + draw.uniform(-0.1, 0.1)) + draw.uniform(-20, 20, 3).astype(np.float32)
    if draw.random() < 0.5:
        hsv = cv2.cvtColor(x.clip(0, 255).astype(np.uint8), cv2.COLOR_RGB2HSV).astype(np.float32)
        hsv += draw.uniform([-5, -25, -25], [5, 25, 25]).astype(np.float32)
        hsv[..., 0] %= 180
        x = cv2.cvtColor(hsv.clip(0, 255).astype(np.uint8), cv2.COLOR_HSV2RGB).astype(np.float32)
    if draw.random() < 0.5:  # smaller and large again
        side = len(picture)
        small = side // int(draw.choice([2, 4]))
        method = cv2.INTER_LINEAR if draw.random() < 0.5 else cv2.INTER_CUBIC
        shrunk = cv2.resize(x, (small, small), interpolation=cv2.INTER_AREA)
        x = np.asarray(cv2.resize(shrunk, (side, side), interpolation=method), np.float32)
    else:  # sharper
        x += draw.uniform(0.2, 0.8) * (x - cv2.GaussianBlur(x, (0, 0), 1.0))
    return x.round().clip(0, 255).astype(np.uint8)


def _move(draw: np.random.Generator, side: int) -> NDArray[np.float64]:
    """A shift of up to 3 % across and 1.5 % down and a scale of up to 5 %, about the middle."""
    scale = draw.uniform(0.95, 1.05)
    x, y = draw.uniform(-0.03, 0.03) * side, draw.uniform(-0.015, 0.015) * side
    middle = side / 2 * (1 - scale)
    return np.array([[scale, 0, middle + x], [0, scale, middle + y]])


def _mask(points: Points, side: int, draw: np.random.Generator) -> NDArray[np.float32]:
    """The hull of some of the landmarks, bent and blurred, at a strength of its own."""
    parts = [np.arange(68), np.arange(17, 68), np.r_[0:17, 17:48], np.arange(48, 68), np.r_[27:48]]
    chosen = points[parts[draw.choice(len(parts), p=[0.4, 0.25, 0.15, 0.1, 0.1])]]
    hull = cv2.convexHull(chosen.round().astype(np.int32))
    mask = cv2.fillConvexPoly(np.zeros((side, side), np.float32), hull, 1.0)
    bends = [
        cv2.GaussianBlur(draw.uniform(-1, 1, (side, side)).astype(np.float32), (0, 0), side / 28) for _ in range(2)
    ]
    x, y = np.meshgrid(np.arange(side, dtype=np.float32), np.arange(side, dtype=np.float32))
    reach = draw.uniform(0.1, 0.6) * side
    mask = cv2.remap(mask, x + bends[0] * reach, y + bends[1] * reach, cv2.INTER_LINEAR)
    mask = cv2.GaussianBlur(mask, (0, 0), draw.uniform(0.01, 0.05) * side)
    strength = draw.choice([0.25, 0.5, 0.75, 1.0, 1.0, 1.0])
    return (mask * np.float32(strength))[..., None]
