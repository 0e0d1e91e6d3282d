"""The tables of a report: measurements arranged by condition and metric, with marks where a comparison holds."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from typing import Any, Literal, NamedTuple

from reports.differences import Change, compare
from reports.numbers import DASH, Digits, count_words, digits, write_interval, write_number
from reports.runs import Condition, Run, by_condition, calibrations, metric_order, same_data, shots_words
from thead_eval import spotting
from thead_eval.results import USER, Measurement, direction

Mark = Literal["best", "tie", ""]

FLOOR = (
    "Half of the real people against the other half: how far apart real frames of different people lie. Fakes of the "
    "same people as the real frames can lie well below it, and are no more real than real for that: compare them with "
    "each other, on the same people and frames, not with the floor."
)
ONE_PERSON = "No interval: it comes from resampling people, and needs at least two."


@dataclass(frozen=True)
class Family:
    """Metrics that ask the same question."""

    key: str
    title: str
    question: str
    prefixes: tuple[str, ...]


FAMILIES = (
    Family(
        "picture",
        "As pictures",
        "Is each fake frame the picture that the real frame is?",
        ("ssim", "ms_ssim", "psnr", "l1", "perc_", "lpips"),
    ),
    Family("person", "As a person", "Does a face recogniser see the same person?", ("csim", "l2_dlib")),
    Family(
        "motion",
        "In motion",
        "Do the landmarks lie and move as in the real clip?",
        ("nme", "akd", "missing_face", "jitter"),
    ),
    Family(
        "set",
        "As a set",
        "Are the fakes, all taken together, distributed as real frames are?",
        ("fid", "kid", "fd_", "cmmd", "fvd"),
    ),
    Family(
        "detector",
        "To a detector",
        "Of three frames of a person, two real and one fake, how often does a detector find the fake? 1/3 is chance.",
        (spotting.METRIC,),
    ),
    Family(
        "user",
        "To people",
        "Of three videos of a person, two real and one fake, how often do people find the fake? 1/3 is chance.",
        (USER,),
    ),
)
OTHERS = Family("other", "Other metrics", "Metrics of plug-ins.", ())


@dataclass(frozen=True)
class Column:
    """A metric at the head of a table."""

    metric: str
    unit: str
    higher_is_better: bool | None
    style: Digits

    @property
    def better(self) -> str:
        return f"{direction(self.higher_is_better)} is better"

    @property
    def arrow(self) -> str:
        return {True: "↑", False: "↓", None: "→ 0"}[self.higher_is_better]


@dataclass(frozen=True)
class Cell:
    """A number with its interval, its mark and its footnotes."""

    text: str
    interval: str = ""
    mark: Mark = ""
    notes: tuple[str, ...] = ()  # marks of footnotes
    failed: int = 0


@dataclass(frozen=True)
class Row:
    """A condition's cells, and how much was judged."""

    condition: Condition
    counts: str  # "" where all rows of the table have the same, which then stands above it
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """A family's metrics over all conditions, in one block a number of shots."""

    family: Family
    columns: tuple[Column, ...]
    blocks: tuple[tuple[str, tuple[Row, ...]], ...]  # heading ("" where there are no shots), rows
    references: tuple[tuple[str, tuple[Cell, ...]], ...]  # what the real frames give: calibration, noise floor
    footnotes: tuple[tuple[str, str], ...]  # mark, text
    counts: str  # of every row; "" where they differ


@dataclass(frozen=True)
class Unscored:
    """A metric without any value, and why."""

    metric: str
    reasons: tuple[str, ...]


class Compared(NamedTuple):
    """A run's value, and how it stands to that of the first run that has one."""

    text: str
    interval: str = ""
    change: Change = ""
    difference: str = ""  # to that value, person by person


@dataclass(frozen=True)
class Comparison:
    """The same condition in several runs."""

    metric: str
    better: str
    condition: str
    cells: tuple[Compared, ...]  # a run each


@dataclass
class _Footnotes:
    """Texts, each with the letter under which it was first named."""

    marks: dict[str, str] = field(default_factory=dict)

    def mark(self, text: str) -> str:
        if text not in self.marks:
            index = len(self.marks)
            self.marks[text] = "abcdefghijklmnopqrstuvwxyz"[index % 26] * (index // 26 + 1)
        return self.marks[text]


def columns_of(runs: Sequence[Run]) -> dict[str, Column]:
    """Every metric that has a value somewhere, in the report's order."""
    scored: dict[str, list[Measurement]] = {}
    for measurements in by_condition(runs).values():
        for measurement in measurements.values():
            if measurement.value is not None:
                scored.setdefault(measurement.metric, []).append(measurement)
    return {
        name: Column(
            name, scored[name][0].unit, scored[name][0].higher_is_better, digits(m.value for m in scored[name])
        )
        for name in metric_order(scored)
    }


def unscored(runs: Sequence[Run]) -> list[Unscored]:
    """The metrics that were asked and have no value in any condition."""
    reasons: dict[str, list[str]] = {}
    scored = columns_of(runs)
    for measurements in by_condition(runs).values():
        for measurement in measurements.values():
            if measurement.metric not in scored:
                reasons.setdefault(measurement.metric, []).append(measurement.note or "no reason was recorded")
    return [Unscored(name, tuple(dict.fromkeys(reasons[name]))) for name in metric_order(reasons)]


def family_of(metric: str) -> Family:
    """The family of a metric, by its name."""
    return next((family for family in FAMILIES if metric.startswith(family.prefixes)), OTHERS)


def marks(measurements: Sequence[Measurement | None]) -> list[Mark]:
    """'best' where the best value is surely better than every other, else 'tie' on it and on all that may be as good.

    Nothing is marked among fewer than two values, or where one cannot be compared: then nothing is known.
    """
    scored = [m for m in measurements if m is not None and m.value is not None]
    if len(scored) < 2:
        return ["" for _ in measurements]
    best = max(scored, key=lambda m: m.merit)
    changes = [(m, compare(best, m).change) for m in scored if m is not best]
    if any(change == "" for _, change in changes):
        return ["" for _ in measurements]
    tied = [m for m, change in changes if change != "better"]
    result: list[Mark] = []
    for measurement in measurements:
        if measurement is best:
            result.append("tie" if tied else "best")
        else:
            result.append("tie" if any(measurement is m for m in tied) else "")
    return result


def calibration_band(line: Measurement) -> tuple[float, float] | None:
    """One standard deviation to either side of a calibration line."""
    return None if line.value is None or line.sd is None else (line.value - line.sd, line.value + line.sd)


def tables(runs: Sequence[Run]) -> list[Table]:
    """A table for each family that has a value."""
    conditions = by_condition(runs)
    columns = columns_of(runs)
    comparable = same_data(runs)
    made = []
    for family in (*FAMILIES, OTHERS):
        chosen = tuple(column for name, column in columns.items() if family_of(name) == family)
        if chosen:
            made.append(_table(family, chosen, conditions, runs, comparable))
    return made


def _table(
    family: Family,
    columns: tuple[Column, ...],
    conditions: Mapping[Condition, Mapping[str, Measurement]],
    runs: Sequence[Run],
    comparable: bool,
) -> Table:
    footnotes = _Footnotes()
    blocks: dict[str, list[Condition]] = {}
    for condition, measured in conditions.items():
        if not any(column.metric in measured for column in columns):
            continue  # its run asked none of these
        blocks.setdefault("" if condition.shots is None else shots_words(condition.shots), []).append(condition)

    filled = []
    for heading, members in blocks.items():
        found = {c.metric: [conditions[member].get(c.metric) for member in members] for c in columns}
        marked = {c.metric: _marks_of_block(members, found[c.metric], comparable) for c in columns}
        rows = []
        for index, condition in enumerate(members):
            cells = [_cell(found[c.metric][index], marked[c.metric][index], c.style, footnotes) for c in columns]
            judged = [m for c in columns if (m := found[c.metric][index]) is not None and m.value is not None]
            rows.append(Row(condition, _counts(judged), tuple(cells)))
        filled.append((heading, tuple(rows)))

    references = _calibration_rows(columns, runs, footnotes) + _noise_floor_rows(columns, runs, footnotes)
    notes = tuple((mark, text) for text, mark in footnotes.marks.items())
    counts = {row.counts for _, rows in filled for row in rows}
    if len(counts) > 1:
        return Table(family, columns, tuple(filled), tuple(references), notes, "")
    bare = [(heading, tuple(replace(row, counts="") for row in rows)) for heading, rows in filled]
    return Table(family, columns, tuple(bare), tuple(references), notes, counts.pop())


def _marks_of_block(
    members: Sequence[Condition], measurements: Sequence[Measurement | None], comparable: bool
) -> list[Mark]:
    """Marks among all rows of a block, or among each run's own rows where the runs judged different data."""
    if comparable:
        return marks(measurements)
    result: list[Mark] = [""] * len(members)
    for key in dict.fromkeys(member.run for member in members):
        own = [index for index, member in enumerate(members) if member.run == key]
        for index, mark in zip(own, marks([measurements[index] for index in own]), strict=True):
            result[index] = mark
    return result


def _cell(measurement: Measurement | None, mark: Mark, style: Digits, footnotes: _Footnotes) -> Cell:
    if measurement is None:
        return Cell(DASH, notes=(footnotes.mark("Not asked in this run."),))
    if measurement.value is None:
        return Cell(DASH, notes=(footnotes.mark(measurement.note or "No value, and no reason was recorded."),))
    notes = [footnotes.mark(measurement.note)] if measurement.note else []
    interval = write_interval(measurement, style)
    if not interval:
        if "no interval" not in measurement.note:
            notes.append(footnotes.mark(ONE_PERSON if measurement.n_identities < 2 else "No interval was recorded."))
        interval = DASH
    return Cell(write_number(measurement.value, style), interval, mark, tuple(notes), measurement.n_failed)


def _counts(measurements: Sequence[Measurement]) -> str:
    """'73 people, 2 336 frames', with ranges where the metrics of a row judged different numbers."""
    if not measurements:
        return "nothing judged"
    people = sorted({m.n_identities for m in measurements})
    frames = sorted({m.n_frames for m in measurements})
    if all(m.metric == USER for m in measurements):
        return f"{_range(people, 'participant', 'participants')}, {_range(frames, 'answer', 'answers')}"
    return f"{_range(people, 'person', 'people')}, {_range(frames, 'frame', 'frames')}"


def _range(counts: Sequence[int], noun: str, plural: str) -> str:
    if len(counts) == 1:
        return count_words(counts[0], noun, plural)
    return f"{count_words(counts[0], '', ' ').strip()}–{count_words(counts[-1], noun, plural)}"  # noqa: RUF001


def _calibration_rows(
    columns: Sequence[Column], runs: Sequence[Run], footnotes: _Footnotes
) -> list[tuple[str, tuple[Cell, ...]]]:
    rows: dict[str, dict[str, Cell]] = {}
    for column in columns:
        for run, measurement in calibrations(runs, column.metric):
            title = (
                f"{run.key} · real: {measurement.labels['pair']}" if run.key else f"Real: {measurement.labels['pair']}"
            )
            spread = "" if measurement.sd is None else f"± {write_number(measurement.sd, column.style)}"
            notes = (footnotes.mark(measurement.note),) if measurement.note else ()
            rows.setdefault(title, {})[column.metric] = Cell(
                write_number(measurement.value, column.style), spread, notes=notes
            )
    return [(title, tuple(cells.get(c.metric, Cell("")) for c in columns)) for title, cells in rows.items()]


def _noise_floor_rows(
    columns: Sequence[Column], runs: Sequence[Run], footnotes: _Footnotes
) -> list[tuple[str, tuple[Cell, ...]]]:
    rows = []
    for run in runs:
        floors = {
            c.metric: sorted(
                {m.noise_floor for m in run.measurements if m.metric == c.metric and m.noise_floor is not None}
            )
            for c in columns
        }
        if any(floors.values()):
            title = f"{run.key} · noise floor" if run.key else "Noise floor"
            cells = []
            for column in columns:
                written = dict.fromkeys(write_number(floor, column.style) for floor in floors[column.metric])
                ends = list(written) if len(written) < 3 else [*written][:: len(written) - 1]
                cells.append(Cell(" to ".join(ends), notes=(footnotes.mark(FLOOR),) if ends else ()))
            rows.append((title, tuple(cells)))
    return rows


def comparisons(runs: Sequence[Run]) -> list[list[Comparison]]:
    """Metric by metric, the conditions that runs share; better and worse only where the difference is sure."""
    if len(runs) < 2 or not same_data(runs):
        return []
    conditions = by_condition(runs)
    columns = columns_of(runs)
    shared = dict.fromkeys((c.shots, c.generator, c.extra) for c in conditions)
    groups = []
    for column in columns.values():
        rows = []
        for shots, generator, extra in shared:
            found = [conditions.get(Condition(run.key, generator, shots, extra), {}).get(column.metric) for run in runs]
            scored = [m for m in found if m is not None and m.value is not None]
            if len(scored) < 2:
                continue
            cells = []
            for measurement in found:
                if measurement is None or measurement.value is None:
                    cells.append(Compared(DASH))
                    continue
                value, interval = (
                    write_number(measurement.value, column.style),
                    write_interval(measurement, column.style),
                )
                if measurement is scored[0]:
                    cells.append(Compared(value, interval))
                    continue
                difference = compare(measurement, scored[0])
                cells.append(Compared(value, interval, difference.change, difference.write(column.style)))
            name = Condition("", generator, shots, extra).full_name
            rows.append(Comparison(column.metric, column.better, name, tuple(cells)))
        if rows:
            groups.append(rows)
    return groups


@cache
def published() -> dict[str, Any]:  # Any: TOML
    """The quoted table of the paper, with the source of each row."""
    content: dict[str, Any] = tomllib.loads(files("reports").joinpath("published.toml").read_text(encoding="utf-8"))
    return content


@dataclass(frozen=True)
class PublishedRow:
    """A row of the published table, or one of ours under it."""

    dataset: str
    system: str
    source: str
    cells: tuple[Cell | None, ...]  # metric by metric, shots within each; None: not quoted, see the reference
    ours: bool = False


def published_rows(runs: Sequence[Run]) -> list[PublishedRow]:
    """The quoted rows, then ours at the same shots; a column of ours names its own metric where that differs."""
    content = published()
    metrics: list[str] = content["reference"]["metrics"]
    shots: list[str] = content["reference"]["shots"]
    rows = []
    for quoted in content["row"]:
        values = [quoted.get(metric, {}).get(count) for metric in metrics for count in shots]
        cells = tuple(None if value is None else Cell(f"{value:.1f}") for value in values)
        rows.append(PublishedRow(quoted["dataset"], quoted["system"], quoted["source"], cells))

    columns = columns_of(runs)
    conditions = by_condition(runs)
    names = {metric: next((name for name in content["ours"][metric] if name in columns), None) for metric in metrics}
    for series in dict.fromkeys(condition.series for condition in conditions):
        ours: list[Cell | None] = []
        for metric in metrics:
            name = names[metric]
            for count in shots:
                at = Condition(series.run, series.generator, count, series.extra)
                measurement = conditions.get(at, {}).get(name) if name else None
                ours.append(
                    Cell(write_number(measurement.value, columns[name].style))
                    if name and measurement is not None and measurement.value is not None
                    else Cell(DASH)
                )
        if any(cell is not None and cell.text != DASH for cell in ours):
            used = [name for name in names.values() if name]
            rows.append(PublishedRow("yours", series.name, f"this report: {', '.join(used)}", tuple(ours), ours=True))
    return rows


def all_rows(runs: Sequence[Run]) -> list[tuple[Run, Measurement]]:
    """Every measurement of every run, in the report's order of metrics."""
    pairs = [(run, measurement) for run in runs for measurement in run.measurements]
    order = metric_order(measurement.metric for _, measurement in pairs)
    return sorted(pairs, key=lambda pair: order.index(pair[1].metric))
