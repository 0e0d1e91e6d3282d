"""Probabilities that can be believed, and thresholds that keep their promise."""

import numpy as np
import pytest
from scipy.special import expit

from detectors.calibration import calibrate, operating_points

RANDOM = np.random.default_rng(0)


def test_platt_finds_the_line_that_made_the_labels() -> None:
    logits = RANDOM.normal(0, 3, 4000)
    fake = RANDOM.random(4000) < expit(2 * logits)
    fitted = calibrate(logits, fake, [f"p{n}" for n in range(4000)], seed=0)
    assert fitted.a == pytest.approx(2, rel=0.1)
    assert fitted.b == pytest.approx(0, abs=0.2)
    assert fitted.probability(np.array([0.0, np.nan]))[0] == pytest.approx(0.5, abs=0.05)
    assert np.isnan(fitted.probability(np.nan))
    low, high = fitted.interval(1.0)
    assert low < float(fitted.probability(1.0)) < high


def test_four_times_as_many_fakes_change_nothing() -> None:
    logits = np.array([-2.0, -1, 0.5, 1, 2, -0.5])
    fake = np.array([False, False, False, True, True, True])
    names = list("abcabc")
    more = np.concatenate([fake, np.repeat(fake[fake], 3)])
    crowded = calibrate(
        np.concatenate([logits, np.repeat(logits[fake], 3)]), more, [*names, *np.repeat(names[3:], 3)], 0
    )
    alone = calibrate(logits, fake, names, 0)
    assert [crowded.a, crowded.b] == pytest.approx([alone.a, alone.b], abs=1e-3)


def test_perfect_scores_get_no_certainty() -> None:
    """Ten people on each side: nobody can say 99.9 %."""
    logits = np.concatenate([np.full(10, -8.0), np.full(10, 8.0)])
    fitted = calibrate(logits, logits > 0, [f"p{n % 10}" for n in range(20)], seed=0)
    assert float(fitted.probability(8.0)) == pytest.approx(11 / 12, abs=1e-3)


def test_an_operating_point_lets_through_what_it_states() -> None:
    logits = np.concatenate([np.arange(40.0), np.arange(20.0, 120)])
    fake = np.arange(140) >= 40
    points = {point.rate: point for point in operating_points(logits, fake)}
    assert sorted(points) == [0.05, 0.1, 0.2]  # 40 reals say nothing about 1 %
    assert (logits[~fake] >= points[0.05].fake).sum() == 2
    assert (logits[fake] < points[0.05].real).sum() == 5


def test_equal_scores_stay_below_the_threshold() -> None:
    logits = np.concatenate([np.zeros(20), np.ones(20)])
    for point in operating_points(logits, logits > 0.5):
        assert (logits[:20] >= point.fake).mean() <= point.rate
        assert (logits[20:] < point.real).mean() <= point.rate
