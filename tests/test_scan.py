"""Any file to a verdict, or to the reason why there is none."""

import json
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import Tensor

from detectors.calibration import Calibration
from detectors.checkpoint import save_detector
from detectors.efflite0 import EfficientNetLite0
from detectors.explain import check_maps, heat_map, lay_over
from detectors.scan import (
    Scanner,
    ScanSettings,
    _Head,
    _pick,
    choose_frames,
    find_media,
    open_scanner,
    refuse_constant,
    scan_file,
)
from tests.test_faces import portraits
from thead_eval.cli.detect.scan import command
from thead_eval.errors import ConfigError, RunError
from thead_eval.marks import Mark
from thead_eval.media import write_image
from thead_eval.pictures import probe_video
from thead_eval.scanned import read_rows
from thead_eval.statistics import Interval
from thead_eval.testing import write_video
from thead_eval.tracking import Crop, Track
from thead_eval.types import Clip
from thead_eval.verdicts import (
    DetectorNote,
    FileScan,
    OperatingPoint,
    TrackScan,
    count_outcomes,
    count_verdicts,
    decide,
    false_alarm,
    file_of,
    file_row,
    judge,
    judge_file,
)
from thead_eval.weights import sha256_of

POINT = OperatingPoint(0.05, fake=1.0, real=-1.0)
SETTINGS = ScanSettings()
STILL = TrackScan(
    0, 2, (0.0, 0.08), Crop(0, 0, 9), (0, 1), (0.0, 0.04), (0.5, 0.5), (0.6, 0.6), 0.5, "real", 0.6, None, None
)


@dataclass(frozen=True)
class Brightness:
    """The brighter, the more fake: a logit of -5 for black, 5 for white."""

    name: str = "brightness"

    def logits(self, frames: Tensor) -> Tensor:
        return frames.float().mean(dim=(1, 2, 3)) / 25.5 - 5

    def score(self, clip: Clip) -> Tensor:
        return self.logits(clip.frames).sigmoid()


@dataclass(frozen=True)
class Broken:
    """Gives what it was made with, or raises."""

    gives: Tensor | None
    name: str = "broken"

    def score(self, clip: Clip) -> Tensor:
        if self.gives is None:
            raise RuntimeError("out of memory")
        return self.gives.expand(len(clip), *self.gives.shape[1:])


@dataclass
class Listens:
    """Keeps which clips it was asked about; a stranger, as it gives probabilities alone."""

    name: str = "listens"
    asked: list[tuple[str, float]] = field(default_factory=list)

    def score(self, clip: Clip) -> Tensor:
        self.asked.append((clip.id, clip.fps))
        return torch.linspace(0.1, 0.9, len(clip))


def scanner(detector: Brightness | Broken | Listens, **changed: object) -> Scanner:
    def p(value: float) -> float:
        return float(torch.tensor(value).sigmoid())

    made = Scanner(detector, DetectorNote(detector.name, "ab"), 128, 1, POINT, p, lambda x: (p(x - 0.5), p(x + 0.5)))
    return replace(made, **changed)  # type: ignore[arg-type]


def shine(portrait: Tensor, frames: int, levels: float) -> Tensor:
    """[T, 3, H, W]: a still, with some noise, that many levels brighter."""
    noise = torch.randint(-3, 4, (frames, 1, *portrait.shape[1:]), generator=torch.Generator().manual_seed(0))
    return (portrait.short() + noise + levels).clamp(0, 255).to(torch.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bright and a dark video, two people side by side, a picture, and files of which nothing can be said."""
    folder = tmp_path_factory.mktemp("scan")
    collins, hopper = portraits()
    write_video(folder / "bright.mp4", shine(collins, 24, 60))
    write_video(folder / "dark.mp4", shine(hopper, 24, -70))
    write_video(folder / "two.mp4", torch.cat([shine(collins, 24, 60), shine(hopper, 24, -70)], 3))
    write_image(folder / "hopper.png", hopper)
    write_video(folder / "short.mp4", shine(collins, 6, 0))
    write_video(folder / "grey.mp4", torch.full((20, 3, 96, 96), 128, dtype=torch.uint8))
    write_image(folder / "grey.jpg", torch.full((3, 96, 96), 128, dtype=torch.uint8))
    (folder / "cut.mp4").write_bytes((folder / "bright.mp4").read_bytes()[:2000])
    (folder / "words.txt").write_text("not to be scanned")
    (folder / ".hidden.mp4").write_text("nor this")
    return folder


def scan(path: Path, using: Scanner | None = None, explain: bool = False) -> FileScan:
    return scan_file(path, using or scanner(Brightness()), SETTINGS, explain=explain)


def test_videos_and_pictures_in_folders_and_by_name(folder: Path, tmp_path: Path) -> None:
    files, passed_over = find_media([folder, folder / "dark.mp4", folder / "words.txt"])
    found = [path.name for path in files]
    videos = ["bright.mp4", "cut.mp4", "dark.mp4", "grey.jpg", "grey.mp4", "hopper.png", "short.mp4", "two.mp4"]
    assert found == [*videos, "words.txt"] and not passed_over
    assert [path.name for path in find_media([folder]).passed_over] == ["words.txt"]
    with pytest.raises(ConfigError, match=r"there is no file or folder 'absent\.mp4'"):
        find_media([Path("absent.mp4")])
    assert [path.name for path in find_media([folder / "d*.mp4"]).files] == ["dark.mp4"]
    with pytest.raises(ConfigError, match="holds no video and no picture; name"):
        find_media([tmp_path])
    (tmp_path / "a.xyz").write_text("")
    with pytest.raises(ConfigError, match="no picture, by the names of its files; name files"):
        find_media([tmp_path])


def test_a_bright_face_is_fake_and_a_dark_one_real(folder: Path) -> None:
    bright, dark = scan(folder / "bright.mp4", explain=True), scan(folder / "dark.mp4")
    for file, verdict in ((bright, "fake"), (dark, "real")):
        assert file.outcome == "scored" and file.reason == ""
        (track,) = file.tracks
        assert (track.first_frame, track.frames, track.verdict) == (0, 24, verdict)
        assert len(track.scored) == len(track.curve) == 24 and None not in track.curve
        assert np.mean(track.logits) == pytest.approx(track.logit, abs=1e-5)  # type: ignore[arg-type]  # no None
        assert track.low is not None and track.high is not None
        assert track.low < track.probability < track.high
        assert track.score_low is not None and track.score_high is not None
        assert track.low <= track.score_low < track.probability < track.score_high <= track.high
        assert track.crop == Crop(0, 0, 256)
    assert bright.tracks[0].shown and all(shown.heat for shown in bright.tracks[0].shown)
    for shown in bright.tracks[0].shown:
        assert shown.without is not None and shown.without_other is not None  # blur takes no brightness
        assert shown.without == pytest.approx(shown.probability, abs=0.1)
    assert not dark.tracks[0].shown
    assert scan(folder / "dark.mp4") == dark


def test_seconds_are_those_of_the_files_clock(folder: Path, tmp_path: Path) -> None:
    """Of a face that comes later, too."""
    frames = torch.cat([torch.full((6, 3, 256, 256), 128, dtype=torch.uint8), shine(portraits()[0], 18, 60)])
    times = [40 * number + (500 if number >= 12 else 0) for number in range(24)]
    write_video(tmp_path / "phone.mkv", frames, codec="ffv1", pixels="bgr0", milliseconds=times)
    file = scan(tmp_path / "phone.mkv", explain=True)
    (track,) = file.tracks
    assert track.scored == tuple(range(6, 24))
    assert track.scored_seconds == pytest.approx([time / 1000 for time in times[6:]])
    assert track.shown and all(shown.seconds == pytest.approx(times[shown.frame] / 1000) for shown in track.shown)
    assert track.seconds == pytest.approx((0.24, file.seconds)) and 1.42 < file.seconds < 1.6
    assert file.fps == pytest.approx(23 / 1.42)  # and not what the file states of its beginning
    row = file_row(file)
    assert row["seconds"] == round(file.seconds, 3) and row["tracks"][0]["curve_seconds"][6] == 0.98
    picture = scan(folder / "hopper.png")
    assert (picture.seconds, picture.tracks[0].seconds) == (0.0, (0.0, 0.0))
    steady = scan(folder / "bright.mp4")
    assert steady.tracks[0].seconds == pytest.approx((0, 0.96)) and steady.seconds == pytest.approx(0.96)


@pytest.mark.slow
def test_of_frames_that_are_judged_together_the_first_that_is_shown_has_a_map(folder: Path) -> None:
    (track,) = scan(folder / "bright.mp4", scanner(Brightness(), window=16), explain=True).tracks
    assert track.shown[0].heat and not any(shown.heat for shown in track.shown[1:])


def test_each_of_two_faces_is_judged_and_the_worse_decides(folder: Path) -> None:
    file = scan(folder / "two.mp4")
    assert [track.verdict for track in file.tracks] == ["fake", "real"]
    assert file.deciding == file.tracks[0] and file.verdict == "fake"
    assert file.tracks[0].crop.x + file.tracks[0].crop.side <= file.tracks[1].crop.x + 20


def test_a_picture_is_one_frame(folder: Path) -> None:
    file = scan(folder / "hopper.png")
    (track,) = file.tracks
    assert (file.fps, file.frames, track.scored) == (0.0, 1, (0,))
    assert track.low is None and track.high is None
    sure = scan(folder / "hopper.png", scanner(Brightness(), deviation=0.001)).tracks[0]
    open_ = scan(folder / "hopper.png", scanner(Brightness(), deviation=4.0)).tracks[0]
    assert (sure.verdict, open_.verdict) == (track.verdict, "inconclusive")
    assert open_.low is not None and sure.low is not None and open_.low < sure.low < track.probability
    long = scan(folder / "hopper.png", scanner(Brightness(), window=8))
    assert (long.outcome, long.tracks) == ("too_short", ())
    assert "judges 8 in a row; name one of single frames" in long.reason


def test_a_probability_holds_its_interval_however_sure_the_detector_is() -> None:
    for value in (-900.0, 0.0, 900.0):
        p = scanner(Brightness()).probability(Interval(value, value - 1, value + 1))
        assert p.low is not None and p.value is not None and p.high is not None
        assert 0 <= p.low <= p.value <= p.high <= 1 and (p.low < p.high)


@pytest.mark.parametrize(
    ("name", "outcome", "reason"),
    [
        ("cut.mp4", "unreadable", "cannot open"),
        ("words.txt", "unreadable", "cannot open"),
        ("absent.mp4", "unreadable", "No such file"),
        ("short.mp4", "too_short", "6 frames, 12 are needed"),
        ("grey.mp4", "no_face", "no face that can be judged in 20 frames"),
        ("grey.jpg", "no_face", "no face that can be judged"),
    ],
)
def test_of_what_nothing_can_be_said_there_is_no_number(folder: Path, name: str, outcome: str, reason: str) -> None:
    file = scan(folder / name)
    assert file.outcome == outcome and reason in file.reason
    row = file_row(file)
    assert [row[key] for key in ("verdict", "probability", "low", "high", "tracks")] == [None, None, None, None, []]


@pytest.mark.parametrize(
    ("gives", "reason"),
    [
        (None, "RuntimeError: out of memory"),
        (torch.tensor([torch.nan]), "gave no score"),
        (torch.tensor([2.0]), "no probabilities"),
        (torch.zeros(1, 4), "gave [24, 4] scores for 24 frames"),
    ],
)
def test_a_detector_that_fails_is_reported_and_no_number_made_of_it(
    folder: Path, gives: Tensor | None, reason: str
) -> None:
    file = scan(folder / "dark.mp4", scanner(Broken(gives)))
    assert (file.outcome, file.tracks) == ("failed", ())
    assert reason in file.reason


def test_a_detector_that_always_says_the_same_is_refused() -> None:
    track = STILL
    files = [FileScan(name, name, "scored", tracks=(track,)) for name in "abc"]
    refused = refuse_constant(files)
    assert {file.outcome for file in refused} == {"failed"} and not refused[0].tracks
    assert refuse_constant(files[:2]) == files[:2]
    unscored = replace(track, logits=(0.5, None))
    assert refuse_constant([*files, replace(files[0], tracks=(unscored,))])[0].outcome == "failed"
    other = replace(track, logits=(0.5, 0.4))
    assert refuse_constant([*files, replace(files[0], tracks=(other,))])[0].outcome == "scored"


def test_of_a_window_one_frame_is_shown() -> None:
    heads = [_Head(float(number // 16), number, number // 16, number / 25, torch.empty(0)) for number in range(64)]
    assert [head.number for head in _pick(heads)] == [48, 32, 16, 0]
    assert [head.number for head in _pick(heads[:16])] == [0]
    alone = [head._replace(run=head.number) for head in heads]
    assert [head.number for head in _pick(alone)] == [48, 61, 32, 0]
    slow = [head._replace(seconds=float(head.number)) for head in alone]
    assert [head.number for head in _pick(slow)] == [48, 49, 50, 0]


def test_an_animated_picture_is_not_judged_by_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.fromarray(picture.permute(1, 2, 0).numpy()) for picture in shine(portraits()[0], 3, 0)]
    for name in ("a.webp", "a.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        file = scan(tmp_path / name)
        assert file.outcome == "unreadable" and "is an animation of 3 frames; export it as a video" in file.reason


def test_frames_are_chosen_over_the_whole_track() -> None:
    track = Track(10, np.zeros((270, 68, 2), np.float32))
    steady = np.arange(281) / 25
    none = np.zeros(280, np.bool_)
    few = choose_frames(track, steady, none, SETTINGS, 1, 18.0)
    assert (len(few), few[0], few[-1]) == (54, 12, 277)
    assert choose_frames(track, np.arange(281) / 5, none, SETTINGS, 1, 18.0) == list(range(10, 280))
    pause = steady + 9000.0 * (np.arange(281) > 100)  # the clock jumps: the frame stands for a second
    assert len(choose_frames(track, pause, none, SETTINGS, 1, 18.0)) == 59
    runs = choose_frames(track, steady, none, SETTINGS, 8, 18.0)
    assert len(runs) == len(set(runs)) == 64
    assert [b - a for a, b in pairwise(runs)].count(1) == 8 * 7
    short = Track(0, np.zeros((9, 68, 2), np.float32))
    assert choose_frames(short, steady, none, SETTINGS, 8, 18.0) == list(range(8))


def test_a_run_passes_over_repeated_frames() -> None:
    track, steady, repeats = Track(10, np.zeros((60, 68, 2), np.float32)), np.arange(281) / 50, np.zeros(280, np.bool_)
    repeats[1::2] = True
    slow = choose_frames(track, np.arange(281) / 25, repeats, SETTINGS, 8, 18.0)  # 12.5 a second would be left
    assert slow == choose_frames(track, np.arange(281) / 25, np.zeros(280, np.bool_), SETTINGS, 8, 18.0)
    runs = choose_frames(track, steady, repeats, SETTINGS, 8, 18.0)
    assert set(runs) <= set(range(10, 70, 2)) and {b - a for a, b in pairwise(runs[:8])} == {2}
    alone = choose_frames(track, steady, repeats, SETTINGS, 1, 18.0)
    assert alone == choose_frames(track, steady, ~repeats, SETTINGS, 1, 18.0)
    few = Track(10, np.zeros((14, 68, 2), np.float32))
    assert choose_frames(few, steady, repeats, SETTINGS, 8, 18.0) == list(range(13, 21))  # seven are left


def test_what_was_doubled_is_judged_as_it_was_before(tmp_path: Path) -> None:
    listens, again = Listens(), Listens()
    frames = shine(portraits()[0], 20, 0)
    frames = torch.stack([frame.roll(2 * number, -1) for number, frame in enumerate(frames)])
    write_video(tmp_path / "once.mkv", frames, codec="ffv1", pixels="bgr0")
    write_video(tmp_path / "doubled.mkv", frames.repeat_interleave(2, 0), fps=50.0, codec="ffv1", pixels="bgr0")
    once = scan(tmp_path / "once.mkv", scanner(listens, window=16)).tracks[0]
    doubled = scan(tmp_path / "doubled.mkv", scanner(again, window=16)).tracks[0]
    assert (once.frames, doubled.frames) == (20, 40)
    assert doubled.scored == tuple(2 * number for number in once.scored)
    assert (once.repeated, doubled.repeated) == (0, 20) and doubled.logits == once.logits
    assert [fps for _, fps in again.asked] == pytest.approx([fps for _, fps in listens.asked])


def test_a_face_that_is_there_between_cuts_is_no_absent_one(tmp_path: Path) -> None:
    shots = [shine(portraits()[0], 6, level) for level in (0, 60, 0, 60)]
    write_video(tmp_path / "a.mkv", torch.cat(shots), codec="ffv1", pixels="bgr0")
    file = scan(tmp_path / "a.mkv")
    assert file.outcome == "too_short"
    assert file.reason == "no face could be followed for more than 6 frames between cuts, 12 are needed"


@pytest.mark.parametrize(
    ("repeats", "fps", "window", "verdict"),
    [(1, 25.0, 16, "fake"), (1, 12.0, 16, "inconclusive"), (2, 25.0, 16, "inconclusive"), (1, 12.0, 1, "fake")],
)
def test_there_is_no_verdict_by_the_motion_of_few_new_frames_a_second(
    tmp_path: Path, repeats: int, fps: float, window: int, verdict: str
) -> None:
    frames = shine(portraits()[0], 20, 0)
    frames = torch.stack([frame.roll(2 * number, -1) for number, frame in enumerate(frames)])
    write_video(tmp_path / "a.mkv", frames.repeat_interleave(repeats, 0), fps=fps, codec="ffv1", pixels="bgr0")
    low = OperatingPoint(0.05, fake=-9.0, real=-9.0)
    file = scan(tmp_path / "a.mkv", scanner(Listens(), window=window, point=low))
    track = file.tracks[0]
    assert (file.verdict, track.verdict, track.slow) == (verdict, verdict, verdict == "inconclusive")
    assert track.new_fps == pytest.approx(fps / repeats, rel=1e-3)
    slower = scanner(
        Listens(), window=window, point=low, note=DetectorNote("listens", "ab", window=window, slowest=9.0)
    )
    judged = scan(tmp_path / "a.mkv", slower).tracks[0]
    assert judged.verdict == "fake" and not judged.slow
    assert judged.repeated == 20 * (repeats - 1)
    assert [b - a for a, b in pairwise(judged.scored)][:15] == [repeats if window > 1 else 1] * 15
    high = scanner(Listens(), window=window, point=OperatingPoint(0.05, fake=9.0, real=9.0))
    assert scan(tmp_path / "a.mkv", high).verdict == verdict.replace("fake", "real")


def test_where_verdicts_begin() -> None:
    def verdict(value: float, low: float, high: float, point: OperatingPoint = POINT) -> str:
        return decide(Interval(value, low, high), point)

    assert verdict(2, 1, 3) == "fake"
    assert verdict(2, 0.9, 3) == verdict(0, -0.5, 0.5) == verdict(-2, -3, -1) == "inconclusive"
    assert verdict(-2, -3, -1.1) == "real"
    apart = OperatingPoint(0.05, fake=-1.0, real=1.0)  # no real video scored above -1, and no fake below 1
    assert [verdict(v, v, v, apart) for v in (-2, 0, 2)] == ["real", "inconclusive", "fake"]
    assert judge(np.full(20, 9, np.float32), np.arange(20) / 25, None)[0] == "inconclusive"


def test_a_film_of_many_faces_is_not_fake_by_chance() -> None:
    track = STILL
    fake = replace(track, verdict="fake", logit=2.0)
    assert false_alarm(5, 1, 0.05) == pytest.approx(0.2262, abs=1e-4)
    assert judge_file([track] * 4 + [fake], POINT) == "fake"
    assert judge_file([track] * 99 + [fake], POINT) == "inconclusive"
    assert judge_file([track] * 80 + [fake] * 20, POINT) == "fake"
    assert judge_file([track] * 100, POINT) == "real"
    slow = replace(track, verdict="inconclusive", slow=True)
    assert judge_file([slow] * 99 + [fake], POINT) == "fake"  # which cannot be a false alarm
    assert judge_file([track, replace(track, verdict="inconclusive")], POINT) == "inconclusive"


def test_the_interval_of_frames_that_vary_slowly_is_wide() -> None:
    seconds = np.arange(250) / 25
    random = np.random.default_rng(0)
    quick = random.normal(size=250).astype(np.float32)
    slow = np.repeat(random.normal(size=10), 25).astype(np.float32)
    widths = []
    for logits in (quick, slow):
        _, interval = judge(logits, seconds, POINT)
        assert interval.low is not None and interval.high is not None
        assert interval.low < logits.mean() < interval.high
        widths.append(interval.high - interval.low)
    assert widths[1] > 3 * widths[0]


@pytest.mark.parametrize("windows", [1, 2, 4, 8, 30])
def test_the_interval_of_windows_holds_what_it_says(windows: int) -> None:
    """The sixteen frames of a window are one observation: counted singly, every second interval missed."""
    random = np.random.default_rng(windows)
    held = []
    for _ in range(400):
        logits = random.normal(2.0, 1.6, windows).astype(np.float32)
        _, interval = judge(logits, np.linspace(0, 60, windows), POINT, 1.6, of_windows=True)
        assert interval.low is not None and interval.high is not None
        held.append(interval.low < 2.0 < interval.high)
    assert 0.92 <= np.mean(held) <= 0.995


def test_a_map_shows_what_the_score_came_from() -> None:
    heads = torch.full((2, 3, 64, 64), 40, dtype=torch.uint8)
    heads[0, :, 8:20, 8:20] = 255  # a bright spot, which blurring dims
    near = torch.zeros(64, 64)
    near[8:20, 8:20] = 1

    def score(frames: Tensor) -> Tensor:
        return (frames.float().amax(1) * near).sum((1, 2)) / near.sum()

    maps = heat_map(score, heads)
    assert np.unravel_index(maps[0].argmax(), (64, 64)) == pytest.approx((14, 14), abs=8)
    assert np.abs(maps[1]).max() == 0
    falls = check_maps(score, heads, maps)
    assert falls.reddest[0] > 10 and falls.elsewhere[0].abs() < falls.reddest[0] / 3
    assert falls.reddest[1] == 0
    shown = lay_over(heads[0].permute(1, 2, 0).numpy(), maps[0])
    assert shown[14, 14, 0] > shown[14, 14, 2]


# The command.


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that has learnt nothing, and is sure of itself."""
    path = tmp_path_factory.mktemp("detector") / "some.safetensors"
    torch.manual_seed(0)
    network = EfficientNetLite0(32).eval()
    points = [OperatingPoint(rate, -0.5, -0.7) for rate in (0.01, 0.05)] + [OperatingPoint(0.1, -0.6, -0.65)]
    metadata = {
        "generators": json.dumps(["warp", "fewshot"]),
        "identities": "[]",
        "size": "128",
        "validation": json.dumps({"reals": 25, "fakes": 75}),
    }
    draws = np.array([[2.0, 0.9], [2.0, 1.1]])
    save_detector(path, "efflite0", {"size": 32}, network, Calibration(2.0, 1.0, draws), points, metadata)
    return path


def test_the_command_lists_every_file(folder: Path, detector: Path) -> None:
    ran = CliRunner().invoke(command, [str(folder), "--detector", str(detector), "--json"])
    rows = json.loads(ran.stdout)
    assert rows[0]["detector_sha256"] == sha256_of(detector) and rows[0]["real_below"] <= rows[0]["fake_from"]
    assert [Path(row["path"]).name for row in rows] == [path.name for path in find_media([folder]).files]
    files = [FileScan(row["path"], "", row["outcome"]) for row in rows]
    assert count_outcomes(files) == {"scored": 4, "unreadable": 1, "no_face": 2, "too_short": 1, "failed": 0}
    for row in rows:
        assert (row["outcome"] == "scored") == (row["verdict"] is not None) == bool(row["tracks"])
        for track in row["tracks"]:
            assert len(track["curve"]) >= 1 and track["failed"] == 0
    verdicts = {row["verdict"] for row in rows}
    assert ran.exit_code == (3 if "fake" in verdicts else 4)
    assert "words.txt' was passed over, called neither as a video nor as a picture (.txt)" in ran.stderr


def test_the_command_writes_a_case_report(folder: Path, detector: Path, tmp_path: Path) -> None:
    report = tmp_path / "new" / "case.html"
    files = [str(folder / "hopper.png"), str(folder / "cut.mp4")]
    ran = CliRunner().invoke(command, [*files, "--detector", str(detector), "--json", "--report", str(report)])
    page = report.read_text()
    assert page.count("data:image/jpeg") == 2 and "<script" not in page and not re.search(r'(src|href)="http', page)
    for row in json.loads(ran.stdout):
        assert row["sha256"] in page and Path(row["path"]).name in page
    for words in ("25 real videos", "75 fakes", "warp and fewshot", "at most 5 %", "What this cannot tell"):
        assert words in page


def test_the_table_and_the_exit_codes(folder: Path, detector: Path, tmp_path: Path) -> None:
    def run(path: Path, *more: str) -> tuple[int, str]:
        ran = CliRunner().invoke(command, [str(path), "--detector", str(detector), *more])
        return ran.exit_code, ran.stdout

    code, shown = run(folder / "cut.mp4")
    assert code == 4 and "1 file: 1 unreadable." in shown
    assert "Verdicts of efflite0 at a false positive rate of 5 %: none." in shown
    assert "at a false positive rate of 10 %" in run(folder / "cut.mp4", "--fpr", "0.1")[1]
    codes = {"fake": 3, "inconclusive": 4, "real": 0}
    code, shown = run(folder / "dark.mp4")
    assert code == codes[next(verdict for verdict in codes if f": 1 {verdict}." in shown)]
    with pytest.raises(ConfigError, match=r"was not enough for --fpr 0\.001; there are: 0\.01, 0\.05, 0\.1"):
        open_scanner(detector, torch.device("cpu"), 0.001)


SCAN = "from thead_eval.cli import theval; theval()"


@pytest.mark.slow
def test_a_scan_that_was_killed_goes_on(folder: Path, detector: Path, tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    for name in ("a", "b", "c", "d"):
        shutil.copy(folder / ("dark.mp4" if name < "c" else "bright.mp4"), clips / f"{name}.mp4")
    out = tmp_path / "rows.jsonl"
    told = [str(clips), "--detector", str(detector), "--out", str(out)]
    killed = subprocess.Popen([sys.executable, "-c", SCAN, "detect", "scan", *told], stderr=subprocess.DEVNULL)
    try:
        while killed.poll() is None and not (out.exists() and out.read_bytes().count(b"\n") >= 2):
            time.sleep(0.02)
    finally:
        killed.kill()
        killed.wait()
    before = out.read_text().splitlines()
    assert 2 <= len(before) < 4
    with out.open("a") as file:
        file.write('{"path": "cut')
    write_video(clips / "b.mp4", shine(portraits()[0], 24, 40))  # another since then
    ran = CliRunner().invoke(command, [*told, "--json"])
    rows = json.loads(ran.stdout)
    assert [json.loads(line) for line in out.read_text().splitlines()] == rows
    assert [Path(row["path"]).name for row in rows] == ["a.mp4", "b.mp4", "c.mp4", "d.mp4"]
    assert rows[0] == json.loads(before[0]) and rows[1]["sha256"] != json.loads(before[1])["sha256"]
    # Nothing is left to do; and with other settings it is another scan.
    rows[0]["reason"] = "kept"
    out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert json.loads(CliRunner().invoke(command, [*told, "--json"]).stdout) == rows
    for other, words in ((("--fpr", "0.1"), "was made with fpr = 0.05, not 0.1"), (("--min-frames", "9"), "settings")):
        refused = CliRunner().invoke(command, [*told, *other])
        assert isinstance(refused.exception, RunError) and words in str(refused.exception)
    assert isinstance(CliRunner().invoke(command, [*told, "--report", "a.html"]).exception, ConfigError)


def test_rows_of_other_files_stay(
    folder: Path, detector: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "rows.jsonl"
    for name in ("dark.mp4", "grey.jpg"):
        shutil.copy(folder / name, tmp_path)
    for files in (
        ["grey.jpg"],
        ["dark.mp4"],
        ["grey.jpg", str(tmp_path / "dark.mp4")],
    ):  # one of them by its whole path
        ran = CliRunner().invoke(command, [*files, "--detector", str(detector), "--out", str(out)])
        assert ran.exit_code in (0, 3, 4), ran.output
        assert f"{len(files)} file" in ran.stdout
    rows = [json.loads(line)["path"] for line in out.read_text().splitlines()]
    assert rows == ["grey.jpg", str(tmp_path / "dark.mp4"), "dark.mp4"]


def test_a_detector_is_told_how_fast_a_video_runs(folder: Path) -> None:
    listens = Listens()
    assert scan(folder / "dark.mp4", scanner(listens)).outcome == "scored"
    assert set(listens.asked) == {(str(folder / "dark.mp4"), probe_video(folder / "dark.mp4").fps)}


def test_a_report_takes_no_other_files_place(folder: Path, detector: Path, tmp_path: Path) -> None:
    evidence = tmp_path / "a.mp4"
    shutil.copy(folder / "dark.mp4", evidence)
    before = evidence.read_bytes()
    page = tmp_path / "page.html"
    page.write_text("<!doctype html><p>evidence")
    for scanned, report in ((evidence, evidence), (folder / "grey.jpg", evidence), (folder / "grey.jpg", page)):
        ran = CliRunner().invoke(command, [str(scanned), "--detector", str(detector), "--report", str(report)])
        assert isinstance(ran.exception, ConfigError) and "is a file that is there" in str(ran.exception)
    away = folder / "dark.mp4" / "case.html"  # told before anything is scanned
    ran = CliRunner().invoke(command, [str(evidence), "--detector", str(detector), "--report", str(away)])
    assert isinstance(ran.exception, ConfigError) and "cannot be written" in str(ran.exception) and not ran.stdout
    assert evidence.read_bytes() == before and page.read_text() == "<!doctype html><p>evidence"
    (tmp_path / "seen").mkdir()
    shutil.copy(folder / "grey.jpg", tmp_path / "seen")
    for _ in range(2):  # a report takes a report's, and is no file that was passed over
        report = tmp_path / "seen" / "case.html"
        ran = CliRunner().invoke(
            command, [str(tmp_path / "seen"), "--detector", str(detector), "--report", str(report)]
        )
        assert ran.exit_code == 4 and "passed over" not in ran.output, ran.output


def test_what_is_no_scan_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    foreign = (
        b"mine",
        b'{"path": "a"}',
        b'{"path": "a"}\n{"path": "b"}\n',
        b"[1]\n[2]",
        b"\xff\xfe{}\n",
        b"\x00\x00 ftyp",
    )
    for content in foreign:
        path.write_bytes(content)
        with pytest.raises(RunError, match=r"is not a file of 'theval detect scan --out' \(line 1\)"):
            read_rows(path, {"detector": "trio"})
    for earlier in ('"tracks": []', '"seconds": 0.4, "tracks": [{}]'):
        path.write_text(f'{{"path": "a", "outcome": "scored", {earlier}}}\n')
        with pytest.raises(RunError, match=r"by an earlier theval \(line 1\); name another with --out"):
            read_rows(path, {})
    assert read_rows(tmp_path / "new", {}) == {}


def test_a_file_comes_back_from_its_row() -> None:
    track = replace(STILL, first_frame=3, seconds=(0.12, 0.2), logits=(0.5, None), curve=(0.6, None), high=0.7)
    track = replace(track, repeated=3, new_fps=12.5, slow=True)
    file = FileScan("a", "b", "scored", "", 4, 5, 25.0, 9, 0.36, "real", (track,), (Mark("xmp", "c", True),))
    assert file_of(file_row(file)) == file and file_row(file)["tracks"][0]["failed"] == 1


def test_counts_add_up() -> None:
    files = [FileScan("a", "", "no_face"), FileScan("b", "", "failed")]
    assert sum(count_outcomes(files).values()) == 2
    assert sum(count_verdicts(files).values()) == 0
