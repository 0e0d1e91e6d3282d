"""Perturbations keep number and size of the frames, repeat themselves, and get worse by level."""

import pytest
import torch

from benchmarks.robustness import HOLDS, LEVELS, PERTURBATIONS
from thead_eval.synthetic import head_clip

FRAMES = head_clip(0, 8, 97)[0].frames  # an odd side


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_each_level_is_worse_than_the_last_and_the_same_again(name: str) -> None:
    apart = []
    before = FRAMES.clone()
    for level in LEVELS:
        made = PERTURBATIONS[name](FRAMES, level, 3)
        assert made.shape == FRAMES.shape and made.dtype == torch.uint8
        apart.append(float((made.float() - FRAMES.float()).abs().mean()))
    assert torch.equal(FRAMES, before)
    assert apart == sorted(apart) and 0 < apart[0] < 0.6 * apart[-1]
    assert torch.equal(PERTURBATIONS[name](FRAMES, 5, 3), made)


def test_a_held_frame_is_the_one_before() -> None:
    made = PERTURBATIONS["frame_rate"](FRAMES, 2, 0)
    assert HOLDS[1] == 3
    assert torch.equal(made, FRAMES[[0, 0, 0, 3, 3, 3, 6, 6]])


def test_clips_become_brighter_or_darker() -> None:
    brighter, darker = (PERTURBATIONS["brightness"](FRAMES, 3, seed).float().mean() for seed in (0, 1))
    assert darker < FRAMES.float().mean() < brighter
