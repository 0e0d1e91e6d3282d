"""Videos to a dataset of head crops with landmarks, in worker processes, resumable at any moment.

Each source file becomes a part in OUT/.parts, complete once its .json is there; when all are, the dataset is put
together from them in the order of the sources. The result does not depend on how many workers there were, on the order
in which they ended, or on how often the command was killed on the way.
"""

import errno
import fcntl
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from itertools import islice
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import pandas as pd
import torch
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray
from PIL import Image

from thead_eval import __version__
from thead_eval.data import DatasetInfo, PreparedClip, Reason, RejectedSource, encode_jpeg, open_dataset, write_dataset
from thead_eval.errors import ConfigError, DatasetError, MediaError
from thead_eval.faces import (
    CONFIDENT,
    Detector,
    DetectorName,
    Landmarker,
    LandmarkerName,
    face_box,
    load_detector,
    load_landmarker,
)
from thead_eval.media import VideoInfo, decode_frames, probe_video, to_rgb
from thead_eval.results import write_json
from thead_eval.sources import Source
from thead_eval.tracking import Crop, Track, head_crop, split_by_reach, track_faces
from thead_eval.types import Landmarks

Engine = Literal["local", "ray"]
Outcome = Literal["prepared", "unreadable", "no face", "face lost", "too short"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)

SEARCHED = 1280  # pixels of the longer side of the pictures in which faces are searched; larger ones are shrunk
KEPT = 64 * 2**20  # bytes of pictures that a short video keeps from the search, so that it is decoded once
LARGE = 4096 * 2304  # pixels of a picture from which on a decoder gets one thread: each would hold frames of its own
DOMINANT = 1.5  # times as large as any other face in view: the person that the file is of
RECYCLE = 100  # files a worker prepares before a fresh one takes over, so that memory cannot creep up
OWN_FILES = frozenset({".parts", "shards", "clips.parquet", "frames.parquet", "dataset.json"})


@dataclass(frozen=True)
class PrepareSettings:
    """What decides the content of a dataset, apart from its sources."""

    size: int = 256  # pixels a side of a crop
    jpeg_quality: int = 95
    detector: DetectorName = "dlib"
    landmarks: LandmarkerName = "dlib"
    detect_every: int = 8  # frames
    min_frames: int = 48  # of a clip


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
        jobs = [_Job(str(folder / source.file), source.file, str(parts), settings) for source in sources]
        todo = []
        for source, job in zip(sources, jobs, strict=True):
            if _is_done(job):
                report(source)
            else:
                todo.append((source, job))
        # The largest first, so that no worker begins a long film when the others have nothing left to do.
        todo.sort(key=lambda pair: -_stamp(Path(pair[1].path))[0])
        run = _run_on_ray if engine == "ray" else _run_here
        for source in run(todo, workers or len(os.sched_getaffinity(0))):
            report(source)

        result = _count([_read_part(job) for job in jobs])
        rows = (row for source, job in zip(sources, jobs, strict=True) for row in _rows(source, job))
        with _writing(out):
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
    with _writing(out):
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
        with _writing(out):
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


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    """An OSError inside is about writing the output: say so, and that nothing is lost."""
    try:
        yield
    except OSError as error:
        cure = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else "make it writable"
        raise DatasetError(
            f"cannot write '{error.filename or out}' ({error.strerror or error}); {cure} and run the same command "
            "again, which continues where this one stopped"
        ) from error


# One source file. Runs in a worker.


class _Job(NamedTuple):
    """Plain values, which travel to another process."""

    path: str
    file: str
    parts: str
    settings: PrepareSettings
    threads: int = 1  # of the decoder

    def part(self, suffix: str) -> Path:
        return Path(self.parts) / (hashlib.sha256(self.file.encode()).hexdigest()[:24] + suffix)


class _Part(NamedTuple):
    """The .json of a part."""

    size: int  # of the source, in bytes
    modified: int  # nanoseconds
    sha256: str  # empty where the file could not even be read
    reason: Reason | None
    detail: str
    fps: float
    clips: list[dict[str, Any]]  # first_frame, frames, crop, person; Any: JSON


def prepare_source(job: _Job) -> None:
    """Write the part of one source file.

    Raises:
        DatasetError: the output cannot be written.
    """
    path = Path(job.path)
    stamp = _stamp(path)
    sha256 = ""
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        found = _search(path, job)
        clips = [piece for track in found.tracks for piece in split_by_reach(track)]
        clips = [clip for clip in clips if len(clip) >= job.settings.min_frames]
        if not clips:
            _write_part(job, _Part(*stamp, sha256, *_why(found, job.settings), found.fps, []))
            return
        crops = [head_crop(clip, found.width, found.height) for clip in clips]
        pictures = found.kept or _decode_again(path, job)
        sizes = _write_crops(pictures, job, clips, crops)
    except (MediaError, OSError) as error:
        detail = str(error).replace(job.path, job.file)
        _write_part(job, _Part(*stamp, sha256, "unreadable", detail, 0.0, []))
        return
    arrays: dict[str, NDArray[Any]] = {}  # Any: numbers of two types
    for n, (clip, crop) in enumerate(zip(clips, crops, strict=True)):
        arrays[f"sizes{n}"] = np.array(sizes[n], np.int64)
        arrays[f"points{n}"] = _points_in(crop, clip, job.settings.size)
    with _writing(job.part("")), _whole(job.part(".npz")) as unfinished, unfinished.open("wb") as npz:
        np.savez(npz, **arrays)  # type: ignore[arg-type]  # numpy's stub takes one of the arrays for `allow_pickle`
    rows = [
        {"first_frame": clip.first_frame, "frames": len(clip), "crop": list(crop), "person": person}
        for clip, crop, person in zip(clips, crops, _people(clips), strict=True)
    ]
    _write_part(job, _Part(*stamp, sha256, None, "", found.fps, rows))


class _Found(NamedTuple):
    """A video and the faces in it, in its own pixels."""

    frames: int
    fps: float
    width: int  # upright
    height: int
    tracks: list[Track]
    kept: list[NDArray[np.uint8]] | None  # all its pictures, where they are few and small


@cache
def _backends(detector: DetectorName, landmarks: LandmarkerName) -> tuple[Detector, Landmarker]:
    device = torch.device("cpu")
    return load_detector(detector, device, doubtful=True), load_landmarker(landmarks, device)


def _search(path: Path, job: _Job) -> _Found:
    """The first pass: only the landmarks stay in memory."""
    info = probe_video(path)
    shrink = max(1.0, max(info.width, info.height) / SEARCHED)
    small = round(info.width / shrink), round(info.height / shrink)
    width, height = small

    kept: list[NDArray[np.uint8]] | None = [] if shrink == 1 else None

    def pictures() -> Iterator[NDArray[np.uint8]]:
        nonlocal width, height, kept
        reformatter = VideoReformatter()
        for frame in decode_frames(path, _threads(job, info)):
            picture = np.ascontiguousarray(to_rgb(frame, *small, reformatter))
            height, width = picture.shape[:2]
            if kept is not None:
                kept.append(picture)
                kept = kept if len(kept) * picture.nbytes <= KEPT else None
            yield picture

    detector, landmarker = _backends(job.settings.detector, job.settings.landmarks)
    confident = CONFIDENT[job.settings.detector]
    frames, tracks = track_faces(pictures(), detector, landmarker, confident, job.settings.detect_every)
    if not frames:
        raise MediaError(f"'{path}' holds no frames; download or export it again")
    upright = (info.width, info.height) if (width, height) == small else (info.height, info.width)
    scale = upright[0] / width, upright[1] / height
    return _Found(frames, info.fps, *upright, [track.times(*scale) for track in tracks], kept)


def _decode_again(path: Path, job: _Job) -> Iterator[NDArray[np.uint8]]:
    info = probe_video(path)
    reformatter = VideoReformatter()
    for frame in decode_frames(path, _threads(job, info)):
        yield to_rgb(frame, info.width, info.height, reformatter)


def _threads(job: _Job, info: VideoInfo) -> int:
    return 1 if info.width * info.height > LARGE else job.threads


def _why(found: _Found, settings: PrepareSettings) -> tuple[Reason, str]:
    if found.frames < settings.min_frames:
        return "too short", f"{found.frames} frames, {settings.min_frames} are needed"
    if not found.tracks:
        return "no face", f"no face in {found.frames} frames"
    longest = max(len(track) for track in found.tracks)
    return "face lost", f"no face could be followed for more than {longest} of {found.frames} frames"


def _people(clips: list[Track]) -> list[int]:
    """Who each clip shows: 0 = the person that the file is of, other numbers = someone else, each clip its own.

    Of faces that are in view together the file does not say which is its person, unless one is much the largest.
    """
    sizes = [float((boxes[:, 2] - boxes[:, 0]).median()) for boxes in (face_box(clip.points) for clip in clips)]
    people = []
    for n, clip in enumerate(clips):
        together = [
            size
            for size, other in zip(sizes, clips, strict=True)
            if other is not clip
            and clip.first_frame < other.first_frame + len(other)
            and other.first_frame < clip.first_frame + len(clip)
        ]
        people.append(n + 1 if together and sizes[n] < DOMINANT * max(together) else 0)
    return people


def _write_crops(
    pictures: Iterable[NDArray[np.uint8]], job: _Job, clips: list[Track], crops: list[Crop]
) -> list[list[int]]:
    """Write the JPEGs of each clip one after the other to a file; their sizes in bytes."""
    sizes: list[list[int]] = [[] for _ in clips]
    last = max(clip.first_frame + len(clip) for clip in clips)
    with _writing(job.part("")), ExitStack() as stack:
        names = [stack.enter_context(_whole(job.part(f".{n}.jpegs"))) for n in range(len(clips))]
        files = [stack.enter_context(name.open("wb")) for name in names]
        for number, picture in enumerate(islice(pictures, last)):
            for n, clip in enumerate(clips):
                if 0 <= number - clip.first_frame < len(clip):
                    head = _cut_out(picture, crops[n], job.settings.size)
                    content = encode_jpeg(torch.from_numpy(head).permute(2, 0, 1), job.settings.jpeg_quality)
                    sizes[n].append(files[n].write(content))
    return sizes


def _cut_out(picture: NDArray[np.uint8], crop: Crop, size: int) -> NDArray[np.uint8]:
    """[size, size, 3]: the crop, area-averaged or bilinear; beyond the picture its border is repeated."""
    height, width = picture.shape[:2]
    x, y, side = crop
    inside = picture[max(y, 0) : y + side, max(x, 0) : x + side]
    beyond = ((max(-y, 0), max(y + side - height, 0)), (max(-x, 0), max(x + side - width, 0)), (0, 0))
    square = np.pad(inside, beyond, mode="edge") if any(map(any, beyond)) else np.ascontiguousarray(inside)
    if side == size:
        return square
    return np.array(Image.fromarray(square).resize((size, size), Image.Resampling.BILINEAR))


def _points_in(crop: Crop, clip: Track, size: int) -> NDArray[np.float32]:
    """The clip's points in pixels of the crop, whose first pixel's centre is 0."""
    corner = torch.tensor([crop.x, crop.y])
    points: NDArray[np.float32] = ((clip.points + 0.5 - corner) * (size / crop.side) - 0.5).numpy()
    return points


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A file to write, which gets its name when all of it is there."""
    unfinished = path.with_name(f"{path.name}.unfinished-{os.getpid()}")
    try:
        yield unfinished
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def _write_part(job: _Job, part: _Part) -> None:
    with _writing(job.part("")):
        write_json(job.part(".json"), part._asdict())


def _stamp(path: Path) -> tuple[int, int]:
    """Size and time of change: (0, 0) where the file cannot be seen."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


# Many source files.

Work = list[tuple[Source, _Job]]


def _run_here(work: Work, workers: int) -> Iterator[Source]:
    """Worker processes on this machine; gives each source that is done."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["thead_eval.prepare"])  # imported once, shared by all workers
    threads = max(1, len(os.sched_getaffinity(0)) // workers)
    for start in range(0, len(work), workers * RECYCLE):
        batch = work[start : start + workers * RECYCLE]
        with ProcessPoolExecutor(min(workers, len(batch)), context, _start_worker) as pool:
            futures = {pool.submit(prepare_source, job._replace(threads=threads)): source for source, job in batch}
            try:
                for future in as_completed(futures):
                    future.result()
                    yield futures[future]
            except BrokenProcessPool as error:
                raise DatasetError(_killed([source for source, job in batch if not _is_done(job)][:workers])) from error
            finally:
                pool.shutdown(wait=False, cancel_futures=True)


def _killed(suspects: list[Source]) -> str:
    names = " or ".join(f"'{source.file}'" for source in suspects)
    return (
        f"a worker process was killed, most likely for want of memory, while it prepared {names}; "
        "run the same command again, which continues where this one stopped, with fewer --workers"
    )


def _start_worker() -> None:
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # without a traceback: Ctrl-C is the parent's to report
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """An orphan would work on beside the command that continues for its killed parent."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _run_on_ray(work: Work, workers: int) -> Iterator[Source]:
    """Tasks on the Ray cluster that RAY_ADDRESS names, else on one of this machine."""
    try:
        import ray
    except ImportError as error:
        raise ConfigError("--engine ray needs the package ray; run 'pip install \"theval[ray]\"'") from error
    if not ray.is_initialized():
        ray.init(num_cpus=None if os.environ.get("RAY_ADDRESS") else workers, log_to_driver=False)
    task = ray.remote(num_cpus=1, max_calls=RECYCLE, max_retries=0)(_prepare_source_on_ray)
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


def _prepare_source_on_ray(job: _Job) -> None:
    torch.set_num_threads(1)
    prepare_source(job)


# The parts put together.


def _is_done(job: _Job) -> bool:
    """Whether the source's part is whole, and the source still the same file."""
    if not job.part(".json").exists():
        return False
    part = _read_part(job)
    return (part.size, part.modified) == _stamp(Path(job.path))


def _read_part(job: _Job) -> _Part:
    return _Part(**json.loads(job.part(".json").read_text()))


def _count(parts: Iterable[_Part]) -> PrepareReport:
    outcomes: dict[Outcome, int] = dict.fromkeys(OUTCOMES, 0)
    clips = frames = 0
    for part in parts:
        outcomes[part.reason or "prepared"] += 1
        clips += len(part.clips)
        frames += sum(clip["frames"] for clip in part.clips)
    return PrepareReport(outcomes, clips, frames)


def _rows(source: Source, job: _Job) -> Iterator[PreparedClip | RejectedSource]:
    """The dataset's rows of one source: its clips, or why there are none."""
    part = _read_part(job)
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
