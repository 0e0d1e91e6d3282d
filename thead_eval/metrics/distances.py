"""Distances between two sets of feature vectors: Frechet (FID) and kernel (KID), in float64.

No square root of a matrix is taken: its trace is all that the Frechet distance needs, and eigenvalues of a symmetric
matrix give it many times faster and without imaginary parts.
"""

import json
import os
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from thead_eval.errors import ConfigError
from thead_eval.types import FeatureSet, SetMetric

JACKKNIFE_TOLERANCE = 1e-5  # relative; deleting a group changes far more
CHUNK = 1024  # rows read at a time, so that memory does not grow with the set

Array = NDArray[np.float64]
Rows = NDArray[np.floating]  # [N, D], float32 or float64; may be a memory map


@dataclass(frozen=True)
class Moments:
    """Count, mean and scatter of rows seen so far; moments of two parts merge to those of the whole."""

    count: int
    mean: Array  # [D]
    scatter: Array  # [D, D], the sum of outer products of centred rows

    @property
    def covariance(self) -> Array:
        """[D, D], with N - 1, as np.cov.

        Raises:
            ValueError: fewer than two rows.
        """
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 rows, not {self.count}")
        return self.scatter / (self.count - 1)

    def merge(self, other: "Moments") -> "Moments":
        """The moments of both sets of rows together (Chan et al. 1979)."""
        count = self.count + other.count
        step = other.mean - self.mean
        scatter = self.scatter + other.scatter + np.outer(step, step) * (self.count * other.count / count)
        return Moments(count, self.mean + step * (other.count / count), scatter)

    def remove(self, other: "Moments") -> "Moments":
        """The moments of the rows without `other`, which are among them and not all: `merge` run backwards."""
        count = self.count - other.count
        mean = self.mean + (self.mean - other.mean) * (other.count / count)
        step = other.mean - mean
        scatter = self.scatter - other.scatter - np.outer(step, step) * (other.count * count / self.count)
        return Moments(count, mean, scatter)

    def update(self, rows: Rows) -> "Moments":
        """The moments after these rows too."""
        return self.merge(_moments_of_chunk(rows)) if len(rows) else self


def moments(rows: Rows) -> Moments:
    """Moments of [N, D] rows, N > 0, read in chunks.

    Raises:
        ValueError: not [N, D] with N > 0, or a value is not finite.
    """
    _check_rows(rows)
    chunks = _chunks(rows)
    seen = _moments_of_chunk(next(chunks))
    for chunk in chunks:
        seen = seen.merge(_moments_of_chunk(chunk))
    return seen


def frechet_distance(mu1: Array, sigma1: Array, mu2: Array, sigma2: Array) -> float:
    """The squared Frechet distance of two Gaussians, |mu1 - mu2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)).

    With S1 = F1^T F1 and S2 = F2^T F2, S1 S2 has the eigenvalues of K K^T, K = F1 F2^T, which is symmetric. (S1 S2 is
    not: eigvalsh of it would be wrong.) Singular covariances are fine. Rounding below zero is returned as zero.

    Raises:
        ValueError: shapes do not fit, a value is not finite, a covariance has a negative eigenvalue, or is not float64:
            float32 has lost digits that the square root of a small eigenvalue needs.
    """
    mu1, mu2, sigma1, sigma2 = np.atleast_1d(mu1), np.atleast_1d(mu2), np.atleast_2d(sigma1), np.atleast_2d(sigma2)
    if mu1.ndim != 1 or mu1.shape != mu2.shape or not sigma1.shape == sigma2.shape == mu1.shape * 2:
        shapes = ", ".join(str(list(x.shape)) for x in (mu1, sigma1, mu2, sigma2))
        raise ValueError(f"means and covariances must be [D], [D, D], [D], [D, D], not {shapes}")
    for x in (mu1, sigma1, mu2, sigma2):
        if x.dtype != np.float64:
            raise ValueError(f"means and covariances must be float64, not {x.dtype}; compute them in float64")
        if not np.isfinite(x).all():
            raise ValueError("a mean or a covariance holds NaN or infinity")
    trace_of_root = _nuclear_norm(_factor(sigma1) @ _factor(sigma2).T)
    return _frechet(mu1 - mu2, np.trace(sigma1) + np.trace(sigma2), trace_of_root)


def frechet_from_features(a: Rows, b: Rows) -> float:
    """The squared Frechet distance of two sets of rows, [N1, D] and [N2, D].

    Where a set has fewer rows than dimensions its covariance is never formed: with centred rows A and B, the trace of
    the root is the sum of singular values of A B^T, [N1, N2].

    Raises:
        ValueError: not [N, D] with one D and at least 2 rows each, or a value is not finite.
    """
    _check_pair(a, b)
    dimensions = a.shape[1]
    if min(len(a), len(b)) >= dimensions:
        first, second = moments(a), moments(b)
        return frechet_distance(first.mean, first.covariance, second.mean, second.covariance)
    first_mean, first_factor = _mean_and_factor(a)  # [D], [min(N1, D), D]
    second_mean, second_factor = _mean_and_factor(b)
    trace_of_root = _nuclear_norm(first_factor @ second_factor.T)
    traces = np.square(first_factor).sum() + np.square(second_factor).sum()
    return _frechet(first_mean - second_mean, traces, trace_of_root)


def _mean_and_factor(rows: Rows) -> tuple[Array, Array]:
    """The mean, and F [min(N, D), D] with F^T F = the covariance."""
    if len(rows) < rows.shape[1]:
        mean = rows.mean(axis=0, dtype=np.float64)
        return mean, (rows - mean) / np.sqrt(len(rows) - 1)
    seen = moments(rows)
    return seen.mean, _factor(seen.covariance)


def _factor(sigma: Array) -> Array:
    """F [rank, D] with F^T F = sigma, by Cholesky with pivoting.

    Faster than a decomposition by eigenvectors, and closer on singular matrices: null directions are left out, where
    the square roots of their rounded eigenvalues would add up.
    """
    upper, pivots, rank, _ = linalg.lapack.dpstrf(sigma)
    factor = np.empty((rank, len(sigma)))
    factor[:, pivots - 1] = np.triu(upper[:rank])
    if not np.isclose(np.square(factor).sum(), np.trace(sigma), rtol=1e-6, atol=0):
        raise ValueError("a covariance has a negative eigenvalue; it is none")
    return factor


def _nuclear_norm(product: Array, tolerance: float = 1e-7) -> float:
    """The sum of singular values of K, to a relative tolerance.

    As roots of the eigenvalues of K K^T, which takes half the time of a singular value decomposition, but rounds
    values below 1e-8 of the largest to noise; with many of those (repeated frames) by the decomposition after all.
    """
    if len(product) > product.shape[1]:
        product = product.T
    eigenvalues = np.linalg.eigvalsh(product @ product.T)
    rounding = 10 * np.finfo(np.float64).eps * eigenvalues.max(initial=0.0)  # of each eigenvalue, seen in practice
    roots = np.sqrt(eigenvalues[eigenvalues > rounding])
    error = (rounding / (2 * roots)).sum() + (len(eigenvalues) - len(roots)) * np.sqrt(rounding)
    if error > tolerance * roots.sum():
        roots = np.linalg.svd(product, compute_uv=False)
    return float(roots.sum())


def _frechet(mean_difference: Array, traces: float, trace_of_root: float) -> float:
    return max(float(mean_difference @ mean_difference + traces - 2 * trace_of_root), 0.0)


# Kernel distance: the squared maximum mean discrepancy under the kernel (x . y / D + 1)^3 of Binkowski et al. 2018.


def kernel_distance(a: Rows, b: Rows) -> float:
    """The unbiased U-statistic over all pairs of rows; values below zero are noise about zero.

    Unbiased only where rows are independent, which frames of one video are not: see `KernelDistance`.

    Raises:
        ValueError: not [N, D] with one D and at least 2 rows each, or a value is not finite.
    """
    _check_pair(a, b)
    rows = np.arange(len(a) + len(b), dtype=np.int64)  # every row its own identity
    return KernelDistance()(FeatureSet(a, rows[: len(a)]), FeatureSet(b, rows[len(a) :]))


class SubsetDistances(NamedTuple):
    """Mean and standard deviation over random subsets."""

    mean: float
    deviation: float
    subset_size: int  # smaller than asked where a set has fewer rows


def kernel_distance_of_subsets(
    a: Rows, b: Rows, seed: int, subsets: int = 100, subset_size: int = 1000
) -> SubsetDistances:
    """The mean of `kernel_distance` over random subsets, as torch-fidelity draws them with this seed.

    Only to compare with numbers of other packages: its deviation is that of overlapping subsets of frames, and no
    interval. Subsets are as large as the smaller set where that has fewer rows than asked.

    Raises:
        ValueError: as `kernel_distance`.
    """
    _check_pair(a, b)
    size = min(subset_size, len(a), len(b))
    random = np.random.RandomState(seed)  # the legacy generator, as the draws have to match
    distances = []
    for _ in range(subsets):
        first = random.choice(len(a), size, replace=False)
        second = random.choice(len(b), size, replace=False)
        distances.append(kernel_distance(a[first], b[second]))
    return SubsetDistances(float(np.mean(distances)), float(np.std(distances)), size)


def _kernel_sums(x: FeatureSet, x_groups: Array, y: FeatureSet, y_groups: Array) -> tuple[Array, Array]:
    """[G, G] sums of the kernel over pairs of different identities, and the numbers of those pairs.

    x_groups [N1, G] and y_groups [N2, G] are one-hot. Within one set (x is y) half of the chunks serve for both.
    """
    dimensions, groups = x.features.shape[1], x_groups.shape[1]
    sums, pairs = np.zeros((groups, groups)), np.zeros((groups, groups))
    for i in range(0, len(x.features), CHUNK):
        first = x.features[i : i + CHUNK].astype(np.float64)
        for j in range(i if x is y else 0, len(y.features), CHUNK):
            second = y.features[j : j + CHUNK].astype(np.float64)
            kernel = (first @ second.T / dimensions + 1) ** 3  # [CHUNK, CHUNK]
            different = x.identities[i : i + CHUNK, None] != y.identities[None, j : j + CHUNK]
            kernel *= different
            chunk_sums = x_groups[i : i + CHUNK].T @ kernel @ y_groups[j : j + CHUNK]  # [G, G]
            chunk_pairs = x_groups[i : i + CHUNK].T @ different @ y_groups[j : j + CHUNK]
            sums += chunk_sums
            pairs += chunk_pairs
            if x is y and i != j:
                sums += chunk_sums.T
                pairs += chunk_pairs.T
    return sums, pairs


# The two as distances of feature sets: what set metrics hold, and the jackknife asks for many subsets at once.


@dataclass(frozen=True)
class FrechetDistance:
    """`frechet_from_features` of two feature sets; NaN where one has fewer than two rows."""

    def __call__(self, fake: FeatureSet, real: FeatureSet) -> float:
        if min(len(fake.features), len(real.features)) < 2:
            return float("nan")
        return frechet_from_features(fake.features, real.features)

    def without(self, fake: FeatureSet, real: FeatureSet, groups: Sequence[NDArray[np.int64]]) -> Array:
        """[len(groups)] the distance when a group of identities is deleted from both sets.

        The products of all rows are taken once; each deletion only centres what is left anew, or subtracts its moments.
        """
        _check_pair(fake.features, real.features)
        if min(len(fake.features), len(real.features)) >= fake.features.shape[1]:
            return self._without_by_moments(fake, real, groups)
        return self._without_by_products(fake, real, groups)

    def _without_by_moments(self, fake: FeatureSet, real: FeatureSet, groups: Sequence[NDArray[np.int64]]) -> Array:
        wholes = [moments(fake.features), moments(real.features)]
        distances = []
        for group in groups:
            deleted = [part.features[np.isin(part.identities, group)] for part in (fake, real)]
            if any(whole.count - len(rows) < 2 for whole, rows in zip(wholes, deleted, strict=True)):
                distances.append(float("nan"))
                continue
            first, second = (
                whole.remove(moments(rows)) if len(rows) else whole for whole, rows in zip(wholes, deleted, strict=True)
            )
            distances.append(frechet_distance(first.mean, first.covariance, second.mean, second.covariance))
        return np.array(distances)

    def _without_by_products(self, fake: FeatureSet, real: FeatureSet, groups: Sequence[NDArray[np.int64]]) -> Array:
        origin = real.features.mean(axis=0, dtype=np.float64)  # near both means, so that centring cancels little
        a, b = fake.features - origin, real.features - origin  # [N1, D], [N2, D] float64
        products = a @ b.T  # [N1, N2]
        a_squares, b_squares = np.square(a).sum(axis=1), np.square(b).sum(axis=1)
        distances = []
        for group in groups:
            rows, columns = ~np.isin(fake.identities, group), ~np.isin(real.identities, group)
            n, m = int(rows.sum()), int(columns.sum())
            if min(n, m) < 2:
                distances.append(float("nan"))
                continue
            a_mean, b_mean = a[rows].mean(axis=0), b[columns].mean(axis=0)
            left = products[np.ix_(rows, columns)]
            left -= left.mean(axis=1, keepdims=True)
            left -= left.mean(axis=0, keepdims=True)
            trace_of_root = _nuclear_norm(left, JACKKNIFE_TOLERANCE) / np.sqrt((n - 1) * (m - 1))
            a_trace = (a_squares[rows].sum() - n * a_mean @ a_mean) / (n - 1)
            b_trace = (b_squares[columns].sum() - m * b_mean @ b_mean) / (m - 1)
            distances.append(_frechet(a_mean - b_mean, a_trace + b_trace, trace_of_root))
        return np.array(distances)


@dataclass(frozen=True)
class KernelDistance:
    """The kernel U-statistic over pairs of rows of different identities; NaN where there is no such pair.

    Frames of one identity resemble each other, so pairs of them inflate the sums within a set, and, where a fake has
    its real counterpart, the sum across. Without them the expectation is zero for two samples of one population.
    """

    def __call__(self, fake: FeatureSet, real: FeatureSet) -> float:
        if min(len(fake.features), len(real.features)) == 0:
            return float("nan")
        return float(self.without(fake, real, [np.empty(0, np.int64)])[0])

    def without(self, fake: FeatureSet, real: FeatureSet, groups: Sequence[NDArray[np.int64]]) -> Array:
        """[len(groups)] the distance when a group of identities, disjoint from the others, is deleted from both sets.

        The kernel is computed once: its sums for pairs of groups give those of every deletion.
        """
        _check_rows(fake.features)
        _check_rows(real.features)
        f, r = (_one_hot(part.identities, groups) for part in (fake, real))  # [N1, G + 1], [N2, G + 1]
        means = []
        for x, x_groups, y, y_groups in ((fake, f, fake, f), (real, r, real, r), (fake, f, real, r)):
            sums, pairs = _kernel_sums(x, x_groups, y, y_groups)
            with np.errstate(invalid="ignore"):  # 0 / 0: no pair, NaN
                means.append(_without_each(sums) / _without_each(pairs))
        return (means[0] + means[1] - 2 * means[2])[: len(groups)]


def _one_hot(identities: NDArray[np.int64], groups: Sequence[NDArray[np.int64]]) -> Array:
    """[N, G + 1] which group a row's identity is in; the last column is for those in none."""
    member = np.stack([np.isin(identities, group) for group in groups], axis=1)  # [N, G]
    return np.hstack([member, ~member.any(axis=1, keepdims=True)]).astype(np.float64)


def _without_each(x: Array) -> Array:
    """[G] the sum of a [G, G] matrix without its i-th row and column."""
    return np.asarray(x.sum() - x.sum(axis=0) - x.sum(axis=1) + x.diagonal())


# Statistics in a file, as pytorch-fid writes them, with what it does not record.


@dataclass(frozen=True)
class Statistics:
    """Mean and covariance of a set's features, and where they are from: None where the file does not say."""

    mu: Array  # [D]
    sigma: Array  # [D, D]
    network: str | None = None
    weights_sha256: str | None = None
    resize: str | None = None  # of resizes.py: two resizes give distances that do not compare
    n_frames: int | None = None
    n_identities: int | None = None


def save_statistics(path: Path, statistics: Statistics) -> None:
    """Write an .npz that pytorch-fid reads too, whole or not at all."""
    about = asdict(statistics)
    mu, sigma = about.pop("mu"), about.pop("sigma")
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        np.savez_compressed(file, mu=mu, sigma=sigma, theval=np.array(json.dumps(about)))
    temporary.replace(path)


def load_statistics(path: Path) -> Statistics:
    """Read an .npz of `save_statistics` or of pytorch-fid.

    Raises:
        ConfigError: the file is missing, is no such .npz, or holds other than finite float64 mu [D] and sigma [D, D].
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            mu, sigma = file["mu"], file["sigma"]
            about = json.loads(file["theval"].item()) if "theval" in file else {}
    except FileNotFoundError:
        raise ConfigError(f"statistics '{path}' do not exist; check the path") from None
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ConfigError(f"'{path}' does not hold statistics 'mu' and 'sigma' ({error}); save them again") from error
    if mu.ndim != 1 or sigma.shape != mu.shape * 2 or not mu.dtype == sigma.dtype == np.float64:
        raise ConfigError(
            f"'{path}' holds mu {mu.dtype} {list(mu.shape)} and sigma {sigma.dtype} {list(sigma.shape)} instead of "
            "float64 [D] and [D, D]; compute the statistics again in float64"
        )
    if not (np.isfinite(mu).all() and np.isfinite(sigma).all()):
        raise ConfigError(f"'{path}' holds NaN or infinity; compute the statistics again")
    try:
        return Statistics(mu, sigma, **about)
    except TypeError as error:
        raise ConfigError(f"'{path}' was written by another theval ({error}); save the statistics again") from error


# Checks of rows.


def _check_pair(a: Rows, b: Rows) -> None:
    for rows in (a, b):
        _check_rows(rows)
        if len(rows) < 2:
            raise ValueError(f"a distance needs at least 2 rows, not {len(rows)}")
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"features have {a.shape[1]} and {b.shape[1]} dimensions; both must be of one network")


def _check_rows(rows: Rows) -> None:
    if rows.ndim != 2 or 0 in rows.shape:
        raise ValueError(f"features must be [N, D], not {list(rows.shape)}")
    if not all(np.isfinite(chunk).all() for chunk in _chunks(rows)):
        raise ValueError("features hold NaN or infinity; leave those rows out and count them")


def _chunks(rows: Rows) -> Iterator[Rows]:
    return (rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK))


def _moments_of_chunk(rows: Rows) -> Moments:
    mean = rows.mean(axis=0, dtype=np.float64)
    centred = rows - mean  # [N, D] float64
    return Moments(len(rows), mean, centred.T @ centred)


fid = SetMetric(
    name="fid",
    higher_is_better=False,
    unit="",
    summary="Frechet distance on the FID InceptionV3's 2048 features with pytorch-fid's resize (bilinear, no "
    "antialiasing) and covariance (N - 1); equals pytorch-fid",
    feature="inception_fid",
    distance=FrechetDistance(),
    minimum_frames=2048,
    minimum_identities=200,
)

kid = SetMetric(
    name="kid",
    higher_is_better=False,
    unit="",
    summary="Kernel distance, (x.y/2048 + 1)^3, on the features of 'fid': U-statistic over all pairs of frames of "
    "different identities, no subsets",
    feature="inception_fid",
    distance=KernelDistance(),
    minimum_frames=256,
    minimum_identities=20,
)

fd_efflite0 = SetMetric(
    name="fd_efflite0",
    higher_is_better=False,
    unit="",
    summary="Frechet distance on the 1280 pooled features of EfficientNet-Lite0 (ImageNet), covariance with N - 1; not "
    "comparable with FID",
    feature="efflite0",
    distance=FrechetDistance(),
    minimum_frames=2048,
    minimum_identities=200,
)

kid_efflite0 = SetMetric(
    name="kid_efflite0",
    higher_is_better=False,
    unit="",
    summary="Kernel distance, (x.y/1280 + 1)^3, on the features of 'fd_efflite0': U-statistic over all pairs of frames "
    "of different identities, no subsets",
    feature="efflite0",
    distance=KernelDistance(),
    minimum_frames=256,
    minimum_identities=20,
)
