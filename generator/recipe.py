"""Recipes: everything that a training is made of, as frozen values with the paper's as defaults, and from TOML."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from generator.networks import NetworkConfig
from generator.samples import Augmentation
from thead_eval.errors import ConfigError
from thead_eval.recipes import read_sections


@dataclass(frozen=True)
class MetaConfig:
    """How E, G and D learn; the defaults are the paper's, as far as they are known.

    Raises:
        ConfigError: a value is out of range.
    """

    # Episodes.
    batch: int = 8  # of all processes together
    shots: tuple[int, int] = (8, 8)  # K, the support frames of a sample: log-uniform between these, both included
    embed: int = 8  # of them, how many E sees; the others are candidates of the hybrid output
    seed: int = 0
    workers: int = 1  # that read the frames of the next steps; see read_ahead

    # Optimisation: Adam.
    steps: int = 1_000_000
    lr: float = 5e-5  # of E and G
    d_lr: float = 2e-4  # of D and W
    betas: tuple[float, float] = (0.0, 0.999)
    eps: float = 1e-5
    d_steps: int = 2  # updates of D for one of E and G
    d_start: int = 0  # content alone before this step
    g_start: int = 0  # D alone before this step, beside E and G as they start, with w_i = e_hat: of use with --init
    d_ramp: int = 0  # steps in which adversarial, feature_matching and match grow to their weights
    ema: float = 0.999  # of the weights of E and G that validation and users see
    precision: Literal["32-true", "bf16-mixed"] = "bf16-mixed"

    # Losses of E and G, and their weights.
    content_networks: tuple[str, ...] = ("vgg19", "vggface")  # each with its own weights of layers
    content: float = 1.0
    content_crop: int | None = None  # the content networks see a random square of this side; None: the whole frame
    adversarial: float = 1.0
    feature_matching: float = 10.0
    match: float = 10.0
    l1: float = 0.0  # of the frame
    rgb: float = 0.0  # hybrid: L1 and, at half size, content of what is painted: a picture where the mask wants one
    mask: float = 0.0  # hybrid: of the frame, how much is painted
    flow: float = 0.0  # hybrid: differences of neighbours in the residual flow

    # What is looked at on the way.
    log_every: int = 20
    save_every: int = 500
    validate_every: int = 1000
    validation_people: int = 50
    validation_shots: tuple[int, ...] = (1, 8)
    validation_frames: int = 4  # of each person
    probe_from: int = 2000  # the first step at which a validation may call a training collapsed
    swap_floor: float = 0.02  # another person's frames must change the output by this part of what real frames differ

    def __post_init__(self) -> None:
        for name in ("batch", "embed", "workers", "steps", "d_steps", "log_every", "save_every", "validate_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"meta {name} is {getattr(self, name)}; it must be at least 1")
        for name in ("lr", "d_lr", "eps"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"meta {name} is {getattr(self, name)}; it must be above 0")
        fewest, most = self.shots
        if not 1 <= fewest <= most:
            raise ConfigError(f"meta shots are {fewest} to {most}; choose two numbers from 1, the smaller first")
        if self.precision not in ("32-true", "bf16-mixed"):
            raise ConfigError(f"meta precision '{self.precision}' is not known; choose '32-true' or 'bf16-mixed'")
        if self.d_start and self.g_start:
            raise ConfigError(
                f"meta d_start {self.d_start} and g_start {self.g_start} leave nothing to learn at first; one must be 0"
            )
        if not self.validation_shots or min(self.validation_shots) < 1:
            raise ConfigError("meta validation_shots must be numbers from 1, such as [1, 8]")
        if not 0 <= self.ema < 1:
            raise ConfigError(f"meta ema is {self.ema}; it must be from 0 to below 1")

    @property
    def joined(self) -> int:
        """The first step at which G learns from D."""
        return max(self.d_start, self.g_start)


@dataclass(frozen=True)
class Recipe:
    """Everything that a training is made of; saved with every checkpoint."""

    name: str
    network: NetworkConfig
    meta: MetaConfig
    augmentation: Augmentation


RECIPES = ("paper256", "compact")


def read_recipe(name: str, config: Path | None = None, changes: Mapping[str, object] | None = None) -> Recipe:
    """A recipe of ours, with what a TOML file of the same sections changes, and then single settings of [meta].

    Raises:
        ConfigError: there is no such recipe or file, or a setting is unknown or out of range.
    """
    if name not in RECIPES:
        raise ConfigError(f"no recipe is named '{name}'; there are: {', '.join(RECIPES)}")
    paths = [Path(__file__).parent / "recipes" / f"{name}.toml", *([config] if config else [])]
    known = {section: [field.name for field in fields(kind)] for section, kind in SECTIONS.items()}
    sections = read_sections(paths, known)
    sections["meta"] |= changes or {}
    try:
        return Recipe(
            name,
            NetworkConfig(**sections["network"]),
            MetaConfig(**sections["meta"]),
            Augmentation(**sections["augmentation"]),
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(f"recipe '{name}' has a value of a wrong type ({error}); correct it") from None


SECTIONS = {"network": NetworkConfig, "meta": MetaConfig, "augmentation": Augmentation}
