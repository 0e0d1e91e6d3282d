"""Landmark tracks: one face through a video as 68 points a frame, and the small Parquet files that keep them.

TRACK.parquet    a row per frame: frame, landmarks (pixels of the video's frames, NaN where no face), found;
                 in its metadata under 'theval': name, fps, height, width, the video's sha256, the backends
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from scipy.signal import savgol_filter

from thead_eval.backends import (
    CONFIDENT,
    DetectorName,
    LandmarkerName,
    face_box,
    load_backends,
)
from thead_eval.errors import ConfigError, MediaError, NoFaceFound
from thead_eval.pictures import Picture, probe_video
from thead_eval.tracking import Track, search_video
from thead_eval.types import NUM_POINTS, Landmarks
from thead_eval.weights import sha256_of

DETECT_EVERY = 8  # frames
DOMINANT = 1.5  # times as large as any other face in view: the one that is meant where nobody says which
NEAR = 1.5  # sides of a face's box within which it takes up again after it was lost
SMOOTHED = 0.08  # seconds before and after a frame
BRIDGED = 1.0  # seconds without a face that are filled in

NamedTrack = Literal["nod", "smile", "talk"]
NAMED: tuple[NamedTrack, ...] = get_args(NamedTrack)

SCHEMA = pa.schema(
    [("frame", pa.int32()), ("landmarks", pa.list_(pa.float32(), 2 * NUM_POINTS)), ("found", pa.bool_())]
)
POINTS = "landmarks.list.element"  # how Parquet calls the numbers in that column
Progress = Callable[[str, int, int], None]  # (what is being done, done, of how many)


class TrackInfo(BaseModel):
    """What a track file says beside its rows. Holds no time of day, so that the same video makes the same bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    name: str  # of the video, or of the motion
    fps: float
    height: int  # of the frames in whose pixels the points are
    width: int
    source_sha256: str = ""  # of the video; empty where there was none
    detector: str = ""
    landmarks: str = ""


@dataclass(frozen=True)
class DrivingTrack:
    """One face through a video."""

    info: TrackInfo
    landmarks: Landmarks  # pixels of its frames
    sha256: str  # of the file that was read: the video or the track

    def __len__(self) -> int:
        return len(self.landmarks)


def read_driver(drive: str, *, progress: Progress = lambda *_: None) -> DrivingTrack:
    """The track that a user names: a track file, a video, or the name of a track that the package carries.

    Raises:
        ConfigError: it is none of these, a damaged track file, or a single frame.
        MediaError: the video cannot be read.
        NoFaceFound: it shows no face, or several and none that is much the largest.
    """
    path = Path(drive)
    if not path.exists():
        if drive in NAMED:
            return read_track(Path(str(files("thead_eval") / "motions" / f"{drive}.parquet")))
        raise ConfigError(
            f"there is no file '{drive}' to drive with; give a video, a track file of 'theval track', or one of "
            f"{', '.join(NAMED)}"
        )
    track = read_track(path) if path.suffix == ".parquet" else track_video(path, progress=progress)
    if len(track) < 2:
        raise ConfigError(f"'{drive}' is one frame, which moves nothing; give a video or a track of more")
    return track


def read_track(path: Path) -> DrivingTrack:
    """A track file.

    Raises:
        ConfigError: it is missing, damaged, something else, or empty.
    """
    try:
        content = path.read_bytes()
        table = pq.read_table(pa.BufferReader(content))
        info = TrackInfo.model_validate(json.loads((table.schema.metadata or {})[b"theval"]))
        points = table["landmarks"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        found = np.array(table["found"], dtype=bool)
        landmarks = Landmarks(
            torch.from_numpy(np.array(points, np.float32).reshape(len(found), NUM_POINTS, 2)), torch.from_numpy(found)
        )
    except (OSError, pa.ArrowException, KeyError, ValueError, ValidationError) as error:
        detail = " ".join(str(error).split())[:100]
        raise ConfigError(
            f"'{path}' is not a landmark track that can be read ({detail}); make one with 'theval track'"
        ) from error
    if not len(landmarks):
        raise ConfigError(f"track '{path}' has no frames; make one from a longer video with 'theval track'")
    return DrivingTrack(info, landmarks, hashlib.sha256(content).hexdigest())


def write_track(path: Path, track: DrivingTrack) -> None:
    """Write a track file whole or not at all; the same track makes the same bytes.

    Raises:
        MediaError: it cannot be written.
    """
    points = pa.FixedSizeListArray.from_arrays(pa.array(track.landmarks.points.flatten().numpy()), 2 * NUM_POINTS)
    table = pa.Table.from_arrays(
        [pa.array(range(len(track)), pa.int32()), points, pa.array(track.landmarks.found.numpy())],
        schema=SCHEMA.with_metadata({"theval": track.info.model_dump_json()}),
    )
    temporary = path.with_name(f".{path.name}.unfinished")
    try:
        pq.write_table(table, temporary, compression="zstd", use_dictionary=False, use_byte_stream_split=[POINTS])
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise MediaError(f"cannot write '{path}' ({error.strerror or error}); check the folder") from error


def track_video(
    path: Path,
    *,
    face: int | None = None,
    detector: DetectorName = "dlib",
    landmarks: LandmarkerName = "dlib",
    progress: Progress = lambda *_: None,
) -> DrivingTrack:
    """Follow one face through a video, which is held a frame at a time.

    Args:
        path: The video.
        face: Of several in view, counted from 1 and from left to right; None: the one that is much the largest.
        detector: See `backends`.
        landmarks: See `backends`.
        progress: Is told of each frame.

    Raises:
        MediaError: the video cannot be read or holds no frame.
        NoFaceFound: it shows no face, not so many, or several and none that is much the largest.
    """
    info = probe_video(path)
    seen = 0

    def see(picture: Picture) -> None:
        nonlocal seen
        seen += 1
        progress("tracking", seen, info.frames or seen)

    found = search_video(path, info, *load_backends(detector, landmarks), CONFIDENT[detector], DETECT_EVERY, see=see)
    frames, tracks = found.frames, found.tracks
    if not tracks:
        raise NoFaceFound(f"no face in {frames} frames of '{path}'; give a video of a larger or more frontal face")
    chosen = _choose(tracks, face, path, info.fps)
    points = np.full((frames, NUM_POINTS, 2), np.nan, np.float32)
    for track in chosen:
        own = track.times(*found.scale)
        points[own.first_frame : own.first_frame + len(own)] = own.points
    sha256 = sha256_of(path)
    return DrivingTrack(
        TrackInfo(
            name=path.name,
            fps=info.fps,
            height=found.height,
            width=found.width,
            source_sha256=sha256,
            detector=detector,
            landmarks=landmarks,
        ),
        Landmarks(torch.from_numpy(points), torch.from_numpy(np.isfinite(points[:, 0, 0]))),
        sha256,
    )


def _choose(tracks: list[Track], face: int | None, path: Path, fps: float) -> list[Track]:
    """One face's tracks: the chosen one, and those that take it up again where it was lost."""
    sizes = {id(track): float(np.median(_sides(track))) for track in tracks}
    main = max(tracks, key=lambda track: len(track) * sizes[id(track)] ** 2)
    rivals = [
        track
        for track in tracks
        if track is not main and _together(track, main) and sizes[id(track)] * DOMINANT > sizes[id(main)]
    ]
    if face is None and rivals:
        second = max(main.first_frame, rivals[0].first_frame) / fps
        raise NoFaceFound(
            f"'{path}' shows {1 + len(rivals)} faces of like size (at second {second:.1f}); choose one with "
            f"'theval track {path} --face 1 -o track.parquet', counted from the left, and drive with that"
        )
    if face is not None:
        starts = sorted({track.first_frame for track in tracks})
        crowd = max(([t for t in tracks if t.first_frame <= n < t.first_frame + len(t)] for n in starts), key=len)
        crowd.sort(key=lambda track: float(track.points[:, :, 0].mean()))
        if face > len(crowd):
            raise NoFaceFound(f"'{path}' shows at most {len(crowd)} faces at once, and --face asks for number {face}")
        main = crowd[face - 1]
    chosen = [main]
    for other in sorted(tracks, key=lambda track: -len(track)):
        near = min(chosen, key=lambda track: _gap(track, other))
        if not any(_together(other, track) for track in chosen) and _takes_up(near, other):
            chosen.append(other)
    return chosen


def _together(a: Track, b: Track) -> bool:
    return a.first_frame < b.first_frame + len(b) and b.first_frame < a.first_frame + len(a)


def _gap(a: Track, b: Track) -> int:
    """Frames between two tracks."""
    return max(b.first_frame - a.first_frame - len(a), a.first_frame - b.first_frame - len(b))


def _takes_up(a: Track, b: Track) -> bool:
    """Whether the face at the end of one is where, and as large as, that at the beginning of the other."""
    first, second = (a, b) if a.first_frame < b.first_frame else (b, a)
    ends = face_box(np.stack([first.points[-1], second.points[0]]))  # [2, 4]
    sides = ends[:, 2] - ends[:, 0]
    distance = float(np.hypot(*(ends[1, :2] + ends[1, 2:] - ends[0, :2] - ends[0, 2:])) / 2)
    return distance < NEAR * float(sides.mean()) and float(sides.max()) < DOMINANT * float(sides.min())


def _sides(track: Track) -> NDArray[np.float32]:
    boxes = face_box(track.points)
    return boxes[:, 2] - boxes[:, 0]


def bridge_gaps(track: DrivingTrack, *, hold: bool = False) -> Landmarks:
    """The track with a face in every row: moved straight from the last pose to the next, held at the ends.

    Args:
        track: Of some face.
        hold: Also fill in more than a second.

    Raises:
        NoFaceFound: no row has a face, or more than a second is without one.
    """
    found = track.landmarks.found.numpy()
    name, fps = track.info.name, track.info.fps
    if not found.any():
        raise NoFaceFound(f"'{name}' shows no face in {len(found)} frames; give another video to drive with")
    edges = np.flatnonzero(np.diff(np.concatenate([[True], found, [True]])))  # where gaps begin and end, in turns
    for begin, end in edges.reshape(-1, 2).tolist():
        if end - begin > BRIDGED * fps and not hold:
            raise NoFaceFound(
                f"'{name}' loses its face from second {begin / fps:.1f} to {end / fps:.1f}; cut that part out, or pass "
                "--hold to keep the pose before it"
            )
    rows = np.arange(len(found))
    points = track.landmarks.points.flatten(1).numpy()  # [T, 136]
    held = np.stack([np.interp(rows, rows[found], column[found]) for column in points.T], 1).astype(np.float32)
    for begin, end in edges.reshape(-1, 2).tolist():
        if end - begin > BRIDGED * fps and begin > 0:
            held[begin:end] = points[begin - 1]
    return Landmarks(torch.from_numpy(held.reshape(-1, NUM_POINTS, 2)), torch.ones(len(found), dtype=torch.bool))


def take_out_jitter(landmarks: Landmarks, fps: float) -> Landmarks:
    """Landmarks with a face in every row, smoothed by parabolas over a fifth of a second (Savitzky and Golay 1964).

    A landmarker's points tremble from frame to frame, and what they drive trembles with them. On five recordings at 25
    frames a second this halves their second difference, and moves the points of a clean track by 0.1 % of the distance
    of the eyes: blinks and lips keep their reach, which longer windows take. Below 19 frames a second nothing changes.
    """
    window = 2 * round(SMOOTHED * fps) + 1
    if window < 5 or len(landmarks) < window:  # a parabola goes through three points as they are
        return landmarks
    points = savgol_filter(landmarks.points.numpy(), window, polyorder=2, axis=0)
    return Landmarks(torch.from_numpy(points.astype(np.float32)), landmarks.found)
