"""Meta-learning of E, G and D on a prepared dataset: section 3.3 of Zakharov et al. (ICCV 2019).

RUN/training.json      what was asked, and what it ran on
RUN/last.safetensors   everything that is needed to continue: networks, their averages, optimisers, step
RUN/best.safetensors   the averages of E and G, and D, where validation people came out best
RUN/metrics.csv        step, name, value: losses, and the scores of validation people beside the control `warp`
RUN/samples/*.png      validation people: nearest support frame, landmarks, `warp`, ours, what is painted, real
RUN/tensorboard/       the same, where tensorboard is installed
"""

import copy
import json
import math
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn

from generator import candidates, checkpoint, losses
from generator.exam import (
    CONTROL,
    check_health,
    judge,
    picture_samples,
    prepare_exam,
    probe,
    render_control,
    renderer,
    score,
    warn_of_embedder,
)
from generator.networks import Discriminator, Embedder, Generator, NetworkConfig, Output, View, to_network, view
from generator.recipe import MetaConfig, Recipe
from generator.samples import Batch, Footage, draw_episode, read_batch, read_footage
from thead_eval.data import Dataset
from thead_eval.errors import ConfigError, RunError, TrainingFailed
from thead_eval.results import write_json
from thead_eval.run import PACKAGES, package_versions
from thead_eval.training import (
    FINISHED,
    Journal,
    Status,
    agree,
    caught_signals,
    gather,
    optimizer_tensors,
    read_ahead,
    restore_optimizer,
    update_average,
)
from thead_eval.weights import sha256_of

OF_D = ("discriminator", "r_real", "r_fake")  # losses and scores of D
DROWNS = 10  # times all others together is too much for one loss
# Settings that may change between two sittings of one training: they do not change the steps that are made.
FREE = ("steps", "log_every", "save_every", "validate_every", "probe_from", "swap_floor", "workers")


class EmbedAndGenerate(nn.Module):
    """E and G as one network, so that one gradient exchange serves both."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.E = Embedder(config)
        self.G = Generator(config)

    def embed(self, x: Tensor, y: Tensor, owner: Tensor, people: int) -> Tensor:
        """e_hat [B, N]: the mean of e over the frames [M, 3, S, S] of each person."""
        e = self.E(x, y).float()  # [M, N]
        sums = torch.zeros(people, e.shape[1], device=e.device).index_add(0, owner, e)
        return sums / torch.bincount(owner, minlength=people)[:, None]

    def forward(self, batch: Batch, e_hat: Tensor | None = None) -> tuple[Tensor, Output]:
        if e_hat is None:
            e_hat = self.embed(
                to_network(batch.x_support), to_network(batch.y_support), batch.owner, len(batch.clips)
            )  # [B, N]
        psi_hat = self.G.P(e_hat)
        y = to_network(batch.y)
        if self.config.output == "rgb":
            return e_hat, self.G(y, psi_hat)
        return e_hat, self.G(y, psi_hat, to_network(batch.sources), flow_grids(batch, self.config))


@torch.no_grad()
def flow_grids(batch: Batch, config: NetworkConfig) -> Tensor:
    """The candidates' grids [B, C, O, O, 2]: each sample chooses among support frames of its own."""
    B, C = batch.source_points.shape[:2]
    own = torch.arange(B * C, device=batch.points.device).view(B, C)
    return candidates.grids(batch.source_points.flatten(0, 1), batch.points, own, config)


@dataclass
class State:
    """What changes while training."""

    EG: EmbedAndGenerate
    D: Discriminator
    W: nn.Embedding  # [clips, N]; row i is w_i
    average: EmbedAndGenerate  # of EG
    optimizer: torch.optim.Adam
    d_optimizer: torch.optim.Adam
    w_optimizer: torch.optim.SparseAdam
    step: int = 0  # updates made
    seconds: float = 0.0  # in all sittings
    best: float = math.inf
    best_step: int = 0
    init: str = ""  # JSON: sha256 and steps of the checkpoint that it started from; '' of random weights

    def networks(self) -> dict[str, nn.Module]:
        """By the names that they have in a checkpoint."""
        averages = {"average_E": self.average.E, "average_G": self.average.G}
        return {"E": self.EG.E, "G": self.EG.G, "D": self.D, "W": self.W, **averages}

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """By the names that they have in a checkpoint."""
        return {"optimizer": self.optimizer, "d_optimizer": self.d_optimizer, "w_optimizer": self.w_optimizer}


def new_state(recipe: Recipe, clips: int, device: torch.device) -> State:
    """Networks as they start with this seed."""
    meta = recipe.meta
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(meta.seed)
        EG, D = EmbedAndGenerate(recipe.network), Discriminator(recipe.network)
        W = nn.Embedding(clips, recipe.network.embedding, sparse=True)
        nn.init.uniform_(W.weight, -0.1, 0.1)
    EG = EG.to(device).to(memory_format=torch.channels_last)
    D = D.to(device).to(memory_format=torch.channels_last)
    W = W.to(device)
    average = copy.deepcopy(EG).eval().requires_grad_(False)

    def adam(network: nn.Module, lr: float) -> torch.optim.Adam:
        return torch.optim.Adam(network.parameters(), lr, meta.betas, meta.eps, fused=True)

    w_optimizer = torch.optim.SparseAdam(W.parameters(), meta.d_lr, meta.betas, meta.eps)
    return State(EG, D, W, average, adam(EG, meta.lr), adam(D, meta.d_lr), w_optimizer)


def update(
    state: State,
    batch: Batch,
    corners: Tensor | None,
    recipe: Recipe,
    content: losses.ContentLoss,
    fabric: Fabric,
    nets: "Wrapped",
) -> dict[str, float]:
    """One step: E and G, then D and W, each from a loss and a backward pass of its own; what each loss was.

    One sum for both, as some re-implementations have it, is what turns pictures black.

    Raises:
        TrainingFailed: a loss is not a number; no weights were changed by it.
    """
    meta, config = recipe.meta, recipe.network
    x, y = to_network(batch.x), to_network(batch.y)
    learns = state.step >= meta.g_start
    with torch.set_grad_enabled(learns):
        e_hat, output = nets.EG(batch)
    views: Views | None = None
    if state.step >= meta.d_start:
        views = Views(view(x, y, config, corners), view(output.frame, y, config, corners))
    told: dict[str, float] = {}

    # E and G.
    if learns:
        parts = _content_parts(state, batch, output, x, recipe, content, fabric)
        if views is not None:
            parts |= _adversarial_parts(state, batch, views, e_hat, meta, fabric)
        told |= _finite(parts, state.step)
        state.optimizer.zero_grad()
        fabric.backward(torch.stack(list(parts.values())).sum())
        state.optimizer.step()

    # D and W.
    if views is not None:
        if not learns:
            # Nothing else would bring the two together, and a new person's w' starts at e_NEW.
            _set_rows(state.W, batch.clips, e_hat, fabric)
        real, fake = views
        both = torch.cat([real.x, fake.x.detach()]), torch.cat([real.y, real.y])  # [2B, 3, S, S]
        for _ in range(meta.d_steps):
            r, _ = nets.D(*both, state.W(batch.clips).repeat(2, 1))
            r_real, r_fake = r.chunk(2)
            loss = losses.discriminator_loss(r_real, r_fake)
            told |= _finite({"discriminator": loss, "r_real": r_real.mean(), "r_fake": r_fake.mean()}, state.step)
            state.d_optimizer.zero_grad()
            state.w_optimizer.zero_grad()
            fabric.backward(loss)
            state.d_optimizer.step()
            if learns:
                _share_rows(state.W, fabric)
                state.w_optimizer.step()  # type: ignore[no-untyped-call]

    state.step += 1
    if learns:
        update_average(state.average, state.EG, meta.ema, state.step - meta.g_start)
    return told


class Views(NamedTuple):
    """What D sees of a batch."""

    real: View
    fake: View


def _content_parts(
    state: State,
    batch: Batch,
    output: Output,
    x: Tensor,
    recipe: Recipe,
    content: losses.ContentLoss,
    fabric: Fabric,
) -> dict[str, Tensor]:
    """The terms of E's and G's loss, weighted, that compare the output with the real frames x."""
    meta = recipe.meta
    with fabric.autocast():
        draw = np.random.default_rng([meta.seed, 3, state.step])
        square = losses.draw_square(draw, meta.content_crop, recipe.network.output_size)
        parts = {"content": meta.content * content(output.frame, x, batch.points, square)}
    parts["l1"] = meta.l1 * (output.frame - x).abs().mean()
    if output.masks is not None and output.flow is not None:
        with fabric.autocast():
            half, real = F.avg_pool2d(output.rgb, 2), F.avg_pool2d(x, 2)
            painted = content.of_frames(half, real, square and square.halved())
        parts["rgb"] = meta.rgb * ((output.rgb - x).abs().mean() + painted)
        parts["mask"] = meta.mask * output.masks[:, -1].mean()
        parts["flow"] = meta.flow * (output.flow.diff(dim=-1).abs().mean() + output.flow.diff(dim=-2).abs().mean())
    return parts


def _adversarial_parts(
    state: State, batch: Batch, views: Views, e_hat: Tensor, meta: MetaConfig, fabric: Fabric
) -> dict[str, Tensor]:
    """The terms of E's and G's loss, weighted, that D gives, which learns nothing from them."""
    grown = min(1.0, (state.step - meta.joined + 1) / meta.d_ramp) if meta.d_ramp else 1.0
    w = state.W(batch.clips).detach()  # [B, N]
    state.D.requires_grad_(False)
    with fabric.autocast():
        r_fake, fake_features = state.D(views.fake.x, views.fake.y, w)
        with torch.no_grad():
            _, real_features = state.D(views.real.x, views.real.y, w)
    state.D.requires_grad_(True)
    matched = losses.feature_matching_loss(fake_features, real_features)
    return {
        "adversarial": grown * meta.adversarial * losses.adversarial_loss(r_fake),
        "feature_matching": grown * meta.feature_matching * matched,
        "match": grown * meta.match * losses.match_loss(e_hat, w),
    }


def _finite(parts: Mapping[str, Tensor], step: int) -> dict[str, float]:
    """Their values. Looked at before the backward pass: that of a warp with NaN in its grid ends the process.

    Raises:
        TrainingFailed: one is not a number.
    """
    values = dict(zip(parts, torch.stack(list(parts.values())).tolist(), strict=True))
    for name, value in values.items():
        if not math.isfinite(value):
            raise TrainingFailed(f"step {step + 1}: the loss '{name}' is {value}; start again with a smaller lr")
    return values


class Wrapped(NamedTuple):
    """EG and D as Fabric wraps them: precision, and the exchange of gradients."""

    EG: Callable[[Batch], tuple[Tensor, Output]]
    D: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, list[Tensor]]]


def _share_rows(W: nn.Embedding, fabric: Fabric) -> None:
    """Every process gets the gradients of the rows that any of them used: a few rows, not the whole table."""
    if fabric.world_size == 1:
        return
    gradient = W.weight.grad
    assert gradient is not None
    rows = gather(gradient._indices()[0], fabric)  # [world, R]
    values = gather(gradient._values(), fabric)  # [world, R, N]
    W.weight.grad = torch.sparse_coo_tensor(
        rows.flatten()[None], values.flatten(0, 1) / fabric.world_size, W.weight.shape
    )


@torch.no_grad()
def _set_rows(W: nn.Embedding, clips: Tensor, e_hat: Tensor, fabric: Fabric) -> None:
    """w_i becomes e_hat_i, in every process for the clips of all of them."""
    if fabric.world_size > 1:
        clips, e_hat = gather(clips, fabric).flatten(), gather(e_hat, fabric).flatten(0, 1)
    # A clip may be there twice: the mean, as which of them comes last is not said.
    rows, place = torch.unique(clips, return_inverse=True)
    sums = torch.zeros(len(rows), e_hat.shape[1], device=clips.device).index_add(0, place, e_hat.float())
    W.weight[rows] = sums / torch.bincount(place)[:, None]


# Checkpoints.


def save_state(path: Path, state: State, recipe: Recipe, dataset: Dataset) -> None:
    """Everything that is needed to continue."""
    tensors: dict[str, nn.Module | dict[str, Tensor]] = {**state.networks()}
    tensors |= {name: optimizer_tensors(optimizer) for name, optimizer in state.optimizers().items()}
    checkpoint.save(path, tensors, recipe.network, _metadata(state, recipe, dataset))


def save_best(path: Path, state: State, recipe: Recipe, dataset: Dataset) -> None:
    """What users need: E and G by their averages, and D to fine-tune with."""
    networks = {"E": state.average.E, "G": state.average.G, "D": state.D}
    checkpoint.save(path, networks, recipe.network, _metadata(state, recipe, dataset))


def _metadata(state: State, recipe: Recipe, dataset: Dataset) -> dict[str, str]:
    init = {"init": state.init} if state.init else {}
    return init | {
        "recipe": recipe.name,
        "steps": str(state.step),
        "seconds": repr(state.seconds),
        "best": repr(state.best),
        "best_step": str(state.best_step),
        "meta": json.dumps(asdict(recipe.meta)),
        "augmentation": json.dumps(asdict(recipe.augmentation)),
        "dataset": dataset.sha256,
    }


def load_state(path: Path, state: State, recipe: Recipe, dataset: Dataset) -> None:
    """Put `state` where the checkpoint's training was.

    Raises:
        RunError: it was another training.
        CheckpointError: it is damaged, or of other networks.
    """
    saved = checkpoint.load(path, expect=recipe.network)
    expected = _metadata(state, recipe, dataset)
    if saved.metadata["dataset"] != dataset.sha256:
        raise RunError(f"'{path}' was trained on another dataset than '{dataset.path}'; name another folder with -o")
    for section in ("meta", "augmentation"):
        was, now = json.loads(saved.metadata[section]), json.loads(expected[section])
        for key in now:
            # A setting that was not there yet has the value that changes nothing.
            if key in was and key not in FREE and was[key] != now[key]:
                raise RunError(
                    f"'{path}' was trained with {section} {key} = {was[key]!r}, not {now[key]!r}; "
                    "give the same settings, or name another folder with -o"
                )
    for name, network in state.networks().items():
        saved.restore(name, network)
    for name, optimizer in state.optimizers().items():
        restore_optimizer(optimizer, saved.part(name))
    state.step = int(saved.metadata["steps"])
    state.seconds = float(saved.metadata["seconds"])
    state.best, state.best_step = float(saved.metadata["best"]), int(saved.metadata["best_step"])
    state.init = saved.metadata.get("init", "")


# The training.


class Ending(NamedTuple):
    """Why a training came back."""

    step: int
    seconds: float
    signal: int | None  # that asked it to stop; None: it is finished
    best: float  # `score` of the best checkpoint; infinite where none was validated
    best_step: int


def train(
    recipe: Recipe,
    dataset: Dataset,
    out: Path,
    fabric: Fabric,
    *,
    resume: bool = False,
    hours: float | None = None,
    start: Path | None = None,
    tell: Callable[[Status], None] = lambda status: None,
    say: Callable[[str], None] = lambda line: None,
) -> Ending:
    """Train until `recipe.meta.steps` are made or `hours` have passed in all sittings, or a signal comes.

    Args:
        recipe: What to train, and how.
        dataset: Its split 'train' is learnt, its split 'val' chooses the best checkpoint.
        out: The run folder.
        fabric: Launched; says where, in what precision, and with which other processes.
        resume: Continue what is in `out`; the run is then the one that would have been. A new one where it is empty.
        hours: In all sittings.
        start: A checkpoint of the same networks to start from, instead of from random weights.
        tell: Is told of each step.
        say: Is told of what happens now and then, in a line.

    Raises:
        RunError: `out` holds another training, or one and `resume` was not asked for.
        DatasetError: there are too few clips or people.
        TrainingFailed: a loss became NaN, or the networks collapsed.
        WeightsMissing: a content network's file is not on this machine.
    """
    meta, device, leads = recipe.meta, fabric.device, fabric.global_rank == 0
    if meta.batch % fabric.world_size:
        raise ConfigError(f"a batch of {meta.batch} cannot be shared by {fabric.world_size} processes; choose another")
    last = out / "last.safetensors"
    if last.exists() and not resume:
        raise RunError(f"'{out}' already holds a training; pass --resume to continue it, or another -o")
    footage = read_footage(dataset, "train")
    state = new_state(recipe, len(footage.clips), device)
    if last.exists():
        load_state(last, state, recipe, dataset)
        if state.step >= meta.steps or (hours is not None and state.seconds >= 3600 * hours):
            asked = f"{meta.steps} steps" if state.step >= meta.steps else f"{hours:g} hours"
            say(f"this training is finished, all {asked} of it; ask for more to go on")
            return Ending(state.step, state.seconds, None, state.best, state.best_step)
        say(f"continuing at step {state.step}")
    elif start is not None:
        load_networks(start, state)
    content = losses.load_content(meta.content_networks, device)  # before anything is written, as it may be missing
    nets = wrap(state, fabric)
    if leads:
        (out / "samples").mkdir(parents=True, exist_ok=True)
        write_json(out / "training.json", describe(recipe, dataset, fabric))
        journal = Journal(out, state.step)
        if journal.board is None:
            say("TensorBoard is not installed (pip install 'theval[train]'); the numbers are in metrics.csv alone")
        exam = prepare_exam(dataset, recipe, device)
        control = judge(exam, render_control)
        if state.step == 0:
            journal.write(0, {f"{CONTROL}/{name}": value for name, value in control.items()})
    sums, counted, stop, begin = dict[str, float](), 0, 0, time.monotonic() - state.seconds
    with caught_signals() as caught:
        for batch in read_ahead(partial(draw_batch, footage, recipe, fabric), state.step, meta.steps, meta.workers):
            corners = draw_corners(recipe, state.step, fabric)
            parts = update(state, batch.to(device), corners, recipe, content, fabric, nets)
            for name, value in parts.items():
                sums[name] = sums.get(name, 0.0) + value
            counted += 1
            state.seconds = time.monotonic() - begin
            over = state.step == meta.steps or (hours is not None and state.seconds >= 3600 * hours)
            stop = agree(caught[0] if caught else FINISHED if over else 0, fabric)
            if leads:
                tell(Status(state.step, _last_step(state, meta, hours), state.seconds))

            due = [stop or state.step % every == 0 for every in (meta.log_every, meta.save_every, meta.validate_every)]
            if not leads or not any(due):
                if stop:
                    break
                continue
            log, save, validate = due
            if log:
                means = {f"loss/{name}": total / counted for name, total in sums.items()}
                journal.write(state.step, means | {"seconds": state.seconds})
                if state.step <= 5 * meta.log_every or state.step - meta.joined in range(5 * meta.log_every):
                    say(f"step {state.step}: {_shares(means)}")
                    for line in _warn_of_shares(means):
                        say(f"step {state.step}: {line}")
                sums, counted = {}, 0
            if validate and stop <= 0:
                values, probes = judge(exam, renderer(state.average, fabric)), probe(state.average, exam, fabric)
                result = score(values, control)
                journal.write(
                    state.step, values | {"score": result} | {f"probe/{k}": v for k, v in probes._asdict().items()}
                )
                picture_samples(state.average, exam, fabric).save(out / "samples" / f"{state.step:07d}.png")
                say(f"step {state.step}: score {result:.4f} (below 1 beats {CONTROL}); " + _beside(values, control))
                if state.step >= meta.probe_from:
                    check_health(probes, recipe, state.step)
                    for line in warn_of_embedder(probes, recipe):
                        say(f"step {state.step}: {line}")
                # While E and G stand, the latest D is the better one.
                if result < state.best or state.step <= meta.g_start:
                    state.best, state.best_step = result, state.step
                    save_best(out / "best.safetensors", state, recipe, dataset)
            if save or validate:
                save_state(last, state, recipe, dataset)
            if stop:
                break
    if leads:
        journal.close()
    return Ending(state.step, state.seconds, stop if stop > 0 else None, state.best, state.best_step)


def wrap(state: State, fabric: Fabric) -> Wrapped:
    """EG and D with the precision and the gradient exchange of `fabric`; W exchanges its rows by itself."""
    return Wrapped(fabric.setup_module(state.EG), fabric.setup_module(state.D))


def draw_batch(footage: Footage, recipe: Recipe, fabric: Fabric, step: int) -> Batch:
    """This process's part of a step's samples."""
    meta = recipe.meta
    share = meta.batch // fabric.world_size
    first = step * meta.batch + fabric.global_rank * share
    episodes = [
        draw_episode(footage, meta.seed, number, meta.shots, recipe.augmentation)
        for number in range(first, first + share)
    ]
    return read_batch(footage, episodes, recipe.network, meta.embed)


def draw_corners(recipe: Recipe, step: int, fabric: Fabric) -> Tensor | None:
    """Where D looks in each sample [B, 2]: as the samples, a function of seed, step and place."""
    config, meta = recipe.network, recipe.meta
    if config.crop is None:
        return None
    room = config.output_size - config.crop
    corners = np.random.default_rng([meta.seed, 2, step]).integers(0, room + 1, (meta.batch, 2))
    return torch.from_numpy(corners).chunk(fabric.world_size)[fabric.global_rank]


def load_networks(path: Path, state: State) -> None:
    """Start from the networks of a checkpoint: E and G by their averages where it has them.

    Raises:
        CheckpointError: it is damaged, or of other networks.
    """
    saved = checkpoint.load(path, expect=state.EG.config)
    averaged = "average_" if saved.part("average_E") else ""  # `last` has both, `best` the averages alone
    saved.restore(f"{averaged}E", state.EG.E)
    saved.restore(f"{averaged}G", state.EG.G)
    if saved.part("D"):
        saved.restore("D", state.D)
    state.average.load_state_dict(state.EG.state_dict())
    state.init = json.dumps({"sha256": sha256_of(path), "steps": int(saved.metadata.get("steps", "0"))})


def describe(recipe: Recipe, dataset: Dataset, fabric: Fabric) -> dict[str, Any]:  # Any: JSON
    """What training.json says."""
    return {
        "command": ["theval", *sys.argv[1:]],
        "recipe": asdict(recipe),
        "dataset": {"path": dataset.path, "sha256": dataset.sha256},
        "device": str(fabric.device),
        "processes": fabric.world_size,
        "packages": package_versions([*PACKAGES, "lightning-fabric", "safetensors"]),
    }


def _last_step(state: State, meta: MetaConfig, hours: float | None) -> int:
    """At the pace so far."""
    if hours is None or not state.seconds:
        return meta.steps
    return min(meta.steps, max(state.step, round(state.step * 3600 * hours / state.seconds)))


def _shares(means: Mapping[str, float]) -> str:
    """Which loss pulls how much: none should be ten times the others."""
    own = {name.removeprefix("loss/"): abs(value) for name, value in means.items()}
    if own.keys() <= set(OF_D):  # before g_start
        return ", ".join(f"{name} {means[f'loss/{name}']:.4f}" for name in OF_D)
    own = {name: value for name, value in own.items() if name not in OF_D}
    total = sum(own.values()) or 1.0
    return "loss " + ", ".join(f"{name} {value:.4f} ({value / total:.0%})" for name, value in own.items())


def _warn_of_shares(means: Mapping[str, float]) -> Iterator[str]:
    """Where one loss drowns the others, as the match loss does in a known repetition of the paper."""
    own = {name: abs(value) for name, value in means.items() if value and name.removeprefix("loss/") not in OF_D}
    total = sum(own.values())
    for name, value in own.items():
        if len(own) > 1 and value > DROWNS * (total - value):
            name = name.removeprefix("loss/")
            yield f"warning: the loss '{name}' is more than {DROWNS} times all others together; lower its weight"


def _beside(values: Mapping[str, float], control: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f} ({CONTROL} {control[name]:.3f})" for name, value in values.items())


# The plan.


class Plan(NamedTuple):
    """What a training would take, from two steps that were made and thrown away."""

    steps: int
    samples: int
    epochs: float  # each person once
    people: int
    clips: int
    validation_people: int
    parameters: dict[str, int]
    seconds_per_step: float
    hours: float
    memory_gb: float  # at its most: of the device, or of this process on a CPU


def plan(recipe: Recipe, dataset: Dataset, fabric: Fabric, hours: float | None = None) -> Plan:
    """Make three steps with all losses, time the last two, and keep nothing."""
    meta, device = replace(recipe.meta, d_start=0, d_ramp=0, g_start=0), fabric.device
    recipe = replace(recipe, meta=meta)
    content = losses.load_content(meta.content_networks, device)
    footage = read_footage(dataset, "train")
    state = new_state(recipe, len(footage.clips), device)
    nets = wrap(state, fabric)
    seconds = []
    for step in range(3):
        begin = time.monotonic()
        batch = draw_batch(footage, recipe, fabric, step).to(device)
        update(state, batch, draw_corners(recipe, step, fabric), recipe, content, fabric, nets)
        seconds.append(time.monotonic() - begin)
    each = sum(seconds[1:]) / 2
    steps = meta.steps if hours is None else min(meta.steps, round(3600 * hours / each))
    exam = prepare_exam(dataset, recipe, device)
    if device.type == "cuda":
        memory = torch.cuda.max_memory_allocated(device) / 1e9
    else:
        unit = 1 if sys.platform == "darwin" else 1024
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
    return Plan(
        steps,
        steps * meta.batch,
        steps * meta.batch / len(footage.people),
        len(footage.people),
        len(footage.clips),
        len(next(iter(exam.episodes.values()))) // meta.validation_frames,
        {
            name: sum(p.numel() for p in network.parameters())
            for name, network in {"E": state.EG.E, "G": state.EG.G, "D": state.D, "W": state.W}.items()
        },
        each,
        steps * each / 3600,
        memory,
    )
