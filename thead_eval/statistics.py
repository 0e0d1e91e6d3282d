"""How far a number can be trusted: intervals from resampling identities, effective sample size, noise floors.

Frames of one video are near copies of each other, so identities, never frames, are resampled: a bootstrap of
frames covers the true mean in a quarter of the cases where it promises 95 %.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from scipy import special

if TYPE_CHECKING:  # `theval regress` compares without torch, which is what these are beside
    from thead_eval.types import FeatureSet, FrameValues

CELLS = 2**21  # draws times rows that a bootstrap holds at a time: 16 MB an array
ROUNDING = 1e-12  # of a value that is 0 or 1
HALVINGS = 5  # random splits of the real set, whose median is the noise floor

Distance = Callable[["FeatureSet", "FeatureSet"], float]  # (fake, real); NaN where there are too few rows


class Interval(NamedTuple):
    """A value with its 95 % interval."""

    value: float | None  # None where nothing could be judged
    low: float | None  # None with fewer than two identities
    high: float | None


@runtime_checkable
class LeavesOut(Protocol):
    """A distance that knows a faster way to itself without some identities than computing it anew."""

    def without(
        self, fake: "FeatureSet", real: "FeatureSet", groups: Sequence[NDArray[np.int64]]
    ) -> NDArray[np.float64]:
        """[len(groups)] the distance of what is left when a group of identities is deleted from both sets."""
        ...


def identity_means(values: Mapping[str, "FrameValues"]) -> dict[str, float]:
    """Each identity's mean over its frames that could be scored, without the identities that have none."""
    return {name: float(np.nanmean(frames)) for name, frames in values.items() if not np.isnan(frames).all()}


def mean_interval(values: Mapping[str, "FrameValues"], seed: int, draws: int = 2000) -> Interval:
    """The mean over identities of each one's mean over its scored frames, with a bootstrap over identities."""
    means = np.array(list(identity_means(values).values()))
    if len(means) < 2:
        return Interval(float(means[0]) if len(means) else None, None, None)
    drawn = np.random.default_rng(seed).integers(len(means), size=(draws, len(means)))
    low, high = np.percentile(means[drawn].mean(axis=1), [2.5, 97.5])
    return Interval(float(means.mean()), float(low), float(high))


def share_interval(answers: Mapping[str, NDArray[np.float64]]) -> Interval:
    """The mean over people of each one's share of right answers (1 right, 0 wrong), with an interval over people.

    Clopper and Pearson's at the number of independent answers that these are worth (Korn and Graubard 1998). Not a
    bootstrap: that has no width where everybody was always right, and of five people who are right in 97 of 100
    cases it covers the truth half of the time; this in 93 % or more, whatever the share, however people differ.
    """
    means = np.array([own.mean() for own in answers.values() if len(own)])
    if len(means) < 2:
        return Interval(float(means[0]) if len(means) else None, None, None)
    mean, variance = float(means.mean()), float(means.var(ddof=1)) / len(means)
    count = sum(len(own) for own in answers.values())
    worth = count if not variance else min(count, mean * (1 - mean) / variance)
    worth *= (_student(count - 1) / _student(len(means) - 1)) ** 2
    right = mean * worth
    low = special.betaincinv(right, worth - right + 1, 0.025) if mean > 0 else 0.0
    high = special.betaincinv(right + 1, worth - right, 0.975) if mean < 1 else 1.0
    return Interval(mean, float(low), float(high))


class Draws(NamedTuple):
    """How often each of several draws holds each identity, and so each of the rows that belong to it."""

    counts: NDArray[np.float64]  # [D, I]
    identity: NDArray[np.int64]  # [N] of each row

    @property
    def weights(self) -> NDArray[np.float64]:
        """[D, N] how often each draw holds each row."""
        return self.counts[:, self.identity]


Scale = Literal["odds", "share", "positive", "error", "distance"]


def bootstrap_bounds(
    measure: Callable[[Draws], NDArray[np.float64]],
    identities: NDArray[np.int64],
    seed: int,
    scale: Scale,
    freedom: int | None = None,
    draws: int = 1000,
) -> tuple[float, float] | None:
    """The 95 % interval of any measure of rows, by how it varies where identities are drawn with replacement.

    Student's, with the deviation of the draws, and not their percentiles. Who is drawn twice is compared with
    himself, which makes every draw's AUC too high by the difference of AUC within and between people, divided by
    their number; and near 1 percentiles reach too little down. Of 18 to 25 people who have a real video and six fakes
    they cover the truth in 64 to 93 of 100 cases, this in 86 to 98: `test_detection.py` does it again.

    Args:
        measure: [D] values of so many draws, NaN of a draw that has none.
        identities: [N] the identity of each row.
        seed: Of the draws.
        scale: On which it is symmetrical. "odds": of what is 0 to 1, as an area is, log-odds. "share": of a share of
            clips, which near 0 or 1 jumps from draw to draw, the arcsine of its root. "positive": logarithms, and
            "error" the same of what is at most 1. A "distance", at most 1 too, is the mean of absolute differences: of
            few people it is too large, and drawing adds as much again, so that the interval reaches down by so much
            more.
        freedom: Student's; None: the identities less one.
        draws: How many.

    Returns:
        Low and high; None with fewer than two identities or no degree of freedom, or where a tenth of the draws has no
        value. Where the scale ends, at 0 or 1, they are the draws' percentiles, which say little.
    """
    people, rows = np.unique(identities, return_inverse=True)
    freedom = len(people) - 1 if freedom is None else freedom
    if len(people) < 2 or freedom < 1:
        return None
    value = float(measure(Draws(np.ones((1, len(people))), rows))[0])
    counts = np.random.default_rng(seed).multinomial(len(people), np.full(len(people), 1 / len(people)), size=draws)
    at_a_time = max(1, CELLS // len(rows))
    parts = [counts[first : first + at_a_time].astype(float) for first in range(0, draws, at_a_time)]
    values = np.concatenate([measure(Draws(part, rows)) for part in parts])
    if np.isnan(values).mean() > 0.1:
        return None
    most = np.inf if scale == "positive" else 1.0
    if scale != "distance" and not ROUNDING < value < most - ROUNDING:
        low, high = np.nanpercentile(values, [2.5, 97.5])
        return float(low), float(high)
    student = _student(freedom)
    if scale == "share":
        angle, reach = np.arcsin(np.sqrt(value)), student * np.nanstd(np.arcsin(np.sqrt(values.clip(0, 1))), ddof=1)
        low, high = np.sin(np.clip([angle - reach, angle + reach], 0, np.pi / 2)) ** 2
        return float(low), float(high)
    margin = student * float(np.nanstd(values, ddof=1))
    if scale == "odds":
        odds, reach = special.logit(value), margin / (value * (1 - value))
        return float(special.expit(odds - reach)), float(special.expit(odds + reach))
    if scale in ("positive", "error"):
        return value * np.exp(-margin / value), min(value * np.exp(margin / value), most)
    excess = max(float(np.nanmean(values)) - value, 0.0)
    return max(value - excess - margin, 0.0), min(value + margin, most)


class PairedDifference(NamedTuple):
    """One value minus another, paired over people."""

    value: float
    low: float  # 95 % interval
    high: float
    p: float  # of so large a difference, either way, where there is none


def paired_difference_interval(a: Mapping[str, float | None], b: Mapping[str, float | None]) -> Interval:
    """The mean of a - b over the identities that both judged, with Student's interval over those identities.

    Far narrower than the two intervals side by side suggest, as both sides saw the same people. Not a bootstrap: of
    eight people without any difference it finds one in 12 % of the cases, of three in 25 %; this does in 5 %.
    """
    found = mean_difference(a, b)
    if found is None:
        one = _differences(a, b)
        return Interval(float(one[0]) if len(one) else None, None, None)
    return Interval(found.value, found.low, found.high)


def mean_difference(a: Mapping[str, float | None], b: Mapping[str, float | None]) -> PairedDifference | None:
    """As `paired_difference_interval`; None with fewer than two identities that both judged."""
    differences = _differences(a, b)
    if len(differences) < 2:
        return None
    error = differences.std(ddof=1) / np.sqrt(len(differences))
    return _difference(float(differences.mean()), float(error), len(differences) - 1)


def jackknife_difference(value: float, left: NDArray[np.float64]) -> PairedDifference:
    """Of a measure that has no value of a person's own.

    Args:
        value: The difference between two runs.
        left: [G] the same without each of G >= 2 groups of people, who are left out of both runs.
    """
    return _difference(value, _jackknife_error(left), len(left) - 1)


def _differences(a: Mapping[str, float | None], b: Mapping[str, float | None]) -> NDArray[np.float64]:
    pairs = [(a[name], b[name]) for name in sorted(a.keys() & b.keys())]
    differences = np.array([x - y for x, y in pairs if x is not None and y is not None])
    known: NDArray[np.float64] = differences[~np.isnan(differences)]
    return known


def _difference(value: float, error: float, freedom: int) -> PairedDifference:
    margin = _student(freedom) * error
    if error == 0:
        p = 0.0 if value else 1.0
    else:
        p = 2 * float(special.stdtr(freedom, -abs(value) / error))
    return PairedDifference(value, value - margin, value + margin, p)


def effective_frames(values: Mapping[str, "FrameValues"]) -> float | None:
    """The number of independent frames that these are worth, N / (1 + (K - 1) rho).

    rho is the intraclass correlation of a one-way analysis of variance, clipped to 0..1; K, the frames of an
    identity, is weighted by frames where identities have different numbers. None with fewer than two identities, or
    where no frame differs from another.
    """
    scored = [frames[~np.isnan(frames)] for frames in values.values()]
    rows = np.concatenate([np.empty(0), *scored])[:, None]  # [N, 1]
    return _effective(rows, np.repeat(np.arange(len(scored)), [len(frames) for frames in scored]))


def effective_feature_frames(features: "FeatureSet") -> float | None:
    """As `effective_frames`, for feature vectors: rho is that of the principal components, weighted by their variance.

    That weighted mean needs no decomposition: it is the ratio of the traces of the two scatter matrices.
    """
    return _effective(features.features, features.identities)


def _effective(rows: NDArray[np.floating], groups: NDArray[np.int64]) -> float | None:
    """rows [N, D], groups [N]; see `effective_frames`."""
    sizes = np.unique(groups, return_counts=True)[1]
    n, k = len(rows), len(sizes)
    if k < 2:
        return None
    if n == k:
        return float(n)
    mean = np.mean(rows, axis=0, dtype=np.float64)
    between = within = 0.0
    for group in np.unique(groups):
        centred = rows[groups == group] - mean  # [K, D] float64
        group_mean = centred.mean(axis=0)
        between += len(centred) * float(group_mean @ group_mean)
        within += float(np.square(centred - group_mean).sum())
    mean_square_between, mean_square_within = between / (k - 1), within / (n - k)
    if mean_square_between == mean_square_within == 0:
        return None
    mean_size = (n - np.square(sizes).sum() / n) / (k - 1)  # n_0 of the unbalanced analysis of variance
    rho = (mean_square_between - mean_square_within) / (mean_square_between + (mean_size - 1) * mean_square_within)
    return float(n / (1 + (np.square(sizes).sum() / n - 1) * np.clip(rho, 0, 1)))


def jackknife_groups(identities: NDArray[np.int64], groups: int = 20) -> list[NDArray[np.int64]]:
    """Who is left out together: the same for the same people whatever a run's seed, so that runs can be paired."""
    shuffled = np.random.default_rng(0).permutation(identities)
    return np.array_split(shuffled, min(groups, len(identities)))


class Jackknife(NamedTuple):
    """A set distance with its interval, and what it is without each of some groups of people."""

    interval: Interval
    groups: list[NDArray[np.int64]]  # of identities; none where there is no interval
    left: NDArray[np.float64]  # [G]


def jackknife(distance: Distance, fake: "FeatureSet", real: "FeatureSet") -> Jackknife:
    """A set distance with the interval of a delete-a-group jackknife over identities.

    An identity is deleted from both sets. Not a bootstrap: repeated rows lower the rank of a covariance, and with it
    raise a Frechet distance in every draw.
    """
    none = np.empty(0)
    value = distance(fake, real)
    if np.isnan(value):
        return Jackknife(Interval(None, None, None), [], none)
    identities = np.union1d(fake.identities, real.identities)
    if len(identities) < 2:
        return Jackknife(Interval(value, None, None), [], none)
    groups = jackknife_groups(identities)
    if isinstance(distance, LeavesOut):
        left = distance.without(fake, real, groups)
    else:
        left = np.array([distance(without(fake, group), without(real, group)) for group in groups])
    interval = jackknife_interval(value, left)
    return Jackknife(interval, groups, left) if interval.low is not None else Jackknife(interval, [], none)


def jackknife_interval(value: float, left: NDArray[np.float64]) -> Interval:
    """A value with the interval that follows from what it is without each group; none where one of those is NaN."""
    if len(left) < 2 or np.isnan(left).any():
        return Interval(value, None, None)
    margin = _student(len(left) - 1) * _jackknife_error(left)
    return Interval(value, value - margin, value + margin)


def _jackknife_error(left: NDArray[np.float64]) -> float:
    return float(np.sqrt((len(left) - 1) / len(left) * np.square(left - left.mean()).sum()))


def _student(freedom: int) -> float:
    """The 97.5 % quantile of Student's t; scipy.stats has it too, and takes a second to import."""
    return float(special.stdtrit(freedom, 0.975))


def noise_floor(distance: Distance, real: "FeatureSet", seed: int) -> float | None:
    """The distance of two disjoint halves, by identity, of the real set: what perfect fakes of other people would get.

    The median of a few random halvings. An upper bound, as a half is smaller than the whole. Fakes of the same people
    can lie far below it, as the choice of people, which is most of it, is then the same on both sides. None with fewer
    than four identities.
    """
    identities = np.unique(real.identities)
    if len(identities) < 4:
        return None
    random = np.random.default_rng(seed)
    floors = []
    for _ in range(HALVINGS):
        half = random.permutation(identities)[: len(identities) // 2]
        floors.append(distance(without(real, np.setdiff1d(identities, half)), without(real, half)))
    floor = float(np.median(floors))
    return None if np.isnan(floor) else floor


def without(features: "FeatureSet", identities: NDArray[np.int64]) -> "FeatureSet":
    """The rows of the other identities."""
    kept = ~np.isin(features.identities, identities)
    return features._replace(features=features.features[kept], identities=features.identities[kept])
