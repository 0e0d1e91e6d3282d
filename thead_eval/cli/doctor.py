"""theval doctor: what works on this machine, and what would make the rest work."""

import dataclasses
import json
import os
import platform
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, packages_distributions, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

import click
from packaging.requirements import Requirement

from thead_eval import __version__, weights
from thead_eval.cli.list import entries
from thead_eval.errors import PluginError
from thead_eval.plugins import Kind
from thead_eval.weights import TABLE, State

OUR_NAMES = ("thead_eval", "generator", "detectors", "benchmarks", "reports")

# Why a version is not accepted, where the bound alone says too little.
REASONS = {
    "scipy": "pytorch-fid calls sqrtm(disp=...), which SciPy 1.18 removed",
    "facenet-pytorch": "2.6.0 forces torch below 2.3",
}

# What `thead_eval.faces` can be asked for, and the files that it reads.
BACKENDS = {
    "dlib faces": (),
    "mtcnn faces": ("mtcnn_pnet", "mtcnn_rnet", "mtcnn_onet"),
    "dlib landmarks": ("dlib_68",),
    "fan landmarks": ("fan_2dfan4",),
}

# What `thead_eval.media` reads fakes and videos with, and writes them with.
CODECS: tuple[tuple[str, Literal["r", "w"]], ...] = (("h264", "r"), ("ffv1", "r"), ("ffv1", "w"), ("libx264", "w"))


@dataclass(frozen=True)
class Part:
    """A metric, feature network, generator, detector or face backend, and whether it works here, offline."""

    kind: str
    name: str
    package: str
    works: bool
    needs: tuple[str, ...]  # pretrained files that are missing or corrupt
    command: str | None  # what would make it work
    error: str | None  # it does not even import


@dataclass(frozen=True)
class Findings:
    """All that the doctor saw. Healthy is: no problems; missing weights are none."""

    theval: str
    python: str
    platform: str
    packages: dict[str, str | None]  # installed version of each package that theval depends on
    cpu_threads: int
    cpu_cores: int
    cuda: list[str]  # names of the devices
    names: dict[str, str | None]  # each of our five packages, and the folder that it is imported from
    codecs: dict[str, bool]
    weights_folder: str
    weights: dict[str, State]
    parts: list[Part]
    problems: list[str]


@click.command()
@click.option("--verify", is_flag=True, help="Read every pretrained file and compare its checksum, not only its size.")
@click.option("--json", "as_json", is_flag=True, help="Print every finding as JSON.")
def command(verify: bool, as_json: bool) -> None:
    """Versions, device, and what works here without a network, metric by metric.

    Exit code 0 when the core works; metrics that wait for pretrained files are no fault. Exit code 1 when a package is
    missing or too new, one of theval's package names is taken by another, or a pretrained file is damaged.

    \b
    Examples:
      theval doctor
      theval doctor --verify
      theval doctor --json | jq -r '.parts[] | select(.works | not) | .command' | sort -u
    """
    findings = examine(verify)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(findings), indent=1))
    else:
        show(findings)
    if findings.problems:
        sys.exit(1)


def examine(verify: bool) -> Findings:
    """Look at this machine; imports every metric and generator, downloads nothing."""
    import torch

    problems: list[str] = []
    packages = installed_packages(problems)
    names = our_names(problems)
    codecs = video_codecs(problems)
    states = {name: weights.state(weight, thorough=verify) for name, weight in TABLE.items()}
    for name, state in states.items():
        if state == "corrupt" or (state == "missing" and TABLE[name].package):
            problems.append(
                f"{name} ('{weights.location(TABLE[name])}') is {state}; run '{weights.remedy(TABLE[name])}'"
            )
    return Findings(
        theval=__version__,
        python=platform.python_version(),
        platform=platform.platform(),
        packages=packages,
        cpu_threads=torch.get_num_threads(),
        cpu_cores=len(os.sched_getaffinity(0)),
        cuda=[torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        names=names,
        codecs=codecs,
        weights_folder=str(weights.folder()),
        weights=states,
        parts=all_parts(states, problems),
        problems=problems,
    )


def installed_packages(problems: list[str]) -> dict[str, str | None]:
    """The version of each package that theval requires; versions that do not fit are problems."""
    try:
        lines = requires("theval") or []
    except PackageNotFoundError:
        problems.append("theval itself is not installed, only found; run 'pip install .' in its folder")
        return {}
    found: dict[str, str | None] = {}
    for requirement in map(Requirement, lines):
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue  # of an extra
        name = requirement.name
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
            problems.append(f"{name} is not installed; run 'pip install \"{name}{requirement.specifier}\"'")
            continue
        if not requirement.specifier.contains(version(name), prereleases=True):
            reason = f" ({REASONS[name]})" if name in REASONS else ""
            problems.append(
                f"{name} {version(name)} is installed, theval needs {requirement.specifier}{reason}; "
                f"run 'pip install \"{name}{requirement.specifier}\"'"
            )
    return found


def our_names(problems: list[str]) -> dict[str, str | None]:
    """Where each of theval's five packages is imported from; another's package of that name is a problem."""
    home = Path(weights.__file__).parents[1]
    owners = packages_distributions()
    found: dict[str, str | None] = {}
    for name in OUR_NAMES:
        spec = find_spec(name)
        folders = list(spec.submodule_search_locations or []) if spec else []
        found[name] = folders[0] if folders else spec.origin if spec else None
        others = sorted(set(owners.get(name, [])) - {"theval"})
        if found[name] is None:
            problems.append(f"the package '{name}' of theval is not found; install theval again")
        elif Path(str(found[name])) != home / name:
            problems.append(
                f"the name '{name}' leads to '{found[name]}', not to theval's '{home / name}'; take that folder off "
                f"PYTHONPATH{f', or uninstall {others[0]}' if others else ''}"
            )
        elif others:
            problems.append(
                f"the package {others[0]} also installs a package named '{name}', into theval's; uninstall {others[0]} "
                "and install theval again"
            )
    return found


def video_codecs(problems: list[str]) -> dict[str, bool]:
    """Which of the codecs that theval uses PyAV has; one without them is a problem."""
    import av

    found: dict[str, bool] = {}
    for name, mode in CODECS:
        label = f"{name} ({'reading' if mode == 'r' else 'writing'})"
        try:
            av.codec.Codec(name, mode)
            found[label] = True
        except av.codec.codec.UnknownCodecError:
            found[label] = False
            problems.append(f"PyAV {av.__version__} has no {label}; run 'pip install --force-reinstall av'")
    return found


def all_parts(states: dict[str, State], problems: list[str]) -> list[Part]:
    """Every metric, feature network, generator, detector and face backend."""
    found = [part("face backend", name, "theval", needs, None, states) for name, needs in BACKENDS.items()]
    for kind in get_args(Kind):
        try:
            for entry in entries(kind):
                found.append(part(kind, entry.name, entry.package, entry.weights, entry.error, states))
                if entry.error and entry.package == "theval":
                    problems.append(f"{kind} '{entry.name}' does not import: {entry.error}")
        except PluginError as error:  # a name taken twice: no command that looks names up works
            problems.append(str(error))
    return found


def part(
    kind: str, name: str, package: str, wanted: tuple[str, ...], error: str | None, states: dict[str, State]
) -> Part:
    """One part, with the weights that it waits for; a plug-in's own files, which TABLE has not, are not looked at."""
    needs = tuple(need for need in wanted if states.get(need, "present") != "present")
    fetched = [need for need in needs if not TABLE[need].package]
    command = weights.remedy(TABLE[needs[0]]) if needs else None
    if fetched:
        command = f"theval weights fetch {' '.join(fetched)}"
    return Part(kind, name, package, not needs and error is None, needs, command, error)


def show(findings: Findings) -> None:
    """Print the findings for people."""
    click.secho(f"theval {findings.theval}", bold=True)
    click.echo(f"  Python {findings.python} on {findings.platform}")
    versions = [f"{name} {installed or 'MISSING'}" for name, installed in findings.packages.items()]
    click.echo(click.wrap_text(", ".join(versions), 100, "  ", "  "))
    click.echo(f"  CPU cores: {findings.cpu_cores}, threads: {findings.cpu_threads}; CUDA: {names_of(findings.cuda)}")
    click.echo(f"  codecs: {names_of([name for name, there in findings.codecs.items() if there])}")
    click.echo(f"  weights: {findings.weights_folder}\n")

    click.secho("Works here, without a network", bold=True)
    for kind in dict.fromkeys(part.kind for part in findings.parts):
        names = [part.name for part in findings.parts if part.kind == kind and part.works]
        click.echo(click.wrap_text(f"{kind}: {names_of(names)}", 100, "  ", "    "))
    waiting = [part for part in findings.parts if part.command and not part.error]
    if waiting:
        click.secho("\nWaits for pretrained files", bold=True)
        for command in dict.fromkeys(part.command for part in waiting):
            names = [part.name for part in waiting if part.command == command]
            size = sum(TABLE[need].size for need in {n for p in waiting if p.command == command for n in p.needs})
            click.echo(f"  {', '.join(names)}\n    {command}  # {weights.megabytes(size)}")
    broken = [part for part in findings.parts if part.error]
    if broken:
        click.secho("\nDoes not import", bold=True)
        for part in broken:
            click.echo(f"  {part.kind} {part.name} (package {part.package}): {part.error}")
    click.echo()
    for problem in findings.problems:
        click.secho(f"Problem: {problem}", fg="red")
    if not findings.problems:
        click.secho("The core works.", fg="green")


def names_of(names: list[str]) -> str:
    """Names in a sentence."""
    return ", ".join(names) or "none"
