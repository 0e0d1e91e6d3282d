"""Trained detectors: the weights of one in a safetensors file, with what rebuilds, calibrates and limits it inside."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from detectors.calibration import Calibration
from thead_eval import plugins
from thead_eval.detection import AGGREGATION
from thead_eval.errors import CheckpointError, ConfigError
from thead_eval.evidence import SIDE, window_span
from thead_eval.recipes import check_name
from thead_eval.tensors import part_of, read_tensors, write_tensors
from thead_eval.types import Clip, Detector
from thead_eval.verdicts import SLOWEST, USUAL_FPS, OperatingPoint
from thead_eval.weights import sha256_of

FORMAT = "theval detector 1"
BUNDLED = Path(__file__).parent / "checkpoints"
BATCH = 32  # frames at a time

# How each kind of detector is built. A network is an nn.Module from uint8 [T, 3, H, W], frames of one clip in their
# order, to logits [T] float32, the higher the more fake, NaN where a frame could not be scored; its attributes `window`
# and `stride` say how many frames a logit needs, and how far apart. One that is trained step by step has `size`,
# `start` and `learn`, as EfficientNetLite0 does; one that is fitted has `measure`, as Spectrum does.
NETWORKS = {
    "efflite0": "detectors.efflite0:EfficientNetLite0",
    "sbi": "detectors.sbi:SelfBlended",
    "srm": "detectors.srm:Residual",
    "freq": "detectors.freq:Frequency",
    "temporal": "detectors.temporal:Thumbnails",
    "xception": "detectors.xception:Xception",
    "timm": "detectors.backbone:Backbone",
    "spectrum": "detectors.spectrum:Spectrum",
    "landmarks": "detectors.landmarks:Motion",
    "grain": "detectors.grain:Grain",
    "probe": "detectors.probe:Probe",
    "seam": "detectors.seam:Seam",
    "stack": "detectors.stack:Stack",
    "ensemble": "detectors.ensemble:Ensemble",
}


class Seen(NamedTuple):
    """Whom and what a detector knows, so that it is not asked about them as if they were new."""

    generators: frozenset[str] = frozenset()
    identities: frozenset[str] = frozenset()  # hashes


@dataclass(frozen=True)
class TrainedDetector:
    """A detector as it was trained and calibrated: satisfies `thead_eval.types.Detector`."""

    name: str
    network: nn.Module
    device: torch.device
    calibration: Calibration
    operating_points: Mapping[float, OperatingPoint]  # by rate, in mean logits of a video; chosen on validation
    metadata: Mapping[str, str]
    path: Path
    sha256: str  # of the file

    @property
    def generators(self) -> tuple[str, ...]:
        """Whose fakes it was trained on."""
        return tuple(json.loads(self.metadata["generators"]))

    @property
    def blends(self) -> float:
        """The part of its fakes that were real frames blended with themselves."""
        recipe = json.loads(self.metadata.get("recipe", "{}"))
        return float(recipe.get("train", {}).get("blends", 0.0))

    @property
    def size(self) -> int:
        """Pixels a side of the clips that it learnt from."""
        return int(self.metadata.get("size", SIDE))

    @property
    def described(self) -> dict[str, Any]:  # Any: JSON
        """What `build` makes such a network of."""
        return {"detector": self.metadata["detector"], "network": json.loads(self.metadata["network"])}

    @cached_property
    def seen(self) -> Seen:
        """What its training and validation have looked at."""
        return Seen(frozenset(self.generators), frozenset(json.loads(self.metadata["identities"])))

    def knows(self, identity: str) -> bool:
        """Whether this person was among those that it was trained or validated on."""
        return identity_hash(identity) in self.seen.identities

    @property
    def window(self) -> int:
        """How many consecutive frames a logit needs."""
        kind: Any = self.network  # Any: what NETWORKS says of networks
        return window_span(kind.window, kind.stride)

    @property
    def fps(self) -> float:
        """Frames a second of what it learnt from: the median of real clips."""
        return float(self.metadata.get("fps", USUAL_FPS))

    @property
    def slowest(self) -> float:
        """New frames a second of a face below which it gives no verdict, where it judges several in a row.

        That this goes down with the rate of what it learnt from is supposed, not measured.
        """
        return SLOWEST * min(1.0, self.fps / USUAL_FPS)

    @torch.no_grad()
    def logits(self, frames: Tensor) -> Tensor:
        """[T] float32 on the CPU of uint8 [T, 3, H, W] head crops; NaN where a frame could not be scored.

        Frames of a detector with a `window` above 1 must be consecutive; too few of them give NaN.
        """
        if not len(frames):
            return torch.empty(0)
        batch = BATCH if self.window == 1 else len(frames)
        logits = [self.network(some.to(self.device)).float().cpu() for some in torch.split(frames, batch)]
        return torch.cat(logits)

    def score(self, clip: Clip) -> Tensor:
        """[T] float32 calibrated probabilities."""
        probabilities = self.calibration.probability(self.logits(clip.frames).numpy())
        return torch.from_numpy(probabilities).float()

    def video_logit(self, logits: Tensor) -> float:
        """Of a whole video: the mean over the frames that were scored; NaN where none was."""
        scored = logits[~logits.isnan()]
        return float(scored.double().mean()) if len(scored) else float("nan")

    def calibrate(self, video_logit: float) -> float:
        """The probability that a video is fake, among as many fakes as reals."""
        return float(self.calibration.probability(video_logit))

    def interval(self, video_logit: float) -> tuple[float, float]:
        """95 % of what that would be, had it been calibrated on other people."""
        return self.calibration.interval(video_logit)


def identity_hash(identity: str) -> str:
    """What a checkpoint holds in place of a name."""
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def find_class(name: str) -> type[nn.Module]:
    """The class of a kind of detector.

    Raises:
        ConfigError: no kind of detector has this name.
    """
    check_name(name, NETWORKS, "no detector is named")
    module, _, attribute = NETWORKS[name].partition(":")
    found: type[nn.Module] = getattr(import_module(module), attribute)
    return found


def build(name: str, config: Mapping[str, Any]) -> nn.Module:  # Any: JSON
    """A network with untrained weights.

    Raises:
        ConfigError: no kind of detector has this name.
    """
    return find_class(name)(**config)


def save_detector(
    path: Path,
    name: str,
    config: Mapping[str, Any],  # Any: JSON
    network: nn.Module,
    calibration: Calibration,
    operating_points: Iterable[OperatingPoint],
    metadata: Mapping[str, str],
    *,
    half: bool = False,
) -> None:
    """Write a detector whole or not at all; `config` is what `build` needs, `metadata` what else is known of it.

    Raises:
        CheckpointError: the file could not be written.
    """
    tensors = {f"network.{key}": tensor for key, tensor in network.state_dict().items()}
    tensors["calibration"] = torch.from_numpy(np.vstack([[calibration.a, calibration.b], calibration.draws]))
    own = {
        "format": FORMAT,
        "detector": name,
        "network": json.dumps(dict(config)),
        "aggregation": AGGREGATION,
        "operating_points": json.dumps([asdict(point) for point in operating_points]),
    }
    assert not own.keys() & metadata.keys(), "these are written here"
    write_tensors(path, tensors, own | dict(metadata), half=half)


def read_detector(path: Path, device: torch.device) -> TrainedDetector:
    """A detector from its file.

    Raises:
        CheckpointError: there is no such file, or it is damaged, none of theval's detectors, or of a newer theval.
    """
    stored = read_tensors(path, "theval detect train")
    metadata = stored.metadata
    if not metadata.get("format", "").startswith("theval detector"):
        raise CheckpointError(f"'{path}' is not a detector of theval's; name one that 'theval detect train' wrote")
    if metadata["format"] != FORMAT:
        raise CheckpointError(
            f"'{path}' has format '{metadata['format']}', this theval reads '{FORMAT}'; update theval"
        )
    try:
        network = build(metadata["detector"], json.loads(metadata["network"]))
        state = part_of(stored.tensors, "network")
        network.load_state_dict(
            {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in state.items()}
        )
        table = stored.tensors["calibration"].double().numpy()  # [1 + D, 2]
        points = [OperatingPoint(**row) for row in json.loads(metadata["operating_points"])]
    except (KeyError, TypeError, ValueError, RuntimeError, ConfigError) as error:
        detail = str(error)
        if isinstance(error, RuntimeError):  # in which torch lists every tensor
            detail = f"its weights are not those of '{metadata['detector']}' here"
        raise CheckpointError(
            f"'{path}' holds a detector that this theval cannot build ({detail}); train it anew, or use the theval "
            "that wrote it"
        ) from None
    return TrainedDetector(
        metadata["detector"],
        network.eval().requires_grad_(False).to(device),
        device,
        Calibration(float(table[0, 0]), float(table[0, 1]), table[1:]),
        {point.rate: point for point in points},
        metadata,
        path,
        sha256_of(path),
    )


def load_detector(name: str | Path, device: torch.device | str = "cpu") -> Detector:
    """A detector by its name, one that theval carries or a plug-in, its file, or the run folder of its training.

    All but plug-ins are `TrainedDetector`. A name means the same wherever a command is run: a folder that is called so
    is './name', or a Path.

    Raises:
        CheckpointError: the file is no detector's.
        PluginError: no such name, or the plug-in is broken.
        ConfigError: it is the name of a kind, which has to be trained.
    """
    device = torch.device(device)
    if isinstance(name, Path) or name not in plugins.available("detector"):
        path = Path(name)
        if path.is_dir():
            if not (path / "best.safetensors").exists():
                raise CheckpointError(
                    f"'{path}' holds no best.safetensors; name the folder of a 'theval detect train' that has validated"
                )
            return read_detector(path / "best.safetensors", device)
        if path.suffix == ".safetensors":
            return read_detector(path, device)
        if len(path.parts) > 1:
            raise CheckpointError(f"there is no '{name}'; name a detector's file, or the folder of its training")
        if name in NETWORKS:
            raise ConfigError(
                f"'{name}' is a kind of detector, and has to be trained: by 'theval detect train --detector {name}', "
                "whose folder is then to be named, or in 'theval detect eval' with --protocol"
            )
    made: Detector = plugins.make("detector", str(name), device)
    return made


def grain(device: torch.device) -> TrainedDetector:
    """Carried by theval: what happens to the grain of neighbouring frames, learnt from fakes of its own."""
    return read_detector(BUNDLED / "grain.safetensors", device)


def trio(device: torch.device) -> TrainedDetector:
    """The default of a scan, carried by theval: `grain`, `probe` and `seam`, which learnt other systems' fakes too."""
    return replace(read_detector(BUNDLED / "trio.safetensors", device), name="trio")
