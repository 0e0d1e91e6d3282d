"""dlib's face recognition network, version 1, with the weights of dlib's own file in PyTorch, where it is fast.

The network is `anet_type` of dlib's example dnn_face_recognition_ex.cpp: a ResNet with 29 convolutions, each followed
by an affine layer that is folded into it here.
"""

import re
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thead_eval import weights
from thead_eval.errors import WeightsCorrupt

CHIP_SIZE = 150  # pixels
MEAN_RED, MEAN_GREEN, MEAN_BLUE = 122.782, 117.001, 104.298  # of the pictures that it was trained on

# The names of the layers that have weights, as dlib writes a string: the size of its length, its length, its letters.
LAYER = re.compile(rb"\x01(?:\x05con_4|\x07affine_|\x04(fc_2))")
TENSOR_VERSION = 2  # of dlib's format: the numbers are raw float32


class Residual(nn.Module):
    """Two convolutions added to what went in; one that halves the sides adds to its average instead."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        # dlib pads none of the convolutions that skip pixels.
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1 if stride == 1 else 0)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(F.relu(self.conv1(x)))
        if self.stride > 1:
            # Here y has more channels than x, and where the side was even a row and a column less (3 of 8, 1 of 4).
            # dlib adds them with their first corners together, as if zeros filled up what either lacks.
            x = F.avg_pool2d(x, self.stride)
            y = F.pad(y, (0, x.shape[3] - y.shape[3], 0, x.shape[2] - y.shape[2]))
        y[:, : x.shape[1]] += x
        return F.relu_(y)


class DlibResnet(nn.Module):
    """Chips [B, 3, 150, 150] uint8 RGB to descriptors [B, 128] float32, whose L2 distance is below 0.6 for a person."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 32, 7, stride=2)
        self.blocks = nn.Sequential(
            *(Residual(32, 32, 1), Residual(32, 32, 1), Residual(32, 32, 1)),
            *(Residual(32, 64, 2), Residual(64, 64, 1), Residual(64, 64, 1), Residual(64, 64, 1)),
            *(Residual(64, 128, 2), Residual(128, 128, 1), Residual(128, 128, 1)),
            *(Residual(128, 256, 2), Residual(256, 256, 1), Residual(256, 256, 1)),
            Residual(256, 256, 2),
        )
        self.descriptor = nn.Linear(256, 128, bias=False)

    def forward(self, chips: Tensor) -> Tensor:
        x = self.blocks(self.stem(chips))  # [B, 256, 2, 2]
        descriptor: Tensor = self.descriptor(x.mean(dim=(2, 3)))
        return descriptor

    def stem(self, chips: Tensor) -> Tensor:
        """Chips 0..255 to the first blocks' input [B, 32, 35, 35]."""
        mean = torch.tensor([MEAN_RED, MEAN_GREEN, MEAN_BLUE], device=chips.device)
        x = (chips - mean[:, None, None]) / 256
        return F.max_pool2d(F.relu(self.conv(x)), 3, stride=2)


def read_dlib_resnet(path: Path) -> DlibResnet:
    """The network with the weights of dlib_face_recognition_resnet_model_v1.dat.

    Raises:
        WeightsCorrupt: the file holds other layers, or not all of them.
    """
    with torch.device("meta"):  # the file fills it
        network = DlibResnet()
    convolutions = {name: module for name, module in network.named_modules() if isinstance(module, nn.Conv2d)}
    layers = read_layers(path)
    sizes = [n for c in convolutions.values() for n in (c.weight.numel() + c.out_channels, 2 * c.out_channels)]
    sizes.append(network.descriptor.weight.numel())
    if [len(layer) for layer in layers] != sizes:
        raise WeightsCorrupt(
            f"'{path}' is not dlib's face recognition network, version 1: it has {len(layers)} readable layers with "
            f"weights, not {len(sizes)}, or of other sizes; run '{weights.remedy(weights.TABLE['dlib_resnet'])}'"
        )
    state = {}
    for i, (name, convolution) in enumerate(convolutions.items()):
        n = convolution.out_channels
        weight, bias = layers[2 * i][:-n], layers[2 * i][-n:]
        factor, shift = layers[2 * i + 1][:n], layers[2 * i + 1][n:]  # of the affine layer
        state[f"{name}.weight"] = weight.view(convolution.weight.shape) * factor[:, None, None, None]
        state[f"{name}.bias"] = bias * factor + shift
    state["descriptor.weight"] = layers[-1].view(256, 128).T  # dlib multiplies rows by it
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False)


def read_layers(path: Path) -> list[Tensor]:
    """The weights [n] float32 of each layer that has any, from the picture to the descriptor, as far as they go.

    The file is a stream of named layers, the input's first. What else is in it (learning rates, shapes, sizes for
    training) is passed over: the network is a fixed one.
    """
    data = path.read_bytes()
    layers = []
    end = 0
    # Only what lies between tensors is searched, so that no number is taken for a name.
    while name := LAYER.search(data, end):
        start = name.end()
        if name[1]:  # a fully connected layer has its numbers of outputs and inputs first
            _, start = read_integer(data, start)
            _, start = read_integer(data, start)
        version, start = read_integer(data, start)
        count = 1
        for _ in range(4):  # samples, channels, rows, columns
            side, start = read_integer(data, start)
            count *= side
        end = start + 4 * count
        if version != TENSOR_VERSION or end > len(data):
            break
        layers.append(torch.from_numpy(np.frombuffer(data, "<f4", count, start).astype(np.float32)))
    return layers


def read_integer(data: bytes, start: int) -> tuple[int, int]:
    """An integer of dlib's format, which is a byte that says how many follow and these, and where it ends.

    0 beyond the end of the file. Negative ones are not read: no size is.
    """
    end = start + 1 + int.from_bytes(data[start : start + 1])
    return int.from_bytes(data[start + 1 : end], "little"), end
