"""Text files, written whole or not at all."""

import os
from contextlib import suppress
from pathlib import Path

from thead_eval.errors import RunError


def is_stream(path: Path) -> bool:
    """Whether it is no file of its own that could be replaced, such as /dev/stdout, wherever that leads, or a pipe."""
    return path.is_relative_to("/dev") or (path.exists() and not path.is_file())


def write_whole(path: Path, text: str, cure: str) -> None:
    """Write a text as UTF-8, over a file that is there only once all of it is on the disk.

    Args:
        path: The file; its folder is made where it is missing.
        text: What is no character, as a file's name may hold, is written as its number.
        cure: What to do where it cannot be written, such as "name another file with -o".

    Raises:
        RunError: it cannot be written.
    """
    content = text.encode("utf-8", "backslashreplace")
    target = path.resolve()
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        if is_stream(path):
            path.write_bytes(content)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(target)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise RunError(f"'{path}' cannot be written ({error.strerror}); {cure}") from error
