"""Puts a report together: one HTML file that needs nothing else, and its numbers as CSV beside it."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from reports import answer, clips, downloads, leaderboard, plots, strips, tables
from reports.numbers import and_words, count_words, digits, write_count, write_number
from reports.runs import Run, metric_order, open_runs, shots_words
from thead_eval import plugins, spotting
from thead_eval.errors import PluginError
from thead_eval.judging import Progress
from thead_eval.results import Failure, duration
from thead_eval.texts import write_whole


@dataclass(frozen=True)
class Written:
    """The files of a report."""

    html: Path
    measurements: Path
    identities: Path | None  # None where nothing is told person by person


@dataclass(frozen=True)
class Definition:
    """What a metric's name fixes."""

    metric: str
    summary: str


@dataclass(frozen=True)
class FailureGroup:
    """Failures with the same reason."""

    run: str
    reason: str
    failures: tuple[Failure, ...]


def write_report(folders: Sequence[Path], out: Path, progress: Progress | None = None) -> Written:
    """Write `out` (HTML), and beside it NAME.csv and NAME-identities.csv.

    The same runs give the same bytes in the same place; points link to their clips.

    Args:
        folders: Run folders, in the order in which they are to be shown.
        out: The HTML file; its folder is made where it is missing.
        progress: Told after each film strip, which is what takes long.

    Raises:
        RunError: a folder is no finished run, or the files cannot be written.
    """
    runs = open_runs(folders)
    plans = strips.plan_strips(runs)
    made = []
    for plan in plans:
        made.append(strips.make_strip(plan))
        if progress:
            progress("film strips", len(made), len(plans))
    identities = out.with_name(f"{out.stem}-identities.csv")
    written = Written(out, out.with_suffix(".csv"), identities)
    content = {
        written.html: render(runs, made, written),
        written.measurements: downloads.measurements_csv(runs),
        identities: downloads.identities_csv(runs),
    }
    for path, text in content.items():
        write_whole(path, text, "name another file with -o")
    return written


def render(runs: Sequence[Run], made: Sequence[strips.Strip], written: Written) -> str:
    """The page."""
    links = clips.clip_links(runs, written.html)
    return template("report.html.j2").render(
        css=part("report.css"),
        script=part("report.js"),
        board=leaderboard.of_generators(runs),
        trends=plots.trends(runs),
        trend_runs=plots.trend_runs(runs),
        runs=runs,
        title=" and ".join(run.label for run in runs) if len(runs) < 3 else f"{runs[0].label} and {len(runs) - 1} more",
        answers=answer.answers(runs),
        warnings=answer.warnings(runs),
        tables=tables.tables(runs),
        comparisons=tables.comparisons(runs),
        unscored=tables.unscored(runs),
        looks=plots.looks(runs),
        legend=plots.legend(runs),
        curves=plots.curves(runs),
        fooled=plots.fooled(runs),
        spreads=plots.spreads(runs, links),
        linked=bool(links),
        strips=list(strips.strips_by_condition(made)),
        ranked_by=dict.fromkeys(strip.plan.metric for strip in made),
        tile_kinds=strips.TILES,
        published=tables.published()["reference"],
        published_rows=tables.published_rows(runs),
        all_rows=tables.all_rows(runs),
        columns=tables.columns_of(runs),
        style=digits,
        write=write_number,
        definitions=definitions(runs),
        failures=failure_groups(runs),
        settings=settings(runs),
        packages=packages(runs),
        weights=weights(runs),
        measurements_csv=downloads.data_uri(downloads.measurements_csv(runs)),
        identities_csv=downloads.data_uri(downloads.identities_csv(runs)),
        written=written,
        and_words=and_words,
        count_words=count_words,
        shots_words=shots_words,
    )


@cache
def template(name: str) -> Template:
    """A template of this package, with what all of them use."""
    loader = PackageLoader("reports", ".")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"commands": _commands, "count": write_count, "json": _json, "sentence": _sentence}
    return environment.get_template(name)


def part(name: str) -> Markup:
    """A style sheet or script of this package, to put into a page as it is."""
    return Markup(files("reports").joinpath(name).read_text(encoding="utf-8"))


def definitions(runs: Sequence[Run]) -> list[Definition]:
    """What each metric's name fixes, where this installation knows the name."""
    known = plugins.available("metric")
    found = []
    for name in metric_order(m.metric for run in runs for m in run.measurements):
        if name in spotting.SUMMARIES:  # of a detector or of people, not a metric by itself
            found.append(Definition(name, spotting.SUMMARIES[name]))
            continue
        try:
            if name not in known:
                raise PluginError(f"no metric is named '{name}'")
            # Our own without `plugins.load`, which looks through all installed packages each time.
            ours = known[name].package == "theval"
            summary: str = (known[name].load() if ours else plugins.load("metric", name)).summary
        except PluginError:
            summary = "a plug-in's metric; the plug-in is not installed, or broken, where this report was made"
        found.append(Definition(name, summary))
    return found


def failure_groups(runs: Sequence[Run]) -> list[FailureGroup]:
    """Failures by run and reason, the most frequent first."""
    groups: dict[tuple[str, str], list[Failure]] = {}
    for run in runs:
        for failure in run.record.failures:
            groups.setdefault((run.key, failure.reason), []).append(failure)
    made = [FailureGroup(key, reason, tuple(own)) for (key, reason), own in groups.items()]
    return sorted(made, key=lambda group: -len(group.failures))


def settings(runs: Sequence[Run]) -> list[tuple[str, tuple[str, ...]]]:
    """What each run was made with: a name, and a text per run."""
    return _side_by_side(runs, {run.key: _settings_of(run) for run in runs})


def packages(runs: Sequence[Run]) -> list[tuple[str, tuple[str, ...]]]:
    """The versions that each run was made with: a package, and a version per run."""
    return _side_by_side(runs, {run.key: run.record.packages for run in runs})


def weights(runs: Sequence[Run]) -> list[tuple[str, tuple[str, ...]]]:
    """The pretrained files that each run read: a name, and a sha256 per run."""
    return _side_by_side(runs, {run.key: run.record.weights for run in runs})


def _settings_of(run: Run) -> dict[str, str]:
    record = run.record
    commit = f"{record.commit[:12]}{' with changes' if record.dirty else ''}" if record.commit else "not recorded"
    return {
        "command": " ".join(record.command),
        "started": record.started,
        "took": duration(record.seconds),
        "device": record.device,
        "seed": str(record.seed),
        "python": record.python,
        "commit": commit,
    } | {f"data: {name}": value for name, value in record.dataset.items()}


def _side_by_side(runs: Sequence[Run], own: dict[str, dict[str, str]]) -> list[tuple[str, tuple[str, ...]]]:
    """A name and a text per run; an em dash where a run has none."""
    names = dict.fromkeys(name for run in runs for name in own[run.key])
    return [(name, tuple(own[run.key].get(name, "—") for run in runs)) for name in names]


def _commands(text: str) -> Markup:
    """Text with its quoted theval commands set as code."""
    return Markup(re.sub(r"&#39;(theval [^&]+)&#39;", r"<code>\1</code>", str(escape(text))))


def _sentence(text: str) -> str:
    """With a capital, and one full stop."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}." if text else ""


def _json(value: object) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True)
