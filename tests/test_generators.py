"""The controls: `copy` repeats the nearest support frame and `warp` bends it; neither learns nor invents numbers."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor

from generator.copy import copy, nearest_frames
from generator.warp import base_flow, warp, warp_frames
from thead_eval.errors import NoFaceFound
from thead_eval.faces import find_landmarks, load_detector, load_landmarker
from thead_eval.media import read_clip
from thead_eval.plugins import load
from thead_eval.synthetic import head_clip
from thead_eval.testing import BlurGenerator, FirstFrameGenerator
from thead_eval.types import Clip, FewShotGenerator, Landmarks

CPU = torch.device("cpu")
SIZE = 96


@pytest.fixture(scope="module")
def take() -> tuple[Clip, Landmarks]:
    """A person turning and talking, four pictures a second."""
    return head_clip(6, 24, SIZE, fps=4)


@pytest.fixture(params=["copy", "warp"])
def generator(request: pytest.FixtureRequest) -> FewShotGenerator:
    made: FewShotGenerator = load("generator", request.param)(CPU)
    assert made.name == request.param
    return made


def all_found(points: Tensor) -> Landmarks:
    return Landmarks(points, torch.ones(len(points), dtype=torch.bool))


def identity_grid(size: int) -> Tensor:
    y, x = torch.meshgrid(torch.linspace(-1, 1, size), torch.linspace(-1, 1, size), indexing="ij")
    return torch.stack([x, y], -1)


def folded(grid: Tensor) -> Tensor:
    """Where neighbouring pixels [B, H - 1, W - 1] come from swapped places."""
    right, down = grid[:, :-1, 1:] - grid[:, :-1, :-1], grid[:, 1:, :-1] - grid[:, :-1, :-1]
    return right[..., 0] * down[..., 1] - right[..., 1] * down[..., 0] <= 0


# Both


def test_driven_by_its_own_landmarks_the_support_comes_back(
    generator: FewShotGenerator, take: tuple[Clip, Landmarks]
) -> None:
    clip, landmarks = take
    made = generator.adapt(clip, landmarks).animate(landmarks, clip.fps)
    assert made.id == clip.id and made.fps == clip.fps
    assert (made.frames.int() - clip.frames.int()).abs().max() <= 1


def test_adapting_leaves_generator_and_support_unchanged(
    generator: FewShotGenerator, take: tuple[Clip, Landmarks]
) -> None:
    clip, landmarks = take
    frames, points = clip.frames.clone(), landmarks.points.clone()
    before = generator.adapt(clip.take([0]), landmarks.take([0])).animate(landmarks.take(range(8)), 25.0)
    generator.adapt(clip, landmarks).animate(landmarks, 25.0)
    after = generator.adapt(clip.take([0]), landmarks.take([0])).animate(landmarks.take(range(8)), 25.0)
    assert torch.equal(before.frames, after.frames)
    assert torch.equal(clip.frames, frames) and torch.equal(landmarks.points, points)


def test_more_shots_come_nearer(generator: FewShotGenerator) -> None:
    clip, landmarks = head_clip(9, 60, SIZE, fps=4)
    driving, real = landmarks.take(range(40, 60)), clip.frames[40:].float()

    def error(shots: int) -> float:
        talker = generator.adapt(clip.take(range(shots)), landmarks.take(range(shots)))
        return float((talker.animate(driving, 4.0).frames.float() - real).abs().mean())

    assert error(32) < error(8) < error(1)


def test_support_frames_without_a_face_are_not_used(generator: FewShotGenerator, take: tuple[Clip, Landmarks]) -> None:
    clip, landmarks = take
    points, found = landmarks.points.clone(), landmarks.found.clone()
    points[0], found[0] = torch.nan, False
    made = generator.adapt(clip, Landmarks(points, found)).animate(landmarks, 25.0)
    without = generator.adapt(clip.take(range(1, 24)), landmarks.take(range(1, 24))).animate(landmarks, 25.0)
    assert torch.equal(made.frames, without.frames)


def test_a_driving_row_without_a_face_holds_the_one_before(
    generator: FewShotGenerator, take: tuple[Clip, Landmarks]
) -> None:
    clip, landmarks = take
    points, found = landmarks.points.clone(), landmarks.found.clone()
    for t in (0, 5, 6):
        points[t], found[t] = torch.nan, False
    talker = generator.adapt(clip.take(range(4)), landmarks.take(range(4)))
    made = talker.animate(Landmarks(points, found), 25.0).frames
    assert torch.equal(made[5], made[4]) and torch.equal(made[6], made[4])
    assert torch.equal(made[0], made[1])
    assert torch.equal(made[7], talker.animate(landmarks, 25.0).frames[7])


def test_no_face_at_all_says_so(generator: FewShotGenerator, take: tuple[Clip, Landmarks]) -> None:
    clip, landmarks = take
    nothing = Landmarks(torch.full((24, 68, 2), torch.nan), torch.zeros(24, dtype=torch.bool))
    with pytest.raises(NoFaceFound, match="'head0006-0': none of 24 support frames has landmarks; choose other"):
        generator.adapt(clip, nothing)
    with pytest.raises(NoFaceFound, match="none of 24 driving frames has landmarks; check the driving video"):
        generator.adapt(clip, landmarks).animate(nothing, 25.0)
    with pytest.raises(ValueError, match="has 24 frames, its landmarks 2"):
        generator.adapt(clip, landmarks.take([0, 1]))


def test_every_metric_must_rank_a_blurred_generator_lower(
    generator: FewShotGenerator, take: tuple[Clip, Landmarks]
) -> None:
    clip, landmarks = take
    blurred = BlurGenerator(generator, 2.0)
    assert blurred.name == f"{generator.name}-blur2"
    made = blurred.adapt(clip, landmarks).animate(landmarks, 25.0).frames.float()
    assert made.shape == clip.frames.shape
    assert (made - clip.frames).abs().mean() > 1
    first = FirstFrameGenerator().adapt(clip, landmarks).animate(landmarks.take([3, 4]), 25.0)
    assert torch.equal(first.frames, clip.frames[[0, 0]])


# copy


def test_copy_picks_the_nearest_frame_where_it_is(take: tuple[Clip, Landmarks]) -> None:
    clip, landmarks = take
    nudged = all_found(landmarks.points[[4, 9, 2]] + 0.3)
    made = copy(CPU).adapt(clip, landmarks).animate(nudged, 10.0)
    assert torch.equal(made.frames, clip.frames[[4, 9, 2]]) and made.fps == 10.0
    # Not aligned: of two frames, the one in place wins against the one of the same shape elsewhere.
    shape = landmarks.points[:1]
    other = landmarks.points[12:13]
    centred = other - other.mean(1, keepdim=True) + shape.mean(1, keepdim=True)
    assert nearest_frames(torch.cat([shape + 40, centred]), shape).tolist() == [1]


# warp


def test_equal_points_give_the_identity(take: tuple[Clip, Landmarks]) -> None:
    points = take[1].points[:4]
    grid = base_flow(points, points, (SIZE, SIZE))
    assert grid.shape == (4, SIZE, SIZE, 2) and grid.dtype == torch.float32
    assert (grid - identity_grid(SIZE)).abs().max() * SIZE / 2 < 1e-3
    frames = take[0].frames[:4]
    assert (warp_frames(frames, grid).int() - frames.int()).abs().max() <= 1


def test_a_shift_of_the_points_shifts_the_face(take: tuple[Clip, Landmarks]) -> None:
    points = take[1].points[:1]
    shift = torch.tensor([4.0, -3.0])
    grid = base_flow(points, points + shift, (SIZE, SIZE))
    pixels = (grid + 1) * (SIZE - 1) / 2
    x, y = (points[0, 30] + shift).round().int().tolist()
    torch.testing.assert_close(pixels[0, y, x], torch.tensor([x, y]) - shift, rtol=0, atol=0.15)
    corners = grid[0][[0, 0, -1, -1], [0, -1, 0, -1]]
    torch.testing.assert_close(corners, torch.tensor([[-1.0, -1], [1, -1], [-1, 1], [1, 1]]), rtol=0, atol=0.05)


def test_driving_points_come_from_support_points(take: tuple[Clip, Landmarks]) -> None:
    support, driving = take[1].points[:1].expand(23, -1, -1), take[1].points[1:]
    grid = base_flow(support, driving, (SIZE, SIZE))
    at_points = torch.nn.functional.grid_sample(
        grid.permute(0, 3, 1, 2), (driving * 2 / (SIZE - 1) - 1)[:, None], align_corners=True
    )[:, :, 0].mT  # [23, 68, 2]
    missed = ((at_points + 1) * (SIZE - 1) / 2 - support).norm(dim=-1)
    eyes = (support[0, 36] - support[0, 45]).norm()
    assert missed.mean() < 0.02 * eyes and missed.max() < 0.15 * eyes
    assert folded(grid).float().mean() < 1e-3


def test_the_grid_of_a_batch_is_that_of_each_alone(take: tuple[Clip, Landmarks]) -> None:
    support, driving = take[1].points[:5], take[1].points[5:10]
    together = base_flow(support, driving, (64, SIZE))
    for i in range(5):
        alone = base_flow(support[i : i + 1], driving[i : i + 1], (64, SIZE))
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-5)


def test_the_grid_scales_with_the_size(take: tuple[Clip, Landmarks]) -> None:
    support, driving = take[1].points[:1], take[1].points[8:9]
    small = base_flow(support, driving, (SIZE, SIZE))
    factor = (4 * SIZE - 3 - 1) / (SIZE - 1)  # so that every fourth pixel of the large one is one of the small
    large = base_flow(support * factor, driving * factor, (4 * SIZE - 3, 4 * SIZE - 3))
    assert (large[:, ::4, ::4] - small).abs().max() * SIZE / 2 < 0.5  # the nodes lie nearer in the large one


def hostile(name: str, points: Tensor) -> tuple[Tensor, Tensor]:
    """Support and driving points that a solver could break on."""
    still = points[:1]
    line = torch.stack([torch.linspace(10, 80, 68), torch.linspace(10, 80, 68)], -1)[None]
    profile = (still - still.mean(1)) * torch.tensor([0.02, 1.0]) + still.mean(1)
    return {
        "all driving points in one place": (still, torch.full((1, 68, 2), 40.0)),
        "all points in one place": (torch.full((1, 68, 2), 40.0), torch.full((1, 68, 2), 40.0)),
        "on a line": (still, line),
        "profile": (still, profile),
        "from profile": (profile, still),
        "outside": (still, still + 500),
        "from outside": (still - 500, still),
        "on the border's anchors": (still, torch.zeros(1, 68, 2)),
        "mirrored": (still, torch.tensor([SIZE - 1.0, 0]) - still * torch.tensor([1.0, -1])),
    }[name]


@pytest.mark.parametrize(
    "name",
    [
        "all driving points in one place",
        "all points in one place",
        "on a line",
        "profile",
        "from profile",
        "outside",
        "from outside",
        "on the border's anchors",
        "mirrored",
    ],
)
def test_degenerate_points_give_no_nan(name: str, take: tuple[Clip, Landmarks]) -> None:
    clip, landmarks = take
    support, driving = hostile(name, landmarks.points)
    assert base_flow(support, driving, (SIZE, SIZE)).isfinite().all()
    made = warp(CPU).adapt(clip.take([0]), all_found(support)).animate(all_found(driving), 25.0)
    assert made.frames.shape == (1, 3, SIZE, SIZE)


def test_what_lies_beyond_the_border_is_no_hole(take: tuple[Clip, Landmarks]) -> None:
    white = Clip("white", torch.full((1, 3, SIZE, SIZE), 255, dtype=torch.uint8), 25.0)
    points = take[1].points[:1]
    for driving in (points + 30, points * 0.5, points * 2 - 40):
        made = warp(CPU).adapt(white, all_found(points)).animate(all_found(driving), 25.0)
        assert (made.frames == 255).all()


def test_a_closing_mouth_does_not_fold(take: tuple[Clip, Landmarks]) -> None:
    points = take[1].points
    gap = points[:, 66, 1] - points[:, 62, 1]
    wide, shut = points[gap.argmax()][None], points[gap.argmin()][None]
    assert gap.max() > 4 and gap.min() < 1
    for support, driving in ((wide, shut), (shut, wide)):
        assert folded(base_flow(support, driving, (SIZE, SIZE))).float().mean() < 2e-3


def test_warp_comes_nearer_than_copy() -> None:
    clip, landmarks = head_clip(11, 30, SIZE, fps=4)
    errors = {
        make.name: (
            make.adapt(clip.take([0]), landmarks.take([0])).animate(landmarks, 4.0).frames - clip.frames.float()
        )
        .abs()
        .mean()
        for make in (copy(CPU), warp(CPU))
    }
    assert errors["warp"] < 0.75 * errors["copy"]


def test_warp_comes_nearer_than_copy_on_real_people(real_data: Path) -> None:
    landmarker, detector = load_landmarker("dlib", CPU), load_detector("dlib", CPU)
    catalogue = pd.read_csv(real_data / "catalogue.csv")
    files = catalogue[(catalogue["label"] == "real") & (catalogue["frames"] >= 128)]["file"].iloc[:3]
    assert len(files) == 3
    for file in files:
        clip = read_clip(real_data / file, max_frames=128).take([0, 64, 96, 127])
        landmarks = find_landmarks(clip.frames, detector, landmarker)
        errors = {}
        for make in (copy(CPU), warp(CPU)):
            made = make.adapt(clip.take([0]), landmarks.take([0])).animate(landmarks.take([1, 2, 3]), clip.fps)
            errors[make.name] = float((made.frames - clip.frames[1:].float()).abs().mean())
        assert errors["warp"] < errors["copy"]
