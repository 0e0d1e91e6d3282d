"""Several trained detectors as one: who of them knows a fake tells on it, and all of them in one file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detectors.checkpoint import Seen, TrainedDetector, build, load_detector
from detectors.either import noisy_or
from detectors.measured import share
from thead_eval.errors import ConfigError
from thead_eval.evidence import window_span

# Where the frames are neighbours, which hardly differ: from one to the next that members of single frames are shown.
EVERY = 4


class Ensemble(nn.Module):
    """The members judge alone; a frame that one of them cannot score is not scored, nor are its neighbours."""

    stride = 1
    fits_on = "val"  # as the members have learnt the others by heart
    # Any value above 0 adds blended real clips to validation, so that not only those members count that know the
    # generators at hand.
    defaults: ClassVar = {"validation_frames": 6, "blends": 0.5}

    def __init__(self, members: Sequence[Mapping[str, Any]] = ()) -> None:  # Any: what `build` needs
        super().__init__()
        if len(members) < 2:
            raise ConfigError(f"an ensemble of {len(members)} detectors is none; name two or more with --member")
        self.members = nn.ModuleList([build(member["detector"], member["network"]) for member in members])
        kinds: list[Any] = list(self.members)  # Any: what checkpoint.NETWORKS says of networks
        self.window = max(window_span(kind.window, kind.stride) for kind in kinds)
        # a and b of `either.weigh`; until members are weighed, what they say counts as it is.
        self.register_buffer("line", torch.tensor([1.0, 0.0]).repeat(len(members), 1))

    def forward(self, frames: Tensor) -> Tensor:
        """uint8 [T, 3, H, W], consecutive, to logits [T]."""
        told = self.tell_apart(frames)
        # Members are weighed by means over clips. Of single frames, one is always odd to somebody.
        if len(told) <= self.window:
            smooth = told.mean(dim=0, keepdim=True).expand_as(told)
        else:
            around = self.window // 2
            smooth = F.avg_pool1d(told.T[None], 2 * around + 1, 1, around, count_include_pad=False)[0].T
        return noisy_or(smooth)

    def tell_apart(self, frames: Tensor) -> Tensor:
        """[T, M] each member's logits, weighed."""
        told = [self._ask(member, frames).float().to(frames.device) for member in self.members]
        logits = torch.stack(told, dim=1)
        logits = torch.where(logits.isfinite(), logits, torch.nan)  # as `fit.weigh_members` takes it
        line = self.get_buffer("line")
        return logits * line[:, 0] + line[:, 1]

    def _ask(self, member: Any, frames: Tensor) -> Tensor:  # Any: what checkpoint.NETWORKS says of networks
        """[T] a member's own logits."""
        every = EVERY if member.window == 1 and self.window >= EVERY else 1
        return member(frames[::every]).repeat_interleave(every)[: len(frames)]  # type: ignore[no-any-return]

    def measure(self, windows: Tensor) -> Tensor:
        """Windows uint8 [B, W, 3, H, W] to [B, M]: the means over their frames."""
        return torch.stack([self.tell_apart(window).mean(dim=0) for window in windows])


class Assembled(NamedTuple):
    """An ensemble with its members' weights in place; they are still to be weighed."""

    config: dict[str, Any]  # what `build` needs; Any: JSON
    ensemble: Ensemble
    learnt: list[dict[str, float]]  # of each member, which part of the fakes that it learnt from was whose
    seen: Seen  # whom and which generators the members have learnt from
    fps: float  # the highest rate that one of them learnt from


def assemble(paths: Sequence[Path]) -> Assembled:
    """An ensemble of detectors in files or folders.

    Raises:
        ConfigError: there are fewer than two, or one is not a detector that theval trained.
        CheckpointError: a file is no detector's.
    """
    members: list[TrainedDetector] = []
    for path in paths:
        detector = load_detector(path)
        if not isinstance(detector, TrainedDetector):
            raise ConfigError(f"--member {path} is a plug-in; name files or folders of 'theval detect train'")
        members.append(detector)
    config = {"members": [member.described for member in members]}
    ensemble = Ensemble(**config)
    for own, member in zip(ensemble.members, members, strict=True):
        own.load_state_dict(member.network.state_dict())
    seen = Seen(*(frozenset().union(*sets) for sets in zip(*(m.seen for m in members), strict=True)))
    learnt = [share(member.generators, member.blends) for member in members]
    return Assembled(config, ensemble, learnt, seen, max(member.fps for member in members))
