"""EfficientNet-Lite0 that sees, beside the picture, what is left of it by the high-pass filters of steganalysis.

SRM: Fridrich and Kodovsky 2012; as a detector's second input: Zhou et al. (CVPR 2018), Luo et al. (CVPR 2021).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from detectors.efflite0 import EfficientNetLite0, resize
from thead_eval.features import efflite_input

KERNELS = torch.tensor(
    [
        [[0, 0, 0, 0, 0], [0, -1, 2, -1, 0], [0, 2, -4, 2, 0], [0, -1, 2, -1, 0], [0, 0, 0, 0, 0]],
        [[-1, 2, -2, 2, -1], [2, -6, 8, -6, 2], [-2, 8, -12, 8, -2], [2, -6, 8, -6, 2], [-1, 2, -2, 2, -1]],
        [[0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 1, -2, 1, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]],
    ]
) / torch.tensor([4.0, 12.0, 2.0]).view(3, 1, 1)  # [3, 5, 5]
TRUNCATED = 3.0  # residuals beyond count as this: edges are no noise


class Residual(EfficientNetLite0):
    """RGB and three residuals of the grey picture; best at the frames' own size, as resizing takes noise away."""

    def __init__(self, size: int = 224) -> None:
        super().__init__(size, channels=6)
        self.register_buffer("kernels", KERNELS[:, None].clone(), persistent=False)  # [3, 1, 5, 5]

    def forward(self, frames: Tensor) -> Tensor:
        """uint8 [B, 3, H, W] to logits [B]."""
        x = resize(frames, self.size)
        kernels = self.get_buffer("kernels")
        with torch.autocast(x.device.type, enabled=False):  # bfloat16 would round the noise away
            grey = x.mean(dim=1, keepdim=True)  # [B, 1, S, S] 0..255
            left = F.conv2d(F.pad(grey, (2, 2, 2, 2), mode="reflect"), kernels)
            left = left.clamp(-TRUNCATED, TRUNCATED) / TRUNCATED  # [B, 3, S, S]
        return self.judge(torch.cat([efflite_input(x), left], dim=1).contiguous(memory_format=torch.channels_last))
