"""Detectors that are fitted at once, weighed together, and a noisy or over them: stacking."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from detectors.augment import SENT_ON
from detectors.checkpoint import find_class
from detectors.ensemble import EVERY, Ensemble
from detectors.exam import BLENDED
from detectors.measured import Numbers, share
from thead_eval.errors import ConfigError
from thead_eval.recipes import check_name


class Stack(Ensemble):
    """An ensemble whose members learn from the people by whom they are weighed.

    The weights (`either.weigh`) and the calibration see of each person what members say who have not learnt from that
    person (Wolpert, Stacked Generalization, 1992): so nobody is kept back for them, as an ensemble of finished
    detectors must.
    """

    fits_on = "both"  # people of the splits train and val
    defaults: ClassVar = {"frames": 4, "blends": 0.15}
    changes = SENT_ON  # harder ones than its members' own, as it is asked about files from anywhere

    def __init__(self, members: Sequence[str] = ("grain", "probe", "seam")) -> None:
        for name in members:
            if getattr(find_class(name), "fits_on", None) != "train":
                raise ConfigError(f"a stack of '{name}' cannot be made; name kinds that are fitted at once, as grain")
        self.names = tuple(members)
        super().__init__([{"detector": name, "network": {}} for name in members])

    def start(self) -> None:
        """Whatever its members start from.

        Raises:
            WeightsMissing: it is not installed.
        """
        kinds: list[Any] = list(self.members)  # Any: what checkpoint.NETWORKS says of networks
        for member in kinds:
            if hasattr(member, "start"):
                member.start()

    def parts(
        self, generators: Sequence[str], blends: bool, learns: Mapping[str, Sequence[str]]
    ) -> list[dict[str, float]]:
        """Of each member, which part of the fakes that it learns from is whose: of each generator as much.

        Args:
            generators: Of whom there are fakes.
            blends: Whether there are some; what part of its fakes they are is each member's own.
            learns: By member, the generators that it learns from, BLENDED among them or not, as far as there are fakes
                of them: a protocol holds some out. Of a member that is not named, all, and blends as when it is alone.

        Raises:
            ConfigError: `learns` names no member, or leaves one nothing to learn.
        """
        for name in learns:
            check_name(name, dict.fromkeys(self.names), "[train.learns]: no member is named")
        found = []
        for name, member in zip(self.names, self.members, strict=True):
            if name in learns:
                chosen = {each for each in learns[name] if each in generators or (each == BLENDED and blends)}
                parts = dict.fromkeys(sorted(chosen), 1 / max(len(chosen), 1))
            else:
                parts = share(generators, getattr(member, "defaults", {}).get("blends", 0.0) if blends else 0.0)
            if not parts:
                there = ", ".join([*generators, *([BLENDED] if blends else [])]) or "nobody"
                raise ConfigError(
                    f"the member '{name}' of a stack has nothing to learn: there are fakes of {there}; name more with "
                    "--fakes, others under [train.learns], or [train] blends above 0"
                )
            found.append(parts)
        return found

    @property
    def rules(self) -> list[nn.Module]:
        """The members'."""
        kinds: list[Any] = list(self.members)  # Any: as above
        return [member.rule for member in kinds]

    def measure(self, windows: Tensor) -> Tensor:
        """Windows uint8 [B, W, 3, H, W] to [B, D]: what each member measures in them, one after the other."""
        parts = []
        kinds: list[Any] = list(self.members)  # Any: as above
        for member in kinds:
            shown = windows[:, ::EVERY].flatten(0, 1)[:, None] if member.window == 1 else windows
            parts.append(member.measure(shown).reshape(len(windows), -1))
        return torch.cat(parts, dim=1)

    def columns(self, numbers: Numbers) -> list[Numbers]:
        """What `measure` gave [N, D], of each member [N, n, d]: n is the frames of a window that it looks at singly."""
        counts = [len(range(0, self.window, EVERY)) if member.window == 1 else 1 for member in self.members]
        sizes = [len(rule.get_buffer("mean")) for rule in self.rules]
        found, first = [], 0
        for count, size in zip(counts, sizes, strict=True):
            found.append(numbers[:, first : first + count * size].reshape(len(numbers), count, size))
            first += count * size
        return found
