"""`theval report`: runs to one HTML file."""

from pathlib import Path

import click

from thead_eval.cli.options import MARKDOWN, check_page, check_suffix, check_table
from thead_eval.errors import ConfigError


@click.command("report")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The HTML file. [default: RUN/report.html where there is one RUN]",
)
@click.option("--markdown", type=click.Path(path_type=Path, dir_okay=False), help="Also the tables as Markdown.")
@click.option(
    "--latex", type=click.Path(path_type=Path, dir_okay=False), help="Also the tables for a paper (booktabs)."
)
def command(runs: tuple[Path, ...], out: Path | None, markdown: Path | None, latex: Path | None) -> None:
    """One self-contained HTML file about one or several runs, and every number beside it as CSV.

    The file needs no network: pictures, plots and the CSV are inside it. OUT.csv holds a row per measurement,
    OUT-identities.csv a row per person. Several runs are shown side by side, and ranked, compared and followed over
    commits where they judged the same data. Runs of 'theval detect eval' become a report of detectors: ROC,
    reliability, protocols, perturbations.

    \b
    Examples:
      theval report runs/first
      theval report runs/first -o report.html
      theval report runs/before runs/after -o change.html
      theval report runs/ours runs/theirs -o both.html --latex tables.tex --markdown tables.md
    """
    from reports import detection, page, papers
    from thead_eval.cli.progress import progress_bars

    if out is None:
        if len(runs) > 1:
            raise ConfigError(f"{len(runs)} runs were given and no file to write; name one with -o report.html")
        out = runs[0] / "report.html"
    of_detectors = detection.is_detection(runs)
    check_page(out)
    check_table(out.with_suffix(".csv"))
    check_suffix(markdown, "--markdown", MARKDOWN)
    check_suffix(latex, "--latex", (".tex",))
    if of_detectors:
        written = detection.write_report(runs, out)
    else:
        with progress_bars() as progress:
            written = page.write_report(runs, out, progress)
    if markdown or latex:
        papers.write_tables(runs, markdown, latex)
    megabytes = written.html.stat().st_size / 1e6
    beside = ", ".join(path.name for path in (written.measurements, written.identities, markdown, latex) if path)
    click.echo(f"{written.html} ({megabytes:.1f} MB), {beside}")
