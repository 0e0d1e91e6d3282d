"""Detectors that are fitted at once: numbers are measured in each window, and a rule is made of them.

RUN/best.safetensors   the detector, calibrated on validation people
RUN/frames/            the frames that were measured, read once; may be deleted
"""

import copy
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from detectors.augment import Augmentation
from detectors.checkpoint import Seen, build
from detectors.either import Either
from detectors.ensemble import Assembled
from detectors.exam import Exam, examined, mark, prepare_exam, warn_of_blends
from detectors.linear import Line
from detectors.perceptron import Perceptrons
from detectors.recipe import Recipe
from detectors.samples import Footage, Sample, read_footage, read_pictures
from detectors.train import Ending, save_fitted
from thead_eval.errors import DatasetError, RunError
from thead_eval.evidence import SIDE, Evidence

FOLDS = 5  # of validation people, where the rule itself is made of them
BATCH = 16  # windows at a time

Read = Callable[[str, int, int], None]  # what is being done, done, of how many
Numbers = NDArray[np.float64]  # [N, D] a window each; NaN in the rows that could not be measured
Rule = Line | Perceptrons  # a logit from them; an ensemble has `Either`


def fit(
    recipe: Recipe,
    evidence: Evidence,
    out: Path,
    device: torch.device,
    *,
    assembled: Assembled | None = None,
    read: Read = lambda what, done, of: None,
    say: Callable[[str], None] = lambda line: None,
) -> Ending:
    """Measure, make the rule, calibrate. `assembled` is what the rule of an ensemble is to be made for.

    Raises:
        RunError: `out` holds a detector already.
        DatasetError: there are no reals or no fakes to learn from or to validate on.
    """
    begin = time.monotonic()
    path = out / "best.safetensors"
    if path.exists():
        raise RunError(f"'{out}' already holds a detector; name another folder with -o")
    out.mkdir(parents=True, exist_ok=True)
    seen = Seen()
    if assembled is None:
        network = build(recipe.detector, recipe.network)
    else:
        recipe, network, seen = replace(recipe, network=assembled.config), assembled.ensemble, assembled.seen
    network = network.eval().to(device)
    kind: Any = network  # Any: what checkpoint.NETWORKS says of fitted detectors
    windows = partial(read_footage, window=kind.window, stride=kind.stride)
    folder = out / "frames"
    validation = windows(
        examined(evidence.of("val"), blends=recipe.train.blends > 0),
        folder / "val.npy",
        recipe.train.validation_frames,
        tell=partial(read, "to validate on"),
    )
    exam = prepare_exam(validation, blends=recipe.train.blends > 0, seed=recipe.train.seed)
    warn_of_blends(exam, recipe.train.blends > 0, say)
    held_out = measure(kind, exam.footage, exam.samples, device, partial(read, "measured, to validate on"))
    if kind.fits_on == "val":
        logits = _fit_across(kind.rule, exam, held_out)
    else:
        footage = windows(
            evidence.of("train"), folder / "train.npy", recipe.train.frames, tell=partial(read, "to learn from")
        )
        samples = [Sample(row, bool(fake), None) for row, fake in enumerate(footage.fake)]
        numbers = measure(kind, footage, samples, device, partial(read, "measured, to learn from"))
        fake, makers = footage.fake, np.array([item.generator for item in footage.items])[footage.owner]
        if changes := getattr(kind, "changes", None):
            tell = partial(read, "measured, changed")
            changed = measure(kind, footage, samples, device, tell, changes, recipe.train.seed)
            numbers, fake, makers = np.concatenate([numbers, changed]), np.tile(fake, 2), np.tile(makers, 2)
        logits = _fit_on_others(kind.rule, numbers, fake, makers, exam, held_out)
    result = mark(exam, logits)
    failed = int(result.values["failed"])
    say(f"validation log-loss {result.score:.4f}, auc {result.values['auc']:.3f}, {failed} clips failed")
    seconds = time.monotonic() - begin
    more = {"steps": "0", "seconds": f"{seconds:.1f}", "evidence": evidence.sha256}
    save_fitted(path, recipe.detector, recipe.network, network, evidence, exam, result, asdict(recipe), more, seen)
    return Ending(0, seconds, None, result.score, 0)


@torch.no_grad()
def measure(
    kind: Any,  # Any: as in `fit`
    footage: Footage,
    samples: list[Sample] | tuple[Sample, ...],
    device: torch.device,
    tell: Callable[[int, int], None],
    changes: Augmentation | None = None,
    seed: int = 0,
) -> Numbers:
    """The numbers of each window [N, D], as it is or changed at random."""
    rows = []
    for first in range(0, len(samples), BATCH):
        some = samples[first : first + BATCH]
        windows = read_pictures(footage, some, SIDE, changes, seed)
        rows.append(kind.measure(windows.to(device)).double().cpu())
        tell(first + len(some), len(samples))
    numbers: Numbers = torch.cat(rows).numpy()
    return numbers


def _fit_on_others(
    rule: Rule, numbers: Numbers, fake: NDArray[np.bool_], makers: NDArray[np.str_], exam: Exam, held_out: Numbers
) -> NDArray[np.float64]:
    """Make the rule of the people to learn from, as strongly as validation likes best; validation's logits."""
    known = np.isfinite(numbers).reshape(len(numbers), -1).min(axis=1)
    fake, makers = fake[known], makers[known]
    if fake.all() or not fake.any():
        raise DatasetError(
            f"of {len(numbers)} windows to learn from {known.sum()} could be measured, none real or none fake; name "
            "more with --data and --fakes"
        )
    weights = _balance(fake, makers)
    best: tuple[float, Rule, NDArray[np.float64]] | None = None
    for strength in rule.strengths:
        rule.draw(numbers[known], fake, weights, strength)
        logits = _judge(rule, held_out)
        score = mark(exam, logits).score
        if best is None or score < best[0]:
            best = score, copy.deepcopy(rule), logits
    assert best is not None
    rule.load_state_dict(best[1].state_dict())
    return best[2]


def _fit_across(rule: Either, exam: Exam, numbers: Numbers) -> NDArray[np.float64]:
    """Make the rule of validation people; the logits of each are by one that was made without them."""
    known = np.isfinite(numbers).reshape(len(numbers), -1).min(axis=1)
    fake, makers = exam.fake[exam.owner], np.array(exam.generators)[exam.owner]
    names = np.array(exam.identities)[exam.owner]
    rows = np.flatnonzero(known)
    logits = np.full(len(numbers), np.nan)
    people = np.unique(names[rows])
    for judged in np.array_split(np.random.default_rng(0).permutation(people), min(FOLDS, len(people))):
        inside = np.isin(names[rows], judged)
        others, own = rows[~inside], rows[inside]
        if fake[others].all() or not fake[others].any():
            raise DatasetError(
                f"of {len(people)} validation people too few could be measured to make a rule; name more with --fakes"
            )
        rule.draw(numbers[others], fake[others], _balance(fake[others], makers[others]))
        logits[own] = _judge(rule, numbers[own])
    rule.draw(numbers[rows], fake[rows], _balance(fake[rows], makers[rows]))
    return logits


def _balance(fake: NDArray[np.bool_], makers: NDArray[np.str_]) -> NDArray[np.float64]:
    """Weights by which reals count as much as fakes, and each generator as much as another; 1 in the mean."""
    weights = np.empty(len(fake))
    generators = np.unique(makers[fake])
    weights[~fake] = 0.5 / max((~fake).sum(), 1)
    for generator in generators:
        own = makers == generator
        weights[own] = 0.5 / len(generators) / own.sum()
    return weights * len(fake)


@torch.no_grad()
def _judge(rule: Rule | Either, numbers: Numbers) -> NDArray[np.float64]:
    logits: NDArray[np.float64] = rule(torch.from_numpy(numbers).float()).double().numpy()
    return logits
