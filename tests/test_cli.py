"""The command line as a whole: help that is quick and has examples, and errors of one sentence."""

import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from thead_eval.cli import VERBS, LazyGroup, theval

THEVAL = Path(sys.executable).with_name("theval")


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([THEVAL, *arguments], capture_output=True, text=True)


def test_help_shows_every_verb() -> None:
    ran = run("--help")
    assert ran.returncode == 0
    assert "Examples:" in ran.stdout
    for verb, line in VERBS.items():
        assert f"  {verb} " in ran.stdout
        assert line in ran.stdout


def test_version() -> None:
    assert run("--version").stdout == "theval, version 0.1.0\n"


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_each_verb_has_examples(verb: str) -> None:
    ran = CliRunner().invoke(theval, [verb, "--help"], prog_name="theval")
    assert ran.exit_code == 0, ran.output
    assert f"Usage: theval {verb}" in ran.stdout
    assert "Example" in ran.stdout


def test_help_does_not_import_torch() -> None:
    code = (
        "import sys\n"
        "from thead_eval.cli import theval\n"
        f"for verb in {[*VERBS]!r}:\n"
        "    theval(['--help'], standalone_mode=False)\n"
        "    theval([verb, '--help'], standalone_mode=False)\n"
        "    assert 'torch' not in sys.modules, verb\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_an_unknown_verb_is_named() -> None:
    ran = run("scroe")
    assert ran.returncode == 2
    assert "No such command 'scroe'" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_an_unknown_option_is_named() -> None:
    ran = run("prepare", "--no-such-option")
    assert ran.returncode == 2
    assert "--no-such-option" in ran.stderr


def test_a_users_error_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    ran = run("bench", tmp_path / "no-suite", "--dry-run")
    assert ran.returncode == 2
    assert ran.stdout == ""
    assert len(ran.stderr.splitlines()) == 1
    assert ran.stderr.startswith("theval: error: ")
    assert "no-suite" in ran.stderr


def test_who_stops_a_command_is_not_told_of_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def waiting() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(LazyGroup, "get_command", lambda *_: waiting)
    ran = CliRunner().invoke(theval, ["list"])
    assert ran.exit_code == 130 and ran.stderr == "\nStopped.\n"
