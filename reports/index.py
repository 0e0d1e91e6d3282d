"""The first page of a benchmark: what it says in words, the pages with the numbers, and what each stage took."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from reports import answer, detection
from reports.runs import open_runs
from thead_eval.texts import write_whole


@dataclass(frozen=True)
class Page:
    """A report beside this page, and the runs that it is about."""

    file: str
    title: str
    runs: tuple[Path, ...]


@dataclass(frozen=True)
class Row:
    """A stage."""

    name: str
    command: str
    seconds: float
    cpu_seconds: float
    peak_mb: float


def write_index(title: str, about: str, pages: Sequence[Page], rows: Sequence[Row], out: Path) -> None:
    """Write the page.

    Raises:
        RunError: a run is not complete, or the file cannot be written.
    """
    content = _template().render(
        css=Markup(files("reports").joinpath("report.css").read_text(encoding="utf-8")),
        title=title,
        about=about,
        pages=[(page, _sentences(page)) for page in pages],
        rows=rows,
        hours=sum(row.seconds for row in rows) / 3600,
        peak=max((row.peak_mb for row in rows), default=0.0),
    )
    write_whole(out, content, "name another folder with --out")


def _sentences(page: Page) -> list[str]:
    """What its runs say, as the report itself begins."""
    runs = open_runs(page.runs)
    if detection.is_detection(page.runs):
        return [sentence for run in runs for sentence in detection.answers(run.measurements)]
    return [each.paragraph for each in answer.answers(runs)]


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(files("reports").joinpath("index.html.j2").read_text(encoding="utf-8"))
