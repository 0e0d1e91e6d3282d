"""The case report: what it must say, and what a stranger's file name must not do."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from reports.case import clock, probability, render, write_case
from thead_eval.errors import RunError
from thead_eval.marks import Mark
from thead_eval.tracking import Crop
from thead_eval.verdicts import CaseRecord, DetectorNote, FileScan, OperatingPoint, Shown, TrackScan

SHOWN = Shown(3, 0.12, 0.97, b"jpeg", b"heat")
FAKE = TrackScan(
    0,
    50,
    (0.0, 2.0),
    Crop(4, 5, 90),
    (3, 9, 15),
    (0.12, 0.36, 0.6),
    (3.0, None, 2.0),
    (0.97, None, 0.9),
    2.5,
    "fake",
    0.95,
    0.9,
    0.98,
    (SHOWN,),
)
REAL = replace(FAKE, verdict="real", probability=0.02, low=0.01, high=0.05, logit=-3.0, shown=())
VIDEO = FileScan("a/<b>one</b>.mp4", "ab" * 32, "scored", "", 640, 360, 25.0, 50, 2.0, "fake", (FAKE, REAL))


def record(*files: FileScan, point: OperatingPoint | None = OperatingPoint(0.05, 1.0, -1.0)) -> CaseRecord:  # noqa: B008  # frozen
    return CaseRecord(
        files=files,
        passed_over=(),
        detector=DetectorNote("efflite0", "cd" * 32, ("fewshot", "warp"), 25, 75),
        point=point,
        fake_from=0.7 if point else None,
        real_below=0.3 if point else None,
        settings={"per_second": 5.0},
        command="theval detect scan 'a/<b>one</b>.mp4'",
        started="2026-11-22T10:00:00Z",
        seconds=3.21,
        packages={"theval": "0.1.0"},
        python="3.11.7",
        commit=None,
        dirty=None,
        device="cpu",
    )


def test_one_video() -> None:
    page = render(record(replace(VIDEO, marks=(Mark("xmp", "Digital source type: digitalCapture", False),))))
    for words in (
        "0.950", "0.900 to 0.980", "Face 1 is the most suspicious of 2 tracks", "up to 9.8 % of cases",
        "0.1\u202fs, frame 3", "ab" * 32, "cd" * 32, "at most 5 %", "25 real videos", "fewshot and warp",
        "mean logit of 1.000", "\u22121.000", "digitalCapture", "640 \u00d7 360 pixels", "not recorded",
        "took 3.2 s on cpu", "frames scored a second",
    ):  # fmt: skip
        assert words in page, words
    assert "<b>one" not in page and "&lt;b&gt;one" in page
    assert render(record(VIDEO)) == render(record(VIDEO))


def test_every_outcome_and_no_number_where_there_is_none() -> None:
    files = [VIDEO, *(FileScan(f"{name}.mp4", "", name, f"why {name}") for name in ("unreadable", "no_face", "failed"))]
    page = render(record(*files))
    assert "Of 4 files, 1 judged, 1 unreadable, 1 no face, 1 the detector failed." in page
    assert page.count("Not judged") == 3 and "why no_face" in page
    assert "passed over" not in page
    beside = replace(record(*files), passed_over=tuple(f"a/{n}.part" for n in range(12)))
    assert "12 files in the folders were passed over" in render(beside)
    assert "a/9.part and 2 others" in render(beside) and "a/10.part" not in render(beside)
    windows = replace(record(*files), detector=replace(record().detector, window=16))
    assert "frames in a row that one score is made of</dt><dd>16" in render(windows)
    assert "1 fake, 0 inconclusive, 0 real" in page


def test_what_shows_few_frames_a_second_is_named_where_motion_is_judged() -> None:
    track = replace(FAKE, verdict="inconclusive", new_fps=12.5, slow=True)
    page = render(record(VIDEO, replace(VIDEO, path="web/cam.mp4", verdict="inconclusive", tracks=(track,))))
    assert "fewer than 18 new" in page and "inconclusive whatever their probability, in cam.mp4" in page
    assert "Of so few new frames a second neither is said." in page
    beside = render(record(replace(VIDEO, tracks=(FAKE, track))))
    assert '<span class="interval">12.5 new frames a second</span>' in beside and "in up to 5 % of cases" in beside
    assert "of cases" not in render(record(replace(VIDEO, tracks=(track, track))))
    assert "too few for a verdict" not in beside  # the one that decides is not slow
    assert "new frames" not in render(record(replace(VIDEO, tracks=(FAKE, track)), point=None))
    learnt_slower = replace(record().detector, slowest=10.8)
    slow = replace(VIDEO, tracks=(track,))
    assert "fewer than 10.8 new" in render(replace(record(slow), detector=learnt_slower))
    assert page.count("It is shown in 12.5 new frames a second, too few for a verdict.") == 1
    assert "new ones are shown" not in render(record(VIDEO)) and "too few" not in render(record(VIDEO))
    doubled = replace(VIDEO, tracks=(replace(FAKE, repeated=12),))
    assert "are not neighbours everywhere in b&gt;.mp4" in render(record(doubled))
    assert "show once more" not in render(record(VIDEO))


def test_the_curve_is_drawn_over_the_files_seconds() -> None:
    late = replace(FAKE, scored_seconds=(0.12, 0.36, 3.2), curve=(0.9, 0.9, 0.9), shown=(replace(SHOWN, seconds=2.0),))
    page = render(record(replace(VIDEO, seconds=4.0, tracks=(late,))))
    across = 1000 - 34 - 8  # pixels of the plot, beside what stands at its edges
    for kind, seconds in (("L", 3.2), ("M", 2.0)):
        assert re.search(rf'd="[^"]*{kind}{34 + seconds / 4 * across:.1f} ', page)
    assert "a second in the mean (4.0\u202fs)" in page


def test_a_detector_without_an_operating_point_and_a_picture() -> None:
    track = replace(FAKE, verdict="inconclusive", frames=1, low=None, high=None, scored=(0,), logits=(2.5,))
    track = replace(track, scored_seconds=(0.0,), curve=(0.95,), shown=(replace(SHOWN, heat=b""),))
    page = render(record(replace(VIDEO, fps=0.0, frames=1, verdict="inconclusive", tracks=(track,)), point=None))
    assert "states no operating point" in page and "no interval from so few frames" in page
    assert "Over time" not in page and ", frame 3" not in page and 'class="alone"' in page


def test_what_is_said_of_maps_and_neighbours_fits_the_detector() -> None:
    alone = record(VIDEO)
    together = replace(alone, detector=replace(alone.detector, window=16))
    bare = record(replace(VIDEO, tracks=(replace(FAKE, shown=(replace(SHOWN, heat=b""),)),)))
    assert "each by its pixels: not the sound" in render(alone) and "Beside a frame its map" in render(alone)
    page = render(together)
    assert "by its pixels and how they change over 16 frames" in page and "Beside the first its map" in page
    assert "its map" not in render(bare) and "A map shows" not in render(bare)


def test_beside_a_map_stands_whether_it_is_right() -> None:
    checked = replace(FAKE, shown=(replace(SHOWN, without=0.31, without_other=0.96),))
    page = render(record(replace(VIDEO, tracks=(checked,))))
    assert "p 0.310 with the reddest tenth blurred, 0.960 with as much elsewhere" in page
    assert "reddest tenth blurred" not in render(record(VIDEO))


def test_on_whom_verdicts_were_set_is_told() -> None:
    assert "set on people from whom the detector did not learn: of the 25 real" in render(record(VIDEO))
    folded = replace(record(VIDEO), detector=replace(record().detector, folded=True, blends=True))
    page = render(folded)
    assert "its own learnt from all: of the 25" in page and "75 fakes, real ones blended" in page


def test_which_interval_decides_is_told() -> None:
    track = replace(FAKE, score_low=0.912, score_high=0.934)
    page = render(record(replace(VIDEO, tracks=(track,))))
    assert "0.912 to 0.934" in page and "0.900 to 0.980" in page


def test_a_film_of_many_faces() -> None:
    page = render(record(replace(VIDEO, verdict="inconclusive", tracks=(FAKE, *[REAL] * 59))))
    assert "1 track called fake is no more than chance gives" in page
    assert "20 tracks more in the output of" in page


def test_numbers_as_words(tmp_path: Path) -> None:
    assert [probability(value) for value in (None, 0.0, 0.12345, 1.0)] == ["—", "<\u202f0.001", "0.123", ">\u202f0.999"]
    assert [clock(value) for value in (3.21, 63.21, 3600)] == ["3.2\u202fs", "1:03.2", "60:00.0"]
    write_case(record(replace(VIDEO, path="a/\udcff.mp4")), tmp_path / "case.html")  # no character in any encoding
    assert "\\udcff.mp4" in (tmp_path / "case.html").read_text() and len(list(tmp_path.iterdir())) == 1
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="name another file with --report"):
        write_case(record(VIDEO), tmp_path / "file" / "case.html")
