"""The few-shot protocol of Zakharov et al. 2019, section 4: adapt on 1, 8 or 32 frames, reproduce 32 hold-out frames.

Predicting and judging are separate: fakes are written as clips, and judged from there.
"""

import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import torch

from thead_eval import plugins
from thead_eval.data import Dataset, FewShotPlan, Split, open_dataset, plan_few_shot_sets
from thead_eval.errors import MediaError, RunError
from thead_eval.judging import NeverMade, Pair, PairSet, Progress, RealClip, run_tasks
from thead_eval.manifest import checkpoint_of
from thead_eval.media import write_clip
from thead_eval.results import Failure
from thead_eval.run import RunFolder
from thead_eval.types import Clip, FewShotGenerator, FewShotSet


@dataclass(frozen=True)
class ShotsConfig:
    """What is generated from what. Defaults are the paper's, and the two controls."""

    data: str
    split: Split | Literal["all"] = "test"
    generators: tuple[str, ...] = ("copy", "warp")
    shots: tuple[int, ...] = (1, 8, 32)  # each 1 or more
    identities: int | None = None  # the first so many of the split, by name; None: all
    min_frames: int = 0  # shorter clips are left out
    cross_clip: bool = False  # support from another clip than the targets
    seed: int = 0
    device: str = "cpu"


@dataclass(frozen=True)
class PredictTask:
    """All fakes of one identity, so that its frames are read once."""

    run: RunFolder
    config: ShotsConfig
    plan: FewShotPlan


def predict(config: ShotsConfig, run: RunFolder, pool: ProcessPoolExecutor | None, progress: Progress) -> PairSet:
    """Generate every fake that is not there yet.

    Raises:
        DatasetError: no identity has enough frames.
        PluginError: an unknown generator.
        RunError: a worker was killed, or no fake could be generated.
    """
    for name in config.generators:
        plugins.load("generator", name)  # an unknown name fails before an hour of work, not after
    dataset = open_dataset(config.data)
    plans, failures = plan_sets(config, dataset)
    never_made: list[NeverMade] = []
    tasks = [PredictTask(run, config, plan) for plan in plans]
    for _, absent in run_tasks(predict_identity, tasks, pool, progress, "generating"):
        never_made += absent
    never_made.sort(key=lambda absent: (absent.folder, absent.failure.item))
    failed = {(absent.folder, absent.failure.item) for absent in never_made}
    pairs = [
        Pair(
            folder_of(generator, shots),
            {"generator": generator, "shots": str(shots)},
            plan.identity,
            plan.identity,
            run.clip(generator, str(shots), plan.identity),
            RealClip("real", plan.identity, plan.identity, run.real(plan.identity)),
        )
        for generator in config.generators
        for shots in config.shots
        for plan in plans
        if (folder_of(generator, shots), plan.identity) not in failed
    ]
    if not pairs:
        first = never_made[0].failure
        raise RunError(f"no fake could be generated; the first: {first.item}: {first.reason}")
    support = [RealClip("support", plan.identity, plan.identity, run.support(plan.identity)) for plan in plans]
    described = {
        "path": dataset.path,
        "sha256": dataset.sha256,
        "size": str(dataset.info.size),
        "jpeg_quality": str(dataset.info.jpeg_quality),
        "detector": dataset.info.detector,
        "landmarks": dataset.info.landmarks,
    }
    return PairSet(pairs, support, never_made, failures, described)


def predict_identity(task: PredictTask) -> list[NeverMade]:
    """Write the fakes of one identity that are not there yet, with its real and support clips."""
    run, plan, config = task.run, task.plan, task.config
    name = plan.identity
    conditions = [(generator, shots) for generator in config.generators for shots in config.shots]
    absent = [(g, shots) for g, shots in conditions if not run.clip(g, str(shots), name).exists()]
    if not absent and run.real(name).exists() and run.support(name).exists():
        return []
    few_shot_set = plan.read(open_dataset(config.data))
    run.landmarks(name).parent.mkdir(parents=True, exist_ok=True)
    np.save(run.landmarks(name), few_shot_set.target_landmarks.points.numpy())
    for path, clip in ((run.support(name), few_shot_set.support), (run.real(name), few_shot_set.target)):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_clip(path, clip, lossless=True)
    never_made = []
    for generator, shots in absent:
        fake = try_to_reproduce(generator, config.device, few_shot_set.take(shots))
        if isinstance(fake, Failure):
            never_made.append(NeverMade(folder_of(generator, shots), len(plan.target_indices), fake))
            continue
        path = run.clip(generator, str(shots), name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_clip(path, fake, lossless=True, synthetic=generator)
    return never_made


def plan_sets(config: ShotsConfig, dataset: Dataset) -> tuple[list[FewShotPlan], list[Failure]]:
    """Who is judged, on which frames, and who cannot be.

    Raises:
        DatasetError: no identity has enough frames.
    """
    return plan_few_shot_sets(
        dataset,
        config.split,
        max(config.shots),
        config.seed,
        config.identities,
        config.min_frames,
        config.cross_clip,
    )


def try_to_reproduce(name: str, device: str, few_shot_set: FewShotSet) -> Clip | Failure:
    """The fake of this generator, or why there is none: a plug-in can raise anything, and one person must not end a
    night's work.

    Raises:
        MediaError: passed on, as it names a file.
    """
    try:
        return reproduce(load_generator(name, device), few_shot_set)
    except MediaError:
        raise
    except Exception as error:
        return Failure(
            item=few_shot_set.identity,
            labels={"generator": name, "shots": str(len(few_shot_set.support))},
            reason=f"{type(error).__name__}: {error}",
        )


def reproduce(generator: FewShotGenerator, few_shot_set: FewShotSet) -> Clip:
    """The target frames, made from the support frames and the targets' landmarks.

    Raises:
        ValueError: the generator gave another number of frames.
    """
    talker = generator.adapt(few_shot_set.support, few_shot_set.support_landmarks)
    fake = talker.animate(few_shot_set.target_landmarks, few_shot_set.target.fps)
    if len(fake) != len(few_shot_set.target):
        raise ValueError(f"'{generator.name}' gave {len(fake)} frames for {len(few_shot_set.target)} driving rows")
    return fake


def folder_of(generator: str, shots: int) -> str:
    """Where the features and scores of a condition lie."""
    return f"{generator}-{shots}"


def checkpoints_of(generators: Iterable[str], device: str) -> dict[str, str]:
    """The sha256 of the weights of each generator that has any, for the record of what it makes.

    Raises:
        PluginError: a generator is unknown, or cannot be made.
        CheckpointError: the weights are missing, damaged or something else.
    """
    found = {name: checkpoint_of(load_generator(name, device)) for name in generators}
    return {name: sha256 for name, sha256 in found.items() if sha256}


def load_generator(name: str, device: str) -> FewShotGenerator:
    """Once a process for each checkpoint that the environment names."""
    return _load_generator(name, device, os.environ.get("THEVAL_CHECKPOINT"))


@cache
def _load_generator(name: str, device: str, checkpoint: str | None) -> FewShotGenerator:
    generator: FewShotGenerator = plugins.make("generator", name, torch.device(device))
    return generator
