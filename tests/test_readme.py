"""The commands of the README, run as they stand there, one after another, in a folder of procedural heads."""

import os
import re
import shlex
import shutil
from pathlib import Path

import matplotlib
import pytest
from click.testing import CliRunner

from tests.test_docs import ROOT, commands_of
from tests.test_train import TINY
from thead_eval.cli import theval

DETECTOR = "[network]\nsize = 32\n[train]\nframes = 2\nvalidation_frames = 1\nbatch = 4\n"
# Commands to which more is said here, so that they take seconds.
ALSO = {
    "theval train": "--config train.toml --steps 1 --device cpu",
    "theval detect train": "--config detector.toml --steps 1 --device cpu",
    "theval generate --photos": "--generator warp",
    "theval generate --data": "--generator warp",
}
# Commands that are run elsewhere.
ELSEWHERE = {
    "theval score --data dataset/ --generator fewshot": "test_fewshot.py: fine-tuning takes minutes",
    "theval bench quick": "test_bench.py, and the gate itself",
    "theval study serve": "test_study.py: it ends when it is told to",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the README takes to be there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("THEVAL_DATA", "")
    run("theval heads videos/ --people 8 --frames 96")
    shutil.copyfile(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg", "me.jpg")
    video = min(Path("videos").rglob("*.mp4"))
    shutil.copyfile(video, "video.mp4")
    for place in ("original_sequences/youtube", "manipulated_sequences/Deepfakes"):
        clips = Path("FaceForensics++") / place / "c23" / "videos"
        clips.mkdir(parents=True)
        shutil.copyfile(video, clips / ("000_003.mp4" if "Deepfakes" in place else "000.mp4"))
    Path("train.toml").write_text(TINY)
    Path("detector.toml").write_text(DETECTOR)
    return tmp_path


def run(line: str) -> str:
    ran = CliRunner().invoke(theval, shlex.split(line, comments=True)[1:])
    assert ran.exit_code == 0, f"{line}\n{ran.output}\n{ran.exception!r}"
    return ran.stdout


@pytest.mark.timeout(3600)
@pytest.mark.skipif(
    not os.environ.get("THEVAL_TOUR"), reason="takes five minutes: THEVAL_TOUR=1 pytest tests/test_readme.py"
)
def test_the_readme_is_followed_line_by_line(folder: Path) -> None:
    lines = list(dict.fromkeys(commands_of((ROOT / "README.md").read_text())))
    start = next(n for n, line in enumerate(lines) if line.startswith("theval prepare"))
    for line in lines[start:] + lines[:start]:  # above it is an overview of what follows
        if any(line.startswith(other) for other in ELSEWHERE):
            continue
        more = next((words for begin, words in ALSO.items() if line.startswith(begin)), "")
        bring(line)
        run(f"{re.split(r' +#', line)[0]} {more}")
        print(line, flush=True)


def bring(line: str) -> None:
    """What somebody who comes to this line has already."""
    if "reals/" in line:
        run("theval generate --data dataset/ --split all --shots 1 --generator copy -o theirs/")
        shutil.copytree("theirs/copy/1", "fakes")
        shutil.copytree("theirs/real", "reals")
    elif line.startswith("theval generate --data"):
        shutil.rmtree("fakes")  # now they are one's own
    elif "runs/change" in line:
        shutil.copytree("runs/first", "runs/change")
