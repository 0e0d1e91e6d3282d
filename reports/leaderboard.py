"""Who ranks where, over metrics and settings: intervals of ranks, as only sure differences count."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from reports.differences import compare
from reports.numbers import Digits, digits, write_interval, write_number
from reports.runs import Run, by_condition, metric_order, same_data, shots_order
from thead_eval.detection import ALL
from thead_eval.results import Measurement, direction

THREE = Digits(3)  # of the numbers of detectors
OF_DETECTORS = ("auc", "tpr_at_5", "tpr_at_1", "eer", "ece")


@dataclass(frozen=True)
class Heading:
    """A metric at the head of the board."""

    metric: str
    better: str
    style: Digits


@dataclass(frozen=True)
class Place:
    """A number, and the first and last rank that it may have."""

    text: str
    interval: str
    rank: str  # '1', or '2 to 4' where it is not sure
    merit: float  # to sort by


@dataclass(frozen=True)
class Row:
    """A generator or detector at one setting, against all others at that setting."""

    name: str
    setting: str  # shots, or a protocol and its fakes
    mean_rank: float | None  # over the metrics that it has, by the middle of each rank; None beside nobody
    places: tuple[Place | None, ...]


@dataclass(frozen=True)
class Board:
    """All rows, the best mean rank of each setting first."""

    setting: str  # what a setting is
    headings: tuple[Heading, ...]
    rows: tuple[Row, ...]

    @property
    def settings(self) -> tuple[str, ...]:
        """Each once, in their order."""
        return tuple(dict.fromkeys(row.setting for row in self.rows))


Entries = dict[str, dict[str, dict[str, Measurement]]]  # setting, name, metric


def of_generators(runs: Sequence[Run]) -> Board | None:
    """Every generator of every run, by shots; None where there is nobody to compare with, or the data differ."""
    entries: Entries = {}
    for condition, measured in by_condition(runs).items():
        known = {name: m for name, m in measured.items() if m.value is not None}
        entries.setdefault(condition.shots or "", {}).setdefault(condition.name, {}).update(known)
    names = metric_order(metric for rows in entries.values() for row in rows.values() for metric in row)
    return _board(runs, "shots", names, dict(sorted(entries.items(), key=lambda entry: shots_order(entry[0]))), digits)


def of_detectors(runs: Sequence[Run]) -> Board | None:
    """Every detector of every run, by protocol and the fakes that it was asked about."""
    entries: Entries = {}
    for run in runs:
        for m in run.measurements:
            labels = m.labels
            plain = not labels.keys() & {"perturbation", "shots", "reals", "known_fakes"} and labels["unit"] == "clip"
            if m.value is None or not plain or m.metric not in OF_DETECTORS:
                continue
            fakes = "all fakes" if labels["generator"] == ALL else labels["generator"]
            trained = f", {labels['training']}" if labels.get("training") else ""
            name = f"{run.key} · {labels['detector']}{trained}" if run.key else labels["detector"] + trained
            entries.setdefault(f"{labels['protocol']}, {fakes}", {}).setdefault(name, {})[m.metric] = m
    return _board(runs, "protocol and fakes", OF_DETECTORS, dict(sorted(entries.items())), lambda values: THREE)


def _board(
    runs: Sequence[Run],
    setting: str,
    metrics: Sequence[str],
    entries: Entries,
    style: Callable[[list[float | None]], Digits],
) -> Board | None:
    if not same_data(runs) or all(len(rows) < 2 for rows in entries.values()):
        return None
    headings = []
    for metric in metrics:
        found = [row[metric] for rows in entries.values() for row in rows.values() if metric in row]
        if found:
            better = direction(found[0].higher_is_better)
            headings.append(Heading(metric, better, style([m.value for m in found])))
    rows = []
    for at, named in entries.items():
        of_it = []
        for name, measured in named.items():
            places: list[Place | None] = []
            middles = []
            for heading in headings:
                m = measured.get(heading.metric)
                if m is None:
                    places.append(None)
                    continue
                first, last = _ranks(m, [row[heading.metric] for row in named.values() if heading.metric in row])
                rank = "" if len(named) == 1 else str(first) if first == last else f"{first} to {last}"
                middles.append((first + last) / 2)
                value = write_number(m.value, heading.style)
                places.append(Place(value, write_interval(m, heading.style), rank, m.merit))
            mean = sum(middles) / len(middles) if middles and len(named) > 1 else None
            of_it.append(Row(name, at, mean, tuple(places)))
        rows += sorted(of_it, key=lambda row: row.mean_rank or 0.0)
    return Board(setting, tuple(headings), tuple(rows))


def _ranks(own: Measurement, everyone: Sequence[Measurement]) -> tuple[int, int]:
    """Behind all that are surely better, and before all that are surely worse."""
    changes = [compare(own, other).change for other in everyone if other is not own]
    return 1 + changes.count("worse"), len(everyone) - changes.count("better")
