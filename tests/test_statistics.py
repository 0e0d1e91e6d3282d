"""Intervals over identities, effective sample size and noise floors, on data whose truth is known."""

import numpy as np
import pytest
from numpy.typing import NDArray

from thead_eval import statistics
from thead_eval.statistics import Interval
from thead_eval.types import FeatureSet, FrameValues


def clustered(random: np.random.Generator, identities: int, frames: int, rho: float) -> dict[str, FrameValues]:
    """Values of mean 0 and variance 1 whose correlation within an identity is rho."""
    shared = np.sqrt(rho) * random.standard_normal((identities, 1))
    values = shared + np.sqrt(1 - rho) * random.standard_normal((identities, frames))
    return {f"person {i}": row for i, row in enumerate(values)}


def mean_shift(fake: FeatureSet, real: FeatureSet) -> float:
    """A distance with a known answer: of the means of the first feature."""
    if min(len(fake.features), len(real.features)) == 0:
        return float("nan")
    return float(fake.features[:, 0].mean(dtype=np.float64) - real.features[:, 0].mean(dtype=np.float64))


def feature_set(random: np.random.Generator, identities: int, frames: int, rho: float, first: int = 0) -> FeatureSet:
    rows = np.stack([np.concatenate(list(clustered(random, identities, frames, rho).values())) for _ in range(3)], 1)
    return FeatureSet(rows.astype(np.float32), np.repeat(np.arange(first, first + identities), frames))


def test_the_value_is_the_mean_over_identities_of_their_means() -> None:
    values = {
        "long": np.array([1.0, 1.0, 1.0, 1.0]),
        "short": np.array([4.0, np.nan]),
        "without a face": np.array([np.nan, np.nan]),
    }
    interval = statistics.mean_interval(values, seed=0)
    assert interval.value == 2.5
    assert (
        interval.low == 1.0 and interval.high == 4.0
    )  # two identities: a quarter of the draws takes one of them twice
    assert statistics.identity_means(values) == {"long": 1.0, "short": 4.0}


def test_one_identity_has_no_interval_and_none_has_no_value() -> None:
    assert statistics.mean_interval({"a": np.array([1.0, 3.0])}, seed=0) == Interval(2.0, None, None)
    assert statistics.mean_interval({"a": np.array([np.nan])}, seed=0) == Interval(None, None, None)
    assert statistics.mean_interval({}, seed=0) == Interval(None, None, None)
    one = FeatureSet(np.arange(6, dtype=np.float32)[:, None], np.zeros(6, np.int64))
    assert statistics.jackknife(mean_shift, one, one).interval == Interval(0.0, None, None)
    assert statistics.noise_floor(mean_shift, one, seed=0) is None


def test_the_seed_decides_the_interval() -> None:
    random = np.random.default_rng(0)
    values = clustered(random, 12, 4, 0.5)
    features = feature_set(random, 30, 2, 0.5)
    assert statistics.mean_interval(values, seed=1) == statistics.mean_interval(values, seed=1)
    assert statistics.mean_interval(values, seed=1) != statistics.mean_interval(values, seed=2)
    floors = [statistics.noise_floor(mean_shift, features, seed) for seed in (1, 1, 2)]
    assert floors[0] == floors[1] != floors[2]


def test_intervals_cover_the_truth_where_those_of_frames_do_not() -> None:
    random = np.random.default_rng(0)
    ours = frames = 0
    for _ in range(100):
        values = clustered(random, identities=40, frames=16, rho=0.85)
        interval = statistics.mean_interval(values, seed=0, draws=400)
        assert interval.low is not None and interval.high is not None
        ours += interval.low <= 0 <= interval.high
        every = np.concatenate(list(values.values()))
        low, high = np.percentile(every[random.integers(len(every), size=(200, len(every)))].mean(axis=1), [2.5, 97.5])
        frames += low <= 0 <= high
    assert 0.88 <= ours / 100 <= 0.99
    assert frames / 100 < 0.5


def test_jackknife_intervals_cover_the_truth() -> None:
    random = np.random.default_rng(1)
    covered = 0
    for _ in range(100):
        fake, real = feature_set(random, 40, 8, 0.8), feature_set(random, 40, 8, 0.8, first=40)
        interval = statistics.jackknife(mean_shift, fake, real).interval
        assert interval.low is not None and interval.high is not None
        covered += interval.low <= 0 <= interval.high
    assert 0.90 <= covered / 100 <= 0.99


def test_identities_are_deleted_from_both_sides() -> None:
    """A fake that copies its identity leaves the same shift whoever is deleted."""
    real = feature_set(np.random.default_rng(0), 10, 5, 0.9)
    fake = FeatureSet(real.features + np.float32(0.5), real.identities)
    interval = statistics.jackknife(mean_shift, fake, real).interval
    assert interval == pytest.approx((0.5, 0.5, 0.5), abs=1e-5)


def test_a_distance_that_fails_on_what_is_left_has_no_interval() -> None:
    fake = FeatureSet(np.ones((4, 1), np.float32), np.array([0, 0, 0, 0]))  # deleting identity 0 leaves no fake
    real = FeatureSet(np.zeros((4, 1), np.float32), np.array([0, 1, 2, 3]))
    assert statistics.jackknife(mean_shift, fake, real).interval == Interval(1.0, None, None)
    empty = statistics.without(fake, np.array([0]))
    assert statistics.jackknife(mean_shift, empty, real).interval == Interval(None, None, None)


def test_a_paired_difference_is_over_the_identities_of_both() -> None:
    random = np.random.default_rng(0)
    people = {f"person {i}": float(x) for i, x in enumerate(random.standard_normal(30))}
    better = {name: value + 0.1 + 0.01 * float(random.standard_normal()) for name, value in people.items()}
    a: dict[str, float | None] = {**better, "only in a": 100.0, "failed in b": 100.0, "failed in a": None}
    b: dict[str, float | None] = {**people, "only in b": -100.0, "failed in b": None, "failed in a": -100.0}
    interval = statistics.paired_difference_interval(a, b)
    assert interval.value == pytest.approx(0.1, abs=0.01)
    assert interval.low is not None and interval.low > 0.09  # though each side alone varies by 1
    assert statistics.paired_difference_interval(a, {}) == Interval(None, None, None)
    assert statistics.paired_difference_interval({"x": 3.0}, {"x": 1.0}) == Interval(2.0, None, None)


def test_effective_frames_at_the_extremes() -> None:
    copies = {"a": np.full(10, 1.0), "b": np.full(10, 2.0), "c": np.full(10, 5.0)}
    assert statistics.effective_frames(copies) == pytest.approx(3)  # an identity is worth one frame
    alike = {"a": np.array([1.0, 2.0, 3.0]), "b": np.array([1.0, 2.0, 3.0])}
    assert statistics.effective_frames(alike) == pytest.approx(6)  # every frame counts
    single = {"a": np.array([1.0]), "b": np.array([2.0]), "c": np.array([4.0, np.nan])}
    assert statistics.effective_frames(single) == 3
    assert statistics.effective_frames({"a": np.array([1.0, 2.0]), "b": np.array([np.nan])}) is None
    assert statistics.effective_frames({"a": np.zeros(3), "b": np.zeros(3)}) is None  # nothing varies: rho is 0 / 0
    assert statistics.effective_frames({}) is None


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.85])
def test_effective_frames_of_a_known_correlation(rho: float) -> None:
    values = clustered(np.random.default_rng(0), identities=800, frames=16, rho=rho)
    expected = 800 * 16 / (1 + 15 * rho)
    assert statistics.effective_frames(values) == pytest.approx(expected, rel=0.1)
    uneven = {name: frames[: 2 + i % 15] for i, (name, frames) in enumerate(values.items())}
    sizes = np.array([len(frames) for frames in uneven.values()])
    expected = sizes.sum() / (1 + (np.square(sizes).sum() / sizes.sum() - 1) * rho)
    assert statistics.effective_frames(uneven) == pytest.approx(expected, rel=0.1)


def test_effective_feature_frames_weigh_components_by_their_variance() -> None:
    random = np.random.default_rng(0)
    features = feature_set(random, 400, 16, 0.85)
    assert statistics.effective_feature_frames(features) == pytest.approx(400 * 16 / (1 + 15 * 0.85), rel=0.1)
    turned = features.features @ np.linalg.qr(random.standard_normal((3, 3)))[0].astype(np.float32)
    rotated = FeatureSet(turned, features.identities)
    assert statistics.effective_feature_frames(rotated) == pytest.approx(
        statistics.effective_feature_frames(features), rel=1e-4
    )
    noise = FeatureSet(np.hstack([features.features, np.full((6400, 1), 7, np.float32)]), features.identities)
    assert statistics.effective_feature_frames(noise) == pytest.approx(
        statistics.effective_feature_frames(features), rel=1e-4
    )  # a component that does not vary has no say


def test_the_noise_floor_splits_identities() -> None:
    seen: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []

    def distance(fake: FeatureSet, real: FeatureSet) -> float:
        seen.append((np.unique(fake.identities), np.unique(real.identities)))
        return float(len(seen))

    real = feature_set(np.random.default_rng(0), 9, 3, 0.5)
    assert statistics.noise_floor(distance, real, seed=0) == 3.0  # the median of 1..5
    for first, second in seen:
        assert len(first) == 4 and len(second) == 5 and not set(first) & set(second)
    assert len({tuple(first) for first, _ in seen}) > 1
    three = statistics.without(real, np.arange(3, 9))
    assert statistics.noise_floor(distance, three, seed=0) is None
