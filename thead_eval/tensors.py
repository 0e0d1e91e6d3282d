"""Named tensors and a few words about them in one safetensors file. Never a pickle: opening one can run its code."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from thead_eval.errors import CheckpointError

PICKLES = (b"PK\x03\x04", b"\x80")  # how torch's files begin: those since version 1.6, those before


class Stored(NamedTuple):
    """What a file holds."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], *, half: bool = False
) -> None:
    """Write a file whole or not at all, so that a killed process leaves the old one.

    With `half`, kernels and matrices are stored as float16: half the size, and three more binary places than bfloat16
    has. Vectors stay as they are.

    Raises:
        CheckpointError: the file could not be written.
    """
    stored = {}
    for name, tensor in tensors.items():
        shrinks = half and tensor.ndim >= 2 and tensor.is_floating_point()
        stored[name] = tensor.detach().to(torch.float16 if shrinks else tensor.dtype).contiguous()
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(stored, temporary, dict(metadata))
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise CheckpointError(
            f"'{path}' could not be written ({error}); free space, or choose another folder"
        ) from None


def read_tensors(path: Path, maker: str) -> Stored:
    """Read a file that the command `maker` is said to have written.

    Raises:
        CheckpointError: there is no such file, or it is a pickle, damaged or cut short.
    """
    try:
        with path.open("rb") as stream:
            start = stream.read(9)
    except OSError as error:
        raise CheckpointError(f"checkpoint '{path}' cannot be read ({error.strerror}); check the path") from None
    # A safetensors file begins with eight bytes of a length, which may be any, and then JSON.
    if start.startswith(PICKLES) and start[8:] != b"{":
        raise CheckpointError(
            f"'{path}' is a pickle, which could run code when it is opened; theval reads checkpoints that "
            f"'{maker}' wrote (.safetensors)"
        )
    try:
        with safe_open(path, framework="pt") as file:
            return Stored({key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {}))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"'{path}' is damaged or cut short ({error}); copy or train it again") from None


def part_of(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Those called `<name>.<rest>`, by the rest."""
    return {key.removeprefix(f"{name}."): tensor for key, tensor in tensors.items() if key.startswith(f"{name}.")}
