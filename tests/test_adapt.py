"""The few-shot stage: it learns a person, never from its own answer, and leaves the networks as they were."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from generator.adapt import (
    TUNED,
    AdaptConfig,
    Adapted,
    LossWeights,
    Networks,
    Tune,
    _draw_views,
    _hold,
    _offer,
    adapt,
    embed,
    prepare,
    warp_smoothly,
)
from generator.networks import Discriminator, Embedder, Generator, NetworkConfig
from generator.samples import UNCHANGED
from thead_eval.errors import ConfigError, NoFaceFound, TrainingFailed
from thead_eval.synthetic import head_clip
from thead_eval.types import Clip, Landmarks

CPU = torch.device("cpu")
RGB = NetworkConfig(size=32, output_size=32, channels=8, max_channels=16, embedding=16, down=3, residual=1)
HYBRID = replace(RGB, output="hybrid", output_size=64, crop=32)
QUICK = AdaptConfig(steps=4, check_every=2, lr=1e-3, precision="32-true", augmentation=UNCHANGED)


def make_networks(config: NetworkConfig) -> Networks:
    torch.manual_seed(0)
    E, G, D = (network(config).eval().requires_grad_(False) for network in (Embedder, Generator, Discriminator))
    assert isinstance(E, Embedder) and isinstance(G, Generator) and isinstance(D, Discriminator)
    return Networks(E, G, D)


@pytest.fixture(scope="module")
def hybrid() -> Networks:
    return make_networks(HYBRID)


@pytest.fixture(scope="module")
def take() -> tuple[Clip, Landmarks]:
    return head_clip(6, 32, 64, fps=4)


def shots(take: tuple[Clip, Landmarks], count: int) -> tuple[Clip, Landmarks]:
    return take[0].take(range(count)), take[1].take(range(count))


def states(networks: Networks) -> list[torch.Tensor]:
    modules = (networks.E, networks.G, networks.D)
    return [t.clone() for module in modules if module is not None for t in module.state_dict().values()]


def equal(a: Adapted, b: Adapted) -> bool:
    pairs = zip(a.G.state_dict().values(), b.G.state_dict().values(), strict=True)
    return torch.equal(a.psi_prime, b.psi_prime) and all(torch.equal(x, y) for x, y in pairs)


# Feed-forward


def test_feed_forward_is_p_of_the_mean_embedding(hybrid: Networks, take: tuple[Clip, Landmarks]) -> None:
    made = adapt(hybrid, *shots(take, 3), None)
    person = prepare(*shots(take, 3), HYBRID)
    alone = [embed(hybrid.E, prepare(take[0].take([t]), take[1].take([t]), HYBRID), CPU) for t in range(3)]
    e_new = torch.cat(alone).mean(0, keepdim=True)
    torch.testing.assert_close(embed(hybrid.E, person, CPU), e_new)
    torch.testing.assert_close(made.psi_prime, hybrid.G.P(e_new))
    assert made.G is hybrid.G and made.steps == 0 and made.seconds > 0 and made.checks == ()
    assert made.person.frames.shape == (3, 3, 64, 64) and torch.equal(made.person.frames, take[0].frames[:3])


def test_frames_of_another_size_are_brought_to_the_networks(take: tuple[Clip, Landmarks]) -> None:
    person = prepare(*head_clip(6, 2, 128, fps=4), HYBRID)
    assert person.side == 128 and person.frames.shape == (2, 3, 64, 64)
    assert (person.frames.float() - take[0].frames[:2].float()).abs().mean() < 6
    assert (person.points - take[1].points[:2]).abs().max() < 0.5


def test_frames_without_a_face_are_not_used(hybrid: Networks, take: tuple[Clip, Landmarks]) -> None:
    clip, landmarks = shots(take, 3)
    points, found = landmarks.points.clone(), landmarks.found.clone()
    points[1], found[1] = torch.nan, False
    made = adapt(hybrid, clip, Landmarks(points, found), None)
    assert equal(made, adapt(hybrid, clip.take([0, 2]), landmarks.take([0, 2]), None))
    with pytest.raises(NoFaceFound, match="none of 1 support frames has landmarks"):
        adapt(hybrid, clip.take([1]), Landmarks(points, found).take([1]), None)


def test_oblong_frames_are_refused(hybrid: Networks, take: tuple[Clip, Landmarks]) -> None:
    wide = Clip("wide", take[0].frames[:1, :, :48], 25.0)
    with pytest.raises(ConfigError, match="clip 'wide' is 64x48, and the generator takes square head crops"):
        adapt(hybrid, wide, take[1].take([0]), None)


# Fine-tuning


@pytest.mark.parametrize("count", [1, 8, 32])
def test_fine_tuning_leaves_the_networks_and_repeats_itself(
    count: int, hybrid: Networks, take: tuple[Clip, Landmarks]
) -> None:
    before = states(hybrid)
    made = adapt(hybrid, *shots(take, count), QUICK)
    assert all(torch.equal(a, b) for a, b in zip(before, states(hybrid), strict=True))
    assert [check.step for check in made.checks] == [0, 2, 4]
    assert made.steps == min(made.checks, key=lambda check: check.loss).step
    if count == 8:
        assert equal(made, adapt(hybrid, *shots(take, count), QUICK))
        other = adapt(hybrid, *shots(take, count), replace(QUICK, seed=1))
        assert [check.loss for check in other.checks] != [check.loss for check in made.checks]


def test_a_person_is_learnt() -> None:
    networks = make_networks(RGB)
    clip, landmarks = head_clip(6, 4, 32, fps=2)
    weights = LossWeights(content=0, adversarial=0.01, feature_matching=1, l1=10)
    config = replace(QUICK, steps=30, check_every=30, lr=1e-2, weights=weights, ema=0.8)
    made = adapt(networks, clip, landmarks, config)
    assert made.steps == 30 and made.checks[-1].loss < 0.7 * made.checks[0].loss


def test_the_best_average_is_kept(hybrid: Networks, take: tuple[Clip, Landmarks]) -> None:
    config = replace(
        QUICK, steps=12, check_every=2, patience=2, lr=0.3, ema=0.0, tune="all"
    )  # every step makes it worse
    made = adapt(hybrid, *shots(take, 1), config)
    assert [check.step for check in made.checks] == [0, 2, 4] and made.steps == 0
    start = adapt(hybrid, *shots(take, 1), None)
    assert torch.equal(made.psi_prime, start.psi_prime)
    weights = zip(made.G.parameters(), start.G.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in weights)


@pytest.mark.parametrize("tune", TUNED)
def test_only_what_is_tuned_changes(tune: Tune, hybrid: Networks, take: tuple[Clip, Landmarks]) -> None:
    near = LossWeights(content=0, adversarial=0, feature_matching=0)
    config = replace(QUICK, steps=1, check_every=1, ema=0.0, tune=tune, lr=1e-5, weights=near)
    made = adapt(hybrid, *shots(take, 1), config)
    if not made.steps:
        pytest.fail(f"the first step made it worse: {made.checks}")
    named = dict(hybrid.G.named_parameters())
    changed = {name for name, p in made.G.named_parameters() if not torch.equal(p, named[name])}
    parts = {"up.2" if name.startswith("up.2.") else name.split(".")[0] for name in changed}
    heads = {"to_rgb", "to_flow", "to_masks"}
    expected = {"all": {"down", "middle", "up", "up.2"} | heads, "adain": set(), "adain+last_up": {"up.2"} | heads}
    assert parts == expected.get(tune, heads)
    assert not torch.equal(made.psi_prime, adapt(hybrid, *shots(take, 1), None).psi_prime)


@pytest.mark.parametrize(("output", "count", "learns_G"), [("hybrid", 1, False), ("hybrid", 2, True), ("rgb", 1, True)])
def test_a_hybrid_with_one_frame_learns_psi_alone(
    output: str, count: int, learns_G: bool, hybrid: Networks, take: tuple[Clip, Landmarks]
) -> None:
    near = LossWeights(content=0, adversarial=0, feature_matching=0)
    networks = hybrid if output == "hybrid" else make_networks(RGB)
    small = take if output == "hybrid" else head_clip(6, 32, 32, fps=4)
    made = adapt(networks, *shots(small, count), replace(QUICK, steps=1, check_every=1, ema=0.0, lr=1e-5, weights=near))
    same = zip(made.G.parameters(), networks.G.parameters(), strict=True)
    assert made.steps == 1 and learns_G == (not all(torch.equal(a, b) for a, b in same))


def test_the_anchor_holds_back(hybrid: Networks, take: tuple[Clip, Landmarks]) -> None:
    config = replace(QUICK, steps=2, check_every=2, ema=0.0, lr=1e-5, tune="all")
    start = adapt(hybrid, *shots(take, 1), None).psi_prime
    free, held = (
        adapt(hybrid, *shots(take, 1), replace(config, anchor=anchor)).psi_prime - start for anchor in (0.0, 0.9)
    )
    assert 0 < held.norm() < 0.2 * free.norm()


def test_a_loss_that_is_no_number_stops_it(hybrid: Networks, take: tuple[Clip, Landmarks]) -> None:
    with pytest.raises(
        TrainingFailed, match=r"adapting to 'head0006-0': the loss '\w+' is (nan|inf) at step \d of 4; "
    ):
        adapt(hybrid, *shots(take, 1), replace(QUICK, lr=1e30))


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"steps": 0}, "adapt steps is 0; it must be at least 1"),
        ({"tune": "mouth"}, "adapt tune 'mouth' is not known; choose all, adain, adain"),
        ({"ema": 1.0}, "adapt ema is 1.0; it must be from 0 to below 1"),
        ({"jitter": 0.5}, "adapt jitter is 0.5; choose 0 to 0.1"),
    ],
)
def test_a_setting_out_of_range(wrong: dict[str, object], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        AdaptConfig(**wrong)  # type: ignore[arg-type]


# What a step sees


def test_a_target_is_never_among_what_it_is_made_from(take: tuple[Clip, Landmarks]) -> None:
    person = prepare(*shots(take, 8), HYBRID)
    seen = set()
    for seed in range(20):
        offered = _offer(person, 5, np.random.default_rng(seed), QUICK)
        assert all(picture is not person.pictures[5] for picture, _ in offered)
        seen.add(len(offered))
    assert {1, 7} < seen  # from one of the others to all
    # Of one frame, what is offered is warped, the target as it was.
    alone = prepare(*shots(take, 1), HYBRID)
    views = _draw_views(alone, [0], np.random.default_rng(0), HYBRID, QUICK)
    assert views.sources is not None
    frame = take[0].frames[0].float() / 127.5 - 1
    assert torch.equal(views.x[0], frame) and (views.sources[0] - frame).abs().mean() > 0.02


def test_frames_to_judge_by_are_not_learnt(take: tuple[Clip, Landmarks]) -> None:
    for count, held in ((1, {0}), (4, {0, 1, 2, 3}), (8, {0}), (32, {0, 8, 16, 24})):
        judged, learnt = _hold(prepare(*shots(take, count), HYBRID))
        assert set(judged) == held and len(judged) == 4
        assert learnt == [i for i in range(count) if count < 8 or i not in held]


def test_landmarks_move_with_the_warped_picture(take: tuple[Clip, Landmarks]) -> None:
    points = take[1].points[0].numpy()
    for axis in (0, 1):
        # A picture whose values say where a pixel came from.
        ramp = np.arange(64, dtype=np.uint8) * 4
        plane = np.broadcast_to(ramp if axis == 0 else ramp[:, None], (64, 64))
        picture = Image.fromarray(np.stack([plane] * 3, -1))
        warped, moved = warp_smoothly(picture, points, np.random.default_rng(1), 0.03)
        assert np.abs(moved - points).max() > 2  # pixels of 64
        inside = ((moved > 1) & (moved < 62)).all(1)
        values = np.asarray(warped)[..., 0]
        found = [values[round(y), round(x)] / 4 for x, y in moved[inside]]
        assert np.abs(np.array(found) - points[inside, axis]).max() < 1.5
        border = [values[0, 0], values[0, -1], values[-1, 0], values[-1, -1]]
        assert np.abs(np.array(border, int) - [plane[0, 0], plane[0, -1], plane[-1, 0], plane[-1, -1]]).max() <= 8
    still, same = warp_smoothly(picture, points, np.random.default_rng(1), 0.0)
    np.testing.assert_allclose(same, points, atol=1e-3)
    assert np.abs(np.asarray(still).astype(int) - np.asarray(picture)).max() <= 1
