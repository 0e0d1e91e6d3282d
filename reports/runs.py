"""The runs that a report is about, and their measurements by condition."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from thead_eval.errors import RunError
from thead_eval.plugins import BUILT_IN
from thead_eval.results import Measurement, RunRecord, read_measurements, read_run


@dataclass(frozen=True)
class Run:
    """A finished run."""

    key: str  # "A", "B", ...; "" where the report has one run
    label: str  # the folder's name, with as much of its path as tells it from the others
    folder: Path
    record: RunRecord
    measurements: tuple[Measurement, ...]


@dataclass(frozen=True)
class Condition:
    """What a row of a table is about: a generator of a run, at a number of shots."""

    run: str  # the run's key
    generator: str
    shots: str | None  # None where the fakes came from a folder
    extra: tuple[tuple[str, str], ...] = ()  # the labels that a protocol added

    @property
    def series(self) -> "Condition":
        """The condition without its shots: what a curve is about."""
        return Condition(self.run, self.generator, None, self.extra)

    @property
    def name(self) -> str:
        """The generator, with the run's key and the added labels where there are any."""
        extra = "".join(f", {key} {value}" for key, value in self.extra)
        return f"{self.run} · {self.generator}{extra}" if self.run else f"{self.generator}{extra}"

    @property
    def full_name(self) -> str:
        """The name with the shots."""
        return self.name if self.shots is None else f"{self.name}, {shots_words(self.shots)}"


def open_runs(folders: Sequence[Path]) -> list[Run]:
    """Read finished runs, in the order given.

    Raises:
        RunError: a folder is not a run, is damaged, is named twice, or its run has not ended.
    """
    resolved = [folder.resolve() for folder in folders]
    for folder, path in zip(folders, resolved, strict=True):
        if resolved.count(path) > 1:
            raise RunError(f"run '{folder}' is named twice; name each run once")
    runs = []
    for index, (folder, label) in enumerate(zip(folders, _labels(resolved), strict=True)):
        record = read_run(folder)
        if record.status != "complete":
            raise RunError(
                f"run '{folder}' is not complete (it stopped while {record.status}); "
                "give the same command again, which continues it, then report"
            )
        key = _letters(index) if len(folders) > 1 else ""
        runs.append(Run(key, label, folder, record, tuple(read_measurements(folder))))
    return runs


def condition_of(run: Run, measurement: Measurement) -> Condition | None:
    """The condition that a measurement belongs to, or None for a line that describes the real frames."""
    if is_calibration(measurement):
        return None
    labels = dict(measurement.labels)
    generator = labels.pop("generator", "fakes")
    shots = labels.pop("shots", None)
    return Condition(run.key, generator, shots, tuple(sorted(labels.items())))


def is_calibration(measurement: Measurement) -> bool:
    """A line about the real frames alone: the similarity of one person's frames, or of two people's."""
    return measurement.labels.get("generator") == "real" and "pair" in measurement.labels


def by_condition(runs: Sequence[Run]) -> dict[Condition, dict[str, Measurement]]:
    """Condition to metric to measurement; fewest shots first, and in the order of the runs among equal shots."""
    found: dict[Condition, dict[str, Measurement]] = {}
    for run in runs:
        for measurement in run.measurements:
            condition = condition_of(run, measurement)
            if condition is not None:
                found.setdefault(condition, {})[measurement.metric] = measurement
    return {condition: found[condition] for condition in sorted(found, key=lambda c: shots_order(c.shots))}


def calibrations(runs: Sequence[Run], metric: str) -> list[tuple[Run, Measurement]]:
    """The calibration lines of a metric."""
    return [(run, m) for run in runs for m in run.measurements if m.metric == metric and is_calibration(m)]


def metric_order(names: Iterable[str]) -> list[str]:
    """Each name once: ours in the order of the plug-in table, then the others as they came."""
    known = list(BUILT_IN["metric"])
    once = list(dict.fromkeys(names))
    return sorted(once, key=lambda name: known.index(name) if name in known else len(known) + once.index(name))


def shots_order(shots: str | None) -> tuple[float, str]:
    """Sort key: numbers by size, then what is not a number by its text."""
    if shots is None:
        return (0.0, "")
    return (float(int(shots)), "") if shots.isdecimal() else (float("inf"), shots)


def shots_words(shots: str) -> str:
    """'1 shot', '8 shots'."""
    return f"{shots} shot" if shots == "1" else f"{shots} shots"


def same_data(runs: Sequence[Run]) -> bool:
    """Whether all runs judged the same frames, as far as their records tell: then rows of two may be compared."""
    return all(_identity_of_data(run) == _identity_of_data(runs[0]) for run in runs)


def by_data(runs: Sequence[Run]) -> list[list[Run]]:
    """Those that judged the same frames together, in the order of the first of each."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(_identity_of_data(run), []).append(run)
    return list(found.values())


def _identity_of_data(run: Run) -> str:
    """The dataset's checksum with what chose people and frames from it, or the real clips of others' fakes."""
    dataset, config = run.record.dataset, run.record.config
    if "evidence" in dataset:  # of detectors
        return dataset["evidence"]
    if "sha256" in dataset:
        protocol = ("split", "seed", "identities", "min_frames", "cross_clip")
        return repr((dataset["sha256"], [config.get(key) for key in protocol]))
    return dataset.get("reals_sha256") or dataset.get("reals") or repr(sorted(dataset.items()))


def _labels(folders: Sequence[Path]) -> list[str]:
    """The last part of each path, or as many parts as tell them apart."""
    for parts in range(1, max(len(folder.parts) for folder in folders) + 1):
        labels = ["/".join(folder.parts[-parts:]) for folder in folders]
        if len(set(labels)) == len(labels):
            return labels
    raise AssertionError("the folders are different")


def _letters(index: int) -> str:
    """A to Z, then AA, AB, ..."""
    return (_letters(index // 26 - 1) if index >= 26 else "") + chr(ord("A") + index % 26)
