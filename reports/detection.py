"""The report of detectors: who tells which fakes apart, how surely, and what is left of it on the way of a video."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from markupsafe import Markup

from reports import downloads, leaderboard, page
from reports.examples import Group, groups
from reports.numbers import DASH, and_words, count_words
from reports.plots import COLOURS, WIDTH, Figure, write_svg, write_text
from reports.points import clip_figures
from reports.runs import Run, by_data, open_runs, shots_words
from thead_eval.curves import Curve, read_curves
from thead_eval.detection import ALL, UNKNOWN
from thead_eval.errors import RunError
from thead_eval.metrics.detection import METRICS
from thead_eval.results import Measurement
from thead_eval.texts import write_whole

BLIND = "metadata"  # the detector that sees no picture
PROTOCOLS = {
    "P1": "people it has not seen, generators that it has",
    "P2": "people it has seen, a generator that it has not",
    "P3": "people and generators that it has not seen",
    UNKNOWN: "nobody knows what it has seen",
}
METRIC_WORDS = {
    "auc": "AUC",
    "ap": "AP",
    "eer": "EER",
    "tpr_at_5": "TPR at 5 %",
    "tpr_at_1": "TPR at 1 %",
    "tpr_at_0.1": "TPR at 0.1 %",
    "ece": "ECE",
    "brier": "Brier",
    "log_loss": "log-loss",
}
LOWEST = 1e-3  # false positive rate at the left edge of a ROC


@dataclass(frozen=True)
class Cell:
    """A number as the page shows it."""

    text: str
    interval: str = ""
    heat: float | None = None  # 0 to 1, for its background
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table with a heading."""

    title: str
    lead: str
    corner: str
    columns: tuple[str, ...]
    blocks: tuple[tuple[str, tuple[tuple[str, tuple[Cell, ...]], ...]], ...]  # heading; rows of a name and cells


@dataclass(frozen=True)
class RunView:
    """A run as the page shows it."""

    run: Run
    answers: tuple[str, ...]
    warnings: tuple[str, ...]
    tables: tuple[Table, ...]
    figures: tuple[Figure, ...]
    clips: tuple[Figure, ...]
    examples: tuple[Group, ...]


def is_detection(folders: Sequence[Path]) -> bool:
    """Whether these are runs of `theval detect eval`.

    Raises:
        RunError: some are, and some are not, or one is no finished run.
    """
    kinds = {bool(run.record.config.get("detection")) for run in open_runs(folders)}
    if len(kinds) > 1:
        raise RunError("runs of 'theval score' and of 'theval detect eval' have no number in common; report each alone")
    return kinds == {True}


def write_report(folders: Sequence[Path], out: Path) -> page.Written:
    """Write `out` (HTML), and NAME.csv beside it.

    The same runs give the same bytes in the same place; points link to their clips.

    Raises:
        RunError: a folder is no finished run, or the files cannot be written.
    """
    runs = open_runs(folders)
    csv = downloads.measurements_csv(runs)
    written = page.Written(out, out.with_suffix(".csv"), None)
    content = page.template("detection.html.j2").render(
        css=page.part("report.css"),
        script=page.part("report.js"),
        board=leaderboard.of_detectors(runs),
        heatmaps=heatmaps(runs),
        title=and_words(run.label for run in runs),
        views=[view(run, read_curves(run.folder), out) for run in runs],
        runs=runs,
        settings=page.settings(runs),
        packages=page.packages(runs),
        weights=page.weights(runs),
        failures=page.failure_groups(runs),
        definitions=[(METRIC_WORDS.get(metric.name, metric.name), metric.summary) for metric in METRICS],
        csv=downloads.data_uri(csv),
        written=written,
        count_words=count_words,
    )
    for path, text in ((out, content), (written.measurements, csv)):
        write_whole(path, text, "name another file with -o")
    return written


def view(run: Run, curves: Sequence[Curve], out: Path) -> RunView:
    """All that the page says of a run."""
    rows = run.measurements
    tables = [
        *numbers_tables(rows, "clip"),
        *known_fakes_tables(rows),
        *perturbation_tables(rows),
        *numbers_tables(rows, "frame"),
    ]
    return RunView(
        run,
        tuple(answers(rows)),
        tuple(warnings(rows)),
        tuple(tables),
        tuple(figures(curves) + robustness_figures(rows)),
        tuple(clip_figures(run, out)),
        tuple(groups(run)),
    )


# Words.


def answers(rows: Sequence[Measurement]) -> list[str]:
    """A sentence a detector and protocol."""
    told = []
    plain = [m for m in rows if m.metric == "auc" and m.labels["unit"] == "clip" and not _special(m)]
    for detector in dict.fromkeys(m.labels["detector"] for m in plain):
        for protocol in PROTOCOLS:
            own = [m for m in plain if (m.labels["detector"], m.labels["protocol"]) == (detector, protocol)]
            own = [m for m in own if protocol != "P1" or not m.labels.get("held_out")]
            whole = [m for m in own if m.labels["generator"] == ALL] or own
            known = sorted((m for m in whole if m.value is not None), key=lambda m: m.merit)
            if not known:
                told += [f"{detector} has no number on {protocol}: {m.note}." for m in whole[:1]]
                continue
            worst, best = known[0], known[-1]
            who = "Without a picture, from what the files say," if detector == BLIND else f"{detector} tells"
            what = "fakes are told" if detector == BLIND else "fakes"
            on = f"{who} {what} from real clips on {protocol} ({PROTOCOLS[protocol]}) with AUC"
            if len(known) == 1:
                told.append(f"{on} {_write(worst)} {_interval(worst)}.")
            else:
                told.append(
                    f"{on} {_write(worst)} {_interval(worst)} (fakes of {worst.labels['generator']}) to {_write(best)} "
                    f"{_interval(best)} (of {best.labels['generator']})."
                )
    return told


def warnings(rows: Sequence[Measurement]) -> list[str]:
    """Why numbers are missing, each reason once, with how many it took."""
    notes: dict[str, set[str]] = {}
    for m in rows:
        if m.value is None and m.note:
            notes.setdefault(m.note, set()).add(METRIC_WORDS.get(m.metric, m.metric))
    return [f"{and_words(sorted(names))}: {note}." for note, names in notes.items()]


def _special(m: Measurement) -> bool:
    return bool(m.labels.keys() & {"perturbation", "shots", "reals", "known_fakes"})


def _name(m: Measurement) -> str:
    training = m.labels.get("training", "")
    return m.labels["detector"] + (f", {training}" if training else "")


# Tables.


def numbers_tables(rows: Sequence[Measurement], unit: str) -> list[Table]:
    """A table a protocol: detectors and trainings down, metrics across, a block a kind of fake."""
    tables = []
    for protocol, words in PROTOCOLS.items():
        own = [
            m
            for m in rows
            if m.labels["protocol"] == protocol
            and m.labels["unit"] == unit
            and not m.labels.keys() & {"perturbation", "known_fakes"}
        ]
        metrics = list(dict.fromkeys(m.metric for m in own if m.value is not None))
        blocks: dict[str, dict[str, dict[str, Measurement]]] = {}
        for m in own:
            blocks.setdefault(_kind(m), {}).setdefault(_name(m), {})[m.metric] = m
        made = tuple(
            (heading, tuple((name, _cells(found, metrics)) for name, found in named.items()))
            for heading, named in blocks.items()
        )
        if metrics:
            each = "A clip counts once, by the mean of its frames." if unit == "clip" else "Each frame counts alone."
            tables.append(
                Table(
                    f"{protocol}: {words}" + (", frame by frame" if unit == "frame" else ""),
                    f"{each} 95 % intervals from resampling people. Reals and fakes weigh alike in ECE, Brier and "
                    "log-loss.",
                    "detector",
                    ("real + fake", *(METRIC_WORDS.get(name, name.replace("_", " ") + " %") for name in metrics)),
                    made,
                )
            )
    return tables


def _kind(m: Measurement) -> str:
    generator = m.labels["generator"]
    words = "all fakes" if generator == ALL else f"fakes of {generator}"
    if shots := m.labels.get("shots"):
        words += f", {shots_words(shots)}"
    return words + (f", beside the reals of {m.labels['reals']}" if "reals" in m.labels else "")


def _cells(found: dict[str, Measurement], metrics: Sequence[str]) -> tuple[Cell, ...]:
    any_of_it = next(iter(found.values()))
    counts = Cell(f"{any_of_it.n_real} + {any_of_it.n_fake}")
    return (counts, *(_cell(found.get(name)) for name in metrics))


def heatmaps(runs: Sequence[Run]) -> list[Table]:
    """Of all runs, those of the same clips together, as only their numbers stand beside each other."""
    groups = by_data(runs)
    tables = []
    for group in groups:
        whose = f": {and_words(run.key for run in group)}" if len(groups) > 1 else ""
        tables += [replace(table, title=table.title + whose) for table in (*caught_tables(group), *matrices(group))]
    return tables


def _detector_names(runs: Sequence[Run]) -> dict[tuple[str, str], str]:
    """Of a run's key and a detector: its name, with the run where another has one of the same name. Without those that
    say the same of everything, and so have no number."""
    own = dict.fromkeys(
        (run.key, m.labels["detector"]) for run in runs for m in run.measurements if m.value is not None
    )
    names = [detector for _, detector in own]
    return {(key, name): f"{key} · {name}" if names.count(name) > 1 else name for key, name in own}


def caught_tables(runs: Sequence[Run]) -> list[Table]:
    """Whose fakes are caught by whom: AUC, generators and shots down, detectors across."""
    names = _detector_names(runs)
    own = [
        (names[run.key, m.labels["detector"]], m)
        for run in runs
        for m in run.measurements
        if (run.key, m.labels["detector"]) in names
        and m.metric == "auc"
        and m.labels["unit"] == "clip"
        and m.labels["generator"] != ALL
        and not m.labels.get("held_out")
        and not m.labels.keys() & {"perturbation", "known_fakes", "reals"}
    ]
    detectors = list(dict.fromkeys(detector for detector, _ in own))
    if len(detectors) < 2:
        return []
    blocks: dict[str, dict[str, dict[str, Measurement]]] = {}
    for detector, m in own:
        kind = m.labels["generator"] + (f", {shots_words(m.labels['shots'])}" if m.labels.get("shots") else "")
        blocks.setdefault(m.labels["protocol"], {}).setdefault(kind, {})[detector] = m
    made = tuple(
        (
            f"{protocol}: {PROTOCOLS[protocol]}",
            tuple((kind, tuple(_cell(row.get(name), heat=True) for name in detectors)) for kind, row in kinds.items()),
        )
        for protocol, kinds in blocks.items()
    )
    lead = (
        "AUC over clips: each generator's fakes beside the reals of its protocol. Detectors that learnt from other "
        "people are judged on other people. The fuller a cell, the further above a coin."
    )
    return [Table("Whose fakes are caught by whom", lead, "fakes of", tuple(detectors), made)]


def matrices(runs: Sequence[Run]) -> list[Table]:
    """Leave one generator out: AUC of each training on the fakes of each generator, people being new; a block a
    detector that was trained so."""
    names = _detector_names(runs)
    own = [
        (names[run.key, m.labels["detector"]], m)
        for run in runs
        for m in run.measurements
        if (run.key, m.labels["detector"]) in names
        and m.metric == "auc"
        and m.labels["unit"] == "clip"
        and m.labels["protocol"] in ("P1", "P3")
        and m.labels.get("training")
        and m.labels["generator"] != ALL
        and not _special(m)
    ]
    blocks: dict[str, dict[str, dict[str, Measurement]]] = {
        detector: {} for detector, m in own if m.labels.get("held_out")
    }
    for detector, m in own:
        if detector in blocks:
            blocks[detector].setdefault(m.labels["training"], {})[m.labels["generator"]] = m
    if not blocks:
        return []
    generators = sorted({name for trainings in blocks.values() for row in trainings.values() for name in row})
    made = tuple(
        (
            detector,
            tuple((name, tuple(_cell(row.get(g), heat=True) for g in generators)) for name, row in found.items()),
        )
        for detector, found in blocks.items()
    )
    lead = "AUC over clips of people that no training has seen. Down: what the training saw; across: whose fakes."
    return [Table("Leave one generator out", lead, "trained on", tuple(generators), made)]


def known_fakes_tables(rows: Sequence[Measurement]) -> list[Table]:
    """k-shot: AUC on a generator of which so many fakes were known, from none on."""
    own = [m for m in rows if m.metric == "auc" and m.labels["unit"] == "clip" and m.labels["protocol"] == "P3"]
    own = [m for m in own if m.labels.get("held_out") and not m.labels.keys() & {"perturbation", "shots", "reals"}]
    counts = sorted({int(m.labels.get("known_fakes", 0)) for m in own})
    if counts in ([], [0]):
        return []
    blocks: dict[str, dict[str, dict[int, Measurement]]] = {}
    for m in own:
        of = blocks.setdefault(m.labels["detector"], {}).setdefault(m.labels["held_out"], {})
        of[int(m.labels.get("known_fakes", 0))] = m
    made = tuple(
        (
            detector,
            tuple((held_out, tuple(_cell(row.get(n), heat=True) for n in counts)) for held_out, row in of.items()),
        )
        for detector, of in blocks.items()
    )
    lead = "AUC over clips where so many fakes of the generator were among the training's, the mean over several draws."
    return [Table("A few fakes of an unseen generator", lead, "generator", tuple(map(str, counts)), made)]


def perturbation_tables(rows: Sequence[Measurement]) -> list[Table]:
    """AUC by perturbation and level, fakes that are still caught, and how many reals change sides."""
    tables = []
    own = [m for m in rows if m.labels["unit"] == "clip" and not m.labels.keys() & {"shots", "reals", "known_fakes"}]
    perturbed = [m for m in own if "perturbation" in m.labels]
    flips = sorted(
        {m.metric for m in perturbed if m.metric.startswith("reals_flipped") and m.value is not None}, key=_rate
    )
    caught = [name for name in ("tpr_at_1", "tpr_at_5") if any(m.metric == name for m in perturbed)]
    for metric in ["auc", *caught, *flips[:1]]:
        blocks: dict[str, dict[str, dict[str, Measurement]]] = {}
        for m in perturbed:
            if m.metric == metric:
                heading = f"{_name(m)}, {m.labels['protocol']}, {_kind(m)}"
                row = blocks.setdefault(heading, {}).setdefault(m.labels["perturbation"].replace("_", " "), {})
                row[m.labels["level"]] = m
        levels = sorted({m.labels["level"] for m in perturbed})
        made = tuple(
            (heading, tuple((name, tuple(_cell(row.get(n), heat=True) for n in levels)) for name, row in named.items()))
            for heading, named in blocks.items()
        )
        title = "AUC on the way of a video" if metric == "auc" else "Reals that change sides"
        lead = "The same was done to real and fake. Level 1 is hardly noticed, 5 makes a face hard to recognise."
        if metric in caught:
            title = f"Fakes caught on the way of a video, at {_rate(metric):g} % of the reals"
        elif metric != "auc":
            lead = (
                f"Share of real clips whose verdict changes, at the threshold of {_rate(metric):g} % of the validation "
                "reals."
            )
        if made:
            tables.append(Table(title, lead, "perturbation", tuple(f"level {level}" for level in levels), made))
    return tables


def _rate(metric: str) -> float:
    return float(metric.rpartition("_")[2])


def _cell(m: Measurement | None, heat: bool = False) -> Cell:
    if m is None or m.value is None:
        return Cell(DASH if m is None else "n/a", note=m.note if m else "")
    warmth = None
    if heat:
        warmth = min(1.0, abs(m.value - 0.5) * 2) if m.metric == "auc" and m.value > 0.5 else 0.0
        warmth = m.value if m.metric != "auc" else warmth
    return Cell(_write(m), _interval(m), warmth)


def _write(m: Measurement) -> str:
    return DASH if m.value is None else f"{m.value:.3f}"


def _interval(m: Measurement) -> str:
    return "" if m.low is None or m.high is None else f"[{m.low:.2f}, {m.high:.2f}]"


# Figures.


def figures(curves: Sequence[Curve]) -> list[Figure]:
    """For each protocol, ROC and reliability of all fakes together, a line a detector; frames reach further left."""
    made = []
    groups: dict[tuple[str, str, str], list[Curve]] = {}
    together = {(c.labels["protocol"], _curve_name(c)) for c in curves if c.labels["generator"] == ALL}
    for curve in sorted(curves, key=lambda curve: list(PROTOCOLS).index(curve.labels["protocol"])):
        protocol, generator = curve.labels["protocol"], curve.labels["generator"]
        if generator == ALL or (protocol, _curve_name(curve)) not in together:
            kind = "all fakes" if generator == ALL else f"fakes of {generator}"
            groups.setdefault((protocol, kind, curve.labels["unit"]), []).append(curve)
    for (protocol, kind, unit), own in groups.items():
        legend = tuple((f"c{index % COLOURS}", _curve_name(curve)) for index, curve in enumerate(own))
        of = f"{protocol}, {kind}, {unit}s"
        made.append(
            Figure(
                f"ROC: {of}", "fakes flagged over reals flagged; the axis of reals is logarithmic", _roc(own), legend
            )
        )
        if unit == "clip":
            made.append(
                Figure(
                    f"Reliability: {of}",
                    "fakes found over probability said; the larger, the more",
                    _reliable(own),
                    legend,
                )
            )
    return made


def robustness_figures(rows: Sequence[Measurement]) -> list[Figure]:
    """AUC over the levels of each perturbation, a line a detector; level 0 is the clip as it is."""
    own = [m for m in rows if m.metric == "auc" and m.labels["unit"] == "clip" and m.value is not None]
    own = [m for m in own if not m.labels.keys() & {"shots", "reals", "known_fakes"}]
    together = {(_name(m), m.labels["protocol"]) for m in own if m.labels["generator"] == ALL}
    own = [m for m in own if m.labels["generator"] == ALL or (_name(m), m.labels["protocol"]) not in together]
    plain = {(_name(m), m.labels["protocol"], _kind(m)): m.value for m in own if "perturbation" not in m.labels}
    lines: dict[tuple[str, str, str], dict[str, dict[int, float]]] = {}
    for m in own:
        if "perturbation" in m.labels:
            assert m.value is not None
            of = lines.setdefault((m.labels["protocol"], _kind(m), m.labels["perturbation"]), {})
            of.setdefault(_name(m), {})[int(m.labels["level"])] = m.value
    made = []
    for (protocol, kind, perturbation), detectors in lines.items():
        for name, values in detectors.items():
            if (whole := plain.get((name, protocol, kind))) is not None:
                values[0] = whole
        legend = tuple((f"c{index % COLOURS}", name) for index, name in enumerate(detectors))
        title = f"Robustness: {protocol}, {kind}, {perturbation.replace('_', ' ')}"
        made.append(Figure(title, "AUC of clips over the level; 0 is as they are", _robust(detectors), legend))
    return made


def _robust(detectors: Mapping[str, Mapping[int, float]]) -> Markup:
    last = max(level for values in detectors.values() for level in values)
    parts = _frame([(level / last, str(level)) for level in range(last + 1)], "level")
    told = []
    for index, (name, values) in enumerate(detectors.items()):
        places = [_place(level / last, value) for level, value in sorted(values.items())]
        d = " ".join(f"{'L' if i else 'M'}{x:.1f} {y:.1f}" for i, (x, y) in enumerate(places))
        dots = "".join(f'<circle class="marker" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in places)
        parts.append(f'<g class="c{index % COLOURS}"><path class="curve" d="{d}"/>{dots}</g>')
        told.append(f"{name}: " + ", ".join(f"{value:.2f}" for _, value in sorted(values.items())))
    return write_svg(SIDE_HEIGHT, f"AUC by level. {'; '.join(told)}.", parts)


def _curve_name(curve: Curve) -> str:
    training = curve.labels.get("training", "")
    return curve.labels["detector"] + (f", {training}" if training else "")


LEFT, TOP, SIDE_HEIGHT, BOTTOM = 40, 8, 250, 34


def _place(x: float, y: float) -> tuple[float, float]:
    """Parts of the axes in pixels."""
    return LEFT + x * (WIDTH - LEFT - 12), TOP + (1 - y) * (SIDE_HEIGHT - TOP - BOTTOM)


def _frame(x_ticks: Sequence[tuple[float, str]], x_title: str) -> list[str]:
    parts = []
    for x, text in x_ticks:
        (px, low), (_, high) = _place(x, 0), _place(x, 1)
        parts.append(f'<line class="grid" x1="{px:.1f}" x2="{px:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>')
        parts.append(write_text(px, low + 14, text, "tick", "middle"))
    for y in (0.0, 0.25, 0.5, 0.75, 1.0):
        (left, py), (right, _) = _place(0, y), _place(1, y)
        parts.append(f'<line class="grid" x1="{left:.1f}" x2="{right:.1f}" y1="{py:.1f}" y2="{py:.1f}"/>')
        parts.append(write_text(left - 6, py + 4, f"{y:g}", "tick", "end"))
    parts.append(write_text(_place(0.5, 0)[0], SIDE_HEIGHT - 2, x_title, "axis", "middle"))
    return parts


def _log(rate: float) -> float:
    return 1 - math.log10(max(rate, LOWEST)) / math.log10(LOWEST)


def _roc(curves: Sequence[Curve]) -> Markup:
    """Each curve from half the lowest rate that its reals can show, which stands for none."""
    parts = _frame([(_log(rate), f"{100 * rate:g} %") for rate in (0.001, 0.01, 0.1, 1.0)], "reals flagged")
    told = []
    for index, curve in enumerate(curves):
        nearest = max(0.5 / curve.n_real, LOWEST)  # where no real one at all is flagged
        path = [_place(_log(max(fpr, nearest)), tpr) for fpr, tpr in curve.roc]
        d = " ".join(f"{'L' if i else 'M'}{x:.1f} {y:.1f}" for i, (x, y) in enumerate(path))
        parts.append(f'<g class="c{index % COLOURS}"><path class="curve" d="{d}"/></g>')
        at = max((tpr for fpr, tpr in curve.roc if fpr <= 0.05), default=0.0)
        told.append(f"{_curve_name(curve)} flags {at:.0%} of the fakes with at most 5 % of the reals")
    return write_svg(SIDE_HEIGHT, f"ROC. {'; '.join(told)}.", parts)


def _reliable(curves: Sequence[Curve]) -> Markup:
    parts = _frame([(x, f"{x:g}") for x in (0.0, 0.25, 0.5, 0.75, 1.0)], "probability said")
    (x0, y0), (x1, y1) = _place(0, 0), _place(1, 1)
    parts.append(f'<line class="floor" x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}"/>')
    for index, curve in enumerate(curves):
        places = [(*_place(bin_.p, bin_.fakes), bin_.count) for bin_ in curve.reliability]
        d = " ".join(f"{'L' if i else 'M'}{x:.1f} {y:.1f}" for i, (x, y, _) in enumerate(places))
        total = sum(count for *_, count in places)
        dots = "".join(
            f'<circle class="marker" cx="{x:.1f}" cy="{y:.1f}" r="{2.5 + 6 * math.sqrt(n / total):.1f}"/>'
            for x, y, n in places
        )
        parts.append(f'<g class="c{index % COLOURS}"><path class="curve" d="{d}" opacity="0.5"/>{dots}</g>')
    return write_svg(
        SIDE_HEIGHT, "Share of fakes found over the probability that was said; the dotted line is exact.", parts
    )
