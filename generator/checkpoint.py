"""Checkpoints: tensors as safetensors, with the config that rebuilds their networks in the same file.

Never a pickle: opening one can run a stranger's code.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from generator.networks import NetworkConfig
from thead_eval.errors import CheckpointError, ConfigError
from thead_eval.tensors import part_of, read_tensors, write_tensors

FORMAT = "theval generator 1"


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds."""

    path: Path
    config: NetworkConfig
    tensors: dict[str, Tensor]  # `<module>.<name in its state dict>`
    metadata: dict[str, str]  # as saved: the recipe's name, steps and so on

    def part(self, name: str) -> dict[str, Tensor]:
        """The state of one module, empty where the file has none of that name."""
        return part_of(self.tensors, name)

    def restore(self, name: str, module: nn.Module) -> None:
        """Load the state of one module.

        Raises:
            CheckpointError: the file does not have it, or has that of another module.
        """
        try:
            module.load_state_dict(self.part(name))
        except RuntimeError as error:
            detail = str(error).split("\n\t")[-1].strip()
            detail = f"{detail[:100]} ..." if len(detail) > 100 else detail
            raise CheckpointError(
                f"'{self.path}' does not hold {name} as its config says ({detail}); make the checkpoint again"
            ) from None


def save(
    path: Path,
    modules: Mapping[str, nn.Module | Mapping[str, Tensor]],
    config: NetworkConfig,
    metadata: Mapping[str, str],
    *,
    half: bool = False,
) -> None:
    """Write a checkpoint whole or not at all, so that a killed process leaves the old one.

    With `half`, kernels and matrices are stored as float16: half the size, and three more binary places than bfloat16
    has. Vectors stay as they are; those of spectral norm must have unit length.

    Raises:
        CheckpointError: the file could not be written.
    """
    tensors = {}
    for name, module in modules.items():
        for key, tensor in (module.state_dict() if isinstance(module, nn.Module) else module).items():
            tensors[f"{name}.{key}"] = tensor
    assert not {"format", "network"} & set(metadata), "these two are written here"
    written = {"format": FORMAT, "network": json.dumps(dataclasses.asdict(config)), **metadata}
    write_tensors(path, tensors, written, half=half)


def load(path: Path, expect: NetworkConfig | None = None) -> Checkpoint:
    """Read a checkpoint, whose networks must be those of `expect` where that is given.

    Raises:
        CheckpointError: there is no such file, or it is a pickle, truncated, not a checkpoint of theval's, or of other
            networks.
    """
    tensors, metadata = read_tensors(path, "theval train")
    config = _config(path, metadata.pop("format", None), metadata.pop("network", "{}"))
    if expect is not None and config != expect:
        differing = [
            f"{field.name} {getattr(config, field.name)}, not {getattr(expect, field.name)}"
            for field in dataclasses.fields(NetworkConfig)
            if getattr(config, field.name) != getattr(expect, field.name)
        ]
        recipe = f" of recipe '{metadata['recipe']}'" if "recipe" in metadata else ""
        raise CheckpointError(
            f"'{path}' holds other networks{recipe}: {'; '.join(differing)}; name a checkpoint of the same recipe"
        )
    return Checkpoint(path, config, tensors, metadata)


def _config(path: Path, format: str | None, network: str) -> NetworkConfig:
    if format is None:
        raise CheckpointError(f"'{path}' is not a checkpoint of theval's; name one that 'theval train' wrote")
    if format.rpartition(" ")[0] != FORMAT.rpartition(" ")[0]:
        raise CheckpointError(
            f"'{path}' is a file of '{format}', not a generator's; name one that 'theval train' wrote"
        )
    if format != FORMAT:
        raise CheckpointError(f"'{path}' has format '{format}', this theval reads '{FORMAT}'; update theval")
    try:
        return NetworkConfig(**json.loads(network))
    except (TypeError, ValueError, ConfigError) as error:
        raise CheckpointError(f"'{path}' has networks that this theval cannot build ({error}); update theval") from None
