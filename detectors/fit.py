"""Detectors that are fitted at once: numbers are measured in each window, and a rule is made of them; an ensemble's
members are weighed.

RUN/best.safetensors   the detector, calibrated on validation people
RUN/measured/          what was measured, a file a clip; may be deleted
"""

import copy
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from detectors.calibration import platt
from detectors.checkpoint import Seen, build
from detectors.either import noisy_or, weigh
from detectors.ensemble import Assembled, Ensemble
from detectors.exam import BLENDED, Clips, examined, is_asked, list_clips, mark, warn_of_blends
from detectors.linear import Line
from detectors.measured import PLAIN, Measured, Numbers, balance, measure, share
from detectors.perceptron import Perceptrons
from detectors.recipe import Recipe, TrainConfig
from detectors.train import Ending, check_vacant, save_fitted
from thead_eval.errors import DatasetError, TrainingFailed
from thead_eval.evidence import Evidence, group_people

FOLDS = 5  # of the people of a stack, whose rules are made of them all

Read = Callable[[str, int, int], None]  # what is being done, done, of how many
Rule = Line | Perceptrons  # a logit from them


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
    """Measure, make the rule or weigh, calibrate. One that was killed goes on with the clip where it was.

    Args:
        recipe: What to fit, and how.
        evidence: Its split 'train' is learnt, its split 'val' chooses and calibrates.
        out: The run folder.
        device: Where they are measured.
        measured: In place of RUN/measured, so that several fits share it.
        assembled: Whose members are to be weighed, of an ensemble.
        read: Is told of the clips that are measured.
        say: Is told what validation came to.

    Raises:
        RunError: `out` holds a detector already.
        ConfigError: a member of a stack has nothing to learn.
        DatasetError: there are no reals or no fakes to learn from or to validate on, or a clip is missing or damaged.
        MediaError: a file cannot be read.
        WeightsMissing: the network that the detector starts from is not installed.
        CheckpointError: the disk is full.
        TrainingFailed: no member of an ensemble or stack tells fakes from reals.
    """
    begin = time.monotonic()
    check_vacant(out)
    out.mkdir(parents=True, exist_ok=True)
    seen = Seen()
    kind: Any  # what checkpoint.NETWORKS says of fitted detectors
    if assembled is None:
        kind = build(recipe.detector, recipe.network)
        if hasattr(kind, "start"):
            kind.start()
    else:
        recipe, kind, seen = replace(recipe, network=assembled.config), assembled.ensemble, assembled.seen
    kind = kind.eval().to(device)
    config, folder = recipe.train, measured or out / "measured"
    people = Evidence(tuple(item for item in evidence.items if item.split != "test"), evidence.size)
    everyone = kind.fits_on == "both"
    validation = measure(
        kind,
        recipe,
        people if everyone else examined(evidence.of("val"), blends=config.blends > 0),
        config.frames if everyone else config.validation_frames,
        folder,
        device,
        changes=kind.changes if everyone else None,
        blends=config.blends > 0,
        tell=partial(read, "measured" if everyone else "measured, to validate on"),
    )
    asked = is_asked(validation.items)[validation.owner] & (validation.shown == PLAIN) | (validation.shown == BLENDED)
    clips = list_clips(validation.items, validation.owner[asked], validation.shown[asked] == BLENDED)
    warn_of_blends(clips, config.blends > 0, say)
    held_out = validation.numbers[asked]
    if everyone:
        logits = _fit_in_folds(kind, validation, config, asked)
    elif kind.fits_on == "val":
        assert assembled is not None  # no other kind is fitted to the split 'val' alone
        logits = weigh_members(kind, assembled.learnt, clips, held_out)
    else:
        learnt = measure(
            kind,
            recipe,
            evidence.of("train"),
            config.frames,
            folder,
            device,
            changes=getattr(kind, "changes", None),
            blends=config.blends > 0,
            tell=partial(read, "measured, to learn from"),
        )
        logits = _fit_on_others(kind.rule, learnt, config.blends, clips, held_out)
    result = mark(clips, logits)
    failed = int(result.values["failed"])
    say(f"validation log-loss {result.score:.4f}, auc {result.values['auc']:.3f}, {failed} clips failed")
    seconds = time.monotonic() - begin
    more = {"steps": "0", "seconds": f"{seconds:.1f}", "evidence": evidence.sha256}
    if hasattr(kind, "changes"):
        more["changes"] = json.dumps(asdict(kind.changes))  # its own, not the recipe's
    if assembled is not None:
        more["fps"] = f"{assembled.fps:.3f}"  # not that of the clips by which its members were weighed
    path = out / "best.safetensors"
    save_fitted(path, recipe.detector, recipe.network, kind, evidence, clips, result, asdict(recipe), more, seen)
    return Ending(0, seconds, None, result.score, 0)


def _fit_on_others(rule: Rule, learnt: Measured, blends: float, clips: Clips, held_out: Numbers) -> NDArray[np.float64]:
    """Make the rule of the people to learn from, as strongly as validation likes best; validation's logits."""
    numbers, fake, makers = learnt.numbers, learnt.fake, learnt.makers
    known = _could_be_measured(numbers)
    fake, makers = fake[known], makers[known]
    if fake.all() or not fake.any():
        raise DatasetError(
            f"of {len(numbers)} windows to learn from {known.sum()} could be measured, none real or none fake; name "
            "more with --data and --fakes"
        )
    weights = balance(fake, makers, share(makers[fake], blends))
    if not weights[fake].any():
        raise DatasetError(
            "only blends were to be learnt, and no real clip could be blended, as that takes landmarks; name a "
            "prepared dataset with --data"
        )
    counts = weights > 0  # not the fakes of others, where blends alone are learnt
    rows = np.flatnonzero(known)[counts]
    best: tuple[float, Rule, NDArray[np.float64]] | None = None
    for strength in rule.strengths:
        rule.fit(numbers[rows], fake[counts], weights[counts], strength)
        logits = _judge(rule, held_out)
        score = mark(clips, logits).score
        if best is None or score < best[0]:
            best = score, copy.deepcopy(rule), logits
    assert best is not None
    rule.load_state_dict(best[1].state_dict())
    return best[2]


def _fit_in_folds(
    stack: Any,  # Any: a Stack
    learnt: Measured,
    config: TrainConfig,
    asked: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Make the members' rules of everyone, and weigh them; the logits of the windows that are `asked`.

    The logits of each person, by which strengths are chosen and members weighed, are by rules that were made without
    that person; the few numbers that are then chosen see everyone.
    """
    fake, makers = learnt.fake, learnt.makers
    group = group_people(learnt.items)  # who share a recording stay together
    names = np.array([group[item.identity] for item in learnt.items])[learnt.owner]
    people = np.unique(names)
    folds = np.array_split(np.random.default_rng(0).permutation(people), min(FOLDS, len(people)))
    generators = np.unique(makers[fake & (makers != BLENDED)]).tolist()
    parts_of = stack.parts(generators, config.blends > 0, config.learns)
    told = []
    for place, (rule, numbers, parts) in enumerate(
        zip(stack.rules, stack.columns(learnt.numbers), parts_of, strict=True)
    ):
        scored = _could_be_measured(numbers)
        known = scored & (~fake | np.isin(makers, list(parts)))
        mine = asked & known
        clips = list_clips(learnt.items, learnt.owner[mine], learnt.shown[mine] == BLENDED)
        weights = balance(clips.fake, np.array(clips.generators), parts)
        best: tuple[float, float, NDArray[np.float64], tuple[float, float]] | None = None
        for strength in rule.strengths:
            logits = np.full(len(numbers), np.nan)
            for fold in folds:
                own = np.isin(names, fold)
                _fit_rule(rule, numbers, fake, makers, known & ~own, parts, strength)
                logits[scored & own] = _judge(rule, numbers[scored & own]).mean(axis=1)
            of_clips = mark(clips, logits[mine]).logits
            slope, shift = platt(of_clips, clips.fake, np.ones(len(of_clips)), np.array(clips.identities))
            line = slope * of_clips + shift
            loss = float((np.logaddexp(0, np.where(clips.fake, -line, line)) * weights).mean())
            if best is None or loss < best[0]:
                best = loss, strength, logits, weigh(of_clips, clips.fake, weights)
        assert best is not None
        _, strength, logits, (a, b) = best
        _fit_rule(rule, numbers, fake, makers, known, parts, strength)
        stack.get_buffer("line")[place] = torch.tensor([a, b])
        told.append(a * logits[asked] + b)
    return _combine(stack, told)


def _could_be_measured(numbers: Numbers) -> NDArray[np.bool_]:
    """[N] of rows [N, ...], those without NaN."""
    known: NDArray[np.bool_] = np.isfinite(numbers).reshape(len(numbers), -1).min(axis=1)
    return known


def _fit_rule(
    rule: Rule,
    numbers: Numbers,
    fake: NDArray[np.bool_],
    makers: NDArray[np.str_],
    rows: NDArray[np.bool_],
    parts: Mapping[str, float],
    strength: float,
) -> None:
    """Make a rule of the rows [R, n, D], where each of the n is a fake if its window is.

    Raises:
        DatasetError: they are all real, or all fake.
    """
    if fake[rows].all() or not fake[rows].any():
        raise DatasetError(
            "where a fold of the people is left out, the others have no real clips, or no fakes that a member learns "
            "from; name clips of more people with --data and --fakes"
        )
    each = numbers.shape[1]
    weights = np.repeat(balance(fake[rows], makers[rows], parts), each)
    rule.fit(numbers[rows].reshape(-1, numbers.shape[2]), np.repeat(fake[rows], each), weights, strength)


def weigh_members(
    ensemble: Ensemble, learnt: Sequence[Mapping[str, float]], clips: Clips, numbers: Numbers
) -> NDArray[np.float64]:
    """Weigh finished detectors by their logits of validation windows [N, M]; the ensemble's logits of these [N].

    Each by the fakes that it has `learnt`, or by all where validation has none of them. So the weights, two numbers a
    member, see the people on whom the ensemble is then calibrated.

    Raises:
        DatasetError: of the real clips or of the fakes a member could score none.
        TrainingFailed: no member tells fakes from reals.
    """
    told = []
    for place, (logits, parts) in enumerate(zip(numbers.T, learnt, strict=True)):
        logits = np.where(np.isfinite(logits), logits, np.nan)
        try:
            of_clips = mark(clips, logits).logits
        except DatasetError as error:
            raise DatasetError(
                f"member {place + 1} of the ensemble: {error}; look at it alone with 'theval detect eval'"
            ) from None
        scored = np.isfinite(of_clips)
        fake, makers = clips.fake[scored], np.array(clips.generators)[scored]
        if not np.isin(makers[fake], list(parts)).any():
            parts = dict.fromkeys(makers[fake].tolist(), 1.0)
        a, b = weigh(of_clips[scored], fake, balance(fake, makers, parts))
        ensemble.get_buffer("line")[place] = torch.tensor([a, b])
        told.append(a * logits + b)
    return _combine(ensemble, told)


def _combine(ensemble: Ensemble, told: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Weighed logits of each member [N] to those of the noisy or [N].

    Raises:
        TrainingFailed: no member counts.
    """
    if not ensemble.get_buffer("line")[:, 0].any():
        raise TrainingFailed(
            f"none of the {len(told)} members tells the validation fakes from reals; look at each alone with 'theval "
            "detect eval'"
        )
    logits: NDArray[np.float64] = noisy_or(torch.from_numpy(np.stack(told, axis=1))).numpy()
    return logits


@torch.no_grad()
def _judge(rule: Rule, numbers: Numbers) -> NDArray[np.float64]:
    """[..., D] to [...]"""
    rows = torch.from_numpy(numbers.reshape(-1, numbers.shape[-1])).float()
    logits: NDArray[np.float64] = rule(rows).double().cpu().numpy()
    return logits.reshape(numbers.shape[:-1])
