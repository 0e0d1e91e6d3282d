"""A noisy or of detectors, and how much each of them counts."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from detectors.either import FARTHEST, noisy_or, weigh
from detectors.ensemble import Ensemble
from detectors.exam import Clips
from detectors.fit import weigh_members
from detectors.linear import Line
from thead_eval.errors import DatasetError, TrainingFailed


def test_it_is_real_where_nobody_has_a_reason() -> None:
    x = torch.tensor([[-1.0, 0.5, 2.0], [-4.0, -4.0, -4.0]], dtype=torch.float64)
    of_real = torch.sigmoid(-x).prod(dim=1)
    torch.testing.assert_close(torch.sigmoid(noisy_or(x)), 1 - of_real)


def test_extreme_and_unknown_logits() -> None:
    x = torch.tensor([[-1e4, -1e4], [1e4, -1e4], [torch.nan, 5.0]])
    none, sure, unknown = noisy_or(x)
    assert none < -10 and 30 < sure < torch.inf and unknown.isnan()


def test_one_that_does_not_know_does_not_speak_against_one_that_does() -> None:
    """Fakes of two generators, each of which one detector knows; the other is sure that they are real."""
    draw = np.random.default_rng(0)
    fake, generator = np.arange(800) % 2 == 0, draw.integers(0, 2, 800)
    x = draw.standard_normal((800, 2)) - 1
    x[fake, generator[fake]] += 3
    x[fake, 1 - generator[fake]] -= 3
    line = Line(2)
    line.fit(x, fake, np.ones(len(x)), 1.0)
    weights = [weigh(logits, fake, np.where(generator == own, 1.0, 0.0)) for own, logits in enumerate(x.T)]
    weighed = np.stack([a * logits + b for (a, b), logits in zip(weights, x.T, strict=True)], axis=1)
    assert roc_auc_score(fake, line(torch.from_numpy(x).float()).numpy()) < 0.6
    assert roc_auc_score(fake, noisy_or(torch.from_numpy(weighed)).numpy()) > 0.95


def test_who_tells_fakes_apart_is_weighed_by_how_far_apart() -> None:
    draw = np.random.default_rng(0)
    fake = np.arange(20_000) % 2 == 0
    logits = 5 * (draw.standard_normal(len(fake)) + 3 * fake) + 2
    a, b = weigh(logits, fake, np.ones(len(fake)))
    x = np.linspace(-20, 30, 11)
    # log p(x | fake) / p(x | real)
    np.testing.assert_allclose(a * x + b, norm.logpdf(x, 17, 5) - norm.logpdf(x, 2, 5), atol=0.3)
    # Of fakes by two, the one that counts for more is the one whose distance it is.
    second = fake & (np.arange(len(fake)) % 4 == 0)
    logits[second] -= 10
    steeper, _ = weigh(logits, fake, np.where(second, 0.01, 1.0))
    assert steeper > 1.3 * weigh(logits, fake, np.ones(len(fake)))[0]


def test_who_takes_reals_for_fakes_says_nothing() -> None:
    fake = np.array([False, False, True, True])
    a, b = weigh(np.array([1.0, 2.0, -1.0, 0.0]), fake, np.ones(4))
    for logit in (-3.0, 0.5, 4.0):  # of the other, beside this one
        told = noisy_or(torch.tensor([[logit, a * 5 + b]]))
        torch.testing.assert_close(told, torch.tensor([logit]))


def test_few_people_cannot_show_that_fakes_are_far() -> None:
    fake = np.array([False, False, True])
    a, b = weigh(np.array([1.0, 1.0001, 5.0]), fake, np.ones(3))
    assert a * 5 + b == pytest.approx(FARTHEST**2 / 2) and a * 1 + b == pytest.approx(-(FARTHEST**2) / 2, abs=0.01)


def test_the_least_suspicious_can_be_told_apart() -> None:
    """Sure of many reals, float32 must not round them to one."""
    x = torch.linspace(-60, 5, 131)[:, None].expand(-1, 2)
    told = noisy_or(x)
    exact = noisy_or(x.double())
    assert (told.diff() > 0).all()
    torch.testing.assert_close(told.double(), exact, rtol=1e-5, atol=1e-4)


def exam(told: NDArray[np.float64]) -> tuple[Ensemble, NDArray[np.float64], Clips]:
    """Members say `told` of windows [80, M]: 20 real clips of two windows, 10 fakes of 'a' and 10 of 'b'."""
    members = [{"detector": "spectrum", "network": {}}] * told.shape[1]
    makers = ("",) * 20 + ("a",) * 10 + ("b",) * 10
    fake = np.array(makers) != ""
    clips = Clips(np.repeat(np.arange(40), 2), fake, makers, tuple(f"p{n % 20}" for n in range(40)))
    return Ensemble(members), told, clips


def says(draw: np.random.Generator, of_a: float, of_b: float) -> NDArray[np.float64]:
    """[80] logits of windows: 0 of real ones in the mean."""
    return np.repeat([0.0] * 20 + [of_a] * 10 + [of_b] * 10, 2) + draw.standard_normal(80)


def test_each_member_is_weighed_by_the_fakes_that_it_has_learnt() -> None:
    draw = np.random.default_rng(0)
    told = np.stack([says(draw, 4, -6), says(draw, -6, 4), says(draw, 4, 4)], axis=1)
    told[0, 0] = np.nan  # a window that one could not score
    told[2, 1] = np.inf
    ensemble, told, clips = exam(told)
    logits = weigh_members(ensemble, [{"a": 1.0}, {"b": 1.0}, {"theirs": 1.0}], clips, told)
    assert np.flatnonzero(np.isnan(logits)).tolist() == [0, 2]
    assert roc_auc_score(clips.fake[clips.owner[3:]], logits[3:]) > 0.95
    line = ensemble.get_buffer("line").numpy()
    assert (line[:, 0] > 0).all()
    of_clips = told[:, 2].reshape(40, 2).mean(axis=1)  # of its own fakes there are none here: all count
    np.testing.assert_allclose(line[2], weigh(of_clips, clips.fake, np.ones(40)), rtol=1e-5)


def test_of_members_that_know_nothing_there_is_no_ensemble() -> None:
    draw = np.random.default_rng(0)
    ensemble, told, clips = exam(np.stack([says(draw, -4, -4), says(draw, -4, -4)], axis=1))
    with pytest.raises(TrainingFailed, match="none of the 2 members tells the validation fakes from reals"):
        weigh_members(ensemble, [{"a": 1.0}, {"b": 1.0}], clips, told)
    told[:40, 1] = np.nan
    with pytest.raises(DatasetError, match="member 2 of the ensemble: of 40 validation clips, 20 could be scored"):
        weigh_members(ensemble, [{"a": 1.0}, {"b": 1.0}], clips, told)
