"""Detectors and landmarkers on the two public-domain portraits that packages carry."""

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from face_alignment import FaceAlignment, LandmarksType
from face_alignment.api import models_urls
from face_alignment.models import FAN
from matplotlib.cbook import get_sample_data
from numpy.typing import NDArray
from PIL import Image
from skimage.data import astronaut
from torch import Tensor

from thead_eval.backends import CONFIDENT, face_box, fan_landmarker, overlap
from thead_eval.errors import WeightsMissing
from thead_eval.faces import (
    Detector,
    DetectorName,
    Landmarker,
    find_landmarks,
    largest,
    load_detector,
    load_landmarker,
)
from thead_eval.media import read_image
from thead_eval.pictures import Picture

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def landmarker() -> Landmarker:
    """dlib's, which takes a second to load."""
    return load_landmarker("dlib", CPU)


@cache
def detector(name: DetectorName) -> Detector:
    """The same each time: dlib's takes a second to load."""
    return load_detector(name, CPU)


@cache
def portraits() -> tuple[Tensor, Tensor]:
    """[3, 256, 256] uint8 heads of Eileen Collins and Grace Hopper, both works of the US government."""
    whole = astronaut()  # type: ignore[no-untyped-call]  # scikit-image has no types
    collins = Image.fromarray(whole).crop((105, 0, 345, 240)).resize((256, 256))
    hopper = (
        Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False)).crop((46, 10, 466, 430)).resize((256, 256))
    )
    first, second = (torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in (collins, hopper))
    return first, second


def test_two_threads_share_a_detector() -> None:
    """dlib's own would end the process."""
    frames = [portrait[None, :, row:, row:] for row in range(0, 32, 2) for portrait in portraits()]
    alone = [detector("dlib")(frame)[0] for frame in frames]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda frame: detector("dlib")(frame)[0], frames))
    assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))
    assert sum(map(len, alone)) > len(frames) / 2


@pytest.mark.parametrize("name", ["dlib", "mtcnn"])
def test_detectors_agree_on_what_a_box_is(name: DetectorName, landmarker: Landmarker) -> None:
    frames = torch.stack([*portraits(), torch.full((3, 256, 256), 128, dtype=torch.uint8)])
    boxes = detector(name)(frames)
    assert [len(found) for found in boxes] == [1, 1, 0]
    assert all(found.dtype == torch.float32 and found.shape[1] == 5 for found in boxes)
    landmarks = find_landmarks(frames, detector("dlib"), landmarker)
    assert overlap(torch.cat(boxes[:2]).numpy(), face_box(landmarks.points[:2].numpy())).diagonal().min() > 0.6


def test_landmarks_lie_where_the_face_is(landmarker: Landmarker) -> None:
    frames = torch.stack([*portraits()])
    landmarks = find_landmarks(frames, detector("dlib"), landmarker)
    assert landmarks.found.tolist() == [True, True]
    for points in landmarks.points:
        left_eye, right_eye, mouth, chin = points[36:42].mean(0), points[42:48].mean(0), points[48:].mean(0), points[8]
        assert left_eye[0] + 40 < right_eye[0]
        assert max(left_eye[1], right_eye[1]) + 30 < mouth[1] < chin[1] - 10
        assert abs(mouth[0] - (left_eye[0] + right_eye[0]) / 2) < 20
    assert (landmarks.points > 0).all() and (landmarks.points < 256).all()


def test_landmarks_move_with_the_picture(landmarker: Landmarker) -> None:
    portrait, _ = portraits()
    shifted = torch.roll(portrait, shifts=(8, -16), dims=(1, 2))  # 8 down, 16 left
    box = largest(detector("dlib")(portrait[None])[0])
    assert box is not None
    moved = box + torch.tensor([-16.0, 8.0, -16.0, 8.0])
    points = landmarker(torch.stack([portrait, shifted]), torch.stack([box, moved]))
    assert (points[1] - points[0] - torch.tensor([-16.0, 8.0])).abs().max() <= 1


def test_frames_without_a_face_are_nan(landmarker: Landmarker) -> None:
    portrait, _ = portraits()
    frames = torch.stack([torch.zeros_like(portrait), portrait, torch.full_like(portrait, 90)])
    landmarks = find_landmarks(frames, detector("dlib"), landmarker)
    assert landmarks.found.tolist() == [False, True, False]
    assert landmarks.points[~landmarks.found].isnan().all() and not landmarks.points[1].isnan().any()
    assert len(find_landmarks(frames[:0], detector("dlib"), landmarker)) == 0


@pytest.mark.parametrize("name", ["dlib", "mtcnn"])
def test_the_largest_face_is_taken(name: DetectorName) -> None:
    first, second = portraits()
    small = torch.nn.functional.interpolate(second[None].float(), size=(176, 176), mode="area")[0].round().byte()
    frame = torch.full((3, 256, 512), 128, dtype=torch.uint8)
    frame[:, :, :256] = first
    frame[:, 40:216, 300:476] = small
    boxes = detector(name)(frame[None])[0]
    assert len(boxes) == 2
    box = largest(boxes)
    assert box is not None and box[2] < 256
    assert largest(boxes[:0]) is None


def test_small_faces_are_found_where_there_are_no_larger_ones() -> None:
    portrait, _ = portraits()
    small = torch.nn.functional.interpolate(portrait[None].float(), size=(120, 120), mode="area").round().byte()
    assert len(detector("dlib")(small)[0]) == 1


@pytest.mark.parametrize("name", ["dlib", "mtcnn"])
def test_doubtful_boxes_come_on_demand(name: DetectorName) -> None:
    frames = torch.stack([*portraits()])
    confident = detector(name)(frames)
    doubtful = load_detector(name, CPU, doubtful=True)(frames)
    for sure, more in zip(confident, doubtful, strict=True):
        assert (sure[:, 4] >= CONFIDENT[name]).all()
        assert len(more) >= len(sure)


def test_box_from_landmarks_follows_scale_and_place() -> None:
    points = np.random.default_rng(0).random((1, 68, 2), np.float32) * 100
    box = face_box(points)
    assert np.allclose(box[:, 2] - box[:, 0], box[:, 3] - box[:, 1], atol=1e-3)
    assert np.allclose(face_box(points * 3 + 7), box * 3 + 7, atol=1e-2)


def test_overlap_of_boxes() -> None:
    a = np.array([[0, 0, 2, 2]], np.float32)
    b = np.array([[0, 0, 2, 2], [1, 0, 3, 2], [5, 5, 6, 6]], np.float32)
    assert np.allclose(overlap(a, b), [[1, 1 / 3, 0]])


def test_fan_without_its_weights_says_how_to_get_them() -> None:
    with pytest.raises(WeightsMissing, match="theval weights fetch fan_2dfan4"):
        load_landmarker("fan", CPU)


class Careless(FaceAlignment):  # type: ignore[misc]  # face_alignment has no types
    """What versions of the package did: autograd is off afterwards, for all that the process computes."""

    def get_landmarks_from_image(self, image: Picture, detected_faces: list[list[float]]) -> list[NDArray[np.float32]]:
        torch.set_grad_enabled(False)
        found: list[NDArray[np.float32]] = super().get_landmarks_from_image(image, detected_faces)
        return found


@pytest.fixture(scope="module")
def careless(tmp_path_factory: pytest.TempPathFactory) -> FaceAlignment:
    """With random weights, which the package finds where torch.hub would have put its own."""
    torch.manual_seed(0)
    hub = tmp_path_factory.mktemp("hub")
    (hub / "checkpoints").mkdir()
    torch.save(FAN(4).state_dict(), hub / "checkpoints" / models_urls["2DFAN-4"].rpartition("/")[2])
    before = torch.hub.get_dir()
    torch.hub.set_dir(hub)
    try:
        return Careless(LandmarksType.TWO_D, device="cpu", face_detector="folder", compile=False)
    finally:
        torch.hub.set_dir(before)


@pytest.mark.slow
@pytest.mark.parametrize("enabled", [True, False])
def test_fan_leaves_autograd_as_it_was(careless: FaceAlignment, enabled: bool) -> None:
    predict = fan_landmarker(careless)
    picture = portraits()[0].permute(1, 2, 0).contiguous().numpy()
    box = np.array([[60, 60, 200, 200]], np.float32)
    with torch.set_grad_enabled(enabled):
        assert predict([picture], box).shape == (1, 68, 2)
        assert torch.is_grad_enabled() == enabled
        with pytest.raises(cv2.error):
            predict([picture], box * np.float32(np.nan))
        assert torch.is_grad_enabled() == enabled


@pytest.mark.slow
def test_fan_sees_one_picture_at_a_time_and_keeps_none(careless: FaceAlignment) -> None:
    """So that memory, which on a GPU is scarce, does not grow with the clip."""
    seen: list[tuple[int, bool]] = []

    def look(module: torch.nn.Module, inputs: tuple[Tensor, ...], outputs: list[Tensor]) -> None:
        seen.append((len(inputs[0]), any(output.requires_grad for output in outputs)))

    picture = portraits()[0].permute(1, 2, 0).contiguous().numpy()
    hook = careless.face_alignment_net.register_forward_hook(look)
    points = fan_landmarker(careless)([picture] * 2, np.array([[60, 60, 200, 200]] * 2, np.float32))
    hook.remove()
    assert seen == [(1, False)] * 4  # each picture and its mirror image
    assert np.array_equal(points[0], points[1])


def test_real_portraits(real_data: Path, landmarker: Landmarker) -> None:
    """At least 9 in 10 photographs of heads have a face, and both detectors agree where."""
    files = sorted((real_data / "portraits").iterdir())[:60:3]
    frames = torch.stack([read_image(file) for file in files])
    landmarks = find_landmarks(frames, detector("dlib"), landmarker)
    assert landmarks.found.sum() >= 0.9 * len(files)
    by_mtcnn = detector("mtcnn")(frames)
    shared = [
        overlap(boxes.numpy(), face_box(points[None].numpy())).max()
        for boxes, points, found in zip(by_mtcnn, landmarks.points, landmarks.found, strict=True)
        if found and len(boxes)
    ]
    assert len(shared) >= 0.9 * int(landmarks.found.sum()) and np.median(shared) > 0.7
