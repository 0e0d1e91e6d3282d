"""Whether a run is worse than a baseline, number by number and person by person, and surely so.

A number is worse where its paired interval leaves out 0 and the drop is beyond a tolerance. Of many numbers some leave
out 0 by chance, so p is adjusted for how many there are (Benjamini and Hochberg 1995): where nothing changed at all,
one run in twenty raises any alarm, however many numbers are compared.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy import special

from thead_eval.baseline import (
    Baseline,
    BaselineNumber,
    Part,
    as_kept,
    conditions_of,
    differing,
    is_compared,
    key,
    recorded_checkpoints,
)
from thead_eval.differences import difference, gain
from thead_eval.errors import ConfigError
from thead_eval.recipes import check_name, read_sections
from thead_eval.results import Measurement, RunRecord
from thead_eval.statistics import PairedDifference

ALPHA = 0.05  # of any alarm where nothing changed
ROUNDING = 1e-5  # of a value: sums in another order, and the digits of a baseline

Outcome = Literal["worse", "below floor", "missing", "other people", "better", "same", "new", "not compared"]
FAILING: tuple[Outcome, ...] = ("worse", "below floor", "missing")


@dataclass(frozen=True)
class MetricRule:
    """What is allowed of one metric."""

    tolerance: float | None = None  # a drop, in the metric's unit; None: a share of the baseline's interval
    share: float | None = None  # of half of that interval; None: the gate's
    floor: float | None = None  # the value must not be worse, whatever the baseline says


@dataclass(frozen=True)
class Rules:
    """What is compared, and what is allowed."""

    metrics: tuple[str, ...] = ()  # only these; none: all
    share: float = 0.25
    failed: float = 0.02  # by how much the share of frames that cannot be judged may rise
    of_metric: dict[str, MetricRule] = field(default_factory=dict)


@dataclass(frozen=True)
class Finding:
    """How one number stands to the baseline."""

    metric: str
    labels: dict[str, str]
    outcome: Outcome
    before: float | None = None
    now: float | None = None
    change: PairedDifference | None = None  # now minus before
    tolerance: float | None = None  # of a drop
    p: float | None = None  # adjusted for how many numbers are compared
    why: str = ""


@dataclass(frozen=True)
class Judgement:
    """A run beside a baseline."""

    baseline: Baseline
    record: RunRecord
    differing: tuple[str, ...]  # why the two cannot be compared; then nothing was
    also: tuple[str, ...]  # what differs too and does no harm: seeds, versions
    findings: tuple[Finding, ...]

    @property
    def failing(self) -> tuple[Finding, ...]:
        """What is worse, or no longer judged."""
        return tuple(found for found in self.findings if found.outcome in FAILING)

    @property
    def compared(self) -> int:
        """How many numbers have a paired difference."""
        return sum(found.change is not None for found in self.findings)

    @property
    def exit_code(self) -> Literal[0, 1, 2]:
        """0: not worse. 1: worse. 2: not comparable, all or in part."""
        if self.failing:
            return 1
        whole = self.compared and all(found.outcome != "other people" for found in self.findings)
        return 0 if whole and not self.differing else 2


def read_rules(path: Path | None, metrics: Sequence[str]) -> Rules:
    """The rules of a TOML file: a section [gate], and one a metric.

    Raises:
        ConfigError: the file is missing or no TOML, or a name or a value in it is wrong.
    """
    if path is None:
        return Rules()
    names = {name: [each.name for each in fields(MetricRule)] for name in metrics}
    sections = read_sections([path], {"gate": ("metrics", "share", "failed"), **names})
    gate = sections.pop("gate")
    chosen = gate.pop("metrics", ())
    if not isinstance(chosen, tuple):
        raise ConfigError(f"{path}: metrics in [gate] must be a list of names, not {chosen!r}")
    for name in chosen:
        check_name(str(name), metrics, f"{path}: metrics in [gate]: no number of the baseline or the run is named")
    of_metric = {
        name: MetricRule(**{rule: _number(path, name, rule, value) for rule, value in values.items()})
        for name, values in sections.items()
        if values
    }
    return Rules(chosen, of_metric=of_metric, **{rule: _number(path, "gate", rule, v) for rule, v in gate.items()})


def _number(path: Path, section: str, name: str, value: Any) -> float:  # Any: TOML
    if isinstance(value, bool) or not isinstance(value, int | float) or (name != "floor" and value < 0):
        raise ConfigError(
            f"{path}: {name} in [{section}] must be a number{' from 0' * (name != 'floor')}, not {value!r}"
        )
    return float(value)


def judge(
    baseline: Baseline,
    record: RunRecord,
    measurements: Sequence[Measurement],
    rules: Rules | None = None,
    despite: Sequence[Part] = (),
) -> Judgement:
    """A run beside a baseline.

    Args:
        baseline: To compare with.
        record: Of the run.
        measurements: Of the run.
        rules: What is allowed.
        despite: What of the two may differ.
    """
    rules = rules or Rules()
    also = tuple(_also(baseline, record))
    asked = baseline.conditions
    if rules.metrics:
        asked = asked.model_copy(update={"metrics": [name for name in asked.metrics if name in rules.metrics]})
    if reasons := differing(asked, conditions_of(record), despite):
        return Judgement(baseline, record, tuple(reasons), also, ())
    now = {key(m): as_kept(m) for m in measurements if is_compared(m) and _is_chosen(m, rules)}
    before = {key(n.measurement): n for n in baseline.numbers if _is_chosen(n.measurement, rules)}
    gains = {
        name: gain(now[name], number.measurement)
        for name, number in before.items()
        if name in now and now[name].value is not None
    }
    known = [name for name, gained in gains.items() if gained is not None]
    adjusted = dict(zip(known, adjust([gained.p for gained in gains.values() if gained is not None]), strict=True))
    findings = [
        _finding(number, now.get(name), gains.get(name), adjusted.get(name), rules, len(baseline.origin.seeds))
        for name, number in before.items()
    ]
    findings += [_new(m, rules) for name, m in now.items() if name not in before and m.value is not None]
    return Judgement(baseline, record, (), also, tuple(findings))


def _is_chosen(measurement: Measurement, rules: Rules) -> bool:
    return not rules.metrics or measurement.metric in rules.metrics


def adjust(p: Sequence[float]) -> list[float]:
    """The share of false alarms among all that are as sure, were this one an alarm: Benjamini and Hochberg.

    scipy.stats has it too, and takes a second to import.
    """
    order = np.argsort(p)[::-1]  # the least sure first
    shares = np.asarray(p, dtype=np.float64)[order] * len(p) / np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum.accumulate(np.minimum(shares, 1.0))
    return [float(share) for share in adjusted]


def _finding(
    number: BaselineNumber,
    now: Measurement | None,
    gained: PairedDifference | None,
    p: float | None,
    rules: Rules,
    runs: int,
) -> Finding:
    before = number.measurement
    about: dict[str, Any] = {"metric": before.metric, "labels": before.labels, "before": before.value}  # Any: fields
    if now is None:
        return Finding(**about, outcome="missing", why="the run does not have it")
    about["now"] = now.value
    if now.value is None:
        return Finding(**about, outcome="missing", why=now.note or "it has no value, and no reason was recorded")
    about["change"] = difference(now, before)
    about["tolerance"] = tolerance = _tolerance(number, rules, runs)
    about["p"] = p
    lost = _lost(before, now)
    rise = _failed(now) - _failed(before)
    if lost:
        return Finding(**about, outcome="missing", why=f"no longer judged: {lost}")
    if rise > rules.failed:
        why = f"{_failed(now):.1%} of the frames could not be judged, {_failed(before):.1%} in the baseline"
        return Finding(**about, outcome="missing", why=why)
    if below := _below_floor(now, rules):
        return Finding(**about, outcome="below floor", why=below)
    if gained is None:
        if now.left_out and before.left_out:
            return Finding(**about, outcome="other people", why=_who(before, now))
        return Finding(**about, outcome="not compared", why="there are not two people to pair by")
    assert p is not None
    if p < ALPHA and abs(gained.value) > tolerance:
        return Finding(**about, outcome="better" if gained.value > 0 else "worse")
    if gained.p < ALPHA and abs(gained.value) > tolerance:
        why = "its own interval leaves out 0, as of so many numbers some do by chance"
    else:
        why = "may be chance" if p >= ALPHA else "within the tolerance"
    return Finding(**about, outcome="same", why=why)


def _new(now: Measurement, rules: Rules) -> Finding:
    below = _below_floor(now, rules)
    why = below or "the baseline does not have it; --update-baseline takes it in"
    return Finding(now.metric, now.labels, "below floor" if below else "new", now=now.value, why=why)


def _tolerance(number: BaselineNumber, rules: Rules, runs: int) -> float:
    """The drop that is allowed by the rules and, with a baseline of several runs, by how those differ."""
    before = number.measurement
    rule = rules.of_metric.get(before.metric, MetricRule())
    assert before.value is not None
    allowed = ROUNDING * abs(before.value)
    if rule.tolerance is not None:
        allowed = max(allowed, rule.tolerance)
    elif before.low is not None and before.high is not None:
        share = rules.share if rule.share is None else rule.share
        allowed = max(allowed, share * (before.high - before.low) / 2)
    if number.spread is not None:
        allowed = max(allowed, float(special.stdtrit(runs - 1, 0.975)) * number.spread * (1 + 1 / runs) ** 0.5)
    return allowed


def _below_floor(now: Measurement, rules: Rules) -> str:
    floor = rules.of_metric.get(now.metric, MetricRule()).floor
    if floor is None or now.merit >= now.model_copy(update={"value": floor}).merit:
        return ""
    return f"worse than the floor of {floor:g}"


def _lost(before: Measurement, now: Measurement) -> str:
    """Who, or how many, the baseline judged and the run does not."""
    judged, left = _judged(before), _judged(now)
    gone = sorted(judged - left)
    if gone:
        return ", ".join(gone[:3]) + (f" and {len(gone) - 3} more" if len(gone) > 3 else "")
    if now.n_identities < before.n_identities:
        return f"{before.n_identities - now.n_identities} of {before.n_identities} people"
    clips = [(m.n_real or 0) + (m.n_fake or 0) for m in (before, now)]
    return f"{clips[0] - clips[1]} of {clips[0]} clips" if clips[1] < clips[0] else ""


def _who(before: Measurement, now: Measurement) -> str:
    more = sorted(_judged(now) - _judged(before))
    return f"judges {', '.join(more[:3])}{' ...' * (len(more) > 3)} too, and such a number cannot be split by person"


def _judged(measurement: Measurement) -> set[str]:
    own = {name for name, value in measurement.per_identity.items() if value is not None}
    return own | {name for part in measurement.left_out for name in part.identities}


def _failed(measurement: Measurement) -> float:
    return measurement.n_failed / max(measurement.n_failed + measurement.n_frames, 1)


def _also(baseline: Baseline, record: RunRecord) -> Iterator[str]:
    """What differs and does not keep the runs from being compared."""
    origin = baseline.origin
    if record.seed not in origin.seeds:
        yield f"seed {', '.join(map(str, origin.seeds))} → {record.seed}"
    now = recorded_checkpoints(record)
    for name in sorted(origin.checkpoints.keys() & now.keys()):
        if origin.checkpoints[name] != now[name]:
            yield f"checkpoint of {name} {origin.checkpoints[name][:12]} → {now[name][:12]}"
    if origin.device != record.device:
        yield f"device {origin.device} → {record.device}"
    if origin.python != record.python:
        yield f"python {origin.python} → {record.python}"
    for name in sorted(origin.packages.keys() | record.packages.keys()):
        one, other = origin.packages.get(name, "none"), record.packages.get(name, "none")
        if one != other:
            yield f"{name} {one} → {other}"
