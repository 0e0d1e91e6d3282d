"""EfficientNet-Lite0 that sees, beside the picture, three bands of its frequencies, with filters that learn.

F3Net's frequency-aware decomposition (Qian et al., ECCV 2020). Different here: a smaller network than Xception, the
picture itself instead of its fourth band of all frequencies, and no second branch of local frequencies' statistics.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from detectors.efflite0 import EfficientNetLite0, resize
from thead_eval.features import efflite_input

BANDS = (0.0, 8**-0.5, 0.5, 2.0)  # of i + j, in sides: a sixteenth of all frequencies, as much again, and the rest


class Frequency(EfficientNetLite0):
    """RGB, and its low, middle and high band; best at the frames' own size, as resizing takes the highest away."""

    def __init__(self, size: int = 224) -> None:
        super().__init__(size, channels=12)
        n = torch.arange(size, dtype=torch.float64)
        dct = torch.cos(torch.pi / size * (n + 0.5) * n[:, None]) * (2 / size) ** 0.5
        dct[0] *= 0.5**0.5
        self.register_buffer("dct", dct.float(), persistent=False)  # [S, S] orthonormal
        distance = n + n[:, None]
        base = [(distance >= low * size) & (distance < high * size) for low, high in pairwise(BANDS)]
        self.register_buffer("base", torch.stack(base).float(), persistent=False)  # [3, S, S]
        self.learnt = nn.Parameter(torch.zeros(3, size, size))

    def forward(self, frames: Tensor) -> Tensor:
        """uint8 [B, 3, H, W] to logits [B]."""
        x = efflite_input(resize(frames, self.size))
        with torch.autocast(x.device.type, enabled=False):  # bfloat16 would round the high band away
            bands = [self.band(x, n) for n in range(3)]  # [B, 3, S, S] each
        return self.judge(torch.cat([x, *bands], dim=1).contiguous(memory_format=torch.channels_last))

    def band(self, x: Tensor, n: int) -> Tensor:
        """What of pictures [B, 3, S, S] the filter `n` lets through."""
        dct = self.get_buffer("dct")
        passed = self.get_buffer("base")[n] + torch.tanh(self.learnt[n] / 2)
        return dct.T @ (dct @ x @ dct.T * passed) @ dct
