"""How different two frames look to a network trained on photographs."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thead_eval import weights
from thead_eval.features import efflite_input, efflite_network, full_precision, read_state
from thead_eval.types import CompareFunction, PixelMetric

BATCH = 8  # frames of either side in memory at a time


def unit_distance(a: Tensor, b: Tensor) -> Tensor:
    """The distance of two feature maps [B, C, H, W], [B]: LPIPS with all its weights 1.

    Zhang et al. 2018, equation 1: each position's channels to unit length, squared difference, summed over the
    channels, mean over the positions; 0..4.
    """
    return (F.normalize(a, dim=1) - F.normalize(b, dim=1)).square().sum(dim=1).mean(dim=(1, 2))


def _load_perc_efflite0(device: torch.device) -> CompareFunction:
    network: Any = efflite_network(0).to(device).to(memory_format=torch.channels_last)  # Any: timm's own methods

    def stages(frames: Tensor) -> list[Tensor]:  # five, each the last before its size halves: 1/2 to 1/32
        maps: list[Tensor] = network.forward_intermediates(efflite_input(frames), intermediates_only=True)
        return maps

    def distance(fake: Tensor, real: Tensor) -> Tensor:
        # Both in one batch: below 16 frames, one thread runs 1x1 convolutions by a slow path.
        maps = [torch.chunk(both, 2) for both in stages(torch.cat([fake, real]))]
        return torch.stack([unit_distance(a, b) for a, b in maps]).mean(dim=0)

    return lambda fake, real: _in_batches(distance, fake, real, device)


def lpips_network(alexnet: Mapping[str, Tensor]) -> nn.Module:
    """LPIPS 0.1 on the AlexNet of this state, two of [B, 3, H, W] in -1..1 to [B, 1, 1, 1]; the package has the heads.

    Raises:
        WeightsMissing: the package is not installed.
    """
    import lpips

    heads = weights.path("lpips_heads")
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        # lpips asks torchvision by an old name for an AlexNet, random here, and replaced below.
        warnings.filterwarnings("ignore", category=UserWarning, module="torchvision")
        network: nn.Module = lpips.LPIPS(
            net="alex", version="0.1", pnet_rand=True, model_path=str(heads), verbose=False
        )
    trunk: Any = network.net  # Any: lpips has no types
    for part in (trunk.slice1, trunk.slice2, trunk.slice3, trunk.slice4, trunk.slice5):
        # Its slices keep the layers' numbers in torchvision's `features`.
        part.load_state_dict({name: alexnet[f"features.{name}"] for name in part.state_dict()})
    return network


def lpips_comparison(network: nn.Module, device: torch.device) -> CompareFunction:
    """uint8 frames to LPIPS."""
    network = network.to(device)

    def distance(fake: Tensor, real: Tensor) -> Tensor:
        value: Tensor = network(fake.float() / 127.5 - 1, real.float() / 127.5 - 1)
        return value[:, 0, 0, 0]

    return lambda fake, real: _in_batches(distance, fake, real, device)


def _load_lpips_alex(device: torch.device) -> CompareFunction:
    return lpips_comparison(lpips_network(read_state("alexnet")), device)


def _in_batches(
    distance: Callable[[Tensor, Tensor], Tensor], fake: Tensor, real: Tensor, device: torch.device
) -> Tensor:
    with torch.no_grad(), full_precision():
        pairs = zip(torch.split(fake, BATCH), torch.split(real, BATCH), strict=True)
        return torch.cat([distance(a.to(device), b.to(device)).double().cpu() for a, b in pairs])


perc_efflite0 = PixelMetric(
    name="perc_efflite0",
    higher_is_better=False,
    unit="",
    summary="Distance of EfficientNet-Lite0 features (ImageNet) at the frame's own size: maps of the five stages, each "
    "the last before its size halves, channels to unit length, squared difference summed over the channels, mean over "
    "positions and stages; LPIPS without learned weights, 0..4",
    load=_load_perc_efflite0,
    weights=("efflite0",),
    minimum_size=32,
)

lpips_alex = PixelMetric(
    name="lpips_alex",
    higher_is_better=False,
    unit="",
    summary="LPIPS 0.1 on AlexNet (Zhang et al. 2018, package lpips) at the frame's own size, 0..255 to -1..1",
    load=_load_lpips_alex,
    weights=("alexnet", "lpips_heads"),
    minimum_size=31,
)
