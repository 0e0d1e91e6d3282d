"""On a CUDA device the same comes out as on a CPU, within rounding; skipped by name where there is none."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from detectors.checkpoint import build
from detectors.fit import _judge
from detectors.linear import Line
from generator.adapt import AdaptConfig
from generator.fewshot import FewShot
from generator.meta import train
from generator.samples import UNCHANGED
from generator.warp import base_flow, warp_frames
from tests.test_fewshot import shots, write_checkpoint
from tests.test_meta import META, RECIPE
from tests.test_meta import dataset as dataset
from thead_eval import plugins
from thead_eval.data import Dataset
from thead_eval.synthetic import head_clip
from thead_eval.training import open_fabric

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_a_training_runs_saves_and_continues(dataset: Dataset, tmp_path: Path) -> None:
    first = replace(
        RECIPE, meta=replace(META, steps=6, save_every=3, validate_every=6, precision="bf16-mixed", workers=2)
    )
    fabric = open_fabric("cuda", "bf16-mixed")
    assert train(first, dataset, tmp_path / "run", fabric).step == 6
    further = replace(first, meta=replace(first.meta, steps=8))
    assert train(further, dataset, tmp_path / "run", fabric, resume=True).step == 8
    assert (tmp_path / "run" / "best.safetensors").exists()


@pytest.mark.parametrize("config", [None, AdaptConfig(steps=3, check_every=1, lr=1e-3, augmentation=UNCHANGED)])
def test_a_talker_makes_the_frames_that_it_makes_on_a_cpu(tmp_path: Path, config: AdaptConfig | None) -> None:
    file, take = write_checkpoint(tmp_path / "tiny.safetensors"), head_clip(6, 12, 64, fps=4)
    frames = [
        FewShot("fewshot", device, file, config).adapt(*shots(take, 4)).animate(take[1], 4).frames.cpu().float()
        for device in (CPU, CUDA)
    ]
    assert (frames[0] - frames[1]).abs().mean() < 2  # of 255; bfloat16 on either side


def test_the_warp_is_the_same() -> None:
    clip, landmarks = head_clip(3, 2, 128)
    points = landmarks.points
    warped = []
    for device in (CPU, CUDA):
        grid = base_flow(points[:1].to(device), points[1:].to(device), (128, 128))
        warped.append(warp_frames(clip.frames[:1].to(device), grid).cpu().float())
    assert (warped[0] - warped[1]).abs().max() <= 2


def test_features_are_the_same() -> None:
    frames = head_clip(3, 4, 128)[0].frames
    network = plugins.load("features", "efflite0")
    here, there = (network.load(device)(frames.to(device), None).cpu() for device in (CPU, CUDA))
    assert torch.allclose(here, there, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("kind", ["spectrum", "landmarks"])
def test_a_line_through_what_is_measured_is_the_same(kind: str) -> None:
    """Whose numbers may be measured on the CPU, and are fitted there."""
    frames = head_clip(3, 16, 224)[0].frames
    here, there = (build(kind, {}).to(device)(frames.to(device)).cpu() for device in (CPU, CUDA))
    assert torch.allclose(here, there, atol=1e-3, equal_nan=True)
    rule = Line(4).to(CUDA)
    assert _judge(rule, np.zeros((3, 4))).tolist() == [0, 0, 0]
