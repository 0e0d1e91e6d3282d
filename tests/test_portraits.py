"""One photograph to a support frame, and the label on what is made from it."""

from pathlib import Path

import matplotlib
import pytest
import torch

from thead_eval.errors import NoFaceFound
from thead_eval.marking import label_synthetic
from thead_eval.media import read_image
from thead_eval.portraits import crop_portrait
from thead_eval.types import Clip

GRACE_HOPPER = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"  # in the public domain


def test_a_portrait_is_framed_around_the_head() -> None:
    portrait = crop_portrait(read_image(GRACE_HOPPER), "hopper", 256)
    clip, landmarks = portrait.support, portrait.landmarks
    assert clip.frames.shape == (1, 3, 256, 256)
    assert landmarks.found.all()
    points = landmarks.points[0]
    assert points.min() > 0 and points.max() < 255
    eyes = points[36:48].mean(dim=0)
    assert 90 < eyes[0] < 166 and 60 < eyes[1] < 150
    width = points[:17, 0].max() - points[:17, 0].min()
    assert 0.3 * 256 < width < 0.7 * 256


def test_a_crop_of_another_size_has_the_same_points_in_proportion() -> None:
    photo = read_image(GRACE_HOPPER)
    large, small = (crop_portrait(photo, "hopper", size).landmarks for size in (256, 128))
    assert torch.allclose((large.points + 0.5) / 2, small.points + 0.5, atol=0.01)


def test_a_picture_without_a_face_is_named() -> None:
    with pytest.raises(NoFaceFound, match=r"no face in 'wall\.png' \(80x60\); give a larger or more frontal picture"):
        crop_portrait(torch.full((3, 60, 80), 127, dtype=torch.uint8), "wall.png", 256)


@pytest.mark.parametrize("size", [(256, 256), (64, 48), (8, 8)])
def test_the_label_covers_a_corner_and_nothing_else(size: tuple[int, int]) -> None:
    grey = Clip("grey", torch.full((2, 3, *size), 127, dtype=torch.uint8), 25.0)
    labelled = label_synthetic(grey)
    changed = (labelled.frames != 127).any(dim=1)  # [T, H, W]
    assert changed[:, -1, 0].all()
    assert grey.frames.eq(127).all(), "the clip that was passed in must stay as it was"
    if size == (256, 256):
        assert labelled.frames.max() == 255
        assert changed.float().mean() < 0.05
        assert not changed[:, :200].any()
