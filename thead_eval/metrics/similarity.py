"""Metrics of a fake frame's pixels against its real one's: SSIM, MS-SSIM, PSNR, L1."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from thead_eval.types import CompareFunction, PixelMetric, describe

WINDOW = 11  # pixels
SIGMA = 1.5  # of the Gaussian window, pixels
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2  # Wang et al. 2004, equation 13
PSNR_CAP = 100.0  # dB; identical frames have no finite PSNR
MS_SSIM_MINIMUM = WINDOW * 2**4  # four halvings leave the window's 11 pixels


def compare_ssim(fake: Tensor, real: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004, equation 13), mean over the channels and the window's valid positions.

    Raises:
        ValueError: not two uint8 [B, 3, H, W] of one shape, or a side is shorter than 11 pixels.
    """
    _check(fake, real, WINDOW)
    offsets = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    window = torch.softmax(-offsets.square() / (2 * SIGMA**2), dim=0).float().to(fake.device)  # a Gaussian with sum 1
    # Frame by frame: the maps of a batch do not fit into a processor's cache, those of a frame do.
    pairs = zip(fake[:, None].float(), real[:, None].float(), strict=True)  # [1, 3, H, W] each
    return torch.stack([_mean_similarity(a, b, window) for a, b in pairs])  # [B]


def _mean_similarity(a: Tensor, b: Tensor, window: Tensor) -> Tensor:
    """SSIM of two float frames [1, 3, H, W] on 0..255.

    They enter as their sum and difference, from which the variances of the formula follow: four filtered maps instead
    of five, exactly 1 for identical frames, and no cancellation where they nearly agree, so that float32 is enough.
    """
    total, difference = a + b, a - b
    # Variances do not change when a constant is taken away, and rounding shrinks with the squares. A whole number, so
    # that the squares stay exact.
    origin = total.mean(dim=(2, 3), keepdim=True).round()
    total = total - origin
    maps = torch.cat([total, difference, total.square(), difference.square()], dim=1)  # [1, 12, H, W]
    maps = maps.contiguous(memory_format=torch.channels_last)
    maps = F.conv2d(maps, window.view(1, 1, -1, 1).expand(12, 1, -1, 1), groups=12)
    maps = F.conv2d(maps, window.view(1, 1, 1, -1).expand(12, 1, 1, -1), groups=12)  # [1, 12, H - 10, W - 10]
    mean_total, mean_difference, square_total, square_difference = maps.chunk(4, dim=1)
    variance_total = square_total - mean_total.square()
    variance_difference = square_difference - mean_difference.square()
    luminance_total, luminance_difference = (mean_total + origin).square(), mean_difference.square()
    # Twice numerator and denominator, as 4 x y = (x + y)^2 - (x - y)^2 and 2 (x^2 + y^2) = (x + y)^2 + (x - y)^2.
    above = (luminance_total - luminance_difference + 2 * C1) * (variance_total - variance_difference + 2 * C2)
    below = (luminance_total + luminance_difference + 2 * C1) * (variance_total + variance_difference + 2 * C2)
    return (above / below).mean(dtype=torch.float64)


def compare_ms_ssim(fake: Tensor, real: Tensor) -> Tensor:
    """Multi-scale structural similarity (Wang et al. 2003) as torchmetrics computes it.

    Raises:
        ValueError: not two uint8 [B, 3, H, W] of one shape, or a side is shorter than 176 pixels.
    """
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    _check(fake, real, MS_SSIM_MINIMUM)

    def similarity(a: Tensor, b: Tensor) -> Tensor:
        a, b = (x.float().contiguous(memory_format=torch.channels_last) for x in (a, b))
        value: Tensor = multiscale_structural_similarity_index_measure(a, b, data_range=255.0, reduction="none")
        return value.reshape(())

    # Frame by frame and channels last: the same numbers, more than twice as fast.
    return torch.stack([similarity(a, b) for a, b in zip(fake[:, None], real[:, None], strict=True)]).double()


def compare_psnr(fake: Tensor, real: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each frame, at most 100 dB, which is what identical frames get.

    Raises:
        ValueError: not two uint8 [B, 3, H, W] of one shape.
    """
    _check(fake, real, 1)
    squared_error = (fake.double() - real.double()).square().mean(dim=(1, 2, 3))  # [B]
    return (10 * torch.log10(255**2 / squared_error)).clamp(max=PSNR_CAP)


def compare_l1(fake: Tensor, real: Tensor) -> Tensor:
    """Mean absolute difference on 0..255.

    Raises:
        ValueError: not two uint8 [B, 3, H, W] of one shape.
    """
    _check(fake, real, 1)
    return (fake.double() - real.double()).abs().mean(dim=(1, 2, 3))


def _check(fake: Tensor, real: Tensor, minimum_size: int) -> None:
    for frames in (fake, real):
        if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[1] != 3:
            raise ValueError(f"frames must be uint8 [B, 3, H, W], not {describe(frames)}")
    if fake.shape != real.shape:
        raise ValueError(f"fake and real frames differ in shape: {list(fake.shape)} and {list(real.shape)}")
    if min(fake.shape[2:]) < minimum_size:
        raise ValueError(f"frames of {list(fake.shape[2:])} are smaller than {minimum_size} pixels")


def _on(compare: CompareFunction) -> Callable[[torch.device], CompareFunction]:
    """A factory that moves frames to its device."""
    return lambda device: lambda fake, real: compare(fake.to(device), real.to(device))


ssim = PixelMetric(
    name="ssim",
    higher_is_better=True,
    unit="",
    summary="SSIM: Gaussian window 11 px, sigma 1.5, K1 .01, K2 .03, data range 255, population covariance, mean over "
    "R, G, B and the window's valid positions; as skimage with gaussian_weights",
    load=_on(compare_ssim),
    minimum_size=WINDOW,
)

ms_ssim = PixelMetric(
    name="ms_ssim",
    higher_is_better=True,
    unit="",
    summary="MS-SSIM of torchmetrics: five scales, Gaussian window 11 px, sigma 1.5, K1 .01, K2 .03, data range 255, "
    "negative terms set to 0, reflected border included, mean over R, G, B; a value per frame",
    load=_on(compare_ms_ssim),
    minimum_size=MS_SSIM_MINIMUM,
)

psnr = PixelMetric(
    name="psnr",
    higher_is_better=True,
    unit="dB",
    summary="PSNR of each frame over R, G, B, peak 255, capped at 100 dB (identical frames); then the mean over frames",
    load=_on(compare_psnr),
)

l1 = PixelMetric(
    name="l1",
    higher_is_better=False,
    unit="0..255",
    summary="Mean absolute difference of R, G, B on 0..255",
    load=_on(compare_l1),
)
