"""Videos to a dataset of head crops with landmarks, in worker processes, resumable at any moment.

Each source file becomes a part in OUT/.parts, complete once its .json is there; when all are, the dataset is put
together from them in the order of the sources. The result does not depend on how many workers there were, on the order
in which they ended, or on how often the command was killed on the way.
"""

import fcntl
import json
import multiprocessing
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from thead_eval import __version__, weights
from thead_eval.errors import ConfigError, DatasetError
from thead_eval.parts import (
    Job,
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
            from thead_eval.assembly import reasons_of

            return _report(*reasons_of(out, sources))
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

        from thead_eval.assembly import assemble  # Torch, once the workers have given their memory back.

        with writing(out):
            assemble(out, sources, jobs, info)
        made = [read_part(job) for job in jobs]
        shutil.rmtree(parts)
    clips = [clip for part in made for clip in part.clips]
    return _report([part.reason for part in made], len(clips), sum(clip["frames"] for clip in clips))


def _report(reasons: Sequence[str | None], clips: int, frames: int) -> PrepareReport:
    count = Counter(reason or "prepared" for reason in reasons)
    return PrepareReport({outcome: count[outcome] for outcome in OUTCOMES}, clips, frames)


def _check(settings: PrepareSettings) -> None:
    limits = {"size": (16, 4096), "jpeg_quality": (1, 100), "detect_every": (1, 1000), "min_frames": (1, 10**9)}
    for name, (low, high) in limits.items():
        if not low <= (value := getattr(settings, name)) <= high:
            option = name.removeprefix("jpeg_").replace("_", "-")
            raise ConfigError(f"--{option} {value} is out of range; give {low} to {high}")
    if settings.landmarks == "fan":
        weights.path("fan_2dfan4")  # before a folder is begun that would ask for it again


def _describe(settings: PrepareSettings) -> dict[str, Any]:  # Any: JSON
    """The fields of dataset.json."""
    packages = ["av", "Pillow", "dlib-bin", "numpy"]
    packages += ["facenet-pytorch", "torch"] if settings.detector == "mtcnn" else []
    packages += ["face-alignment", "torch"] if settings.landmarks == "fan" else []
    return {
        "size": settings.size,
        "jpeg_quality": settings.jpeg_quality,
        "detector": settings.detector,
        "landmarks": settings.landmarks,
        "settings": {"detect_every": settings.detect_every, "min_frames": settings.min_frames},
        "packages": {"theval": __version__} | {name: version(name) for name in packages},
    }


# The output folder: begun, continued or finished.


@contextmanager
def _staging(out: Path, info: dict[str, Any]) -> Iterator[Path | None]:
    """OUT/.parts, held against other processes; None where the dataset is finished."""
    parts = out / ".parts"
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        strange = sorted(path.name for path in out.iterdir() if path.name not in OWN_FILES)
        if strange:
            raise ConfigError(
                f"'{out}' holds other files ('{strange[0]}'); give a new folder, or an unfinished dataset"
            )
        finished = out / "dataset.json"
        if finished.exists():
            _compare(out, finished, info)
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
                _compare(out, begun, info)
            else:
                write_json(begun, info)
        yield parts


def _compare(out: Path, written: Path, now: dict[str, Any]) -> None:
    try:
        before = json.loads(written.read_text())
        old, new = ({**info, **info["settings"], **info["packages"]} for info in (before, now))
    except (ValueError, TypeError, KeyError) as error:
        raise DatasetError(f"'{written}' is damaged ({error}); delete '{out}' and run the command again") from error
    for name in sorted(new.keys() - {"settings", "packages"}):
        if old.get(name) != new[name]:
            raise ConfigError(
                f"'{out}' was begun with {name} {old.get(name)}, and this command says {new[name]}; "
                "give another folder, delete that one, or go back to its settings"
            )


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
