"""The benchmark of animation runs, and its streams say what was sent; how fast anything is, no test says."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from benchmarks.animation import HIGHEST_CRF, code_video, command, equal_video, landmark_packets, read_packets
from tests.test_fewshot import write_checkpoint
from thead_eval.synthetic import head_clip


@pytest.mark.slow
def test_a_quick_run_has_every_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THEVAL_CHECKPOINT", str(write_checkpoint(tmp_path / "tiny.safetensors")))
    result = CliRunner().invoke(command, ["--quick", "--no-learning", "--json", str(tmp_path / "rows.json")])
    assert result.exit_code == 0, result.output
    content = json.loads((tmp_path / "rows.json").read_text())
    assert [row["contender"] for row in content["rows"]] == [
        "talker: folded, in the machine's precision",
        "folded, float32",
        "unfolded, float32, channels last",
        "unfolded, float32, as torch has it by default",
    ]
    assert all(row["per_second"] > 0 for row in content["rows"])
    assert [row["metric"] for row in content["streams"]] == ["ssim", "perc_efflite0"]
    assert all(0 < row["landmarks"] < 25 * 68 * 2 * 2 and row["video"] > 0 for row in content["streams"])
    assert "Streams of equal ssim (1 people): landmarks" in result.output


def test_landmarks_arrive_as_they_were_sent() -> None:
    points = head_clip(3, 40, 256)[1].points
    packets = landmark_packets(points)
    assert len(packets) == 40
    assert (read_packets(packets) - points).abs().max() <= 1 / 16
    assert torch.equal(read_packets(packets[:7]), read_packets(packets)[:7])  # each when it arrives


def test_the_smallest_video_that_is_no_worse() -> None:
    frames = head_clip(3, 6, 64)[0].frames

    def near(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return -(a.float() - b.float()).abs().mean((1, 2, 3)).double()

    size, decoded = code_video(frames, 25.0, 30)
    value = near(decoded, frames).mean().item()
    crf, found, its_value = equal_video(frames, 25.0, near, value, higher=True)
    assert (crf, found, its_value) == (30, size, value)
    assert equal_video(frames, 25.0, near, -255.0, higher=True)[0] == HIGHEST_CRF
