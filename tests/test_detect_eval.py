"""Detectors judged: who is asked about what, what is kept, and what a failing one comes to."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor

from benchmarks.detection import (
    Judge,
    gather,
    judge_as_given,
    judge_trainings,
    known_to,
    plan_folds,
    plan_trainings,
    sample_runs,
    score,
    split_folds,
    teaches,
)
from benchmarks.fakes import make_fakes
from benchmarks.shots import ShotsConfig
from detectors.calibration import Calibration
from detectors.checkpoint import identity_hash, save_detector
from detectors.efflite0 import EfficientNetLite0
from tests.conftest import SharedFolder
from thead_eval.cli import theval
from thead_eval.cli.detect.eval import _print_table
from thead_eval.data import CLIP_SCHEMA, Split, open_dataset
from thead_eval.detection import SCORES, Model, failures_of, measure_scores, read_scores
from thead_eval.errors import ConfigError, RunError
from thead_eval.evidence import Evidence, read_evidence
from thead_eval.examples import read_examples
from thead_eval.results import Measurement, read_measurements, read_run
from thead_eval.run import RunFolder, open_run
from thead_eval.testing import make_dataset
from thead_eval.types import Clip, Detector
from thead_eval.verdicts import OperatingPoint


def quiet(what: str, done: int, total: int) -> None:
    """No progress."""


@dataclass
class Sharpness:
    """The nearer a frame is to its neighbour pixels, the more fake: real and fake differ, and nothing is learnt."""

    name: str = "sharpness"
    asked: list[str] = field(default_factory=list)

    def score(self, clip: Clip) -> Tensor:
        self.asked.append(clip.id)
        x = clip.frames.float()
        return (1 - (x[..., 1:] - x[..., :-1]).abs().mean(dim=(1, 2, 3)) / 50).clamp(0, 1)


@dataclass
class Breaks:
    """Raises for fakes: what is left of it would look perfect."""

    name: str = "breaks"

    def score(self, clip: Clip) -> Tensor:
        if "real" not in clip.id:
            raise RuntimeError("out of luck")
        return torch.zeros(len(clip))


@pytest.fixture(scope="module")
def folder(shared_folder: SharedFolder) -> Path:
    """data/, eight heads in three splits; made/, fakes of them by two generators."""
    return shared_folder("judged", make_folder)


def make_folder(folder: Path) -> None:
    dataset = make_dataset(folder / "data", identities=8, frames=60, size=48)
    make_fakes(ShotsConfig(dataset.path, generators=("copy", "warp"), shots=(1,)), folder / "made", 0, quiet)
    splits: tuple[Split, ...] = ("train", "train", "train", "val", "val", "test", "test", "test")
    rows = pq.read_table(folder / "data" / "clips.parquet").to_pylist()
    split_rows = [row | {"split": split} for row, split in zip(rows, splits, strict=True)]
    pq.write_table(pa.Table.from_pylist(split_rows, CLIP_SCHEMA), folder / "data" / "clips.parquet")


@pytest.fixture(scope="module")
def evidence(folder: Path) -> Evidence:
    """All of it."""
    return read_evidence(open_dataset(folder / "data"), [folder / "made"])


def run_in(path: Path) -> RunFolder:
    run = open_run(path / "run", {}, ())
    run.record("predicting", {}, {}, {}, [])
    return run


def judged(path: Path, evidence: Evidence, judges: list[Judge], *perturbations: str) -> list[Measurement]:
    run = run_in(path)
    score(run, evidence, judges, dict.fromkeys((item.path for item in evidence.items), "here"), 8, perturbations, quiet)
    gather(run, judges, perturbations, run.path / SCORES)
    return measure_scores(read_scores(run.path / SCORES), 0, quiet)


def test_only_what_the_fakes_reproduce_is_judged(evidence: Evidence) -> None:
    assert len(evidence.items) == 32
    assert len(evidence.judged().items) == 24
    assert all(not item.clip for item in evidence.judged().items)
    reals = Evidence(tuple(item for item in evidence.items if item.clip), evidence.size)
    assert reals.judged() == reals
    theirs = Evidence((*evidence.items, replace(evidence.items[-1], id="x", source="y")), evidence.size)
    assert len(theirs.judged().items) == 25  # everyone's frames lie beside their fakes, so nobody is there twice


def test_runs_of_neighbours_are_spread_over_the_clip() -> None:
    assert sample_runs(270, 32, 1)[0][-1] > 260
    assert sample_runs(32, 32, 8) == [list(range(start, start + 8)) for start in (0, 8, 16, 24)]
    assert [run[0] for run in sample_runs(270, 32, 16)] == [59, 195]
    assert sample_runs(5, 32, 8) == [[0, 1, 2, 3, 4]]
    for frames, count, window in ((100, 32, 16), (17, 32, 16), (16, 4, 16), (33, 32, 7)):
        runs = sample_runs(frames, count, window)
        for run in runs:
            assert len(run) == window and 0 <= run[0] and run[-1] < frames
        assert len({frame for run in runs for frame in run}) == len(runs) * window  # none is judged twice


def test_a_stranger_is_asked_about_test_people_beside_the_one_that_sees_no_picture(
    evidence: Evidence, tmp_path: Path
) -> None:
    detector = Sharpness()
    judges = judge_as_given({"sharpness": detector}, evidence, None)
    rows = judged(tmp_path, evidence, judges, "jpeg")
    aucs = {
        (m.labels["detector"], m.labels["generator"], m.labels.get("level", "")): m
        for m in rows
        if m.metric == "auc" and m.labels["unit"] == "clip"
    }
    assert {key[0] for key in aucs} == {"sharpness", "metadata"}
    assert aucs["sharpness", "warp", ""].n_real == 3 and aucs["sharpness", "all", ""].n_fake == 6
    assert aucs["sharpness", "all", ""].labels["protocol"] == "as given"
    assert aucs["metadata", "all", ""].labels["protocol"] == "P1"
    assert ("sharpness", "all", "5") in aucs and ("metadata", "all", "5") not in aucs
    # Again, nothing is asked anew, and the numbers are the same.
    count = len(detector.asked)
    assert count == 9 * 6
    assert judged(tmp_path, evidence, judges, "jpeg") == rows
    assert len(detector.asked) == count


def test_what_a_detector_fails_on_is_no_number(evidence: Evidence, tmp_path: Path) -> None:
    rows = judged(tmp_path, evidence, judge_as_given({"breaks": Breaks()}, evidence, None))
    own = [m for m in rows if m.labels["detector"] == "breaks"]
    assert own and all(m.value is None and "RuntimeError: out of luck" in m.note for m in own)
    failures = failures_of(read_scores(tmp_path / "run" / SCORES))
    assert len([f for f in failures if f.labels["detector"] == "breaks"]) == 6
    assert failures[0].reason == "raised: RuntimeError: out of luck"


def test_without_reals_or_fakes_there_is_nothing_to_judge(evidence: Evidence) -> None:
    reals = Evidence(tuple(item for item in evidence.items if item.label == "real"), evidence.size)
    with pytest.raises(ConfigError, match="no fake clip 'x' could be asked about"):
        judge_as_given({"x": Sharpness()}, reals, None)


def test_each_protocol_hides_what_it_says(evidence: Evidence) -> None:
    trainings = plan_trainings(evidence, ("P1", "P2", "P3", "k-shot"), 0, (1, 2), 2)
    assert len(trainings) == 1 + 2 * (1 + 2 * 2)
    test_people = {item.identity for item in evidence.items if item.split == "test"}
    for training in trainings:
        learnt = [item for item in training.learn.items if item.split == "train"]
        assert not test_people & {item.identity for item in training.learn.items}
        own = [item for item in learnt if item.generator == training.held_out != ""]
        assert len(own) == (training.known_fakes or 0)
        # No frame is learnt from and judged on, whatever clip it is in: whole clips hold 60, fakes the last 32.
        for item in training.judged:
            if item.identity in {each.identity for each in learnt}:
                assert item.generator in ("", training.held_out) and item.first >= 20
        assert all(item.first + item.frames <= (30 if item.clip else 16) for item in learnt)
    draws = [t.learn.sha256 for t in trainings if t.known_fakes == 1 and t.held_out == "warp"]
    assert len(draws) == 2
    alone = plan_trainings(evidence, ("k-shot",), 0, (1,), 1)
    assert [(training.held_out, training.known_fakes) for training in alone] == [
        *[("copy", None), ("copy", 1)],
        *[("warp", None), ("warp", 1)],
    ]
    assert plan_trainings(evidence, ("P1",), 0)[0].learn.of("train").items[0].frames == 60


def test_protocols_that_cannot_be_held_are_refused(evidence: Evidence) -> None:
    with pytest.raises(ConfigError, match="no protocol is named 'P4'"):
        plan_trainings(evidence, ("P4",), 0)
    with pytest.raises(ConfigError, match="there are only fakes of 'warp'"):
        plan_trainings(evidence.without(["copy"]), ("P3",), 0)
    with pytest.raises(ConfigError, match="8 fakes of 'copy' were to be known, and training people have 3"):
        plan_trainings(evidence, ("k-shot",), 0)


def test_a_detector_that_needs_no_fakes_is_trained_without(evidence: Evidence, tmp_path: Path) -> None:
    """And the one that sees no picture, which needs them, is left out."""
    items = (item for item in evidence.items if item.label == "real" or item.split == "test")
    trainings = plan_trainings(Evidence(tuple(items), evidence.size), ("P1",), 0)
    judges = judge_trainings(trainings, ("blends",), lambda *_: Sharpness(), tmp_path, 0, quiet)
    rows = judged(tmp_path, evidence, list(judges))
    assert {m.labels["detector"] for m in rows} == {"sharpness"}


def test_a_detector_is_shown_no_finer_frames_than_it_learnt_from() -> None:
    size: dict[str, object] = {"sha256": "", "calibration": None, "operating_points": {}, "generators": (), "size": 128}
    trained = type("Small", (Sharpness,), {**size, "knows": lambda self, identity: False})()
    model = Model(key="a", detector="a")
    shown = [Judge(model, detector, lambda item: (None, None), ()).shown_at(256) for detector in (trained, Sharpness())]
    assert shown == [128, 256]


def test_protocols_end_in_their_numbers(evidence: Evidence, tmp_path: Path) -> None:
    trained: list[str] = []

    def fit(kind: str, learn: Evidence, out: Path, seed: int) -> Detector:
        trained.append(f"{kind} {out.name} {len(learn.generators)}")
        return Sharpness(name=kind)

    trainings = plan_trainings(evidence, ("P1", "P2", "P3"), 0)
    judges = list(judge_trainings(trainings, ("sharp",), fit, tmp_path / "trainings", 0, quiet))
    rows = judged(tmp_path, evidence, judges)
    assert trained == ["sharp all generators 2", "sharp without copy 1", "sharp without warp 1"]
    found = {
        (m.labels["protocol"], m.labels["generator"], m.labels.get("held_out", "")): m
        for m in rows
        if m.metric == "auc" and m.labels["detector"] == "sharp" and m.labels["unit"] == "clip"
    }
    assert set(found) == {
        *(("P1", generator, "") for generator in ("all", "copy", "warp")),
        *((p, g, g) for p in ("P2", "P3") for g in ("copy", "warp")),
        ("P1", "warp", "copy"),  # the leave-one-out matrix off its diagonal
        ("P1", "copy", "warp"),
    }
    assert found["P1", "copy", ""].value == found["P3", "copy", "copy"].value  # nothing is learnt by this one
    assert json.loads(json.dumps(found["P2", "warp", "warp"].labels))["training"] == "without warp"


def test_in_folds_everyone_is_judged_once_by_a_stranger(evidence: Evidence, tmp_path: Path) -> None:
    trainings = plan_folds(split_folds(evidence, 3, 0), ("P1", "P3"), 0)
    assert len(trainings) == 3 * (1 + 2) and len({training.place for training in trainings}) == len(trainings)
    for training in trainings:
        people = {item.identity for item in training.judged}
        assert people and not people & {item.identity for item in training.learn.items}
        assert {"train", "val"} == {item.split for item in training.learn.items}
    everyone = [item.id for training in trainings if not training.held_out for item in training.judged]
    whole = Evidence(tuple(item for item in evidence.items), evidence.size).judged().items
    assert sorted(everyone) == sorted(item.id for item in whole)
    # A recording of two people keeps them together.
    first, second = evidence.items[0].identity, evidence.items[-1].identity
    shared = [replace(item, source="one") if item.identity in (first, second) else item for item in evidence.items]
    for training in plan_folds(split_folds(Evidence(tuple(shared), evidence.size), 3, 0), ("P1",), 0):
        people = {item.identity for item in training.judged}
        assert (first in people) == (second in people)
    judges = judge_trainings(trainings, ("sharp",), lambda *_: Sharpness(name="sharp"), tmp_path, 0, quiet)
    rows = judged(tmp_path, evidence, list(judges))
    (p1,) = (
        m
        for m in rows
        if m.metric == "auc" and m.labels["detector"] == "sharp" and m.labels["unit"] == "clip"
        if m.labels["protocol"] == "P1" and m.labels["generator"] == "all" and not m.labels.get("held_out")
    )
    assert (p1.n_real or 0) + (p1.n_fake or 0) == len(whole)


def test_folds_that_cannot_be_made_are_refused(evidence: Evidence) -> None:
    with pytest.raises(ConfigError, match="--folds is for P1 and P3"):
        plan_folds(split_folds(evidence, 3, 0), ("P1", "P2"), 0)
    with pytest.raises(ConfigError, match="99 folds cannot be made of 8 people"):
        split_folds(evidence, 99, 0)


# The command.


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector, of no use, that knows `warp` and the person head0005 of the test people."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("detector") / "mine" / "best.safetensors"
    path.parent.mkdir()
    seen = {"generators": json.dumps(["warp"]), "identities": json.dumps([identity_hash("head0005")])}
    calibration = Calibration(2.0, -0.5, np.array([[2.0, -1.0], [2.0, 0.0]]))
    network = EfficientNetLite0(32).eval()
    torch.nn.init.normal_(network.head.weight)
    save_detector(path, "efflite0", {"size": 32}, network, calibration, [OperatingPoint(0.05, 1.5, 0.25)], seen)
    return path.parent


def called(*arguments: object) -> Result:
    return CliRunner().invoke(theval, ["detect", "eval", *map(str, arguments)])


def test_a_trained_detector_is_asked_about_whom_it_has_not_seen(folder: Path, trained: Path, tmp_path: Path) -> None:
    told = ("--data", folder / "data", "--fakes", folder / "made", "--frames", 4)
    out = tmp_path / "run"
    ran = called(*told, "--detector", trained, "--out", out)
    assert ran.exit_code == 0, ran.output
    assert "efflite0" in ran.stdout and "metadata" in ran.stdout and "P3" in ran.stdout
    rows = read_measurements(out)
    cheap = {(m.labels["protocol"], m.labels["generator"]): m for m in rows if
             m.metric == "auc" and m.labels["detector"] == "spectrum" and m.labels["unit"] == "clip"}  # fmt: skip
    assert cheap["P1", "all"].n_real == 3  # the test people: it has learnt from the others
    assert {example.model for example in read_examples(out)} == {"efflite0"}  # which was asked for
    found = {(m.labels["protocol"], m.labels["generator"]): m for m in rows if
             m.metric == "auc" and m.labels["detector"] == "efflite0" and m.labels["unit"] == "clip"}  # fmt: skip
    assert found.keys() == {("P1", "warp"), ("P3", "copy")}
    assert found["P1", "warp"].n_real == 7  # of eight, without the one it knows
    assert any(m.metric == "fakes_flagged_at_5" for m in rows)
    record = read_run(out)
    assert record.status == "complete" and len(record.weights["efflite0"]) == 64
    # The scores alone give the same numbers.
    for ignored in (("--without", "warp"), ("--split", "test"), ("--frames", 32)):
        filtered = called("--scores", out / SCORES, "--out", tmp_path / "again", *ignored)
        assert isinstance(filtered.exception, ConfigError)
        assert f"{ignored[0]} means something only with --data" in str(filtered.exception)
    again = called("--scores", out / SCORES, "--out", tmp_path / "again", "--json")
    assert again.exit_code == 0, again.output
    assert read_measurements(tmp_path / "again") == rows
    assert json.loads(again.stdout)["measurements"]
    in_place = called("--out", out)
    assert in_place.exit_code == 0 and read_measurements(out) == rows
    # With another setting it is another run, and what it holds is not lost to other detectors or scores.
    other = called(*told[:-1], 5, "--detector", trained, "--out", out)
    assert isinstance(other.exception, RunError) and "was made with frames = 4" in str(other.exception)
    other = called(*told, "--detector", "grain", "--out", out)
    assert isinstance(other.exception, RunError) and f"holds scores of --detector {trained}" in str(other.exception)
    other = called("--scores", tmp_path / "again" / SCORES, "--out", out)
    assert isinstance(other.exception, RunError) and "was made with scores = None" in str(other.exception)


def test_a_detector_that_was_trained_anew_is_asked_anew(folder: Path, tmp_path: Path) -> None:
    told = ("--data", folder / "data", "--fakes", folder / "made", "--frames", 2, "--no-baseline", "--examples", 0)
    said = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        network = EfficientNetLite0(32).eval()
        torch.nn.init.normal_(network.head.weight)
        seen = {"generators": json.dumps(["warp"]), "identities": "[]"}
        calibration = Calibration(1.0, 0.0, np.array([[1.0, 0.0]]))
        save_detector(tmp_path / "mine.safetensors", "efflite0", {"size": 32}, network, calibration, [], seen)
        ran = called(*told, "--detector", tmp_path / "mine.safetensors", "--out", tmp_path / "run")
        assert ran.exit_code == 0, ran.output
        frames = read_scores(tmp_path / "run" / SCORES).frames
        said.append(frames[frames["model"] == "efflite0"]["logit"].to_numpy())
    assert len(said[0]) == len(said[1]) and not np.isclose(said[0], said[1]).any()


SMALL = "[network]\nsize = 32\n[train]\nsteps = 2\nbatch = 4\nvalidate_every = 2\nframes = 2\n"


def test_a_protocol_trains_and_judges(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "small.toml"
    config.write_text(SMALL)
    told = ("--data", folder / "data", "--fakes", folder / "made", "--frames", 4, "--out", tmp_path / "run")
    ran = called(*told, "--detector", "efflite0", "--protocol", "P3", "--config", config, "--no-baseline")
    assert ran.exit_code == 0, ran.output
    rows = read_measurements(tmp_path / "run")
    p3 = {m.labels["held_out"] for m in rows if m.labels["protocol"] == "P3" and m.labels["detector"] == "efflite0"}
    assert p3 == {"copy", "warp"}
    assert {m.labels["detector"] for m in rows} == {"efflite0", "metadata"}
    assert not list((tmp_path / "run" / "trainings").rglob("frames"))
    # Trainings that are over leave alone what one that was stopped had read.
    read = tmp_path / "run" / "trainings" / "frames"
    (read / "without warp").mkdir(parents=True)
    removed: list[Path] = []
    monkeypatch.setattr("shutil.rmtree", lambda path, **_: removed.append(path))
    again = called(*told, "--detector", "efflite0", "--protocol", "P3", "--config", config, "--no-baseline")
    assert again.exit_code == 0 and removed == [read]


@pytest.mark.slow
def test_what_is_cheap_to_see_stands_beside_it(folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "small.toml"
    config.write_text(SMALL)  # with a setting that a spectrum has not
    told = ("--data", folder / "data", "--fakes", folder / "made", "--frames", 4, "--out", tmp_path / "run")
    ran = called(*told, "--detector", "efflite0", "--protocol", "P1", "--config", config, "--perturb", "blur")
    assert ran.exit_code == 0, ran.output
    rows = read_measurements(tmp_path / "run")
    assert {m.labels["detector"] for m in rows if "level" not in m.labels} == {"efflite0", "spectrum", "metadata"}
    assert {m.labels["detector"] for m in rows if "level" in m.labels} == {"efflite0"}


def test_a_note_names_whom_it_is_about(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def row(detector: str, note: str, metric: str = "tpr_at_5") -> Measurement:
        labels = {"unit": "clip", "detector": detector, "protocol": "P1", "generator": "warp"}
        return Measurement(
            metric=metric,
            value=None,
            higher_is_better=True,
            n_frames=4,
            n_identities=2,
            n_failed=0,
            n_real=2,
            n_fake=2,
            labels=labels,
            note=note,
        )

    of_a = [row("a", "too few"), row("a", "too few", "tpr_at_1"), row("a", "all alike", "auc")]
    of_b = [row("b", "too few"), row("b", "too few", "tpr_at_1"), row("b", "all alike", "ece")]
    _print_table([*of_a, *of_b], tmp_path)
    shown = capsys.readouterr().out.splitlines()
    assert {"tpr_at_1, tpr_at_5: too few", "auc of a: all alike", "ece of b: all alike"} <= set(shown)


def test_a_baseline_needs_people_of_its_own(evidence: Evidence) -> None:
    assert teaches(evidence, ("train", "val", "test"))
    assert {item.split for item in known_to(evidence).items} == {"train", "val"}
    items = tuple(item for item in evidence.items if item.split != "val" or item.label == "real")
    assert not teaches(Evidence(items, evidence.size))


def test_what_is_fitted_at_once_is_fitted_once(folder: Path, tmp_path: Path) -> None:
    told = ("--data", folder / "data", "--fakes", folder / "made", "--frames", 2, "--out", tmp_path / "run")
    for _ in range(2):
        ran = called(*told, "--detector", "spectrum", "--protocol", "P1")
        assert ran.exit_code == 0, ran.output
    made = tmp_path / "run" / "trainings" / "spectrum" / "all generators" / "best.safetensors"
    assert made.exists()
    assert any(m.labels["detector"] == "spectrum" for m in read_measurements(tmp_path / "run"))
    alone = called(*told[:-1], tmp_path / "alone", "--detector", "spectrum", "--protocol", "P1", "--without", "copy")
    assert alone.exit_code == 0, alone.output
    assert {m.labels["generator"] for m in read_measurements(tmp_path / "alone")} == {"warp"}
    wrong = called(*told[:-1], tmp_path / "wrong", "--detector", "spectrum", "--protocol", "P1", "--without", "dye")
    assert isinstance(wrong.exception, ConfigError) and "--without dye" in str(wrong.exception)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "nothing to judge"),
        (("--fakes", "."), "name what to judge with --detector"),
        (("--fakes", ".", "--scores", "x"), "name one of the two"),
        (("--fakes", ".", "--detector", "grain", "--protocol", "P9"), "no protocol is named 'P9'; there are: P1"),
        (("--fakes", ".", "--detector", "x", "--perturb", "rain"), "no perturbation is named 'rain'"),
        (("--fakes", ".", "--detector", "x", "--config", "x"), "--config means something only with a --protocol"),
        (("--fakes", ".", "--detector", "x", "--folds", "3"), "--folds means something only with a --protocol"),
        (("--fakes", ".", "--detector", "x", "--draws", "3"), "--draws means something only with --protocol k-shot"),
        (
            ("--fakes", ".", "--detector", "x", "--protocol", "P1", "--split", "val"),
            "--split means something only with",
        ),
    ],
)
def test_what_cannot_be_asked_is_told(
    arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = called(*arguments)
    assert isinstance(ran.exception, ConfigError) and message in str(ran.exception)
