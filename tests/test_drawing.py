"""Landmarks drawn as networks see them: the official palette at known places."""

import pytest
import torch
from torch import Tensor

from thead_eval.drawing import draw_clip, draw_landmarks
from thead_eval.synthetic import head_clip
from thead_eval.types import Landmarks

PARTS = {  # first point, last point, RGB
    "oval": (0, 16, (255, 255, 255)),
    "left brow": (17, 21, (255, 0, 0)),
    "right brow": (22, 26, (0, 255, 0)),
    "bridge": (27, 30, (0, 0, 255)),
    "nose": (31, 35, (0, 0, 255)),
    "left eye": (36, 41, (255, 0, 255)),
    "right eye": (42, 47, (0, 255, 255)),
    "lips": (48, 59, (255, 255, 0)),
}


@pytest.fixture
def apart() -> Tensor:
    """Each part on a row of its own, 20 pixels below the one before, its points 5 pixels apart; inner lips as well."""
    points = torch.zeros(68, 2)
    for row, (first, last, _) in enumerate([*PARTS.values(), (60, 67, None)]):
        points[first : last + 1, 0] = 10 + 5 * torch.arange(last - first + 1)
        points[first : last + 1, 1] = 20 + 20 * row
    return points


@pytest.mark.parametrize("row", range(len(PARTS)), ids=list(PARTS))
def test_each_part_has_its_colour(apart: Tensor, row: int) -> None:
    first, last, colour = list(PARTS.values())[row]
    picture = draw_landmarks(apart, 256, 256)
    assert picture.dtype == torch.uint8 and picture.shape == (3, 256, 256)
    x_end = 10 + 5 * (last - first)
    line = picture[:, 20 + 20 * row, 10 : x_end + 1]  # [3, N]
    assert (line == torch.tensor(colour)[:, None]).all()
    assert (picture[:, 20 + 20 * row, x_end + 5] == 0).all()


def test_inner_lips_are_not_drawn(apart: Tensor) -> None:
    assert (draw_landmarks(apart, 256, 256)[:, 20 + 20 * len(PARTS) - 5 :] == 0).all()


def test_eyes_and_lips_are_closed_and_the_oval_is_open() -> None:
    points = torch.full((68, 2), 200.0)
    for part in (slice(0, 3), slice(36, 39), slice(48, 51)):
        points[part] = torch.tensor([[20.0, 20.0], [60.0, 20.0], [60.0, 100.0]])
    points[3:17], points[39:42], points[51:60] = points[2].clone(), points[38].clone(), points[50].clone()
    middle_of_closing_line = (60, 40)
    oval_only = points.clone()
    oval_only[17:] = 200
    assert draw_landmarks(oval_only, 256, 256)[:, *middle_of_closing_line].sum() == 0
    lips_too = oval_only.clone()
    lips_too[48:60] = points[48:60]
    assert draw_landmarks(lips_too, 256, 256)[:, *middle_of_closing_line].tolist() == [255, 255, 0]


@pytest.mark.parametrize("size", [64, 128, 256, 512])
def test_lines_are_two_pixels_thick_at_256_and_scale(apart: Tensor, size: int) -> None:
    # OpenCV centres a line on a pixel, so a thickness of 2 covers 3 rows or 2: count what it paints of a 1-pixel line.
    picture = draw_landmarks(apart * (size / 256), size, size)
    rows = int((picture[0, : round(30 * size / 256), round(30 * size / 256)] > 0).sum())
    assert rows == {64: 1, 128: 1, 256: 3, 512: 5}[size]


def test_no_face_gives_a_black_picture(apart: Tensor) -> None:
    points = torch.stack([apart, torch.full((68, 2), torch.nan), apart])
    landmarks = Landmarks(points, torch.tensor([True, False, True]))
    pictures = draw_clip(landmarks, (256, 200))
    assert pictures.shape == (3, 3, 256, 200)
    assert pictures[0].any() and not pictures[1].any()
    assert torch.equal(pictures[0], pictures[2])
    assert not draw_landmarks(points[1], 256, 256).any()


def test_points_outside_the_picture_are_cut_off() -> None:
    points = head_clip(0, 1, 128)[1].points[0]
    for shift in (100.0, -100.0, 1e6, -1e9):
        assert draw_landmarks(points + shift, 128, 128).shape == (3, 128, 128)
    assert not draw_landmarks(points + 1000, 128, 128).any()


def test_drawing_leaves_the_points_alone(apart: Tensor) -> None:
    before = apart.clone()
    draw_landmarks(apart, 64, 64)
    assert torch.equal(apart, before)


def test_other_numbers_of_points_are_refused() -> None:
    with pytest.raises(ValueError, match=r"68 points \[68, 2\] make a picture, not \[5, 2\]"):
        draw_landmarks(torch.zeros(5, 2), 64, 64)
