"""Feature networks: agreement with the packages that they come from, alignment, and rows that no batch changes."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Literal

import dlib
import numpy as np
import pytest
import skimage.transform
import torch
import torchvision.transforms.v2.functional as tvf
from facenet_pytorch import MTCNN, InceptionResnetV1
from PIL import Image
from torch import Tensor, nn

from thead_eval import features, plugins, weights
from thead_eval.errors import WeightsMissing
from thead_eval.media import read_image
from thead_eval.types import ExtractFunction, FeatureNetwork

CPU = torch.device("cpu")
PICTURES = Path(skimage.__file__).parent / "data"  # in the public domain


def random_state(network: nn.Module) -> dict[str, Tensor]:
    """Seeded values of a scale at which features neither vanish nor explode."""
    generator = torch.Generator().manual_seed(5)
    state = {}
    for name, tensor in network.state_dict().items():
        if tensor.ndim > 1:
            fan_in = tensor[0].numel()
            state[name] = torch.randn(tensor.shape, generator=generator) * (2 / fan_in) ** 0.5
        elif name.endswith(("running_var", "weight")):
            state[name] = torch.rand(tensor.shape, generator=generator) + 0.5
        elif name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(0)
        else:
            state[name] = 0.1 * torch.randn(tensor.shape, generator=generator)
    return state


@cache
def extractor(name: str) -> ExtractFunction:
    """One of our networks, the same each time: dlib's take a second to load."""
    network: FeatureNetwork = plugins.load("features", name)
    return network.load(CPU)


@pytest.fixture(scope="module")
def inception_state() -> dict[str, Tensor]:
    from torchvision.models import inception_v3

    with torch.device("meta"):  # the FID network has the parameters of torchvision's, and other poolings
        network = inception_v3(weights=None, num_classes=1008, aux_logits=False, init_weights=False)
    return random_state(network)


@pytest.fixture(scope="module")
def face() -> Tensor:
    """[3, 256, 256] an astronaut."""
    resized: Tensor = tvf.resize(read_image(PICTURES / "astronaut.png")[:, :320, 64:384], [256, 256])
    return resized


@pytest.fixture(scope="module")
def frames(face: Tensor) -> Tensor:
    """[4, 3, 256, 256] the face, it tilted, none, and it darker."""
    noise = torch.randint(0, 256, face.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return torch.stack([face, tvf.rotate(face, 12, tvf.InterpolationMode.BILINEAR), noise, face // 2])


@pytest.fixture(scope="module")
def landmarks(frames: Tensor) -> Tensor:
    return extractor("dlib68")(frames, None)


def assert_rows_do_not_depend_on_the_batch(extract: ExtractFunction, frames: Tensor, landmarks: Tensor) -> Tensor:
    together = extract(frames, landmarks)
    alone = torch.cat([extract(frames[i : i + 1], landmarks[i : i + 1]) for i in range(len(frames))])
    assert together.dtype == torch.float32
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-5 * scale(together), equal_nan=True)
    backwards = extract(frames.flip(0), landmarks.flip(0))
    torch.testing.assert_close(backwards, together.flip(0), rtol=0, atol=1e-5 * scale(together), equal_nan=True)
    return together


def scale(rows: Tensor) -> float:
    return max(1.0, rows[rows.isfinite()].abs().max().item())


def test_inception_is_that_of_pytorch_fid(
    inception_state: dict[str, Tensor], frames: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pytorch_fid.inception import FID_WEIGHTS_URL, InceptionV3
    from torchvision.transforms import ToTensor

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cached = tmp_path / "hub" / "checkpoints" / FID_WEIGHTS_URL.rpartition("/")[2]
    cached.parent.mkdir(parents=True)
    torch.save(inception_state, cached)
    reference = InceptionV3([InceptionV3.BLOCK_INDEX_BY_DIM[2048]]).eval()
    some = frames[:2, :, :201]  # not square
    inputs = torch.stack([ToTensor()(Image.fromarray(frame.permute(1, 2, 0).numpy())) for frame in some])
    (expected,) = reference(inputs)

    extract = features.inception_extractor(features.inception_network(inception_state), CPU)
    found = extract(some, None)

    assert found.shape == (2, 2048)
    assert found.std() > 0.01  # random weights that let nothing through would agree on anything
    torch.testing.assert_close(found, expected.flatten(1), rtol=1e-4, atol=1e-4)


def test_inception_rows_do_not_depend_on_the_batch(
    inception_state: dict[str, Tensor], frames: Tensor, landmarks: Tensor
) -> None:
    extract = features.inception_extractor(features.inception_network(inception_state), CPU)
    assert_rows_do_not_depend_on_the_batch(extract, frames[:2], landmarks[:2])


@pytest.mark.parametrize("lite", [0, 1])
def test_efflite_knows_photographs(lite: Literal[0, 1]) -> None:
    """The weights carry names of another implementation: were they matched wrongly, it would see nothing."""
    network = features.efflite_network(lite)
    pictures = [read_image(PICTURES / "coffee.png")[:, :, 100:500], read_image(PICTURES / "chelsea.png")[:, :, 75:375]]
    inputs = [tvf.resize(picture, [224, 224]) for picture in pictures]
    with torch.no_grad():
        coffee, cat = network(features.efflite_input(torch.stack(inputs))).argmax(dim=1).tolist()
    assert coffee == 967  # espresso
    assert cat in (281, 282, 285)  # tabby, tiger cat, Egyptian cat


def test_efflite0_gives_1280_features_of_any_size(face: Tensor) -> None:
    extract = features.efflite0.load(CPU)
    assert extract(face[None], None).shape == (1, 1280)
    assert extract(face[None, :, :100, :61], None).isfinite().all()


@pytest.mark.parametrize("name", ["efflite0", "dlib_resnet", "dlib68"])
def test_rows_do_not_depend_on_the_batch(name: str, frames: Tensor, landmarks: Tensor) -> None:
    network = plugins.load("features", name)
    rows = assert_rows_do_not_depend_on_the_batch(extractor(name), frames[1:3], landmarks[1:3])
    assert rows.shape[1:] == network.shape


def test_mobilefacenet_rows_do_not_depend_on_the_batch(
    mobilefacenet_weights: Path, frames: Tensor, landmarks: Tensor
) -> None:
    rows = assert_rows_do_not_depend_on_the_batch(features.mobilefacenet.load(CPU), frames, landmarks)
    assert rows.shape[1:] == features.mobilefacenet.shape
    assert rows.isnan().all(dim=1).tolist() == [False, False, True, False]


def test_a_frame_without_a_face_has_nan_rows(frames: Tensor, landmarks: Tensor) -> None:
    no_face = [False, False, True, False]
    assert landmarks.isnan().all(dim=(1, 2)).tolist() == no_face
    rows = extractor("dlib_resnet")(frames, landmarks)
    assert rows.isnan().all(dim=1).tolist() == no_face
    assert rows.isnan().any(dim=1).tolist() == no_face
    only_noise = extractor("dlib_resnet")(frames[2:3], landmarks[2:3])
    assert only_noise.shape == (1, 128)
    assert only_noise.isnan().all()


def test_networks_that_align_ask_for_landmarks(face: Tensor) -> None:
    with pytest.raises(ValueError, match=r"landmarks must be \[1, 68, 2\]: this network aligns faces by them"):
        extractor("dlib_resnet")(face[None], None)


def test_dlib_resnet_is_dlibs_own_descriptor(frames: Tensor, landmarks: Tensor) -> None:
    picture = frames[1].permute(1, 2, 0).contiguous().numpy()
    points = [dlib.point(int(x), int(y)) for x, y in landmarks[1].tolist()]
    shape = dlib.full_object_detection(dlib.rectangle(0, 0, 255, 255), points)
    network = dlib.face_recognition_model_v1(str(weights.path("dlib_resnet")))
    expected = np.array(network.compute_face_descriptor(picture, shape, 0, 0.25))
    np.testing.assert_allclose(extractor("dlib_resnet")(frames, landmarks)[1], expected, atol=1e-4)


def test_faces_are_aligned_to_the_template(landmarks: Tensor) -> None:
    """In a frame that shows its own coordinates, the aligned crop shows where each of its pixels came from."""
    points = landmarks[1:2]
    column = torch.arange(256).expand(256, 256)
    coordinates = torch.stack([column, column.T, torch.zeros(256, 256)])[None].to(torch.uint8)
    face = features.align_faces(coordinates, points)[0]  # [3, 112, 112]
    five = features.five_points(points.double().numpy())[0]
    fit = skimage.transform.SimilarityTransform.from_estimate(features.ARCFACE_POINTS, five)
    for (x, y), expected in zip(
        features.ARCFACE_POINTS.astype(int), fit(features.ARCFACE_POINTS.astype(int)), strict=True
    ):
        np.testing.assert_allclose(face[:2, y, x], expected, atol=1e-3)


def test_facenet_crops_as_its_package_does(frames: Tensor, landmarks: Tensor) -> None:
    state = random_state(InceptionResnetV1(pretrained=None)) | {"logits.weight": torch.zeros(8631, 512)}
    network = features.facenet_network(state)
    rows = assert_rows_do_not_depend_on_the_batch(features.facenet_extractor(network, CPU), frames[:3], landmarks[:3])
    assert rows.isnan().all(dim=1).tolist() == [False, False, True]
    cropped = MTCNN(image_size=160, margin=0)(Image.fromarray(frames[1].permute(1, 2, 0).numpy()))
    with torch.no_grad():
        torch.testing.assert_close(rows[1], network(cropped[None])[0], rtol=0, atol=1e-5)


def test_facenet_finds_no_face_in_a_tiny_frame() -> None:
    network = torch.nn.Identity()  # never asked
    rows = features.facenet_extractor(network, CPU)(torch.zeros(2, 3, 16, 40, dtype=torch.uint8), None)
    assert rows.shape == (2, 512)
    assert rows.isnan().all()


def test_frame_size_is_height_and_width() -> None:
    rows = features.frame_size.load(CPU)(torch.zeros(2, 3, 30, 40, dtype=torch.uint8), None)
    assert rows.tolist() == [[30, 40], [30, 40]]


@pytest.mark.parametrize("name", ["inception_fid", "facenet", "mobilefacenet", "fan68"])
def test_missing_weights_are_named_and_never_replaced(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THEVAL_WEIGHTS", str(tmp_path))
    load: Callable[[torch.device], ExtractFunction] = plugins.load("features", name).load
    with pytest.raises(WeightsMissing, match="theval weights"):
        load(CPU)
