"""How the packages that compute FID bring a frame to Inception's 299 px: four ways, four different distances.

Each takes uint8 frames [B, 3, H, W] to the network's input [B, 3, 299, 299], float32. The metric `fid` is that of
pytorch-fid; the others are here to check a number that someone else published, and to name the resize in saved
statistics. On blurred video frames they move the distance by up to 40 %, so no two of them may be mixed.
"""

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

SIZE = 299


def resize_pytorch_fid(frames: Tensor) -> Tensor:
    """pytorch-fid: bilinear between pixel centres, no antialiasing; -1..1."""
    x = F.interpolate(frames.float() / 255, (SIZE, SIZE), mode="bilinear", align_corners=False)
    return 2 * x - 1


def resize_tf1(frames: Tensor) -> Tensor:
    """torch-fidelity, and torchmetrics with antialias=False: TensorFlow 1's bilinear, which measures from the corner.

    Output pixel i is read at i * (input size / 299), no antialiasing; (x - 128) / 128.
    """
    x = frames.float()
    for dimension in (3, 2):  # columns before rows, as there: the last digits depend on it
        length = x.shape[dimension]
        position = torch.arange(SIZE, dtype=torch.float32) * torch.tensor(length / SIZE, dtype=torch.float32)
        low = position.long()
        fraction = (position - low).to(x)
        low = low.to(x.device)
        above = x.index_select(dimension, (low + 1).clamp(max=length - 1))
        x = x.index_select(dimension, low)
        x = x + (above - x) * (fraction if dimension == 3 else fraction[:, None])
    return (x - 128) / 128


def resize_torchmetrics(frames: Tensor) -> Tensor:
    """torchmetrics from 1.8 on: bilinear with antialiasing; (x - 128) / 128."""
    x = F.interpolate(frames.float(), (SIZE, SIZE), mode="bilinear", align_corners=False, antialias=True)
    return (x - 128) / 128


def resize_clean(frames: Tensor) -> Tensor:
    """clean-fid: Pillow's bicubic with antialiasing on float channels, not rounded, cut to 0..255; (x - 128) / 128."""
    channels = frames.float().cpu().flatten(end_dim=1).numpy()  # [B*3, H, W]
    resized = [Image.fromarray(x).resize((SIZE, SIZE), Image.Resampling.BICUBIC) for x in channels]
    x = torch.from_numpy(np.stack([np.asarray(channel) for channel in resized])).to(frames.device)
    return (x.clamp(0, 255).view(-1, 3, SIZE, SIZE) - 128) / 128
