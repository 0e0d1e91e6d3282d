"""How many samples a second training learns, beside the same networks as torch has them: float32, NCHW.

    python scripts/training_speed.py
    python scripts/training_speed.py --json training.json

A turn is one update of a batch that lies ready: what the processor computes, not what the disk reads. The generator's
is a whole step, E and G, then D and W. Contenders take turns, as in benchmarks/speed.py; this is a script, as
benchmarks may import neither generator nor detectors.
"""

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import detectors.train
import generator.meta
import generator.networks
from benchmarks.speed import Contender, Row, Task, machine, measure, tell
from detectors.depthwise import Depthwise
from detectors.recipe import read_recipe as read_detector_recipe
from detectors.samples import Batch as Windows
from generator import losses
from generator.recipe import read_recipe
from generator.samples import read_footage
from thead_eval.synthetic import head_clip
from thead_eval.testing import make_dataset

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Sizes:
    """How much each task gets to do."""

    people: int = 4
    side: int = 256  # pixels of the frames
    batch: int = 8  # samples in an update of the generator
    windows: int = 16  # and of a detector
    turns: int = 5
    changes: dict[str, Any] | None = None  # of the generator's networks


QUICK = Sizes(people=2, side=64, batch=2, windows=2, turns=1, changes={"size": 64, "output_size": 64, "crop": None})


class Plain(TorchFunctionMode):
    """As torch has it by default: nobody changes the layout of memory."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # Any: torch's own signature
        """Call `func` without a wish for channels_last."""
        given = kwargs or {}
        if given.get("memory_format") is torch.channels_last:
            given = {**given, "memory_format": torch.contiguous_format}
        return func(*args, **given)


@contextmanager
def layout(plain: bool) -> Iterator[None]:
    """Memory and operations as torch has them, or as theval does."""
    with torch.inference_mode(False), ExitStack() as stack:  # `measure` is in inference mode
        if plain:
            stack.enter_context(Plain())
            stack.enter_context(patch.object(generator.networks, "instance_norm", instance_norm_by_torch))
            stack.enter_context(patch.object(generator.networks, "_enlarge", enlarge_by_torch))
        yield


def instance_norm_by_torch(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """What `generator.networks.instance_norm` does."""
    normal = F.instance_norm(x, eps=generator.networks.EPS)
    return normal * weight[:, :, None, None] + bias[:, :, None, None]


def enlarge_by_torch(x: Tensor, side: int) -> Tensor:
    """What `generator.networks._enlarge` does."""
    flat = x.reshape(-1, 1, *x.shape[-2:])
    return F.interpolate(flat, size=(side, side), mode="bilinear").view(*x.shape[:-2], side, side)


def generator_task(folder: Path, sizes: Sizes) -> Task:
    """A step of meta-learning, adversarial part included."""
    footage = read_footage(make_dataset(folder, sizes.people, 40, sizes.side, split="train"), "train")
    recipe = read_recipe("compact", None, {"batch": sizes.batch, "d_start": 0, "d_ramp": 0})
    recipe = replace(recipe, network=replace(recipe.network, **(sizes.changes or {})))

    def contender(name: str, precision: Any, *, plain: bool = False) -> Contender:  # Any: Fabric's choices
        def prepare() -> Callable[[], object]:
            fabric = Fabric(accelerator="cpu", devices=1, precision=precision)
            with layout(plain):
                state = generator.meta.new_state(recipe, len(footage.clips), CPU)
                if plain:
                    as_torch_has_it(state.EG, state.D, state.average)
                nets = generator.meta.wrap(state, fabric)
                content = losses.load_content(recipe.meta.content_networks, CPU)
            batch = generator.meta.draw_batch(footage, recipe, fabric, 0)
            if plain:
                batch = batch._replace(x=batch.x.contiguous(), y=batch.y.contiguous())

            def work() -> object:
                with layout(plain):
                    corners = generator.meta.draw_corners(recipe, 0, fabric)
                    return generator.meta.update(state, batch, corners, recipe, content, fabric, nets)

            return work

        return Contender(name, prepare)

    return Task(
        f"Meta-learning, recipe compact, batch {sizes.batch}",
        "samples",
        sizes.batch,
        sizes.turns,
        (
            contender("bfloat16, channels last", "bf16-mixed"),
            contender("float32, channels last", "32-true"),
            contender("float32, NCHW, normalised and enlarged by torch", "32-true", plain=True),
        ),
    )


def detector_task(sizes: Sizes) -> Task:
    """A step of the detector efflite0."""
    recipe = read_detector_recipe("efflite0", None, {"batch": sizes.windows})
    side = recipe.network.get("size", 224)
    frames = head_clip(0, sizes.windows, side)[0].frames[:, None]  # [B, 1, 3, H, W] uint8
    fake = (torch.arange(sizes.windows) % 2).float()

    def contender(name: str, precision: Any, *, plain: bool = False) -> Contender:  # Any: Fabric's choices
        def prepare() -> Callable[[], object]:
            fabric = Fabric(accelerator="cpu", devices=1, precision=precision)
            with layout(plain):
                state = detectors.train.new_state(recipe, CPU)
                if plain:
                    learn_depthwise_by_torch(state.network)
                    as_torch_has_it(state.network, state.average)
                    learnt = [p for p in state.network.parameters() if p.requires_grad]
                    state.optimizer = torch.optim.AdamW(learnt, recipe.train.lr, fused=True)
                wrapped = fabric.setup_module(state.network)
                wrapped.mark_forward_method("learn")
            batch = Windows(frames.contiguous() if plain else frames, fake)

            def work() -> object:
                with layout(plain):
                    return detectors.train.update(state, batch, recipe, fabric, wrapped.learn)

            return work

        return Contender(name, prepare)

    return Task(
        f"Training efflite0, batch {sizes.windows} of {side} px",
        "frames",
        sizes.windows,
        sizes.turns,
        (
            contender("bfloat16, channels last", "bf16-mixed"),
            contender("float32, channels last", "32-true"),
            contender("float32, NCHW, depthwise kernels of torch, learnt", "32-true", plain=True),
        ),
    )


def as_torch_has_it(*networks: nn.Module) -> None:
    """Weights in the default layout."""
    for network in networks:
        network.to(memory_format=torch.contiguous_format)


def learn_depthwise_by_torch(network: nn.Module) -> None:
    """Torch's convolution in place of each `Depthwise`, and learnt as any other."""
    for name, module in list(network.named_modules()):
        if isinstance(module, Depthwise):
            channels, side = len(module.weight), module.weight.shape[-1]
            kind = Conv2dSame if module.same else nn.Conv2d
            other = kind(channels, channels, side, module.stride, module.padding, groups=channels)
            other.load_state_dict(module.state_dict())
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, other)


@click.command()
@click.option("--only", type=click.Choice(["generator", "detector"]), help="One of the two.")
@click.option("--quick", is_flag=True, help="Small networks, one turn: shows that all of it runs, not how fast.")
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write the rows here too.")
def command(only: str | None, quick: bool, json_path: Path | None) -> None:
    """Time a step of training beside the same networks in float32, laid out and computed as torch has it.

    \b
    Examples:
      python scripts/training_speed.py
      OMP_NUM_THREADS=1 python scripts/training_speed.py --json training.json
    """
    from rich.console import Console
    from rich.progress import Progress

    sizes = QUICK if quick else Sizes()
    about = machine()
    rows: list[Row] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        Progress(console=Console(file=sys.stderr), transient=True) as progress,
    ):
        tasks = [] if only == "detector" else [generator_task(Path(folder), sizes)]
        tasks += [] if only == "generator" else [detector_task(sizes)]
        bar = progress.add_task("training", total=len(tasks))
        for task in tasks:
            progress.update(bar, description=task.name)
            rows += measure(task)
            progress.advance(bar)
    tell(rows, about, quick, json_path)


if __name__ == "__main__":
    command()
