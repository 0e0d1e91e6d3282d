"""From a video's mean logit to a probability that can be believed, and to thresholds with a stated error rate."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from thead_eval.verdicts import OperatingPoint

RATES = (0.2, 0.1, 0.05, 0.01, 0.001)  # of which those are stated that the validation videos are enough for
DRAWS = 200

Logits = NDArray[np.float64]  # [V] a video each: the mean of its frames' logits


@dataclass(frozen=True)
class Calibration:
    """Platt's: p = sigmoid(a logit + b), for as many fakes as reals."""

    a: float
    b: float
    draws: NDArray[np.float64]  # [D, 2] a and b as fitted to other draws of the validation people

    def probability(self, logits: NDArray[np.floating] | float) -> NDArray[np.float64]:
        """Of being fake; NaN stays NaN."""
        p: NDArray[np.float64] = expit(self.a * np.asarray(logits, np.float64) + self.b)
        return p

    def interval(self, logit: float) -> tuple[float, float]:
        """95 % of what the probability would be, had other people been there to calibrate on."""
        low, high = np.percentile(expit(self.draws[:, 0] * logit + self.draws[:, 1]), [2.5, 97.5])
        return float(low), float(high)


def calibrate(logits: Logits, fake: NDArray[np.bool_], identities: Sequence[str], seed: int) -> Calibration:
    """Fit a and b on validation videos, real and fake counting alike, and again on bootstraps of their people."""
    names = np.array(identities)
    a, b = platt(logits, fake, np.ones(len(logits)), names)
    people = np.unique(names)
    place = np.searchsorted(people, names)
    random = np.random.default_rng(seed)
    draws = []
    for _ in range(DRAWS):
        weights = np.bincount(random.integers(len(people), size=len(people)), minlength=len(people))[place]
        # A draw without either class says nothing about the two.
        if weights[fake].any() and weights[~fake].any():
            draws.append(platt(logits, fake, weights.astype(float), names))
    return Calibration(a, b, np.array(draws or [(a, b)]))


def platt(
    logits: Logits, fake: NDArray[np.bool_], weights: NDArray[np.float64], names: NDArray[np.str_]
) -> tuple[float, float]:
    """a and b, with Platt's targets (N+1)/(N+2) and 1/(N+2), where N counts people, not their near-copied videos.

    Of logits that are higher for reals, or all alike, both are 0: they tell nothing, and are not turned round.
    """
    from sklearn.linear_model import LogisticRegression  # takes seconds to import, and a scan fits nothing

    targets = np.empty(len(logits))
    weights = weights.copy()
    for is_fake in (False, True):
        rows = fake == is_fake
        people = len(np.unique(names[rows & (weights > 0)]))
        targets[rows] = (people + 1) / (people + 2) if is_fake else 1 / (people + 2)
        weights[rows] /= weights[rows].sum()
    both = np.concatenate([logits, logits])[:, None]  # each video as fake and as real, in parts
    ones = np.repeat([1, 0], len(logits))
    parts = np.concatenate([weights * targets, weights * (1 - targets)])
    scale = float(np.std(logits))
    if scale <= 1e-12 * np.abs(logits).max():  # alike but for rounding
        return 0.0, 0.0
    kept = parts > 0
    fit = LogisticRegression(C=1e6, solver="newton-cholesky").fit(
        both[kept] / scale, ones[kept], parts[kept] * len(logits)
    )
    if fit.coef_[0, 0] < 0:
        return 0.0, 0.0
    return float(fit.coef_[0, 0]) / scale, float(fit.intercept_[0])


def operating_points(logits: Logits, fake: NDArray[np.bool_]) -> tuple[OperatingPoint, ...]:
    """The thresholds for each of RATES of which the videos show at least one beyond it.

    At most the stated share of the real videos reaches `fake`, and at most that share of the fakes falls short of
    `real`.
    """
    reals, fakes = np.sort(logits[~fake])[::-1], np.sort(logits[fake])
    points = []
    for rate in RATES:
        beyond, short = (int(rate * len(scores) + 1e-9) for scores in (reals, fakes))
        if beyond and short and beyond < len(reals) and short < len(fakes):
            above = np.nextafter(reals[beyond], np.inf)  # where the midpoint would let in equal ones
            between = float(max((reals[beyond - 1] + reals[beyond]) / 2, above))
            points.append(OperatingPoint(rate, fake=between, real=float((fakes[short - 1] + fakes[short]) / 2)))
    return tuple(points)
