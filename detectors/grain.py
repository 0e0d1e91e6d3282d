"""Fine detail and how it lives: what band filters leave of sixteen consecutive frames, and small networks.

A camera films new noise in each frame, and a codec renews it with each key frame; who paints or bends a few pictures of
a person carries their grain along, however far apart two frames are. After Koopman et al. 2018 (sensor noise) and
Amerini et al. 2019 (optical flow).
"""

from functools import lru_cache
from typing import ClassVar, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from detectors.augment import Augmentation, shrink
from detectors.perceptron import Perceptrons
from thead_eval.evidence import SIDE

Floats = NDArray[np.float32]
Frames = NDArray[np.float32]  # [T, S, S]

PARTS = ("face", "rim", "background")
BLURS = (1.0, 2.5, 6.0)  # pixels: a band is what lies between one and the one before, the first what is finer than all
FINE = 2  # of the bands, those that are also compared where they stand
LAGS = (1, 4, 12)  # frames between two that are compared
EVERY = (2, 2, 1)  # of the frames, at each lag, those whose movement is taken out: that takes most of the time
TRAVEL = LAGS.index(4)  # the place of the lag whose movement is itself looked at
CHROMA = 1.5  # pixels, as BLURS
NAMES = tuple(
    f"{part}_{what}"
    for part in PARTS
    for what in (
        *(f"band_{band}_{what}" for band in range(len(BLURS)) for what in ("strength", "varies", "jumps")),
        *(f"chroma_{plane}_{what}" for plane in ("red", "blue") for what in ("strength", "follows")),
        *("change", "change_varies", "change_peak", "still"),
        *(f"band_{band}_renewed" for band in range(FINE)),
        *(f"band_{band}_alike_{lag}{how}" for band in range(FINE) for lag in LAGS for how in ("", "_varies")),
        *(
            f"band_{band}_moved_{lag}{how}"
            for lag in LAGS
            for band in range(len(BLURS))
            for how in ("", "_least", "_varies")
        ),
        *(f"left_{lag}{how}" for lag in LAGS for how in ("", "_peak")),
        *("travel", "ripple"),
    )
)


class Grain(nn.Module):
    """198 numbers of the grain in a window of frames."""

    window = 16
    stride = 1
    fits_on = "train"
    defaults: ClassVar = {"frames": 2, "validation_frames": 2}
    # Each window is measured once more as a site would send it on: how it was coded is not what it is known by.
    changes = Augmentation(crop=0.5, colour=0.3, blur=0.2, noise=0.2, resize=0.3, h264=1.0, crf=(18, 32), jpeg=0.3)

    def __init__(self) -> None:
        super().__init__()
        self.rule = Perceptrons(len(NAMES))

    def forward(self, frames: Tensor) -> Tensor:
        """uint8 [T, 3, H, W], consecutive, to logits [T]: each frame that of a window around it, or NaN."""
        T = len(frames)
        if self.window > T:
            return torch.full((T,), torch.nan)
        last = T - self.window
        starts = [*range(0, last, 4), last - last % 2]  # even ones, as of all windows that were learnt from: see EVERY
        traces = _trace(frames)
        judged = self.rule(torch.from_numpy(np.stack([_sum_up(traces, start, self.window) for start in starts])))
        middle = np.array(starts) + self.window // 2
        nearest = np.abs(np.arange(T)[:, None] - middle).argmin(axis=1)
        logits: Tensor = judged[nearest]
        return logits

    def measure(self, windows: Tensor) -> Tensor:
        """uint8 [B, 16, 3, H, W] to [B, 198]."""
        return torch.from_numpy(np.stack([_sum_up(_trace(frames), 0, self.window) for frames in windows]))


class Traces(NamedTuple):
    """What happens to the grain of a clip, in each part of the picture; NaN where it was not looked at."""

    strength: Floats  # [bands, T, P] deviation of a band, in levels
    chroma: Floats  # [2, T, P] the same of the finest detail of the two colour differences
    follows: Floats  # [2, T, P] its correlation with that of the brightness
    change: Floats  # [T, P] mean difference to the next frame, in levels
    still: Floats  # [T, P] share of pixels that do not differ from the next frame's by more than one level
    renewed: Floats  # [FINE, T, P] deviation of the difference of two neighbours' grain
    alike: Floats  # [FINE, lags, T, P] correlation with the grain so many frames later
    moved: Floats  # [lags, bands, T, P] the same, movement taken out
    left: Floats  # [lags, T, P] log of the mean difference, movement taken out
    travel: Floats  # [T, P] log of how far pixels moved
    ripple: Floats  # [T, P] log of how unevenly


def _trace(frames: Tensor) -> Traces:
    """uint8 [T, 3, S, S], of any size."""
    T, P, B, L = len(frames), len(PARTS), len(BLURS), len(LAGS)
    planes = np.stack([_planes(np.ascontiguousarray(c)) for c in frames.permute(0, 2, 3, 1).cpu().numpy()])
    grey, *colours = planes.transpose(3, 0, 1, 2)
    bands, above = [], grey.astype(np.float32)
    for blur in BLURS:
        below = _blur(grey, blur)
        bands.append(above - below)
        above = below
    layers = np.stack([*bands, grey.astype(np.float32)], axis=-1)  # [T, S, S, B + 1]
    order, parts = _parts()
    own = np.take(layers.reshape(T, -1, B + 1).transpose(2, 0, 1), order, axis=2)  # [B + 1, T, S * S] part by part
    fine = [np.take((colour - _blur(colour, CHROMA)).reshape(T, -1), order, axis=1) for colour in colours]
    shapes = (B, T, P), (2, T, P), (2, T, P), (T, P), (T, P), (FINE, T, P), (FINE, L, T, P), (L, B, T, P), (L, T, P)
    of = Traces(*(np.full(shape, np.nan, np.float32) for shape in (*shapes, (T, P), (T, P))))
    for p, part in enumerate(parts):
        for b in range(B):
            of.strength[b, :, p] = _deviation(own[b, :, part])
        for n, colour in enumerate(fine):
            of.chroma[n, :, p] = _deviation(colour[:, part])
            of.follows[n, :, p] = _correlation(colour[:, part], own[0, :, part])
        difference = np.abs(np.diff(own[B, :, part], axis=0))
        of.change[:-1, p] = difference.mean(axis=1)
        of.still[:-1, p] = (difference <= 1).mean(axis=1)
        for b in range(FINE):
            of.renewed[b, :-1, p] = _deviation(np.diff(own[b, :, part], axis=0))
            for n, lag in enumerate(LAGS):
                of.alike[b, n, : T - lag, p] = _correlation(own[b, :-lag, part], own[b, lag:, part])
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    for n, (lag, every) in enumerate(zip(LAGS, EVERY, strict=True)):
        for t in range(0, T - lag, every):
            flow = search.calc(grey[t + lag], grey[t], np.zeros(0))  # [S, S, 2] where a pixel of t + lag was at t
            there = cv2.remap(layers[t], x + flow[..., 0], y + flow[..., 1], cv2.INTER_CUBIC)
            before = np.take(there.reshape(-1, B + 1).T, order, axis=1)
            for p, part in enumerate(parts):
                of.moved[n, :, t, p] = _correlation(before[:B, part], own[:B, t + lag, part])
                of.left[n, t, p] = np.log(np.abs(before[B, part] - own[B, t + lag, part]).mean() + 0.1)
            if n == TRAVEL:
                far = np.hypot(flow[..., 0], flow[..., 1]).ravel()[order]
                uneven = np.abs(flow - cv2.GaussianBlur(flow, (0, 0), 4)).sum(axis=-1).ravel()[order]
                of.travel[t] = [np.log(far[part].mean() + 0.05) for part in parts]
                of.ripple[t] = [np.log(uneven[part].mean() + 0.02) for part in parts]
    return of


def _sum_up(of: Traces, first: int, frames: int) -> Floats:
    """[198] of the window of so many frames from `first` on."""

    def pairs(lag: int) -> slice:
        return slice(first, first + frames - lag)

    own = pairs(0)
    usual = of.strength[:, own].mean(axis=1) + 0.1  # [bands, P]
    rows: list[Floats] = []
    for strength, mean in zip(of.strength[:, own], usual, strict=True):
        rows += [np.log(mean), strength.std(axis=0) / mean, np.abs(np.diff(strength, axis=0)).max(axis=0) / mean]
    for chroma, follows in zip(of.chroma[:, own], of.follows[:, own], strict=True):
        rows += [np.log(chroma.mean(axis=0) + 0.1), follows.mean(axis=0)]
    change = of.change[pairs(1)]
    mean = change.mean(axis=0) + 0.05
    rows += [np.log(mean), change.std(axis=0) / mean]
    rows += [np.log(change.max(axis=0) + 0.05) - np.log(np.median(change, axis=0) + 0.05)]
    rows += [of.still[pairs(1)].mean(axis=0)]
    rows += [np.log(of.renewed[b, pairs(1)].mean(axis=0) + 0.1) - np.log(usual[b]) for b in range(FINE)]
    for b in range(FINE):
        for n, lag in enumerate(LAGS):
            alike = of.alike[b, n, pairs(lag)]
            rows += [alike.mean(axis=0), alike.std(axis=0)]
    for n, lag in enumerate(LAGS):
        for moved in of.moved[n, :, pairs(lag)]:
            known = _looked_at(moved)
            rows += [known.mean(axis=0), known.min(axis=0), known.std(axis=0)]
    for n, lag in enumerate(LAGS):
        left = _looked_at(of.left[n, pairs(lag)])
        rows += [left.mean(axis=0) - np.log(usual[1]), left.max(axis=0) - np.median(left, axis=0)]
    rows += [_looked_at(traces[pairs(LAGS[TRAVEL])]).mean(axis=0) for traces in (of.travel, of.ripple)]
    return np.stack(rows, axis=1).ravel().astype(np.float32)  # part by part


def _looked_at(traces: Floats) -> Floats:
    """The rows of [T, P] that are no NaN."""
    return traces[np.isfinite(traces[:, 0])]


def _planes(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGB [H, W, 3] as brightness and two colour differences [S, S, 3]."""
    return cv2.cvtColor(shrink(picture, SIDE), cv2.COLOR_RGB2YCrCb).astype(np.uint8)


def _blur(planes: NDArray[np.uint8], by: float) -> Frames:
    """[T, S, S]"""
    return np.stack([cv2.GaussianBlur(plane.astype(np.float32), (0, 0), by) for plane in planes])


def _deviation(rows: Floats) -> Floats:
    """Of each row [N, pixels]."""
    mean = rows.mean(axis=1)
    deviation: Floats = np.sqrt(np.maximum(_product(rows, rows) - mean * mean, 0))
    return deviation


def _correlation(a: Floats, b: Floats) -> Floats:
    """Of the rows of a and b [N, pixels]; 0 where one is flat."""
    together = _product(a, b) - a.mean(axis=1) * b.mean(axis=1)
    correlation: Floats = together / (_deviation(a) * _deviation(b) + 1e-3)
    return correlation


def _product(a: Floats, b: Floats) -> Floats:
    """The mean products of rows [N, pixels]."""
    product: Floats = np.einsum("ij,ij->i", a, b) / np.float32(a.shape[1])
    return product


@lru_cache
def _parts() -> tuple[NDArray[np.int64], tuple[slice, ...]]:
    """The pixels of face, rim and the rest, where `theval prepare` puts a head; and where each begins and ends."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    distance = ((x - 0.5) / 0.31) ** 2 + ((y - 0.53) / 0.41) ** 2
    pixels = [np.flatnonzero(mask) for mask in (distance < 1, (distance >= 1) & (distance <= 1.8), distance > 1.8)]
    ends = np.cumsum([len(own) for own in pixels]).tolist()
    return np.concatenate(pixels), tuple(slice(start, end) for start, end in zip([0, *ends], ends, strict=False))
