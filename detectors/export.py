"""A trained detector as an ONNX file: frames in, logits and probabilities out, without torch.

Input `frames` [T, 3, 224, 224] uint8 RGB head crops, as `evidence.alike` makes them; outputs `logits` [T], whose mean
is a video's, and `probabilities` [T], calibrated. T is any number, or, of a detector that needs neighbouring frames,
that many. The metadata says under 'theval' how to make the one and read the other.
"""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from detectors.checkpoint import TrainedDetector
from thead_eval.detection import AGGREGATION
from thead_eval.errors import CheckpointError, ConfigError
from thead_eval.evidence import QUALITY, SIDE
from thead_eval.onnx_graph import trace

KEY = "theval"
TOLERANCE = 1e-4  # between the file's logits and the detector's
EXAMPLES = 5  # frames


class Exported(NamedTuple):
    """What was written."""

    bytes: int
    difference: float  # largest, of logits


class Graph(nn.Module):
    """What the file computes, in float32."""

    def __init__(self, detector: TrainedDetector) -> None:
        super().__init__()
        self.network = detector.network
        self.a, self.b = detector.calibration.a, detector.calibration.b

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.network(frames)
        return logits, torch.sigmoid(self.a * logits + self.b)


def export_detector(detector: TrainedDetector, path: Path) -> Exported:
    """Write the file whole or not at all, and run it: it is kept only if it gives what the detector gives.

    Raises:
        ConfigError: the packages that write ONNX are not installed, or this kind of detector is not made of what ONNX
            can hold.
        CheckpointError: the file could not be written, or gives something else.
    """
    alone = detector.window == 1
    frames = _example(EXAMPLES if alone else detector.window, seed=0)
    cannot = (
        f"detector '{detector.name}' cannot be exported, as it computes what an ONNX file cannot hold; train "
        "a network with 'theval detect train --detector efflite0', and export that"
    )
    try:
        program = trace(
            Graph(detector).eval(),
            frames,
            "frames",
            output_names=["logits", "probabilities"],
            dynamic_shapes={"frames": {0: torch.export.Dim("frames", min=1)}} if alone else None,
        )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError, NotImplementedError, TypeError) as error:
        raise ConfigError(cannot) from error
    program.model.metadata_props[KEY] = json.dumps(describe(detector))
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        program.save(temporary, external_data=False)
        difference = _compare(detector, temporary)
        if difference is None:
            raise ConfigError(cannot)
        if not difference <= TOLERANCE:
            raise CheckpointError(
                f"the ONNX file of '{detector.path}' gives logits that differ by {difference:.2g}, and was not "
                "written; update torch, onnxscript and onnxruntime"
            )
        size = temporary.stat().st_size
        temporary.replace(path)
    except OSError as error:
        raise CheckpointError(f"'{path}' could not be written ({error.strerror}); choose another folder") from None
    finally:
        temporary.unlink(missing_ok=True)
    return Exported(size, difference)


def describe(detector: TrainedDetector) -> dict[str, Any]:  # Any: JSON
    """What the file's metadata says."""
    return {
        "detector": detector.name,
        "sha256": detector.sha256,
        "generators": detector.generators,
        "calibration": {"a": detector.calibration.a, "b": detector.calibration.b},
        "operating_points": [asdict(point) for point in detector.operating_points.values()],
        "aggregation": AGGREGATION,
        "window": detector.window,
        "input": {
            "framing": "head crop of 'theval prepare'",
            "through": detector.size,  # pixels a side, bilinear with antialiasing
            "side": SIDE,
            "jpeg_quality": int(detector.metadata.get("jpeg_quality", QUALITY)),
        },
    }


def _example(count: int, seed: int) -> Tensor:
    """[T, 3, 224, 224] uint8: smooth colours with some noise, nearer to pictures than noise alone."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 7, 7, generator=random) * 255
    smooth = nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bicubic", align_corners=False)
    noise = torch.randn(count, 3, SIDE, SIDE, generator=random) * 6
    return (smooth + noise).clamp(0, 255).to(torch.uint8)


def _compare(detector: TrainedDetector, path: Path) -> float | None:
    """The largest difference between the two, of other frames and as many and as few as there may be.

    None where the file takes only the number that it was made with.
    """
    import onnxruntime
    from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    differences = []
    for count in (1, 2 * EXAMPLES) if detector.window == 1 else (detector.window,):
        frames = _example(count, seed=count)
        try:
            given: np.ndarray[Any, Any] = session.run(["logits"], {"frames": frames.numpy()})[0]  # Any: a tensor's type
        except InvalidArgument:
            return None
        expected = detector.logits(frames).numpy()
        known = np.isfinite(expected)
        if (np.isfinite(given) != known).any():
            return float("inf")
        differences.append(float(np.abs(given - expected)[known].max(initial=0.0)))
    return max(differences)
