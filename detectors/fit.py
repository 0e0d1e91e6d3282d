"""Detectors that are fitted at once: numbers are measured in each window, and a rule is made of them.

RUN/best.safetensors   the detector, calibrated on validation people
RUN/measured/          what was measured, a file a clip; may be deleted
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

from detectors.checkpoint import Seen, build
from detectors.either import Either
from detectors.ensemble import Assembled
from detectors.exam import BLENDED, Clips, examined, is_asked, list_clips, mark, warn_of_blends
from detectors.linear import Line
from detectors.measured import Numbers, measure
from detectors.perceptron import Perceptrons
from detectors.recipe import Recipe
from detectors.train import Ending, save_fitted
from thead_eval.errors import DatasetError, RunError
from thead_eval.evidence import Evidence

FOLDS = 5  # of validation people, where the rule itself is made of them

Read = Callable[[str, int, int], None]  # what is being done, done, of how many
Rule = Line | Perceptrons  # a logit from them; an ensemble has `Either`


def fit(
    recipe: Recipe,
    evidence: Evidence,
    out: Path,
    device: torch.device,
    *,
    measured: Path | None = None,
    assembled: Assembled | None = None,
    read: Read = lambda what, done, of: None,
    say: Callable[[str], None] = lambda line: None,
) -> Ending:
    """Measure, make the rule, calibrate. One that was killed goes on with the clip where it was.

    Args:
        recipe: What to fit, and how.
        evidence: Its split 'train' is learnt, its split 'val' chooses and calibrates.
        out: The run folder.
        device: Of an ensemble's members.
        measured: In place of RUN/measured, so that several fits share it.
        assembled: What the rule of an ensemble is to be made for.
        read: Is told of the clips that are measured.
        say: Is told what validation came to.

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
    config, folder = recipe.train, measured or out / "measured"
    validation = measure(
        kind,
        recipe,
        examined(evidence.of("val"), blends=config.blends > 0),
        config.validation_frames,
        folder,
        device,
        blends=config.blends > 0,
        tell=partial(read, "measured, to validate on"),
    )
    asked = (validation.shown == BLENDED) | is_asked(validation.items)[validation.owner]
    clips = list_clips(validation.items, validation.owner[asked], validation.shown[asked] == BLENDED)
    warn_of_blends(clips, config.blends > 0, say)
    held_out = validation.numbers[asked]
    if kind.fits_on == "val":
        logits = _fit_across(kind.rule, clips, held_out)
    else:
        learnt = measure(
            kind,
            recipe,
            evidence.of("train"),
            config.frames,
            folder,
            device,
            changes=getattr(kind, "changes", None),
            tell=partial(read, "measured, to learn from"),
        )
        fake = np.array([item.label == "fake" for item in learnt.items], np.bool_)[learnt.owner]
        makers = np.array([item.generator for item in learnt.items])[learnt.owner]
        logits = _fit_on_others(kind.rule, learnt.numbers, fake, makers, clips, held_out)
    result = mark(clips, logits)
    failed = int(result.values["failed"])
    say(f"validation log-loss {result.score:.4f}, auc {result.values['auc']:.3f}, {failed} clips failed")
    seconds = time.monotonic() - begin
    more = {"steps": "0", "seconds": f"{seconds:.1f}", "evidence": evidence.sha256}
    save_fitted(path, recipe.detector, recipe.network, network, evidence, clips, result, asdict(recipe), more, seen)
    return Ending(0, seconds, None, result.score, 0)


def _fit_on_others(
    rule: Rule, numbers: Numbers, fake: NDArray[np.bool_], makers: NDArray[np.str_], clips: Clips, held_out: Numbers
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
        score = mark(clips, logits).score
        if best is None or score < best[0]:
            best = score, copy.deepcopy(rule), logits
    assert best is not None
    rule.load_state_dict(best[1].state_dict())
    return best[2]


def _fit_across(rule: Either, clips: Clips, numbers: Numbers) -> NDArray[np.float64]:
    """Make the rule of validation people; the logits of each are by one that was made without them."""
    known = np.isfinite(numbers).reshape(len(numbers), -1).min(axis=1)
    fake, makers = clips.fake[clips.owner], np.array(clips.generators)[clips.owner]
    names = np.array(clips.identities)[clips.owner]
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
    logits: NDArray[np.float64] = rule(torch.from_numpy(numbers).float()).double().cpu().numpy()
    return logits
