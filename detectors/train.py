"""The training of a detector's network on real clips and fakes; validation people choose the best state.

RUN/training.json      what was asked, and what it ran on
RUN/frames/            the frames that are learnt from and validated on, read once; may be deleted
RUN/last.safetensors   everything that is needed to continue
RUN/best.safetensors   the detector where validation came out best, calibrated there
RUN/metrics.csv        step, name, value: loss, and what validation came to
RUN/tensorboard/       the same, where tensorboard is installed
"""

import copy
import json
import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn

from detectors.augment import Augmentation
from detectors.checkpoint import Seen, build, identity_hash, save_detector
from detectors.exam import Clips, Exam, Result, examined, prepare_exam, set_verdicts, sit, warn_of_blends
from detectors.recipe import Recipe, TrainConfig
from detectors.samples import Batch, Footage, read_batch, read_footage
from thead_eval.errors import ConfigError, DatasetError, RunError, TrainingFailed
from thead_eval.evidence import QUALITY, Evidence
from thead_eval.results import write_json
from thead_eval.run import PACKAGES, package_versions
from thead_eval.tensors import part_of, read_tensors, write_tensors
from thead_eval.training import (
    FINISHED,
    Journal,
    Status,
    agree,
    caught_signals,
    optimizer_tensors,
    read_ahead,
    restore_optimizer,
    update_average,
)

# Settings that may change between two sittings of one training: they do not change the steps that are made.
FREE = ("steps", "log_every", "save_every", "validate_every", "patience", "workers")


@dataclass
class State:
    """What changes while training."""

    network: nn.Module
    average: nn.Module  # of the network
    optimizer: torch.optim.AdamW
    step: int = 0  # updates made
    seconds: float = 0.0  # in all sittings
    best: float = math.inf
    best_step: int = 0
    worse: int = 0  # validations since then


class Ending(NamedTuple):
    """Why a training came back."""

    step: int
    seconds: float
    signal: int | None  # that asked it to stop; None: it is finished
    best: float  # log-loss of the best state on validation clips; infinite where none was validated
    best_step: int


def new_state(recipe: Recipe, device: torch.device) -> State:
    """The network as it starts with this seed, and from the weights that it starts from."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.train.seed)
        network = build(recipe.detector, recipe.network)
        network.start()  # type: ignore[operator]  # a method
    network = network.to(device).to(memory_format=torch.channels_last)
    average = copy.deepcopy(network).eval().requires_grad_(False)
    learnt = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learnt, recipe.train.lr, weight_decay=recipe.train.weight_decay, fused=True)
    return State(network, average, optimizer)


def update(state: State, batch: Batch, recipe: Recipe, fabric: Fabric, learn: Callable[[Tensor], Tensor]) -> float:
    """One step; what the loss was.

    Raises:
        TrainingFailed: the loss is not a number; no weights were changed by it.
    """
    config = recipe.train
    for group in state.optimizer.param_groups:
        group["lr"] = config.lr * min(1.0, (state.step + 1) / max(config.warmup, 1))
    loss = F.binary_cross_entropy_with_logits(learn(batch.x).float(), batch.fake)
    value = loss.item()
    if not math.isfinite(value):
        raise TrainingFailed(f"step {state.step + 1}: the loss is {value}; start again with a smaller lr")
    state.optimizer.zero_grad()
    fabric.backward(loss)
    nn.utils.clip_grad_norm_(state.network.parameters(), config.clip)
    state.optimizer.step()

    state.step += 1
    update_average(state.average, state.network, config.ema, state.step)
    return value


def train(
    recipe: Recipe,
    evidence: Evidence,
    out: Path,
    fabric: Fabric,
    *,
    resume: bool = False,
    hours: float | None = None,
    frames: Path | None = None,
    tell: Callable[[Status], None] = lambda status: None,
    read: Callable[[str, int, int], None] = lambda what, done, of: None,
    say: Callable[[str], None] = lambda line: None,
) -> Ending:
    """Train until the steps are made, `hours` have passed, validation stops getting better, or a signal comes.

    Args:
        recipe: What to train, and how.
        evidence: Its split 'train' is learnt, its split 'val' chooses and calibrates the best state.
        out: The run folder.
        fabric: Launched; says where, in what precision, and with which other processes.
        resume: Continue what is in `out`; the run is then the one that would have been. A new one where it is empty.
        hours: In all sittings.
        frames: In place of RUN/frames, so that trainings of the same clips, one after the other, share it.
        tell: Is told of each step.
        read: Is told of the clips that are read at the start.
        say: Is told of what happens now and then, in a line.

    Raises:
        RunError: `out` holds another training, or one and `resume` was not asked for.
        DatasetError: there are no reals or no fakes in one of the two splits.
        TrainingFailed: the loss became NaN.
    """
    config, device, leads = recipe.train, fabric.device, fabric.global_rank == 0
    if config.batch // 2 % fabric.world_size:
        raise ConfigError(f"a batch of {config.batch} cannot be shared by {fabric.world_size} processes in pairs")
    check_resumable(out, resume)
    last = out / "last.safetensors"
    state = new_state(recipe, device)
    if last.exists():
        load_state(last, state, recipe, evidence)
        say(f"continuing at step {state.step}")
    if _is_over(state, config, hours):
        return _ending(state, None)
    kind: Any = state.network  # Any: what checkpoint.NETWORKS says of networks
    out.mkdir(parents=True, exist_ok=True)
    folder = frames or out / "frames"
    if leads:  # the others find the frames read
        read_all(kind, config, evidence, folder, read)
    fabric.barrier()
    footage, exam = read_all(kind, config, evidence, folder, read)
    say(_describe_footage(footage, exam))
    warn_of_blends(exam, config.blends > 0, say)
    wrapped = fabric.setup_module(state.network)
    wrapped.mark_forward_method("learn")
    if leads:
        write_json(out / "training.json", describe(recipe, evidence, fabric))
        journal = Journal(out, state.step)
    total, counted, stop, begin = 0.0, 0, 0, time.monotonic() - state.seconds
    with caught_signals() as caught:
        draw = partial(draw_batch, footage, recipe, fabric, kind.size)
        for batch in read_ahead(draw, state.step, config.steps, config.workers):
            total += update(state, batch.to(device), recipe, fabric, wrapped.learn)
            counted += 1
            state.seconds = time.monotonic() - begin
            over = _is_over(state, config, hours)
            stop = agree(caught[0] if caught else FINISHED if over else 0, fabric)
            if leads:
                tell(Status(state.step, _last_step(state, config, hours), state.seconds))

            due = [
                stop or state.step % every == 0
                for every in (config.log_every, config.save_every, config.validate_every)
            ]
            if not any(due):
                continue
            log, save, validate = due
            if log and leads:
                journal.write(state.step, {"loss": total / counted, "seconds": state.seconds})
                total, counted = 0.0, 0
            if validate and stop <= 0:
                # All of them sit, as all have to know when it is over.
                result = sit_exam(exam, state.average, fabric)
                better = result.score < state.best
                state.worse = 0 if better else state.worse + 1
                if better:
                    state.best, state.best_step = result.score, state.step
                if leads:
                    journal.write(
                        state.step,
                        {f"val/{name}": v for name, v in result.values.items()} | {"val/log_loss": result.score},
                    )
                    say(f"step {state.step}: validation log-loss {result.score:.4f}" + _beside(result.values))
                    if better:
                        save_best(out / "best.safetensors", state, recipe, evidence, exam, result)
                stop = stop or (FINISHED if state.worse >= config.patience else 0)
            if leads and (save or validate or stop):
                save_state(last, state, recipe, evidence)
            if stop:
                break
    if leads:
        journal.close()
    return _ending(state, stop if stop > 0 else None)


def check_resumable(out: Path, resume: bool) -> None:
    """Whether nothing would be overwritten.

    Raises:
        RunError: `out` holds a training that is not to be continued, or a detector that was fitted.
    """
    if (out / "last.safetensors").exists():
        if not resume:
            raise RunError(f"'{out}' already holds a training; pass --resume to continue it, or another -o")
    elif not (out / "training.json").exists():  # which a network's begins with
        check_vacant(out)


def check_vacant(out: Path) -> None:
    """Whether nothing would be overwritten.

    Raises:
        RunError: `out` holds a detector.
    """
    if (out / "best.safetensors").exists():
        raise RunError(f"'{out}' already holds a detector; name another folder with -o")


def _is_over(state: State, config: TrainConfig, hours: float | None) -> bool:
    late = hours is not None and state.seconds >= 3600 * hours
    return state.step >= config.steps or late or state.worse >= config.patience


def _ending(state: State, signal: int | None) -> Ending:
    return Ending(state.step, state.seconds, signal, state.best, state.best_step)


def read_all(
    kind: Any,  # Any: what checkpoint.NETWORKS says of networks
    config: TrainConfig,
    evidence: Evidence,
    folder: Path,
    read: Callable[[str, int, int], None],
) -> tuple[Footage, Exam]:
    """What is learnt, and what is validated on.

    Raises:
        DatasetError: one of the two holds no reals or no fakes.
    """
    read_windows = partial(read_footage, window=kind.window, stride=kind.stride)
    footage = read_windows(
        evidence.of("train"), folder / "train.npy", config.frames, tell=partial(read, "to learn from")
    )
    needed = [("real clips", bool(footage.reals_of))]
    needed += [("landmarks of real clips", bool(footage.faces_of))] if config.blends else []
    needed += [("fakes", bool(footage.fakes_of))] if config.blends < 1 else []
    for name, found in needed:
        if not found:
            raise DatasetError(f"the split 'train' holds no {name}; name more with --data or --fakes")
    validation = read_windows(
        examined(evidence.of("val"), blends=config.blends > 0),
        folder / "val.npy",
        config.validation_frames,
        tell=partial(read, "to validate on"),
    )
    return footage, prepare_exam(validation, blends=config.blends > 0, seed=config.seed)


def draw_batch(footage: Footage, recipe: Recipe, fabric: Fabric, size: int, step: int) -> Batch:
    """This process's part of a step's samples."""
    config = recipe.train
    share = config.batch // fabric.world_size
    first = step * config.batch + fabric.global_rank * share
    numbers = range(first, first + share)
    return read_batch(footage, numbers, config.seed, recipe.augmentation, size, blends=config.blends)


def sit_exam(exam: Exam, network: Any, fabric: Fabric) -> Result:  # Any: as in `read_all`
    """Validation in the precision of the training."""

    def learn(windows: Tensor) -> Tensor:
        with fabric.autocast():
            logits: Tensor = network.learn(windows)
            return logits

    return sit(exam, learn, network.size, fabric.device)


# Checkpoints.


def save_state(path: Path, state: State, recipe: Recipe, evidence: Evidence) -> None:
    """Everything that is needed to continue."""
    tensors = {f"network.{name}": tensor for name, tensor in state.network.state_dict().items()}
    tensors |= {f"average.{name}": tensor for name, tensor in state.average.state_dict().items()}
    tensors |= {f"optimizer.{name}": tensor for name, tensor in optimizer_tensors(state.optimizer).items()}
    write_tensors(path, tensors, {"recipe": json.dumps(asdict(recipe)), **_progress(state, evidence)})


def load_state(path: Path, state: State, recipe: Recipe, evidence: Evidence) -> None:
    """Put `state` where the checkpoint's training was.

    Raises:
        RunError: it was another training.
        CheckpointError: it is damaged.
    """
    stored = read_tensors(path, "theval detect train")
    if stored.metadata["evidence"] != evidence.sha256:
        raise RunError(f"'{path}' learnt from other clips; give the same --data and --fakes, or another folder with -o")
    was, now = json.loads(stored.metadata["recipe"]), json.loads(json.dumps(asdict(recipe)))
    for section, config in (("train", TrainConfig()), ("augmentation", Augmentation())):
        was[section] = json.loads(json.dumps(asdict(config))) | was[section]  # a setting that is newer than the file
    for section in ("detector", "network", "train", "augmentation"):
        before, after = ({"": it[section]} if section == "detector" else it[section] for it in (was, now))
        for key in sorted(before.keys() | after.keys()):
            if key not in FREE and before.get(key) != after.get(key):
                raise RunError(
                    f"'{path}' was trained with {section} {key}{' ' if key else ''}= {before.get(key)!r}, not "
                    f"{after.get(key)!r}; give the same settings, or name another folder with -o"
                )
    state.network.load_state_dict(part_of(stored.tensors, "network"))
    state.average.load_state_dict(part_of(stored.tensors, "average"))
    restore_optimizer(state.optimizer, part_of(stored.tensors, "optimizer"))
    progress = stored.metadata
    state.step, state.best_step, state.worse = (int(progress[name]) for name in ("steps", "best_step", "worse"))
    state.seconds, state.best = float(progress["seconds"]), float(progress["best"])


def save_best(path: Path, state: State, recipe: Recipe, evidence: Evidence, exam: Exam, result: Result) -> None:
    """The averaged network as a detector, calibrated on what it was just validated on."""
    save_fitted(
        path,
        recipe.detector,
        recipe.network,
        state.average,
        evidence,
        exam,
        result,
        asdict(recipe),
        _progress(state, evidence),
        Seen(),
    )


def save_fitted(
    path: Path,
    detector: str,
    network: Mapping[str, Any],  # Any: JSON
    module: nn.Module,
    evidence: Evidence,
    clips: Clips,
    result: Result,
    recipe: Mapping[str, Any],  # Any: JSON
    more: Mapping[str, str],
    before: Seen,
) -> None:
    """A detector with what it has seen, here and `before`, and what its validation says about how to read it."""
    verdicts = set_verdicts(clips, result.logits, seed=0)
    reals, fakes = clips.people
    learnt = evidence.of("train").items + evidence.of("val").items  # fakes of test people were not looked at
    metadata = {
        "recipe": json.dumps(recipe),
        "generators": json.dumps(sorted({*Evidence(learnt, evidence.size).generators, *before.generators})),
        "identities": json.dumps(sorted({identity_hash(item.identity) for item in learnt} | before.identities)),
        "jpeg_quality": str(QUALITY),
        "size": str(evidence.size),
        "fps": f"{np.median([item.fps for item in learnt if item.label == 'real']):.3f}",
        "validation": json.dumps(
            {
                "reals": int((~clips.fake).sum()),
                "fakes": int(clips.fake.sum()),
                "real_people": reals,
                "fake_people": fakes,
                "log_loss": result.score,
                **result.values,
            }
        ),
        "packages": json.dumps(package_versions(PACKAGES)),
        **more,
    }
    save_detector(path, detector, network, module, verdicts.calibration, verdicts.points, metadata)


def _progress(state: State, evidence: Evidence) -> dict[str, str]:
    return {
        "steps": str(state.step),
        "seconds": repr(state.seconds),
        "best": repr(state.best),
        "best_step": str(state.best_step),
        "worse": str(state.worse),
        "evidence": evidence.sha256,
    }


# What is told.


def describe(recipe: Recipe, evidence: Evidence, fabric: Fabric) -> dict[str, Any]:  # Any: JSON
    """What training.json says."""
    return {
        "command": ["theval", *sys.argv[1:]],
        "recipe": asdict(recipe),
        "evidence": evidence.sha256,
        "generators": evidence.generators,
        "device": str(fabric.device),
        "processes": fabric.world_size,
        "packages": package_versions([*PACKAGES, "lightning-fabric", "safetensors"]),
    }


def _describe_footage(footage: Footage, exam: Exam) -> str:
    made = {generator: len(people) for generator, people in footage.fakes_of.items()}
    fakes = ", ".join(f"{count} of {generator}" for generator, count in made.items()) or "none"
    reals, others = exam.people
    short = footage.too_short + exam.footage.too_short
    return (
        f"learning from {len(footage.reals_of)} people, fakes of {fakes}; validating on {reals} real people and fakes "
        f"of {others}" + (f"; {short} clips are too short" if short else "")
    )


def _last_step(state: State, config: TrainConfig, hours: float | None) -> int:
    """At the pace so far."""
    if hours is None or not state.seconds:
        return config.steps
    return min(config.steps, max(state.step, round(state.step * 3600 * hours / state.seconds)))


def _beside(values: Mapping[str, float]) -> str:
    return "".join(f", {name} {value:.3f}" for name, value in values.items() if name.startswith("auc"))
