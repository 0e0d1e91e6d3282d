"""Any network of timm as a detector of single frames."""

from difflib import get_close_matches
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from detectors.efflite0 import resize
from thead_eval.errors import ConfigError, WeightsMissing


class Backbone(nn.Module):
    """Frames one by one. Pretrained normalisation keeps its statistics; of random weights, it learns them."""

    window = 1
    stride = 1

    def __init__(self, backbone: str = "", size: int = 224, weights: str = "") -> None:
        super().__init__()
        if not timm.is_model(backbone):
            near = get_close_matches(backbone, timm.list_models(), 3) or ["resnet18", "legacy_xception"]
            raise ConfigError(f"timm has no network '{backbone}'; name one as timm:NAME, such as {', '.join(near)}")
        self.size = size
        self.weights = weights  # a file of the backbone's own, to start from; '': random
        network: Any = timm.create_model(backbone, num_classes=0)  # Any: timm's own attributes
        self.network: nn.Module = network
        self.head = nn.Linear(network.num_features, 1)
        for name in ("mean", "std"):
            values = torch.tensor(network.default_cfg[name]).view(3, 1, 1) * 255
            self.register_buffer(name, values, persistent=False)

    def start(self) -> None:
        """Take the backbone's weights from their file; the output starts without an opinion.

        Raises:
            WeightsMissing: there is no such file.
            ConfigError: it is of another network.
        """
        if self.weights:
            path = Path(self.weights).expanduser()
            if not path.is_file():
                raise WeightsMissing(
                    f"'{path}' is not there; set [network] weights to a file of the backbone's weights"
                )
            whole = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
            state = {name: tensor for name, tensor in whole.items() if name in self.network.state_dict()}
            try:
                self.network.load_state_dict(state)
            except RuntimeError as error:
                detail = str(error).split("\n\t")[-1].strip()
                raise ConfigError(
                    f"'{path}' holds another network ({detail}); name the backbone's own weights"
                ) from None
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def train(self, mode: bool = True) -> "Backbone":
        super().train(mode)
        for module in self.network.modules():
            if self.weights and isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def forward(self, frames: Tensor) -> Tensor:
        """uint8 [B, 3, H, W] to logits [B]."""
        return self.judge((resize(frames, self.size) - self.get_buffer("mean")) / self.get_buffer("std"))

    def learn(self, windows: Tensor) -> Tensor:
        """A training's samples, uint8 [B, 1, 3, H, W], to logits [B]."""
        return self(windows[:, 0])  # type: ignore[no-any-return]  # what `forward` gives

    def judge(self, x: Tensor) -> Tensor:
        """Float [B, 3, size, size] as the network sees them to logits [B]."""
        logits: Tensor = self.head(self.network(x.contiguous(memory_format=torch.channels_last)))[:, 0].float()
        return logits
