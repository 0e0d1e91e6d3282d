"""Which of three frames is fake: by arithmetic, and through theval score."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from detectors.calibration import Calibration
from detectors.checkpoint import save_detector
from detectors.efflite0 import EfficientNetLite0
from reports.page import write_report
from tests.test_detect_eval import Breaks, Sharpness
from thead_eval.cli import theval
from thead_eval.errors import CheckpointError
from thead_eval.judging import Pair, PairSet, RealClip
from thead_eval.media import write_clip
from thead_eval.results import read_measurements, read_run
from thead_eval.spotting import found_among, spot
from thead_eval.synthetic import head_clip
from thead_eval.types import Clip

SEEN = {"generators": "[]", "identities": "[]"}  # nothing


def quiet(what: str, done: int, total: int) -> None:
    """No progress."""


def test_all_triplets_are_counted() -> None:
    random = np.random.default_rng(0)
    fake, real = random.integers(0, 5, 40).astype(float), random.integers(0, 5, 9).astype(float)
    shares = found_among(fake, real)
    for score, share in zip(fake, shares, strict=True):
        expected = []
        for pair in combinations(real, 2):
            best = [score, *pair]
            expected.append((score == max(best)) / best.count(max(best)))
        assert share == pytest.approx(np.mean(expected))


def test_a_guess_is_a_third_and_a_fake_without_a_score_is_none() -> None:
    assert found_among(np.ones(3), np.ones(7)) == pytest.approx([1 / 3] * 3)
    assert found_among(np.array([2.0, 0.0, np.nan]), np.array([1.0, 1.0, np.nan])) == pytest.approx(
        [1, 0, np.nan], nan_ok=True
    )
    assert np.isnan(found_among(np.ones(2), np.array([1.0, np.nan]))).all()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """real/ and fake/: four heads, and the same blurred."""
    folder = tmp_path_factory.mktemp("spotted")
    for name in ("real", "fake"):
        (folder / name).mkdir()
    for number in range(4):
        clip, _ = head_clip(number, 12, 64)
        write_clip(folder / "real" / f"{number}.mkv", clip, lossless=True)
        small = torch.nn.functional.avg_pool2d(clip.frames.float(), 4).to(torch.uint8)
        blurred = small.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
        write_clip(folder / "fake" / f"{number}.mkv", Clip(clip.id, blurred, clip.fps), lossless=True)
    return folder


def pairs_of(folder: Path) -> PairSet:
    pairs = []
    for number in range(4):
        real = RealClip("real", str(number), f"p{number}", folder / "real" / f"{number}.mkv")
        fake = folder / "fake" / f"{number}.mkv"
        pairs.append(Pair("g-1", {"generator": "g", "shots": "1"}, str(number), f"p{number}", fake, real))
    return PairSet(pairs, [], [], [], {})


def test_what_is_plain_to_see_is_always_found(folders: Path) -> None:
    (row,), failures = spot(Sharpness(), pairs_of(folders), 0, quiet)
    assert not failures
    assert (row.metric, row.value, row.labels) == ("spot_rate", 1, {"generator": "g", "shots": "1"})
    assert (row.n_frames, row.n_identities, row.n_failed) == (48, 4, 0)
    assert row.higher_is_better is False and "by 'sharpness'" in row.note


class Met(Sharpness):
    """Has learnt from some people."""

    def __init__(self, *people: str) -> None:
        super().__init__()
        self.people = people

    def knows(self, identity: str) -> bool:
        return identity in self.people


def test_people_from_whom_it_has_learnt_are_left_out(folders: Path) -> None:
    (row,), failures = spot(Met("p0", "p3"), pairs_of(folders), 0, quiet)
    assert not failures and (row.n_identities, row.n_frames, row.n_failed) == (2, 24, 0)
    assert row.per_identity.keys() == {"p1", "p2"} and "2 people from whom it has learnt are left out" in row.note
    (row,), _ = spot(Met("p0", "p1", "p2", "p3"), pairs_of(folders), 0, quiet)
    assert row.value is None and row.n_identities == 0 and "4 people" in row.note


def test_a_detector_that_fails_finds_nothing(folders: Path) -> None:
    (row,), failures = spot(Breaks(), pairs_of(folders), 0, quiet)
    assert row.value is None and "scored no frame" in row.note and row.n_failed == 4
    assert len(failures) == 4 and "RuntimeError: out of luck" in failures[0].reason


def test_theval_score_asks_a_detector(folders: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = EfficientNetLite0(32).eval()
    torch.nn.init.normal_(network.head.weight)
    path = tmp_path / "mine.safetensors"
    save_detector(path, "efflite0", {"size": 32}, network, Calibration(1.0, 0.0, np.zeros((1, 2))), [], SEEN)
    run = tmp_path / "run"
    told = ["score", "--workers", "1", "--metrics", "l1", "--out", str(run)]
    clips = ["--fakes", str(folders / "fake"), "--reals", str(folders / "real")]
    ran = CliRunner().invoke(theval, [*told, *clips, "--detector", str(path)])
    assert ran.exit_code == 0, ran.output
    rows = {m.metric: m for m in read_measurements(run)}
    assert rows.keys() == {"l1", "spot_rate"}
    assert rows["spot_rate"].value is not None and rows["spot_rate"].low is not None
    assert "detector efflite0" in read_run(run).weights
    # Judged again, the run knows whom it asked.
    again = CliRunner().invoke(theval, told)
    assert again.exit_code == 0, again.output
    assert {m.metric: m for m in read_measurements(run)} == rows
    page = write_report([run], tmp_path / "report.html").html.read_text()
    assert "To a detector" in page and "ties shared" in page


def test_a_folder_does_not_stand_in_for_a_carried_detector(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("grain").mkdir()  # as 'theval detect train -o grain' leaves it
    clips = ["--fakes", str(folders / "fake"), "--reals", str(folders / "real")]
    told = ["score", "--workers", "1", "--metrics", "l1", "--out", "run", *clips]
    ran = CliRunner().invoke(theval, [*told, "--detector", "./grain"])
    assert isinstance(ran.exception, CheckpointError) and "grain' holds no best.safetensors" in str(ran.exception)
    ran = CliRunner().invoke(theval, [*told, "--detector", "grain"])
    assert ran.exit_code == 0, ran.output
    assert read_run(Path("run")).config["detector"] == "grain"
