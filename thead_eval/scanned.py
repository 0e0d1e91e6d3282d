"""The rows of a scan in a file, a line each, written one by one: one that was killed goes on where it was."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from thead_eval.errors import RunError
from thead_eval.texts import write_whole

CURE = "make room for it and give the same command again, which continues, or name another file with --out"

Row = dict[str, Any]  # as `theval detect scan --json` prints it; Any: JSON


def read_rows(path: Path, stated: Mapping[str, Any]) -> dict[str, Row]:  # Any: JSON
    """The rows by the path of their file; none where `path` is not there yet. A line that was cut off is no row.

    Args:
        path: The file of rows.
        stated: What is the same in all of them: by which detector, and how.

    Raises:
        RunError: it holds something else, or rows that were made otherwise.
    """
    rows: dict[str, Row] = {}
    lines = path.read_bytes().splitlines() if path.exists() else []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)  # of UTF-8; another file, a video say, is no text
        except ValueError:
            if number == len(lines) and rows:
                break
            row = None
        if not isinstance(row, dict) or not {"path", "outcome", "tracks", *stated} <= row.keys():
            raise RunError(
                f"'{path}' is not a file of 'theval detect scan --out' (line {number}); name another with --out"
            )
        if "seconds" not in row or any("new_fps" not in track for track in row["tracks"]):
            raise RunError(f"'{path}' was made by an earlier theval (line {number}); name another with --out")
        differing = [name for name, value in stated.items() if row[name] != value]
        if differing:
            name = differing[0]
            was, now = row[name], stated[name]
            if isinstance(was, dict) and isinstance(now, dict):
                key = next(key for key in {**was, **now} if was.get(key) != now.get(key))
                name, was, now = f"{name} {key}", was.get(key), now.get(key)
            raise RunError(
                f"'{path}' was made with {name} = {was!r}, not {now!r}; give the same, or name another file with --out"
            )
        rows[row["path"]] = row
    return rows


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write a file of rows whole or not at all.

    Raises:
        RunError: it cannot be written.
    """
    write_whole(path, "".join(map(_line, rows)), CURE)


def append_row(path: Path, row: Row) -> None:
    """Add a row, at once.

    Raises:
        RunError: it cannot be written; the rows before it stay.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(_line(row))
    except OSError as error:
        raise RunError(f"'{path}' cannot be written ({error.strerror}); {CURE}") from error


def _line(row: Row) -> str:
    return json.dumps(row, allow_nan=False) + "\n"
