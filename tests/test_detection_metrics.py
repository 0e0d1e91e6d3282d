"""Metrics of detectors, against scikit-learn and torchmetrics, and by arithmetic that a reader can do."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn import metrics as sk
from torchmetrics.functional.classification import binary_calibration_error

from thead_eval.metrics import detection
from thead_eval.metrics.detection import METRICS, DetectionMetric, measure
from thead_eval.statistics import Draws

BY_NAME = {metric.name: metric for metric in METRICS}


def cases() -> Iterator[tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.float64]]]:
    """200 sets of labels, probabilities (ties in two of three) and weights; one class in a tenth of them."""
    random = np.random.default_rng(0)
    for case in range(200):
        count = int(random.integers(2, 400))
        fake = random.random(count) < random.random()
        if case % 10 == 0:
            fake[:] = case % 20 == 0
        p = np.clip(random.normal(0.4 + 0.2 * fake, 0.25), 0, 1)
        if case % 3:
            p = p.round(case % 3)
        yield fake, p, random.integers(0, 4, count).astype(float)


def reference(name: str, fake: NDArray[np.bool_], p: NDArray[np.float64]) -> float:
    """The same by scikit-learn, or as torchmetrics does it in float64."""
    if name == "auc":
        return float(sk.roc_auc_score(fake, p))
    if name == "ap":
        return float(sk.average_precision_score(fake, p))
    if name == "brier":
        return float(sk.brier_score_loss(fake, p))
    if name == "log_loss":
        return float(sk.log_loss(fake, p, labels=[False, True]))
    if name == "ece":
        return float(binary_calibration_error(torch.from_numpy(p), torch.from_numpy(fake).long(), n_bins=15))
    fpr, tpr, _ = sk.roc_curve(fake, p, drop_intermediate=False)
    if name == "eer":  # torchmetrics.functional.classification.eer, whose rates are float32
        apart = np.abs(fpr - (1 - tpr)).round(12)
        return float((fpr[apart.argmin()] + 1 - tpr[apart.argmin()]) / 2)
    return float(tpr[fpr <= float(name.removeprefix("tpr_at_")) / 100 + 1e-12].max())


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_as_the_reference_to_1e_9_in_200_random_cases(metric: DetectionMetric) -> None:
    compared = 0
    for fake, p, _ in cases():
        value = measure(metric, fake, p)
        one_class = fake.all() or not fake.any()
        assert (value is None) == ((metric.both_classes and one_class) or (~fake).sum() < metric.minimum_reals)
        if value is None and (one_class or not metric.both_classes):
            continue
        compared += 1
        own = float(metric.compute(fake, p, None)[0])  # also where the reals are too few to report it
        assert own == pytest.approx(reference(metric.name, fake, p), rel=0, abs=1e-9)
    assert compared >= 170


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_weight_of_two_is_a_score_given_twice(metric: DetectionMetric) -> None:
    for fake, p, weights in list(cases())[:60]:
        times = weights.astype(int)
        draws = Draws(np.stack([np.ones(len(p)), weights]), np.arange(len(p)))
        weighted = metric.compute(fake, p, draws)
        assert weighted[0] == pytest.approx(metric.compute(fake, p, None)[0], rel=0, abs=1e-12, nan_ok=True)
        if times.sum():
            repeated = metric.compute(fake.repeat(times), p.repeat(times), None)[0]
            assert weighted[1] == pytest.approx(repeated, rel=0, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_nothing_and_nan_are_errors(metric: DetectionMetric) -> None:
    with pytest.raises(ValueError, match="there is no score"):
        measure(metric, np.zeros(0, bool), np.zeros(0))
    with pytest.raises(ValueError, match="1 of 2 scores are NaN"):
        measure(metric, np.array([False, True]), np.array([0.5, np.nan]))
    with pytest.raises(ValueError, match="1 labels and 2 scores"):
        measure(metric, np.array([True]), np.array([0.5, 0.5]))
    if metric.reads == "probability":
        with pytest.raises(ValueError, match=r"0\.\.1, not 0\.5\.\.17"):
            measure(metric, np.array([False, True]), np.array([0.5, 17.0]))


def test_a_perfect_a_reversed_and_a_constant_detector() -> None:
    fake = np.arange(200) % 2 == 0
    for score, expected in ((1.0, (1.0, 0.0, 1.0)), (-1.0, (0.0, 1.0, 0.0)), (0.0, (0.5, 0.5, 0.0))):
        values = [measure(BY_NAME[name], fake, score * fake) for name in ("auc", "eer", "tpr_at_1")]
        assert values == pytest.approx(expected)


def test_ranks_survive_a_monotone_map_and_a_permutation() -> None:
    fake, p, _ = next(cases())
    fake, p = np.arange(len(p)) % 2 == 0, p.round(1)
    shuffled = np.random.default_rng(1).permutation(len(p))
    for metric in METRICS:
        assert measure(metric, fake, p) == pytest.approx(measure(metric, fake[shuffled], p[shuffled]), abs=1e-12)
        if metric.reads == "score":
            assert measure(metric, fake, p) == pytest.approx(measure(metric, fake, np.exp(3 * p)), abs=1e-12)


def test_a_rate_of_false_positives_needs_reals_enough() -> None:
    fake = np.arange(99 + 20) >= 99
    assert measure(BY_NAME["tpr_at_5"], fake, fake.astype(float)) == 1
    assert measure(BY_NAME["tpr_at_1"], fake, fake.astype(float)) is None
    assert detection.why_not(BY_NAME["tpr_at_1"], fake) == "99 reals are too few, 100 are needed"
    assert detection.why_not(BY_NAME["auc"], fake[:99]) == "needs fakes and reals, and there are only reals"
