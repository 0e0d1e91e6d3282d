"""How well scores tell fakes from real video, and how far a probability of theirs can be believed.

Every function takes draws of identities, so that a bootstrap over them is one call: the scores are sorted once, and
what each identity adds at each threshold is summed by one matrix product. The values agree with scikit-learn, and EER
and ECE with torchmetrics, to 1e-9.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from thead_eval.statistics import Draws, Scale

Weights = NDArray[np.float64]  # [D, N]; how often each draw holds each score
Labels = NDArray[np.bool_]  # [N]; True = fake
Scores = NDArray[np.floating]  # [N]; the higher the more fake
Values = NDArray[np.float64]  # [D]; NaN where a draw lacks a class that the metric needs

ECE_BINS = 15


@dataclass(frozen=True)
class Sweep:
    """What is flagged as the threshold falls past each distinct score, from nothing to everything."""

    thresholds: NDArray[np.float64]  # [K + 1], falling from +inf; flagged is what has at least this score
    reals: NDArray[np.float64]  # [D, K + 1] real ones flagged
    fakes: NDArray[np.float64]  # [D, K + 1] fakes flagged

    @property
    def false_positive_rate(self) -> NDArray[np.float64]:
        """[D, K + 1]; NaN without reals."""
        return _ratio(self.reals, self.reals[:, -1:])

    @property
    def true_positive_rate(self) -> NDArray[np.float64]:
        """[D, K + 1]; NaN without fakes."""
        return _ratio(self.fakes, self.fakes[:, -1:])


def sweep(fake: Labels, scores: Scores, draws: Draws | None = None) -> Sweep:
    """Every threshold that makes a difference; without draws, one that holds each score once.

    Raises:
        ValueError: there is no score, one is NaN, or the lengths differ.
    """
    _check(fake, scores)
    draws = draws or once(len(scores))
    rising, place = np.unique(scores, return_inverse=True)
    of_identity = np.zeros((2, draws.counts.shape[1], len(rising) + 1))  # real, fake; nothing is flagged at first
    np.add.at(of_identity, (fake.astype(int), draws.identity, len(rising) - place), 1)
    reals, fakes = draws.counts @ of_identity.cumsum(axis=2)
    return Sweep(np.append(np.inf, rising[::-1]).astype(np.float64), reals, fakes)


def once(count: int) -> Draws:
    """One draw that holds each of so many rows once."""
    return Draws(np.ones((1, 1)), np.zeros(count, np.int64))


def auc(fake: Labels, scores: Scores, draws: Draws | None = None) -> Values:
    """Area under the ROC curve: how often a fake scores higher than a real one, ties counting half."""
    curve = sweep(fake, scores, draws)
    x, y = curve.false_positive_rate, curve.true_positive_rate
    area: Values = (np.diff(x) * (y[:, 1:] + y[:, :-1]) / 2).sum(axis=1)
    return area


def average_precision(fake: Labels, scores: Scores, draws: Draws | None = None) -> Values:
    """Mean precision over the fakes in the order of their scores; depends on how many reals there are per fake."""
    curve = sweep(fake, scores, draws)
    precision = _ratio(curve.fakes, curve.reals + curve.fakes)[:, 1:]
    steps = np.diff(curve.true_positive_rate)
    mean: Values = np.where(steps > 0, steps * precision, 0).sum(axis=1)  # at the first thresholds a draw may hold none
    both = (curve.reals[:, -1] > 0) & (curve.fakes[:, -1] > 0)
    return np.where(both, mean, np.nan)


def equal_error_rate(fake: Labels, scores: Scores, draws: Draws | None = None) -> Values:
    """Mean of false positive and false negative rate at the threshold where they differ least; of several, the highest.

    As torchmetrics has it. Compared by multiplied counts, which are exact, as two thresholds often tie.
    """
    curve = sweep(fake, scores, draws)
    missed = curve.fakes[:, -1:] - curve.fakes
    apart = np.abs(curve.reals * curve.fakes[:, -1:] - missed * curve.reals[:, -1:])
    at = apart.argmin(axis=1)
    rows = np.arange(len(at))
    rate: Values = (curve.false_positive_rate[rows, at] + 1 - curve.true_positive_rate[rows, at]) / 2
    return rate


def true_positive_rate_at(fpr: float, fake: Labels, scores: Scores, draws: Draws | None = None) -> Values:
    """Share of fakes flagged at the threshold that flags most of them and at most `fpr` of the reals."""
    curve = sweep(fake, scores, draws)
    allowed = curve.reals <= fpr * curve.reals[:, -1:] * (1 + 1e-12)  # 0.05 * 20 reals must allow 1
    last = curve.reals.shape[1] - 1 - allowed[:, ::-1].argmax(axis=1)
    rate: Values = curve.true_positive_rate[np.arange(len(last)), last]
    return np.where(curve.reals[:, -1] > 0, rate, np.nan)


def expected_calibration_error(fake: Labels, p: Scores, draws: Draws | None = None, *, balance: bool = False) -> Values:
    """Mean distance of the probability said and the share of fakes found, over 15 bins of equal width [a, b).

    With `balance`, as in the next two, reals and fakes weigh alike, however many there are of each. As torchmetrics has
    it (norm l1): a probability of exactly 1 is a bin of its own.
    """
    weights = _check_probabilities(fake, p, draws, balance)
    bins = reliability_bins(p)
    differences = (weights * (fake - p)) @ (bins[:, None] == np.arange(ECE_BINS + 1))  # [D, bins]
    error: Values = _ratio(np.abs(differences).sum(axis=1), weights.sum(axis=1))
    return error


def brier(fake: Labels, p: Scores, draws: Draws | None = None, *, balance: bool = False) -> Values:
    """Mean squared distance of the probability from 1 for fakes and from 0 for reals."""
    weights = _check_probabilities(fake, p, draws, balance)
    return _ratio(weights @ np.square(p - fake), weights.sum(axis=1))


def log_loss(fake: Labels, p: Scores, draws: Draws | None = None, *, balance: bool = False) -> Values:
    """Mean negative logarithm of the probability of what is true, in nats; clipped as scikit-learn does."""
    weights = _check_probabilities(fake, p, draws, balance)
    smallest = np.finfo(p.dtype).eps
    clipped = np.clip(p, smallest, 1 - smallest)
    return _ratio(weights @ -np.log(np.where(fake, clipped, 1 - clipped)), weights.sum(axis=1))


def reliability_bins(p: Scores) -> NDArray[np.intp]:
    """[N] the bin that each probability falls into; see `expected_calibration_error`."""
    return np.searchsorted(np.linspace(0, 1, ECE_BINS + 1), p, side="right") - 1


@dataclass(frozen=True)
class DetectionMetric:
    """A number about a detector, by name; the name fixes its settings."""

    name: str
    higher_is_better: bool
    reads: Literal["score", "probability"]
    compute: Callable[[Labels, Scores, Draws | None], Values]
    summary: str
    both_classes: bool = True  # None where all are real, or all fake
    minimum_reals: int = 1  # with fewer there is no such false positive rate to be read
    scale: Scale = "odds"  # of its interval


METRICS = (
    DetectionMetric("auc", True, "score", auc, "area under the ROC curve, ties counting half"),
    DetectionMetric("ap", True, "score", average_precision, "average precision, fakes being positive"),
    DetectionMetric("eer", False, "score", equal_error_rate, "equal error rate: nearest threshold, mean of both"),
    *(
        DetectionMetric(
            f"tpr_at_{fpr:g}",
            True,
            "score",
            partial(true_positive_rate_at, fpr / 100),
            f"share of fakes flagged where at most {fpr:g} % of the reals are; n/a with fewer than {reals} reals",
            minimum_reals=reals,
            scale="share",
        )
        for fpr, reals in ((5, 20), (1, 100), (0.1, 1000))
    ),
    DetectionMetric(
        "ece",
        False,
        "probability",
        expected_calibration_error,
        f"expected calibration error of p(fake), {ECE_BINS} bins of equal width, l1",
        both_classes=False,
        scale="distance",
    ),
    DetectionMetric("brier", False, "probability", brier, "mean squared error of p(fake)", False, scale="error"),
    DetectionMetric("log_loss", False, "probability", log_loss, "mean -ln p of what is true", False, scale="positive"),
)


def why_not(metric: DetectionMetric, fake: Labels) -> str:
    """Why the metric has no value on these; '' where it has one."""
    reals = int((~fake).sum())
    if metric.both_classes and (reals == 0 or reals == len(fake)):
        return "needs fakes and reals, and there are only " + ("fakes" if reals == 0 else "reals")
    if reals < metric.minimum_reals:
        return f"{reals} reals are too few, {metric.minimum_reals} are needed"
    return ""


def measure(metric: DetectionMetric, fake: Labels, scores: Scores) -> float | None:
    """The metric's value, or None where these scores cannot have one (see `why_not`).

    Raises:
        ValueError: there is no score, one is NaN, or a probability lies outside 0..1.
    """
    _check(fake, scores)
    return None if why_not(metric, fake) else float(metric.compute(fake, scores, None)[0])


def _check(fake: Labels, scores: Scores) -> None:
    if len(fake) != len(scores):
        raise ValueError(f"{len(fake)} labels and {len(scores)} scores; there must be one for each")
    if not len(scores):
        raise ValueError("there is no score; count what could not be scored, and leave the metric out")
    if np.isnan(scores).any():
        raise ValueError(
            f"{int(np.isnan(scores).sum())} of {len(scores)} scores are NaN; count them, and leave them out"
        )


def _check_probabilities(fake: Labels, p: Scores, draws: Draws | None, balance: bool) -> Weights:
    _check(fake, p)
    if p.min() < 0 or p.max() > 1:
        raise ValueError(f"probabilities must lie in 0..1, not {p.min():g}..{p.max():g}")
    weights = (draws or once(len(p))).weights
    return balanced(weights, fake) if balance else weights


def balanced(weights: Weights, fake: Labels) -> Weights:
    """Weights [D, N] of which reals and fakes have half each, where there are both."""
    shares = np.zeros(weights.shape)
    for of_class in (fake, ~fake):
        whole = weights[:, of_class].sum(axis=1, keepdims=True)
        shares[:, of_class] = np.divide(weights[:, of_class], whole, out=shares[:, of_class], where=whole > 0)
    return shares


def _ratio(part: NDArray[np.floating], whole: NDArray[np.floating]) -> NDArray[np.float64]:
    """part / whole, NaN where whole is 0."""
    nothing = np.full(np.broadcast_shapes(part.shape, whole.shape), np.nan)
    ratio: NDArray[np.float64] = np.divide(part, whole, out=nothing, where=whole > 0)
    return ratio
