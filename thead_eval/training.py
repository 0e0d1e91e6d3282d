"""What trainings share: a journal, signals that end them, where they compute, optimisers on disk, frames read ahead."""

import csv
import logging
import os
import signal
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from thead_eval.errors import ConfigError, ThevalError

Made = TypeVar("Made")
FINISHED = -1  # beside the numbers of signals


class Status(NamedTuple):
    """How far a training is, for whoever shows it."""

    step: int
    steps: int  # that it will have made in the end, as far as one can tell
    seconds: float  # in all sittings


class Journal:
    """RUN/metrics.csv, and TensorBoard's files where that is installed."""

    def __init__(self, out: Path, step: int) -> None:
        """Continue at `step`: what an interrupted sitting wrote after it is taken out, as it will be written again."""
        self.path = out / "metrics.csv"
        rows = []
        if self.path.exists():
            with self.path.open(newline="") as file:
                rows = [row for row in csv.DictReader(file) if int(row["step"]) <= step]
        with self.path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["step", "name", "value"])
            writer.writeheader()
            writer.writerows(rows)
        self.board = _open_tensorboard(out / "tensorboard", step)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerows([step, name, repr(value)] for name, value in values.items())
        if self.board is not None:
            for name, value in values.items():
                self.board.add_scalar(name, value, step)
            self.board.flush()

    def close(self) -> None:
        if self.board is not None:
            self.board.close()


def _open_tensorboard(path: Path, step: int) -> Any:  # Any: an optional package
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(path), purge_step=step + 1)


def agree(stop: int, fabric: Fabric) -> int:
    """What any of the processes says, so that all leave after the same step."""
    if fabric.world_size == 1:
        return stop
    said = gather(torch.tensor(stop, device=fabric.device), fabric)  # [world]
    return int(said[said != 0][0]) if said.any() else 0


@contextmanager
def caught_signals() -> Iterator[list[int]]:
    """The signals that came: the first ends a step and saves, a second of the same ends at once."""
    caught: list[int] = []
    before: dict[int, Any] = {}  # Any: what `signal` says is in place

    def catch(number: int, _: object) -> None:
        caught.append(number)
        signal.signal(number, before[number])

    try:
        if threading.current_thread() is threading.main_thread():  # Python allows it nowhere else
            for number in (signal.SIGTERM, signal.SIGINT):
                before[number] = signal.getsignal(number)
                signal.signal(number, catch)
        yield caught
    finally:
        for caught_number, handler in before.items():
            signal.signal(caught_number, handler)


def open_fabric(device: str, precision: Literal["32-true", "bf16-mixed"]) -> Fabric:
    """Where and how precisely to compute; under torchrun, with the processes that it started. Launched.

    Raises:
        ConfigError: there is no such device, or srun started several processes, of which each would train alone.
    """
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))  # of this srun, not of the whole job
    if tasks > 1 and "WORLD_SIZE" not in os.environ:
        raise ConfigError(
            f"srun has started {tasks} tasks, and each would train alone in one folder; start one a node, and in it "
            "torchrun: srun --ntasks-per-node 1 torchrun --nproc-per-node GPUS --no-python theval ..."
        )
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    accelerator, _, index = device.partition(":")
    here = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not here.get(accelerator):
        raise ConfigError(f"device '{device}' is not here; pass --device cpu, or see 'theval doctor'")
    devices: int | list[int] = [int(index)] if index else local
    # Buffers are those of spectral norm, which every process computes alike from weights that are alike; sent around
    # between two forward passes, they would change under the first one's backward.
    strategy = DDPStrategy(broadcast_buffers=False) if processes > 1 else "auto"
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it tells the precision that was asked for
    with warnings.catch_warnings():
        # Where Slurm is installed Lightning advises srun, which is refused above.
        warnings.filterwarnings("ignore", "The `srun` command is available")
        fabric = Fabric(
            accelerator=accelerator,
            devices=devices,
            num_nodes=processes // local,
            strategy=strategy,
            precision=precision,
        )
    fabric.launch()
    return fabric


def gather(x: Tensor, fabric: Fabric) -> Tensor:
    """Of all processes [world, ...]."""
    gathered = fabric.all_gather(x)
    assert isinstance(gathered, Tensor)
    return gathered


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, ema: float, step: int) -> None:
    """Let the average of a network's weights follow it, faster in the beginning; `step` updates were made."""
    decay = min(ema, step / (step + 9))
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - decay)
    for averaged, buffer in zip(average.buffers(), network.buffers(), strict=True):
        averaged.copy_(buffer)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """`<number of the parameter>.<name>`; a count of steps becomes a tensor too."""
    state = optimizer.state_dict()["state"]
    return {f"{i}.{key}": torch.as_tensor(value) for i, values in state.items() for key, value in values.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Any]] = {}  # Any: tensors and counts
    for name, value in tensors.items():
        i, key = name.split(".")
        if key == "step":
            kept: Any = value.item() if isinstance(optimizer, torch.optim.SparseAdam) else value
        else:
            # In the parameter's memory format, which the fused Adam takes for granted.
            kept = torch.empty_like(parameters[int(i)]).copy_(value)
        state.setdefault(int(i), {})[key] = kept
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def read_ahead(make: Callable[[int], Made], first: int, last: int, workers: int) -> Iterator[Made]:
    """make(first), make(first + 1), ... make(last - 1), in order, made ahead.

    One worker is a thread, which suits a training on the same CPU. More are processes: an accelerator takes more than
    threads can make, which wait for each other to run Python.
    """
    if workers > 1:
        loader = DataLoader(_Numbered(make), batch_size=None, sampler=range(first, last), num_workers=workers)
        for made in loader:
            if isinstance(made, ThevalError):
                raise made
            yield made
        return
    with ThreadPoolExecutor(1, "frames") as pool:
        waiting: deque[Future[Made]] = deque()
        try:
            for number in range(first, last):
                waiting.append(pool.submit(make, number))
                if len(waiting) > 2:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True)
class _Numbered(TorchDataset[Made | ThevalError]):
    """What `make` makes, or why it could not: a DataLoader would wrap its sentence into a traceback."""

    make: Callable[[int], Made]

    def __getitem__(self, number: int) -> Made | ThevalError:
        try:
            return self.make(number)
        except ThevalError as error:
            return error
