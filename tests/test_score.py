"""theval score, from a dataset or from clips of others to a run folder: the numbers, and what can go wrong."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner, Result

from tests.test_fewshot import write_checkpoint
from thead_eval.cli import theval
from thead_eval.errors import ConfigError, PluginError, RunError
from thead_eval.media import read_clip, read_metadata, write_clip
from thead_eval.results import read_measurements, read_run
from thead_eval.synthetic import head_clip
from thead_eval.testing import make_dataset
from thead_eval.types import Clip
from thead_eval.weights import sha256_of

Row = dict[str, Any]  # of measurements.json


def score(*arguments: str | Path) -> Result:
    """Run `theval score` in this process; an error of the user's is raised."""
    return CliRunner().invoke(
        theval, ["score", "--workers", "1", *map(str, arguments)], catch_exceptions=False, standalone_mode=False
    )


def theval_score(*arguments: str | Path) -> list[str]:
    """The same as a process of its own."""
    return [sys.executable, "-c", "from thead_eval.cli import main; main()", "score", *map(str, arguments)]


def rows_of(run: Path) -> dict[tuple[str, str, str], Row]:
    content = json.loads((run / "measurements.json").read_text())
    assert content["schema"] == 1
    return {
        (row["metric"], row["labels"]["generator"], row["labels"].get("shots", "")): row
        for row in content["measurements"]
        if "pair" not in row["labels"]
    }


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("score") / "heads"
    make_dataset(path, identities=2, frames=60, size=96)
    return path


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both controls at 1 and 8 shots."""
    out = tmp_path_factory.mktemp("run") / "controls"
    metrics = "ssim,psnr,ms_ssim,fd_efflite0,nme_dlib68,jitter_dlib68,missing_face_dlib68,lpips_alex"
    result = score("--data", data, "--shots", "1,8", "--metrics", metrics, "--out", out)
    assert result.exit_code == 0
    assert "nme_dlib68" in result.stdout and "1-shot" in result.stdout
    return out


def test_every_number_has_its_interval_and_counts(run: Path) -> None:
    row = rows_of(run)["ssim", "warp", "8"]
    assert row["low"] < row["value"] < row["high"]
    assert (row["n_frames"], row["n_identities"], row["n_failed"]) == (64, 2, 0)
    assert 1 <= row["n_effective"] <= 64
    assert row["value"] == pytest.approx(np.mean(list(row["per_identity"].values())))
    assert len(read_measurements(run)) == 8 * 4
    record = read_run(run)
    assert record.status == "complete"
    assert record.weights["dlib_68"].startswith("fbdc2cb80eb9")
    assert record.config["sizes"] == {"copy": "96x96", "warp": "96x96"}
    assert record.packages["torch"] == torch.__version__.split("+")[0] or "+" in torch.__version__


def test_the_controls_are_what_they_are(run: Path) -> None:
    """copy shows real frames in the wrong pose, warp bends them into the right one, and more frames help copy."""
    rows = rows_of(run)
    assert rows["nme_dlib68", "warp", "1"]["value"] < rows["nme_dlib68", "copy", "1"]["value"]
    assert rows["nme_dlib68", "copy", "8"]["value"] < rows["nme_dlib68", "copy", "1"]["value"]
    assert rows["ssim", "copy", "8"]["value"] > rows["ssim", "copy", "1"]["value"]


def test_set_metrics_say_what_they_are_worth(tmp_path: Path) -> None:
    for identity in range(4):  # fewer have no halves to tell the noise by
        clip, _ = head_clip(identity, 4, 64)
        for folder, frames in (("reals", clip.frames), ("fakes", clip.frames // 2)):
            (tmp_path / folder).mkdir(exist_ok=True)
            write_clip(tmp_path / folder / f"{identity}.mkv", Clip(clip.id, frames, 25.0), lossless=True)
    folders = ("--fakes", tmp_path / "fakes", "--reals", tmp_path / "reals")
    score(*folders, "--metrics", "fd_efflite0", "--out", tmp_path / "run")
    row = rows_of(tmp_path / "run")["fd_efflite0", "fakes", ""]
    assert row["value"] > 0
    assert row["noise_floor"] > 0
    assert "small sample" in row["note"]


def test_ends_without_a_value_by_definition_are_no_failures(run: Path) -> None:
    row = rows_of(run)["jitter_dlib68", "copy", "8"]
    assert row["n_frames"] + row["n_failed"] == 2 * 30


def test_what_cannot_be_computed_says_why_and_what_cures_it(run: Path) -> None:
    rows = rows_of(run)
    assert rows["lpips_alex", "copy", "1"]["value"] is None
    assert "theval weights fetch alexnet" in rows["lpips_alex", "copy", "1"]["note"]
    assert rows["ms_ssim", "copy", "1"]["value"] is None
    assert "at least 176 px" in rows["ms_ssim", "copy", "1"]["note"]
    assert rows["ms_ssim", "copy", "1"]["n_failed"] == 64


def test_frames_parquet_holds_every_judged_frame(run: Path) -> None:
    frames = pd.read_parquet(run / "frames.parquet")
    assert len(frames) == 2 * 2 * 2 * 32
    own = frames[(frames["generator"] == "warp") & (frames["shots"] == 8)]
    assert own.groupby("identity")["ssim"].mean().mean() == pytest.approx(rows_of(run)["ssim", "warp", "8"]["value"])


def test_fakes_are_marked_as_synthetic(run: Path) -> None:
    tags = read_metadata(run / "clips" / "warp" / "8" / "head0000.mkv")
    assert "Synthetic media made by theval generator warp" in str(tags)
    assert "Synthetic" not in str(read_metadata(run / "clips" / "real" / "head0000.mkv"))


@pytest.mark.slow
def test_the_same_command_gives_the_same_numbers(run: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "again"
    chosen = ("--data", data, "--generator", "copy", "--shots", "1,8", "--metrics", "ssim,fd_efflite0")
    score(*chosen, "--out", out, "--workers", "2")
    first, again = rows_of(run), rows_of(out)
    assert len(again) == 4
    for key, row in again.items():
        assert row["value"] == pytest.approx(first[key]["value"], rel=1e-5), key
        assert row["low"] == pytest.approx(first[key]["low"], rel=1e-4), key


@pytest.mark.slow
def test_a_run_is_judged_again_without_its_dataset(data: Path, tmp_path: Path) -> None:
    moved, out = tmp_path / "moved", tmp_path / "run"
    make_dataset(moved, identities=2, frames=60, size=64)
    score("--data", moved, "--shots", "1", "--generator", "copy", "--metrics", "l1", "--out", out)
    written = {path: path.stat().st_mtime_ns for path in (out / "clips").rglob("*.mkv")}
    frames = pd.read_parquet(out / "frames.parquet")
    l1 = rows_of(out)["l1", "copy", "1"]
    for path in moved.rglob("*.*"):
        path.unlink()
    score("--out", out, "--metrics", "psnr,fd_efflite0")
    again = pd.read_parquet(out / "frames.parquet")
    pd.testing.assert_frame_equal(frames, again[frames.columns])
    assert rows_of(out)["l1", "copy", "1"] == l1
    assert rows_of(out)["psnr", "copy", "1"]["value"] > 0
    assert {path: path.stat().st_mtime_ns for path in (out / "clips").rglob("*.mkv")} == written


def test_a_generator_joins_those_that_a_run_has(data: Path, tmp_path: Path) -> None:
    fixed = ("--data", data, "--identities", "1", "--shots", "1", "--metrics", "l1", "--out", tmp_path / "run")
    score(*fixed, "--generator", "copy")
    score(*fixed, "--generator", "warp")
    assert {generator for _, generator, _ in rows_of(tmp_path / "run")} == {"copy", "warp"}


def test_a_run_is_continued_only_with_its_own_settings(run: Path, data: Path) -> None:
    with pytest.raises(RunError, match=r"was made with shots = \[1, 8\], not \[1\]; name another folder with --out"):
        score("--data", data, "--shots", "1", "--metrics", "l1", "--out", run)


def test_fakes_are_reported_with_the_checkpoint_that_made_them(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = (write_checkpoint(tmp_path / f"{seed}.safetensors", seed=seed) for seed in (0, 1))
    fixed = ("--data", data, "--identities", "1", "--shots", "1", "--metrics", "l1")
    for name, checkpoint in (("run", one), ("second", other)):
        monkeypatch.setenv("THEVAL_CHECKPOINT", str(checkpoint))
        score(*fixed, "--generator", "copy", "--generator", "fewshot_ff", "--out", tmp_path / name)
        assert read_run(tmp_path / name).config["checkpoints"] == {"fewshot_ff": sha256_of(checkpoint)}
    with pytest.raises(RunError, match=r"fakes by 'fewshot_ff' with checkpoint \w{12}, and .* now has checkpoint"):
        score(*fixed, "--out", tmp_path / "run")
    score("--out", tmp_path / "run", "--metrics", "psnr")  # makes nothing, so what $THEVAL_CHECKPOINT names is the same
    assert read_run(tmp_path / "run").config["checkpoints"] == {"fewshot_ff": sha256_of(one)}
    monkeypatch.setenv("THEVAL_CHECKPOINT", str(one))
    score(*fixed, "--out", tmp_path / "run")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    del record["config"]["checkpoints"]  # as an older theval wrote it
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    with pytest.raises(RunError, match=r"with no checkpoint on record, and 'fewshot_ff' now has checkpoint"):
        score(*fixed, "--out", tmp_path / "run")


@pytest.mark.slow
def test_a_killed_run_continues(data: Path, tmp_path: Path) -> None:
    chosen = ("--data", data, "--generator", "copy", "--shots", "1")
    fixed = (*chosen, "--metrics", "ssim,fd_efflite0", "--workers", "1", "--out")
    score(*fixed, tmp_path / "whole")
    killed = tmp_path / "killed"
    arguments = theval_score(*fixed, killed)
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    scores = killed / "scores" / "copy-1"
    while process.poll() is None and not (scores.exists() and any(scores.iterdir())):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (killed / "measurements.json").exists()
    before = {path: path.stat().st_mtime_ns for path in killed.rglob("*.np?")}
    assert before
    score(*fixed, killed)
    assert (killed / "measurements.json").read_bytes() == (tmp_path / "whole" / "measurements.json").read_bytes()
    for path, written in before.items():
        assert path.parent.name == "landmarks" or path.stat().st_mtime_ns == written, f"{path} was computed again"


@pytest.mark.slow
def test_a_full_disk_is_one_sentence_and_loses_nothing(data: Path, tmp_path: Path) -> None:
    fixed = ("--data", data, "--shots", "1", "--generator", "copy", "--metrics", "l1", "--out", tmp_path / "run")

    def allow_small_files_only() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    full = subprocess.run(
        theval_score(*fixed, "--workers", "1"), capture_output=True, text=True, preexec_fn=allow_small_files_only
    )
    assert full.returncode == 2
    errors = [line for line in full.stderr.splitlines() if line.startswith("theval: error:")]
    assert len(errors) == 1 and "File too large" in errors[0]
    assert "Traceback" not in full.stderr
    score(*fixed)
    assert read_run(tmp_path / "run").status == "complete"


def test_an_unwritable_folder_is_named(data: Path) -> None:
    with pytest.raises(RunError, match=r"'/proc/theval' cannot be written"):
        score("--data", data, "--shots", "1", "--metrics", "l1", "--out", "/proc/theval")


@pytest.fixture
def faulty_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package with a generator of 48 px that fails on one person."""
    (tmp_path / "faulty.py").write_text(
        "from thead_eval.testing import FirstFrameGenerator\n"
        "from thead_eval.types import Clip\n"
        "class Small:\n"
        "    name = 'faulty'\n"
        "    def adapt(self, support, landmarks):\n"
        "        if support.id.startswith('head0001'):\n"
        "            raise FloatingPointError('NaN in adapt')\n"
        "        small = Clip(support.id, support.frames[:, :, ::2, ::2], support.fps)\n"
        "        return FirstFrameGenerator().adapt(small, landmarks)\n"
        "def make(device):\n"
        "    return Small()\n"
    )
    (tmp_path / "faulty-1.0.dist-info").mkdir()
    (tmp_path / "faulty-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty\nVersion: 1.0\n")
    (tmp_path / "faulty-1.0.dist-info" / "entry_points.txt").write_text("[theval.generator]\nfaulty = faulty:make\n")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("faulty_plugin")
def test_a_generator_that_fails_on_one_person_is_counted(data: Path, tmp_path: Path) -> None:
    score("--data", data, "--shots", "1", "--generator", "faulty", "--metrics", "l1", "--out", tmp_path / "run")
    row = rows_of(tmp_path / "run")["l1", "faulty", "1"]
    assert (row["n_frames"], row["n_identities"], row["n_failed"]) == (32, 1, 32)
    record = read_run(tmp_path / "run")
    assert [(f.item, f.reason) for f in record.failures] == [("head0001", "FloatingPointError: NaN in adapt")]
    assert record.config["sizes"] == {"faulty": "48x48, resized to 96x96 (bilinear, antialiased)"}


# Clips that others made.


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """reals/{ann,bob}.mkv, fakes/same/8/{ann,bob,nobody}.mkv, fakes/dark/{ann,bob}.mkv; dark/bob is cut off."""
    folder = tmp_path_factory.mktemp("clips")
    for place in ("reals", "fakes/same/8", "fakes/dark"):
        (folder / place).mkdir(parents=True)
    for identity, name in enumerate(("ann", "bob")):
        clip, _ = head_clip(identity, 12, 96)
        write_clip(folder / "reals" / f"{name}.mkv", clip, lossless=True)
        write_clip(folder / "fakes" / "same" / "8" / f"{name}.mkv", clip, lossless=True)
        write_clip(folder / "fakes" / "dark" / f"{name}.mkv", Clip(name, clip.frames // 2, 25.0), lossless=True)
    (folder / "fakes" / "same" / "8" / "nobody.mkv").write_bytes((folder / "reals" / "ann.mkv").read_bytes())
    whole = (folder / "fakes" / "dark" / "bob.mkv").read_bytes()
    (folder / "fakes" / "dark" / "bob.mkv").write_bytes(whole[:300])
    return folder


def test_clips_are_paired_by_name_and_labelled_by_folder(clips: Path, tmp_path: Path) -> None:
    metrics = "ssim,l1,fd_efflite0,csim_dlib,nme_dlib68"
    score("--fakes", clips / "fakes", "--reals", clips / "reals", "--metrics", metrics, "--out", tmp_path / "run")
    rows = rows_of(tmp_path / "run")
    same = {metric: rows[metric, "same", "8"]["value"] for metric in metrics.split(",")}
    assert same["ssim"] == pytest.approx(1)
    assert same["l1"] == same["nme_dlib68"] == 0
    assert same["csim_dlib"] == pytest.approx(1, abs=1e-5)
    assert same["fd_efflite0"] == pytest.approx(0, abs=1e-3)
    dark = rows["l1", "dark", ""]
    assert dark["value"] > 20
    assert (dark["n_identities"], dark["n_failed"]) == (1, 12)
    assert dark["note"] == "no interval: one identity"
    assert dark["per_identity"]["bob"] is None
    reasons = {failure.item.rsplit("/", 1)[-1]: failure.reason for failure in read_run(tmp_path / "run").failures}
    assert "no clip of this name" in reasons["nobody"]
    assert "bob.mkv" in reasons["bob"]


def test_clips_are_paired_by_a_table(clips: Path, tmp_path: Path) -> None:
    table = tmp_path / "pairs.csv"
    lines = ("fake,real,identity,generator,shots", "same/8/ann.mkv,bob.mkv,person,theirs,1", "x.mkv,ann.mkv,,theirs,1")
    table.write_text("\n".join(lines))
    folders = ("--fakes", clips / "fakes", "--reals", clips / "reals")
    score(*folders, "--pairs", table, "--metrics", "l1", "--out", tmp_path / "run")
    row = rows_of(tmp_path / "run")["l1", "theirs", "1"]
    assert row["value"] > 5
    assert row["per_identity"].keys() == {"person"}
    assert row["low"] is None and "one identity" in row["note"]
    assert row["n_failed"] == 12  # the missing x.mkv
    assert "is missing" in read_run(tmp_path / "run").failures[0].reason


def test_a_real_clip_without_a_fake_counts_against_the_condition(clips: Path, tmp_path: Path) -> None:
    fakes = tmp_path / "fakes"
    fakes.mkdir()
    (fakes / "ann.mkv").write_bytes((clips / "reals" / "ann.mkv").read_bytes())
    score("--fakes", fakes, "--reals", clips / "reals", "--metrics", "l1", "--out", tmp_path / "run")
    row = rows_of(tmp_path / "run")["l1", "fakes", ""]
    assert (row["value"], row["n_identities"], row["n_failed"]) == (0, 1, 12)
    assert [failure.item for failure in read_run(tmp_path / "run").failures] == ["bob"]


def test_frame_rates_must_agree(tmp_path: Path) -> None:
    clip, _ = head_clip(0, 4, 64)
    for folder, fps in (("reals", 30.0), ("fakes", 25.0)):
        (tmp_path / folder).mkdir()
        write_clip(tmp_path / folder / "ann.mkv", Clip("ann", clip.frames, fps), lossless=True)
    with pytest.raises(RunError, match=r"has 25 frames a second and .* 30, .* resample one of them"):
        score(
            "--fakes", tmp_path / "fakes", "--reals", tmp_path / "reals", "--metrics", "l1", "--out", tmp_path / "run"
        )


def test_two_clips_that_differ_in_their_suffix_are_refused(clips: Path, tmp_path: Path) -> None:
    fakes = tmp_path / "fakes"
    fakes.mkdir()
    for suffix in ("mkv", "mp4"):
        (fakes / f"ann.{suffix}").write_bytes(b"")
    with pytest.raises(ConfigError, match="differ only in their suffix"):
        score("--fakes", fakes, "--reals", clips / "reals", "--metrics", "l1", "--out", tmp_path / "run")


def test_a_clip_that_changed_is_not_taken_for_the_old_one(tmp_path: Path) -> None:
    clip, _ = head_clip(0, 4, 64)
    for folder in ("reals", "fakes"):
        (tmp_path / folder).mkdir()
        write_clip(tmp_path / folder / "ann.mkv", clip, lossless=True)
    arguments = ("--fakes", tmp_path / "fakes", "--reals", tmp_path / "reals", "--metrics", "l1")
    score(*arguments, "--out", tmp_path / "run")
    write_clip(tmp_path / "fakes" / "ann.mkv", Clip("ann", clip.frames // 2, 25.0), lossless=True)
    with pytest.raises(RunError, match="was made with clips = "):
        score(*arguments, "--out", tmp_path / "run")


def test_a_shorter_fake_is_judged_as_far_as_it_goes(tmp_path: Path) -> None:
    clip, _ = head_clip(0, 40, 64)
    for folder, frames in (("reals", clip.frames), ("fakes", clip.frames[:35])):
        (tmp_path / folder).mkdir()
        write_clip(tmp_path / folder / "ann.mkv", Clip("ann", frames, 25.0), lossless=True)
    score("--fakes", tmp_path / "fakes", "--reals", tmp_path / "reals", "--metrics", "l1", "--out", tmp_path / "run")
    row = rows_of(tmp_path / "run")["l1", "fakes", ""]
    assert (row["value"], row["n_frames"], row["n_failed"]) == (0, 35, 5)
    assert len(read_clip(tmp_path / "reals" / "ann.mkv")) == 40


def test_a_longer_fake_is_judged_as_far_as_its_real_clip_goes(tmp_path: Path) -> None:
    clip, _ = head_clip(0, 40, 64)
    for folder, frames in (("reals", clip.frames[:32]), ("fakes", clip.frames)):
        (tmp_path / folder).mkdir()
        write_clip(tmp_path / folder / "ann.mkv", Clip("ann", frames, 25.0), lossless=True)
    score("--fakes", tmp_path / "fakes", "--reals", tmp_path / "reals", "--metrics", "l1", "--out", tmp_path / "run")
    row = rows_of(tmp_path / "run")["l1", "fakes", ""]
    assert (row["value"], row["n_frames"], row["n_failed"]) == (0, 32, 0)
    assert "1 fakes are longer than their real clips" in row["note"]


def test_the_real_line_of_csim_is_told(clips: Path, tmp_path: Path) -> None:
    score("--fakes", clips / "fakes", "--reals", clips / "reals", "--metrics", "csim_dlib", "--out", tmp_path / "run")
    lines = {m.labels["pair"]: m for m in read_measurements(tmp_path / "run") if "pair" in m.labels}
    assert lines["different people"].value is not None and lines["different people"].value < 1
    assert lines["same person"].value is None  # one clip of each


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ([], ConfigError, "nothing to judge"),
        (["--metrics", "ssim"], ConfigError, "run' to judge again; check the path, or name a dataset with --data"),
        (["--fakes", "a"], ConfigError, "--fakes and --reals go together"),
        (["--data", "a", "--fakes", "b", "--reals", "c"], ConfigError, "name one of the two"),
        (["--data", "a", "--metrics", "simm"], PluginError, "did you mean 'ssim'"),
        (["--fakes", "nowhere", "--reals", "nowhere"], ConfigError, "nowhere' is not a folder"),
        (["--generator", "warp"], ConfigError, "--generator means something only with --data"),
        (["--fakes", "a", "--reals", "b", "--shots", "1"], ConfigError, "--shots means something only with --data"),
        (["--data", "a", "--device", "cuda:99"], ConfigError, "--device cuda:99 cannot be used here"),
    ],
)
def test_a_wrong_option_is_one_sentence(
    arguments: list[str], error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        score(*arguments, *(["--out", str(tmp_path / "run")] if arguments else []))
