"""The few-shot system as a generator: a checkpoint, adapted to a person, as a fast talker.

`fewshot` fine-tunes (FT in the paper's tables), `fewshot_ff` is feed-forward (FF). What fine-tuning changes is in the
name, as a generator's name fixes what is compared: `fewshot_heads` and its siblings.
"""

import json
import os
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch

from generator import checkpoint
from generator.adapt import AdaptConfig, LossWeights, Networks, Tune, adapt
from generator.networks import Discriminator, Embedder, Generator
from generator.talker import FewShotTalker, Folded, Origin, Precision, Unfolded, computes_bfloat16, fold
from thead_eval.errors import CheckpointError
from thead_eval.types import Clip, Landmarks, Tell
from thead_eval.weights import sha256_of

BUNDLED = Path(__file__).parent / "checkpoints" / "compact.safetensors"


@dataclass(frozen=True)
class FewShot:
    """Makes a talker from a few frames. The checkpoint is read at the first."""

    name: str
    device: torch.device
    checkpoint: Path
    config: AdaptConfig | None  # None: feed-forward
    folded: bool = True  # False: as it was trained, to compare with
    precision: Precision | None = None  # of the folded talker; None: what the device is fast in
    compiled: bool = False  # the folded network by torch.compile, see Folded.compile_trunk
    tell: Tell = lambda step, of: None  # is told of each update of a fine-tuning

    def telling(self, tell: Tell) -> "FewShot":
        """The same, which says how far it is."""
        return replace(self, tell=tell)

    def compiling(self) -> "FewShot":
        """The same, whose talkers go through torch.compile."""
        return replace(self, compiled=True)

    @property
    def checkpoint_sha256(self) -> str:
        """Of the checkpoint's file.

        Raises:
            CheckpointError: as `adapt`.
        """
        return load_networks(self.checkpoint, self.device).sha256

    def adapt(self, support: Clip, landmarks: Landmarks) -> FewShotTalker:
        """Learn a person.

        Raises:
            NoFaceFound: no support frame has landmarks.
            ConfigError: the frames are not square.
            CheckpointError: the checkpoint is missing, damaged or holds something else.
            TrainingFailed: a loss became NaN.
        """
        loaded = load_networks(self.checkpoint, self.device)
        if self.config is not None and loaded.networks.D is None:
            raise CheckpointError(
                f"'{self.checkpoint}' has no discriminator, which fine-tuning needs; take the generator 'fewshot_ff', "
                "or a checkpoint that 'theval train' wrote"
            )
        adapted = adapt(loaded.networks, support, landmarks, self.config, self.tell)
        person = adapted.person
        network = Unfolded(adapted.G, adapted.psi_prime, person.frames.to(self.device), person.points.to(self.device))
        origin = Origin(self.name, loaded.sha256, adapted.steps, adapted.seconds)
        talker = FewShotTalker(support.id, network, person.side, origin)
        if not self.folded:
            return talker
        fast: Precision = "bf16-true" if computes_bfloat16(self.device) else "32-true"
        talker = fold(talker, self.precision or fast)
        if self.compiled and isinstance(talker.network, Folded):
            talker.network.compile_trunk()
        return talker


def fewshot(device: torch.device) -> FewShot:
    """Zakharov et al. (ICCV 2019), fine-tuned on the support frames; $THEVAL_CHECKPOINT or the bundled checkpoint."""
    return FewShot("fewshot", device, _chosen(), AdaptConfig())


def fewshot_ff(device: torch.device) -> FewShot:
    """The same feed-forward: no fine-tuning, a fraction of a second a person."""
    return FewShot("fewshot_ff", device, _chosen(), None)


def fewshot_all(device: torch.device) -> FewShot:
    """`fewshot` that changes psi' and all of G', from a single frame too."""
    return _tuning("fewshot_all", device, "all")


def fewshot_adain(device: torch.device) -> FewShot:
    """`fewshot` that changes psi' alone."""
    return _tuning("fewshot_adain", device, "adain")


def fewshot_last_up(device: torch.device) -> FewShot:
    """`fewshot` that changes psi', the last block of G' and the layers of its output."""
    return _tuning("fewshot_last_up", device, "adain+last_up")


def fewshot_heads(device: torch.device) -> FewShot:
    """`fewshot` that changes psi' and the layers of the output of G'."""
    return _tuning("fewshot_heads", device, "heads")


def _tuning(name: str, device: torch.device, tune: Tune) -> FewShot:
    return FewShot(name, device, _chosen(), AdaptConfig(tune=tune))


def _chosen() -> Path:
    return Path(os.environ.get("THEVAL_CHECKPOINT") or BUNDLED)


class Loaded(NamedTuple):
    """A checkpoint's networks, for all who use it: nobody changes them."""

    networks: Networks
    sha256: str


def load_networks(path: Path, device: torch.device) -> Loaded:
    """E, G and D where the file has it.

    Raises:
        CheckpointError: there is no such file, or it is a pickle, truncated, or holds something else.
    """
    if path == BUNDLED and not path.is_file():
        raise CheckpointError(
            f"there is no bundled checkpoint '{path}'; make one with 'theval train', and name its best.safetensors "
            "in THEVAL_CHECKPOINT"
        )
    changed = path.stat().st_mtime_ns if path.is_file() else 0
    return _load(path, device, changed)


@lru_cache(maxsize=2)
def _load(path: Path, device: torch.device, changed: int) -> Loaded:
    """`changed` makes a new file of the same name another one."""
    saved = checkpoint.load(path)
    if "talker" in saved.metadata:
        raise CheckpointError(f"'{path}' is a talker, one person as learnt; name the checkpoint that learnt it")
    E, G, D = Embedder(saved.config), Generator(saved.config), Discriminator(saved.config)
    averaged = "average_" if saved.part("average_G") else ""  # in what a training continues from
    saved.restore(f"{averaged}E", E)
    saved.restore(f"{averaged}G", G)
    has_d = bool(saved.part("D"))
    if has_d:
        saved.restore("D", D)
    for network in (E, G, D):
        network.eval().requires_grad_(False).to(device).to(memory_format=torch.channels_last)
    return Loaded(Networks(E, G, D if has_d else None, _loss_weights(saved)), sha256_of(path))


def _loss_weights(saved: checkpoint.Checkpoint) -> LossWeights:
    """Those that the networks were meta-learnt with; nothing from a D that had not begun to learn."""
    meta = json.loads(saved.metadata.get("meta", "{}"))
    if int(saved.metadata.get("steps", "0")) <= meta.get("d_start", -1):
        meta |= {"adversarial": 0.0, "feature_matching": 0.0}
    given = {field.name: meta[field.name] for field in fields(LossWeights) if field.name in meta}
    if "content_networks" in given:
        given["content_networks"] = tuple(given["content_networks"])
    return LossWeights(**given)
