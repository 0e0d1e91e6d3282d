"""Reads each clip once and writes what it gives: features of every frame and, of a fake, its value by each metric.

Clips are streams, and what one gives is written at once, so that memory does not grow with their number or length, an
interrupted run continues, and a later run adds metrics without computing anew what is known already.

RUN/features/<network>/<folder>/<item>.npy   [T, ...] float32; folder is "real", "support" or the pair's own
RUN/scores/<folder>/<item>.npz               a float64 [T] per pixel or feature metric
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from thead_eval import plugins
from thead_eval.errors import MediaError, RunError
from thead_eval.media import iter_frames, probe_video
from thead_eval.parts import start_worker
from thead_eval.results import Failure, write_json
from thead_eval.run import file_name
from thead_eval.types import (
    CompareFunction,
    ExtractFunction,
    FeatureMetric,
    FeatureNetwork,
    Features,
    FrameValues,
    PixelMetric,
)

BATCH = 32  # frames in memory at a time, of each side of a pair
LANDMARKS = "dlib68"  # the features that align faces for the other networks
RESIZE = "bilinear, antialiased"  # of a fake whose size is not its real clip's

Task = TypeVar("Task")
Result = TypeVar("Result")
Progress = Callable[[str, int, int], None]  # (what is being done, done, of how many)


@dataclass(frozen=True)
class RealClip:
    """A clip of real frames, stored under features/<network>/<folder>/<item>.npy."""

    folder: str  # "real" or "support"
    item: str
    identity: str
    path: Path


@dataclass(frozen=True)
class Pair:
    """A fake clip and the real one that it reproduces, frame by frame."""

    folder: str  # "<generator>-<shots>"
    labels: Mapping[str, str]  # generator, shots
    item: str
    identity: str
    fake: Path
    real: RealClip


@dataclass(frozen=True)
class NeverMade:
    """A fake that its generator, or whoever made the folder, failed to give. Its frames count as failed."""

    folder: str
    frames: int
    failure: Failure


@dataclass(frozen=True)
class PairSet:
    """All that a run judges. Kept as RUN/pairs.json, so that a run can be judged again without what it came from."""

    pairs: list[Pair]
    support: list[RealClip]  # the same people at other times, for the calibration line of CSIM; may be empty
    never_made: list[NeverMade]
    failures: list[Failure]  # people or files that no condition could use
    dataset: dict[str, str]  # what the pairs came from


def write_pairs(run: Path, pairs: PairSet) -> None:
    """Write RUN/pairs.json."""
    write_json(run / "pairs.json", TypeAdapter(PairSet).dump_python(pairs, mode="json"))


def read_pairs(run: Path) -> PairSet:
    """RUN/pairs.json.

    Raises:
        RunError: it is missing or damaged.
    """
    try:
        return TypeAdapter(PairSet).validate_json((run / "pairs.json").read_bytes())
    except FileNotFoundError:
        raise RunError(
            f"'{run}' holds no fakes; name a dataset with --data, or clips with --fakes and --reals"
        ) from None
    except ValidationError as error:
        raise RunError(f"'{run / 'pairs.json'}' is damaged ({error.error_count()} errors); score again") from error


@dataclass(frozen=True)
class JudgeTask:
    """One clip for a worker: a real clip alone, or a fake beside its real clip."""

    run: Path
    device: str
    clip: RealClip | Pair
    networks: tuple[str, ...]
    metrics: tuple[str, ...]  # pixel and feature metrics; of a pair only


class Judged(NamedTuple):
    """What a worker did with one clip."""

    frames: int = 0  # that were judged
    unpaired: int = 0  # frames of the real clip that the fake lacks
    size: tuple[int, int] = (0, 0)  # of the fake's own frames, height and width
    judged_size: tuple[int, int] = (0, 0)  # of the real clip's frames, to which the fake's were brought
    longer: bool = False  # the fake goes on after its real clip has ended
    failure: str | None = None


@contextmanager
def worker_pool(workers: int) -> Iterator[ProcessPoolExecutor | None]:
    """Processes for `run_tasks`, of one thread each, which keep the networks that they have loaded; None for one."""
    if workers <= 1:
        yield None
        return
    # Spawned, not forked: a fork of a process with OpenMP threads can hang.
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_start_worker)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    start_worker()
    torch.set_num_threads(1)


def run_tasks(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    pool: ProcessPoolExecutor | None,
    progress: Progress,
    what: str,
) -> Iterator[tuple[Task, Result]]:
    """Each task with its result, as they end; in this process where there is no pool.

    Raises:
        RunError: a worker process was killed.
    """
    progress(what, 0, len(tasks))
    if pool is None:
        for done, task in enumerate(tasks, 1):
            yield task, function(task)
            progress(what, done, len(tasks))
        return
    try:
        futures: dict[Future[Result], Task] = {pool.submit(function, task): task for task in tasks}
        for done, future in enumerate(as_completed(futures), 1):
            yield futures[future], future.result()
            progress(what, done, len(tasks))
    except BrokenProcessPool:
        raise RunError(
            "a worker process was killed, perhaps for want of memory; run the same command again, which continues "
            "where this one stopped, with fewer --workers"
        ) from None


def judge_clip(task: JudgeTask) -> Judged:
    """Write the features and, for a pair, the frame values that are not there yet."""
    clip, run = task.clip, task.run
    path = clip.fake if isinstance(clip, Pair) else clip.path
    known = read_scores(run, clip) if isinstance(clip, Pair) else {}
    absent_networks = [n for n in task.networks if not features_path(run, n, clip.folder, clip.item).exists()]
    metrics = [plugins.load("metric", name) for name in task.metrics if name not in known]
    pixel_metrics = [metric for metric in metrics if isinstance(metric, PixelMetric)]
    if not absent_networks and not metrics and (known or not isinstance(clip, Pair)):
        return _known_judged(known)
    # A network that is absent here, but aligned by landmarks that are known, still needs those of its batch.
    extract = _needed_networks(absent_networks)
    try:
        if isinstance(clip, Pair):
            _check_frame_rates(clip)
        features, values, judged = _stream(task, path, extract, pixel_metrics)
    except MediaError as error:
        return Judged(failure=str(error))
    for name in absent_networks:
        _write_array(features_path(run, name, clip.folder, clip.item), features[name])
    if isinstance(clip, Pair):
        for metric in metrics:
            if isinstance(metric, FeatureMetric):
                values[metric.name] = metric.compare(
                    {n: _read_features(run, n, clip, features)[: judged.frames] for n in metric.features},
                    {n: _read_features(run, n, clip.real, {})[: judged.frames] for n in metric.features},
                )
        _write_scores(run, clip, known | values | {f"judged {key}": np.array(v) for key, v in _counts(judged).items()})
    return judged


def _check_frame_rates(pair: Pair) -> None:
    """Frames are compared by their number, which says the same moment only at one frame rate.

    Raises:
        MediaError: the two differ by more than 1 %, or one cannot be read.
    """
    fake, real = probe_video(pair.fake).fps, probe_video(pair.real.path).fps
    if abs(fake - real) > 0.01 * real:
        raise MediaError(
            f"'{pair.fake}' has {fake:.4g} frames a second and '{pair.real.path}' {real:.4g}, so that their frames are "
            "not of the same moments; resample one of them"
        )


def _stream(
    task: JudgeTask, path: Path, networks: Sequence[str], pixel_metrics: Sequence[PixelMetric]
) -> tuple[dict[str, Features], dict[str, FrameValues], Judged]:
    """Read a clip, and its real one beside it, once."""
    device = torch.device(task.device)
    features: dict[str, list[Tensor]] = {name: [] for name in networks}
    values: dict[str, list[Tensor]] = {metric.name: [] for metric in pixel_metrics}
    frames = unpaired = 0
    own_size = judged_size = (0, 0)
    surplus = False
    stream = iter_frames(path, BATCH)
    # A fake is compared with its real clip, and takes its size. A real clip is compared with nothing.
    reals: Iterable[Tensor | None] = repeat(None)
    if isinstance(task.clip, Pair):
        reals = iter_frames(task.clip.real.path, BATCH)
    for fake, real in _side_by_side(stream, reals):
        if fake is None:
            assert real is not None
            unpaired += len(real)
            continue
        own_size = (fake.shape[2], fake.shape[3])
        if real is not None:
            unpaired += len(real) - min(len(fake), len(real))
            real = real[: len(fake)]
            surplus = len(fake) > len(real)
            fake = resize(fake[: len(real)], real.shape[2], real.shape[3])
        judged_size = (fake.shape[2], fake.shape[3])
        frames += len(fake)
        landmarks = None
        for name in networks:
            batch = _network(name, task.device)(fake.to(device), landmarks)
            if name == LANDMARKS:
                landmarks = batch
            features[name].append(batch.cpu())
        for metric in pixel_metrics:
            assert real is not None
            if min(real.shape[2:]) < metric.minimum_size:
                values[metric.name].append(torch.full((len(real),), torch.nan, dtype=torch.float64))
            else:
                values[metric.name].append(_compare(metric.name, task.device)(fake.to(device), real.to(device)).cpu())
    if not frames:
        raise MediaError(f"'{path}' holds no frames; check the file")
    longer = isinstance(task.clip, Pair) and (surplus or next(stream, None) is not None)
    return (
        {name: torch.cat(batches).numpy() for name, batches in features.items()},
        {name: torch.cat(batches).to(torch.float64).numpy() for name, batches in values.items()},
        Judged(frames, unpaired, own_size, judged_size, longer),
    )


def _side_by_side(
    fakes: Iterator[Tensor], reals: Iterable[Tensor | None]
) -> Iterator[tuple[Tensor | None, Tensor | None]]:
    """Batches of both, to the end of the real clip; None for a fake that has ended. A fake's surplus is not read."""
    for real in reals:
        fake = next(fakes, None)
        if fake is None and real is None:
            return
        yield fake, real


def count_frames(path: Path) -> int:
    """Frames of a clip; 0 where it cannot be read, which is told where it is judged."""
    try:
        return sum(len(batch) for batch in iter_frames(path))
    except MediaError:
        return 0


def resize(frames: Tensor, height: int, width: int) -> Tensor:
    """uint8 [B, 3, H, W] to the size at which all are judged; as they are where they have it."""
    if frames.shape[2:] == (height, width):
        return frames
    import torchvision.transforms.v2.functional as tvf  # 2.5 s, mostly torch's compiler; most runs need none

    resized: Tensor = tvf.resize(frames, [height, width], tvf.InterpolationMode.BILINEAR, antialias=True)
    return resized


def _needed_networks(absent: Sequence[str]) -> list[str]:
    if any(plugins.load("features", name).uses_landmarks for name in absent):
        return [LANDMARKS, *(name for name in absent if name != LANDMARKS)]
    return list(absent)


@cache
def _network(name: str, device: str) -> ExtractFunction:
    network: FeatureNetwork = plugins.load("features", name)
    return network.load(torch.device(device))


@cache
def _compare(name: str, device: str) -> CompareFunction:
    metric: PixelMetric = plugins.load("metric", name)
    return metric.load(torch.device(device))


# What is kept on disk.


def features_path(run: Path, network: str, folder: str, item: str) -> Path:
    return run / "features" / network / file_name(folder) / f"{file_name(item)}.npy"


def _read_features(run: Path, network: str, clip: RealClip | Pair, fresh: Mapping[str, Features]) -> Features:
    if network in fresh:
        return fresh[network]
    features: Features = np.load(features_path(run, network, clip.folder, clip.item))
    return features


def _scores_path(run: Path, pair: Pair) -> Path:
    return run / "scores" / file_name(pair.folder) / f"{file_name(pair.item)}.npz"


def read_scores(run: Path, pair: Pair) -> dict[str, NDArray[np.float64]]:
    path = _scores_path(run, pair)
    if not path.exists():
        return {}
    with np.load(path) as stored:
        return dict(stored)


def _write_scores(run: Path, pair: Pair, values: Mapping[str, NDArray[np.generic]]) -> None:
    _write_whole(_scores_path(run, pair), lambda file: np.savez(file, allow_pickle=False, **values))


def _write_array(path: Path, array: NDArray[np.generic]) -> None:
    _write_whole(path, lambda file: np.save(file, array))


def _write_whole(path: Path, write: Callable[[BinaryIO], None]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            write(file)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _counts(judged: Judged) -> dict[str, object]:
    return {name: value for name, value in judged._asdict().items() if name != "failure"}


def _known_judged(values: Mapping[str, NDArray[np.float64]]) -> Judged:
    """What was kept of an earlier judgement of a pair; a real clip keeps nothing but its features."""
    return Judged(
        **{name: values[f"judged {name}"].tolist() for name in _counts(Judged()) if f"judged {name}" in values}
    )
