"""Identity metrics: 1 for one crop, steady under motion of the frame, NaN without a face, and their calibration."""

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import skimage
import torch
import torchvision.transforms.v2.functional as tvf
from torch import Tensor

from thead_eval import features, plugins
from thead_eval.media import read_clip, read_image
from thead_eval.metrics.identity import calibrate, cosine, euclidean
from thead_eval.types import FeatureMetric, FeatureNetwork, Features

CPU = torch.device("cpu")
BILINEAR = tvf.InterpolationMode.BILINEAR


class Faces(NamedTuple):
    frames: Tensor  # [B, 3, 256, 256] uint8
    landmarks: Tensor  # [B, 68, 2]


def find(frames: Tensor) -> Faces:
    return Faces(frames, features.dlib68.load(CPU)(frames, None))


def embed(network: FeatureNetwork, faces: Faces) -> Features:
    return network.load(CPU)(*faces).numpy()


@pytest.fixture(scope="module")
def moved_faces() -> Faces:
    """[5, 3, 256, 256] one photograph, and similarity transforms of it."""
    photograph = read_image(Path(skimage.__file__).parent / "data" / "astronaut.png")  # in the public domain
    face = tvf.resize(photograph[:, :320, 64:384], [256, 256], BILINEAR, antialias=True)
    moves = [(0.0, [0, 0], 1.0), (10.0, [0, 0], 1.0), (-15.0, [5, 0], 1.0), (0.0, [13, -7], 0.85), (8.0, [-6, 4], 1.15)]
    return find(torch.stack([tvf.affine(face, angle, shift, by, [0.0, 0.0], BILINEAR) for angle, shift, by in moves]))


def assert_steady(metric_name: str, moved_faces: Faces) -> None:
    metric: FeatureMetric = plugins.load("metric", metric_name)
    (name,) = metric.features
    rows = embed(plugins.load("features", name), moved_faces)
    first = np.repeat(rows[:1], len(rows), axis=0)
    values = metric.compare({name: rows}, {name: first})
    assert values[0] == pytest.approx(1, abs=1e-6)
    assert values.min() > 0.98


def test_csim_dlib_is_steady_under_similarity_transforms(moved_faces: Faces) -> None:
    assert_steady("csim_dlib", moved_faces)


def test_csim_mobilefacenet_is_steady_under_similarity_transforms(
    mobilefacenet_weights: Path, moved_faces: Faces
) -> None:
    assert_steady("csim_mobilefacenet", moved_faces)


def test_cosine_and_distance() -> None:
    a = np.array([[3, 0], [0, 2], [1, 1], [np.nan, np.nan], [1, 0]], dtype=np.float32)
    b = np.array([[5, 0], [4, 0], [-2, -2], [1, 0], [np.nan, np.nan]], dtype=np.float32)
    np.testing.assert_allclose(cosine(a, b), [1, 0, -1, np.nan, np.nan], atol=1e-12)
    np.testing.assert_allclose(euclidean(a, b), [2, 20**0.5, 18**0.5, np.nan, np.nan])


@pytest.mark.parametrize(
    ("name", "network", "best"),
    [
        ("csim_facenet", "facenet", 1.0),
        ("csim_mobilefacenet", "mobilefacenet", 1.0),
        ("csim_dlib", "dlib_resnet", 1.0),
        ("l2_dlib", "dlib_resnet", 0.0),
    ],
)
def test_a_frame_without_a_face_is_nan(name: str, network: str, best: float) -> None:
    metric: FeatureMetric = plugins.load("metric", name)
    assert metric.features == (network,)
    real = np.random.default_rng(0).normal(size=(2, 8)).astype(np.float32)
    fake = real.copy()
    fake[1] = np.nan
    np.testing.assert_allclose(metric.compare({network: fake}, {network: real}), [best, np.nan], atol=1e-6)
    assert metric.higher_is_better == (best == 1.0)


def test_calibration_by_hand() -> None:
    """Two people with two clips each; in the second clip of the first person the embedding is turned by 60 degrees."""
    half = 3**0.5 / 2
    rows = np.array([[2, 0], [0.5, half], [0, 1], [0, 3]], dtype=np.float32)
    found = calibrate(rows, np.array([7, 7, 9, 9]), np.array([0, 1, 0, 1]))
    assert found.same_pairs == 2
    assert found.same_mean == pytest.approx((0.5 + 1) / 2)
    assert found.same_sd == pytest.approx(0.25)
    assert found.different_pairs == 2  # the other two are of one group
    assert found.different_mean == pytest.approx((0 + half) / 2)
    assert found.auc == pytest.approx(3 / 4)  # of 4 comparisons only 0.5 against 0.87 goes wrong


def test_calibration_leaves_out_rows_without_a_face() -> None:
    rows = np.array([[1, 0], [1, 0], [np.nan, np.nan], [0, 1]], dtype=np.float32)
    found = calibrate(rows, np.array([0, 0, 0, 1]), np.array([0, 1, 2, 3]))
    assert (found.same_pairs, found.different_pairs) == (1, 2)


def test_calibration_without_pairs_of_a_kind_is_none() -> None:
    rows = np.eye(3, dtype=np.float32)
    found = calibrate(rows, np.array([0, 1, 2]), np.array([0, 1, 2]))
    assert (found.same_mean, found.same_sd, found.same_pairs, found.auc) == (None, None, 0, None)
    assert found.different_mean == 0
    nothing = calibrate(rows[:0], np.array([], dtype=np.int64), np.array([], dtype=np.int64))
    assert (nothing.same_pairs, nothing.different_pairs) == (0, 0)


def test_calibration_is_bounded_seeded_and_even() -> None:
    rng = np.random.default_rng(0)
    identities = np.repeat([0, 1, 2], [300, 30, 30])
    groups = np.tile([0, 1], 180)
    centres = rng.normal(size=(3, 16))
    rows = (centres[identities] + 0.3 * rng.normal(size=(360, 16))).astype(np.float32)
    found = calibrate(rows, identities, groups, seed=1, rows=60)
    assert found == calibrate(rows, identities, groups, seed=1, rows=60)
    assert found.same_pairs == 3 * 10 * 10  # ten rows of each of the six clips
    assert found.different_pairs == 3 * 2 * 10 * 10
    assert found != calibrate(rows, identities, groups, seed=2, rows=60)


@pytest.fixture(scope="module")
def ten_people(real_data: Path) -> Faces:
    """[20, 3, 256, 256] the first and the last frame of a clip of each of ten people."""
    with (real_data / "catalogue.csv").open(newline="") as file:
        clips = {row["identity"]: row["file"] for row in csv.DictReader(file) if row["file"].startswith("real/")}
    frames = [read_clip(real_data / file).frames for file in list(clips.values())[::16][:10]]
    return find(torch.cat([clip[[0, -1]] for clip in frames]))


IDENTITIES, GROUPS = np.repeat(np.arange(10), 2), np.tile([0, 1], 10)


def test_csim_mobilefacenet_tells_real_people_apart(mobilefacenet_weights: Path, ten_people: Faces) -> None:
    found = calibrate(embed(features.mobilefacenet, ten_people), IDENTITIES, GROUPS)
    assert found.auc is not None and found.same_mean is not None and found.different_mean is not None
    assert found.auc > 0.99
    assert found.same_mean > 0.6
    assert abs(found.different_mean) < 0.1


def test_csim_dlib_of_unrelated_people_is_high(ten_people: Faces) -> None:
    found = calibrate(embed(features.dlib_resnet, ten_people), IDENTITIES, GROUPS)
    assert found.auc is not None and found.different_mean is not None
    assert found.auc > 0.98
    assert found.different_mean == pytest.approx(0.83, abs=0.04)
