"""The stages of a benchmark: commands of theval, each run again only where something that it is made of has changed.

RUN/bench.json   of each stage: what it was made of, by sha256, what came out, its hours and memory
RUN/logs/        what each command printed
RUN/NAME         what a stage made

A stage that was interrupted goes on, since every command does. One whose inputs have changed begins anew. Nothing here
decides when or where something runs, but for the order of the stages: a prefix may hand one to torchrun or srun.
"""

import ctypes
import fcntl
import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from signal import SIGKILL
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from thead_eval import plugins, weights
from thead_eval.errors import RunError
from thead_eval.results import write_json
from thead_eval.run import PACKAGES, package_versions
from thead_eval.weights import sha256_of

RUN = "{run}"  # the run folder, in arguments
NAME = "bench.json"
# Files of a package that change numbers or pages.
CODE = frozenset({".py", ".toml", ".safetensors", ".parquet", ".j2", ".css", ".js", ".html"})
WEIGHTS = "pretrained files"  # more of them add metrics to a run that is there
SIGNALS = (signal.SIGINT, signal.SIGTERM)
PATIENCE = 5.0  # seconds in which the processes of a command end after it
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # of <linux/prctl.h>

Status = Literal["done", "to do", "to continue", "changed", "waits"]


@dataclass(frozen=True)
class Stage:
    """A command, and what it makes of what."""

    name: str
    arguments: tuple[str, ...]  # of theval
    out: str  # the folder or file that it makes, in the run folder
    results: tuple[str, ...]  # of that, the files that say what came out, as patterns: what later stages go by
    needs: tuple[str, ...] = ()  # stages
    inputs: tuple[Path, ...] = ()  # files and folders elsewhere
    code: tuple[str, ...] = ()  # packages whose code it runs
    free: tuple[str, ...] = ()  # more arguments, which change no number: how many processes
    environment: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)  # in the run folder, written for it
    keeps: bool = False  # its command continues what is there, whatever has changed, or says why it cannot

    def command(self, run: Path) -> list[str]:
        """Its arguments in this run folder."""
        return [argument.replace(RUN, str(run)) for argument in (*self.arguments, *self.free)]


class Made(BaseModel):
    """What is known of a stage that was begun."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    command: list[str]
    inputs: dict[str, str]  # all that it is made of, by sha256
    results: str = ""  # sha256 of what came out; '' until it is done
    seconds: float = 0.0  # of all sittings
    cpu_seconds: float = 0.0
    peak_mb: float = 0.0  # the largest process


class Step(NamedTuple):
    """A stage, and what there is to do."""

    stage: Stage
    status: Status
    why: str  # it is to be run again
    made: Made | None


# What there is.


def read_made(run: Path) -> dict[str, Made]:
    """Of each stage that was begun in this run folder.

    Raises:
        RunError: the file is damaged.
    """
    path = run / NAME
    try:
        content = json.loads(path.read_text())
        return {name: Made.model_validate(row) for name, row in content["stages"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise RunError(f"'{path}' is damaged ({reason}); remove it to begin anew, or name another --out") from error


def look(stages: Sequence[Stage], run: Path) -> list[Step]:
    """Each stage with what there is to do. One that waits for another may turn out to be done, where that comes to the
    same again."""
    made, steps = read_made(run), dict[str, Step]()
    for stage in stages:
        known = made.get(stage.name)
        if any(steps[name].status != "done" for name in stage.needs):
            steps[stage.name] = Step(stage, "waits", "", known)
        else:
            steps[stage.name] = step_of(stage, run, made)
    return list(steps.values())


def step_of(stage: Stage, run: Path, made: Mapping[str, Made]) -> Step:
    """What there is to do for a stage of which all that it needs is done."""
    known = made.get(stage.name)
    if known is None:
        return Step(stage, "to do", "", None)
    inputs = inputs_of(stage, made)
    changed = sorted(name for name in inputs.keys() | known.inputs.keys() if inputs.get(name) != known.inputs.get(name))
    if changed:
        return Step(stage, "changed", ", ".join(changed), known)
    if not known.results:
        return Step(stage, "to continue", "", known)
    if known.results != digest(run, stage.results):
        return Step(stage, "changed", f"its files in '{stage.out}'", known)
    return Step(stage, "done", "", known)


def inputs_of(stage: Stage, made: Mapping[str, Made]) -> dict[str, str]:
    """All that a stage is made of, by sha256."""
    inputs = {
        "command": _hash(*stage.arguments, *map(str, sorted((stage.environment | stage.files).items()))),
        "packages": _hash(*(f"{name} {version}" for name, version in package_versions(PACKAGES).items())),
    }
    inputs |= {f"code of {package}": code_digest(package) for package in stage.code}
    if stage.code[1:]:  # networks run in all but the first stages
        inputs[WEIGHTS] = weights_digest()
        if offered := plugins.distributions():
            inputs["plug-ins"] = _hash(*(f"{name} {version}" for name, version in offered.items()))
    checkpoint = os.environ.get("THEVAL_CHECKPOINT")
    if checkpoint and "generator" in stage.code and "THEVAL_CHECKPOINT" not in stage.environment:
        inputs["checkpoint"] = path_digest(Path(checkpoint))
    inputs |= {f"stage {name}": made[name].results for name in stage.needs}
    inputs |= {str(path): path_digest(path) for path in stage.inputs}
    return inputs


def digest(run: Path, patterns: Sequence[str]) -> str:
    """Of the files that these patterns name; '' where one names none."""
    found = [sorted(run.glob(pattern)) for pattern in patterns]
    if not all(found):
        return ""
    return _hash(*(f"{path.relative_to(run)} {sha256_of(path)}" for paths in found for path in paths))


@cache
def path_digest(path: Path) -> str:
    """Of a file its content; of a prepared dataset its index; of another folder its files' names, sizes and times."""
    if path.is_file():
        return sha256_of(path)
    if (path / "dataset.json").exists():
        return _hash(*(sha256_of(path / name) for name in ("dataset.json", "clips.parquet")))
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return _hash(*(f"{file.relative_to(path)} {(s := file.stat()).st_size} {s.st_mtime_ns}" for file in files))


@cache
def code_digest(package: str) -> str:
    """Of a package's code, recipes and bundled weights; suites are not code."""
    spec = find_spec(package)
    assert spec is not None and spec.submodule_search_locations, f"{package} is a package of theval"
    folder = Path(spec.submodule_search_locations[0])
    files = sorted(file for file in folder.rglob("*") if file.suffix in CODE and file.parent.name != "suites")
    return _hash(*(f"{file.relative_to(folder)} {sha256_of(file)}" for file in files))


def weights_digest() -> str:
    """Of the pretrained files that are there; each is checked by its own sha256 when it is read."""
    files = sorted(file for file in weights.folder().glob("*") if file.is_file())
    return _hash(*(f"{file.name} {file.stat().st_size}" for file in files))


def _hash(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


# What is done.


class StageFailed(RunError):
    """A command ended with an error."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def run_stages(
    stages: Sequence[Stage],
    run: Path,
    about: Mapping[str, Any],  # Any: JSON
    only: str | None = None,
    prefixes: Mapping[str, Sequence[str]] | None = None,
    tell: Callable[[Step], None] = lambda step: None,
) -> list[Step]:
    """Run what is to be run, one stage after another; an interrupted call, made again, continues.

    Args:
        stages: In an order in which each comes after those that it needs.
        run: The run folder.
        about: What else bench.json says.
        only: One stage, all that it needs being done.
        prefixes: What starts a stage's command, by its name.
        tell: Is told of each stage before it is looked at or run.

    Raises:
        RunError: another process works in the folder, or it is damaged.
        StageFailed: a command ended with an error, all that does not need it being done; or, at once, by a signal.
    """
    steps = list[Step]()
    failed: StageFailed | None = None
    with _alone(run):
        made = read_made(run)
        for stage in stages:
            if only and stage.name != only:
                continue
            lacking = [name for name in stage.needs if name not in made or not made[name].results]
            if lacking and failed:
                continue
            if lacking:
                raise RunError(f"stage '{stage.name}' needs '{lacking[0]}', which is not done; run that first")
            step = step_of(stage, run, made)
            tell(step)
            if step.status != "done":
                if step.status == "changed" and step.why != WEIGHTS and not stage.keeps:
                    _remove(run / stage.out)
                known = step.made if step.status == "to continue" else None
                try:
                    made[stage.name] = _run_stage(stage, run, made, known, (prefixes or {}).get(stage.name, ()), about)
                except StageFailed as error:
                    if error.code > 128:
                        raise
                    failed = failed or error
                    continue
            steps.append(Step(stage, "done", step.why, made[stage.name]))
        _write(run, made, about)
    if failed:
        raise failed
    return steps


def _run_stage(
    stage: Stage,
    run: Path,
    made: dict[str, Made],
    known: Made | None,
    prefix: Sequence[str],
    about: Mapping[str, Any],  # Any: JSON
) -> Made:
    """Run a stage's command and write down what it took, also where it failed."""
    command = stage.command(run)
    begun = Made(command=["theval", *command], inputs=inputs_of(stage, made))
    if known:
        begun = begun.model_copy(update=known.model_dump(include={"seconds", "cpu_seconds", "peak_mb"}))
    made[stage.name] = begun
    _write(run, made, about)
    for name, text in stage.files.items():
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text(text)
    log = run / "logs" / f"{stage.name}.log"
    log.parent.mkdir(exist_ok=True)
    environment = {key: value.replace(RUN, str(run.resolve())) for key, value in stage.environment.items()}
    took = _call([*prefix, sys.executable, "-m", "thead_eval.cli", *command], os.environ | environment, log)
    ended = begun.model_copy(
        update={
            "seconds": round(begun.seconds + took.seconds, 1),
            "cpu_seconds": round(begun.cpu_seconds + took.cpu_seconds, 1),
            "peak_mb": round(max(begun.peak_mb, took.peak_mb)),
            "results": digest(run, stage.results) if took.code == 0 else "",
        }
    )
    made[stage.name] = ended
    _write(run, made, about)
    if took.code:
        code = took.code if took.code > 0 else 128 - took.code
        ending = f"was ended by signal {code - 128}" if code > 128 else f"ended with exit code {code}"
        raise StageFailed(f"stage '{stage.name}' {ending}; see '{log}', and run the same command again to go on", code)
    if not ended.results:
        missing = next(pattern for pattern in stage.results if not any(run.glob(pattern)))
        raise StageFailed(f"stage '{stage.name}' ended, and there is no '{run / missing}'; see '{log}'", 1)
    return ended


class Took(NamedTuple):
    """How a command ended, and what it took with all processes that it waited for."""

    code: int  # negative: the signal
    seconds: float
    cpu_seconds: float
    peak_mb: float


def _call(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Took:
    """Run a command to its end. It ends with this process, even when that is killed: two would write to one folder."""
    begin = time.monotonic()
    _prctl(PR_SET_CHILD_SUBREAPER, 1)  # to be told of what its processes took, which it does not wait for itself
    with log.open("ab") as out:
        # In a group of its own, so that Ctrl-C comes to it once: from here.
        process = subprocess.Popen(
            command, env=environment, stdout=out, process_group=0, preexec_fn=partial(_prctl, PR_SET_PDEATHSIG, SIGKILL)
        )
        before = {number: signal.signal(number, lambda n, _: process.send_signal(n)) for number in SIGNALS}
        try:
            _, status, usage = os.wait4(process.pid, 0)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    process.returncode = os.waitstatus_to_exitcode(status)  # it was waited for here
    ends = [usage, *_end_group(process.pid)]
    return Took(
        process.returncode,
        time.monotonic() - begin,
        sum(end.ru_utime + end.ru_stime for end in ends),
        max(end.ru_maxrss for end in ends) * 1024 / 1e6,
    )


def _end_group(group: int) -> Iterator[resource.struct_rusage]:
    """What the processes took that outlived their command; those that do not end by themselves are ended."""
    patient = time.monotonic() + PATIENCE
    while True:
        try:
            pid, _, usage = os.wait4(-group, os.WNOHANG)
        except ChildProcessError:
            return
        if pid:
            yield usage
        elif time.monotonic() > patient:
            os.killpg(group, SIGKILL)
            patient += PATIENCE
        else:
            time.sleep(0.02)


def _prctl(option: int, value: int) -> None:
    """Asks Linux for what it does to no other process: see prctl(2)."""
    ctypes.CDLL(None).prctl(option, value)


@contextmanager
def _alone(run: Path) -> Iterator[None]:
    """Held against other processes.

    Raises:
        RunError: one is at work there, or the folder holds something else or cannot be written.
    """
    if run.exists() and not (run / NAME).exists() and any(path.name != "lock" for path in run.iterdir()):
        raise RunError(f"'{run}' is not empty and not a benchmark's; name another folder with --out")
    try:
        run.mkdir(parents=True, exist_ok=True)
        lock = (run / "lock").open("w")
    except OSError as error:
        raise RunError(f"'{run}' cannot be written ({error.strerror}); name another folder with --out") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"another 'theval bench' works in '{run}'; wait for it, or name another --out") from None
        yield


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _write(run: Path, made: Mapping[str, Made], about: Mapping[str, Any]) -> None:  # Any: JSON
    write_json(run / NAME, {"schema": 1, **about, "stages": {name: row.model_dump() for name, row in made.items()}})
