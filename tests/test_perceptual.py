"""Perceptual distances: LPIPS equals its package, and the offline one behaves as a distance."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import skimage
import torch
import torchvision.transforms.v2.functional as tvf
from torch import Tensor

from thead_eval.errors import WeightsMissing
from thead_eval.media import read_image
from thead_eval.metrics import perceptual
from thead_eval.types import CompareFunction

CPU = torch.device("cpu")
PICTURES = ("astronaut.png", "coffee.png", "chelsea.png")


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    """[3, 3, 128, 128] uint8."""
    folder = Path(skimage.__file__).parent / "data"  # in the public domain
    return torch.stack([tvf.resize(read_image(folder / name), [128, 128]) for name in PICTURES])


@pytest.fixture(scope="module")
def efflite0() -> CompareFunction:
    return perceptual.perc_efflite0.load(CPU)


@pytest.fixture(scope="module")
def alexnet() -> dict[str, Tensor]:
    """A seeded AlexNet as torchvision stores it; its classifier, which LPIPS does not use, is zeros of no size."""
    from torchvision.models import alexnet

    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in alexnet().state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in shapes.items():
        if name.startswith("features.") and name.endswith("weight"):
            state[name] = torch.randn(shape, generator=generator) * (2 / shape[1:].numel()) ** 0.5
        else:
            state[name] = torch.zeros(()).expand(shape)
    return state


def noisy(pictures: Tensor, amount: float) -> Tensor:
    noise = amount * torch.randn(pictures.shape, generator=torch.Generator().manual_seed(3))
    return (pictures + noise).round().clamp(0, 255).to(torch.uint8)


def test_lpips_is_that_of_its_package(
    alexnet: dict[str, Tensor], pictures: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lpips

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))  # where torchvision looks before it downloads
    checkpoints = tmp_path / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    torch.save(alexnet, checkpoints / "alexnet-owt-7be5be79.pth")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="torchvision")  # lpips calls it by an old name
        reference = lpips.LPIPS(net="alex", version="0.1", verbose=False)
    fake = noisy(pictures, 20)
    with torch.no_grad():
        expected = reference(fake / 255, pictures / 255, normalize=True).flatten()

    found = perceptual.lpips_comparison(perceptual.lpips_network(alexnet), CPU)(fake, pictures)

    assert expected.min() > 0.01
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected.double(), rtol=0, atol=1e-6)


def test_lpips_judges_from_31_pixels(alexnet: dict[str, Tensor], pictures: Tensor) -> None:
    compare = perceptual.lpips_comparison(perceptual.lpips_network(alexnet), CPU)
    small = pictures[:, :, :31, :40]
    assert compare(noisy(small, 20), small).min() > 0
    assert perceptual.lpips_alex.minimum_size == 31
    with pytest.raises(RuntimeError, match="too small"):
        compare(pictures[:, :, :30, :40], pictures[:, :, :30, :40])


def test_lpips_leaves_the_global_random_numbers_alone(alexnet: dict[str, Tensor]) -> None:
    before = torch.random.get_rng_state()
    perceptual.lpips_network(alexnet)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_missing_weights_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THEVAL_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsMissing, match="theval weights fetch alexnet"):
        perceptual.lpips_alex.load(CPU)


def test_unit_distance_by_hand() -> None:
    """At one position the directions agree, at the other they are at right angles: (0 + 2) / 2."""
    a = torch.tensor([[3.0, 1.0], [0.0, 0.0]]).reshape(1, 2, 1, 2)
    b = torch.tensor([[5.0, 0.0], [0.0, 7.0]]).reshape(1, 2, 1, 2)
    assert perceptual.unit_distance(a, b).tolist() == [1.0]


def test_perc_efflite0_is_0_for_identical_frames_and_grows(efflite0: CompareFunction, pictures: Tensor) -> None:
    assert efflite0(pictures, pictures).tolist() == [0, 0, 0]
    little, much, other = (
        efflite0(fake, pictures) for fake in (noisy(pictures, 5), noisy(pictures, 40), pictures.roll(1, 0))
    )
    assert (little > 0).all()
    assert (much > little).all()
    assert (other > much).all()
    torch.testing.assert_close(efflite0(pictures, noisy(pictures, 40)), much, rtol=1e-6, atol=0)


def test_perc_efflite0_is_the_mean_over_five_stages(efflite0: CompareFunction, pictures: Tensor) -> None:
    from thead_eval.features import efflite_input, efflite_network

    network: Any = efflite_network(0)  # Any: timm's own attributes
    fake = noisy(pictures, 20)
    values, sizes = [], []
    with torch.no_grad():
        a, b = efflite_input(fake), efflite_input(pictures)
        a, b = network.bn1(network.conv_stem(a)), network.bn1(network.conv_stem(b))
        for number, block in enumerate(network.blocks):
            a, b = block(a), block(b)
            if number in (0, 1, 2, 4, 6):
                values.append(perceptual.unit_distance(a, b))
                sizes.append(a.shape[-1])
    assert sizes == [64, 32, 16, 8, 4]
    torch.testing.assert_close(efflite0(fake, pictures), torch.stack(values).mean(dim=0).double(), rtol=1e-5, atol=0)


def test_rows_do_not_depend_on_the_batch(
    efflite0: CompareFunction, alexnet: dict[str, Tensor], pictures: Tensor
) -> None:
    lpips = perceptual.lpips_comparison(perceptual.lpips_network(alexnet), CPU)
    fake = noisy(pictures, 20)
    for compare in (efflite0, lpips):
        together = compare(fake, pictures)
        alone = torch.cat([compare(fake[i : i + 1], pictures[i : i + 1]) for i in range(3)])
        torch.testing.assert_close(alone, together, rtol=0, atol=1e-6)
        torch.testing.assert_close(compare(fake.flip(0), pictures.flip(0)), together.flip(0), rtol=0, atol=1e-6)


def test_small_and_oblong_frames(efflite0: CompareFunction, pictures: Tensor) -> None:
    some = pictures[:, :, :32, :57]
    assert efflite0(noisy(some, 20), some).isfinite().all()
    assert perceptual.perc_efflite0.minimum_size == 32
