"""EfficientNet-Lite0 on four frames at once, laid out as one picture: TALL (Xu et al., ICCV 2023)."""

import torch
from torch import Tensor

from detectors.efflite0 import EfficientNetLite0, resize
from thead_eval.evidence import window_span
from thead_eval.features import efflite_input


class Thumbnails(EfficientNetLite0):
    """Every second of seven consecutive frames as a 2 x 2 picture, so that what differs between them is in sight."""

    window = 4
    stride = 2

    def __init__(self, size: int = 112) -> None:
        super().__init__(size)  # of each of the four

    def forward(self, frames: Tensor) -> Tensor:
        """uint8 [T, 3, H, W], consecutive, to logits [T]: each frame that of its window, or NaN."""
        T, span = len(frames), window_span(self.window, self.stride)
        if span > T:
            return torch.full((T,), torch.nan, device=frames.device)
        starts = [min(start, T - span) for start in range(0, T, span)]
        taken = [start + n * self.stride for start in starts for n in range(self.window)]
        windows = frames[taken].view(len(starts), self.window, *frames.shape[1:])
        return self.learn(windows)[[min(frame // span, len(starts) - 1) for frame in range(T)]]

    def learn(self, windows: Tensor) -> Tensor:
        """Windows uint8 [B, 4, 3, H, W] to logits [B]."""
        x = resize(windows.flatten(0, 1), self.size)  # [B * 4, 3, S, S]
        x = x.view(*windows.shape[:2], *x.shape[1:])
        rows = [torch.cat([x[:, n], x[:, n + 1]], dim=3) for n in (0, 2)]
        return self.judge(efflite_input(torch.cat(rows, dim=2)))  # [B, 3, 2S, 2S]
