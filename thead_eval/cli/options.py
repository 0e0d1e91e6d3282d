"""What the options of several verbs mean."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from thead_eval.errors import ConfigError
from thead_eval.texts import is_stream

if TYPE_CHECKING:
    from thead_eval.evidence import Evidence


MARKDOWN = (".md", ".markdown", ".txt")  # how such a file is called


def numbers(ctx: click.Context, parameter: click.Parameter, value: str) -> tuple[int, ...]:
    """'1,8,32' as numbers in their order, each once."""
    try:
        parts = tuple(sorted({int(part) for part in value.split(",")}))
    except ValueError:
        raise click.BadParameter(f"'{value}' is not a list of numbers such as 1,8,32") from None
    if parts[0] < 1:
        raise click.BadParameter(f"'{value}': each must be 1 or more")
    return parts


def parts(ctx: click.Context, parameter: click.Parameter, value: str) -> tuple[float, float, float]:
    """'0.7,0.15,0.15' as parts train, val, test."""
    try:
        train, val, test = (float(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f"'{value}' is not three numbers such as 0.7,0.15,0.15") from None
    return train, val, test


def refuse(ctx: click.Context, names: tuple[str, ...], needed: str) -> None:
    """An option that would be ignored is an error.

    Raises:
        ConfigError: one of these was given.
    """
    for parameter in ctx.command.params:
        given = ctx.get_parameter_source(str(parameter.name)) == click.core.ParameterSource.COMMANDLINE
        if parameter.name in names and given:
            raise ConfigError(f"{parameter.opts[0]} means something only with {needed}; leave it out, or name those")


def without_generators(evidence: "Evidence", names: Sequence[str]) -> "Evidence":
    """All but the fakes of these generators, of `--without`.

    Raises:
        ConfigError: there are none of one of them.
    """
    if unknown := set(names) - set(evidence.generators):
        raise ConfigError(
            f"--without {min(unknown)}: the fakes are of {', '.join(evidence.generators)}; name one of them"
        )
    return evidence.without(names)


def check_device(device: str) -> None:
    """Whether networks can run there.

    Raises:
        ConfigError: they cannot.
    """
    import torch

    try:
        where = torch.device(device)
    except RuntimeError:
        raise ConfigError(f"--device '{device}' names no device; give cpu, cuda or cuda:1") from None
    try:
        torch.empty(1, device=where)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].split(". ")[0]  # and not torch's advice
        raise ConfigError(f"--device {device} cannot be used here ({reason}); 'theval doctor' shows what can") from None


def check_page(out: Path, inputs: Iterable[Path] = ()) -> None:
    """Whether an HTML page may be written there: over an earlier one, and over nothing else.

    Args:
        out: The page.
        inputs: Files that are looked at, of which it may be none.

    Raises:
        ConfigError: it would take the place of another file, or nothing can be written there.
    """
    probe = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"'{out}' cannot be written ({error.strerror}); name another file for the page") from error
    if not out.is_file():
        return
    with out.open("rb") as file:
        ours = b'<meta name="generator" content="theval ' in file.read(1024)
    if not ours or any(path.samefile(out) for path in inputs):
        raise ConfigError(f"'{out}' is a file that is there, and no page of theval's; name another for the page")


def check_table(out: Path) -> None:
    """Whether the numbers of a page may be written beside it as CSV: over earlier ones, and over nothing else.

    Raises:
        ConfigError: they would take the place of another file.
    """
    if out.is_file():
        with out.open("rb") as file:
            ours = file.read(11) == b"run,metric,"
        if not ours:
            raise ConfigError(f"'{out}' is a file that is there, and no table of theval's; give the page another name")


def check_suffix(out: Path | None, option: str, suffixes: Sequence[str]) -> None:
    """Whether a text goes into a file that is named as one, or as nothing: a slip of the hand must not replace a video.

    Raises:
        ConfigError: it is named otherwise.
    """
    if out and out.suffix and out.suffix.lower() not in suffixes and not is_stream(out):
        raise ConfigError(f"{option} '{out}' must end in {' or '.join(suffixes)}")
