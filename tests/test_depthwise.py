"""Depthwise convolutions learn the same by the faster way."""

import pytest
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import nn

from detectors.depthwise import Depthwise


@pytest.mark.parametrize(("side", "kernel", "stride", "same"), [(9, 3, 1, True), (10, 5, 2, True), (9, 3, 2, False)])
def test_gradients_are_those_of_the_slow_way(side: int, kernel: int, stride: int, same: bool) -> None:
    torch.manual_seed(0)
    kind = Conv2dSame if same else nn.Conv2d
    conv = kind(6, 6, kernel, stride, padding=0 if same else kernel // 2, groups=6)
    fast = Depthwise(conv, same=same)
    assert fast.state_dict().keys() == conv.state_dict().keys()
    x = torch.randn(2, 6, side, side).bfloat16().float()
    results = []
    for network, mixed in ((conv, False), (fast, True)):
        network.zero_grad()
        seen = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            made = network(seen)
        made.float().square().sum().backward()
        assert seen.grad is not None and conv.weight.grad is not None and conv.bias is not None
        assert conv.bias.grad is not None
        results.append([made.detach().float(), seen.grad, conv.weight.grad.clone(), conv.bias.grad.clone()])
    for slow, quick in zip(*results, strict=True):
        torch.testing.assert_close(quick, slow, rtol=0.05, atol=0.05 * float(slow.abs().max()))
    with torch.no_grad():
        torch.testing.assert_close(fast(x), conv(x))
