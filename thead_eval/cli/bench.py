"""theval bench: a whole benchmark by one command."""

import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from thead_eval.errors import ConfigError

if TYPE_CHECKING:
    from benchmarks.stages import Stage, Step
    from benchmarks.suite import Suite

RUN = "{run}"  # benchmarks.stages.RUN, which is not imported for --help
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
    from benchmarks.stages import StageFailed, look, run_stages
    from benchmarks.suite import read_suite

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
    if dry_run:
        steps = look(stages, run)
        estimates = estimate(asked, stages)
        if as_json:
            click.echo(json.dumps([_row(step, run, estimates) for step in steps], indent=1))
        else:
            _print_plan(asked, steps, run, estimates, prefixes)
        return
    about = {"suite": asked.name, "about": asked.about, "seeds": list(seeds or asked.seeds), "device": device}
    try:
        steps = run_stages(stages, run, about, stage, prefixes, partial(_tell, of=len(known), names=known))
    except StageFailed as error:
        click.echo(f"theval: error: {error}", err=True)
        sys.exit(error.code if error.code > 128 else 1)
    pages = _write_index(asked, steps, run) if not stage else []
    if as_json:
        click.echo((run / "bench.json").read_text(), nl=False)
        return
    _print_done(steps)
    for page in pages:
        click.echo(f"Report: {page.resolve()}")


def _check_stage(name: str, known: Sequence[str], option: str) -> None:
    if name not in known:
        raise ConfigError(f"{option}: there is no stage '{name}'; this suite has {', '.join(known)}")


# The plan.


def plan(suite: "Suite", seeds: Sequence[int], device: str, workers: int, ray: bool) -> list["Stage"]:
    """The stages of a suite, each after those that it needs.

    Raises:
        ConfigError: the suite has no data, or a command would not take what it says.
    """
    from benchmarks.stages import Stage
    from benchmarks.suite import expand

    sections, stages = suite.commands, list[Stage]()
    processes, on = ("--workers", str(workers)), ("--device", device)
    videos: tuple[str, ...] = ()  # the stage that makes them
    if "heads" in sections:
        options = _options("heads", sections["heads"], suite)
        stages.append(Stage("heads", ("heads", f"{RUN}/videos", *options.words), "videos", ("videos/*.mp4",),
                            code=("thead_eval",)))  # fmt: skip
        videos = ("heads",)
    if suite.dataset:
        dataset, ready = expand(suite.dataset, f"dataset of suite '{suite.name}'"), ()
        given = (Path(dataset),)
    elif "prepare" in sections or videos:
        asked = dict(sections.get("prepare", {}))
        if not videos and "src" not in asked:
            raise ConfigError(f"suite '{suite.name}': [prepare] names no src, the folder of videos; add it, or [heads]")
        src = f"{RUN}/videos" if videos else _place(str(asked.pop("src")), suite, "[prepare] src")
        options = _options("prepare", asked, suite)
        dataset, ready, given = f"{RUN}/dataset", ("prepare",), ()
        inputs = options.inputs if videos else (Path(src), *options.inputs)
        results = ("dataset/dataset.json", "dataset/clips.parquet")
        words = ("prepare", src, dataset, *options.words)
        free = (*processes, *(("--engine", "ray") if ray else ()))
        stages.append(Stage("prepare", words, "dataset", results, videos, inputs, ("thead_eval",), free))
    else:
        raise ConfigError(f"suite '{suite.name}' has no data; add [heads], [prepare] with src, or pass --data")
    of_data = ("--data", dataset)
    environment: dict[str, str] = {}
    if "train" in sections:
        options = _options("train", sections["train"], suite)
        words = ("train", *of_data, "-o", f"{RUN}/train", "--resume", "--seed", str(seeds[0]), *on, *options.words)
        stages.append(
            Stage("train", words, "train", ("train/best.safetensors",), ready, (*given, *options.inputs),
                  files=options.files, keeps=True)
        )  # fmt: skip
        environment, ready = {"THEVAL_CHECKPOINT": f"{RUN}/train/best.safetensors"}, (*ready, "train")
    scored, judged = [], []
    for seed in seeds:
        mark, seeded = (f"-{seed}" if len(seeds) > 1 else ""), ("--seed", str(seed))
        fakes = f"generate{mark}"
        if "generate" in sections:
            options = _options("generate", {"split": "all"} | dict(sections["generate"]), suite)
            words = ("generate", *of_data, "-o", f"{RUN}/fakes{mark}", *seeded, *on, *options.words)
            stages.append(
                Stage(fakes, words, f"fakes{mark}", (f"fakes{mark}/manifest.csv",), ready, (*given, *options.inputs),
                      ("thead_eval", "benchmarks", "generator"), processes, environment, options.files)
            )  # fmt: skip
        if "score" in sections:
            options = _options("score", sections["score"], suite)
            words = ("score", *of_data, "--out", f"{RUN}/score{mark}", *seeded, *on, *options.words)
            name = f"score{mark}"
            stages.append(
                Stage(name, words, name, (f"{name}/measurements.json",), ready, (*given, *options.inputs),
                      ("thead_eval", "benchmarks", "generator", "detectors"), processes, environment, options.files)
            )  # fmt: skip
            scored.append(name)
        for label, said in suite.evals.items():
            name = f"{label}{mark}"
            options = _options("detect.eval", said, suite, label)
            made = ((*of_data, "--fakes", f"{RUN}/fakes{mark}") if "generate" in sections else ("--fakes", dataset))
            words = ("detect", "eval", *made, "--out", f"{RUN}/{name}", *seeded, *on, *options.words)
            needs = (*ready, *((fakes,) if "generate" in sections else ()))
            stages.append(
                Stage(name, words, name, (f"{name}/measurements.json", f"{name}/scores.parquet"), needs,
                      (*given, *options.inputs), ("thead_eval", "benchmarks", "detectors"), (), {}, options.files)
            )  # fmt: skip
            judged.append(name)
    for page, runs in (("report", scored), ("detectors", judged)):
        if runs:
            words = ("report", *(f"{RUN}/{name}" for name in runs), "-o", f"{RUN}/{page}.html")
            code = ("thead_eval", "reports")
            stages.append(Stage(page, words, f"{page}.html", (f"{page}.html",), tuple(runs), (), code))
    names = [stage.name for stage in stages]
    for name in judged:
        if names.count(name) > 1 or name in ("videos", "dataset", f"fakes{mark}", "logs", "recipes"):
            raise ConfigError(f"suite '{suite.name}': [eval.{name}] has the name of another stage or folder; change it")
    for each in stages:
        _check(each, suite)
    return stages


class Options(NamedTuple):
    """A section of a suite as arguments of its command."""

    words: tuple[str, ...]
    inputs: tuple[Path, ...]  # files and folders among them
    files: dict[str, str]  # to be written into the run folder


def _options(name: str, given: Mapping[str, Any], suite: "Suite", label: str = "") -> Options:  # Any: TOML
    """The arguments that a section stands for.

    Raises:
        ConfigError: the command has no such option, or the bench says it itself.
    """
    from benchmarks.suite import write_toml
    from thead_eval.recipes import check_name

    section = f"[eval.{label}]" if label else f"[{name}]"
    known = {opt.lstrip("-").replace("-", "_"): parameter for parameter in _command(name).params
             for opt in parameter.opts if parameter.name not in FILLED}  # fmt: skip
    words, inputs, files = list[str](), list[Path](), dict[str, str]()
    for key, value in given.items():
        check_name(key, known, f"suite '{suite.name}': {section} has an unknown key")
        parameter = known[key]
        option = parameter.opts[0]
        if isinstance(value, bool):
            words += [option] if value else [f"--no-{option.removeprefix('--')}"] if parameter.secondary_opts else []
            continue
        if key == "config" and isinstance(value, dict):
            value = f"{RUN}/recipes/{label or name}.toml"
            files[value.removeprefix(f"{RUN}/")] = write_toml(given[key])
        values = [str(each) for each in value] if isinstance(value, list) else [str(value)]
        if isinstance(parameter.type, click.Path) and key not in files and not files:
            values = [_place(each, suite, f"{section} {key}") for each in values]
        inputs += [Path(each) for each in values if os.sep in each and Path(each).exists()]
        if parameter.multiple:
            words += [word for each in values for word in (option, each)]
        else:
            words += [option, ",".join(values)]
    return Options(tuple(words), tuple(inputs), files)


def _place(value: str, suite: "Suite", where: str) -> str:
    """A path of a suite, which is relative to its file."""
    from benchmarks.suite import expand

    place = suite.folder / expand(value, f"{where} of suite '{suite.name}'")
    if not place.exists():
        raise ConfigError(f"{where} of suite '{suite.name}': there is no '{place}'; correct it, or pass --data")
    return str(place)


def _command(name: str) -> click.Command:
    command = import_module(f"thead_eval.cli.{name}").command
    assert isinstance(command, click.Command)
    return command


def _check(stage: "Stage", suite: "Suite") -> None:
    """Let the command read its arguments, so that a wrong one is told now and not after hours.

    Raises:
        ConfigError: it does not take them.
    """
    verb = 2 if stage.arguments[0] == "detect" else 1
    try:
        _command(".".join(stage.arguments[:verb])).make_context(stage.name, [*stage.arguments[verb:], *stage.free])
    except click.UsageError as error:
        raise ConfigError(f"suite '{suite.name}', stage '{stage.name}': {error.format_message()}") from None


# Hours.


# Seconds of one core, as measured on the procedural heads of 'quick' with the CPU builds of torch.
SECONDS = {"heads": 0.02, "prepare": 0.05, "generate": 1.0, "score": 2.0, "eval": 60.0, "report": 10.0}


def estimate(suite: "Suite", stages: Sequence["Stage"]) -> dict[str, float]:
    """Hours of the stages of which something is known: what the suite says."""
    return {stage.name: suite.hours[stage.name] for stage in stages if stage.name in suite.hours}


# What is told.


def _row(step: "Step", run: Path, estimates: Mapping[str, float]) -> dict[str, object]:
    hours = step.made.seconds / 3600 if step.made and step.made.results else estimates.get(step.stage.name)
    return {
        "stage": step.stage.name,
        "status": step.status,
        "changed": step.why,
        "hours": hours,
        "measured": bool(step.made and step.made.results),
        "needs": list(step.stage.needs),
        "command": shlex.join(["theval", *step.stage.command(run)]),
    }


def _print_plan(
    suite: "Suite",
    steps: Sequence["Step"],
    run: Path,
    estimates: Mapping[str, float],
    prefixes: Mapping[str, Sequence[str]],
) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(title=f"{suite.name}: {suite.about}", caption=f"in {run}; * as measured there")
    for heading in ("stage", "needs", "status"):
        table.add_column(heading)
    table.add_column("hours", justify="right")
    left, unknown = 0.0, list[str]()
    for step in steps:
        row = _row(step, run, estimates)
        hours = row["hours"]
        status = f"{step.status}: {step.why}" if step.why else step.status
        told = "?" if hours is None else f"{hours:.2f}{'*' * bool(row['measured'])}"
        table.add_row(step.stage.name, " ".join(step.stage.needs), status, told)
        if step.status != "done":
            left += hours if isinstance(hours, float) else 0.0
            unknown += [step.stage.name] if hours is None else []
    console.print(table)
    console.print(
        f"Left to do: {left:.2f} hours" + (f", and {', '.join(unknown)}" if unknown else "")
        + (f", on {suite.machine}." if suite.machine else "."), highlight=False
    )  # fmt: skip
    for step in steps:
        prefix = [*prefixes.get(step.stage.name, ()), "theval"]
        click.echo(shlex.join([*prefix, *step.stage.command(run)]))


def _tell(step: "Step", of: int, names: Sequence[str]) -> None:
    """A line above each stage, on stderr."""
    why = {"done": "unchanged", "changed": f"again, as there changed: {step.why}"}.get(step.status, step.status)
    click.echo(f"[{names.index(step.stage.name) + 1}/{of}] {step.stage.name}: {why}", err=True)


def _print_done(steps: Sequence["Step"]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("stage", "seconds", "CPU seconds", "peak memory")
    for column in table.columns[1:]:
        column.justify = "right"
    for step in steps:
        if step.made:
            peak = f"{step.made.peak_mb / 1000:.1f} GB"
            table.add_row(step.stage.name, f"{step.made.seconds:.0f}", f"{step.made.cpu_seconds:.0f}", peak)
    Console().print(table)


def _write_index(suite: "Suite", steps: Sequence["Step"], run: Path) -> list[Path]:
    return [run / page for page in ("report.html", "detectors.html") if (run / page).exists()]
