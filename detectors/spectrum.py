"""The power spectrum, averaged over all directions, and a line through it: the baseline that needs no network.

Durall et al. (CVPR 2020): up-sampling leaves its mark in the high frequencies.
"""

import torch
from torch import Tensor, nn

from detectors.efflite0 import resize
from detectors.linear import Line
from thead_eval.evidence import SIDE


class Spectrum(nn.Module):
    """112 numbers a frame: log power of the grey picture at each distance from the middle of its spectrum."""

    window = 1
    stride = 1
    fits_on = "train"

    def __init__(self) -> None:
        super().__init__()
        self.rule = Line(SIDE // 2)
        fade = torch.hann_window(SIDE, periodic=False)
        self.register_buffer("fade", fade[:, None] * fade, persistent=False)  # [S, S]: borders are no edges
        y, x = torch.fft.fftfreq(SIDE) * SIDE, torch.fft.rfftfreq(SIDE) * SIDE
        distance = torch.hypot(y[:, None], x).round().long()  # [S, S / 2 + 1]
        self.register_buffer("distance", distance.clamp(max=SIDE // 2), persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        """uint8 [T, 3, H, W] to logits [T]."""
        return self.rule(self.measure(frames[:, None]))  # type: ignore[no-any-return]  # what Line gives

    def measure(self, windows: Tensor) -> Tensor:
        """uint8 [B, 1, 3, H, W] to [B, 112]."""
        grey = resize(windows[:, 0], SIDE).mean(dim=1)  # [B, S, S]
        grey = (grey - grey.mean(dim=(1, 2), keepdim=True)) * self.get_buffer("fade")
        power = torch.fft.rfft2(grey).abs().square()  # [B, S, S / 2 + 1]
        ring = self.get_buffer("distance").flatten()
        rings = SIDE // 2 + 1  # the last, beyond the picture's own, is left out
        sums = torch.zeros(len(grey), rings, device=grey.device).index_add(1, ring, power.flatten(1))
        means = sums / torch.bincount(ring, minlength=rings)
        return torch.log(means[:, : SIDE // 2] + 1e-3)
