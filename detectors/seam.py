"""Where a face was set into a frame that someone filmed: textures of face, rim and the rest, and a line over them.

It learns from real frames that were blended with themselves, as a network does by Shiohara and Yamasaki (CVPR 2022),
and needs no fakes. What a swap leaves is small and local; so it looks at lower stages than `probe`, and at what a
high-pass filter leaves of the frame too.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from detectors.efflite0 import resize
from detectors.linear import Line
from detectors.probe import REGIONS, WIDTHS, Frozen, sum_up
from thead_eval.evidence import SIDE
from thead_eval.features import efflite_input

STAGES = (2, 3)
BLUR = 1.5  # pixels: what is finer is what the filter leaves
GAIN = 4.0  # by which it is made stronger, so that the network sees it


class Tight(Line):
    """A line as strong as eight swaps by others, from which it had not learnt, liked it: see `probe.Held`."""

    strengths: ClassVar[tuple[float, ...]] = (1e-2,)


class Seam(Frozen):
    """Mean and deviation of 64 channels over a frame and three regions of it, and of its fine detail: 1024 numbers."""

    lite = 0  # the eight swaps were .92 by it, .88 by Lite1
    defaults: ClassVar = {"frames": 12, "validation_frames": 8, "blends": 1.0}

    def __init__(self) -> None:
        channels = sum(WIDTHS[stage - 1] for stage in STAGES)
        super().__init__(max(STAGES), Tight(2 * 2 * REGIONS * channels))
        reach = int(3.5 * BLUR)
        bell = torch.exp(-(torch.arange(-reach, reach + 1).float() ** 2) / (2 * BLUR**2))
        self.register_buffer("bell", bell / bell.sum(), persistent=False)

    def look(self, frames: Tensor) -> Tensor:
        """uint8 [T, 3, H, W] to [T, 1024]."""
        x = resize(frames, SIDE)
        detail = ((x - self.blur(x)) * GAIN + 128).clamp(0, 255)
        return torch.cat([self.climb(x), self.climb(detail)], dim=1)

    def climb(self, x: Tensor) -> Tensor:
        """[T, 3, S, S] in 0..255 to [T, 512]."""
        x = efflite_input(x)
        found = []
        for stage, block in enumerate(self.network):
            x = block(x)
            if stage in STAGES:
                found.append(sum_up(x))
        return torch.cat(found, dim=1)

    def blur(self, x: Tensor) -> Tensor:
        """Each channel for itself."""
        bell = self.get_buffer("bell").expand(3, 1, 1, -1)
        reach = bell.shape[-1] // 2
        x = F.conv2d(F.pad(x, (reach, reach, 0, 0), mode="reflect"), bell, groups=3)
        return F.conv2d(F.pad(x, (0, 0, reach, reach), mode="reflect"), bell.transpose(2, 3), groups=3)
