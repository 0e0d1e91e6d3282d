"""Videos to a dataset of head crops with landmarks, in worker processes, resumable at any moment.

Each source file becomes a part in OUT/.parts, complete once its .json is there; when all are, the dataset is put
together from them in the order of the sources. The result does not depend on how many workers there were, on the order
in which they ended, or on how often the command was killed on the way.
"""

import fcntl
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import pandas as pd
import torch

from thead_eval import __version__
from thead_eval.data import DatasetInfo, PreparedClip, RejectedSource, open_dataset, write_dataset
from thead_eval.errors import ConfigError, DatasetError
from thead_eval.parts import (
    Job,
    Part,
    PrepareSettings,
    is_done,
    prepare_source,
    read_part,
    stamp_of,
    start_worker,
    writing,
)
from thead_eval.results import write_json
from thead_eval.sources import Source
from thead_eval.types import Landmarks

__all__ = ["Engine", "Outcome", "PrepareReport", "PrepareSettings", "prepare"]

Engine = Literal["local", "ray"]
Outcome = Literal["prepared", "unreadable", "no face", "face lost", "too short"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)

RECYCLE = 100  # files a worker prepares before a fresh one takes over, so that memory cannot creep up
OWN_FILES = frozenset({".parts", "shards", "clips.parquet", "frames.parquet", "dataset.json"})


class PrepareReport(NamedTuple):
    """How many source files came to which end; the outcomes add up to the number of sources."""

    outcomes: dict[Outcome, int]
    clips: int
    frames: int


def prepare(
    folder: Path,
    out: Path,
    sources: list[Source],
    settings: PrepareSettings,
    *,
    workers: int | None = None,
    engine: Engine = "local",
    report: Callable[[Source], None] = lambda source: None,
) -> PrepareReport:
    """Prepare the sources of a folder as a dataset; what an earlier run of the same command finished is not redone.

    Where no source gives a clip, the reasons are in OUT/clips.parquet, and OUT is no dataset.

    Args:
        folder: Where the sources lie.
        out: The dataset's folder; new, or with an unfinished run of the same settings.
        sources: In the order that the dataset will have.
        settings: What decides the content.
        workers: Processes; None = one for each core that this process may use.
        engine: 'local', or 'ray' for the processes of a Ray cluster that shares the file system.
        report: Called with each source that is done.

    Raises:
        ConfigError: a setting is out of range, OUT holds something else, or it was begun with other settings.
        DatasetError: OUT cannot be written, or a worker was killed; the same command continues.
        WeightsMissing: a backend's network is not on this machine.
    """
    _check(settings)
    info = _describe(settings)
    with _staging(out, info) as parts:
        if parts is None:
            return _finished(out, info, sources)
        jobs = [Job(str(folder / source.file), source.file, str(parts), settings) for source in sources]
        todo = []
        for source, job in zip(sources, jobs, strict=True):
            if is_done(job):
                report(source)
            else:
                todo.append((source, job))
        # The largest first, so that no worker begins a long film when the others have nothing left to do.
        todo.sort(key=lambda pair: -stamp_of(Path(pair[1].path))[0])
        run = _run_on_ray if engine == "ray" else _run_here
        for source in run(todo, workers or len(os.sched_getaffinity(0))):
            report(source)

        result = _count([read_part(job) for job in jobs])
        rows = (row for source, job in zip(sources, jobs, strict=True) for row in _rows(source, job))
        with writing(out):
            try:
                write_dataset(out, rows, info)
            except DatasetError:
                if result.clips:
                    raise
        shutil.rmtree(parts)
    return result


def _check(settings: PrepareSettings) -> None:
    limits = {"size": (16, 4096), "jpeg_quality": (1, 100), "detect_every": (1, 1000), "min_frames": (1, 10**9)}
    for name, (low, high) in limits.items():
        if not low <= (value := getattr(settings, name)) <= high:
            raise ConfigError(f"--{name.replace('_', '-')} {value} is out of range; give {low} to {high}")


def _describe(settings: PrepareSettings) -> DatasetInfo:
    packages = ["av", "Pillow", "dlib-bin", "numpy", "torch"]
    packages += ["facenet-pytorch"] * (settings.detector == "mtcnn") + ["face-alignment"] * (
        settings.landmarks == "fan"
    )
    return DatasetInfo(
        size=settings.size,
        jpeg_quality=settings.jpeg_quality,
        detector=settings.detector,
        landmarks=settings.landmarks,
        settings={"detect_every": settings.detect_every, "min_frames": settings.min_frames},
        packages={"theval": __version__} | {name: version(name) for name in packages},
    )


# The output folder: begun, continued or finished.


@contextmanager
def _staging(out: Path, info: DatasetInfo) -> Iterator[Path | None]:
    """OUT/.parts, held against other processes; None where the dataset is finished."""
    parts = out / ".parts"
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        strange = sorted(path.name for path in out.iterdir() if path.name not in OWN_FILES)
        if strange:
            raise ConfigError(
                f"'{out}' holds other files ('{strange[0]}'); give a new folder, or an unfinished dataset"
            )
        if (out / "dataset.json").exists():
            shutil.rmtree(parts, ignore_errors=True)  # a run was killed between its last two steps
            yield None
            return
        parts.mkdir(exist_ok=True)
        lock = (parts / "lock").open("w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"another 'theval prepare' is writing to '{out}'; wait for it, or stop it") from None
        with writing(out):
            for path in parts.glob("*.unfinished-*"):
                path.unlink()
            begun = parts / "settings.json"
            if begun.exists():
                _compare(out, DatasetInfo.model_validate_json(begun.read_text()), info)
            else:
                write_json(begun, info.model_dump(mode="json"))
        yield parts


def _compare(out: Path, before: DatasetInfo, now: DatasetInfo) -> None:
    old, new = _flat(before), _flat(now)
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            raise ConfigError(
                f"'{out}' was begun with {name} {old.get(name)}, and this command says {new.get(name)}; "
                "give another folder, delete that one, or go back to its settings"
            )


def _flat(info: DatasetInfo) -> dict[str, Any]:  # Any: JSON
    rows = info.model_dump(mode="json", exclude={"settings", "packages"})
    return {**rows, **info.settings, **info.packages}


def _finished(out: Path, info: DatasetInfo, sources: list[Source]) -> PrepareReport:
    """What a finished dataset holds, if it is the one that this command would make."""
    dataset = open_dataset(out)
    _compare(out, dataset.info, info)
    rows = pd.concat([dataset.clips, dataset.rejected])
    columns = (rows[name] for name in ("source", "identity", "label", "split"))
    held = {(file, who.partition("~")[0], label, split) for file, who, label, split in zip(*columns, strict=True)}
    asked = {(source.file, source.identity, source.label, source.split) for source in sources}
    if held != asked:
        file, identity, label, split = min(held ^ asked)
        raise ConfigError(
            f"'{out}' is a finished dataset of other videos: '{file}' as {label} of '{identity}' in {split} is only in "
            "one of the two; give another folder"
        )
    outcomes: dict[Outcome, int] = dict.fromkeys(OUTCOMES, 0)
    outcomes["prepared"] = dataset.clips["source"].nunique()
    for reason in dataset.rejected["reason"] if len(dataset.rejected) else ():
        outcomes[reason] += 1
    return PrepareReport(outcomes, len(dataset.clips), int(dataset.clips["frames"].sum()))


# Many source files.

Work = list[tuple[Source, Job]]


def _run_here(work: Work, workers: int) -> Iterator[Source]:
    """Worker processes on this machine; gives each source that is done."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["thead_eval.parts"])  # imported once, shared by all workers
    threads = max(1, len(os.sched_getaffinity(0)) // workers)
    for start in range(0, len(work), workers * RECYCLE):
        batch = work[start : start + workers * RECYCLE]
        with ProcessPoolExecutor(min(workers, len(batch)), context, start_worker) as pool:
            futures = {pool.submit(prepare_source, job._replace(threads=threads)): source for source, job in batch}
            try:
                for future in as_completed(futures):
                    future.result()
                    yield futures[future]
            except BrokenProcessPool as error:
                raise DatasetError(_killed([source for source, job in batch if not is_done(job)][:workers])) from error
            finally:
                pool.shutdown(wait=False, cancel_futures=True)


def _killed(suspects: list[Source]) -> str:
    names = " or ".join(f"'{source.file}'" for source in suspects)
    return (
        f"a worker process was killed, most likely for want of memory, while it prepared {names}; "
        "run the same command again, which continues where this one stopped, with fewer --workers"
    )


def _run_on_ray(work: Work, workers: int) -> Iterator[Source]:
    """Tasks on the Ray cluster that RAY_ADDRESS names, else on one of this machine."""
    try:
        import ray
    except ImportError as error:
        raise ConfigError("--engine ray needs the package ray; run 'pip install \"theval[ray]\"'") from error
    if not ray.is_initialized():
        ray.init(num_cpus=None if os.environ.get("RAY_ADDRESS") else workers, log_to_driver=False)
    task = ray.remote(num_cpus=1, max_calls=RECYCLE, max_retries=0)(prepare_source)
    running = {
        task.remote(job._replace(path=str(Path(job.path).resolve()), parts=str(Path(job.parts).resolve()))): source
        for source, job in work
    }
    while running:
        (ended,), _ = ray.wait(list(running), num_returns=1)
        source = running.pop(ended)
        try:
            ray.get(ended)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except ray.exceptions.RayError as error:
            raise DatasetError(_killed([source])) from error
        yield source


# The parts put together.


def _count(parts: Iterable[Part]) -> PrepareReport:
    outcomes: dict[Outcome, int] = dict.fromkeys(OUTCOMES, 0)
    clips = frames = 0
    for part in parts:
        outcomes[part.reason or "prepared"] += 1
        clips += len(part.clips)
        frames += sum(clip["frames"] for clip in part.clips)
    return PrepareReport(outcomes, clips, frames)


def _rows(source: Source, job: Job) -> Iterator[PreparedClip | RejectedSource]:
    """The dataset's rows of one source: its clips, or why there are none."""
    part = read_part(job)
    if part.reason is not None:
        yield RejectedSource(
            source.file, part.sha256, source.identity, source.label, source.split, part.reason, part.detail
        )
        return
    with np.load(job.part(".npz")) as arrays:
        for n, row in enumerate(part.clips):
            points = torch.from_numpy(arrays[f"points{n}"])
            x, y, side = row["crop"]
            yield PreparedClip(
                id=source.name if len(part.clips) == 1 else f"{source.name}~{n + 1}",
                identity=f"{source.identity}~{row['person']}" if row["person"] else source.identity,
                source=source.file,
                source_sha256=part.sha256,
                label=source.label,
                split=source.split,
                fps=part.fps,
                first_frame=row["first_frame"],
                crop_box=(x, y, x + side, y + side),
                jpegs=_jpegs(job.part(f".{n}.jpegs"), arrays[f"sizes{n}"].tolist()),
                landmarks=Landmarks(points, torch.ones(len(points), dtype=torch.bool)),
            )


def _jpegs(file: Path, sizes: list[int]) -> Iterator[bytes]:
    with file.open("rb") as contents:
        for size in sizes:
            yield contents.read(size)
