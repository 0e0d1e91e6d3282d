"""The pages that users read name what there is."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from textwrap import indent

import click
import pytest

from thead_eval.cli import theval
from thead_eval.plugins import BUILT_IN

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def test_every_metric_is_described() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    assert [name for name in BUILT_IN["metric"] if f"`{name}`" not in page] == []


def test_every_metric_has_a_caution_and_a_source() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    rows = [line.strip("| \n").split(" | ") for line in page.splitlines() if line.startswith("| `")]
    told = [name for row in rows for name in re.findall(r"`(\w+)`", row[0])]
    assert sorted(told) == sorted(BUILT_IN["metric"])
    assert [row[0] for row in rows if len(row) != 5 or not all(cell.strip() for cell in row)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


def test_tests_that_are_named_exist() -> None:
    named = {name for page in PAGES for name in re.findall(r"`(test_\w+)::(test_\w+)`", page.read_text())}
    defined = {
        (file.stem, name)
        for file in (ROOT / "tests").glob("test_*.py")
        for name in re.findall(r"^def (test_\w+)\(", file.read_text(), re.MULTILINE)
    }
    assert len(named) > 20 and named - defined == set()


def commands_of(text: str) -> list[str]:
    """The lines of code blocks that call theval, continued lines joined; <stand-ins> are left out."""
    text = text.replace("\\\n", " ")
    text = re.sub(r"^```sh\n(.*?)^```", lambda fenced: indent(fenced[1], "    "), text, flags=re.MULTILINE | re.DOTALL)
    lines = re.findall(r"^ +(theval [^\n]+)$", text, re.MULTILINE)
    return [line for line in lines if not re.search(r"theval \d|[…<]", line)]


def helps(command: click.Command, name: str) -> Iterator[tuple[str, str]]:
    """What a command and all below it say under --help."""
    yield name, command.help or ""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for below in command.list_commands(context):
            found = command.get_command(context, below)
            assert found is not None
            yield from helps(found, f"{name} {below}")


TEXTS = [*((page.name, page.read_text()) for page in PAGES), *helps(theval, "theval")]
COMMANDS = [(name, line) for name, text in TEXTS for line in commands_of(text)]


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=[f"{page}: {line[:60]}" for page, line in COMMANDS])
def test_commands_that_are_shown_are_understood(page: str, line: str) -> None:
    """Options and choices are those that there are; what the commands do is tested elsewhere."""
    words = shlex.split(re.split(r"\s[#>|]", line)[0])[1:]
    command: click.Command = theval
    context = click.Context(command, info_name="theval")
    while isinstance(command, click.Group):
        name, *words = words or [""]
        if name.startswith("-"):
            return  # an option of the group itself
        found = command.get_command(context, name)
        assert found is not None, f"{page}: there is no command '{name}' in '{line}'"
        command, context = found, click.Context(found, context, info_name=name)
    options, _, _ = command.make_parser(context).parse_args(list(words))  # raises where there is no such option
    for parameter in command.params:
        given = options.get(parameter.name or "")
        if isinstance(parameter.type, click.Choice) and isinstance(given, str):
            parameter.type.convert(given, parameter, context)
