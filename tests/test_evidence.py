"""What detectors learn from: ids that are stated, splits by identity, frames of whole clips, one path for all."""

import csv
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from benchmarks.fakes import make_fakes
from benchmarks.shots import ShotsConfig
from thead_eval.data import Dataset
from thead_eval.errors import DatasetError
from thead_eval.evidence import SIDE, Evidence, alike, read_evidence, spread
from thead_eval.media import write_clip
from thead_eval.synthetic import head_clip
from thead_eval.testing import make_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("data") / "heads", identities=2, frames=60, size=96)


@pytest.fixture(scope="module")
def fakes(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of `warp` and `copy`, two people, one shot."""
    folder = tmp_path_factory.mktemp("fakes") / "made"
    config = ShotsConfig(dataset.path, generators=("copy", "warp"), shots=(1,))
    make_fakes(config, folder, 0, lambda what, done, total: None)
    return folder


@pytest.fixture(scope="module")
def evidence(dataset: Dataset, fakes: Path) -> Evidence:
    return read_evidence(dataset, [fakes])


def test_frames_are_spread_over_the_whole_clip() -> None:
    taken = spread(270, 32)
    assert len(taken) == 32
    assert taken[0] < 9
    assert taken[-1] > 260
    assert {b - a for a, b in pairwise(taken)} == {8, 9}
    assert spread(5, 32) == [0, 1, 2, 3, 4]


def test_a_part_of_a_clip_is_its_frames(evidence: Evidence) -> None:
    for item in (evidence.items[0], evidence.items[-1]):
        part = item.part(10, 5)
        assert len(part.id) > len(item.id) and (part.frames, part.identity) == (5, item.identity)
        assert torch.equal(evidence.read(part, [1, 3]).frames, evidence.read(item, [11, 13]).frames)
        assert torch.equal(evidence.frames(part.part(2, 2), 9).frames, evidence.read(item, [12, 13]).frames)


def test_the_items_of_a_dataset_and_of_its_fakes(evidence: Evidence, dataset: Dataset) -> None:
    assert [item.id for item in evidence.items[:2]] == ["head0000-0", "head0001-0"]
    assert evidence.generators == ("copy", "warp")
    fake = next(item for item in evidence.items if item.id == "made/warp/1/head0001.mkv")
    assert (fake.label, fake.generator, fake.shots, fake.identity) == ("fake", "warp", "1", "head0001")
    assert (fake.split, fake.frames, fake.size) == ("test", 32, 96)
    # A fake, the frames that it reproduces and the clip that these are from have one source.
    assert len({item.source for item in evidence.items if item.identity == "head0001"}) == 1
    assert len([item for item in evidence.items if item.label == "real"]) == 4
    assert evidence.size == 96


def test_to_judge_on_reals_are_as_long_as_their_fakes(dataset: Dataset, fakes: Path) -> None:
    judged = read_evidence(dataset, [fakes], whole=False)
    assert {item.frames for item in judged.items} == {32}


def test_real_frames_that_lie_beside_the_fakes_of_two_folders_count_once(
    evidence: Evidence, dataset: Dataset, fakes: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    make_fakes(ShotsConfig(dataset.path, generators=("copy",), shots=(8,)), again, 0, lambda what, done, total: None)
    assert len(list(again.rglob("real/*.mkv"))) == 2
    both = read_evidence(dataset, [fakes, again])
    assert [item.id for item in both.items if item.label == "real"] == [
        item.id for item in evidence.items if item.label == "real"
    ]
    assert sum(item.label == "fake" for item in both.items) == 6
    copied = read_evidence(dataset, [fakes, Path(shutil.copytree(fakes, tmp_path / "copied"))])
    assert sum(item.label == "fake" for item in copied.items) == 8  # whether these are the same is not to be guessed
    whole = read_evidence(dataset, [Path(dataset.path)])
    assert [item.id for item in whole.items] == ["head0000-0", "head0001-0"]


def test_the_fingerprint_forgets_places_and_knows_contents(evidence: Evidence, dataset: Dataset) -> None:
    moved = Evidence(tuple(replace(item, path="elsewhere") for item in evidence.items), evidence.size)
    assert moved.sha256 == evidence.sha256
    assert evidence.without(["warp"]).sha256 != evidence.sha256


def test_real_and_fake_come_alike(evidence: Evidence) -> None:
    for item in evidence.items:
        clip = evidence.frames(item, 3)
        assert clip.frames.shape == (3, 3, SIDE, SIDE)
        assert clip.frames.dtype == torch.uint8


def test_a_larger_picture_goes_through_the_smaller_size() -> None:
    frames = head_clip(0, 2, 256, 25.0, 0)[0].frames
    small, large = alike(frames, 64), alike(frames, 256)
    # What 64 pixels cannot hold is gone.
    detail = [(x[..., 1:].float() - x[..., :-1].float()).square().mean() for x in (small, large)]
    assert detail[0] < detail[1] / 2
    assert alike(alike(frames, 256)[:0], 64).shape == (0, 3, SIDE, SIDE)


def test_landmarks_follow_the_frames(evidence: Evidence, dataset: Dataset) -> None:
    item = evidence.items[0]
    found = evidence.landmarks(item, [0, 5])
    assert found is not None
    stored = dataset.landmarks(item.clip).points[[0, 5]]
    torch.testing.assert_close(found.points, (stored + 0.5) * (SIDE / 96) - 0.5)
    assert evidence.landmarks(evidence.items[-1], [0]) is None


def test_a_fake_takes_the_split_of_its_identity(dataset: Dataset, fakes: Path, tmp_path: Path) -> None:
    clip = head_clip(0, 3, 64, 25.0, 0)[0]
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_clip(tmp_path / name / "000.mp4", clip)
    with (tmp_path / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [
                ["file", "identity", "label", "split"],
                ["a/000.mp4", "head0000", "one", "train"],
                ["b/000.mp4", "stranger", "two", "train"],
            ]
        )
    one, two = read_evidence(dataset, [tmp_path]).items[-2:]
    assert (one.generator, one.split) == ("one", "test")
    assert (two.generator, two.split) == ("two", "train")
    assert one.id != two.id  # four manipulations of one file name are four items


def test_videos_of_which_nobody_says_what_they_are_are_fakes(tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    for number in range(2):
        write_clip(folder / f"{number}.mp4", head_clip(number, 4, 64)[0])
    items = read_evidence(None, [folder]).items
    assert [(item.label, item.generator, item.identity) for item in items] == [("fake", "theirs", n) for n in "01"]
    (folder / "manifest.csv").write_text("file,identity\n0.mp4,anna\n")
    (item,) = read_evidence(None, [folder]).items
    assert (item.label, item.generator, item.identity) == ("fake", "theirs", "anna")
    (folder / "manifest.csv").write_text("file,identity,label\n0.mp4,anna,real\n1.mp4,ben,hallo\n")
    assert [item.label for item in read_evidence(None, [folder]).items] == ["real", "fake"]
    (folder / "manifest.csv").unlink()
    (folder / "real").mkdir()
    with pytest.raises(DatasetError, match="nothing says what in it is real"):
        read_evidence(None, [folder])


def test_what_cannot_be_evidence(tmp_path: Path, fakes: Path) -> None:
    with pytest.raises(DatasetError, match="is not a folder; give one that"):
        read_evidence(None, [tmp_path / "none"])
    with pytest.raises(DatasetError, match="neither a real clip nor a fake"):
        read_evidence(None, [])
    with pytest.raises(DatasetError, match=r"two clips are called 'made/copy/1/head0000\.mkv'"):
        read_evidence(None, [fakes, fakes])
    write_clip(tmp_path / "wide.mp4", replace(head_clip(0, 3, 64, 25.0, 0)[0], frames=torch.zeros(3, 3, 32, 64).byte()))
    with pytest.raises(DatasetError, match="is 64 x 32, not a square head crop"):
        read_evidence(None, [tmp_path])
