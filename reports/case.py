"""The case report of a scan: one HTML file with what was found in each video or picture, and how far to trust it."""

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup, escape

from reports.numbers import and_words, count_words, write_count
from thead_eval.texts import write_whole
from thead_eval.verdicts import (
    OUTCOMES,
    CaseRecord,
    FileScan,
    Shown,
    TrackScan,
    Verdict,
    count_outcomes,
    count_verdicts,
    false_alarm,
)

COLOURS = 6  # .c0 to .c5 in report.css
LISTED = 10  # files that were passed over
PLOTTED = 40  # tracks of a file in its plot and table: a film has hundreds
OUTCOME_WORDS = {
    "scored": "judged",
    "unreadable": "unreadable",
    "no_face": "no face",
    "too_short": "too short",
    "failed": "the detector failed",
}
SETTING_WORDS = {
    "per_second": "frames scored a second",
    "at_least": "frames scored at least",
    "min_frames": "shortest track, frames",
    "followed": "frames followed a second, at most",
    "detect_every": "of these, one in so many is searched for new faces",
    "searched": "faces sought at, pixels",
}
SLOW_LIMIT = (
    "A detector of several frames in a row goes by how one follows the other. Where fewer than {:.3g} new ones are "
    "shown a second, real video too often looks fake to it, and where these were doubled, fakes look real: such faces "
    "are inconclusive whatever their probability, in {}."
)
DOUBLED_LIMIT = (
    "Frames that show once more what the one before did, as where somebody raised the frame rate, were passed over: "
    "those that make a score are not neighbours everywhere in {}."
)
MAP_LIMIT = (
    "A map shows where blurring changes the score most: what the detector reacts to, which need not be where something "
    "was altered. Where blurring its reddest tenth changes p no more than blurring as much elsewhere, it explains "
    "nothing."
)
VERDICT_WORDS: dict[Verdict, str] = {"fake": "Fake", "inconclusive": "Inconclusive", "real": "Real"}


@dataclass(frozen=True)
class Picture:
    """A frame that decides."""

    caption: str
    seconds: str  # '' of a picture
    uri: str
    heat: str  # '' where there is none
    check: str  # of the map; '' where there is none


@dataclass(frozen=True)
class TrackView:
    """A track as the page shows it."""

    number: int
    colour: str
    track: TrackScan
    pictures: tuple[Picture, ...]

    @property
    def mapped(self) -> bool:
        """Whether some picture of it has a map."""
        return any(picture.heat for picture in self.pictures)


@dataclass(frozen=True)
class FileView:
    """A file as the page shows it."""

    number: int
    name: str
    file: FileScan
    deciding: TrackScan | None
    tracks: tuple[TrackView, ...]
    left_out: int  # tracks that are not listed
    scale: Markup
    plots: tuple[Markup, ...]  # for a wide page and for a narrow one
    alarm: float | None  # the chance that some face of this many is called fake though all are real, at most

    @property
    def decides(self) -> int | None:
        """The number of the deciding track, as in `TrackView`."""
        return self.file.tracks.index(self.deciding) + 1 if self.deciding else None


def write_case(record: CaseRecord, out: Path) -> None:
    """Write the HTML file; the same record gives the same bytes.

    Raises:
        RunError: it cannot be written.
    """
    write_whole(out, render(record), "name another file with --report")


def render(record: CaseRecord) -> str:
    """The page."""
    css = "".join(files("reports").joinpath(name).read_text(encoding="utf-8") for name in ("report.css", "case.css"))
    views = [view_file(record, number, file) for number, file in enumerate(record.files, 1)]
    counts = count_outcomes(record.files)
    return _template().render(
        css=Markup(css),
        record=record,
        views=views,
        title=views[0].name if len(views) == 1 else count_words(len(views), "file"),
        outcomes=[(OUTCOME_WORDS[outcome], counts[outcome]) for outcome in OUTCOMES if counts[outcome]],
        verdicts=count_verdicts(record.files),
        outcome_words=OUTCOME_WORDS,
        verdict_words=VERDICT_WORDS,
        limits=limits(record),
        edges=_edges(record),
        probability=probability,
        interval=interval,
        clock=clock,
        and_words=and_words,
        count_words=count_words,
        commit=commit_words(record),
        settings=_settings(record),
        passed_over=_some(record.passed_over),
        number=lambda value: f"{value:.3f}".replace("-", "\u2212"),
    )


def _some(paths: Sequence[str]) -> list[str]:
    """The first of them, and how many there are beside."""
    left = len(paths) - LISTED
    return [*paths[:LISTED], *([count_words(left, "other")] if left > 0 else [])]


def _settings(record: CaseRecord) -> list[tuple[str, object]]:
    """What decided the numbers, in words."""
    window = record.detector.window
    row = [("frames in a row that one score is made of", window)] if window > 1 else []
    return [*row, *((SETTING_WORDS.get(name, name), value) for name, value in record.settings.items())]


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"count": write_count}
    return environment.from_string(files("reports").joinpath("case.html.j2").read_text(encoding="utf-8"))


def view_file(record: CaseRecord, number: int, file: FileScan) -> FileView:
    """What is shown of a file."""
    shown = [
        TrackView(n, f"c{(n - 1) % COLOURS}", track, tuple(_pictures(file, track)))
        for n, track in enumerate(file.tracks[:PLOTTED], 1)
    ]
    video = file.fps > 0 and file.tracks
    judged = sum(not track.slow for track in file.tracks)  # the others cannot give a false alarm
    return FileView(
        number=number,
        name=Path(file.path).name,
        file=file,
        deciding=file.deciding,
        tracks=tuple(shown),
        left_out=len(file.tracks) - len(shown),
        scale=_scale(record, file.deciding) if file.deciding else Markup(),
        plots=tuple(_curve(record, file, shown, width) for width in (1000, 360)) if video else (),
        alarm=false_alarm(judged, 1, record.point.rate) if record.point and judged else None,
    )


def _pictures(file: FileScan, track: TrackScan) -> list[Picture]:
    most = sorted(track.shown, key=lambda shown: -shown.probability)
    return [
        Picture(
            caption=f"p {probability(shown.probability)}",
            seconds=f"{clock(shown.seconds)}, frame {shown.frame}" if file.fps else "",
            uri=_uri(shown.picture),
            heat=_uri(shown.heat) if shown.heat else "",
            check=_check(shown),
        )
        for shown in most
    ]


def _check(shown: Shown) -> str:
    if shown.without is None or shown.without_other is None:
        return ""
    return (
        f"p {probability(shown.without)} with the reddest tenth blurred, {probability(shown.without_other)} with "
        "as much elsewhere"
    )


def _uri(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


# Words.


def probability(value: float | None) -> str:
    """'0.973'; never a certainty: '< 0.001', '> 0.999'."""
    if value is None:
        return "—"
    if value < 0.0005:
        return "<\u202f0.001"
    return ">\u202f0.999" if value >= 0.9995 else f"{value:.3f}"


def interval(track: TrackScan) -> str:
    """'0.91 to 0.99', or why there is none."""
    if track.low is None or track.high is None:
        return "no interval from so few frames"
    return f"{probability(track.low)} to {probability(track.high)}"


def clock(seconds: float) -> str:
    """'3.2 s', '1:03.2'."""
    if seconds < 60:
        return f"{seconds:.1f}\u202fs"
    return f"{int(seconds // 60)}:{seconds % 60:04.1f}"


def commit_words(record: CaseRecord) -> str:
    """The commit, or that there is none."""
    if record.commit is None:
        return "not recorded"
    return f"{record.commit[:12]}{' with changes' if record.dirty else ''}"


def limits(record: CaseRecord) -> list[str]:
    """What the numbers do not say, with this scan's own."""
    note, said = record.detector, []
    if record.point is None:
        said.append(
            "The detector states no operating point, so nothing is called fake or real, and its probability stands as "
            "given."
        )
    else:
        percent = f"{100 * record.point.rate:g} %"
        set_on = "on people from whom the detector did not learn"
        if note.folded:
            set_on = "in folds, on people from whom rules like the detector's did not learn; its own learnt from all"
        among = f"the {count_words(note.reals, 'real video')}" if note.reals else "the real videos"
        fakes = f"the {count_words(note.fakes, 'fake')}" if note.fakes else "the fakes"
        blends = ", real ones blended with themselves among them," if note.blends else ""
        said.append(
            f"The verdicts were set {set_on}: of {among} at most {percent} were called fake, and of {fakes}{blends} at "
            f"most {percent} real. On other footage, of other cameras or more strongly compressed, both shares can be "
            "higher."
        )
    if note.generators:
        said.append(
            f"It has learnt from fakes of {and_words(note.generators)}. Fakes made in another way may pass for real: "
            "“real” means that nothing spoke for those that it knows."
        )
    looked = "by its pixels" if note.window == 1 else f"by its pixels and how they change over {note.window} frames"
    videos = [file for file in record.files if file.fps]
    slow = [Path(file.path).name for file in videos if record.point and any(track.slow for track in file.tracks)]
    doubled = [Path(file.path).name for file in videos if any(track.repeated for track in file.tracks)]
    mapped = any(shown.heat for file in record.files for track in file.tracks for shown in track.shown)
    return [
        *said,
        "The probability supposes that a fake is as likely as a real video before anyone has looked. Where fakes are "
        "rarer, it is too high.",
        "The interval covers how the frames of this file differ and on whom the detector was calibrated; neither "
        "another detector nor another recording of the same person.",
        "Each face in view has its own chance of a false alarm; how many there were stands beside each verdict.",
        f"Only faces were judged, each {looked}: not the sound, the background, or what is said."
        + ("" if len(videos) == len(record.files) else " A picture is one frame, and says less than a video."),
        *([SLOW_LIMIT.format(note.slowest, and_words(_some(slow)))] if slow else []),
        *([DOUBLED_LIMIT.format(and_words(_some(doubled)))] if doubled else []),
        *([MAP_LIMIT] if mapped else []),
        "Marks are what somebody wrote into the file. Anyone can add or remove them, and no verdict depends on them.",
    ]


# Plots.


def _scale(record: CaseRecord, track: TrackScan) -> Markup:
    """Where the file's probability lies between real and fake."""
    width, height, left, right, y = 340, 58, 8, 332, 22

    def x(value: float) -> float:
        return left + value * (right - left)

    real, fake = _edges(record)
    parts = [
        f'<rect class="zone real" x="{left}" y="{y - 5}" width="{x(real) - left:.1f}" height="10"/>',
        f'<rect class="zone inconclusive" x="{x(real):.1f}" y="{y - 5}" width="{x(fake) - x(real):.1f}" height="10"/>',
        f'<rect class="zone fake" x="{x(fake):.1f}" y="{y - 5}" width="{right - x(fake):.1f}" height="10"/>',
    ]
    for value in (0.0, 0.5, 1.0):
        anchor = {0.0: "start", 0.5: "middle", 1.0: "end"}[value]
        parts.append(f'<text x="{x(value):.1f}" y="{y + 20}" text-anchor="{anchor}">{value:g}</text>')
    parts.append(f'<text x="{x(0.25):.1f}" y="{y + 20}" text-anchor="middle">real</text>')
    parts.append(f'<text x="{x(0.75):.1f}" y="{y + 20}" text-anchor="middle">fake</text>')
    if track.low is not None and track.high is not None:
        parts.append(f'<line class="reach" x1="{x(track.low):.1f}" x2="{x(track.high):.1f}" y1="{y}" y2="{y}"/>')
    parts.append(f'<circle class="here" cx="{x(track.probability):.1f}" cy="{y}" r="5.5"/>')
    told = (
        f"Probability {probability(track.probability)}, {interval(track)}; real below {probability(real)}, fake from "
        f"{probability(fake)}"
    )
    return _svg(width, height, "scale", told, parts)


def _edges(record: CaseRecord) -> tuple[float, float]:
    """Below which probability a mean is called real, and from which on fake."""
    if record.real_below is None or record.fake_from is None:
        return 0.0, 1.0
    return min(record.real_below, record.fake_from), max(record.real_below, record.fake_from)


def _curve(record: CaseRecord, file: FileScan, views: Sequence[TrackView], width: int) -> Markup:
    """Each scored frame's probability over time."""
    height, left, right, top, bottom = 190, 34, 8, 10, 26
    length = max(file.seconds, 1e-6)

    def x(seconds: float) -> float:
        return left + min(seconds / length, 1) * (width - left - right)

    def y(value: float) -> float:
        return top + (1 - value) * (height - top - bottom)

    real, fake = _edges(record)
    across = f'x="{left}" width="{width - left - right}"'
    parts = [
        f'<rect class="zone fake" {across} y="{y(1):.1f}" height="{y(fake) - y(1):.1f}"/>',
        f'<rect class="zone real" {across} y="{y(real):.1f}" height="{y(0) - y(real):.1f}"/>',
    ]
    for value in (0.0, 0.5, 1.0):
        parts.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        parts.append(f'<text x="{left - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>')
    step = _step(length, width / 90)
    for index in range(int(length / step) + 1):
        place = left + index * step / length * (width - left - right)
        if place > width - right - 70:  # the unit's name stands there
            break
        text = f"{index * step:g}" if step < 60 else f"{index * step / 60:g}"
        parts.append(f'<text x="{place:.1f}" y="{height - 10}" text-anchor="middle">{text}</text>')
    unit = "seconds" if step < 60 else "minutes"
    parts.append(f'<text x="{width - right}" y="{height - 10}" text-anchor="end">{unit}</text>')
    for view in views:
        path, down = "", False
        for seconds, p in zip(view.track.scored_seconds, view.track.curve, strict=True):
            if p is not None:
                path += f"{'L' if down else 'M'}{x(seconds):.1f} {y(p):.1f}"
            down = p is not None
        dots = "".join(f"M{x(shown.seconds):.1f} {y(shown.probability):.1f}h0" for shown in view.track.shown)
        parts.append(f'<g class="{view.colour}"><path class="curve" d="{path}"/><path class="picked" d="{dots}"/></g>')
    told = "; ".join(
        f"face {view.number}: {probability(view.track.probability)} from {clock(view.track.seconds[0])} to "
        f"{clock(view.track.seconds[1])}"
        for view in views
    )
    return _svg(width, height, "wide" if width > 500 else "narrow", f"Probability of a fake over time. {told}", parts)


def _step(length: float, count: float) -> float:
    """Seconds between two numbers below the curve."""
    rough = length / count
    steps = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120, 300, 600, 1800, 3600)
    return next((step for step in steps if step >= rough), 3600 * math.ceil(rough / 3600))


def _svg(width: int, height: int, kind: str, told: str, parts: Sequence[str]) -> Markup:
    body = "".join(parts)
    return Markup(
        f'<svg class="{kind}" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(told)}">{body}</svg>'
    )
