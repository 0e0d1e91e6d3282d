"""Trained detectors on disk: what is saved comes back, and what is none is refused with a sentence."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from detectors.calibration import Calibration
from detectors.checkpoint import BUNDLED, FORMAT, TrainedDetector, build, identity_hash, load_detector, save_detector
from detectors.efflite0 import EfficientNetLite0
from thead_eval.errors import CheckpointError, ConfigError, PluginError
from thead_eval.synthetic import head_clip
from thead_eval.types import Clip
from thead_eval.verdicts import OperatingPoint

METADATA = {"generators": json.dumps(["warp"]), "identities": json.dumps([identity_hash("anna")])}
CALIBRATION = Calibration(2.0, -0.5, np.array([[2.0, -1.0], [2.0, 0.0]]))
POINTS = (OperatingPoint(0.05, 1.5, 0.25),)


@pytest.fixture(scope="module")
def network() -> EfficientNetLite0:
    torch.manual_seed(0)
    return EfficientNetLite0(32).eval()


@pytest.fixture(scope="module")
def file(network: EfficientNetLite0, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("detector") / "best.safetensors"
    save_detector(path, "efflite0", {"size": 32}, network, CALIBRATION, POINTS, METADATA)
    return path


def test_a_detector_comes_back_as_it_was(file: Path, network: EfficientNetLite0) -> None:
    assert isinstance(load_detector(file.parent), TrainedDetector)
    detector = load_detector(file)
    assert isinstance(detector, TrainedDetector)
    frames = torch.randint(0, 256, (40, 3, 48, 48), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(detector.logits(frames), network(frames))
    assert detector.operating_points == {0.05: POINTS[0]}
    assert detector.generators == ("warp",)
    assert detector.knows("anna") and not detector.knows("ben")
    assert len(detector.sha256) == 64


def test_how_slow_a_video_may_be_goes_by_what_was_learnt_from(network: EfficientNetLite0, tmp_path: Path) -> None:
    for fps, slowest in (("60.000", 18.0), ("15.000", 10.8)):
        path = tmp_path / f"{fps}.safetensors"
        save_detector(path, "efflite0", {"size": 32}, network, CALIBRATION, POINTS, METADATA | {"fps": fps})
        detector = load_detector(path)
        assert isinstance(detector, TrainedDetector) and detector.slowest == pytest.approx(slowest)


def test_a_video_is_the_mean_of_its_frames_that_were_scored(file: Path) -> None:
    detector = load_detector(file)
    assert isinstance(detector, TrainedDetector)
    assert detector.video_logit(torch.tensor([1.0, torch.nan, 2.0])) == 1.5
    assert np.isnan(detector.video_logit(torch.tensor([torch.nan])))
    assert detector.calibrate(0.25) == pytest.approx(0.5)
    low, high = detector.interval(0.25)
    assert low < 0.5 < high
    clip = Clip("a", torch.zeros(3, 3, 32, 32, dtype=torch.uint8), 25.0)
    assert detector.score(clip).shape == (3,)
    assert detector.logits(clip.frames[:0]).shape == (0,)


def test_half_the_size(file: Path, network: EfficientNetLite0, tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    save_detector(path, "efflite0", {"size": 32}, network, CALIBRATION, POINTS, METADATA, half=True)
    assert path.stat().st_size < 0.6 * file.stat().st_size
    assert isinstance(load_detector(path), TrainedDetector)


@pytest.mark.parametrize(("name", "knows"), [("grain", {"warp"}), ("trio", {"warp", "Hallo"})])
def test_what_theval_carries(name: str, knows: set[str]) -> None:
    detector = load_detector(name)
    assert isinstance(detector, TrainedDetector)
    assert detector.path.stat().st_size < 20e6
    assert detector.sha256 in detector.path.with_suffix(".md").read_text()  # the card is of this file
    assert knows <= set(detector.generators)
    assert 0.05 in detector.operating_points
    frames = head_clip(3, 20, 224, 25.0, 0)[0].frames
    assert detector.logits(frames).isfinite().all()
    assert detector.logits(frames[:8]).isnan().all()  # too few for the grain


def test_a_folder_does_not_stand_in_for_what_theval_carries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("grain").mkdir()  # as 'theval detect train -o grain' leaves it
    carried = load_detector("grain")
    assert isinstance(carried, TrainedDetector) and carried.path.is_relative_to(BUNDLED)
    for folder in ("./grain", Path("grain")):
        with pytest.raises(CheckpointError, match=r"grain' holds no best\.safetensors"):
            load_detector(folder)


def test_what_is_no_detector(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_detector(path)
    save_file({"a": torch.zeros(1)}, path, {"format": "theval generator 1"})
    with pytest.raises(CheckpointError, match="is not a detector of theval's"):
        load_detector(path)
    save_file({"a": torch.zeros(1)}, path, {"format": "theval detector 9"})
    with pytest.raises(CheckpointError, match="update theval"):
        load_detector(path)
    save_file({"a": torch.zeros(1)}, path, {"format": FORMAT, "detector": "efflite0", "network": "{}"})
    with pytest.raises(CheckpointError, match=r"cannot build \(its weights are not those of 'efflite0' here\)"):
        load_detector(path)
    with pytest.raises(CheckpointError, match="there is no 'detectors/mine'; name a detector's file"):
        load_detector("detectors/mine")
    with pytest.raises(ConfigError, match="'spectrum' is a kind of detector, and has to be trained: by 'theval detect"):
        load_detector("spectrum")
    with pytest.raises(PluginError, match="no detector is named 'grian'; did you mean 'grain'"):
        load_detector("grian")
    with pytest.raises(ConfigError, match="no detector is named 'none'; there are: "):
        build("none", {})
