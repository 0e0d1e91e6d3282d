"""Frechet and kernel distances: arithmetic by hand, closed forms, and agreement with the packages that define them."""

import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.golden import distances as golden
from thead_eval import features, statistics
from thead_eval.errors import ConfigError
from thead_eval.media import read_image
from thead_eval.metrics import resizes
from thead_eval.metrics.distances import (
    FrechetDistance,
    KernelDistance,
    Moments,
    Statistics,
    fd_efflite0,
    fid,
    frechet_distance,
    frechet_from_features,
    kernel_distance,
    kernel_distance_of_subsets,
    kid,
    kid_efflite0,
    load_statistics,
    moments,
    save_statistics,
)
from thead_eval.types import FeatureSet

GOLDEN = json.loads(golden.FILE.read_text())
Array = NDArray[np.float64]


def stats_of(rows: Array) -> tuple[Array, Array]:
    return rows.mean(axis=0), np.cov(rows, rowvar=False)


def pytorch_fid_distance(a: Array, b: Array) -> float:
    calculate_frechet_distance = pytest.importorskip("pytorch_fid.fid_score").calculate_frechet_distance
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The `disp` argument is deprecated", DeprecationWarning)
        warnings.filterwarnings("ignore", "Matrix is singular")
        return float(calculate_frechet_distance(*stats_of(a), *stats_of(b)))


# Frechet, by hand.


def test_a_shift_of_d_gives_the_square_of_d() -> None:
    rows = golden.feature_rows(50, 8, 0, seed=0)
    shift = np.arange(8.0)
    assert frechet_from_features(rows + shift, rows) == pytest.approx(shift @ shift, rel=1e-9)
    assert frechet_distance(*stats_of(rows + shift), *stats_of(rows)) == pytest.approx(shift @ shift, rel=1e-9)


def test_diagonal_covariances_have_a_closed_form() -> None:
    random = np.random.default_rng(0)
    a, b, mean = random.uniform(0, 9, 40), random.uniform(0, 9, 40), random.standard_normal(40)
    a[:5] = b[3:8] = 0  # singular
    expected = mean @ mean + np.square(np.sqrt(a) - np.sqrt(b)).sum()
    assert frechet_distance(mean, np.diag(a), np.zeros(40), np.diag(b)) == pytest.approx(expected, rel=1e-9)


def test_one_dimension() -> None:
    one = np.array(1.0), np.array(4.0)  # as np.mean and np.cov give them
    assert frechet_distance(*one, np.array([3.0]), np.array([[9.0]])) == pytest.approx(2**2 + (2 - 3) ** 2)
    a, b = golden.feature_rows(30, 1, 1, seed=0), golden.feature_rows(20, 1, 2, seed=1)
    expected = (a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2
    assert frechet_from_features(a, b) == pytest.approx(expected, rel=1e-9)


def test_constant_features_are_their_mean() -> None:
    assert frechet_from_features(np.full((4, 6), 2.0), np.full((9, 6), 5.0)) == pytest.approx(54)
    zeros = np.zeros((3, 3))
    assert frechet_distance(np.zeros(3), zeros, np.ones(3), zeros) == 3
    assert frechet_distance(np.zeros(3), zeros, np.ones(3), np.eye(3)) == pytest.approx(6)


@pytest.mark.parametrize(("n", "dimensions"), [(300, 64), (65, 64), (40, 256), (2, 32)])
def test_equal_sets_have_no_distance(n: int, dimensions: int) -> None:
    rows = 30 * golden.feature_rows(n, dimensions, 0.1, seed=0)  # of a scale at which rounding would show
    shuffled = rows[np.random.default_rng(0).permutation(n)]
    assert 0 <= frechet_from_features(rows, shuffled) < 1e-6
    assert 0 <= frechet_distance(*stats_of(rows), *stats_of(shuffled)) < 1e-6


def test_repeated_frames_add_no_rounding() -> None:
    """A generator that repeats one of a few frames gives a covariance far below full rank."""
    rows = 30 * np.repeat(golden.feature_rows(12, 400, 0.1, seed=0), 10, axis=0)
    assert 0 <= frechet_from_features(rows, rows) < 1e-9
    real = 30 * golden.feature_rows(120, 400, 0.2, seed=1)
    assert frechet_from_features(rows, real) == pytest.approx(frechet_distance(*stats_of(rows), *stats_of(real)), 1e-9)


def test_a_steep_spectrum_keeps_its_digits() -> None:
    """Eigenvalues over 21 orders of magnitude, where those of the product alone would be noise."""
    random = np.random.default_rng(0)
    scales = 30 * np.exp(-25 * np.arange(200) / 200)
    a, b = (random.standard_normal((150, 200)) * scales for _ in range(2))
    singular_values = np.linalg.svd((a - a.mean(axis=0)) @ (b - b.mean(axis=0)).T, compute_uv=False).sum() / 149
    traces = a.var(axis=0, ddof=1).sum() + b.var(axis=0, ddof=1).sum()
    expected = np.square(a.mean(axis=0) - b.mean(axis=0)).sum() + traces - 2 * singular_values
    assert frechet_from_features(a, b) == pytest.approx(expected, rel=1e-9)
    assert 0 <= frechet_from_features(a, a) < 1e-9


@pytest.mark.parametrize(
    ("n", "m", "dimensions"), [(300, 280, 64), (300, 300, 200), (40, 500, 128), (500, 40, 128), (60, 50, 512)]
)
def test_every_path_agrees(n: int, m: int, dimensions: int) -> None:
    """Rows, statistics by pivoted Cholesky, and torchmetrics' general eigenvalues."""
    from torchmetrics.image.fid import _compute_fid

    a, b = golden.feature_rows(n, dimensions, 0, seed=0), golden.feature_rows(m, dimensions, 0.1, seed=1)
    by_rows = frechet_from_features(a, b)
    assert frechet_distance(*stats_of(a), *stats_of(b)) == pytest.approx(by_rows, rel=1e-6)
    assert frechet_from_features(b, a) == pytest.approx(by_rows, rel=1e-6)
    tensors = [torch.from_numpy(x) for x in (*stats_of(a), *stats_of(b))]
    assert float(_compute_fid(*tensors)) == pytest.approx(by_rows, rel=1e-6)


def test_the_order_of_rows_and_a_rotation_of_features_do_not_matter() -> None:
    a, b = golden.feature_rows(90, 30, 0, seed=0), golden.feature_rows(80, 30, 0.1, seed=1)
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((30, 30)))[0]
    expected = frechet_from_features(a, b)
    assert frechet_from_features(a[::-1], b) == pytest.approx(expected, rel=1e-9)
    assert frechet_from_features(a @ rotation, b @ rotation) == pytest.approx(expected, rel=1e-9)


# Frechet, beside pytorch-fid.


@pytest.mark.parametrize("case", GOLDEN["frechet"].items(), ids=lambda case: case[0])
def test_pytorch_fid_gave_the_same(case: tuple[str, float]) -> None:
    n, m, dimensions = map(int, case[0].split())
    a, b = golden.feature_rows(n, dimensions, 0.0, seed=0), golden.feature_rows(m, dimensions, 0.1, seed=1)
    assert frechet_from_features(a, b) == pytest.approx(case[1], rel=1e-5)
    assert frechet_distance(*stats_of(a), *stats_of(b)) == pytest.approx(case[1], rel=1e-5)


@pytest.mark.parametrize(("n", "m", "dimensions"), [(150, 140, 64), (40, 260, 128), (300, 280, 256)])
def test_the_installed_pytorch_fid_gives_the_same(n: int, m: int, dimensions: int) -> None:
    a, b = golden.feature_rows(n, dimensions, 0.2, seed=2), golden.feature_rows(m, dimensions, 0.1, seed=3)
    assert frechet_from_features(a, b) == pytest.approx(pytorch_fid_distance(a, b), rel=1e-5)


@pytest.fixture(scope="module")
def picture_features(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Callable[[str], tuple[Array, Array]]]:
    """The folders of seeded pictures, and the features of both by one injected Inception after a named resize."""
    folders = golden.write_pictures(tmp_path_factory.mktemp("pictures"))
    network = features.inception_network(golden.inception_state())
    extract = features.inception_extractor(network, torch.device("cpu"))

    def rows(resize: str) -> tuple[Array, Array]:
        sets = []
        for folder in folders:
            frames = [read_image(path)[None] for path in sorted(folder.iterdir())]
            with torch.inference_mode():
                if resize == "as the metric fid":
                    parts = [extract(frame, None) for frame in frames]
                else:
                    parts = [network(getattr(resizes, resize)(frame)) for frame in frames]
            sets.append(torch.cat(parts).double().numpy())
        return sets[0], sets[1]

    return folders[0].parent, rows


@pytest.mark.parametrize(
    ("package", "resize"),
    [
        ("pytorch-fid", "as the metric fid"),
        ("torch-fidelity", "resize_tf1"),
        ("torchmetrics", "resize_torchmetrics"),
        ("clean-fid", "resize_clean"),
    ],
)
def test_fid_of_pictures_is_that_of_the_packages(
    picture_features: tuple[Path, Callable[[str], tuple[Array, Array]]], package: str, resize: str
) -> None:
    """64, 299 and 512 px, other shapes, grey and RGBA; fewer pictures than dimensions."""
    fake, real = picture_features[1](resize)
    assert frechet_from_features(fake, real) == pytest.approx(GOLDEN["fid"][package], rel=1e-5, abs=1e-3)
    assert 0 <= frechet_from_features(real, real) < 1e-3
    assert np.ptp(real, axis=0).mean() > 0.01  # the network tells pictures apart, so that the above means something


def test_features_are_those_of_the_installed_pytorch_fid(
    picture_features: tuple[Path, Callable[[str], tuple[Array, Array]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fid_score = pytest.importorskip("pytorch_fid.fid_score")
    from pytorch_fid.inception import InceptionV3

    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    torch.save(golden.inception_state(), cache / "pt_inception-2015-12-05-6726825d.pth")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    network = InceptionV3([InceptionV3.BLOCK_INDEX_BY_DIM[2048]])
    files = sorted((picture_features[0] / "fake").iterdir())
    theirs = fid_score.get_activations(files, network, batch_size=1, num_workers=0)
    ours = picture_features[1]("as the metric fid")[0]
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


SIZES = [(64, 64), (299, 299), (512, 512), (120, 333), (7, 5)]


def noise(height: int, width: int) -> Tensor:
    return torch.randint(0, 256, (2, 3, height, width), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.mark.parametrize("size", SIZES)
def test_resizes_are_those_of_the_installed_packages(size: tuple[int, int]) -> None:
    frames = noise(*size)
    tf1 = pytest.importorskip("torch_fidelity.interpolate_compat_tensorflow").interpolate_bilinear_2d_like_tensorflow1x
    theirs = (tf1(frames.float(), size=(299, 299), align_corners=False) - 128) / 128
    torch.testing.assert_close(resizes.resize_tf1(frames), theirs, rtol=0, atol=1e-6)

    clean = pytest.importorskip("cleanfid.resize").build_resizer("clean")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'mode' parameter is deprecated", DeprecationWarning)  # in its call of Pillow
        arrays = [torch.from_numpy(clean(frame.permute(1, 2, 0).numpy())).permute(2, 0, 1) for frame in frames]
    torch.testing.assert_close(resizes.resize_clean(frames), (torch.stack(arrays) - 128) / 128, rtol=0, atol=1e-6)


def test_resizes_of_a_picture_of_that_size_change_nothing() -> None:
    frames = noise(299, 299)
    for resize in (resizes.resize_tf1, resizes.resize_torchmetrics, resizes.resize_clean):
        torch.testing.assert_close(resize(frames), (frames.float() - 128) / 128, rtol=0, atol=1e-6)
    torch.testing.assert_close(resizes.resize_pytorch_fid(frames), frames / 127.5 - 1, rtol=0, atol=1e-6)


def test_resizes_differ_where_a_picture_shrinks() -> None:
    """A checkerboard of pixels: grey with antialiasing, aliased without."""
    rows, columns = np.indices((598, 598))
    board = torch.from_numpy((255 * ((rows + columns) % 2)).astype(np.uint8)).expand(1, 3, -1, -1)
    spread = {name: float(getattr(resizes, name)(board).std()) for name in dir(resizes) if name.startswith("resize_")}
    assert spread["resize_tf1"] == 0 and float(resizes.resize_tf1(board).mean()) == -1  # only ever the black ones
    assert spread["resize_clean"] < 0.05 and spread["resize_torchmetrics"] < 0.05


# Statistics of many rows, and their file.


def test_streamed_moments_are_those_of_numpy() -> None:
    rows = (1000 + golden.feature_rows(2500, 24, 0.1, seed=0)).astype(np.float32)  # far from the origin
    seen = moments(rows)
    np.testing.assert_allclose(seen.mean, rows.astype(np.float64).mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(seen.covariance, np.cov(rows.astype(np.float64), rowvar=False), rtol=1e-9, atol=1e-12)
    assert seen.count == 2500


def test_moments_of_parts_merge_to_those_of_the_whole() -> None:
    rows = golden.feature_rows(500, 24, 0.1, seed=0)
    whole = moments(rows)
    parts = [rows[:1], rows[1:7], rows[7:300], rows[300:]]
    in_order = moments(parts[0])
    for part in parts[1:]:
        in_order = in_order.update(part)
    backwards = moments(parts[3]).merge(moments(parts[2])).merge(moments(parts[1])).merge(moments(parts[0]))
    removed = whole.remove(moments(parts[2]))
    others = moments(np.concatenate([parts[0], parts[1], parts[3]]))
    pairs: list[tuple[Moments, Moments]] = [(in_order, whole), (backwards, whole), (removed, others)]
    for one, other in pairs:
        assert one.count == other.count
        np.testing.assert_allclose(one.mean, other.mean, rtol=1e-9)
        np.testing.assert_allclose(one.scatter, other.scatter, rtol=1e-9, atol=1e-9)
    assert in_order.update(rows[:0]) == in_order


def test_features_are_read_from_a_memory_map(tmp_path: Path) -> None:
    rows = golden.feature_rows(2100, 16, 0.1, seed=0).astype(np.float32)
    np.save(tmp_path / "rows.npy", rows)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    other = golden.feature_rows(300, 16, 0.2, seed=1)
    assert frechet_from_features(mapped, other) == frechet_from_features(rows, other)
    assert kernel_distance(mapped, other) == kernel_distance(rows, other)


def test_statistics_travel_to_pytorch_fid_and_back(tmp_path: Path) -> None:
    rows = golden.feature_rows(30, 6, 0.1, seed=0)
    written = Statistics(*stats_of(rows), "inception_fid", "6726825d", "resize_pytorch_fid", 30, 3)
    save_statistics(tmp_path / "ours.npz", written)
    read = load_statistics(tmp_path / "ours.npz")
    np.testing.assert_array_equal(read.sigma, written.sigma)
    assert (read.network, read.weights_sha256, read.resize) == ("inception_fid", "6726825d", "resize_pytorch_fid")
    assert (read.n_frames, read.n_identities) == (30, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["ours.npz"]

    fid_score = pytest.importorskip("pytorch_fid.fid_score")
    mu, sigma = fid_score.compute_statistics_of_path(str(tmp_path / "ours.npz"), None, 1, 6, "cpu")
    np.testing.assert_array_equal(mu, written.mu)
    np.testing.assert_array_equal(sigma, written.sigma)
    np.savez_compressed(tmp_path / "theirs.npz", mu=mu, sigma=sigma)  # as pytorch-fid --save-stats writes
    theirs = load_statistics(tmp_path / "theirs.npz")
    np.testing.assert_array_equal(theirs.mu, written.mu)
    assert theirs.network is None and theirs.n_frames is None


def test_statistics_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "stats.npz"
    with pytest.raises(ConfigError, match=r"stats.npz' do not exist; check the path"):
        load_statistics(path)
    path.write_bytes(b"")
    with pytest.raises(ConfigError, match=r"does not hold statistics 'mu' and 'sigma'"):
        load_statistics(path)
    path.write_text("not an archive")
    with pytest.raises(ConfigError, match=r"does not hold statistics 'mu' and 'sigma'"):
        load_statistics(path)
    np.savez(path, mean=np.zeros(3))
    with pytest.raises(ConfigError, match=r"does not hold statistics 'mu' and 'sigma'"):
        load_statistics(path)
    np.savez(path, mu=np.zeros(3, np.float32), sigma=np.eye(3, dtype=np.float32))
    with pytest.raises(ConfigError, match=r"mu float32 \[3\] and sigma float32 \[3, 3\] instead of float64"):
        load_statistics(path)
    np.savez(path, mu=np.zeros(3), sigma=np.eye(4))
    with pytest.raises(ConfigError, match=r"sigma float64 \[4, 4\] instead of"):
        load_statistics(path)
    np.savez(path, mu=np.zeros(3), sigma=np.full((3, 3), np.nan))
    with pytest.raises(ConfigError, match="holds NaN or infinity"):
        load_statistics(path)
    np.savez(path, mu=np.zeros(3), sigma=np.eye(3), theval=np.array('{"colour": "red"}'))
    with pytest.raises(ConfigError, match="was written by another theval"):
        load_statistics(path)


def test_bad_statistics_and_rows_are_refused() -> None:
    mu, sigma = np.zeros(3), np.eye(3)
    with pytest.raises(ValueError, match="must be float64, not float32; compute them in float64"):
        frechet_distance(mu, sigma.astype(np.float32), mu, sigma)
    with pytest.raises(ValueError, match=r"not \[3\], \[3, 3\], \[3\], \[4, 4\]"):
        frechet_distance(mu, sigma, mu, np.eye(4))
    with pytest.raises(ValueError, match="holds NaN"):
        frechet_distance(mu, sigma, mu * np.nan, sigma)
    with pytest.raises(ValueError, match="a covariance has a negative eigenvalue"):
        frechet_distance(mu, np.diag([1.0, 1.0, -1.0]), mu, sigma)
    rows = golden.feature_rows(5, 3, 0, seed=0)
    for distance in (frechet_from_features, kernel_distance):
        with pytest.raises(ValueError, match=r"\[N, D\], not \[15\]"):  # flattened by mistake: would give a tiny number
            distance(rows.reshape(-1), rows)
        with pytest.raises(ValueError, match="at least 2 rows, not 1"):
            distance(rows[:1], rows)
        with pytest.raises(ValueError, match="features have 3 and 2 dimensions"):
            distance(rows, rows[:, :2])
        with pytest.raises(ValueError, match="hold NaN or infinity"):
            distance(rows, np.vstack([rows, np.full(3, np.inf)]))
    with pytest.raises(ValueError, match="at least 2 rows, not 1"):
        _ = moments(rows[:1]).covariance


# Kernel distance.


def slow_kernel_distance(fake: FeatureSet, real: FeatureSet) -> float:
    """The definition, pair by pair."""

    def mean(x: FeatureSet, y: FeatureSet) -> float:
        values = [
            (float(u.astype(np.float64) @ v.astype(np.float64)) / len(u) + 1) ** 3
            for u, i in zip(*x, strict=True)
            for v, j in zip(*y, strict=True)
            if i != j
        ]
        return float(np.mean(values))

    return mean(fake, fake) + mean(real, real) - 2 * mean(fake, real)


def clustered(identities: int, frames: int, seed: int, first: int = 0) -> FeatureSet:
    """Frames of one population, alike within an identity (rho .85)."""
    random = np.random.default_rng(seed)
    shared = np.sqrt(0.85) * random.standard_normal((identities, 1, 16))
    rows = 1 + shared + np.sqrt(0.15) * random.standard_normal((identities, frames, 16))
    names = np.repeat(np.arange(first, first + identities), frames)
    return FeatureSet(rows.reshape(-1, 16).astype(np.float32), names)


def test_the_kernel_distance_is_its_definition() -> None:
    fake, real = clustered(4, 3, seed=0), clustered(5, 3, seed=1, first=2)  # identities 2 and 3 are in both
    assert KernelDistance()(fake, real) == pytest.approx(slow_kernel_distance(fake, real), rel=1e-9)
    rows = np.arange(27)
    apart = FeatureSet(fake.features, rows[:12]), FeatureSet(real.features, rows[12:])
    expected = slow_kernel_distance(*apart)
    assert kernel_distance(fake.features, real.features) == pytest.approx(expected, rel=1e-9)


def test_chunks_do_not_change_the_kernel_distance() -> None:
    a, b = golden.feature_rows(1100, 4, 0.1, seed=0), golden.feature_rows(1030, 4, 0.2, seed=1)
    k_aa, k_bb, k_ab = ((x @ y.T / 4 + 1) ** 3 for x, y in ((a, a), (b, b), (a, b)))
    expected = (
        (k_aa.sum() - k_aa.trace()) / (1100 * 1099) + (k_bb.sum() - k_bb.trace()) / (1030 * 1029) - 2 * k_ab.mean()
    )
    assert kernel_distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_a_set_has_no_kernel_distance_from_itself() -> None:
    fake = clustered(6, 5, seed=0)
    assert KernelDistance()(fake, fake) == pytest.approx(0, abs=1e-12)


def test_the_kernel_distance_of_clustered_frames_has_no_bias() -> None:
    """Two samples of one population, of other and of the same identities; over all pairs the first is biased."""
    ours, paired, over_all_pairs = [], [], []
    for seed in range(60):
        fake, real = clustered(12, 8, seed=2 * seed), clustered(12, 8, seed=2 * seed + 1, first=12)
        ours.append(KernelDistance()(fake, real))
        over_all_pairs.append(kernel_distance(fake.features, real.features))
        halves = np.arange(len(real.features)) % 2 == 0  # the same people, other frames
        paired.append(KernelDistance()(*(FeatureSet(real.features[h], real.identities[h]) for h in (halves, ~halves))))
    for values in (ours, paired):
        assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(len(values))
    assert np.mean(over_all_pairs) > 6 * np.std(over_all_pairs) / np.sqrt(len(over_all_pairs))


def test_no_pair_of_identities_no_kernel_distance() -> None:
    fake = clustered(1, 5, seed=0)
    assert math.isnan(KernelDistance()(fake, fake))
    empty = FeatureSet(fake.features[:0], fake.identities[:0])
    assert math.isnan(KernelDistance()(empty, clustered(4, 2, seed=1)))
    assert math.isnan(FrechetDistance()(empty, fake))
    assert math.isnan(FrechetDistance()(FeatureSet(fake.features[:1], fake.identities[:1]), fake))


def test_subsets_are_those_of_torch_fidelity_and_clean_fid() -> None:
    a, b = golden.feature_rows(70, 32, 0.1, seed=0), golden.feature_rows(60, 32, 0.2, seed=1)
    ours = kernel_distance_of_subsets(a, b, seed=2020, subsets=7, subset_size=40)
    expected = GOLDEN["kid"]
    assert ours.mean == pytest.approx(expected["torch-fidelity mean"], rel=1e-9)
    assert ours.deviation == pytest.approx(expected["torch-fidelity deviation"], rel=1e-9)
    assert ours.mean == pytest.approx(expected["clean-fid"], rel=1e-9)
    assert ours.subset_size == 40


def test_subsets_of_the_installed_packages() -> None:
    pytest.importorskip("torch_fidelity")
    pytest.importorskip("cleanfid")
    assert golden.kid_of_packages() == pytest.approx(GOLDEN["kid"], rel=1e-9)


def test_subsets_larger_than_a_set_are_as_large_as_the_set() -> None:
    a, b = golden.feature_rows(20, 8, 0.1, seed=0), golden.feature_rows(30, 8, 0.2, seed=1)
    ours = kernel_distance_of_subsets(a, b, seed=0, subsets=3)
    assert ours.subset_size == 20
    whole = kernel_distance_of_subsets(a, b[:20], seed=0, subsets=3)
    assert whole.mean == pytest.approx(kernel_distance(a, b[:20]), rel=1e-9) and whole.deviation < 1e-12


# The distances under the jackknife.


@pytest.mark.parametrize(
    "distance", [FrechetDistance(), KernelDistance()], ids=lambda distance: type(distance).__name__
)
@pytest.mark.parametrize("dimensions", [16, 200])  # fewer than rows, and more
def test_deleting_groups_at_once_is_deleting_them_one_by_one(
    distance: FrechetDistance | KernelDistance, dimensions: int
) -> None:
    names = np.repeat(np.arange(15), 8)
    fake = FeatureSet(golden.feature_rows(120, dimensions, 0.1, seed=0).astype(np.float32), names)
    real = FeatureSet(golden.feature_rows(112, dimensions, 0.2, seed=1).astype(np.float32), names[8:])
    groups = [np.array([0]), np.array([3, 4]), np.array([14]), np.array([99]), np.arange(15)]
    one_by_one = [distance(statistics.without(fake, group), statistics.without(real, group)) for group in groups]
    np.testing.assert_allclose(distance.without(fake, real, groups[:-1]), one_by_one[:-1], rtol=1e-6, atol=1e-9)
    assert math.isnan(one_by_one[-1])
    assert math.isnan(FrechetDistance().without(fake, real, groups)[-1])


@pytest.mark.parametrize("dimensions", [16, 120])
def test_intervals_of_set_metrics(dimensions: int) -> None:
    names = np.repeat(np.arange(25), 4)
    rows = golden.feature_rows(200, dimensions, 0.1, seed=0).astype(np.float32)
    fake, real = FeatureSet(rows[:100] + np.float32(0.3), names), FeatureSet(rows[100:], names)
    for metric in (fid, kid, fd_efflite0, kid_efflite0):
        interval = statistics.jackknife(metric.distance, fake, real).interval
        floor = statistics.noise_floor(metric.distance, real, seed=0)
        assert interval.value == metric.distance(fake, real)
        assert interval.low is not None and interval.high is not None and floor is not None
        assert floor < interval.low < interval.value < interval.high
