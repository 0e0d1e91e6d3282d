"""theval bench: a whole benchmark by one command."""

import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import click

from benchmarks.stages import RUN, Stage, StageFailed, Step, look, run_stages
from benchmarks.suite import Suite, expand, read_suite, write_toml
from thead_eval import plugins
from thead_eval.errors import ConfigError
from thead_eval.recipes import check_name

# The packages whose code a stage runs.
CORE = ("thead_eval",)
MAKERS = (*CORE, "benchmarks", "generator")
JUDGES = (*CORE, "benchmarks", "detectors")
# What the bench says itself, so that a suite cannot.
FILLED = frozenset({"data", "out", "as_json", "device", "workers", "seed", "resume", "dry_run", "engine"})


@click.command(short_help="A whole benchmark: prepare, generate, score, train and judge detectors, report.")
@click.argument("suite")
@click.option("--data", type=click.Path(path_type=Path), help="Other data: a prepared dataset, or a folder of videos.")
@click.option("--out", type=click.Path(path_type=Path), help="The run folder. Default: runs/bench-SUITE.")
@click.option("--seed", "seeds", type=click.IntRange(0), multiple=True, help="In place of the suite's. Repeatable.")
@click.option("--device", default="cpu", show_default=True, help="Of the networks: cpu, cuda, cuda:1 ...")
@click.option("--workers", type=click.IntRange(1), help="Processes of the CPU stages. Default: one a core.")
@click.option("--ray", is_flag=True, help="Prepare on the Ray cluster that RAY_ADDRESS names.")
@click.option("--stage", help="Only this one; what it needs must be done.")
@click.option("--launch", multiple=True, metavar="STAGE=PREFIX", help="Start a stage's command by another. Repeatable.")
@click.option("--dry-run", is_flag=True, help="Print the plan with its hours and commands, and do nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan, or what was done, as JSON.")
def command(
    suite: str,
    data: Path | None,
    out: Path | None,
    seeds: tuple[int, ...],
    device: str,
    workers: int | None,
    ray: bool,
    stage: str | None,
    launch: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
) -> None:
    """Run a SUITE, one of ours or your own TOML file, into one folder with one report.

    \b
      quick   procedural heads, made on the spot: minutes, no data, no download
      clips   your clips, by the bundled generator and detectors (THEVAL_DATA, or --data)
      paper   Table 1 of Zakharov et al. 2019 on VoxCeleb: days of GPUs (VOXCELEB, or --data)

    Every stage is a command of theval, which --dry-run prints. A stage is run again only where something that it is
    made of has changed: its command, its input, the code, a package. Interrupted or killed, the same command goes on.

    \b
    Examples:
      theval bench quick
      theval bench clips --data dataset/ --out runs/clips
      theval bench paper --dry-run
      theval bench paper --launch train="torchrun --nproc-per-node 8 --no-python" --device cuda
      theval bench mine.toml --stage score
    """
    asked = read_suite(suite)
    asked = asked.on(data) if data else asked
    stages = plan(asked, seeds or asked.seeds, device, workers or len(os.sched_getaffinity(0)), ray)
    known = [each.name for each in stages]
    prefixes = {}
    for text in launch:
        name, _, prefix = text.partition("=")
        _check_stage(name, known, "--launch")
        prefixes[name] = shlex.split(prefix)
    if stage:
        _check_stage(stage, known, "--stage")
    run = out or Path("runs") / f"bench-{asked.name}"
    of_seeds = {f"{name}-{seed}": value for name, value in asked.hours.items() for seed in seeds or asked.seeds}
    hours = {**of_seeds, **asked.hours}
    if dry_run:
        steps = look(stages, run)
        if as_json:
            click.echo(json.dumps([_row(step, run, hours) for step in steps], indent=1))
        else:
            _print_plan(asked, steps, run, prefixes, hours)
        return
    about = {"suite": asked.name, "about": asked.about, "seeds": list(seeds or asked.seeds), "device": device}
    try:
        steps = run_stages(stages, run, about, stage, prefixes, partial(_tell, of=len(known), names=known))
    except StageFailed as error:
        click.echo(f"theval: error: {error}", err=True)
        sys.exit(error.code if error.code > 128 else 1)
    index = None if stage else _write_index(asked, steps, run)
    if as_json:
        click.echo((run / "bench.json").read_text(), nl=False)
        return
    _print_done(steps)
    if index:
        click.echo(f"Report: {index.resolve()}")


def _check_stage(name: str, known: Sequence[str], option: str) -> None:
    if name not in known:
        raise ConfigError(f"{option}: there is no stage '{name}'; this suite has {', '.join(known)}")


# The plan.


class Options(NamedTuple):
    """A section of a suite as arguments of its command."""

    words: tuple[str, ...]
    inputs: tuple[Path, ...]  # files and folders among them
    files: dict[str, str]  # to be written into the run folder


def plan(suite: Suite, seeds: Sequence[int], device: str, workers: int, ray: bool) -> list[Stage]:
    """The stages of a suite, each after those that it needs.

    Raises:
        ConfigError: the suite has no data, or a command would not take what it says.
    """
    on, free = ("--device", device), ("--workers", str(workers))
    stages, dataset = _data_stages(suite, free, ray)
    of_data = ("--data", dataset)
    ready = tuple(stage.name for stage in stages[-1:])
    given = () if ready else (Path(dataset),)
    environment = dict[str, str]()
    if "train" in suite.commands:
        options = _options("train", suite)
        words = ("train", *of_data, "-o", f"{RUN}/train", "--resume", "--seed", str(seeds[0]), *on, *options.words)
        stages.append(_stage("train", words, ("best.safetensors",), ready, given, options, keeps=True))
        ready, environment = (*ready, "train"), {"THEVAL_CHECKPOINT": f"{RUN}/train/best.safetensors"}
    scores, judgements = list[Stage](), list[Stage]()
    for seed in seeds:
        mark, common = (f"-{seed}" if len(seeds) > 1 else ""), ("--seed", str(seed), *on)
        if "score" in suite.commands:
            name, options = f"score{mark}", _options("score", suite)
            words = ("score", *of_data, "--out", f"{RUN}/{name}", *common, *options.words)
            code = (*MAKERS, "detectors")
            scores.append(_stage(name, words, ["measurements.json"], ready, given, options, code, free, environment))
        # Without fakes of its own, a prepared dataset holds both: a benchmark that was imported.
        evidence, needs = ["--fakes", dataset], ready
        if "generate" in suite.commands:
            name, options = f"fakes{mark}", _options("generate", suite, {"split": "all"})
            words = ("generate", *of_data, "-o", f"{RUN}/{name}", *common, *options.words)
            judgements.append(_stage(name, words, ("manifest.csv",), ready, given, options, MAKERS, free, environment))
            evidence, needs = [*of_data, "--fakes", f"{RUN}/{name}"], (*ready, name)
        for label in suite.evals:
            name, options = f"{label}{mark}", _options("detect.eval", suite, label=label)
            judge = ("detect", "eval", *evidence, "--out", f"{RUN}/{name}", *common, *options.words)
            results = ("measurements.json", "scores.parquet")
            judgements.append(_stage(name, judge, results, needs, given, options, JUDGES))
    stages += [*scores, *_page("report", scores), *judgements]
    stages += _page("detectors", [stage for stage in judgements if stage.arguments[0] == "detect"])
    _check_names([stage.name for stage in stages], suite)
    for stage in stages:
        _check(stage, suite)
    return stages


def _data_stages(suite: Suite, free: tuple[str, ...], ray: bool) -> tuple[list[Stage], str]:
    """The stages that make the dataset, none where there is one, and its place."""
    if suite.dataset:
        return [], _place(suite.dataset, suite, "dataset")
    sections, src, stages = suite.commands, suite.commands.get("prepare", {}).get("src"), list[Stage]()
    listed: tuple[str, ...] = ()
    if "heads" in sections:
        options = _options("heads", suite)
        stages.append(_stage("videos", ("heads", f"{RUN}/videos", *options.words), ("*.mp4",), (), (), options, CORE))
        src = f"{RUN}/videos"
    elif "import" in sections:
        options = _options("import", suite, without=("layout", "folder"))
        layout, folder = (str(sections["import"].get(key, "")) for key in ("layout", "folder"))
        src = _place(folder, suite, "[import] folder")
        listed = ("--manifest", f"{RUN}/manifest.csv")
        words = ("import", layout, src, "-o", f"{RUN}/manifest.csv", *options.words)
        stages.append(_stage("manifest.csv", words, (), (), (Path(src),), options, CORE))
    elif src:
        src = _place(str(src), suite, "[prepare] src")
    else:
        raise ConfigError(f"suite '{suite.name}' has no data; give [heads], [import] or [prepare] src, or pass --data")
    options = _options("prepare", suite, without=("src",))
    words = ("prepare", src, f"{RUN}/dataset", *listed, *options.words)
    given = () if "heads" in sections else (Path(src),)
    needs = tuple(stage.name for stage in stages)
    free = (*free, *(("--engine", "ray") if ray else ()))
    results = ("dataset.json", "clips.parquet")
    return [*stages, _stage("dataset", words, results, needs, given, options, CORE, free)], f"{RUN}/dataset"


def _stage(
    name: str,
    words: Sequence[str],
    results: Sequence[str],
    needs: tuple[str, ...],
    given: tuple[Path, ...],
    options: Options,
    code: tuple[str, ...] = (),
    free: tuple[str, ...] = (),
    environment: dict[str, str] | None = None,
    keeps: bool = False,
) -> Stage:
    """A stage that makes the folder, or without `results` the file, of its name."""
    files = tuple(f"{name}/{result}" for result in results) or (name,)
    inputs = (*given, *options.inputs)
    return Stage(name, tuple(words), name, files, needs, inputs, code, free, environment or {}, options.files, keeps)


def _page(name: str, runs: Sequence[Stage]) -> list[Stage]:
    """A report of these runs, if there are any."""
    if not runs:
        return []
    words = ("report", *(f"{RUN}/{run.name}" for run in runs), "-o", f"{RUN}/{name}.html")
    needs = tuple(run.name for run in runs)
    return [_stage(f"{name}.html", words, (), needs, (), Options((), (), {}), ("thead_eval", "reports"))]


def _check_names(names: Sequence[str], suite: Suite) -> None:
    for name in names:
        if names.count(name) > 1 or name in ("logs", "recipes", "lock") or Path(name).name != name:
            raise ConfigError(f"suite '{suite.name}': [eval.{name}] has the name of another stage or folder; change it")


def _options(
    name: str,
    suite: Suite,
    default: Mapping[str, Any] | None = None,  # Any: TOML
    *,
    label: str = "",
    without: Sequence[str] = (),
) -> Options:
    """The arguments that a section stands for, but for some keys.

    Raises:
        ConfigError: the command has no such option, or the bench says it itself.
    """
    section = f"[eval.{label}]" if label else f"[{name}]"
    given = dict(default or {}) | dict(suite.evals[label] if label else suite.commands.get(name, {}))
    known = {_key(parameter): parameter for parameter in _command(name).params if parameter.name not in FILLED}
    words, inputs, files = list[str](), list[Path](), dict[str, str]()
    for key, value in given.items():
        check_name(key, known, f"suite '{suite.name}': {section} has an unknown key")
        parameter = known[key]
        if key in without:
            continue
        if isinstance(value, bool):
            words += parameter.opts[:1] if value else parameter.secondary_opts[:1]
            continue
        if key == "config" and isinstance(value, dict):
            files[f"recipes/{label or name}.toml"] = write_toml(value)
            words += [parameter.opts[0], f"{RUN}/recipes/{label or name}.toml"]
            continue
        values = [str(each) for each in value] if isinstance(value, list) else [str(value)]
        if isinstance(parameter.type, click.Path):
            values = [_place(each, suite, f"{section} {key}") for each in values]
        elif key == "detector" and "protocol" not in given:  # for a protocol, kinds are named
            values = [_detector(each, suite, f"{section} {key}") for each in values]
        inputs += [Path(each) for each in values if os.sep in each and Path(each).exists()]
        if parameter.multiple:
            words += [word for each in values for word in (parameter.opts[0], each)]
        else:
            words += [parameter.opts[0], ",".join(values)]
    return Options(tuple(words), tuple(inputs), files)


def _key(parameter: click.Parameter) -> str:
    """What a suite calls an option: as the command line does, without dashes."""
    return parameter.opts[0].lstrip("-").replace("-", "_")


def _place(value: str, suite: Suite, where: str) -> str:
    """A path of a suite, which is relative to its file."""
    place = suite.folder / expand(value, f"{where} of suite '{suite.name}'")
    if not value or not place.exists():
        raise ConfigError(f"{where} of suite '{suite.name}': there is no '{place}'; correct it, or pass --data")
    return str(place)


def _detector(value: str, suite: Suite, where: str) -> str:
    """A detector's name; or its file or folder, relative to the suite's file or else to here."""
    value = expand(value, f"{where} of suite '{suite.name}'")
    if value in plugins.available("detector"):
        return value
    places = (suite.folder / value, Path(value).resolve())
    return next((str(place) for place in places if place.exists()), value)


def _command(name: str) -> click.Command:
    command = import_module(f"thead_eval.cli.{name}").command
    assert isinstance(command, click.Command)
    return command


def _check(stage: Stage, suite: Suite) -> None:
    """Let the command read its arguments, so that a wrong one is told now and not after hours.

    Raises:
        ConfigError: it does not take them.
    """
    verb = 2 if stage.arguments[0] == "detect" else 1
    try:
        _command(".".join(stage.arguments[:verb])).make_context(stage.name, [*stage.arguments[verb:], *stage.free])
    except click.UsageError as error:
        raise ConfigError(f"suite '{suite.name}', stage '{stage.name}': {error.format_message()}") from None


# What is told.


def _row(step: Step, run: Path, hours: Mapping[str, float]) -> dict[str, object]:
    took = step.made.seconds / 3600 if step.made and step.made.results else hours.get(step.stage.name)
    return {
        "stage": step.stage.name,
        "status": step.status,
        "changed": step.why,
        "hours": took,
        "measured": bool(step.made and step.made.results),
        "needs": list(step.stage.needs),
        "command": shlex.join(["theval", *step.stage.command(run)]),
    }


def _print_plan(
    suite: Suite,
    steps: Sequence[Step],
    run: Path,
    prefixes: Mapping[str, Sequence[str]],
    hours_of: Mapping[str, float],
) -> None:
    from rich.markup import escape
    from rich.table import Table

    from thead_eval.cli.console import results_console

    console = results_console()
    table = Table(title=escape(f"{suite.name}: {suite.about}"), caption=f"in {run}; * as measured there")
    for heading in ("stage", "needs", "status"):
        table.add_column(heading)
    table.add_column("hours", justify="right")
    left, unknown = 0.0, list[str]()
    for step in steps:
        row = _row(step, run, hours_of)
        hours = row["hours"]
        status = f"{step.status}: {step.why}" if step.why else step.status
        told = "?" if hours is None else f"{hours:.2g}{'*' * bool(row['measured'])}"
        table.add_row(step.stage.name, " ".join(step.stage.needs), status, told)
        if step.status != "done":
            left += hours if isinstance(hours, float) else 0.0
            unknown += [step.stage.name] if hours is None else []
    console.print(table)
    known = f"{left:.2f} hours" if left or not unknown else ""
    unmeasured = f"{', '.join(unknown)}, not measured on these data yet" if unknown else ""
    told = ", and ".join(part for part in (known, unmeasured) if part)
    console.print(f"Left to do: {told}{f', on {suite.machine}' if suite.machine else ''}.", highlight=False)
    for step in steps:
        prefix = [*prefixes.get(step.stage.name, ()), "theval"]
        click.echo(shlex.join([*prefix, *step.stage.command(run)]))


def _tell(step: Step, of: int, names: Sequence[str]) -> None:
    """A line above each stage, on stderr."""
    why = {"done": "unchanged", "changed": f"again, as there changed: {step.why}"}.get(step.status, step.status)
    click.echo(f"[{names.index(step.stage.name) + 1}/{of}] {step.stage.name}: {why}", err=True)


def _print_done(steps: Sequence[Step]) -> None:
    from rich.table import Table

    from thead_eval.cli.console import results_console

    table = Table("stage", "seconds", "CPU seconds", "peak memory")
    for column in table.columns[1:]:
        column.justify = "right"
    for step in steps:
        if step.made:
            peak = f"{step.made.peak_mb / 1000:.1f} GB"
            table.add_row(step.stage.name, f"{step.made.seconds:.0f}", f"{step.made.cpu_seconds:.0f}", peak)
    results_console().print(table)


def _write_index(suite: Suite, steps: Sequence[Step], run: Path) -> Path:
    """RUN/index.html, which leads to the reports."""
    from reports.index import Page, Row, write_index

    titles = {"report.html": "How real the fakes are", "detectors.html": "Whether detectors tell them apart"}
    pages = [
        Page(step.stage.out, titles[step.stage.out], tuple(run / name for name in step.stage.needs))
        for step in steps
        if step.stage.out in titles
    ]
    rows = [
        Row(step.stage.name, shlex.join(made.command), made.seconds, made.cpu_seconds, made.peak_mb)
        for step in steps
        if (made := step.made)
    ]
    write_index(suite.name, suite.about, pages, rows, run / "index.html")
    return run / "index.html"
