"""Where a face was set into a frame that someone filmed: textures of face, rim and the rest, and a line over them.

It learns from real frames that were blended with themselves, as a network does by Shiohara and Yamasaki (CVPR 2022),
and needs no fakes. What a swap leaves is small and local; so it looks at lower stages than `probe`, and at what a
high-pass filter leaves of the frame too.
"""

from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from detectors.efflite0 import resize
from detectors.linear import Line
from detectors.probe import REGIONS, WIDTHS, Frozen, sum_up
from thead_eval.evidence import SIDE
from thead_eval.features import efflite_input

STAGES = (2, 3)
CHANNELS = tuple(WIDTHS[stage - 1] for stage in STAGES)
BLUR = 1.5  # pixels: what is finer is what the filter leaves
GAIN = 4.0  # by which it is made stronger, so that the network sees it
BLURRED = 0.15  # of the real frames that are learnt from, changed ones among them: in these there is too little to see


class Sighted(Line):
    """A line to which a frame with less fine detail than 85 % of real ones is no more of a fake than a usual real one.

    Blends are often blurred in part, and a line takes a picture for one that is blurred as a whole. Alone, it called
    all of 18 real clips fake that were blurred by 2.5 pixels of 224, and like this none; of eight swaps it lost none.
    """

    strengths: ClassVar[tuple[float, ...]] = (1e-2,)  # as these swaps, from which it had not learnt, liked it

    def __init__(self, count: int, detail: slice) -> None:
        super().__init__(count)
        self.detail = detail  # the numbers that say how much there is
        self.register_buffer("least", torch.tensor(-torch.inf))
        self.register_buffer("usual", torch.tensor(0.0))

    def forward(self, x: Tensor) -> Tensor:
        """[..., D], on any device, to [...]; NaN where one of the numbers is."""
        logits = super().forward(x)
        least, usual = self.get_buffer("least"), self.get_buffer("usual")
        return torch.where(self.sharpness(x.to(least.device)) < least, torch.minimum(logits, usual), logits)

    def sharpness(self, x: Tensor) -> Tensor:
        """[..., D] to [...]"""
        return x[..., self.detail].clamp(min=1e-3).log().mean(dim=-1)

    def fit(
        self, numbers: NDArray[np.float64], fake: NDArray[np.bool_], weights: NDArray[np.float64], strength: float
    ) -> None:
        """Fit to rows [N, D] without NaN."""
        super().fit(numbers, fake, weights, strength)
        real = torch.from_numpy(numbers[~fake]).float()
        self.get_buffer("least").copy_(self.sharpness(real).quantile(BLURRED))
        self.get_buffer("usual").copy_(super().forward(real).median())


class Seam(Frozen):
    """Mean and deviation of 64 channels over a frame and three regions of it, and of its fine detail: 1024 numbers."""

    lite = 0  # the eight swaps were .92 by it, .88 by Lite1, before detail was minded
    defaults: ClassVar = {"frames": 12, "validation_frames": 8, "blends": 1.0}

    def __init__(self) -> None:
        each = 2 * REGIONS * sum(CHANNELS)  # numbers of the frame, and as many of its fine detail
        # Of the latter, how far the first stage's channels deviate over the whole frame: see `sum_up`.
        first = each + REGIONS * CHANNELS[0]
        super().__init__(max(STAGES), Sighted(2 * each, slice(first, first + CHANNELS[0])))
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
