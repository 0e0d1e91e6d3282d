"""Recipes: everything that a detector's training is made of, as frozen values, and from TOML."""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from detectors.augment import Augmentation
from detectors.checkpoint import find_class
from thead_eval.errors import ConfigError
from thead_eval.recipes import read_sections


@dataclass(frozen=True)
class TrainConfig:
    """How a network learns.

    Raises:
        ConfigError: a value is out of range.
    """

    batch: int = 32  # half of them fake; of all processes together
    steps: int = 1500
    lr: float = 2e-4
    warmup: int = 50  # steps in which lr grows to its value
    weight_decay: float = 0.01
    clip: float = 1.0  # the norm of a step's gradient, at most
    ema: float = 0.99  # of the weights that validation and users see
    seed: int = 0
    # Part of the fakes that are real frames blended with themselves, see sbi.py; of a stack, whether there are some.
    blends: float = 0.0
    # Of a stack, by member, from whose fakes alone it learns: what a member cannot see it would learn as noise.
    learns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    frames: int = 24  # windows of each clip to learn from
    validation_frames: int = 8  # windows of each clip to validate on
    precision: Literal["32-true", "bf16-mixed"] = "bf16-mixed"
    workers: int = 1  # that read the samples of the next steps; see thead_eval.training.read_ahead
    log_every: int = 20
    save_every: int = 100
    validate_every: int = 100
    patience: int = 8  # validations without a better one, after which a training ends

    def __post_init__(self) -> None:
        for name in (
            *("batch", "steps", "frames", "validation_frames", "workers", "log_every", "save_every"),
            *("validate_every", "patience"),
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"train {name} is {getattr(self, name)}; it must be at least 1")
        for name in ("warmup", "seed"):
            if getattr(self, name) < 0:
                raise ConfigError(f"train {name} is {getattr(self, name)}; it must be at least 0")
        if self.batch % 2:
            raise ConfigError(f"train batch is {self.batch}; it must be even, as half of it is fake")
        if not 0 <= self.blends <= 1:
            raise ConfigError(f"train blends is {self.blends}; it is a part of the fakes, 0 to 1")
        for name in ("lr", "clip"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"train {name} is {getattr(self, name)}; it must be above 0")
        if self.precision not in ("32-true", "bf16-mixed"):
            raise ConfigError(f"train precision '{self.precision}' is not known; choose '32-true' or 'bf16-mixed'")
        for member, generators in self.learns.items():
            if not isinstance(generators, list | tuple) or not all(isinstance(name, str) for name in generators):
                raise ConfigError(
                    f"train learns: what '{member}' learns from is no list of generators; give their names"
                )
        if not 0 <= self.ema < 1:
            raise ConfigError(f"train ema is {self.ema}; it must be from 0 to below 1")


@dataclass(frozen=True)
class Recipe:
    """Everything that a training is made of; saved with every detector."""

    detector: str  # a name of checkpoint.NETWORKS
    network: Mapping[str, Any]  # what `build` needs; Any: JSON
    train: TrainConfig
    augmentation: Augmentation


def read_recipe(
    detector: str,
    config: Path | None = None,
    changes: Mapping[str, object] | None = None,
    beside: Iterable[str] = (),
) -> Recipe:
    """The recipe of a detector, with what a TOML file changes, and then single settings of [train].

    `timm:NAME` is the detector `timm` with NAME as its backbone. What the file says to the detectors `beside` it alone,
    of their networks or of what members learn, is left to them.

    Raises:
        ConfigError: there is no such detector or file, or a setting is unknown or out of range.
    """
    name, _, backbone = detector.partition(":")
    kind = find_class(name)
    others = [each.partition(":")[0] for each in beside]
    own = list(inspect.signature(kind).parameters)
    known = {
        "network": [*own, *(key for other in others for key in inspect.signature(find_class(other)).parameters)],
        "train": [each.name for each in fields(TrainConfig)],
        "augmentation": [each.name for each in fields(Augmentation)],
    }
    sections = read_sections([config] if config else [], known)
    sections["network"] = {key: value for key, value in sections["network"].items() if key in own}
    if name != "stack" and "stack" in others:
        sections["train"].pop("learns", None)
    if backbone:
        sections["network"]["backbone"] = backbone
    sections["train"] = getattr(kind, "defaults", {}) | sections["train"] | dict(changes or {})
    if sections["train"].get("learns") and name != "stack":
        raise ConfigError(f"train learns is for the detector 'stack', whose members it names, and not for '{detector}'")
    try:
        return Recipe(
            name, sections["network"], TrainConfig(**sections["train"]), Augmentation(**sections["augmentation"])
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(f"detector '{detector}' has a setting of a wrong type ({error}); correct it") from None
