"""The commands of the README and of docs/, run as they stand there, one after another, on procedural heads."""

import os
import re
import shlex
import shutil
import time
from pathlib import Path

import matplotlib
import pytest
from click.testing import CliRunner

from tests.test_docs import ROOT, commands_of
from tests.test_generate import add_sound
from tests.test_train import TINY
from thead_eval.cli import theval
from thead_eval.cli.detect.scan import FAKE, OPEN

DETECTOR = "[network]\nsize = 32\n[train]\nframes = 2\nvalidation_frames = 1\nbatch = 4\n"
TRAININGS = "[train]\nframes = 2\nvalidation_frames = 1\nbatch = 4\nsteps = 1\n"
# What is said besides, so that it takes seconds and has a folder of its own; the first that fits a line.
ALSO = {
    "theval train --data dataset/ -o runs/mine --hours 12 --resume": "--config train.toml --steps 2 -o runs/trained",
    "theval train --data dataset/ -o runs/mine": "--config train.toml --steps 1 --device cpu -o runs/trained",
    "theval train": "--config train.toml --steps 1 --device cpu",
    "theval detect train --data dataset/ --fakes fakes/ --detector spectrum": "--device cpu",
    "theval detect train --data dataset/ --fakes fakes/ --detector ensemble": "--device cpu",
    "theval detect train --data dataset/ --fakes fakes/ -o detectors/mine": (
        "--config detector.toml --steps 1 --device cpu -o detectors/again"
    ),
    "theval detect train": "--config detector.toml --steps 1 --device cpu",
    "theval detect eval --data dataset/ --fakes fakes/ --detector spectrum --detector efflite0": (
        "--config trainings.toml --frames 2"
    ),
    "theval detect eval --data dataset/ --fakes fakes/ --fakes others/": "--perturb jpeg --frames 2",
    "theval generate --photos me.jpg --drive nod --save-talker": "--generator fewshot_ff",
    "theval generate --photos": "--generator warp",
    "theval generate --data dataset/ --split all --shots 1,8": "--generator warp --generator copy",
    "theval heads": "--people 2 --frames 20",
    "theval prepare videos/": "--split 0.5,0.25,0.25",
    "theval score": "--metrics ssim,l1",
}
# Exit codes that are an answer. Procedural heads are one person to dlib, which the audit finds.
VERDICTS = {"theval detect scan": (FAKE, OPEN), "theval detect audit": (1,)}
# Commands that are not run here, by what they begin with, and why.
ELSEWHERE = {
    "theval score --data dataset/ --generator fewshot": "fine-tuning takes minutes: test_fewshot.py",
    "theval generate --data dataset/ --split all --generator fewshot": "the same",
    "theval bench quick": "the gate itself; small suites: test_bench.py",
    "theval bench clips --data dataset/ --out": "hours",
    "theval bench mine.toml": "the reader's own; small suites: test_bench.py",
    "theval bench paper": "needs VoxCeleb and GPUs",
    "theval study serve": "ends when it is told to: test_study.py",
    "theval study score": "nobody has answered: test_study.py",
    "theval study make runs/first -o study/ --generator fewshot": "the run has no fewshot here: test_study.py",
    "theval import voxceleb": "needs the set laid out: test_layouts.py, as are the next",
    "theval import celeb-df": "the same",
    "theval import talkingheadbench": "the same",
    "theval import deepfakebench": "the same",
    "theval detect eval --fakes simswap/": "the same",
    "theval detect eval --fakes ff/": "two videos have nothing to judge",
    "theval prepare heads/ dataset/": "the folder is there already",
    "theval detect scan clips/ --detector detectors/mine --fpr": "needs twenty validation people: test_scan.py",
    "theval report runs/mine-*": "needs the runs of a Slurm array",
    "theval score --data dataset/ --generator still": "needs the page's plug-in: test_plugins.py",
    "theval detect eval --data dataset/ --fakes fakes/ --detector frozen": "the same",
    "theval train --data people/": "needs a hundred people",
    "theval weights fetch": "needs a network: test_weights.py",
    "theval weights mirror": "the same",
    "theval weights import": "the same, of a file that it gave",
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
    Path("trainings.toml").write_text(TRAININGS)
    return tmp_path


def run(line: str) -> None:
    ran = CliRunner().invoke(theval, shlex.split(line)[1:])
    ended = ran.exception is None or isinstance(ran.exception, SystemExit)
    verdicts = next((codes for begin, codes in VERDICTS.items() if line.startswith(begin)), ())
    assert ended and ran.exit_code in (0, *verdicts), f"{line}\n{ran.output}\n{ran.exception!r}"


@pytest.mark.timeout(7200)
@pytest.mark.skipif(
    not os.environ.get("THEVAL_TOUR"), reason="takes many minutes: THEVAL_TOUR=1 pytest -s tests/test_readme.py"
)
def test_the_readme_and_the_pages_are_followed_line_by_line(folder: Path) -> None:
    lines = list(dict.fromkeys(commands_of((ROOT / "README.md").read_text())))
    start = next(n for n, line in enumerate(lines) if line.startswith("theval prepare"))
    lines = lines[start:] + lines[:start]  # above it is an overview of what follows
    for page in sorted((ROOT / "docs").glob("*.md")):
        lines += commands_of(page.read_text())
    for line in dict.fromkeys(re.split(r" +[#>]", line)[0] for line in lines):
        elsewhere = any(line.startswith(begin) for begin in ELSEWHERE)
        if elsewhere and not line.endswith("--dry-run"):
            continue
        more = next((words for begin, words in ALSO.items() if line.startswith(begin)), "")
        bring(line)
        begin = time.monotonic()
        run(f"{line} {more}")
        print(f"{time.monotonic() - begin:6.1f} s  {line}", flush=True)


def test_what_is_run_elsewhere_is_still_on_a_page() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    lines = [line for page in pages for line in commands_of(page.read_text())]
    assert [begin for begin in (*ELSEWHERE, *ALSO) if not any(line.startswith(begin) for line in lines)] == []


def bring(line: str) -> None:
    """What somebody who comes to this line has already."""
    if "reals/" in line and not Path("reals").exists():
        run("theval generate --data dataset/ --split all --shots 1 --generator copy -o theirs/")
        shutil.copytree("theirs/copy/1", "fakes")
        shutil.copytree("theirs/real", "reals")
    if line.startswith("theval generate --data"):
        shutil.rmtree("fakes", ignore_errors=True)  # now they are one's own
    for run_folder in ("change", "trusted", "before", "after", "ours", "seed0", "seed1", "seed2"):
        if f"runs/{run_folder}" in line and not Path("runs", run_folder).exists():
            shutil.copytree("runs/first", f"runs/{run_folder}")
    if " more.jpg " in line:
        shutil.copyfile("me.jpg", "more.jpg")
    if " clip.mp4 " in line:
        add_sound(Path("video.mp4"), Path("clip.mp4"))
    if " clips/ " in line and not Path("clips").exists():
        Path("clips").mkdir()
        shutil.copyfile("video.mp4", "clips/one.mp4")
    if "others/" in line:
        shutil.copytree("theirs", "others")
