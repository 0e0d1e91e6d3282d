"""Any video or picture to verdicts: every face followed and cropped as a dataset's are, and its frames scored.

A video is decoded twice: to find the faces, in small pictures, and for the frames that are scored. For a case report,
once more as far as the frames that a map is made of. Memory does not grow with its length.
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from glob import glob
from itertools import islice, zip_longest
from math import ceil, hypot
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray
from PIL import Image
from scipy.special import expit, logit
from torch import Tensor

from detectors.checkpoint import TrainedDetector, load_detector
from detectors.exam import BLENDED
from detectors.explain import check_maps, heat_map, lay_over
from thead_eval import __version__
from thead_eval.backends import (
    CONFIDENT,
    face_box,
    load_backends,
)
from thead_eval.detection import SURE, score_clip
from thead_eval.errors import ConfigError, MediaError
from thead_eval.evidence import SIDE, alike, spread
from thead_eval.marks import read_marks
from thead_eval.media import read_image
from thead_eval.pictures import Picture, decode_frames, encode_jpeg, probe_video, to_rgb
from thead_eval.sources import VIDEO_SUFFIXES
from thead_eval.statistics import Interval
from thead_eval.tracking import Crop, Track, cut_out, head_crop, search_video, split_by_reach
from thead_eval.types import Clip, Detector
from thead_eval.verdicts import DetectorNote, FileScan, OperatingPoint, Outcome, Shown, TrackScan, judge, judge_file
from thead_eval.weights import sha256_of

IMAGE_SUFFIXES = frozenset(".avif .bmp .heic .heif .jpeg .jpg .jxl .png .tif .tiff .webp".split())
ANIMATED = ("WEBP", "PNG", "AVIF")  # pictures that may be several in a row, which FFmpeg does not play
SUFFIXES = VIDEO_SUFFIXES | IMAGE_SUFFIXES | {".gif"}

SIZE = 256  # pixels a side of a crop, before the path that the detector's evidence took
SMALLEST = 40  # pixels a side of a face's box; below, the crop shows the enlargement rather than the face
CHUNK = 64  # frames of a track that are scored, and held, at a time
RUNS = 8  # of a track by a detector that needs neighbouring frames, at least: an interval stands on them
SHOWN = 3  # frames of a track that speak most for a fake, and are shown
SHOWN_TRACKS = 6  # of a file, the most serious; the first with maps
APART = 0.5  # seconds between two of those
QUALITY = 88  # of the JPEGs that are shown
LONGEST = 1.0  # seconds that a frame stands for in what is scored; a clock may jump
SAME_RATE = 0.02  # part by which a file may state its rate wrongly
USUAL_RATE = 0.05  # of false alarms, where nobody asks for another: lower ones leave most fakes inconclusive

Progress = Callable[[str, int, int], None]  # (what is being done, done, of how many)


@dataclass(frozen=True)
class ScanSettings:
    """What decides the numbers of a scan, apart from the detector."""

    per_second: float = 5.0  # frames of a track that are scored
    at_least: int = 32  # frames of a track that are scored where that many are there, as when it was validated
    min_frames: int = 12  # of a track; shorter ones are not judged
    followed: float = 30.0  # frames a second on which faces are followed, at most
    detect_every: int = 8  # of these frames; between them faces are only followed
    searched: int = 640  # pixels of the longer side of the pictures in which faces are searched


@dataclass(frozen=True)
class Scanner:
    """A detector, and what it needs to give verdicts."""

    detector: Detector
    note: DetectorNote
    size: int  # that its evidence was brought to, see `evidence.alike`
    window: int  # consecutive frames that a score needs
    point: OperatingPoint | None  # None: it has none, so that every verdict is `inconclusive`
    calibrate: Callable[[float], float]  # a video's mean logit to the probability of a fake
    uncertain: Callable[[float], tuple[float, float]]  # 95 % of what that would be, calibrated on other people
    deviation: float | None = None  # of a frame's or window's logit from its video's mean, as validation showed

    def stated(self) -> dict[str, Any]:  # Any: JSON
        """By whom and where verdicts are drawn, for a row that is read on its own."""
        point = self.point
        return {
            "theval": __version__,
            "detector": self.note.name,
            "detector_sha256": self.note.sha256,
            "fpr": point and point.rate,
            "fake_from": point and round(self.calibrate(max(point.fake, point.real)), 6),
            "real_below": point and round(self.calibrate(min(point.fake, point.real)), 6),
        }

    def probability(self, score: Interval) -> Interval:
        """Of a fake, with 95 % for both: how the frames vary, and on whom the detector was calibrated."""
        assert score.value is not None
        p = self.calibrate(score.value)
        if score.low is None or score.high is None:
            return Interval(p, None, None)
        ends = (p, self.calibrate(score.low), self.calibrate(score.high), *self.uncertain(score.value))
        middle, low, high, lower, upper = logit(np.clip(ends, SURE, 1 - SURE))
        below, above = hypot(middle - low, middle - lower), hypot(high - middle, upper - middle)
        return Interval(p, min(p, float(expit(middle - below))), max(p, float(expit(middle + above))))


def open_scanner(name: str | Path, device: torch.device, rate: float | None) -> Scanner:
    """A detector by its file, its training's folder or its name.

    Args:
        name: See `checkpoint.load_detector`.
        device: Where it runs.
        rate: The false positive rate of its verdicts; None: USUAL_RATE, or the lowest that validation was enough for.

    Raises:
        CheckpointError: the file is no detector's.
        PluginError: no such name, or the plug-in is broken.
        ConfigError: it has no operating point at this rate.
    """
    detector = load_detector(name, device)
    if not isinstance(detector, TrainedDetector):
        if rate is not None:
            raise ConfigError(f"detector '{detector.name}' has no operating points; leave --fpr out")
        window = getattr(detector, "window", 1)
        return Scanner(
            detector,
            DetectorNote(detector.name, "", window=window),
            SIDE,
            window,
            None,
            _expit,
            lambda x: (_expit(x),) * 2,
        )
    points = detector.operating_points
    if rate is not None and rate not in points:
        there = ", ".join(f"{own:g}" for own in sorted(points))
        if not there:
            raise ConfigError(
                f"the validation of detector '{detector.name}' was too small for any operating point; leave --fpr out, "
                "or train it with more people to validate on"
            )
        raise ConfigError(
            f"the validation of detector '{detector.name}' was not enough for --fpr {rate:g}; there are: {there}; "
            "for lower ones, train it with more people to validate on"
        )
    usual = USUAL_RATE if USUAL_RATE in points else min(points, default=USUAL_RATE)
    point = points.get(usual if rate is None else rate)
    validation = json.loads(detector.metadata.get("validation", "{}"))
    note = DetectorNote(
        detector.name,
        detector.sha256,
        detector.generators,
        reals=int(validation.get("reals", 0)),
        fakes=int(validation.get("fakes", 0)),
        blends=f"auc/{BLENDED}" in validation,
        folded=getattr(detector.network, "fits_on", None) == "both",
        window=detector.window,
        slowest=detector.slowest,
    )
    return Scanner(
        detector,
        note,
        detector.size,
        detector.window,
        point,
        detector.calibrate,
        detector.interval,
        validation.get("window_deviation"),
    )


def _expit(value: float) -> float:
    return float(expit(value))


class Media(NamedTuple):
    """What `find_media` found."""

    files: list[Path]
    passed_over: list[Path]  # in the folders: their names do not end as those of videos and pictures do


def find_media(paths: Sequence[Path]) -> Media:
    """Each named file, and the videos and pictures in each named folder or that a pattern such as `*.mp4` fits, hidden
    ones apart.

    Raises:
        ConfigError: a path does not exist, or a folder holds none.
    """
    found: list[Path] = []
    passed_over: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(
                file
                for file in path.rglob("*")
                if file.is_file() and not any(part.startswith(".") for part in file.relative_to(path).parts)
            )
            media = [file for file in inside if file.suffix.lower() in SUFFIXES]
            if not media:
                by_name = ", by the names of its files" if inside else ""
                raise ConfigError(f"'{path}' holds no video and no picture{by_name}; name files, or another folder")
            found += media
            passed_over += [file for file in inside if file.suffix.lower() not in SUFFIXES]
        elif path.exists():
            found.append(path)
        elif fitting := sorted(
            Path(name) for name in glob(str(path), recursive=True) if Path(name).suffix.lower() in SUFFIXES
        ):
            found += fitting  # where the shell has left it as it is
        else:
            raise ConfigError(f"there is no file or folder '{path}'; check the path")
    files = list(dict.fromkeys(found))
    return Media(files, sorted(set(passed_over).difference(files)))


def scan_files(
    paths: Sequence[Path],
    scanner: Scanner,
    settings: ScanSettings,
    *,
    explain: bool = False,
    known: Mapping[str, FileScan] | None = None,
    keep: Callable[[FileScan], None] = lambda scan: None,
    progress: Progress = lambda *_: None,
) -> list[FileScan]:
    """A row for each file, whatever became of it.

    Args:
        paths: Videos and pictures.
        scanner: See `open_scanner`.
        settings: See there.
        explain: Also pick the frames that decide, and map what in them does.
        known: Files by their path, of an earlier scan: those that have not changed since are not scanned again.
        keep: Is told of each file that was scanned.
        progress: Told of each file, or of each frame where there is only one.
    """
    files = []
    for number, path in enumerate(paths):
        progress("scanning", number, len(paths))
        before = known.get(str(path)) if known else None
        if before and before.sha256 and path.is_file() and before.sha256 == sha256_of(path):
            files.append(before)
            continue
        frames = progress if len(paths) == 1 else lambda *_: None
        files.append(scan_file(path, scanner, settings, explain=explain, progress=frames))
        keep(files[-1])
    progress("scanning", len(paths), len(paths))
    return refuse_constant(files)


def scan_file(
    path: Path,
    scanner: Scanner,
    settings: ScanSettings,
    *,
    explain: bool = False,
    progress: Progress = lambda *_: None,
) -> FileScan:
    """One file: see `scan_files`. What is wrong with it is its outcome, and no error."""
    scan = FileScan(str(path), "", "unreadable")
    try:
        scan = replace(scan, sha256=sha256_of(path))
        scan = replace(scan, marks=tuple(read_marks(path, scan.sha256)))
        least = max(settings.min_frames, scanner.window)
        found = _search_picture(path, scanner) if _is_picture(path) else _search(path, settings, least, progress)
        scan = replace(
            scan,
            width=found.width,
            height=found.height,
            fps=found.fps,
            frames=found.frames,
            seconds=float(found.seconds[-1]),
        )
        if found.outcome != "scored":
            return replace(scan, outcome=found.outcome, reason=found.reason)
        tracks = _score_tracks(path, found, scanner, settings, explain)
    except (MediaError, OSError) as error:
        return replace(scan, outcome="unreadable", reason=str(error))
    except _DetectorFailed as error:
        return replace(scan, outcome="failed", reason=str(error))
    return replace(scan, outcome="scored", verdict=judge_file(tracks, scanner.point), tracks=tuple(tracks))


def refuse_constant(files: Sequence[FileScan]) -> list[FileScan]:
    """The files; where a detector gave one number for every frame of three files or more, without that number."""
    scored = [file for file in files if file.outcome == "scored"]
    # As exact as rows are, of which some may be.
    given = {round(x, 4) for file in scored for track in file.tracks for x in track.logits if x is not None}
    if len({file.sha256 for file in scored}) < 3 or len(given) > 1:
        return list(files)
    reason = f"the detector gave the same number for every frame of {len(scored)} files"
    return [
        replace(file, outcome="failed", reason=reason, verdict=None, tracks=()) if file.outcome == "scored" else file
        for file in files
    ]


# Faces.


class _Found(NamedTuple):
    """A file and the faces in it, in its own pixels."""

    width: int  # upright
    height: int
    fps: float  # the mean, where the rate varies; 0: a picture
    seconds: NDArray[np.float64]  # [frames + 1] when each is shown, and when the last has been
    repeats: NDArray[np.bool_]  # [frames] which show once more what the one before did
    tracks: list[Track]
    outcome: Outcome = "scored"
    reason: str = ""
    picture: Tensor | None = None  # [3, H, W], of a picture

    @property
    def frames(self) -> int:
        return len(self.repeats)


def _is_picture(path: Path) -> bool:
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return True
    if path.suffix.lower() in SUFFIXES:
        return False
    try:
        with Image.open(path):
            return True
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False


def _search_picture(path: Path, scanner: Scanner) -> _Found:
    from thead_eval.portraits import find_faces  # takes seconds to import, and videos do without

    photo = read_image(path)
    with Image.open(path) as opened:  # of a camera's several pictures, JPEG or TIFF, the first is the one
        frames = getattr(opened, "n_frames", 1)
        if opened.format in ANIMATED and frames > 1:
            raise MediaError(f"'{path}' is an animation of {frames} frames; export it as a video")
    height, width = photo.shape[1:]
    faces = find_faces(photo)
    tracks = [Track(0, face.points[None].numpy()) for face in faces if face.side >= SMALLEST]
    found = _Found(width, height, 0.0, np.zeros(2), np.zeros(1, np.bool_), tracks, picture=photo)
    if tracks and scanner.window > 1:
        reason = (
            f"a picture is one frame, and detector '{scanner.note.name}' judges {scanner.window} in a row; name one of "
            "single frames, as 'theval detect train --detector probe' makes"
        )
        return found._replace(outcome="too_short", reason=reason)
    if tracks:
        return found
    small = f"; the largest of {len(faces)} is smaller than {SMALLEST} pixels" if faces else ""
    return found._replace(outcome="no_face", reason=f"no face that can be judged{small}")


def _search(path: Path, settings: ScanSettings, least: int, progress: Progress) -> _Found:
    info = probe_video(path)
    seen = 0

    def see(picture: Picture) -> None:
        nonlocal seen
        seen += 1
        progress("tracking", seen, max(info.frames or seen, seen))

    stride = ceil(info.fps / settings.followed)
    confident, every, searched = CONFIDENT["dlib"], settings.detect_every * stride, settings.searched
    search = search_video(path, info, *load_backends(), confident, every, searched=searched, stride=stride, see=see)
    tracks = [piece for track in search.tracks for piece in split_by_reach(track.times(*search.scale))]
    tracks = [track for track in tracks if _side(track) >= SMALLEST]
    long = [track for track in tracks if len(track) >= least]
    fps = info.fps
    if search.frames > 1 and abs((search.frames - 1) / search.seconds[-2] / fps - 1) > SAME_RATE:
        fps = (search.frames - 1) / float(search.seconds[-2])  # the header's holds for its beginning, or for nothing
    found = _Found(search.width, search.height, fps, search.seconds, search.repeats, long)
    if long:
        return found
    if search.frames < least:
        return found._replace(outcome="too_short", reason=f"{search.frames} frames, {least} are needed")
    longest = max(map(len, tracks), default=0)
    seen_in = sum(map(len, tracks))  # frames
    if longest <= every and 2 * seen_in < search.frames:  # seen once, and not again: seldom a face
        return found._replace(outcome="no_face", reason=f"no face that can be judged in {search.frames} frames")
    reason = f"no face could be followed for more than {longest} frames between cuts, {least} are needed"
    return found._replace(outcome="too_short", reason=reason)


def _side(track: Track) -> float:
    boxes = face_box(track.points)
    return float(np.median(boxes[:, 2] - boxes[:, 0]))


# Scores.


class _DetectorFailed(Exception):
    """The detector raised, or gave something that is no score."""


class _Map(NamedTuple):
    """What in a frame the detector went by."""

    heat: NDArray[np.float32]  # [SIZE, SIZE]
    fall: float  # of the logit without its reddest tenth; NaN where that could not be scored
    other_fall: float  # without as much elsewhere


class _Head(NamedTuple):
    """A scored frame that may be shown."""

    logit: float
    number: int  # of the frame in the file
    run: int  # which of the track's windows; of a detector of single frames, which of its frames
    seconds: float  # when it is shown
    pixels: Tensor  # [3, SIZE, SIZE]


@dataclass
class _Scoring:
    """A track that is being scored."""

    track: Track
    crop: Crop
    wanted: list[int]  # frames of the file, ascending
    at_a_time: int  # of these
    heads: list[Tensor]  # [3, SIZE, SIZE] each, of those that were read last and have no logit yet
    logits: list[float]  # NaN where a frame could not be scored
    kept: list[_Head]


def _score_tracks(
    path: Path, found: _Found, scanner: Scanner, settings: ScanSettings, explain: bool
) -> list[TrackScan]:
    scorings = [
        _Scoring(
            track,
            head_crop(track, found.width, found.height),
            choose_frames(track, found.seconds, found.repeats, settings, scanner.window, scanner.note.slowest),
            CHUNK if scanner.window == 1 else scanner.window,
            [],
            [],
            [],
        )
        for track in found.tracks
    ]
    wanting: dict[int, list[_Scoring]] = {}
    for own in scorings:
        for number in own.wanted:
            wanting.setdefault(number, []).append(own)
    for number, picture in _pictures(path, found, scorings, wanting.keys()):
        for own in wanting[number]:
            own.heads.append(_cut(picture, own, found))
            if len(own.heads) == own.at_a_time:
                _score(own, path, scanner, found, explain)
    for own in scorings:
        _score(own, path, scanner, found, explain)
        if len(own.logits) < len(own.wanted):
            raise MediaError(f"'{path}' gives fewer frames when it is decoded again; export it again")
    tracks = [_judge_track(own, scanner, found) for own in scorings]
    serious = sorted(range(len(tracks)), key=lambda n: tracks[n].seriousness)[: SHOWN_TRACKS if explain else 0]
    for rank, n in enumerate(serious):
        maps = _map(path, found, scorings, n, scanner) if rank == 0 else []
        shown = tuple(_show(scorings[n].kept, maps, scanner))
        tracks[n] = replace(tracks[n], shown=shown)
    return tracks


def choose_frames(
    track: Track,
    seconds: NDArray[np.float64],
    repeats: NDArray[np.bool_],
    settings: ScanSettings,
    window: int,
    slowest: float,
) -> list[int]:
    """The frames of a track that are scored, spread over all of it; for a window, in runs of its length."""
    count = min(len(track), max(settings.at_least, round(_lasting(track, seconds) * settings.per_second)))
    if window == 1:
        return [track.first_frame + place for place in spread(len(track), count)]
    there = distinct_frames(track, seconds, repeats, window, slowest)
    runs = min(max(count // window, RUNS), len(there) // window)
    begins = [min(max(middle - window // 2, 0), len(there) - window) for middle in spread(len(there), runs)]
    return [int(frame) for begin in begins for frame in there[begin : begin + window]]


def distinct_frames(
    track: Track, seconds: NDArray[np.float64], repeats: NDArray[np.bool_], window: int, slowest: float
) -> NDArray[np.int64]:
    """The frames of a track but for those that repeat the one before, which make who moves look as if he stood still.

    All of them, where a window does not fit into what is left, or these are fewer a second than `slowest`.
    """
    everything = np.arange(track.first_frame, track.first_frame + len(track))
    left = everything[~repeats[everything]]
    return everything if len(left) < window or new_fps(track, seconds, repeats) < slowest else left


def new_fps(track: Track, seconds: NDArray[np.float64], repeats: NDArray[np.bool_]) -> float:
    """How many frames a second of a track do not repeat the one before; 0: a picture."""
    new = len(track) - int(repeats[track.first_frame : track.first_frame + len(track)].sum())
    lasting = _lasting(track, seconds)
    return new / lasting if lasting else 0.0


def _lasting(track: Track, seconds: NDArray[np.float64]) -> float:
    shown = seconds[track.first_frame : track.first_frame + len(track) + 1]
    return float(np.diff(shown).clip(max=LONGEST).sum())


def _pictures(
    path: Path, found: _Found, scorings: Sequence[_Scoring], wanted: Collection[int]
) -> Iterator[tuple[int, Picture]]:
    """The frames of these numbers, at least twice as fine as the crops will be."""
    if found.picture is not None:
        yield 0, found.picture.permute(1, 2, 0).numpy()
        return
    info = probe_video(path)
    shrink = max(1, min(own.crop.side for own in scorings) // (2 * SIZE))
    reformatter = VideoReformatter()
    for number, frame in enumerate(islice(decode_frames(path), max(wanted) + 1)):
        if number in wanted:
            yield number, to_rgb(frame, info.width // shrink, info.height // shrink, reformatter)


def _cut(picture: Picture, own: _Scoring, found: _Found) -> Tensor:
    """The head [3, SIZE, SIZE] of a track in a frame of its file."""
    head = cut_out(picture, own.crop, found.width, found.height, SIZE)
    return torch.from_numpy(head.copy()).permute(2, 0, 1)


def _score(own: _Scoring, path: Path, scanner: Scanner, found: _Found, explain: bool) -> None:
    """Score the heads that are held, and let go of all that will not be shown."""
    if not own.heads:
        return
    heads = torch.stack(own.heads)  # [T, 3, SIZE, SIZE]
    own.heads.clear()
    numbers = own.wanted[len(own.logits) : len(own.logits) + len(heads)]
    fps = found.fps
    if scanner.window > 1 and numbers[-1] - numbers[0] >= len(numbers):  # it passes over repeated ones
        fps = (len(numbers) - 1) / float(found.seconds[numbers[-1]] - found.seconds[numbers[0]])
    logits = _logits(path, scanner, fps, heads)
    own.logits += logits.tolist()
    if explain:
        places = range(len(own.logits) - len(heads), len(own.logits))
        newly = [
            _Head(logit, number, place // scanner.window, float(found.seconds[number]), head)
            for logit, number, place, head in zip(logits.tolist(), numbers, places, heads, strict=True)
            if not np.isnan(logit)
        ]
        own.kept = _pick(own.kept + newly)


def _logits(path: Path, scanner: Scanner, fps: float, heads: Tensor) -> Tensor:
    """[T] of head crops [T, 3, H, H] uint8 of any size; NaN where a frame could not be scored.

    Raises:
        _DetectorFailed: it raised, or gave something else.
    """
    scores = score_clip(scanner.detector, Clip(str(path), alike(heads, scanner.size), fps or 1.0))
    if scores.outcome not in ("scored", "nothing"):
        raised = "raised " if scores.outcome == "raised" else ""
        raise _DetectorFailed(f"detector '{scanner.note.name}' {raised}{scores.reason}")
    return torch.from_numpy(scores.logits)


def _pick(heads: Sequence[_Head]) -> list[_Head]:
    """Those that speak most for a fake, at some distance in time, and the one that does least; of a window one."""
    chosen: list[_Head] = []

    def lies_apart(head: _Head) -> bool:
        return all(abs(head.seconds - other.seconds) >= APART and head.run != other.run for other in chosen)

    for head in sorted(heads, key=lambda head: (-head.logit, head.number)):
        if len(chosen) < SHOWN and lies_apart(head):
            chosen.append(head)
    if heads:
        least = min(heads, key=lambda head: (head.logit, head.number))
        if all(least.run != other.run for other in chosen):
            chosen.append(least)
    return chosen


def _judge_track(own: _Scoring, scanner: Scanner, found: _Found) -> TrackScan:
    seconds, window, slowest = found.seconds, scanner.window, scanner.note.slowest
    logits = np.array(own.logits, np.float32)
    good = np.isfinite(logits)
    if not good.any():
        raise _DetectorFailed(f"detector '{scanner.note.name}' gave no score for any of {len(logits)} frames")
    scored_seconds = seconds[own.wanted]
    # The frames of a window share its logit: together they are one observation.
    runs = good.reshape(-1, window).any(axis=1)
    observed = np.nanmean(logits.reshape(-1, window)[runs], axis=1)
    when = scored_seconds.reshape(-1, window)[runs].mean(axis=1)
    verdict, score = judge(observed, when, scanner.point, scanner.deviation, of_windows=window > 1)
    rate, repeated = new_fps(own.track, seconds, found.repeats), 0
    slow = window > 1 and rate < slowest
    if slow:
        verdict = "inconclusive"
    elif window > 1:
        repeated = len(own.track) - len(distinct_frames(own.track, seconds, found.repeats, window, slowest))
    p = scanner.probability(score)
    assert score.value is not None and p.value is not None
    return TrackScan(
        first_frame=own.track.first_frame,
        frames=len(own.track),
        seconds=(float(seconds[own.track.first_frame]), float(seconds[own.track.first_frame + len(own.track)])),
        crop=own.crop,
        scored=tuple(own.wanted),
        scored_seconds=tuple(scored_seconds.tolist()),
        logits=tuple(float(value) if np.isfinite(value) else None for value in logits),
        curve=tuple(scanner.calibrate(float(value)) if np.isfinite(value) else None for value in logits),
        logit=score.value,
        verdict=verdict,
        probability=p.value,
        low=p.low,
        high=p.high,
        score_low=None if score.low is None else scanner.calibrate(score.low),
        score_high=None if score.high is None else scanner.calibrate(score.high),
        repeated=repeated,
        new_fps=rate,
        slow=slow,
    )


def _map(path: Path, found: _Found, scorings: Sequence[_Scoring], n: int, scanner: Scanner) -> list[_Map]:
    """What speaks for and against a fake in the frames that are shown.

    Of a detector that judges several in a row only of the first, as that takes as many scores as all of a short video:
    the same place is blurred in all of them. They are read again, as holding those of every track would take memory.
    """
    own = scorings[n]
    score = partial(_logits, path, scanner, found.fps)
    if not own.kept:
        return []
    if scanner.window == 1:
        shown = torch.stack([head.pixels for head in own.kept])
        maps = heat_map(score, shown)
        falls = check_maps(score, shown, maps)
        return [_Map(*row) for row in zip(maps, falls.reddest.tolist(), falls.elsewhere.tolist(), strict=True)]
    place = own.wanted.index(own.kept[0].number)
    first = place - place % scanner.window
    numbers = own.wanted[first : first + scanner.window]
    heads = [_cut(picture, own, found) for _, picture in _pictures(path, found, scorings, numbers)]
    if len(heads) < len(numbers):
        return []
    window, at = torch.stack(heads), place - first
    heat = heat_map(score, window)[at]
    falls = check_maps(score, window, heat[None])
    return [_Map(heat, float(falls.reddest[at]), float(falls.elsewhere[at]))]


def _show(heads: Sequence[_Head], maps: Sequence[_Map], scanner: Scanner) -> Iterator[Shown]:
    """The frames that decide; the first of them with their maps."""
    for head, own in zip_longest(heads, maps):
        picture = head.pixels.permute(1, 2, 0).contiguous().numpy()
        jpeg = encode_jpeg(picture, QUALITY)
        shown = Shown(head.number, head.seconds, scanner.calibrate(head.logit), jpeg, b"")
        if own is not None:
            without, other = (
                None if np.isnan(fall) else scanner.calibrate(head.logit - fall) for fall in (own.fall, own.other_fall)
            )
            heat = encode_jpeg(lay_over(picture, own.heat), QUALITY)
            shown = replace(shown, heat=heat, without=without, without_other=other)
        yield shown
