"""Prepared datasets and the few-shot sets drawn from them."""

from pathlib import Path

import pytest
import torch

from thead_eval.data import (
    GAP_FRAMES,
    TARGET_FRAMES,
    Dataset,
    DatasetInfo,
    RejectedSource,
    open_dataset,
    plan_few_shot_sets,
    write_dataset,
)
from thead_eval.errors import DatasetError
from thead_eval.synthetic import head_clip
from thead_eval.testing import make_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("data") / "heads", identities=3, frames=80, size=64, clips=2)


def test_a_clip_comes_back_as_it_was_written(dataset: Dataset) -> None:
    frames, landmarks = head_clip(1, 80, 64, 25.0, 0)
    clip, points = dataset.read("head0001-0")
    assert clip.fps == 25.0
    assert (clip.frames.float() - frames.frames.float()).abs().mean() < 3  # JPEG
    assert torch.equal(points.points, landmarks.points)
    assert points.found.all()


def test_frames_come_in_the_order_that_was_asked(dataset: Dataset) -> None:
    everything, points = dataset.read("head0002-1")
    some, some_points = dataset.read("head0002-1", [70, 3, 3])
    assert torch.equal(some.frames, everything.frames[[70, 3, 3]])
    assert torch.equal(some_points.points, points.points[[70, 3, 3]])


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_dataset(tmp_path / name, identities=2, frames=4, size=32)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(files) == 4
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_shots_nest_and_stay_apart_from_the_targets(dataset: Dataset) -> None:
    plans, failures = plan_few_shot_sets(dataset, "test", 32, seed=0)
    assert [plan.identity for plan in plans] == ["head0000", "head0001", "head0002"]
    assert not failures
    for plan in plans:
        assert plan.target_indices == tuple(range(80 - TARGET_FRAMES, 80))
        assert max(plan.support_indices) < plan.target_indices[0] - GAP_FRAMES
        assert len(set(plan.support_indices)) == 32
    few, _ = plan_few_shot_sets(dataset, "test", 8, seed=0)
    assert few[1].support_indices == plans[1].support_indices[:8]
    shot_set = plans[1].read(dataset)
    assert torch.equal(shot_set.take(1).support.frames, shot_set.take(8).support.frames[:1])
    with pytest.raises(ValueError, match="has 32 support frames, 33 were asked"):
        shot_set.take(33)


def test_support_frames_follow_the_seed_and_not_the_company(dataset: Dataset) -> None:
    all_plans, _ = plan_few_shot_sets(dataset, "test", 8, seed=0)
    one_plan, _ = plan_few_shot_sets(dataset, "test", 8, seed=0, identities=1)
    other_seed, _ = plan_few_shot_sets(dataset, "test", 8, seed=1)
    assert one_plan == all_plans[:1]
    assert other_seed[0].support_indices != all_plans[0].support_indices


def test_cross_clip_takes_support_from_the_other_clip(dataset: Dataset) -> None:
    plans, _ = plan_few_shot_sets(dataset, "test", 8, seed=0, cross_clip=True)
    assert all(plan.support_clip != plan.target_clip for plan in plans)
    assert max(index for plan in plans for index in plan.support_indices) >= 80 - TARGET_FRAMES - GAP_FRAMES


def test_who_has_too_few_frames_is_named(tmp_path: Path) -> None:
    short = make_dataset(tmp_path / "short", identities=2, frames=60, size=32)
    with pytest.raises(
        DatasetError, match=r"no identity of split 'test' has 32 support and 32 target frames \(2 tried\)"
    ):
        plan_few_shot_sets(short, "test", 32, seed=0)
    plans, _ = plan_few_shot_sets(short, "test", 8, seed=0)
    assert len(plans) == 2
    with pytest.raises(DatasetError, match=r"split 'val' has no real clip \(people: test 2\); name another"):
        plan_few_shot_sets(short, "val", 8, seed=0)
    with pytest.raises(DatasetError, match=r"longest clip of split 'test' has 60 frames, 99 are asked for"):
        plan_few_shot_sets(short, "test", 8, seed=0, min_frames=99)


def test_a_folder_that_is_no_dataset_says_what_makes_one(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"is not a prepared dataset.*theval prepare"):
        open_dataset(tmp_path)


def test_a_damaged_shard_names_the_clip(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "heads", identities=1, frames=8, size=32)
    shard = tmp_path / "heads" / "shards" / "00000.tar"
    shard.write_bytes(bytes(len(shard.read_bytes())))
    with pytest.raises(DatasetError, match=r"00000\.tar': clip 'head0000-0' cannot be read.*prepare it again"):
        dataset.read("head0000-0")


def test_an_unfinished_dataset_is_none(tmp_path: Path) -> None:
    make_dataset(tmp_path / "heads", identities=1, frames=4, size=32)
    (tmp_path / "heads" / "dataset.json").unlink()
    with pytest.raises(DatasetError, match="is not a prepared dataset"):
        open_dataset(tmp_path / "heads")


def test_rejected_sources_keep_their_reason(tmp_path: Path) -> None:
    rejected = RejectedSource("a/b.mp4", "0" * 64, "a", "real", "test", "no face", "0 of 30 frames")
    info = DatasetInfo(size=32, jpeg_quality=95, detector="dlib", landmarks="dlib")
    with pytest.raises(DatasetError, match="none of 1 source files gave a clip"):
        write_dataset(tmp_path, [rejected], info)


def test_an_unknown_clip_is_named(dataset: Dataset) -> None:
    with pytest.raises(DatasetError, match="has no clip 'nobody'"):
        dataset.read("nobody")
