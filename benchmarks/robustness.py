"""What happens to a video on its way: nine perturbations at five levels, the same for real and fake.

Each takes uint8 frames [T, 3, H, W] and gives as many of the same size. Level 1 is what nobody notices, level 3 what a
messenger does, level 5 what makes a face hard to recognise.
"""

from collections.abc import Callable

import cv2
import numpy as np
import torch
import torchvision.transforms.v2.functional as tvf
from torch import Tensor

from thead_eval import pictures
from thead_eval.data import decode_jpeg

LEVELS = (1, 2, 3, 4, 5)

QUALITIES = (90, 70, 50, 30, 10)  # JPEG
RATE_FACTORS = (23, 28, 33, 38, 43)  # H.264 CRF; 23 is x264's own choice
SIGMAS = (0.5, 1.0, 1.5, 2.5, 4.0)  # of a Gaussian blur, pixels of 224
SIZES = (0.8, 0.6, 0.4, 0.25, 0.125)  # shrunk to this part, and enlarged again
NOISES = (2.0, 4.0, 8.0, 16.0, 32.0)  # standard deviation in grey values
GAMMAS = (0.85, 0.7, 0.55, 0.4, 0.25)  # exponent: brighter; every other clip darker, by its inverse
SHIFTS = (0.02, 0.04, 0.08, 0.12, 0.2)  # of the width, down and to the right: a crop that missed the head
HOLDS = (2, 3, 4, 6, 8)  # each frame is shown so often, in place of the next ones


def jpeg(frames: Tensor, level: int, seed: int) -> Tensor:
    """Each frame through one more JPEG, with chroma at full resolution."""
    return torch.stack([_jpeg(frame, QUALITIES[level - 1]) for frame in frames])


def h264(frames: Tensor, level: int, seed: int) -> Tensor:
    """All frames through H.264 at a constant rate factor."""
    return _h264(frames, RATE_FACTORS[level - 1])


def blur(frames: Tensor, level: int, seed: int) -> Tensor:
    """A Gaussian blur."""
    sigma = SIGMAS[level - 1]
    width = 2 * int(np.ceil(3 * sigma)) + 1
    planes = frames.float().permute(0, 2, 3, 1).numpy()
    blurred = [cv2.GaussianBlur(plane, (width, width), sigma, borderType=cv2.BORDER_REFLECT_101) for plane in planes]
    return torch.from_numpy(np.stack(blurred)).permute(0, 3, 1, 2).round().to(torch.uint8).contiguous()


def resize(frames: Tensor, level: int, seed: int) -> Tensor:
    """Smaller and back to the size, as of a face that was small in its picture."""
    return _resize(frames, SIZES[level - 1])


def noise(frames: Tensor, level: int, seed: int) -> Tensor:
    """Gaussian noise, other in each frame."""
    random = torch.Generator().manual_seed(seed)
    added = torch.randn(frames.shape, generator=random) * NOISES[level - 1]
    return (frames + added).round().clamp(0, 255).to(torch.uint8)


def brightness(frames: Tensor, level: int, seed: int) -> Tensor:
    """Brighter or, where the seed is odd, darker, by a gamma curve."""
    gamma = GAMMAS[level - 1] if seed % 2 == 0 else 1 / GAMMAS[level - 1]
    curve = (255 * (torch.arange(256) / 255) ** gamma).round().to(torch.uint8)
    return curve[frames.long()]


def crop_shift(frames: Tensor, level: int, seed: int) -> Tensor:
    """The picture moved down and to the right; the edge repeated where there is nothing."""
    pixels = round(SHIFTS[level - 1] * frames.shape[3])
    moved: Tensor = tvf.pad(frames, [pixels, pixels, 0, 0], padding_mode="edge")
    return moved[:, :, : frames.shape[2], : frames.shape[3]].contiguous()


def frame_rate(frames: Tensor, level: int, seed: int) -> Tensor:
    """Fewer different frames: each held in place of those after it."""
    hold = HOLDS[level - 1]
    return frames[[index - index % hold for index in range(len(frames))]]


def chain(frames: Tensor, level: int, seed: int) -> Tensor:
    """Sent on `level` times: each time a little smaller, through JPEG 75 and through H.264 at 28."""
    for _ in range(level):
        frames = _h264(torch.stack([_jpeg(frame, 75) for frame in _resize(frames, 0.85)]), 28)
    return frames


Perturbation = Callable[[Tensor, int, int], Tensor]  # (frames, level 1..5, seed of the clip)

PERTURBATIONS: dict[str, Perturbation] = {
    "jpeg": jpeg,
    "h264": h264,
    "blur": blur,
    "resize": resize,
    "noise": noise,
    "brightness": brightness,
    "crop_shift": crop_shift,
    "frame_rate": frame_rate,
    "chain": chain,
}


def _jpeg(frame: Tensor, quality: int) -> Tensor:
    return decode_jpeg(pictures.encode_jpeg(frame.permute(1, 2, 0).numpy(), quality))


def _resize(frames: Tensor, part: float) -> Tensor:
    height, width = frames.shape[2:]
    small = tvf.resize(frames, [max(1, round(part * height)), max(1, round(part * width))], antialias=True)
    back: Tensor = tvf.resize(small, [height, width], antialias=True)
    return back


def _h264(frames: Tensor, rate_factor: int) -> Tensor:
    coded = pictures.through_h264(list(frames.permute(0, 2, 3, 1).contiguous().numpy()), rate_factor, "fast")
    return torch.from_numpy(np.stack(coded)).permute(0, 3, 1, 2).contiguous()
