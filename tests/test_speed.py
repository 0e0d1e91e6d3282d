"""The speed benchmark runs; how fast anything is, no test says."""

import json
import runpy
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from benchmarks.speed import TASKS, command
from detectors.checkpoint import NETWORKS
from generator import networks


def test_a_quick_run_lists_every_contender(tmp_path: Path) -> None:
    only = [argument for task in ("ssim", "jackknife", "decode", "warp") for argument in ("--only", task)]
    result = CliRunner().invoke(command, ["--quick", "--json", str(tmp_path / "speed.json"), *only])
    assert result.exit_code == 0, result.output
    assert "SSIM, 128 px RGB" in result.output and "say nothing about speed" in result.output
    content = json.loads((tmp_path / "speed.json").read_text())
    assert content["schema"] == 1 and content["machine"]["torch_threads"] >= 1
    assert {row["contender"] for row in content["rows"]} >= {"theval", "torchmetrics", "plain PyAV, to arrays"}
    for row in content["rows"]:
        assert row["not_run"] or (row["seconds"] > 0 and row["per_second"] > 0)


def test_what_cannot_run_here_is_listed_with_the_reason(weights_folder: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(command, ["--quick", "--only", "inception"])
    assert result.exit_code == 0, result.output
    if not any(weights_folder.glob("pt_inception*")):
        assert "not run" in result.output
        assert "theval weights fetch fid_inception" in " ".join(result.output.split())


def test_every_task_has_a_line_of_help() -> None:
    output = CliRunner().invoke(command, ["--help"]).output
    assert all(name in output for name in TASKS)


def test_a_step_of_training_is_timed_in_three_ways(tmp_path: Path) -> None:
    script = Path(__file__).parents[1] / "scripts" / "training_speed.py"
    arguments = ["--quick", "--only", "detector", "--json", str(tmp_path / "training.json")]  # the generator takes long
    result = CliRunner().invoke(runpy.run_path(str(script))["command"], arguments)
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "training.json").read_text())["rows"]
    assert [row["contender"].partition(", ")[0] for row in rows] == ["bfloat16", "float32", "float32"]
    assert all(row["per_second"] > 0 for row in rows)


def test_what_training_is_timed_beside_computes_the_same() -> None:
    script = runpy.run_path(str(Path(__file__).parents[1] / "scripts" / "training_speed.py"))
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, 3, 8, 8), torch.randn(2, 3), torch.randn(2, 3)
    ours = networks.instance_norm(x, weight, bias)
    torch.testing.assert_close(script["instance_norm_by_torch"](x, weight, bias), ours, atol=1e-5, rtol=1e-4)
    for shape in ((2, 3, 8, 8), (2, 3, 2, 8, 8)):
        x = torch.randn(shape)
        torch.testing.assert_close(script["enlarge_by_torch"](x, 16), networks._enlarge(x, 16), atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_every_kind_of_detector_has_its_speed(tmp_path: Path) -> None:
    script = runpy.run_path(str(Path(__file__).parents[1] / "scripts" / "detector_speed.py"))
    assert set(script["KINDS"]) >= {*NETWORKS, "trio"}
    path = tmp_path / "detectors.json"
    told = ["--only", "spectrum", "--frames", "16", "--turns", "1", "--json", str(path)]
    result = CliRunner().invoke(script["command"], told)
    assert result.exit_code == 0, result.output
    assert "frames a second" in result.output
    (row,) = json.loads(path.read_text())["rows"]
    assert row["detector"] == "spectrum" and row["window"] == 1 and row["frames_per_second"] > 0
    assert row["memory"] is None or 2**26 < row["memory"] < 2**34  # Python with torch, in bytes
