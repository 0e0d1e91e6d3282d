"""Procedural heads: faces to dlib, exact points, one person per seed, the same on every run."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from thead_eval.data import plan_few_shot_sets
from thead_eval.faces import find_landmarks, load_detector, load_landmarker
from thead_eval.media import probe_video, read_clip
from thead_eval.synthetic import Pose, head_clip, make_head, make_motion, make_scene, render_head
from thead_eval.testing import make_dataset, write_video

CPU = torch.device("cpu")
INNER_LIPS, EYES = slice(60, 68), slice(36, 48)


def test_a_clip_has_the_shape_that_was_asked() -> None:
    clip, landmarks = head_clip(3, frames=5, size=96, fps=12.5)
    assert clip.frames.shape == (5, 3, 96, 96) and clip.frames.is_contiguous() and clip.fps == 12.5
    assert landmarks.points.shape == (5, 68, 2) and landmarks.found.all()
    assert clip.id == "head0003-0"


def test_dlib_finds_the_faces_near_the_exact_points() -> None:
    detector, landmarker = load_detector("dlib", CPU), load_landmarker("dlib", CPU)
    found, errors = [], []
    for identity in range(12):
        clip, landmarks = head_clip(identity, frames=4, size=256, fps=0.7)
        seen = find_landmarks(clip.frames, detector, landmarker)
        eyes = (landmarks.points[:, 36] - landmarks.points[:, 45]).norm(dim=-1)
        errors += ((seen.points - landmarks.points).norm(dim=-1).mean(1) / eyes).tolist()
        found += seen.found.tolist()
    assert np.mean(found) >= 0.98  # 48 frames; 99 % and more of many
    assert np.nanmean(errors) < 0.045  # two landmarkers on one photo disagree by 0.03


def test_the_same_seeds_give_the_same_pixels_and_a_longer_clip_begins_the_same() -> None:
    short, short_points = head_clip(5, frames=3, size=64, seed=2)
    long, long_points = head_clip(5, frames=8, size=64, seed=2)
    assert torch.equal(long.frames[:3], short.frames)
    assert torch.equal(long_points.points[:3], short_points.points)


def test_takes_differ_and_people_differ() -> None:
    first, other_take, other_person = (
        head_clip(i, 1, 64, seed=s)[0].frames.float() for i, s in ((0, 0), (0, 1), (1, 0))
    )
    assert (first - other_take).abs().mean() > 5
    assert (first - other_person).abs().mean() > 5
    shapes = np.stack([make_head(i).points for i in range(20)])
    between = np.linalg.norm(shapes[:, None] - shapes[None], axis=-1).mean(-1)
    assert between[~np.eye(20, dtype=bool)].min() > 0.01  # in units of the eyes' distance


def test_a_person_keeps_face_and_colours_over_takes() -> None:
    head = make_head(4)
    first, second = (render_head(head, make_scene(4, seed), Pose(), 128)[1] for seed in (0, 1))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("size", [64, 128, 256])
def test_points_scale_with_the_picture(size: int) -> None:
    head, scene = make_head(2), make_scene(2, 0)
    large = render_head(head, scene, Pose(yaw=0.2), 512)[1]
    small = render_head(head, scene, Pose(yaw=0.2), size)[1]
    np.testing.assert_allclose((small + 0.5) / size, (large + 0.5) / 512, atol=1e-9)


def test_the_iris_lies_between_its_lids_and_the_lips_have_their_colour() -> None:
    head = make_head(1)
    picture, points = render_head(head, make_scene(1, 0), Pose(mouth=0.0), 512)

    def brightness(x: float, y: float) -> float:
        return float(picture[round(y) - 1 : round(y) + 2, round(x) - 1 : round(x) + 2].mean())

    for eye in (points[36:42], points[42:48]):
        middle, corner = eye.mean(0), 0.8 * eye[0] + 0.2 * eye[3]
        assert brightness(*middle) < 0.7 * brightness(*corner)  # pupil against the white
    lip = points[[51, 62]].mean(0)
    cheek = (points[48] + points[4]) / 2
    red = picture[:, :, 0].astype(float) / (1 + picture.astype(float).sum(-1))
    assert red[round(lip[1]), round(lip[0])] > 1.1 * red[round(cheek[1]), round(cheek[0])]


def test_the_face_ends_at_the_chin_point() -> None:
    head, scene = make_head(1), make_scene(1, 0)
    for pose in (Pose(), Pose(yaw=0.3), Pose(roll=-0.2)):
        picture, points = render_head(head, scene, pose, 512)
        down = (points[8] - points[27]) / np.linalg.norm(points[8] - points[27])
        inside, outside = points[8] - 6 * down, points[8] + 6 * down
        step = [picture[round(p[1]), round(p[0])].astype(float).mean() for p in (inside, outside)]
        assert abs(step[0] - step[1]) > 8


def test_mouth_and_eyes_open_and_close() -> None:
    head, scene = make_head(7), make_scene(7, 0)

    def heights(pose: Pose) -> tuple[float, float]:
        points = render_head(head, scene, pose, 256)[1]
        return points[66, 1] - points[62, 1], points[41, 1] - points[37, 1]

    assert heights(Pose())[0] == pytest.approx(0, abs=0.5)
    assert heights(Pose(mouth=1.0))[0] > 15
    assert heights(Pose())[1] > 4
    assert heights(Pose(blink=1.0))[1] == pytest.approx(0, abs=0.5)


def test_a_take_talks_blinks_and_moves_slowly() -> None:
    motion = make_motion(0, 0, 750, 25.0)
    tracks = np.array(motion)
    assert tracks[:, Pose._fields.index("mouth")].max() > 0.5
    assert (tracks[:, Pose._fields.index("mouth")] == 0).mean() > 0.1  # pauses
    blink = tracks[:, Pose._fields.index("blink")] > 0.5
    assert 4 <= (np.diff(blink.astype(int)) == 1).sum() <= 20  # in 30 seconds
    yaw = tracks[:, 0]
    assert np.abs(np.diff(yaw)).max() < math.radians(2)
    assert np.abs(yaw).max() < math.radians(35)


def test_every_pixel_is_drawn_and_nothing_leaves_the_range() -> None:
    for identity in range(20, 26):
        clip, landmarks = head_clip(identity, 2, 64, fps=1)
        assert landmarks.points.isfinite().all()
        assert 0 < landmarks.points.min() and landmarks.points.max() < 64
        assert clip.frames.float().std() > 20


def test_a_dataset_of_heads_is_enough_for_32_shots(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "heads", identities=2, size=48)
    plans, failures = plan_few_shot_sets(dataset, "test", shots=32, seed=0)
    assert [plan.identity for plan in plans] == ["head0000", "head0001"] and not failures
    drawn = plans[1].read(dataset)
    assert len(drawn.support) == 32 and len(drawn.target) == 32
    clip, landmarks = head_clip(1, 80, 48)
    assert torch.equal(drawn.target_landmarks.points, landmarks.points[48:])
    assert (drawn.target.frames.float() - clip.frames[48:]).abs().mean() < 3  # JPEG


def test_two_takes_of_a_person_are_two_clips_of_one_identity(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "heads", identities=1, frames=2, size=32, clips=2, split="train")
    assert list(dataset.clips["id"]) == ["head0000-0", "head0000-1"]
    assert set(dataset.clips["identity"]) == {"head0000"} and set(dataset.clips["split"]) == {"train"}


@pytest.mark.parametrize(("name", "codec", "pixels"), [("a.mp4", "libx264", "yuv420p"), ("a.avi", "mjpeg", "yuvj420p")])
def test_heads_survive_a_video_file(tmp_path: Path, name: str, codec: str, pixels: str) -> None:
    clip = head_clip(0, 5, 64)[0]
    write_video(tmp_path / name, clip.frames, 30.0, codec, pixels)
    assert probe_video(tmp_path / name).fps == pytest.approx(30)
    read = read_clip(tmp_path / name)
    assert read.frames.shape == clip.frames.shape
    assert (read.frames.float() - clip.frames).abs().mean() < 6
