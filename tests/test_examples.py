"""What is shown of a detector: the clips it is surest of and most wrong about, in the run and in its report."""

import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from benchmarks.detection import Judge, gather, judge_as_given, score
from benchmarks.examples import Score, make_examples
from reports.detection import write_report
from tests.test_detect_eval import evidence, folder, quiet
from thead_eval.curves import make_curves, write_curves
from thead_eval.detection import SCORES, clip_scores, measure_scores, read_scores
from thead_eval.errors import RunError
from thead_eval.evidence import Evidence
from thead_eval.examples import FOLDER, Example, read_examples, write_examples
from thead_eval.pictures import Picture
from thead_eval.results import write_measurements
from thead_eval.run import RunFolder, open_run
from thead_eval.types import Clip

__all__ = ["evidence", "folder"]  # fixtures


@dataclass
class Steady:
    """The less a frame differs from the one before, the more fake; it needs eight in a row."""

    name: str = "steady"
    window: int = 8
    shown: list[int] = field(default_factory=list)

    def score(self, clip: Clip) -> Tensor:
        self.shown.append(len(clip))
        x = clip.frames.float()
        return torch.exp(-(x[1:] - x[:-1]).abs().mean()).clamp(0.01, 0.99).expand(len(clip))


@dataclass
class Bright:
    """The brighter the more fake, whatever it is: right and wrong about both."""

    name: str = "bright"

    def score(self, clip: Clip) -> Tensor:
        return ((clip.frames.float().mean(dim=(1, 2, 3)) - 100) / 12).sigmoid()


@dataclass
class Whole:
    """Refuses single frames."""

    name: str = "whole"

    def score(self, clip: Clip) -> Tensor:
        if len(clip) < 2:
            raise RuntimeError("needs a clip")
        return torch.full((len(clip),), 0.5)


def white(score: Score, frames: Tensor, place: int) -> Picture:
    """In place of a map: asks once, and is white."""
    assert score(frames).shape == (len(frames),) and 0 <= place < len(frames)
    return np.full((*frames.shape[2:], 3), 255, np.uint8)


@pytest.fixture(scope="module")
def asked(evidence: Evidence, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Judge]]:
    """A run that has its scores, and who gave them."""
    run = open_run(tmp_path_factory.mktemp("asked") / "run", {}, ())
    run.record("predicting", {}, {}, {}, [])
    judges = judge_as_given({"steady": Steady(), "bright": Bright()}, evidence, None)
    score(run, evidence, judges, dict.fromkeys((item.path for item in evidence.items), "here"), 16, (), quiet)
    gather(run, judges, (), run.path / SCORES)
    return run.path, judges


@pytest.fixture
def judged(asked: tuple[Path, list[Judge]], tmp_path: Path) -> tuple[RunFolder, list[Judge]]:
    """A copy of it."""
    shutil.copytree(asked[0], tmp_path / "run")
    return open_run(tmp_path / "run", {}, ()), asked[1]


def test_the_surest_and_the_most_wrong_are_shown(evidence: Evidence, judged: tuple[RunFolder, list[Judge]]) -> None:
    run, judges = judged
    scores = read_scores(run.path / SCORES)
    make_examples(run, judges, scores, evidence, 2, white, quiet)
    examples = read_examples(run.path)
    clips = {(clip["model"], clip["item"]): clip for clip in clip_scores(scores).to_dict("records")}
    kinds: dict[str, list[str]] = {"steady": [], "bright": []}
    for example in examples:
        clip = clips[example.model, example.item]
        kinds[example.model].append(example.kind)
        assert clip["p"] == pytest.approx(example.p) and clip["generator"] == example.generator
        assert (clip["label"] == "real") == (example.kind == "flagged")
        assert (example.p < 0.5) == (example.kind == "missed")
        own = scores.frames[(scores.frames["model"] == example.model) & (scores.frames["item"] == example.item)]
        assert example.frame in set(own["frame"])
    assert set(kinds["bright"]) | set(kinds["steady"]) == {"caught", "missed", "flagged"}
    for model in kinds:
        for kind in ("caught", "missed", "flagged"):
            shown = [example for example in examples if (example.model, example.kind) == (model, kind)]
            assert len({example.identity for example in shown}) == len(shown) <= 2
            assert [example.p for example in shown] == sorted((e.p for e in shown), reverse=kind != "missed")
            # Of frames that are judged together, only the first has a map.
            assert [bool(example.heat) for example in shown] == [model == "bright" or n == 0 for n in range(len(shown))]
    for example in examples:
        with Image.open(run.path / FOLDER / example.picture) as picture:
            assert ("Comment" in picture.info) == (example.kind != "flagged")  # the mark of what is synthetic


def test_a_detector_that_needs_neighbours_is_explained_with_them(
    evidence: Evidence, judged: tuple[RunFolder, list[Judge]]
) -> None:
    run, judges = judged
    steady = next(judge.detector for judge in judges if judge.model.key == "steady")
    assert isinstance(steady, Steady)
    steady.shown.clear()
    make_examples(run, judges, read_scores(run.path / SCORES), evidence, 1, white, quiet)
    assert steady.shown and set(steady.shown) == {8}
    steady.shown.clear()
    make_examples(run, judges, read_scores(run.path / SCORES), evidence, 1, white, quiet)  # once is enough
    assert not steady.shown
    former = [
        e.model_copy(update={"p": e.p / 2}) for e in read_examples(run.path)
    ]  # of the same detector before it was trained anew
    write_examples(run.path, former)
    make_examples(run, judges, read_scores(run.path / SCORES), evidence, 1, white, quiet)
    assert steady.shown and {e.p for e in read_examples(run.path)} == {2 * e.p for e in former}


def test_a_clip_that_is_gone_by_then_is_left_out(evidence: Evidence, judged: tuple[RunFolder, list[Judge]]) -> None:
    run, judges = judged
    scores = read_scores(run.path / SCORES)
    make_examples(run, judges, scores, evidence, 2, white, quiet)
    gone = read_examples(run.path)[0]
    for path in (run.path / FOLDER).iterdir():
        path.unlink()
    moved = [
        replace(judge, items=tuple(replace(i, path="gone.mkv") if i.id == gone.item else i for i in judge.items))
        for judge in judges
    ]
    make_examples(run, moved, scores, evidence, 2, white, quiet)
    left = read_examples(run.path)
    assert left and gone.item not in {example.item for example in left}
    assert all((run.path / FOLDER / example.picture).is_file() for example in left)


def test_what_cannot_be_asked_about_one_frame_has_no_map(
    evidence: Evidence, judged: tuple[RunFolder, list[Judge]]
) -> None:
    run, judges = judged
    steady = [replace(one, detector=Whole()) for one in judges if one.model.key == "bright"]
    make_examples(run, steady, read_scores(run.path / SCORES), evidence, 1, white, quiet)
    examples = read_examples(run.path)
    assert examples and not any(example.heat for example in examples)


def test_the_report_shows_them(evidence: Evidence, judged: tuple[RunFolder, list[Judge]], tmp_path: Path) -> None:
    run, judges = judged
    scores = read_scores(run.path / SCORES)
    make_examples(run, judges, scores, evidence, 1, white, quiet)
    write_measurements(run.path, measure_scores(scores, 0, quiet))
    write_curves(run.path, make_curves(scores))
    run.record("complete", {"detection": True, "seed": 0}, {}, {}, [])
    page = write_report([run.path], tmp_path / "report.html").html.read_text()
    examples = read_examples(run.path)
    assert page.count('loading="lazy"') == len(examples) + sum(bool(example.heat) for example in examples)
    assert "What it goes by" in page and "Reals it takes for fakes" in page
    for path in (run.path / FOLDER).iterdir():
        path.unlink()
    assert "What it goes by" not in write_report([run.path], tmp_path / "report.html").html.read_text()


def test_a_damaged_list_is_refused(tmp_path: Path) -> None:
    assert read_examples(tmp_path) == []
    (tmp_path / "examples.json").write_text('[{"model": "trio"}]')
    with pytest.raises(RunError, match=r"examples\.json' is damaged \(\d+ errors\); judge again"):
        read_examples(tmp_path)
    assert set(Example.model_fields) == set("model kind item generator identity p frame picture heat".split())
