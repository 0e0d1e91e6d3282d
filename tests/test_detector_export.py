"""A detector as an ONNX file: the same logits without torch."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from detectors.calibration import Calibration
from detectors.checkpoint import TrainedDetector, read_detector, save_detector
from detectors.efflite0 import EfficientNetLite0
from detectors.export import export_detector
from detectors.freq import Frequency
from detectors.grain import Grain
from detectors.landmarks import Motion
from detectors.probe import Probe, _regions
from detectors.seam import Seam
from detectors.temporal import Thumbnails
from thead_eval.cli.export import command
from thead_eval.errors import CheckpointError, ConfigError, PluginError
from thead_eval.verdicts import OperatingPoint


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> TrainedDetector:
    path = tmp_path_factory.mktemp("detector") / "best.safetensors"
    torch.manual_seed(0)
    network = EfficientNetLite0(64).eval()
    metadata = {"generators": json.dumps(["warp"]), "identities": "[]", "size": "128"}
    calibration = Calibration(2.0, 0.5, np.array([[2.0, 0.5]]))
    save_detector(path, "efflite0", {"size": 64}, network, calibration, [OperatingPoint(0.05, 1.0, -1.0)], metadata)
    return read_detector(path, torch.device("cpu"))


@pytest.fixture(scope="module")
def file(detector: TrainedDetector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `theval export` makes of a training's folder."""
    path = tmp_path_factory.mktemp("onnx") / "detector.onnx"
    ran = CliRunner().invoke(command, [str(detector.path.parent), "-o", str(path), "--json"])
    assert ran.exit_code == 0, ran.output
    written = json.loads(ran.stdout)
    assert written["max_difference"] <= 1e-4
    assert written["bytes"] == path.stat().st_size
    return path


@pytest.mark.parametrize("count", [1, 3, 8])
def test_the_file_gives_the_detectors_logits(detector: TrainedDetector, file: Path, count: int) -> None:
    frames = torch.randint(0, 256, (count, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    logits, probabilities = session.run(["logits", "probabilities"], {"frames": frames.numpy()})
    np.testing.assert_allclose(logits, detector.logits(frames).numpy(), atol=1e-4)
    np.testing.assert_allclose(probabilities, detector.calibration.probability(logits), atol=1e-6)


def test_the_file_says_how_to_use_it(detector: TrainedDetector, file: Path) -> None:
    (text,) = [entry.value for entry in onnx.load(str(file)).metadata_props if entry.key == "theval"]
    about: dict[str, Any] = json.loads(text)
    assert about["sha256"] == detector.sha256
    assert about["operating_points"] == [{"rate": 0.05, "fake": 1.0, "real": -1.0}]
    assert about["input"] == {
        "framing": "head crop of 'theval prepare'", "through": 128, "side": 224, "jpeg_quality": 90,
    }  # fmt: skip
    assert about["calibration"] == {"a": 2.0, "b": 0.5}


@pytest.mark.slow
def test_a_detector_of_neighbouring_frames_takes_that_many(tmp_path: Path) -> None:
    torch.manual_seed(0)
    calibration = Calibration(2.0, 0.5, np.array([[2.0, 0.5]]))
    metadata = {"generators": "[]", "identities": "[]"}
    save_detector(
        tmp_path / "t.safetensors", "temporal", {"size": 32}, Thumbnails(32).eval(), calibration, [], metadata
    )
    detector = read_detector(tmp_path / "t.safetensors", torch.device("cpu"))
    assert export_detector(detector, tmp_path / "t.onnx").difference <= 1e-4
    session = onnxruntime.InferenceSession(str(tmp_path / "t.onnx"), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == [detector.window, 3, 224, 224] == [7, 3, 224, 224]


@pytest.mark.slow
def test_bands_of_frequencies_are_matrices_and_can_be_written(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Frequency(64).eval()
    nn.init.normal_(network.learnt)
    calibration = Calibration(2.0, 0.5, np.array([[2.0, 0.5]]))
    metadata = {"generators": "[]", "identities": "[]"}
    save_detector(tmp_path / "f.safetensors", "freq", {"size": 64}, network, calibration, [], metadata)
    detector = read_detector(tmp_path / "f.safetensors", torch.device("cpu"))
    assert export_detector(detector, tmp_path / "f.onnx").difference <= 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), [("probe", Probe), ("seam", Seam)])
def test_frozen_features_are_written_with_their_line(name: str, kind: type[Probe | Seam], tmp_path: Path) -> None:
    torch.manual_seed(0)
    _regions.cache_clear()  # as in a new process, where tracing is the first to ask
    network = kind().eval()
    network.start()
    network.rule.get_buffer("weight").normal_(0, 0.1)
    calibration = Calibration(2.0, 0.5, np.array([[2.0, 0.5]]))
    save_detector(
        tmp_path / "p.safetensors", name, {}, network, calibration, [], {"generators": "[]", "identities": "[]"}
    )
    detector = read_detector(tmp_path / "p.safetensors", torch.device("cpu"))
    assert export_detector(detector, tmp_path / "p.onnx").difference <= 1e-4


@pytest.mark.parametrize(("name", "network"), [("landmarks", Motion()), ("grain", Grain())])
def test_what_onnx_cannot_hold_says_so(name: str, network: nn.Module, tmp_path: Path) -> None:
    calibration = Calibration(2.0, 0.5, np.array([[2.0, 0.5]]))
    save_detector(
        tmp_path / "s.safetensors", name, {}, network, calibration, [], {"generators": "[]", "identities": "[]"}
    )
    with pytest.raises(ConfigError, match=f"detector '{name}' cannot be exported"):
        export_detector(read_detector(tmp_path / "s.safetensors", torch.device("cpu")), tmp_path / "s.onnx")
    assert not (tmp_path / "s.onnx").exists()


def test_what_is_no_detector_says_so(tmp_path: Path) -> None:
    def refused(error: type[Exception], words: str, source: str) -> None:
        ran = CliRunner().invoke(command, [source, "-o", str(tmp_path / "a.onnx")])
        assert isinstance(ran.exception, error) and words in str(ran.exception)

    refused(PluginError, "no detector is named 'grein'; did you mean 'grain'?", "grein")
    refused(CheckpointError, "cannot be read", str(tmp_path / "absent.safetensors"))
    refused(CheckpointError, f"'{tmp_path}' holds no best.safetensors; name the folder", str(tmp_path))
    ran = CliRunner().invoke(command, ["grain", "-o", "a.bin"])
    assert isinstance(ran.exception, ConfigError) and "with the suffix .onnx" in str(ran.exception)
    assert list(tmp_path.iterdir()) == []
