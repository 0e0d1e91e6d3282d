"""Texts that are written whole or not at all, and what they must not replace."""

import os
from pathlib import Path

import pytest

from thead_eval.cli.options import check_suffix, check_table
from thead_eval.errors import ConfigError, RunError
from thead_eval.texts import write_whole


def test_an_earlier_text_stays_where_the_new_one_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new" / "a.html"
    write_whole(path, "first", "name another")
    assert path.read_text() == "first"

    def full(self: Path, content: bytes) -> None:
        with self.open("wb") as file:
            file.write(content[:3])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(RunError, match=r"a\.html' cannot be written \(No space left on device\); name another"):
        write_whole(path, "second", "name another")
    assert path.read_text() == "first" and [each.name for each in path.parent.iterdir()] == ["a.html"]
    monkeypatch.undo()
    with pytest.raises(RunError, match="cannot be written"):
        write_whole(path / "b.html", "third", "name another")


def test_a_link_stays_one_and_a_pipe_is_written_to(tmp_path: Path) -> None:
    (tmp_path / "link.md").symlink_to(tmp_path / "text.md")
    write_whole(tmp_path / "link.md", "words", "name another")
    assert (tmp_path / "link.md").is_symlink() and (tmp_path / "text.md").read_text() == "words"
    out, into = os.pipe()
    write_whole(Path(f"/dev/fd/{into}"), "told", "name another")
    assert os.read(out, 9) == b"told"


def test_tables_take_no_other_files_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--markdown '.*v\.mp4' must end in \.md or \.txt"):
        check_suffix(tmp_path / "v.mp4", "--markdown", (".md", ".txt"))
    for fits in (None, tmp_path / "a.MD", tmp_path / "step_summary_0a", Path("/dev/stdout")):
        check_suffix(fits, "--markdown", (".md", ".txt"))
    theirs = tmp_path / "report.csv"
    theirs.write_text("name,age\n")
    with pytest.raises(ConfigError, match="no table of theval's; give the page another name"):
        check_table(theirs)
    theirs.write_text("run,metric,value\n")
    check_table(theirs)
    check_table(tmp_path / "new.csv")
