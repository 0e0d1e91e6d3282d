"""What a scan of a file found: an outcome, and where a face could be judged, a verdict with its probability.

A verdict is a statement at an operating point: `fake` from a score on that at most a stated share of the real videos
reach on which the detector was validated, `real` below a score that at most the same share of its fakes fell short of,
`inconclusive` between the two, wherever the interval of the score reaches across one of them, and, of a detector that
judges several frames in a row, where too few frames a second are new.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import comb
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from thead_eval.marks import Mark
from thead_eval.statistics import Interval, paired_difference_interval
from thead_eval.tracking import Crop

Outcome = Literal["scored", "unreadable", "no_face", "too_short", "failed"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
Verdict = Literal["fake", "inconclusive", "real"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)  # the most serious first

BLOCK = 1.0  # seconds of a track that count as one observation: neighbouring frames are near copies
# New frames a second, that is: which do not repeat the one before. Of 12.5, detectors of motion that learnt from
# USUAL_FPS take real video for fakes far more often than at their stated rate, and of 12.5 that were doubled they miss
# fakes. Between the two nothing was measured; 18 leaves video of 20 judged, some of whose frames pass for repeats.
SLOWEST = 18.0
USUAL_FPS = 25.0
NORMAL = 1.96  # standard deviations that hold 95 %
BLOCKS = 6  # into which a shorter track is cut all the same


@dataclass(frozen=True)
class OperatingPoint:
    """Between which scores nothing is said. Scores are mean logits of a video's frames."""

    rate: float  # the stated share of real videos that are called fake, and of fakes that are called real, at most
    fake: float  # from here on: fake
    real: float  # below: real


@dataclass(frozen=True)
class Shown:
    """A frame of a track, with what in it the detector went by."""

    frame: int  # of the file, from 0
    seconds: float
    probability: float
    picture: bytes  # JPEG of the head
    heat: bytes  # JPEG of the head under the map; b"" where none was made
    # Its probability without the tenth of the picture that the map has reddest, and without as much elsewhere.
    without: float | None = None
    without_other: float | None = None


@dataclass(frozen=True)
class TrackScan:
    """One face through consecutive frames of one shot."""

    first_frame: int
    frames: int
    seconds: tuple[float, float]  # of the file, when it begins and when it has ended
    crop: Crop  # in pixels of the file
    scored: tuple[int, ...]  # frames of the file
    scored_seconds: tuple[float, ...]  # when these are shown
    logits: tuple[float | None, ...]  # one for each of them; None: the detector could not score it
    curve: tuple[float | None, ...]  # the same as calibrated probabilities
    logit: float  # their mean
    verdict: Verdict
    probability: float  # that it is fake, among as many fakes as reals
    low: float | None  # 95 %, from how the frames vary; None where they are too few
    high: float | None
    shown: tuple[Shown, ...] = ()
    # Of the score alone, without what calibration leaves open: a verdict is of all between these two. From how the
    # score varies over time; of a picture, from how single frames varied in validation.
    score_low: float | None = None
    score_high: float | None = None
    repeated: int = 0  # frames that show once more what the one before did, and were passed over
    new_fps: float = 0.0  # frames a second that do not repeat the one before; 0: a picture
    slow: bool = False  # so few of these that a detector of motion says nothing, see SLOWEST

    @property
    def seriousness(self) -> tuple[int, float]:
        """The smaller, the more serious."""
        return VERDICTS.index(self.verdict), -self.logit


@dataclass(frozen=True)
class FileScan:
    """One file. It has a verdict if and only if its outcome is `scored`."""

    path: str
    sha256: str  # '' where it could not be read
    outcome: Outcome
    reason: str = ""  # why it was not scored
    width: int = 0
    height: int = 0
    fps: float = 0.0  # the mean, where the rate varies; 0: a picture
    frames: int = 0
    seconds: float = 0.0  # how long it lasts
    verdict: Verdict | None = None  # see `judge_file`
    tracks: tuple[TrackScan, ...] = ()
    marks: tuple[Mark, ...] = field(default=())

    @property
    def deciding(self) -> TrackScan | None:
        """The track whose probability is the file's: of the most serious verdict, the highest score."""
        return min(self.tracks, key=lambda track: track.seriousness, default=None)


def judge(
    logits: NDArray[np.float32],
    seconds: NDArray[np.float64],
    point: OperatingPoint | None,
    deviation: float | None = None,
    *,
    of_windows: bool = False,
) -> tuple[Verdict, Interval]:
    """The verdict on a track, and its mean logit with a 95 % interval (Student's, over blocks of time).

    Args:
        logits: [T] of the frames that were scored, or of the windows, at least one; no NaN.
        seconds: [T] when they are shown, ascending.
        point: Where verdicts begin; None: nobody knows.
        deviation: Of one's logit from its video's mean in validation, for what is one alone, or a few windows.
        of_windows: Each is of a window of frames. These lie apart, so that a few of them are observations enough to be
            read by `deviation`, while a few frames are near copies.
    """
    mean = float(logits.mean(dtype=np.float64))
    interval = Interval(mean, None, None)
    few = len(logits) == 1 or (of_windows and len(logits) < BLOCKS)
    if few and deviation is not None:
        varied = float(logits.std(ddof=1)) if len(logits) > 1 else 0.0
        reach = NORMAL * max(deviation, varied) / np.sqrt(len(logits))
        interval = Interval(mean, mean - reach, mean + reach)
    elif len(logits) > 1:
        block = min(BLOCK, (seconds[-1] - seconds[0]) / BLOCKS)
        numbers = ((seconds - seconds[0]) / block).astype(int)
        means: dict[str, float | None] = {str(n): float(logits[numbers == n].mean()) for n in np.unique(numbers)}
        spread = paired_difference_interval(means, dict.fromkeys(means, 0.0))
        if spread.value is not None and spread.low is not None and spread.high is not None:
            interval = Interval(mean, mean + spread.low - spread.value, mean + spread.high - spread.value)
    return "inconclusive" if point is None else decide(interval, point), interval


def decide(score: Interval, point: OperatingPoint) -> Verdict:
    """The verdict that a score and the whole of its interval support.

    Where a detector tells its validation's reals and fakes apart with room to spare, the score from which on it says
    fake lies below the one under which it says real; then both must agree.
    """
    assert score.value is not None
    low = score.value if score.low is None else score.low
    high = score.value if score.high is None else score.high
    if low >= max(point.fake, point.real):
        return "fake"
    return "real" if high < min(point.fake, point.real) else "inconclusive"


def judge_file(tracks: Sequence[TrackScan], point: OperatingPoint | None) -> Verdict:
    """The most serious verdict of a file's tracks, at least one.

    In a film of so many tracks that among real ones a false alarm is likelier than none, that would say little. There,
    `fake` needs more fake tracks than chance gives at the stated rate; with fewer the file is `inconclusive`. Slow
    tracks, which cannot give a false alarm, are not counted.
    """
    worst = min(tracks, key=lambda track: track.seriousness).verdict
    fakes = sum(track.verdict == "fake" for track in tracks)
    judged = sum(not track.slow for track in tracks)
    if fakes and point and false_alarm(judged, 1, point.rate) > 0.5:
        return "fake" if false_alarm(judged, fakes, point.rate) <= point.rate else "inconclusive"
    return worst


def false_alarm(tracks: int, fakes: int, rate: float) -> float:
    """The chance that of so many real tracks at least `fakes` are called fake, if each is at that rate by itself."""
    return 1 - sum(comb(tracks, n) * rate**n * (1 - rate) ** (tracks - n) for n in range(fakes))


def count_outcomes(files: Sequence[FileScan]) -> dict[str, int]:
    """How many files had each outcome; together they are all files."""
    counts = Counter(file.outcome for file in files)
    return {outcome: counts[outcome] for outcome in OUTCOMES}


def count_verdicts(files: Sequence[FileScan]) -> dict[str, int]:
    """How many of the scored files got each verdict."""
    counts = Counter(file.verdict for file in files)
    return {verdict: counts[verdict] for verdict in VERDICTS}


def file_row(file: FileScan) -> dict[str, Any]:  # Any: JSON
    """A file as a row of `theval detect scan --json`."""
    track = file.deciding
    return {
        "path": file.path,
        "sha256": file.sha256,
        "outcome": file.outcome,
        "reason": file.reason,
        "verdict": file.verdict,
        "probability": track and _round(track.probability),
        "low": track and _round(track.low),
        "high": track and _round(track.high),
        "width": file.width,
        "height": file.height,
        "fps": file.fps,
        "frames": file.frames,
        "seconds": round(file.seconds, 3),
        "marks": [{"kind": mark.kind, "text": mark.text, "synthetic": mark.synthetic} for mark in file.marks],
        "tracks": [_track_row(track) for track in file.tracks],
    }


def file_of(row: dict[str, Any]) -> FileScan:  # Any: JSON
    """A file from its row, with what rows hold: of a track no pictures, and for each logit their mean."""
    return FileScan(
        path=row["path"],
        sha256=row["sha256"],
        outcome=row["outcome"],
        reason=row["reason"],
        width=row["width"],
        height=row["height"],
        fps=row["fps"],
        frames=row["frames"],
        seconds=row["seconds"],
        verdict=row["verdict"],
        tracks=tuple(_track_of(track) for track in row["tracks"]),
        marks=tuple(Mark(**mark) for mark in row["marks"]),
    )


def _track_of(row: dict[str, Any]) -> TrackScan:  # Any: JSON
    return TrackScan(
        first_frame=row["first_frame"],
        frames=row["frames"],
        seconds=tuple(row["seconds"]),
        crop=Crop(*row["crop"]),
        scored=tuple(frame for frame, _ in row["curve"]),
        scored_seconds=tuple(row["curve_seconds"]),
        logits=tuple(None if value is None else row["logit"] for _, value in row["curve"]),
        curve=tuple(value for _, value in row["curve"]),
        logit=row["logit"],
        verdict=row["verdict"],
        probability=row["probability"],
        low=row["low"],
        high=row["high"],
        score_low=row["score_low"],
        score_high=row["score_high"],
        repeated=row["repeated"],
        new_fps=row["new_fps"],
        slow=row["slow"],
    )


def _track_row(track: TrackScan) -> dict[str, Any]:  # Any: JSON
    return {
        "first_frame": track.first_frame,
        "frames": track.frames,
        "seconds": [round(end, 3) for end in track.seconds],
        "repeated": track.repeated,
        "new_fps": round(track.new_fps, 2),
        "slow": track.slow,
        "crop": list(track.crop),
        "verdict": track.verdict,
        "probability": _round(track.probability),
        "low": _round(track.low),
        "high": _round(track.high),
        "score_low": _round(track.score_low),
        "score_high": _round(track.score_high),
        "logit": round(track.logit, 4),
        "failed": sum(value is None for value in track.logits),
        "curve": [[frame, _round(value)] for frame, value in zip(track.scored, track.curve, strict=True)],
        "curve_seconds": [round(second, 3) for second in track.scored_seconds],
    }


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


@dataclass(frozen=True)
class DetectorNote:
    """What a reader of a verdict must know of the detector."""

    name: str
    sha256: str  # of its weights; '' of a plug-in's that does not say
    generators: tuple[str, ...] = ()  # whose fakes it has seen; () where it does not say
    reals: int = 0  # videos on which its verdicts were set, of people it did not learn from; 0: it does not say
    fakes: int = 0
    blends: bool = False  # whether real videos blended with themselves are among these
    folded: bool = False  # whether it learnt from these people after all, once rules had been judged that had not
    window: int = 1  # consecutive frames that it judges together
    slowest: float = SLOWEST  # new frames a second of a face below which it gives no verdict, with a window above 1


@dataclass(frozen=True)
class CaseRecord:
    """A scan, with all that is needed to do it again."""

    files: tuple[FileScan, ...]
    passed_over: tuple[str, ...]  # paths in the folders that are called neither as videos nor as pictures
    detector: DetectorNote
    point: OperatingPoint | None
    fake_from: float | None  # the operating point's two scores as probabilities
    real_below: float | None
    settings: dict[str, Any]  # Any: JSON
    command: str  # as typed
    started: str  # ISO 8601, UTC
    seconds: float
    packages: dict[str, str]  # name to version
    python: str
    commit: str | None  # of the repository that the code lies in, None outside one
    dirty: bool | None
    device: str
