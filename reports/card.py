"""A model card: what a checkpoint's file says of itself, its training's curves and its measured table, as Markdown.

Numbers come from the files alone. What a person has to say (what it is for, what it cannot do, whose data it was)
comes from a Markdown file that is put in front of them.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from torch import Tensor

from reports.numbers import count_words, digits, write_interval, write_number
from reports.runs import Condition, Run, by_condition, metric_order, shots_words
from thead_eval.errors import RunError
from thead_eval.results import Measurement, direction
from thead_eval.tensors import read_tensors
from thead_eval.weights import sha256_of

SVG: Any = {"svg.hashsalt": "theval", "svg.fonttype": "none", "font.family": "sans-serif"}  # the same bytes each time
CONTROL = "warp/"  # of the names in metrics.csv: what a control reached on the same frames


@dataclass(frozen=True)
class Card:
    """The files that were written."""

    markdown: Path
    curves: Path | None  # SVG


def write_card(
    checkpoint: Path, out: Path, *, training: Path | None = None, runs: Sequence[Run] = (), about: Path | None = None
) -> Card:
    """Write the card of a generator's or detector's checkpoint.

    Args:
        checkpoint: What it is about.
        out: The Markdown file; the curves go beside it.
        training: The run folder of the training that made it.
        runs: Of `theval score`, whose numbers it shows.
        about: Markdown of a person, put first.

    Raises:
        CheckpointError: the checkpoint is missing or damaged.
        RunError: `training` holds no training, `about` cannot be read, or `out` not written.
    """
    stored = read_tensors(checkpoint, "theval")
    parts = [f"# Model card: {checkpoint.name}\n"]
    if about is not None:
        parts.append(read_about(about))
    parts.append(_file(checkpoint, stored.tensors, stored.metadata))
    curves = None
    if training is not None:
        journal = _read_journal(training)
        parts.append(_training(training))
        curves = out.with_name(f"{out.stem}-curves.svg")
        if draw_curves(journal, curves):
            parts.append(f"![Validation while it was trained]({curves.name})\n")
        else:
            curves = None
    if runs:
        parts.append(_measured(runs))
    write_markdown(out, parts)
    return Card(out, curves)


def read_about(path: Path) -> str:
    """What a person wrote.

    Raises:
        RunError: it cannot be read.
    """
    try:
        return path.read_text().strip() + "\n"
    except OSError as error:
        raise RunError(f"'{path}' cannot be read ({error.strerror}); check --about") from None


def write_markdown(out: Path, parts: Sequence[str]) -> None:
    """A card, whose sections these are.

    Raises:
        RunError: it cannot be written.
    """
    try:
        out.write_text("\n".join(parts))
    except OSError as error:
        raise RunError(f"'{out}' cannot be written ({error.strerror}); name another file with -o") from error


def _file(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """The section of what is in the file."""
    parts: dict[str, int] = {}
    for name, tensor in tensors.items():
        part = name.partition(".")[0]
        parts[part] = parts.get(part, 0) + tensor.numel()
    rows = {
        "file": f"`{path.name}`, {path.stat().st_size / 1e6:.1f} MB",
        "sha256": f"`{sha256_of(path)}`",
        "numbers in it": ", ".join(f"{part} {count / 1e6:.2f} M" for part, count in parts.items()),
    }
    if "seconds" in metadata and "steps" in metadata:
        rows["trained"] = f"{metadata['steps']} steps in {float(metadata['seconds']) / 3600:.2f} hours"
    for key, value in sorted(metadata.items()):
        if key not in ("seconds", "steps", "identities"):  # the people are hashes, and many
            rows[key] = _words(value)
    return "## The file\n\n" + put_table(["", ""], [[key, value] for key, value in rows.items()])


def _words(value: str) -> str:
    """Metadata as a line: JSON of names and values without its brackets and quotes."""
    try:
        read = json.loads(value)
    except json.JSONDecodeError:
        return value
    return _flat(read)


def _flat(value: Any) -> str:  # Any: JSON
    if isinstance(value, dict):
        return ", ".join(f"{key} {_flat(item)}" for key, item in value.items())
    if isinstance(value, list):
        return " ".join(map(_flat, value)) or "none"
    return "none" if value is None else str(value)


def _training(folder: Path) -> str:
    told = json.loads((folder / "training.json").read_text())
    packages = told.get("packages", {})
    rows = [
        ["command", _command(told["command"])],
        ["device", f"{told['device']}, {count_words(told['processes'], 'process', 'processes')}"],
        ["packages", ", ".join(f"{name} {version}" for name, version in packages.items() if version)],
    ]
    return "## Its training\n\n" + put_table(["", ""], rows)


def _command(words: Sequence[str]) -> str:
    """As it was given, without the folders of somebody's machine."""
    return f"`{' '.join(Path(word).name if '/' in word else word for word in words)}`"


def _read_journal(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Each name in metrics.csv to its steps and values."""
    journal: dict[str, list[tuple[int, float]]] = {}
    try:
        with (folder / "metrics.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                journal.setdefault(row["name"], []).append((int(row["step"]), float(row["value"])))
    except OSError as error:
        raise RunError(f"'{folder}' holds no training ({error.strerror}: metrics.csv); check --training") from None
    return journal


def draw_curves(journal: Mapping[str, Sequence[tuple[int, float]]], path: Path) -> bool:
    """Validation as lines, what the control reached as dashed ones; False where nothing was validated."""
    names = [name for name in journal if name.startswith(("l1/", "perc/", "fd/", "val/"))]
    families = list(dict.fromkeys(name.partition("/")[0] for name in names))
    if not families:
        return False
    with rc_context(SVG):
        figure = Figure((3.4 * len(families), 2.6), layout="constrained")
        for axes, family in zip(figure.subplots(1, len(families), squeeze=False)[0], families, strict=True):
            for i, name in enumerate(name for name in names if name.startswith(f"{family}/")):
                steps, values = zip(*journal[name], strict=True)
                label = name.partition("/")[2]
                shown = shots_words(label) if label.isdecimal() else label
                axes.plot(steps, values, color=f"C{i}", marker="." if len(steps) < 20 else None, label=shown)
                if control := journal.get(CONTROL + name):
                    axes.axhline(control[0][1], color=f"C{i}", linestyle="--", linewidth=0.8)
            axes.set_title(family, fontsize=9)
            axes.set_xlabel("step", fontsize=8)
            axes.tick_params(labelsize=7)
            axes.legend(fontsize=7)
        figure.savefig(path, format="svg", metadata={"Date": None})
    return True


def _measured(runs: Sequence[Run]) -> str:
    """The section of what runs of `theval score` found."""
    lines = ["## Measured\n"]
    found = by_condition(runs)
    scored = (m for measurements in found.values() for m in measurements.values() if m.value is not None)
    metrics = metric_order(m.metric for m in scored)
    if metrics:
        lines.append(
            "Means over people with their 95 % interval from resampling people; of set metrics, of all frames. "
            "In brackets: people, and frames that could not be scored where there were any.\n"
        )
    order = list(dict.fromkeys(condition.series for condition in found))
    rows = []
    for condition in sorted(found, key=lambda c: (order.index(c.series), list(found).index(c))):
        rows.append([condition.full_name, *(_cell(found[condition].get(metric), found, metric) for metric in metrics)])
    known = {name: m for measurements in found.values() for name, m in measurements.items()}
    head = [f"{name} ({direction(known[name].higher_is_better)} is better)" for name in metrics]
    lines.append(put_table(["", *head], rows))
    lines += [f"Run `{run.label}`: {_command(run.record.command)}.\n" for run in runs]
    return "\n".join(lines)


def _cell(measurement: Measurement | None, found: Mapping[Condition, Mapping[str, Measurement]], metric: str) -> str:
    if measurement is None:
        return ""
    style = digits(measurements[metric].value for measurements in found.values() if metric in measurements)
    failed = f", {measurement.n_failed} failed" if measurement.n_failed else ""
    counts = f"({measurement.n_identities}{failed})"
    return " ".join(
        word for word in (write_number(measurement.value, style), write_interval(measurement, style), counts) if word
    )


def put_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines) + "\n"
