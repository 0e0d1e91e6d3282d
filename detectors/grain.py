"""Fine detail and how it lives: what a high-pass filter leaves of sixteen consecutive frames, and a line.

A camera films new noise in each frame, and a codec renews it with each key frame; who paints or bends a few pictures of
a person carries their grain along. After Koopman et al. 2018 (sensor noise) and Amerini et al. 2019 (optical flow).
"""

from functools import lru_cache
from typing import ClassVar, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from detectors.augment import Augmentation, shrink
from detectors.linear import Line
from thead_eval.evidence import SIDE

Floats = NDArray[np.float32]

PARTS = ("face", "rim", "background")
LAGS = (1, 4, 12)  # frames between two whose grain is compared
FLOW_EVERY = 3  # frames from one pair whose movement is taken out to the next
NAMES = tuple(
    f"{part}_{what}"
    for part in PARTS
    for what in (
        *("strength", "strength_varies", "change", "change_varies", "change_peak", "still", "renewed"),
        *(f"alike_{lag}" for lag in LAGS),
        *(f"alike_{lag}_varies" for lag in LAGS),
        *("alike_moved", "alike_moved_varies"),
    )
)


class Grain(nn.Module):
    """45 numbers of the grain in a window of frames."""

    window = 16
    stride = 1
    fits_on = "train"
    defaults: ClassVar = {"frames": 2, "validation_frames": 2}
    # Each window is measured once more as a site would send it on: how it was coded is not what it is known by.
    changes = Augmentation(crop=0.5, colour=0.0, blur=0.2, noise=0.2, resize=0.3, h264=1.0, crf=(18, 32), jpeg=0.0)

    def __init__(self) -> None:
        super().__init__()
        self.line = Line(len(NAMES))

    def forward(self, frames: Tensor) -> Tensor:
        """uint8 [T, 3, H, W], consecutive, to logits [T]: each frame that of a window around it, or NaN."""
        T = len(frames)
        if self.window > T:
            return torch.full((T,), torch.nan)
        starts = [*range(0, T - self.window, 4), T - self.window]
        traces = _trace(_pictures(frames))
        judged = self.line(torch.from_numpy(np.stack([_sum_up(traces, start, self.window) for start in starts])))
        middle = np.array(starts) + self.window // 2
        nearest = np.abs(np.arange(T)[:, None] - middle).argmin(axis=1)
        logits: Tensor = judged[nearest]
        return logits

    def measure(self, windows: Tensor) -> Tensor:
        """uint8 [B, 16, 3, H, W] to [B, 45]."""
        return torch.from_numpy(np.stack([_sum_up(_trace(_pictures(frames)), 0, self.window) for frames in windows]))


class Traces(NamedTuple):
    """What happens to the grain of a clip, in each part of the picture."""

    strength: Floats  # [T, P] deviation of the high-passed frame, in levels
    change: Floats  # [T - 1, P] mean difference to the next frame, in levels
    still: Floats  # [T - 1, P] share of pixels that do not differ from the next frame's by more than one level
    renewed: Floats  # [T - 1, P] deviation of the difference of two neighbours' grain
    alike: Floats  # [lags, T, P] correlation with the grain so many frames later; NaN beyond the end
    moved: Floats  # [T - 1, P] with that of the next frame, movement taken out; NaN where it was not looked at


def _pictures(frames: Tensor) -> list[NDArray[np.uint8]]:
    """uint8 [T, 3, H, W] as grey pictures [S, S]."""
    colours = frames.permute(0, 2, 3, 1).cpu().numpy()
    return [cv2.cvtColor(shrink(np.ascontiguousarray(c), SIDE), cv2.COLOR_RGB2GRAY).astype(np.uint8) for c in colours]


def _trace(pictures: list[NDArray[np.uint8]]) -> Traces:
    T, P = len(pictures), len(PARTS)
    grey = np.stack(pictures).astype(np.float32)  # [T, S, S]
    grain = np.stack([picture - cv2.GaussianBlur(picture, (0, 0), 1.0) for picture in grey])
    small = [cv2.resize(picture, (SIDE // 2, SIDE // 2), interpolation=cv2.INTER_AREA) for picture in pictures]
    strength, change, still, renewed, moved = (np.full((n, P), np.nan, np.float32) for n in (T, *[T - 1] * 4))
    alike = np.full((len(LAGS), T, P), np.nan, np.float32)
    flat = grey.reshape(T, -1)
    for p, pixels in enumerate(_parts()):
        own = grain.reshape(T, -1)[:, pixels]
        own = own - own.mean(axis=1, keepdims=True)
        strength[:, p] = own.std(axis=1)
        difference = np.abs(np.diff(flat[:, pixels], axis=0))
        change[:, p] = difference.mean(axis=1)
        still[:, p] = (difference <= 1).mean(axis=1)
        renewed[:, p] = np.diff(own, axis=0).std(axis=1)
        for n, lag in enumerate(LAGS):
            alike[n, : T - lag, p] = _correlation(own[:-lag], own[lag:])
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    for t in range(0, T - 1, FLOW_EVERY):
        flow = cv2.calcOpticalFlowFarneback(small[t + 1], small[t], np.zeros(0), 0.5, 3, 13, 3, 5, 1.1, 0)
        flow = 2 * cv2.resize(flow, (SIDE, SIDE))  # [S, S, 2] where a pixel of t + 1 was at t
        before = cv2.remap(grain[t], x + flow[..., 0], y + flow[..., 1], cv2.INTER_CUBIC).ravel()
        after = grain[t + 1].ravel()
        moved[t] = [_correlation(before[None, pixels], after[None, pixels])[0] for pixels in _parts()]
    return Traces(strength, change, still, renewed, alike, moved)


def _sum_up(traces: Traces, first: int, frames: int) -> Floats:
    """[45] of the window of so many frames from `first` on."""
    own, pairs = slice(first, first + frames), slice(first, first + frames - 1)
    strength, change = traces.strength[own], traces.change[pairs]
    usual = strength.mean(axis=0) + 0.1
    rows = [
        np.log(usual),
        strength.std(axis=0) / usual,
        np.log(change.mean(axis=0) + 0.05),
        change.std(axis=0) / (change.mean(axis=0) + 0.05),
        np.log(change.max(axis=0) + 0.05) - np.log(np.median(change, axis=0) + 0.05),
        traces.still[pairs].mean(axis=0),
        np.log(traces.renewed[pairs].mean(axis=0) + 0.1) - np.log(usual),
    ]
    compared = [traces.alike[n, first : first + frames - lag] for n, lag in enumerate(LAGS)]
    rows += [values.mean(axis=0) for values in compared] + [values.std(axis=0) for values in compared]
    looked_at = traces.moved[pairs]
    looked_at = looked_at[np.isfinite(looked_at[:, 0])]
    rows += [looked_at.mean(axis=0), looked_at.std(axis=0)]
    return np.stack(rows, axis=1).ravel().astype(np.float32)  # [P * 15] part by part


def _correlation(a: Floats, b: Floats) -> Floats:
    """Of the rows of a and b [N, pixels]; 0 where one is flat."""
    spread = np.sqrt((a * a).mean(axis=1) * (b * b).mean(axis=1))
    correlation: Floats = (a * b).mean(axis=1) / (spread + 1e-3)
    return correlation


@lru_cache
def _parts() -> tuple[NDArray[np.int64], ...]:
    """Pixels of the face, its rim and the rest, where `theval prepare` puts a head."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    distance = ((x - 0.5) / 0.31) ** 2 + ((y - 0.53) / 0.41) ** 2
    masks = distance < 1, (distance >= 1) & (distance <= 1.8), distance > 1.8
    return tuple(np.flatnonzero(mask) for mask in masks)
