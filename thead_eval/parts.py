"""One video file to one part of a dataset: the work of a process, which stays small without torch.

A part is complete once its .json is there. Whatever is written gets its final name when all of it is written, so that
a killed process leaves nothing that looks whole.
"""

import errno
import hashlib
import json
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import islice
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from thead_eval.backends import (
    CONFIDENT,
    DetectorName,
    LandmarkerName,
    PictureDetector,
    PictureLandmarker,
    face_box,
    load_backends,
)
from thead_eval.errors import DatasetError, MediaError
from thead_eval.pictures import Picture, VideoInfo, decode_frames, encode_jpeg, probe_video, to_rgb
from thead_eval.results import write_json
from thead_eval.tracking import (
    SEARCHED,
    Crop,
    Track,
    cut_out,
    head_crop,
    points_in,
    search_video,
    split_by_reach,
)
from thead_eval.weights import sha256_of

Reason = Literal["unreadable", "no face", "face lost", "too short"]

KEPT = 64 * 2**20  # bytes of pictures that a short video keeps from the search, so that it is decoded once
LARGE = 2560 * 1440  # pixels of a picture from which on a decoder gets one thread: each holds frames of its own
DOMINANT = 1.5  # times as large as any other face in view: the person that the file is of


@dataclass(frozen=True)
class PrepareSettings:
    """What decides the content of a dataset, apart from its sources."""

    size: int = 256  # pixels a side of a crop
    jpeg_quality: int = 95
    detector: DetectorName = "dlib"
    landmarks: LandmarkerName = "dlib"
    detect_every: int = 8  # frames
    min_frames: int = 48  # of a clip


class Job(NamedTuple):
    """One source file's work, in plain values, which travel to another process."""

    path: str
    file: str
    parts: str
    settings: PrepareSettings
    threads: int = 1  # of the decoder

    def part(self, suffix: str) -> Path:
        return Path(self.parts) / (hashlib.sha256(self.file.encode()).hexdigest()[:24] + suffix)


class Part(NamedTuple):
    """The .json of a part."""

    size: int  # of the source, in bytes
    modified: int  # nanoseconds
    sha256: str  # empty where the file could not even be read
    reason: Reason | None
    detail: str
    fps: float
    clips: list[dict[str, Any]]  # first_frame, frames, crop, person; Any: JSON


def prepare_source(job: Job) -> None:
    """Write the part of one source file.

    Raises:
        DatasetError: the output cannot be written.
    """
    path = Path(job.path)
    stamp = stamp_of(path)
    sha256 = ""
    try:
        sha256 = sha256_of(path)
        found = _search(path, job)
        clips = [piece for track in found.tracks for piece in split_by_reach(track)]
        clips = [clip for clip in clips if len(clip) >= job.settings.min_frames]
        if not clips:
            _write_part(job, Part(*stamp, sha256, *_why(found, job.settings), found.fps, []))
            return
        crops = [head_crop(clip, found.width, found.height) for clip in clips]
        pictures = found.kept or _decode_again(path, job, crops)
        sizes = _write_crops(pictures, found, job, clips, crops)
        if [len(own) for own in sizes] != [len(clip) for clip in clips]:
            raise MediaError(f"'{path}' gives fewer frames when it is decoded again; export it again")
    except (MediaError, OSError) as error:
        detail = str(error).replace(job.path, job.file)
        _write_part(job, Part(*stamp, sha256, "unreadable", detail, 0.0, []))
        return
    arrays: dict[str, NDArray[Any]] = {}  # Any: numbers of two types
    for n, (clip, crop) in enumerate(zip(clips, crops, strict=True)):
        arrays[f"sizes{n}"] = np.array(sizes[n], np.int64)
        arrays[f"points{n}"] = points_in(crop, clip.points, job.settings.size)
    with writing(job.part("")), _whole(job.part(".npz")) as unfinished, unfinished.open("wb") as npz:
        np.savez(npz, **arrays)  # type: ignore[arg-type]  # numpy's stub takes one of the arrays for `allow_pickle`
    rows = [
        {"first_frame": clip.first_frame, "frames": len(clip), "crop": list(crop), "person": person}
        for clip, crop, person in zip(clips, crops, _people(clips), strict=True)
    ]
    _write_part(job, Part(*stamp, sha256, None, "", found.fps, rows))


class _Found(NamedTuple):
    """A video and the faces in it, in its own pixels."""

    fps: float
    width: int  # upright
    height: int
    frames: int
    tracks: list[Track]
    kept: list[Picture] | None  # all its pictures, where they are few and small


@cache
def _backends(detector: DetectorName, landmarks: LandmarkerName) -> tuple[PictureDetector, PictureLandmarker]:
    loaded = load_backends(detector, landmarks)
    if "torch" in sys.modules:  # MTCNN and FAN need it; workers share the cores, and threads change the last digits
        sys.modules["torch"].set_num_threads(1)
    return loaded


def _search(path: Path, job: Job) -> _Found:
    """The first pass: only the landmarks stay in memory."""
    info = probe_video(path)
    kept: list[Picture] | None = [] if max(info.width, info.height) <= SEARCHED else None

    def keep(picture: Picture) -> None:
        nonlocal kept
        if kept is not None:
            kept.append(picture)
            kept = kept if len(kept) * picture.nbytes <= KEPT else None

    confident, every, threads = CONFIDENT[job.settings.detector], job.settings.detect_every, _threads(job, info)
    backends = _backends(job.settings.detector, job.settings.landmarks)
    found = search_video(path, info, *backends, confident, every, threads=threads, see=keep)
    tracks = [track.times(*found.scale) for track in found.tracks]
    return _Found(info.fps, found.width, found.height, found.frames, tracks, kept)


def _decode_again(path: Path, job: Job, crops: list[Crop]) -> Iterator[Picture]:
    """The second pass, over a long or large video, in pictures at least twice as fine as the crops will be."""
    info = probe_video(path)
    shrink = max(1, min(crop.side for crop in crops) // (2 * job.settings.size))
    reformatter = VideoReformatter()
    for frame in decode_frames(path, _threads(job, info)):
        yield to_rgb(frame, info.width // shrink, info.height // shrink, reformatter)


def _threads(job: Job, info: VideoInfo) -> int:
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
    sizes = [float(np.median(boxes[:, 2] - boxes[:, 0])) for boxes in (face_box(clip.points) for clip in clips)]
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
    pictures: Iterable[Picture], found: _Found, job: Job, clips: list[Track], crops: list[Crop]
) -> list[list[int]]:
    """Write the JPEGs of each clip one after the other to a file; their sizes in bytes."""
    sizes: list[list[int]] = [[] for _ in clips]
    last = max(clip.first_frame + len(clip) for clip in clips)
    with writing(job.part("")), ExitStack() as stack:
        names = [stack.enter_context(_whole(job.part(f".{n}.jpegs"))) for n in range(len(clips))]
        files = [stack.enter_context(name.open("wb")) for name in names]
        for number, picture in enumerate(islice(pictures, last)):
            for n, clip in enumerate(clips):
                if 0 <= number - clip.first_frame < len(clip):
                    head = cut_out(picture, crops[n], found.width, found.height, job.settings.size)
                    sizes[n].append(files[n].write(encode_jpeg(head, job.settings.jpeg_quality)))
    return sizes


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


def _write_part(job: Job, part: Part) -> None:
    with writing(job.part("")):
        write_json(job.part(".json"), part._asdict())


def stamp_of(path: Path) -> tuple[int, int]:
    """Size and time of change: (0, 0) where the file cannot be seen."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


def is_done(job: Job) -> bool:
    """Whether the source's part is whole, and the source still the same file."""
    if not job.part(".json").exists():
        return False
    part = read_part(job)
    return (part.size, part.modified) == stamp_of(Path(job.path))


def read_part(job: Job) -> Part:
    """What `prepare_source` wrote."""
    return Part(**json.loads(job.part(".json").read_text()))


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """An OSError inside is about writing the output: say so, and that nothing is lost."""
    try:
        yield
    except OSError as error:
        cure = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else "make it writable"
        raise DatasetError(
            f"cannot write '{error.filename or out}' ({error.strerror or error}); {cure} and run the same command "
            "again, which continues where this one stopped"
        ) from error


def start_worker() -> None:
    """What a worker process does first."""
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # without a traceback: Ctrl-C is the parent's to report
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """An orphan would work on beside the command that continues for its killed parent."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
