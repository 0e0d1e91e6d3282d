"""Depthwise convolutions that learn fast on a CPU in mixed precision.

oneDNN's gradients of them in bfloat16 take up to six times as long as in float32, and longer than all the rest of
EfficientNet. Here that of the input is a convolution, which is fast, and that of the kernels is float32; where kernels
need not learn, none is made.
"""

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.padding import pad_same
from torch import Tensor, nn


class Depthwise(nn.Module):
    """In place of a depthwise nn.Conv2d, whose parameters it takes over under the same names."""

    def __init__(self, conv: nn.Conv2d, *, same: bool) -> None:
        super().__init__()
        assert conv.groups == conv.in_channels == conv.out_channels and conv.bias is not None
        self.weight, self.bias = conv.weight, conv.bias
        self.stride = conv.stride[0]
        self.padding = 0 if same else int(conv.padding[0])
        self.same = same  # padded as TensorFlow does: more at the end where it does not come out even

    def forward(self, x: Tensor) -> Tensor:
        if self.same:
            x = pad_same(x, list(self.weight.shape[-2:]), [self.stride, self.stride])
        if torch.is_grad_enabled() and torch.is_autocast_enabled("cpu") and x.device.type == "cpu":
            made: Tensor = _Depthwise.apply(x, self.weight, self.bias, self.stride, self.padding)
            return made
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding, groups=len(self.weight))


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int) -> Tensor:  # Any: torch's
        x = x.bfloat16()
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight.bfloat16(), bias.bfloat16(), stride, padding, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        C, k = len(weight), weight.shape[-1]
        # The gradient of x is a convolution by the mirrored kernels, of g with zeros between its pixels.
        between = g
        if ctx.stride > 1:
            B, _, H, W = g.shape
            spaced = [B, C, (H - 1) * ctx.stride + 1, (W - 1) * ctx.stride + 1]
            between = torch.empty(spaced, dtype=g.dtype, memory_format=torch.channels_last).zero_()
            between[..., :: ctx.stride, :: ctx.stride] = g
        g_x = F.conv2d(between, weight.bfloat16().flip(2, 3), padding=k - 1 - ctx.padding, groups=C)
        below, right = (x.shape[side] - g_x.shape[side] for side in (2, 3))
        if below or right:  # pixels of x that no step of the kernel reaches
            g_x = F.pad(g_x, (0, right, 0, below))
        g_bias = g.sum((0, 2, 3), dtype=torch.float32)
        g_weight = None
        if ctx.needs_input_grad[1]:
            settings = [C], [ctx.stride] * 2, [ctx.padding] * 2, [1, 1], False, [0, 0], C, [False, True, False]
            _, g_weight, _ = torch.ops.aten.convolution_backward(g.float(), x.float(), weight, *settings)
        return g_x, g_weight, g_bias, None, None


def speed_up(network: nn.Module) -> nn.Module:
    """The network with `Depthwise` in place of each of its depthwise convolutions that has a bias."""
    from timm.layers.conv2d_same import Conv2dSame

    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Conv2d) and child.groups == child.in_channels == child.out_channels > 1:
                setattr(module, name, Depthwise(child, same=isinstance(child, Conv2dSame)))
    return network
