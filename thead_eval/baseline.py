"""The baseline of a regression gate: the numbers of a run, person by person, in one small JSON file to commit.

It holds what runs are compared by, and what must be alike for them to be comparable; no picture, no path.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from thead_eval.errors import RunError
from thead_eval.results import USER, LeftOut, Measurement, RunRecord
from thead_eval.texts import write_whole

SCHEMA = 1
DIGITS = 7  # of each number

Part = Literal["data", "settings", "weights"]

# What a run was asked, beside its metrics. Seeds may differ: they are part of what a number can be trusted for.
SCORE_SETTINGS = tuple("split shots identities min_frames cross_clip".split())
DATASET_SETTINGS = tuple("size jpeg_quality detector landmarks".split())  # how the frames were made
DETECTION_SETTINGS = tuple("split frames protocols folds known_fakes draws".split())


class Conditions(BaseModel):
    """What must be alike for two runs to be comparable."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["score", "detect eval"]
    data: str  # sha256 of what was judged; '' where a run does not say
    settings: dict[str, Any]  # Any: JSON
    metrics: list[str]  # and what else was asked for, which a run may have more of
    perturbations: list[str] = []
    weights: dict[str, str]  # of the networks that judge


class Origin(BaseModel):
    """Which code gave the numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    commit: str | None
    dirty: bool | None
    started: str
    python: str
    packages: dict[str, str]
    device: str
    seeds: list[int]  # of a run each
    checkpoints: dict[str, str] = {}  # generator to sha256, where all runs say the same


@dataclass(frozen=True)
class BaselineNumber:
    """One number to compare with."""

    measurement: Measurement  # where several runs made the baseline, their mean
    spread: float | None = None  # standard deviation of these runs' values


@dataclass(frozen=True)
class Baseline:
    """What later runs are compared with."""

    conditions: Conditions
    origin: Origin
    numbers: tuple[BaselineNumber, ...]


def conditions_of(record: RunRecord) -> Conditions:
    """What a run judged, and by what."""
    config, dataset = record.config, record.dataset
    if config.get("detection"):
        return Conditions(
            kind="detect eval",
            data=dataset.get("evidence", ""),
            settings={name: config.get(name) for name in DETECTION_SETTINGS},
            metrics=[],
            perturbations=list(config.get("perturbations", ())),
            weights={},  # they are the detectors': what is judged
        )
    settings = {name: config[name] for name in SCORE_SETTINGS if name in config}
    examiner = ["spot_rate"] if config.get("detector") else []
    return Conditions(
        kind="score",
        data=dataset.get("sha256") or dataset.get("reals_sha256", ""),
        settings=settings | {f"data: {name}": dataset[name] for name in DATASET_SETTINGS if name in dataset},
        metrics=[*config.get("metrics", ()), *examiner],
        weights=record.weights,
    )


def recorded_checkpoints(record: RunRecord) -> dict[str, str]:
    """Generator to the sha256 of its weights, where the run says so. They are what is judged."""
    return dict(record.config.get("checkpoints", {}))


def differing(before: Conditions, now: Conditions, despite: Sequence[Part] = ()) -> list[str]:
    """Why two runs cannot be compared, a phrase a reason; nothing where they can.

    Args:
        before: Of the baseline.
        now: Of the run.
        despite: What may differ all the same.
    """
    if before.kind != now.kind:
        return [f"the baseline is of 'theval {before.kind}' and the run of 'theval {now.kind}'"]
    found = []
    if "data" not in despite and before.data != now.data:
        found.append(f"data: the baseline's has sha256 {_short(before.data)}, the run's {_short(now.data)}")
    if "settings" not in despite:
        for name in dict.fromkeys([*before.settings, *now.settings]):
            one, other = before.settings.get(name), now.settings.get(name)
            if one != other:
                found.append(
                    f"{name.removeprefix('data: ')}: {_write(one)} in the baseline, {_write(other)} in the run"
                )
    for what in ("metrics", "perturbations"):
        if lacking := [name for name in getattr(before, what) if name not in getattr(now, what)]:
            found.append(f"{what}: the run was not asked for {', '.join(lacking)}")
    if "weights" not in despite:
        for name in sorted(before.weights.keys() & now.weights.keys()):
            one, other = before.weights[name], now.weights[name]
            if one != other:
                found.append(f"weights of {name}: sha256 {_short(one)} in the baseline, {_short(other)} in the run")
    return found


def _short(sha256: str) -> str:
    return sha256[:12] or "not recorded"


def _write(value: Any) -> str:  # Any: JSON
    return "not recorded" if value is None else ",".join(map(str, value)) if isinstance(value, list) else str(value)


def make_baseline(runs: Sequence[tuple[RunRecord, Sequence[Measurement]]]) -> Baseline:
    """Of one run, or the mean of several that differ in nothing but chance.

    Raises:
        RunError: the runs cannot be compared with each other, or nothing has a value.
    """
    records = [record for record, _ in runs]
    conditions = conditions_of(records[0])
    for record in records[1:]:
        if reasons := differing(conditions, conditions_of(record)) or differing(conditions_of(record), conditions):
            raise RunError(f"runs cannot make one baseline: {'; '.join(reasons)}; name runs of the same command")
    found: dict[str, list[Measurement]] = {}
    for _, measurements in runs:
        for measurement in measurements:
            asked = conditions.kind == "detect eval" or measurement.metric in conditions.metrics  # by the command
            if asked and is_compared(measurement) and measurement.value is not None:
                found.setdefault(key(measurement), []).append(measurement)
    numbers = tuple(_mean(own) for own in found.values() if len(own) == len(runs))
    if not numbers:
        raise RunError("no number to compare with: nothing in the run has a value; see its failures in run.json")
    record = records[0]
    origin = Origin(
        **{name: getattr(record, name) for name in ("commit", "dirty", "started", "python", "packages", "device")},
        seeds=[each.seed for each in records],
        checkpoints=dict(sorted(set.intersection(*(set(recorded_checkpoints(each).items()) for each in records)))),
    )
    return Baseline(conditions, origin, numbers)


def is_compared(measurement: Measurement) -> bool:
    """Not lines about real frames alone, single frames of detectors, who sees no picture, or people who look."""
    labels = measurement.labels
    if measurement.metric == USER:  # two studies ask different participants: nobody is in both
        return False
    return "pair" not in labels and labels.get("unit") != "frame" and labels.get("detector") != "metadata"


def key(measurement: Measurement) -> str:
    """What makes two measurements the same question."""
    return json.dumps([measurement.metric, sorted(measurement.labels.items())])


def _mean(rows: Sequence[Measurement]) -> BaselineNumber:
    """Of the same number in several runs; of people whom all judged, and of the same people left out."""
    first = rows[0]
    if len(rows) == 1:
        return BaselineNumber(first)
    values = [row.value for row in rows if row.value is not None]
    people: dict[str, float | None] = {}
    for name in first.per_identity:
        own = [value for row in rows if (value := row.per_identity.get(name)) is not None]
        people[name] = float(np.mean(own)) if len(own) == len(rows) else None
    left = [{part.identities: part.value for part in row.left_out} for row in rows]
    alike = all(part.keys() == left[0].keys() for part in left)
    known = [row for row in rows if row.low is not None and row.high is not None]
    changes: dict[str, Any] = {  # Any: fields of several types
        "value": float(np.mean(values)),
        "low": float(np.mean([row.low for row in known if row.low is not None])) if known else None,
        "high": float(np.mean([row.high for row in known if row.high is not None])) if known else None,
        "n_failed": max(row.n_failed for row in rows),
        "per_identity": people,
        "left_out": tuple(
            LeftOut(identities=group, value=float(np.mean([part[group] for part in left]))) for group in left[0]
        )
        if alike
        else (),
    }
    return BaselineNumber(first.model_copy(update=changes), float(np.std(values, ddof=1)))


# The file: people and groups of people once, and a line a number.


def as_kept(measurement: Measurement) -> Measurement:
    """With as many digits as a baseline keeps, so that a run beside its own differs by nothing."""
    return measurement.model_copy(
        update={
            "value": _round(measurement.value),
            "per_identity": {name: _round(own) for name, own in measurement.per_identity.items()},
            "left_out": tuple(part.model_copy(update={"value": _round(part.value)}) for part in measurement.left_out),
        }
    )


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Write the file whole or not at all.

    Raises:
        RunError: it cannot be written.
    """
    people = sorted({name for number in baseline.numbers for name in _people(number.measurement)})
    place = {name: index for index, name in enumerate(people)}
    groupings: list[list[list[int]]] = []
    lines = []
    for number in baseline.numbers:
        row = number.measurement
        fields = row.model_dump(mode="json", exclude_defaults=True, exclude={"per_identity", "left_out", "noise_floor"})
        fields = {name: _round(value) for name, value in fields.items()}
        if number.spread is not None:
            fields["spread"] = _round(number.spread)
        if row.per_identity:
            fields["people"] = [
                _round(row.per_identity[name]) if name in row.per_identity else "" for name in people
            ]  # '': not asked
        if row.left_out:
            grouping = [[place[name] for name in part.identities] for part in row.left_out]
            if grouping not in groupings:
                groupings.append(grouping)
            fields["grouping"] = groupings.index(grouping)
            fields["left_out"] = [_round(part.value) for part in row.left_out]
        lines.append(json.dumps(fields, ensure_ascii=False))
    head = {
        "schema": SCHEMA,
        "origin": baseline.origin.model_dump(mode="json"),
        "conditions": baseline.conditions.model_dump(mode="json"),
        "people": people,
        "groupings": groupings,
    }
    parts = [f'"{name}": {json.dumps(value, ensure_ascii=False)}' for name, value in head.items()]
    text = "{\n" + ",\n".join([*parts, '"numbers": [\n' + ",\n".join(lines) + "\n]"]) + "\n}\n"
    write_whole(path, text, "name another file with --baseline")


def read_baseline(path: Path) -> Baseline:
    """A file that `write_baseline` wrote.

    Raises:
        RunError: it is missing, something else, or of another schema.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            raise RunError(
                f"baseline '{path}' has schema {content['schema']}, this theval reads {SCHEMA}; make it anew with "
                "--update-baseline"
            )
        numbers = tuple(_number(fields, content["people"], content["groupings"]) for fields in content["numbers"])
        return Baseline(
            Conditions.model_validate(content["conditions"]), Origin.model_validate(content["origin"]), numbers
        )
    except FileNotFoundError:
        raise RunError(
            f"baseline '{path}' does not exist; make it of a run that you trust with "
            f"'theval regress RUN --baseline {path} --update-baseline'"
        ) from None
    except OSError as error:
        raise RunError(f"baseline '{path}' cannot be read ({error.strerror}); check --baseline") from error
    except (KeyError, IndexError, TypeError, ValueError, ValidationError) as error:
        detail = " ".join(str(error).split())[:120]
        raise RunError(f"'{path}' is no baseline ({detail}); make it anew with --update-baseline") from error


def _number(fields: dict[str, Any], people: list[str], groupings: list[list[list[int]]]) -> BaselineNumber:
    fields = dict(fields)
    spread, values, grouping = fields.pop("spread", None), fields.pop("people", []), fields.pop("grouping", None)
    left = fields.pop("left_out", [])
    by_person = dict(zip(people, values, strict=True)) if values else {}
    groups = [] if grouping is None else groupings[grouping]
    return BaselineNumber(
        Measurement(
            **fields,
            per_identity={name: value for name, value in by_person.items() if value != ""},
            left_out=tuple(
                LeftOut(identities=tuple(people[index] for index in group), value=value)
                for group, value in zip(groups, left, strict=True)
            ),
        ),
        spread,
    )


def _people(measurement: Measurement) -> list[str]:
    return [*measurement.per_identity, *(name for part in measurement.left_out for name in part.identities)]


def _round(value: Any) -> Any:  # Any: JSON
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
