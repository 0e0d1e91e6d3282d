"""Every number of a report as CSV, unrounded."""

import base64
import csv
import io
from collections.abc import Sequence

from reports.runs import Run, metric_order
from reports.tables import all_rows

FIELDS = (
    "value", "low", "high", "sd", "unit", "higher_is_better", "n_frames", "n_identities", "n_failed",
    "n_real", "n_fake", "n_effective", "noise_floor", "note",
)  # fmt: skip


def measurements_csv(runs: Sequence[Run]) -> str:
    """A row per measurement: run, metric, its labels, then every field; an empty cell where there is no number."""
    rows = all_rows(runs)
    labels = _label_names(runs)
    table = [["run", "metric", *labels, *FIELDS]]
    for run, measurement in rows:
        fields = [getattr(measurement, name) for name in FIELDS]
        table.append(
            [
                run.label,
                measurement.metric,
                *(measurement.labels.get(label, "") for label in labels),
                *map(_write, fields),
            ]
        )
    return _csv(table)


def identities_csv(runs: Sequence[Run]) -> str:
    """A row per person and condition, a column per metric."""
    metrics = metric_order(m.metric for run in runs for m in run.measurements if m.per_identity)
    labels = _label_names(runs)
    values: dict[tuple[str, ...], dict[str, float | None]] = {}
    for run in runs:
        for measurement in run.measurements:
            for identity, value in measurement.per_identity.items():
                key = (run.label, *(measurement.labels.get(label, "") for label in labels), identity)
                values.setdefault(key, {})[measurement.metric] = value
    table = [["run", *labels, "identity", *metrics]]
    table += [[*key, *(_write(row.get(metric)) for metric in metrics)] for key, row in values.items()]
    return _csv(table)


def data_uri(text: str) -> str:
    """The CSV as a link target, so that the one file holds the numbers too."""
    return f"data:text/csv;charset=utf-8;base64,{base64.b64encode(text.encode()).decode()}"


def _label_names(runs: Sequence[Run]) -> list[str]:
    found = dict.fromkeys(label for run in runs for m in run.measurements for label in m.labels)
    return [*(name for name in ("generator", "shots") if name in found), *sorted(found.keys() - {"generator", "shots"})]


def _write(value: object) -> str:
    """As JSON would: a float with all its digits, a bool in lower case; empty for None."""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _csv(table: Sequence[Sequence[str]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(table)
    return buffer.getvalue()
