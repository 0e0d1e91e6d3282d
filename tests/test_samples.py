"""Training episodes: what they never contain, what their number fixes, and that pictures and points agree."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from generator.networks import NetworkConfig
from generator.samples import (
    GAP_FRAMES,
    MIRRORED,
    Augmentation,
    Batch,
    Change,
    Episode,
    Footage,
    draw_change,
    draw_episode,
    place,
    read_batch,
    read_footage,
    see,
    unchanged,
)
from thead_eval.data import open_dataset
from thead_eval.drawing import draw_landmarks
from thead_eval.errors import ConfigError, DatasetError
from thead_eval.testing import make_dataset
from thead_eval.training import read_ahead

NETWORK = NetworkConfig(size=32, output="hybrid", output_size=64, channels=4, max_channels=8, embedding=8, down=3)
STILL = Augmentation(flip=0, crop=0, colour=0, stretch=0, noise=0)


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Footage:
    path = tmp_path_factory.mktemp("heads") / "dataset"
    return read_footage(make_dataset(path, identities=3, frames=40, size=64, clips=2, split="train"), "train")


def draw(footage: Footage, number: int, shots: tuple[int, int] = (1, 32), by: Augmentation = STILL) -> Episode:
    return draw_episode(footage, 5, number, shots, by)


def test_clips_and_people_are_in_the_order_of_their_names(footage: Footage) -> None:
    assert [clip.id for clip in footage.clips] == sorted(f"head{i:04d}-{take}" for i in range(3) for take in range(2))
    assert footage.people == ((0, 1), (2, 3), (4, 5))


def test_the_target_is_never_in_its_support_and_stays_apart_from_it(footage: Footage) -> None:
    for number in range(200):
        episode = draw(footage, number)
        distances = np.abs(np.array(episode.support) - episode.target)
        assert distances.min() >= GAP_FRAMES
        assert len(set(episode.support)) == len(episode.support)


def test_a_clip_that_is_too_short_for_the_gap_has_a_smaller_one(tmp_path: Path) -> None:
    footage = read_footage(make_dataset(tmp_path, identities=1, frames=3, size=64, split="train"), "train")
    for number in range(20):
        episode = draw(footage, number)
        assert episode.target not in episode.support
        assert episode.support


def test_an_epoch_takes_every_person_once_and_draws_anew(footage: Footage) -> None:
    epochs = [[draw(footage, 3 * epoch + i) for i in range(3)] for epoch in range(20)]
    for episodes in epochs:
        assert {footage.clips[episode.clip].identity for episode in episodes} == {"head0000", "head0001", "head0002"}
    assert len({tuple(episode.clip for episode in episodes) for episodes in epochs}) > 5
    assert len({episode.target for episodes in epochs for episode in episodes}) > 15


def test_an_episode_is_a_function_of_seed_and_number(footage: Footage) -> None:
    def same(a: Episode, b: Episode) -> bool:
        return str(dataclasses.astuple(a)) == str(dataclasses.astuple(b))

    by = Augmentation()
    assert same(draw(footage, 7, by=by), draw(footage, 7, by=by))
    assert not same(draw(footage, 7, by=by), draw(footage, 8, by=by))
    assert not same(draw(footage, 7, by=by), draw_episode(footage, 6, 7, (1, 32), by))


def test_k_is_log_uniform_between_its_ends(footage: Footage) -> None:
    counts = [len(draw(footage, number, (1, 8)).support) for number in range(400)]
    assert min(counts) == 1 and max(counts) == 8
    assert 0.25 < np.mean(np.array(counts) == 1) < 0.4  # log 2 / log 9 = 0.32
    assert {len(draw(footage, number, (4, 4)).support) for number in range(20)} == {4}


def test_a_batch_holds_the_frames_of_its_episodes(footage: Footage, tmp_path: Path) -> None:
    episodes = [draw(footage, number, (3, 3)) for number in range(2)]
    batch = read_batch(footage, episodes, NETWORK, embed=2)
    dataset = open_dataset(footage.path)
    for b, episode in enumerate(episodes):
        clip, landmarks = dataset.read(footage.clips[episode.clip].id, [episode.target])
        assert batch.x[b].equal(clip.frames[0])
        torch.testing.assert_close(batch.points[b], landmarks.points[0])
        small = (landmarks.points[0] + 0.5) / 2 - 0.5
        assert batch.y[b].equal(draw_landmarks(small, 32, 32))
    assert batch.owner.tolist() == [0, 0, 1, 1]
    assert batch.x_support.shape == batch.y_support.shape == (4, 3, 32, 32)


def test_sources_are_the_nearest_support_frames_and_the_nearest_again(footage: Footage) -> None:
    episode = draw(footage, 0, (6, 6))
    batch = read_batch(footage, [episode], NETWORK, embed=1)
    dataset = open_dataset(footage.path)
    clip, landmarks = dataset.read(footage.clips[episode.clip].id, episode.support)
    distance = (landmarks.points - batch.points[0]).square().sum((1, 2))
    first, second = distance.argsort()[:2].tolist()
    assert batch.sources[0].equal(clip.frames[[first, second, first]])
    torch.testing.assert_close(batch.source_points[0], landmarks.points[[first, second, first]])


def test_rgb_reads_no_sources(footage: Footage) -> None:
    config = dataclasses.replace(NETWORK, output="rgb")
    batch = read_batch(footage, [draw(footage, 0)], config, embed=1)
    assert batch.sources.shape == (1, 0, 3, 64, 64)


def test_a_mirror_renames_points_and_twice_is_nothing() -> None:
    assert MIRRORED[MIRRORED].tolist() == list(range(68))
    assert MIRRORED[[0, 8, 17, 27, 31, 36, 48, 60]].tolist() == [16, 8, 26, 27, 35, 45, 54, 64]


@pytest.mark.parametrize("flip", [False, True])
def test_points_move_with_the_picture(footage: Footage, flip: bool) -> None:
    # A mark at a landmark is found again at the place of that landmark.
    from PIL import Image

    change = Change(flip, (8.0, 4.0, 56.0, 52.0), None, (1.0, 1.0), None)
    points = np.full((68, 2), 30, np.float32)
    points[36] = 20, 40
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[39:42, 19:22] = 255
    seen = see(Image.fromarray(pixels), change, 96)
    moved = place(points, change, 96, 64)[45 if flip else 36]
    rows, columns = np.nonzero(seen[..., 0] > 128)
    assert np.allclose(moved, [columns.mean(), rows.mean()], atol=0.6)


def test_target_and_support_change_alike(footage: Footage) -> None:
    by = Augmentation(flip=1, crop=1, smallest=0.5, colour=0.3, stretch=0, noise=0)
    episode = draw(footage, 3, (1, 1), by)
    mirrored = dataclasses.replace(episode, support=(episode.target,))
    batch = read_batch(footage, [mirrored], NETWORK, embed=1)
    assert batch.sources[0, 0].equal(batch.x[0])
    assert batch.source_points[0, 0].equal(batch.points[0])
    plain = read_batch(footage, [dataclasses.replace(mirrored, change=unchanged(64))], NETWORK, embed=1)
    assert not plain.x.equal(batch.x)


def test_stretch_and_noise_move_the_driving_landmarks_alone(footage: Footage) -> None:
    episode = draw(footage, 3, (1, 1))
    change = draw_change(np.random.default_rng(0), 64, dataclasses.replace(STILL, stretch=0.1, noise=2.0))
    still, moved = (
        read_batch(footage, [dataclasses.replace(episode, change=c)], NETWORK, embed=1) for c in (unchanged(64), change)
    )
    assert still.x.equal(moved.x)
    assert still.source_points.equal(moved.source_points)
    assert not still.points.equal(moved.points)
    ratio = (moved.points.amax(1) - moved.points.amin(1)) / (still.points.amax(1) - still.points.amin(1))
    assert ((ratio > 0.8) & (ratio < 1.25)).all()


@pytest.mark.parametrize("workers", [1, 2])
def test_read_ahead_keeps_the_order_and_passes_errors_on(workers: int) -> None:
    assert list(read_ahead(lambda n: n * n, 3, 20, workers)) == [n * n for n in range(3, 20)]

    def fail(n: int) -> int:
        if n == 4:
            raise DatasetError("broken")
        return n

    seen: list[int] = []
    with pytest.raises(DatasetError, match="broken"):
        for value in read_ahead(fail, 0, 10, workers):
            seen.append(value)
    assert seen == [0, 1, 2, 3]


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    footage = read_footage(make_dataset(tmp_path, identities=1, frames=4, size=64, split="train"), "train")
    shard = tmp_path / "shards" / "00000.tar"
    shard.write_bytes(b"\0" * shard.stat().st_size)
    with pytest.raises(DatasetError, match=r"00000\.tar': frame 1 of clip 'head0000-0' cannot be read"):
        footage.picture(0, 1)


def test_a_split_without_clips_is_named(footage: Footage) -> None:
    with pytest.raises(DatasetError, match="no real clip with landmarks in split 'test'"):
        read_footage(open_dataset(footage.path), "test")


@pytest.mark.parametrize("wrong", [{"flip": 2}, {"smallest": 0}, {"colour": 0.9}, {"stretch": -1}, {"noise": -1}])
def test_an_augmentation_out_of_range_is_named(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Augmentation(**wrong)


def test_a_batch_goes_to_a_device_whole(footage: Footage) -> None:
    batch = read_batch(footage, [draw(footage, 0)], NETWORK, embed=1)
    moved = batch.to(torch.device("cpu"))
    assert isinstance(moved, Batch)
    assert all(isinstance(field, Tensor) and field.equal(other) for field, other in zip(moved, batch, strict=True))
