"""`theval regress`: a run beside a committed baseline, for CI."""

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from thead_eval.cli.options import MARKDOWN, check_suffix
from thead_eval.errors import ConfigError, RunError

if TYPE_CHECKING:
    from thead_eval.baseline import Part
    from thead_eval.regression import Judgement


@click.command("regress")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
@click.option(
    "--baseline", "file", required=True, type=click.Path(path_type=Path, dir_okay=False), help="A JSON file to commit."
)
@click.option("--update-baseline", "update", is_flag=True, help="Write it from RUN; from several, their mean.")
@click.option("--config", type=click.Path(path_type=Path, dir_okay=False), help="TOML: tolerances, floors, metrics.")
@click.option(
    "--despite",
    multiple=True,
    type=click.Choice(["data", "settings", "weights"]),
    help="Compare although these differ; again for each more.",
)
@click.option("--markdown", type=click.Path(path_type=Path, dir_okay=False), help="Also as a table for a pull request.")
@click.option("--junit", type=click.Path(path_type=Path, dir_okay=False), help="Also as JUnit XML.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def command(
    runs: tuple[Path, ...],
    file: Path,
    update: bool,
    config: Path | None,
    despite: tuple["Part", ...],
    markdown: Path | None,
    junit: Path | None,
    as_json: bool,
) -> None:
    """Did this change make a number worse? For runs of 'theval score' and of 'theval detect eval'.

    Each number is compared with the baseline's person by person. It fails where the 95 % interval of the difference
    leaves out 0, after allowing for how many numbers there are, and the drop is beyond the tolerance; where a person,
    or the number itself, is no longer judged; and where it is worse than a floor of --config.

    Exits 0 where nothing is worse, 1 where something is, 2 where the runs cannot be compared. Where GITHUB_ACTIONS is
    set, each failure is an annotation too.

    \b
    Examples:
      theval regress runs/trusted --baseline baseline.json --update-baseline
      theval regress runs/change --baseline baseline.json
      theval regress runs/change --baseline baseline.json --config gate.toml --markdown gate.md --junit gate.xml
      theval regress runs/seed0 runs/seed1 runs/seed2 --baseline baseline.json --update-baseline
    """
    from reports import regression as report
    from thead_eval.baseline import is_compared, make_baseline, read_baseline, write_baseline
    from thead_eval.regression import judge, read_rules
    from thead_eval.results import read_measurements, read_run
    from thead_eval.texts import write_whole

    check_suffix(markdown, "--markdown", MARKDOWN)
    check_suffix(junit, "--junit", (".xml",))
    read = []
    for run in runs:
        record = read_run(run)
        if record.status != "complete":
            raise RunError(
                f"run '{run}' is not complete; give the same command again, which continues it, then regress"
            )
        read.append((record, read_measurements(run)))
    if update:
        if config or markdown or junit or despite:
            raise ConfigError(
                "--update-baseline compares nothing; leave out --config, --despite, --markdown and --junit"
            )
        if file.is_file() and not file.read_bytes().startswith(b'{\n"schema": '):
            raise ConfigError(f"'{file}' is a file that is there, and no baseline; name another with --baseline")
        baseline = make_baseline(read)
        write_baseline(file, baseline)
        click.echo(f"{file}: {len(baseline.numbers)} numbers, {file.stat().st_size / 1000:.0f} kB; commit it")
        return
    if len(read) > 1:
        raise ConfigError(f"{len(read)} runs were given; compare one, or make a baseline of all with --update-baseline")
    baseline = read_baseline(file)
    [(record, measurements)] = read
    names = [number.measurement.metric for number in baseline.numbers]
    names += [m.metric for m in measurements if is_compared(m)]
    judgement = judge(baseline, record, measurements, read_rules(config, list(dict.fromkeys(names))), despite)
    for path, text in ((markdown, report.write_markdown), (junit, report.write_junit)):
        if path:
            write_whole(path, text(judgement), "name another file")
    if as_json:
        click.echo(json.dumps(_as_json(judgement), indent=1, ensure_ascii=False))
    else:
        report.print_table(judgement)
    if os.environ.get("GITHUB_ACTIONS") == "true":
        for line in report.annotations(judgement, str(file)):
            click.echo(line, err=as_json)
    sys.exit(judgement.exit_code)


def _as_json(judgement: "Judgement") -> dict[str, object]:
    findings = [
        asdict(found) | {"change": found.change._asdict() if found.change else None} for found in judgement.findings
    ]
    return {
        "exit_code": judgement.exit_code,
        "not_comparable": list(judgement.differing),
        "also_differs": list(judgement.also),
        "compared": judgement.compared,
        "findings": findings,
    }
