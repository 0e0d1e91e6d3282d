"""The table of what theval made in a folder: manifest.csv, a row a file.

Its columns are those that others read: `file`, `identity`, `label` and `split` serve `theval prepare --manifest`.
"""

import csv
import fcntl
import os
import shlex
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from thead_eval import __version__
from thead_eval.errors import ConfigError, PluginError, ThevalError

NAME = "manifest.csv"


@dataclass(frozen=True)
class ManifestRow:
    """One file. Holds no time of day, so that the same command makes the same bytes."""

    file: str  # relative to the folder, with '/'
    identity: str  # who is shown
    label: str  # "real", or the generator's name
    split: str = ""  # train, val or test, where a dataset has them
    sha256: str = ""  # of the file
    frames: int = 0
    fps: float = 0.0
    generator: str = ""
    checkpoint_sha256: str = ""  # of the generator's weights, where it reads any
    shots: str = ""  # support frames that it adapted on
    real: str = ""  # the clip that a fake reproduces frame by frame, relative to the folder
    sources: str = ""  # what the person was learnt from: photos, or a video; with ';' between several
    source_sha256: str = ""
    driver: str = ""  # what the motion came from
    driver_sha256: str = ""
    theval: str = __version__
    command: str = ""  # as typed


COLUMNS = tuple(field.name for field in fields(ManifestRow))


def typed_command() -> str:
    """This process's command line."""
    return shlex.join(["theval", *sys.argv[1:]])


def checkpoint_of(generator: object) -> str:
    """The sha256 of a generator's weights, where it says so in an attribute `checkpoint_sha256`; else ''.

    Raises:
        CheckpointError: of ours, the weights are missing, damaged or something else.
        PluginError: a plug-in cannot say.
    """
    try:
        return str(getattr(generator, "checkpoint_sha256", "") or "")
    except ThevalError:
        raise
    except Exception as error:  # a plug-in can raise anything
        name = getattr(generator, "name", type(generator).__name__)
        raise PluginError(
            f"generator '{name}' cannot say which weights it has ({type(error).__name__}: {error}); correct it, or "
            "choose another"
        ) from error


def read_manifest(folder: Path) -> list[ManifestRow]:
    """The rows of FOLDER/manifest.csv; none where there is no such file.

    Raises:
        ConfigError: it is something else, or cannot be read.
    """
    path = folder / NAME
    try:
        with path.open(newline="", encoding="utf-8") as lines:
            reader = csv.DictReader(lines)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise ConfigError(
                    f"'{path}' is not a table of what theval made, and would be overwritten; name a file in another "
                    "folder with -o"
                )
            rows = list(reader)
        return [ManifestRow(**row | {"frames": int(row["frames"]), "fps": float(row["fps"])}) for row in rows]  # type: ignore[arg-type]  # numbers among text
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, csv.Error, ValueError, TypeError) as error:
        raise ConfigError(f"'{path}' cannot be read ({error}); remove it, or name another folder with -o") from error


def add_rows(folder: Path, added: Iterable[ManifestRow]) -> None:
    """Put rows into FOLDER/manifest.csv, in place of those of the same files; rows are in the order of their files.

    Several commands may write into one folder.

    Raises:
        ConfigError: the table that is there is something else, or cannot be written.
    """
    path = folder / NAME
    with _locked(folder):
        rows = {row.file: row for row in read_manifest(folder)} | {row.file: row for row in added}
        temporary = path.with_name(f".{NAME}.{os.getpid()}")
        try:
            with temporary.open("w", newline="", encoding="utf-8") as lines:
                writer = csv.DictWriter(lines, COLUMNS, lineterminator="\n")
                writer.writeheader()
                writer.writerows(asdict(rows[file]) for file in sorted(rows))
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise ConfigError(f"cannot write '{path}' ({error.strerror or error}); check the folder") from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Alone among the processes that add rows in this folder."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
