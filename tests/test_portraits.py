"""Photographs to support frames, a made head back into its picture, and the label on what is made."""

from pathlib import Path

import matplotlib
import numpy as np
import pytest
import skimage
import torch
from PIL import Image
from torch import Tensor

from thead_eval.errors import NoFaceFound
from thead_eval.marking import label_synthetic
from thead_eval.media import read_image
from thead_eval.pasting import find_place, paste
from thead_eval.portraits import Face, Portrait, choose_face, crop_face, crop_portrait, draw_faces, find_faces
from thead_eval.synthetic import Pose, make_head, pose_points
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


def packaged(name: str) -> Tensor:
    """A picture that scikit-image carries: a portrait by NASA in the public domain, and a photographer, CC0."""
    return read_image(Path(skimage.__file__).parent / "data" / name)


@pytest.fixture(scope="module")
def hopper() -> Tensor:
    return read_image(GRACE_HOPPER)


@pytest.fixture(scope="module")
def two(hopper: Tensor) -> Tensor:
    """Two people beside each other, of whom the left one is more than twice as near."""
    picture = torch.zeros(3, max(hopper.shape[1], 512), hopper.shape[2] + 512, dtype=torch.uint8)
    picture[:, : hopper.shape[1], : hopper.shape[2]] = hopper
    picture[:, :512, hopper.shape[2] :] = packaged("astronaut.png")
    return picture


def test_of_two_faces_one_has_to_be_chosen(two: Tensor, hopper: Tensor) -> None:
    faces = find_faces(two)
    assert [face.box[0] > hopper.shape[2] for face in faces] == [False, True], "a badge is no face"
    with pytest.raises(
        NoFaceFound, match=r"'two\.png' shows 2 faces \(1 at x \d+, 2 at x \d+\); choose one with --face"
    ):
        choose_face(two, "two.png", faces)
    with pytest.raises(NoFaceFound, match="shows 2 faces, and --face asks for number 3"):
        choose_face(two, "two.png", faces, 3)
    left, right = (crop_face(two, "two.png", 128, faces, choose_face(two, "two.png", faces, n)) for n in (1, 2))
    alone = crop_portrait(hopper, "hopper", 128)
    assert (left.support.frames.float() - alone.support.frames.float()).abs().mean() < 12
    assert right.crop.x > hopper.shape[2] and right.crop.side < 0.6 * left.crop.side


def test_a_face_far_in_the_background_is_not_asked_about(hopper: Tensor) -> None:
    box = (100.0, 100.0, 300.0, 300.0)
    points = torch.zeros(68, 2)
    near, far = Face(box, points), Face((10.0, 10.0, 50.0, 50.0), points)
    assert choose_face(hopper, "crowd.png", [far, near]) is near
    assert choose_face(hopper, "crowd.png", [far, near], 1) is far


def test_a_small_face_names_the_size_that_would_do(hopper: Tensor) -> None:
    scale = 64 / find_faces(hopper)[0].side
    height, width = (round(scale * side) for side in hopper.shape[1:])
    small = Image.fromarray(hopper.permute(1, 2, 0).numpy()).resize((width, height))
    photo = torch.from_numpy(np.array(small)).permute(2, 0, 1)
    with pytest.raises(
        NoFaceFound, match=r"face in 'small\.png' is \d\d pixels wide, too small for a head of 256 .*--size 2\d\d"
    ):
        crop_portrait(photo, "small.png", 256)
    assert crop_portrait(photo, "small.png", 128).support.size == (128, 128)


def test_a_profile_is_refused(hopper: Tensor) -> None:
    camera = packaged("camera.png")  # a man who looks to the right
    with pytest.raises(NoFaceFound, match=r"face in 'camera\.png' is turned away too far; give .* both eyes"):
        crop_portrait(camera, "camera.png", 64)
    (face,) = find_faces(hopper)
    assert face.eyes_apart is not None and face.eyes_apart > 0.75


def test_a_huge_picture_gives_the_same_head(hopper: Tensor) -> None:
    large = Image.fromarray(hopper.permute(1, 2, 0).numpy()).resize((3686, 4320), Image.Resampling.BICUBIC)
    photo = torch.full((3, 4320, 7680), 120, dtype=torch.uint8)
    photo[:, :, 2000:5686] = torch.from_numpy(np.array(large)).permute(2, 0, 1)
    made, expected = crop_portrait(photo, "8k.png", 128), crop_portrait(hopper, "hopper", 128)
    eyes = (expected.landmarks.points[0, 36] - expected.landmarks.points[0, 45]).norm()
    assert (made.landmarks.points - expected.landmarks.points).norm(dim=-1).mean() < 0.1 * eyes


def test_the_faces_are_shown_with_their_numbers(two: Tensor) -> None:
    faces = find_faces(two)
    shown = draw_faces(faces, two, None)
    assert shown.shape == two.shape and (shown != two).any()
    portrait = crop_face(two, "two", 128, faces, faces[0])
    assert draw_faces(faces, two, portrait).shape == (3, two.shape[1], two.shape[2] + two.shape[1])


# Back into the picture.


@pytest.fixture(scope="module")
def portrait(hopper: Tensor) -> Portrait:
    return crop_portrait(hopper, "hopper", 256)


def test_the_head_itself_leaves_the_picture_as_it_was(portrait: Portrait) -> None:
    head = portrait.support.frames[0]
    pasted = paste(find_place(portrait, head), head)
    assert pasted.shape == portrait.photo.shape
    assert (pasted.float() - portrait.photo.float()).abs().mean() < 2  # the crop has fewer pixels
    x, y, side = portrait.crop
    outside = torch.ones(portrait.photo.shape[1:], dtype=torch.bool)
    outside[max(y, 0) : y + side, max(x, 0) : x + side] = False
    assert outside.any() and torch.equal(pasted[:, outside], portrait.photo[:, outside])


def test_the_seam_is_soft_and_the_middle_is_the_made_head(portrait: Portrait) -> None:
    place = find_place(portrait, portrait.support.frames[0])
    green = torch.zeros(3, 256, 256, dtype=torch.uint8)
    green[1] = 255
    pasted = paste(place, green)
    x, y, side = portrait.crop
    assert pasted[:, y + side // 2, x + side // 2].tolist() == [0, 255, 0]
    row = (pasted.float() - portrait.photo.float()).abs()[:, y + side // 2, x : x + side].sum(0)
    assert row[0] < 10 and row[round(0.06 * side)] < row[round(0.15 * side)]


def test_a_change_of_all_colours_is_taken_back(portrait: Portrait) -> None:
    head = portrait.support.frames[0]
    tinted = (head.float() + torch.tensor([12.0, -9.0, 20.0])[:, None, None]).clamp(0, 255).to(torch.uint8)
    pasted, expected = (paste(find_place(portrait, frame), frame).float() for frame in (tinted, head))
    assert (pasted - expected).abs().mean() < 2


def test_where_the_picture_ends_there_is_no_seam() -> None:
    grey = torch.full((3, 128, 128), 90, dtype=torch.uint8)
    grey[:, 40:90, 40:90] = 120
    points = torch.from_numpy(pose_points(make_head(0), Pose(), 128)).float()
    face = Face((30.0, 40.0, 98.0, 108.0), points)
    portrait = crop_face(grey, "square", 128, [face], face)
    assert portrait.crop == (0, 0, 128), "a picture that is a head crop is taken whole"
    assert find_place(portrait, grey).weight.eq(1).all()


# The label.


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
