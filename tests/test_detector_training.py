"""Training of detectors: samples that their number fixes, a stopped run that is the run that would have been."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from detectors.augment import Augmentation, change, draw_change, through_jpeg
from detectors.checkpoint import TrainedDetector, load_detector
from detectors.exam import BLENDED, prepare_exam
from detectors.fit import fit
from detectors.measured import CHANGED, PLAIN, Measured, balance, measure, share
from detectors.recipe import Recipe, TrainConfig, read_recipe
from detectors.samples import Footage, draw_sample, read_batch, read_footage
from detectors.sbi import self_blend
from detectors.spectrum import Spectrum
from detectors.train import Ending, train
from thead_eval.data import Dataset, DatasetInfo, PreparedClip, encode_jpeg, open_dataset, write_dataset
from thead_eval.errors import ConfigError, DatasetError, RunError
from thead_eval.evidence import SIDE, Evidence, read_evidence
from thead_eval.media import write_clip
from thead_eval.pictures import through_h264
from thead_eval.synthetic import head_clip
from thead_eval.tensors import read_tensors, write_tensors
from thead_eval.training import Status, open_fabric
from thead_eval.types import Clip

TRAIN = TrainConfig(
    batch=4,
    steps=6,
    warmup=2,
    frames=3,
    validation_frames=2,
    precision="32-true",
    log_every=2,
    save_every=2,
    validate_every=3,
)
RECIPE = Recipe("efflite0", {"size": 32}, TRAIN, Augmentation())
FABRIC = open_fabric("cpu", "32-true")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Four people to learn from, two to validate on."""
    path = tmp_path_factory.mktemp("heads") / "dataset"
    clips = []
    for identity in range(6):
        clip, landmarks = head_clip(identity, 24, 64, 25.0, 0)
        clips.append(
            PreparedClip(
                id=clip.id,
                identity=f"head{identity}",
                source=f"{clip.id}.procedural",
                source_sha256=str(identity),
                label="real",
                split="train" if identity < 4 else "val",
                fps=25.0,
                first_frame=0,
                crop_box=(0.0, 0.0, 64.0, 64.0),
                jpegs=[encode_jpeg(frame, 95) for frame in clip.frames],
                landmarks=landmarks,
            )
        )
    write_dataset(path, clips, DatasetInfo(size=64, jpeg_quality=95, detector="none", landmarks="none"))
    return open_dataset(path)


@pytest.fixture(scope="module")
def fakes(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everyone in the dataset, dyed by one generator and striped by another."""
    folder = tmp_path_factory.mktemp("made") / "fakes"
    rows = ["file,identity,label"]
    for identity in range(6):
        frames = head_clip(identity, 20, 64, 25.0, 0)[0].frames
        dyed, striped = frames.clone(), frames.clone()
        dyed[:, 0] = 255 - dyed[:, 0]
        striped[:, :, ::4] = 0
        for name, made in {"dye": dyed, "stripe": striped}.items():
            (folder / name).mkdir(parents=True, exist_ok=True)
            write_clip(folder / name / f"{identity}.mkv", Clip("a", made, 25.0), lossless=True)
            rows.append(f"{name}/{identity}.mkv,head{identity},{name}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def evidence(dataset: Dataset, fakes: Path) -> Evidence:
    return read_evidence(dataset, [fakes])


@pytest.fixture(scope="module")
def footage(evidence: Evidence, tmp_path_factory: pytest.TempPathFactory) -> Footage:
    return read_footage(evidence.of("train"), tmp_path_factory.mktemp("frames") / "train.npy", 3, 1, 1)


# Frames and samples.


def test_frames_are_read_once_and_are_the_evidence(evidence: Evidence, tmp_path: Path) -> None:
    path = tmp_path / "val.npy"
    own = evidence.of("val")
    first = read_footage(own, path, 2, window=3, stride=2)
    assert first.frames.shape == (12, 3, SIDE, SIDE, 3)  # two people, real and of two generators, two windows each
    expected = own.read(own.items[0], [5, 7, 9]).frames.permute(0, 2, 3, 1)  # 24 frames hold 20 windows: 5 and 15
    assert np.array_equal(first.frames[0], expected.numpy())
    written = path.stat().st_mtime_ns
    again = read_footage(own, path, 2, window=3, stride=2)
    assert path.stat().st_mtime_ns == written
    assert np.array_equal(first.points, again.points, equal_nan=True)
    assert np.isfinite(first.points[0]).all() and np.isnan(first.points[-1]).all()
    assert read_footage(own, path, 2, window=1, stride=1).frames.shape[1] == 1  # asked otherwise, read anew
    with pytest.raises(DatasetError, match="none of 6 clips has 241 frames"):
        read_footage(own, path, 2, window=16, stride=16)


def test_half_of_the_samples_are_fake_and_all_generators_count_alike(footage: Footage) -> None:
    drawn = [draw_sample(footage, 0, number, blends=0.0) for number in range(400)]
    assert [sample.fake for sample in drawn[:4]] == [True, False, True, False]
    owners = [footage.items[int(footage.owner[sample.row])] for sample in drawn]
    assert all((item.label == "fake") == sample.fake for item, sample in zip(owners, drawn, strict=True))
    makers = [item.generator for item in owners if item.generator]
    assert 80 < makers.count("dye") < 120
    same = [fake.identity == real.identity for fake, real in zip(owners[::2], owners[1::2], strict=True)]
    assert 0.5 < np.mean(same) < 0.75  # a half, and a quarter of the other half by chance
    assert draw_sample(footage, 0, 7, blends=0.0) == drawn[7]


def test_a_batch_is_what_its_numbers_say(footage: Footage) -> None:
    whole = read_batch(footage, range(4), 0, Augmentation(), 32)
    halves = [read_batch(footage, range(n, n + 2), 0, Augmentation(), 32) for n in (0, 2)]
    assert whole.x.shape == (4, 1, 3, 32, 32)
    assert torch.equal(whole.x, torch.cat([half.x for half in halves]))
    assert whole.fake.tolist() == [1, 0, 1, 0]


def test_blends_need_no_fakes(footage: Footage) -> None:
    for number in range(0, 40, 2):
        fake, real = (draw_sample(footage, 0, n, blends=1.0) for n in (number, number + 1))
        assert fake.row == real.row and fake.blend is not None and real.blend is None
        assert not footage.fake[fake.row]


def test_blends_may_be_a_part_of_the_fakes(footage: Footage) -> None:
    drawn = [draw_sample(footage, 0, number, blends=0.3) for number in range(0, 1000, 2)]
    assert all(sample.fake for sample in drawn)
    blended = [sample for sample in drawn if sample.blend is not None]
    assert 0.2 < len(blended) / len(drawn) < 0.4
    assert {bool(footage.fake[sample.row]) for sample in blended} == {False}
    assert {bool(footage.fake[sample.row]) for sample in drawn if sample.blend is None} == {True}


def test_a_blended_training_is_validated_on_blends_too(footage: Footage) -> None:
    """Beside the fakes of each generator: otherwise only fakes of generators that are known would choose."""
    plain, blended = (prepare_exam(footage, blends=blends, seed=0) for blends in (False, True))
    assert set(plain.generators) == {"", "dye", "stripe"}
    assert set(blended.generators) == {"", "dye", "stripe", BLENDED}
    more = blended.samples[len(plain.samples) :]
    assert len(more) == sum(not sample.fake for sample in plain.samples)
    assert all(sample.fake and sample.blend is not None and not footage.fake[sample.row] for sample in more)
    assert {blended.identities[n] for n in np.flatnonzero(np.array(blended.generators) == BLENDED)} == set(
        footage.reals_of
    )


def test_whole_clips_are_blended_where_a_part_is_asked_about(footage: Footage) -> None:
    """`theval generate` lays the real frames that a fake reproduces beside it, without landmarks."""
    whole = next(number for number, item in enumerate(footage.items) if item.label == "real")
    part = replace(footage.items[whole], id="part", clip="", path="part.mkv")
    rows = np.flatnonzero(footage.owner == whole)
    more = Footage(
        (*footage.items, part),
        0,
        np.concatenate([footage.frames, footage.frames[rows]]),
        np.concatenate([footage.owner, np.full(len(rows), len(footage.items))]),
        np.concatenate([footage.points, np.full((len(rows), 68, 2), np.nan, np.float32)]),
    )
    exam = prepare_exam(more, blends=True, seed=0)
    own = [sample for sample in exam.samples if more.items[int(more.owner[sample.row])].identity == part.identity]
    asked = {sample.row for sample in own if sample.blend is None and not sample.fake}
    assert asked == {len(footage.frames) + n for n in range(len(rows))}
    assert {sample.row for sample in own if sample.blend is not None} == set(rows.tolist())


def test_a_blend_stays_inside_the_face(footage: Footage) -> None:
    row = 0
    frame, points = np.array(footage.frames[row, 0]), footage.points[row]
    changed = [np.abs(self_blend(frame, points, seed).astype(int) - frame).mean(axis=2) for seed in range(12)]
    assert np.array_equal(self_blend(frame, points, 3), self_blend(frame, points, 3))
    assert np.mean([difference[80:160, 80:144].mean() for difference in changed]) > 1
    # Where the copy outside is the clean one, the border is the picture's own.
    assert min(difference[:8].max() for difference in changed) == 0


def test_changes_keep_what_they_do_not_name() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    nothing = Augmentation(flip=0, crop=0, colour=0, blur=0, noise=0, resize=0, h264=0, jpeg=0)
    assert np.array_equal(change([frame], draw_change(np.random.default_rng(0), nothing), SIDE)[0], frame)
    flipped = change([frame], draw_change(np.random.default_rng(0), replace(nothing, flip=1)), SIDE)[0]
    assert np.array_equal(flipped[:, ::-1], frame)


def test_two_frames_of_a_sample_are_changed_alike() -> None:
    frame = np.asarray(head_clip(0, 1, SIDE, 25.0, 0)[0].frames[0].permute(1, 2, 0))
    by = Augmentation(flip=1, crop=1, colour=1, blur=1, noise=0, resize=1, h264=0, jpeg=1)
    first, second = change([frame, frame], draw_change(np.random.default_rng(1), by), 64)
    assert first.shape == (64, 64, 3)
    assert np.array_equal(first, second)
    assert not np.array_equal(first, frame[:64, :64])


def test_late_noise_is_not_coded() -> None:
    grey = np.full((SIDE, SIDE, 3), 128, np.uint8)
    coded = Augmentation(
        flip=0, crop=0, colour=0, blur=0, noise=1.0, noise_to=8.0, resize=0, h264=1.0, crf=(40, 40), jpeg=0
    )
    by = draw_change(np.random.default_rng(0), coded)
    late = draw_change(np.random.default_rng(0), replace(coded, noise_late=1.0))
    assert by.noise is not None and late == by._replace(noise=(*by.noise[:2], True))  # nothing else is drawn anew
    smooth, rough = (np.stack(change([grey] * 3, each, SIDE)).std() for each in (by, late))
    assert smooth < by.noise[0] / 4 and rough == pytest.approx(by.noise[0], rel=0.1)


def test_the_stronger_the_coding_the_farther_the_picture() -> None:
    frames = [np.asarray(frame.permute(1, 2, 0)) for frame in head_clip(0, 3, 65, 25.0, 0)[0].frames]

    def error(coded: list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]) -> float:
        assert len(coded) == 3 and coded[0].shape == (65, 65, 3)
        return float(np.abs(np.stack(coded).astype(int) - np.stack(frames)).mean())

    assert error([through_jpeg(f, 95) for f in frames]) < error([through_jpeg(f, 40) for f in frames])
    assert error(through_h264(frames, 20)) < error(through_h264(frames, 40))


# Training.


def run(evidence: Evidence, out: Path, recipe: Recipe = RECIPE, resume: bool = False, stop_at: int = 0) -> Ending:
    def tell(status: Status) -> None:
        if status.step == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    return train(recipe, evidence, out, FABRIC, resume=resume, tell=tell)


def weights_of(path: Path) -> dict[str, Tensor]:
    detector = load_detector(path)
    assert isinstance(detector, TrainedDetector)
    return detector.network.state_dict()


@pytest.fixture(scope="module")
def finished(evidence: Evidence, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    ending = run(evidence, out)
    assert (ending.step, ending.signal) == (6, None)
    assert ending.best_step in (3, 6)
    return out


def test_a_training_leaves_a_detector_that_knows_what_it_has_seen(finished: Path, evidence: Evidence) -> None:
    detector = load_detector(finished)
    assert isinstance(detector, TrainedDetector)
    assert detector.name == "efflite0"
    assert detector.generators == ("dye", "stripe")
    assert detector.knows("head0") and detector.knows("head5") and not detector.knows("head6")
    assert (detector.metadata["fps"], detector.slowest) == ("25.000", 18.0)
    validation = json.loads(detector.metadata["validation"])
    assert (validation["reals"], validation["fakes"], validation["real_people"]) == (2, 4, 2)
    item = evidence.items[0]
    assert detector.score(evidence.frames(item, 5)).shape == (5,)
    journal = pd.read_csv(finished / "metrics.csv")
    assert {"loss", "val/auc", "val/auc/dye", "val/log_loss"} <= set(journal["name"])


def test_a_stopped_run_is_the_run_that_would_have_been(finished: Path, evidence: Evidence, tmp_path: Path) -> None:
    out = tmp_path / "stopped"
    assert run(evidence, out, stop_at=4).signal == signal.SIGTERM
    assert run(evidence, out, resume=True).step == 6
    whole, again = weights_of(finished), weights_of(out)
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_a_training_goes_on_that_knows_fewer_settings(finished: Path, evidence: Evidence, tmp_path: Path) -> None:
    older = tmp_path / "older"
    older.mkdir()
    stored = read_tensors(finished / "last.safetensors", "theval detect train")
    recipe = json.loads(stored.metadata["recipe"])
    del recipe["augmentation"]["noise_late"]
    metadata = stored.metadata | {"recipe": json.dumps(recipe)}
    write_tensors(older / "last.safetensors", stored.tensors, metadata)
    assert run(evidence, older, resume=True).step == 6
    with pytest.raises(RunError, match=r"was trained with augmentation noise_late = 0\.0, not 0\.5"):
        run(evidence, older, replace(RECIPE, augmentation=Augmentation(noise_late=0.5)), resume=True)


def test_trainings_of_the_same_clips_share_their_frames(evidence: Evidence, tmp_path: Path) -> None:
    short = replace(RECIPE, train=replace(TRAIN, steps=1, validate_every=1))
    told: list[str] = []

    def read(what: str, done: int, of: int) -> None:
        told.append(what)

    for name in ("first", "second"):
        train(short, evidence, tmp_path / name, FABRIC, frames=tmp_path / "shared", read=read)
        assert set(told) == ({"to learn from", "to validate on"} if name == "first" else set())
        assert not (tmp_path / name / "frames").exists()
        told.clear()


@pytest.mark.slow
def test_it_learns(evidence: Evidence, tmp_path: Path) -> None:
    """What a glance tells apart: people of other colours, and stripes."""
    train_config = replace(TRAIN, batch=8, steps=24, lr=1e-3, ema=0.5, validate_every=12)
    ending = run(evidence, tmp_path / "run", replace(RECIPE, train=train_config, augmentation=Augmentation(colour=0)))
    assert ending.best < 0.6  # 0.69 is a coin


def test_a_blended_training_needs_real_clips_alone(dataset: Dataset, tmp_path: Path) -> None:
    recipe = replace(RECIPE, detector="sbi", train=replace(TRAIN, steps=3, blends=1.0))
    run(read_evidence(dataset, []), tmp_path / "run", recipe)
    detector = load_detector(tmp_path / "run")
    assert isinstance(detector, TrainedDetector)
    assert detector.generators == ()


def test_what_cannot_be_trained(finished: Path, evidence: Evidence, dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="already holds a training; pass --resume"):
        run(evidence, finished)
    with pytest.raises(RunError, match=r"was trained with train lr = 0\.0002, not 0\.1"):
        run(evidence, finished, replace(RECIPE, train=replace(TRAIN, lr=0.1)), resume=True)
    small = replace(RECIPE, network={**RECIPE.network, "size": 64})
    with pytest.raises(RunError, match=r"was trained with network size = .*, not 64"):
        run(evidence, finished, small, resume=True)
    with pytest.raises(RunError, match=r"was trained with network size = .*, not None"):
        run(evidence, finished, replace(RECIPE, network={}), resume=True)
    with pytest.raises(ConfigError, match="train validate_every is 0; it must be at least 1"):
        replace(TRAIN, validate_every=0)
    with pytest.raises(ConfigError, match="train warmup is -1; it must be at least 0"):
        replace(TRAIN, warmup=-1)
    with pytest.raises(RunError, match="was trained with detector = 'efflite0', not 'sbi'"):
        run(evidence, finished, replace(RECIPE, detector="sbi"), resume=True)
    with pytest.raises(RunError, match="learnt from other clips"):
        run(evidence.without(["dye"]), finished, resume=True)
    with pytest.raises(DatasetError, match="the split 'train' holds no fakes"):
        run(read_evidence(dataset, []), tmp_path / "a")
    learnt = tuple(item for item in evidence.items if item.split == "train" or item.label == "real")
    with pytest.raises(DatasetError, match="the split 'val' holds 2 real clips and 0 fakes; validation needs both"):
        run(Evidence(learnt, evidence.size), tmp_path / "b")


def test_recipes(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text("[network]\nsize = 96\n[train]\nlr = 0.1\n[augmentation]\ncrf = [30, 40]\n")
    recipe = read_recipe("efflite0", path, {"steps": 5})
    assert (recipe.network, recipe.train.lr, recipe.train.steps) == ({"size": 96}, 0.1, 5)
    assert recipe.augmentation.crf == (30, 40)
    with pytest.raises(ConfigError, match=r"unknown key in \[network\] 'size'"):
        read_recipe("spectrum", path)
    assert read_recipe("spectrum", path, beside=["spectrum", "efflite0"]).network == {}  # that is for the other
    path.write_text("[train]\nleraning_rate = 1\n")
    with pytest.raises(ConfigError, match=r"unknown key in \[train\] 'leraning_rate'"):
        read_recipe("efflite0", path)
    with pytest.raises(ConfigError, match="no detector is named 'eflite0'; did you mean 'efflite0'"):
        read_recipe("eflite0")
    with pytest.raises(ConfigError, match="train batch is 3; it must be even"):
        TrainConfig(batch=3)
    with pytest.raises(ConfigError, match=r"augmentation quality = \[90, 40\] is out of range"):
        Augmentation(quality=(90, 40))


# Fits.


class Counting(Spectrum):
    """A spectrum that remembers how many windows it was shown, and may be killed."""

    changes = Augmentation(h264=0, jpeg=1.0)

    def __init__(self, dies_at: int = 0) -> None:
        super().__init__()
        self.calls: list[int] = []  # a list, as two threads measure
        self.dies_at = dies_at

    @property
    def windows(self) -> int:
        return sum(self.calls)

    def measure(self, windows: Tensor) -> Tensor:
        self.calls.append(len(windows))
        if self.dies_at and self.windows > self.dies_at:
            raise KeyboardInterrupt
        return super().measure(windows)


def measured(evidence: Evidence, folder: Path, kind: Counting, blends: bool = False) -> Measured:
    changes = None if blends else kind.changes
    recipe = replace(RECIPE, detector="spectrum", network={})
    return measure(kind, recipe, evidence, 3, folder, torch.device("cpu"), changes=changes, blends=blends)


def test_trainings_share_what_is_measured(evidence: Evidence, tmp_path: Path) -> None:
    """And of a clip the same is measured, whoever stands beside it."""
    train, first, second = evidence.of("train"), Counting(), Counting()
    without = measured(train.without(["dye"]), tmp_path / "shared", first)
    whole = measured(train, tmp_path / "shared", second)
    assert (first.windows, second.windows) == (2 * 3 * 8, 2 * 3 * 4)  # plain and changed, of three windows a clip
    alone = measured(train, tmp_path / "alone", Counting())
    assert np.array_equal(whole.numbers, alone.numbers)
    kept = np.array([item.generator != "dye" for item in whole.items])[whole.owner]
    assert np.array_equal(without.numbers, whole.numbers[kept])
    assert without.shown.tolist() == whole.shown[kept].tolist()
    assert not np.array_equal(whole.numbers[whole.shown == PLAIN], whole.numbers[whole.shown == CHANGED])
    third = Counting()  # in another fold these people are to validate on
    fold = Evidence(tuple(replace(item, split="val") for item in train.items), train.size)
    assert np.array_equal(measured(fold, tmp_path / "shared", third).numbers, whole.numbers) and third.windows == 0


def test_a_fit_that_was_killed_goes_on(evidence: Evidence, tmp_path: Path) -> None:
    train, killed, again = evidence.of("train"), Counting(dies_at=30), Counting()
    with pytest.raises(KeyboardInterrupt):
        measured(train, tmp_path / "killed", killed)
    resumed = measured(train, tmp_path / "killed", again)
    assert 0 < again.windows < 2 * 3 * len(train.items)
    assert np.array_equal(resumed.numbers, measured(train, tmp_path / "whole", Counting()).numbers)


def test_real_clips_with_landmarks_are_measured_blended(evidence: Evidence, tmp_path: Path) -> None:
    seen = measured(evidence.of("val"), tmp_path, Counting(), blends=True)
    blended = seen.shown == BLENDED
    assert {seen.items[int(place)].label for place in seen.owner[blended]} == {"real"}
    assert blended.sum() == 2 * 3
    for place in np.unique(seen.owner[blended]):
        own = seen.owner == place
        assert not np.array_equal(seen.numbers[own & blended], seen.numbers[own & ~blended])


def test_another_ensemble_measures_anew(evidence: Evidence, tmp_path: Path) -> None:
    first, second = Counting(), Counting()
    for kind in (first, second):
        kind.norm = torch.nn.BatchNorm2d(2)  # counts its batches in a tensor without dimensions
    measured(evidence.of("val"), tmp_path, first)
    second.rule.get_buffer("bias").fill_(1)  # as of members that were trained otherwise
    measured(evidence.of("val"), tmp_path, second)
    assert second.windows == first.windows > 0


def test_a_stack_judges_each_person_by_what_learnt_from_others(evidence: Evidence, tmp_path: Path) -> None:
    """Members that learn by heart would be sure of those whom they learnt from; validation must not see that."""
    recipe = read_recipe("stack", None, {"frames": 2, "learns": {"grain": ["dye"]}})
    recipe = replace(recipe, network={"members": ["spectrum", "grain"]})
    later = replace(evidence.items[-1], id="later", split="test", label="fake", generator="later")
    shown = Evidence((*evidence.items, later), evidence.size)
    ending = fit(recipe, shown, tmp_path / "stack", torch.device("cpu"))
    assert 0 < ending.best < 3 and ending.step == 0
    detector = load_detector(tmp_path / "stack")
    assert isinstance(detector, TrainedDetector)
    assert detector.generators == ("dye", "stripe")  # and not the one of which there are fakes of test people alone
    known = {item.identity for item in evidence.items if item.split != "test"}
    assert all(detector.knows(name) for name in known)
    of_validation = json.loads(detector.metadata["validation"])
    assert of_validation["real_people"] == len(known)  # of both splits, as each is judged by others
    item = next(item for item in evidence.items if item.label == "fake")
    logits = detector.logits(evidence.read(item, range(16)).frames)
    assert logits.isfinite().all()
    slopes, shifts = detector.network.get_buffer("line").T
    assert (slopes >= 0).all() and (shifts < 0).any() and len(set(slopes.tolist())) == 2


def test_blends_have_the_part_of_the_fakes_that_was_asked_for() -> None:
    fake = np.array([False, False, True, True, True, True])
    makers = np.array(["", "", "a", "a", "b", BLENDED])
    weights = balance(fake, makers, share(makers[fake], 0.2))
    np.testing.assert_allclose(weights / weights.sum(), [0.25, 0.25, 0.1, 0.1, 0.2, 0.1])
    assert balance(fake, makers, {"a": 1.0})[4:].tolist() == [0, 0]  # of whom it is not to learn
