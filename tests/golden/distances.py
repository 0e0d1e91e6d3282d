"""What pytorch-fid, torch-fidelity, torchmetrics, clean-fid and skimage give on seeded input: distances.json.

Values that take these packages a minute, or that have to hold where they are not installed. Run again, after a change
of the input only, with

    python -m tests.golden.distances
"""

import json
import os
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

COMMAND = "python -m tests.golden.distances"
FILE = Path(__file__).with_suffix(".json")
PACKAGES = ("pytorch-fid", "torch-fidelity", "torchmetrics", "clean-fid", "scikit-image", "scipy", "numpy", "torch")

# Height, width and mode of the pictures in the two folders.
FAKE_PICTURES = ((64, 64, "RGB"), (512, 512, "RGB"), (96, 160, "L"))
REAL_PICTURES = ((299, 299, "RGB"), (150, 100, "RGBA"), (512, 512, "RGB"))


def inception_state() -> dict[str, Tensor]:
    """Seeded weights for FID's Inception, of a scale that keeps features alive from layer to layer."""
    from torchvision.models import inception_v3

    with torch.device("meta"):
        shapes = inception_v3(weights=None, num_classes=1008, aux_logits=False, init_weights=False).state_dict()
    random = np.random.default_rng(0)
    state = {}
    for name, tensor in shapes.items():
        if name.endswith("running_var") or name.endswith("bn.weight"):
            state[name] = torch.ones(tensor.shape)
        elif name.endswith("num_batches_tracked"):
            state[name] = torch.zeros((), dtype=torch.int64)
        elif tensor.ndim == 1:  # biases and running means
            state[name] = torch.from_numpy(0.1 * random.standard_normal(tensor.shape, dtype=np.float32))
        else:
            scale = np.float32(np.sqrt(2 / tensor[0].numel()))
            state[name] = torch.from_numpy(scale * random.standard_normal(tensor.shape, dtype=np.float32))
    return state


def write_pictures(folder: Path) -> tuple[Path, Path]:
    """Two folders of seeded PNGs: smooth colours with noise, the second with other colours and more noise."""
    random = np.random.default_rng(1)
    folders = folder / "fake", folder / "real"
    for part, pictures, noise in zip(folders, (FAKE_PICTURES, REAL_PICTURES), (30, 10), strict=True):
        part.mkdir(parents=True)
        for index, (height, width, mode) in enumerate(pictures):
            coarse = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8))
            smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
            pixels = (smooth + noise * random.standard_normal(smooth.shape)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).convert(mode).save(part / f"{index}.png")
    return folders


def feature_rows(n: int, dimensions: int, shift: float, seed: int) -> NDArray[np.float64]:
    """[n, dimensions] like pooled activations: correlated, of unequal variance, not negative."""
    mixing = np.random.default_rng(dimensions).standard_normal((dimensions, dimensions)) / np.sqrt(dimensions)
    scales = np.exp(-4 * np.arange(dimensions) / dimensions)
    rows = np.random.default_rng(seed).standard_normal((n, dimensions)) * scales @ mixing
    return np.asarray(np.maximum(rows + shift, 0))


def frames(n: int, height: int, width: int, noise: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two uint8 [n, 3, height, width] that differ by noise."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    waves = [128 + 90 * np.sin(rows / 9 + k) * np.cos(columns / (11 + k)) for k in range(3 * n)]
    clean = np.stack(waves).reshape(n, 3, height, width)
    noisy = [clean + noise * random.standard_normal(clean.shape) for _ in range(2)]
    first, second = (torch.from_numpy(x.clip(0, 255).astype(np.uint8)) for x in noisy)
    return first, second


def fid_of_packages(work: Path) -> dict[str, float]:
    """FID of the two folders by each package, all with the same injected network."""
    import torch_fidelity
    from cleanfid import fid as clean_fid
    from pytorch_fid.fid_score import calculate_fid_given_paths
    from torchmetrics.image.fid import FrechetInceptionDistance

    from thead_eval.features import inception_network

    # pytorch-fid has no argument for a file, but takes one of this name from torch's cache.
    weights = work / "hub" / "checkpoints" / "pt_inception-2015-12-05-6726825d.pth"
    weights.parent.mkdir(parents=True)
    state = inception_state()
    torch.save(state, weights)
    os.environ["TORCH_HOME"] = str(work)
    fake, real = write_pictures(work)
    network = inception_network(state)

    torchmetrics_fid = FrechetInceptionDistance(2048, feature_extractor_weights_path=str(weights))
    for folder in (fake, real):
        for path in sorted(folder.iterdir()):
            pixels = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)
            torchmetrics_fid.update(pixels[None], real=folder == real)
    with torch.inference_mode():
        of_clean_fid = clean_fid.compare_folders(
            str(fake),
            str(real),
            lambda x: network((x - 128) / 128),
            mode="clean",
            batch_size=1,
            device=torch.device("cpu"),
            verbose=False,
        )
    of_torch_fidelity = torch_fidelity.calculate_metrics(
        input1=str(fake),
        input2=str(real),
        fid=True,
        cuda=False,
        cache=False,
        verbose=False,
        batch_size=1,
        feature_extractor_weights_path=str(weights),
    )
    return {
        "pytorch-fid": float(calculate_fid_given_paths([str(fake), str(real)], 1, "cpu", 2048, num_workers=0)),
        "torch-fidelity": float(of_torch_fidelity["frechet_inception_distance"]),
        "torchmetrics": float(torchmetrics_fid.compute()),
        "clean-fid": float(of_clean_fid),
    }


def kid_of_packages() -> dict[str, float]:
    """The subset KID of seeded rows by each package."""
    from cleanfid.fid import kernel_distance
    from torch_fidelity.metric_kid import kid_features_to_metric

    a, b = feature_rows(70, 32, 0.1, 0), feature_rows(60, 32, 0.2, 1)
    of_torch_fidelity = kid_features_to_metric(
        torch.from_numpy(a), torch.from_numpy(b), kid_subsets=7, kid_subset_size=40, rng_seed=2020, verbose=False
    )
    np.random.seed(2020)
    return {
        "torch-fidelity mean": of_torch_fidelity["kernel_inception_distance_mean"],
        "torch-fidelity deviation": of_torch_fidelity["kernel_inception_distance_std"],
        "clean-fid": kernel_distance(b, a, num_subsets=7, max_subset_size=40),  # draws from its second argument first
    }


def frechet_of_pytorch_fid() -> dict[str, float]:
    """pytorch-fid's distance of seeded rows, by 'N1 N2 D'."""
    from pytorch_fid.fid_score import calculate_frechet_distance

    values = {}
    for n, m, dimensions in ((300, 280, 64), (300, 300, 200), (40, 500, 128), (60, 50, 512)):
        a, b = feature_rows(n, dimensions, 0.0, 0), feature_rows(m, dimensions, 0.1, 1)
        first, second = (a.mean(axis=0), np.cov(a, rowvar=False)), (b.mean(axis=0), np.cov(b, rowvar=False))
        values[f"{n} {m} {dimensions}"] = float(calculate_frechet_distance(*first, *second))
    return values


def ssim_of_skimage() -> dict[str, float]:
    """skimage's SSIM of seeded frames, by 'height width noise'."""
    from skimage.metrics import structural_similarity

    values = {}
    for height, width, noise in ((256, 256, 12), (97, 64, 40), (11, 11, 10), (256, 256, 1)):
        a, b = (x[0].permute(1, 2, 0).numpy() for x in frames(1, height, width, noise))
        values[f"{height} {width} {noise}"] = float(
            structural_similarity(  # type: ignore[no-untyped-call]  # skimage has no types
                a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255, channel_axis=2
            )
        )
    return values


def main() -> None:
    """Write distances.json."""
    warnings.simplefilter("ignore")  # of four packages, about each other's deprecations
    with tempfile.TemporaryDirectory() as work:
        content: dict[str, Any] = {  # Any: JSON
            "command": COMMAND,
            "packages": {name: version(name) for name in PACKAGES},
            "fid": fid_of_packages(Path(work)),
            "frechet": frechet_of_pytorch_fid(),
            "kid": kid_of_packages(),
            "ssim": ssim_of_skimage(),
        }
    FILE.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
