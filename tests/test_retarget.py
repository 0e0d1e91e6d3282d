"""Relative motion: the source keeps its shape and place, and takes the driver's movement."""

import math

import pytest
import torch
from torch import Tensor

from thead_eval.errors import NoFaceFound
from thead_eval.retarget import absolute_motion, find_neutral, relative_motion
from thead_eval.synthetic import Pose, head_clip, make_head, make_scene, render_head
from thead_eval.types import Landmarks


def track(poses: list[Pose], identity: int = 0, size: int = 256) -> Landmarks:
    head, scene = make_head(identity), make_scene(identity, 0)
    points = [torch.from_numpy(render_head(head, scene, pose, size)[1]).float() for pose in poses]
    return Landmarks(torch.stack(points), torch.ones(len(poses), dtype=torch.bool))


def moved(landmarks: Landmarks, scale: float, angle: float, shift: tuple[float, float]) -> Landmarks:
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    turn = torch.tensor([[cos, -sin], [sin, cos]])
    return Landmarks(landmarks.points @ turn.T + torch.tensor(shift), landmarks.found)


@pytest.fixture(scope="module")
def driving() -> Landmarks:
    return head_clip(1, 40, 64, fps=5)[1]


@pytest.fixture(scope="module")
def source() -> Tensor:
    return track([Pose()], identity=2).points[0]


def test_the_neutral_frame_gives_the_source_itself(driving: Landmarks, source: Tensor) -> None:
    result = relative_motion(driving, source, neutral=7)
    torch.testing.assert_close(result.points[7], source, rtol=0, atol=1e-4)


def test_where_the_drivers_camera_stood_has_no_effect(driving: Landmarks, source: Tensor) -> None:
    result = relative_motion(driving, source)
    other = relative_motion(moved(driving, 2.5, 0.4, (300.0, -90.0)), source)
    torch.testing.assert_close(other.points, result.points, rtol=0, atol=2e-2)


def test_the_result_moves_with_the_source(driving: Landmarks, source: Tensor) -> None:
    result = relative_motion(driving, source)
    larger = relative_motion(driving, 2 * source + 10)
    torch.testing.assert_close(larger.points, 2 * result.points + 10, rtol=0, atol=2e-2)


def test_a_head_that_only_shifts_and_tilts_leaves_the_sources_shape(source: Tensor) -> None:
    still = track([Pose(), Pose()], identity=5)
    tilted = moved(still, 1.2, 0.5, (20.0, -10.0))
    driving = Landmarks(torch.stack([still.points[0], tilted.points[1]]), still.found)
    result = relative_motion(driving, source, neutral=0).points[1]
    expected = moved(Landmarks(source[None], torch.tensor([True])), 1.2, 0.5, (0.0, 0.0)).points[0]
    torch.testing.assert_close(result - result.mean(0), expected - expected.mean(0), rtol=0, atol=1e-3)


def test_an_open_mouth_opens_the_sources_mouth_and_nothing_else(source: Tensor) -> None:
    driving = track([Pose(), Pose(mouth=1.0)], identity=5)
    result = relative_motion(driving, source, neutral=0).points
    opened = (result[1, 66] - result[1, 62]).norm() - (result[0, 66] - result[0, 62]).norm()
    assert opened > 10
    torch.testing.assert_close(result[1, 17:48], source[17:48], rtol=0, atol=0.1)


def test_the_same_person_is_driven_to_the_same_points(driving: Landmarks) -> None:
    result = relative_motion(driving, driving.points[3], neutral=3)
    torch.testing.assert_close(result.points, driving.points, rtol=0, atol=1e-3)


def test_neutral_is_found_among_yaw_open_mouth_and_blink() -> None:
    poses = [Pose(yaw=0.4), Pose(mouth=1.0), Pose(blink=1.0), Pose(yaw=-0.3), Pose(), Pose(mouth=0.3, blink=0.5)]
    assert find_neutral(track(poses)) == 4


def test_rows_without_a_face_stay_so(driving: Landmarks, source: Tensor) -> None:
    points, found = driving.points.clone(), driving.found.clone()
    points[5], found[5] = torch.nan, False
    result = relative_motion(Landmarks(points, found), source)
    assert result.points[5].isnan().all() and not result.found[5]
    assert result.points[result.found].isfinite().all()
    torch.testing.assert_close(result.points[6], relative_motion(driving, source).points[6], rtol=0, atol=1e-4)


def test_what_cannot_be_done_says_so(driving: Landmarks, source: Tensor) -> None:
    nothing = Landmarks(torch.full((2, 68, 2), torch.nan), torch.zeros(2, dtype=torch.bool))
    with pytest.raises(NoFaceFound, match="none of 2 driving frames has landmarks"):
        relative_motion(nothing, source)
    with pytest.raises(NoFaceFound, match="driving frame 1 has no landmarks"):
        relative_motion(nothing, source, neutral=1)
    with pytest.raises(NoFaceFound, match="the source picture has no landmarks"):
        relative_motion(driving, nothing.points[0])
    with pytest.raises(ValueError, match=r"must be \[68, 2\]"):
        relative_motion(driving, source[:5])


def test_expression_and_head_are_the_two_parts_of_all(driving: Landmarks, source: Tensor) -> None:
    head, expression = (relative_motion(driving, source, 7, motion).points for motion in ("head", "expression"))
    torch.testing.assert_close(head[7], source, rtol=0, atol=1e-4)
    torch.testing.assert_close(expression[7], source, rtol=0, atol=1e-4)
    assert (head - source).abs().max() > 10 and (expression - source).abs().max() > 10


def test_a_turn_of_the_head_is_no_expression(source: Tensor) -> None:
    driving = track([Pose(), Pose(yaw=0.3), Pose(pitch=0.2), Pose(roll=0.3, x=0.2, zoom=0.1)], identity=5)
    eyes = (source[36] - source[45]).norm()
    turned = (relative_motion(driving, source, 0).points - source).norm(dim=-1)
    left = (relative_motion(driving, source, 0, "expression").points - source).norm(dim=-1)
    assert turned[1:].max(1).values.gt(0.15 * eyes).all()
    assert left.mean(1).max() < 0.03 * eyes and left.max() < 0.12 * eyes


def test_an_expression_is_no_turn_of_the_head(source: Tensor) -> None:
    driving = track([Pose(), Pose(mouth=1.0), Pose(blink=1.0), Pose(brows=1.0), Pose(smile=1.0)], identity=5)
    eyes = (source[36] - source[45]).norm()
    head = (relative_motion(driving, source, 0, "head").points - source).norm(dim=-1)
    assert head[:, 17:].max() < 0.02 * eyes
    assert head.max() < 0.07 * eyes  # the jaw's sides count in part as the head's outline
    whole, expression = (relative_motion(driving, source, 0, motion).points for motion in ("all", "expression"))
    torch.testing.assert_close(whole[:, 17:], expression[:, 17:], rtol=0, atol=0.02 * float(eyes))


def test_a_blink_closes_narrow_and_wide_eyes_alike(source: Tensor) -> None:
    driving = track([Pose(), Pose(blink=0.5), Pose(blink=1.0)], identity=5)
    for factor in (0.4, 1.0, 1.8):
        eyes = source.clone()
        for upper, lower in ((37, 41), (38, 40), (43, 47), (44, 46)):
            eyes[upper] = source[lower] + factor * (source[upper] - source[lower])
        result = relative_motion(driving, eyes, 0).points
        opening = (result[:, 41] - result[:, 37]).norm(dim=-1)
        torch.testing.assert_close(opening / opening[0], torch.tensor([1.0, 0.5, 0.0]), rtol=0, atol=0.03)


def test_lips_do_not_pass_through_each_other(source: Tensor) -> None:
    driving = track([Pose(mouth=0.5), Pose()], identity=5)  # from open to closed
    result = relative_motion(driving, source, 0).points[1]  # onto lips that are closed already
    gap = result[[67, 66, 65], 1] - result[[61, 62, 63], 1]
    assert gap.min() > -0.01


def test_the_same_person_is_taken_as_posed_wherever_the_camera_stood(driving: Landmarks) -> None:
    support = driving.take([11, 30])
    result = absolute_motion(moved(driving, 1.7, 0.0, (40.0, -25.0)), support)
    torch.testing.assert_close(result.points, driving.points, rtol=0, atol=0.02)
    points, found = driving.points.clone(), driving.found.clone()
    points[11], found[11] = torch.nan, False
    without = absolute_motion(moved(Landmarks(points, found), 0.6, 0.0, (5.0, 5.0)), support)
    torch.testing.assert_close(without.points[12:], driving.points[12:], rtol=0, atol=0.02)
    assert without.points[11].isnan().all()
    nothing = Landmarks(points[11:12], found[11:12])
    for pair in ((nothing, support), (driving, nothing)):
        with pytest.raises(NoFaceFound, match=r"none of 1 (driving|support) frames has landmarks"):
            absolute_motion(*pair)
