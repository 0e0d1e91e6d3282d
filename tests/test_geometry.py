"""Landmark metrics: analytic values for each norm, equivariance, missing faces, jitter."""

import numpy as np
import pytest
import skimage.transform
from numpy.typing import NDArray

from thead_eval import plugins
from thead_eval.metrics import geometry
from thead_eval.synthetic import Pose, make_head, make_scene, render_head
from thead_eval.types import FeatureMetric, Features

# The point that each point becomes in a mirror.
MIRROR = [*range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1)]
MIRROR += [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40]
MIRROR += [54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65]


def head(yaw: float = 0.0, seed: int = 0) -> Features:
    """[1, 68, 2] landmarks of a procedural head, turned by `yaw` degrees."""
    _, points = render_head(make_head(seed), make_scene(seed, 0), Pose(yaw=np.radians(yaw)), 64)
    return 4 * points[None].astype(np.float32)


def talking(frames: int = 12) -> Features:
    """[T, 68, 2] a head that turns, moves and opens its mouth."""
    poses = [Pose(yaw=0.02 * t, x=0.01 * t, roll=0.03 * t, mouth=0.1 * (t % 3)) for t in range(frames)]
    return np.stack([render_head(make_head(3), make_scene(3, 0), p, 64)[1] for p in poses]).astype(np.float32)


def score(name: str, fake: Features, real: Features) -> NDArray[np.float64]:
    metric: FeatureMetric = plugins.load("metric", name)
    sizes = np.full((len(real), 2), 256, dtype=np.float32)
    return metric.compare(
        {"dlib68": fake, "fan68": fake, "frame_size": sizes}, {"dlib68": real, "fan68": real, "frame_size": sizes}
    )


def moved(points: Features, angle: float, scale: float, shift: complex) -> Features:
    z = points[..., 0] + 1j * points[..., 1]
    z = scale * np.exp(1j * angle) * z + shift
    return np.stack([z.real, z.imag], axis=-1).astype(np.float32)


def test_similarity_is_the_one_of_umeyama() -> None:
    rng = np.random.default_rng(0)
    source, target = rng.normal(size=(2, 4, 9, 2))
    found = geometry.fit_similarity(source, target).move(source)
    for row in range(4):
        reference = skimage.transform.SimilarityTransform.from_estimate(source[row], target[row])
        np.testing.assert_allclose(found[row], reference(source[row]), atol=1e-9)


@pytest.mark.parametrize("yaw", [-60, -30, 0, 30, 60])
def test_yaw_of_procedural_heads(yaw: float) -> None:
    found = [geometry.yaw_degrees(head(yaw, seed))[0] for seed in range(6)]
    assert np.abs(np.array(found) - yaw).max() < 15


@pytest.mark.parametrize("name", ["nme_dlib68", "nme_fan68"])
def test_nme_is_the_offset_over_the_inter_ocular_distance(name: str) -> None:
    real = head()
    fake = real + np.array([3, 4], dtype=np.float32)
    eyes = np.linalg.norm(real[0, 36] - real[0, 45])
    np.testing.assert_allclose(score(name, fake, real), [5 / eyes], rtol=1e-5)


@pytest.mark.parametrize("yaw", [70, -70])
def test_nme_of_a_profile_is_the_offset_over_the_box(yaw: float) -> None:
    real = head(yaw)
    fake = real + np.array([3, 4], dtype=np.float32)
    width, height = real[0].max(axis=0) - real[0].min(axis=0)
    np.testing.assert_allclose(score("nme_dlib68", fake, real), [5 / (0.61 * np.sqrt(width * height))], rtol=1e-5)


def test_the_norm_is_that_of_the_real_face() -> None:
    real, fake = head(0), head(70)
    error = np.linalg.norm(fake[0] - real[0], axis=1).mean()
    np.testing.assert_allclose(score("nme_dlib68", fake, real), error / geometry.inter_ocular(real), rtol=1e-5)


def test_the_two_norms_are_alike_for_a_face_from_the_front() -> None:
    ratio = [geometry.inter_ocular(head(0, seed)) / geometry.box_norm(head(0, seed)) for seed in range(6)]
    assert np.abs(np.array(ratio) / geometry.BOX_TO_INTER_OCULAR - 1).max() < 0.15


@pytest.mark.parametrize("yaw", [0, 70])
def test_nme_does_not_change_when_both_frames_are_moved_and_scaled(yaw: float) -> None:
    real, fake = head(yaw), head(yaw, seed=1)
    before = score("nme_dlib68", fake, real)
    after = score("nme_dlib68", moved(fake, 0, 1.7, 20 - 9j), moved(real, 0, 1.7, 20 - 9j))
    np.testing.assert_allclose(after, before, rtol=1e-5)
    if yaw == 0:  # a rotation changes the box
        turned = score("nme_dlib68", moved(fake, 0.3, 1, 0), moved(real, 0.3, 1, 0))
        np.testing.assert_allclose(turned, before, rtol=1e-5)


def test_nme_is_the_same_in_a_mirror_and_shows_points_that_were_not_swapped() -> None:
    real, fake = head(10), head(10, seed=1)

    def mirrored(points: Features) -> Features:
        return (points * np.array([-1, 1], dtype=np.float32) + np.array([255, 0], dtype=np.float32))[:, MIRROR]

    before = score("nme_dlib68", fake, real)
    np.testing.assert_allclose(score("nme_dlib68", mirrored(fake), mirrored(real)), before, rtol=1e-5)
    np.testing.assert_allclose(mirrored(mirrored(real)), real, rtol=1e-5)
    assert score("nme_dlib68", real[:, MIRROR], real)[0] > 0.5


def test_akd_counts_x_and_y_by_themselves_at_256() -> None:
    real = head()
    fake = real + np.array([3, -4], dtype=np.float32)
    np.testing.assert_allclose(score("akd_dlib68", fake, real), [3.5], rtol=1e-5)
    size = np.array([[128, 64]], dtype=np.float32)
    np.testing.assert_allclose(geometry.average_keypoint_distance(fake, real, size), [7.0], rtol=1e-5)


def test_missing_faces_are_nan_and_counted_by_their_own_metric() -> None:
    present = head()
    absent = np.full_like(present, np.nan)
    real = np.concatenate([present, present, absent, absent])
    fake = np.concatenate([present, absent, present, absent])
    np.testing.assert_array_equal(score("missing_face_dlib68", fake, real), [0, 1, np.nan, np.nan])
    for name in ("nme_dlib68", "akd_dlib68"):
        np.testing.assert_array_equal(score(name, fake, real), [0, np.nan, np.nan, np.nan])


def test_jitter_of_identical_clips_is_exactly_0() -> None:
    clip = talking()
    values = score("jitter_dlib68", clip, clip)
    assert np.isnan(values[[0, -1]]).all()
    assert (values[1:-1] == 0).all()


def test_motion_of_the_whole_head_is_no_jitter() -> None:
    rng = np.random.default_rng(0)
    still = np.concatenate(
        [moved(head(), rng.normal(0, 0.2), rng.uniform(0.8, 1.2), complex(*rng.normal(0, 9, 2))) for _ in range(9)]
    )
    assert np.nanmax(geometry.jitter(still)) < 1e-4


def test_jitter_of_points_that_swing() -> None:
    """Points swing by +d and -d along a stretch, which no similarity transform takes away: 4 d in each frame."""
    angles = 2 * np.pi * np.arange(68) / 68
    circle = 100 * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    swing = np.stack([np.cos(angles), -np.sin(angles)], axis=-1)  # of length 1
    clip = np.stack([circle + swing * (-1) ** t for t in range(6)]).astype(np.float32)
    np.testing.assert_allclose(geometry.jitter(clip)[1:-1], 4.0, rtol=1e-3)
    fake, real = clip, np.repeat(circle[None], 6, axis=0).astype(np.float32)
    np.testing.assert_allclose(geometry.excess_jitter(fake, real)[1:-1], 4.0 / geometry.face_norm(real)[0], rtol=1e-3)
    np.testing.assert_allclose(
        geometry.excess_jitter(real, fake)[1:-1], -4.0 / geometry.face_norm(fake)[1:-1], rtol=1e-3
    )


def test_jitter_is_nan_beside_a_frame_without_a_face() -> None:
    fake, real = talking(9), talking(9)
    fake[4] = np.nan
    assert np.flatnonzero(np.isnan(score("jitter_dlib68", fake, real))).tolist() == [0, 3, 4, 5, 8]
    assert np.isnan(score("jitter_dlib68", fake[:2], real[:2])).all()
    assert len(score("jitter_dlib68", fake[:0], real[:0])) == 0
