"""Pixel metrics: arithmetic by hand, and agreement with skimage and torchmetrics."""

import json
import math

import pytest
import torch
from torch import Tensor

from tests.golden import distances as golden
from thead_eval.metrics.similarity import MS_SSIM_MINIMUM, l1, ms_ssim, psnr, ssim
from thead_eval.types import PixelMetric

METRICS = (ssim, ms_ssim, psnr, l1)
CPU = torch.device("cpu")


def judge(metric: PixelMetric, fake: Tensor, real: Tensor) -> list[float]:
    values = metric.load(CPU)(fake, real)
    assert values.dtype == torch.float64 and values.shape == (len(fake),)
    return values.tolist()


def solid(value: int, size: int = 32) -> Tensor:
    return torch.full((1, 3, size, size), value, dtype=torch.uint8)


@pytest.mark.parametrize(("metric", "best"), [(ssim, 1.0), (ms_ssim, 1.0), (psnr, 100.0), (l1, 0.0)])
def test_identical_frames_are_best(metric: PixelMetric, best: float) -> None:
    frames, _ = golden.frames(2, 180, 200, noise=20)
    assert judge(metric, frames, frames) == pytest.approx([best, best], abs=0 if metric is not ms_ssim else 1e-6)


def test_known_values() -> None:
    assert judge(l1, solid(10), solid(13)) == [3.0]
    assert judge(psnr, solid(10), solid(13)) == pytest.approx([20 * math.log10(255 / 3)])
    assert judge(psnr, solid(0), solid(255)) == [0.0]
    c1 = (0.01 * 255) ** 2  # flat frames: only the luminance term differs from 1
    assert judge(ssim, solid(0), solid(255)) == pytest.approx([c1 / (255**2 + c1)], abs=1e-6)


def test_psnr_is_a_value_per_frame_and_not_of_the_pooled_error() -> None:
    fake, real = torch.cat([solid(0), solid(100)]), torch.cat([solid(1), solid(110)])
    assert judge(psnr, fake, real) == pytest.approx([20 * math.log10(255), 20 * math.log10(25.5)])


@pytest.mark.parametrize("case", json.loads(golden.FILE.read_text())["ssim"].items(), ids=lambda case: case[0])
def test_ssim_is_that_of_skimage(case: tuple[str, float]) -> None:
    height, width, noise = map(int, case[0].split())
    assert judge(ssim, *golden.frames(1, height, width, noise)) == pytest.approx([case[1]], abs=1e-6)


def test_ssim_is_that_of_the_installed_skimage() -> None:
    pytest.importorskip("skimage")
    for case, value in golden.ssim_of_skimage().items():
        height, width, noise = map(int, case.split())
        assert judge(ssim, *golden.frames(1, height, width, noise)) == pytest.approx([value], abs=1e-6)


def test_ssim_of_nearly_white_frames_keeps_its_digits() -> None:
    structural_similarity = pytest.importorskip("skimage.metrics").structural_similarity
    real = solid(255, 64)
    fake = real.clone()
    fake[..., ::2] = 254
    pixels = [x[0].permute(1, 2, 0).numpy() for x in (fake, real)]
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    assert judge(ssim, fake, real) == pytest.approx(
        [structural_similarity(*pixels, channel_axis=2, **settings)], abs=1e-7
    )


def test_ms_ssim_is_that_of_torchmetrics_frame_by_frame() -> None:
    from torchmetrics.image import MultiScaleStructuralSimilarityIndexMeasure

    fake, real = golden.frames(2, 180, 200, noise=25)
    for i in range(2):
        metric = MultiScaleStructuralSimilarityIndexMeasure(data_range=255.0)
        value = metric(fake[i : i + 1].float(), real[i : i + 1].float())
        assert judge(ms_ssim, fake, real)[i] == pytest.approx(float(value), abs=1e-6)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_the_batch_does_not_matter(metric: PixelMetric) -> None:
    fake, real = golden.frames(3, 180, 200, noise=25)
    together = judge(metric, fake, real)
    alone = [judge(metric, fake[i : i + 1], real[i : i + 1])[0] for i in range(3)]
    assert together == pytest.approx(alone, abs=1e-6)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_frames_as_small_as_the_metric_says(metric: PixelMetric) -> None:
    smallest = metric.minimum_size
    assert math.isfinite(judge(metric, *golden.frames(1, smallest, smallest + 3, noise=5))[0])
    if smallest > 1:
        with pytest.raises(ValueError, match=f"are smaller than {smallest} pixels"):
            judge(metric, *golden.frames(1, smallest + 3, smallest - 1, noise=5))


def test_torchmetrics_needs_the_size_that_ms_ssim_says() -> None:
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    fake, real = (x.float() for x in golden.frames(1, MS_SSIM_MINIMUM - 1, MS_SSIM_MINIMUM, noise=5))
    with pytest.raises(ValueError, match="image height must be larger"):
        multiscale_structural_similarity_index_measure(fake, real, data_range=255.0)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_frames_that_do_not_fit_are_refused(metric: PixelMetric) -> None:
    frames = torch.zeros(2, 3, 180, 180, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"uint8 \[B, 3, H, W\], not float32"):
        judge(metric, frames.float() / 255, frames)
    with pytest.raises(ValueError, match=r"uint8 \[B, 3, H, W\], not uint8 \[2, 1, 180, 180\]"):
        judge(metric, frames, frames[:, :1])
    with pytest.raises(ValueError, match="differ in shape"):
        judge(metric, frames, frames[:1])
