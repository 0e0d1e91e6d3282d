"""E, G and D: the layer plan, what each part does, and mistakes of re-implementations that must not return."""

import copy
import dataclasses
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from generator import candidates
from generator.copy import nearest_frames
from generator.networks import (
    AdaptiveNorm,
    Attention,
    Discriminator,
    Embedder,
    Generator,
    NetworkConfig,
    Output,
    ResidualBlock,
    blend,
    fold_spectral_norm,
    instance_norm,
    mask_start,
    to_network,
    to_picture,
    view,
)
from generator.warp import base_flow, warp_frames
from thead_eval.drawing import draw_clip, draw_landmarks
from thead_eval.errors import ConfigError
from thead_eval.synthetic import head_clip

RGB = NetworkConfig(size=32, output_size=32, channels=8, max_channels=16, embedding=16, down=3, residual=1)
HYBRID = NetworkConfig(
    size=32, output="hybrid", output_size=64, channels=8, max_channels=16, embedding=16, down=3, residual=1, crop=32
)
NARROW = NetworkConfig(channels=8, max_channels=16, embedding=16)  # otherwise the paper's


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def pictures(count: int, side: int) -> Tensor:
    return torch.rand(count, 3, side, side) * 2 - 1


def hybrid_inputs(count: int, config: NetworkConfig) -> tuple[Tensor, Tensor]:
    """Sources and grids that move nothing."""
    C, side = config.candidates, config.output_size
    still = F.affine_grid(torch.eye(2, 3)[None], [1, 1, side, side], align_corners=True)
    return pictures(count * C, side).view(count, C, 3, side, side), still.expand(count, C, -1, -1, -1)


def millions(network: nn.Module) -> float:
    return sum(parameter.numel() for parameter in network.parameters()) / 1e6


# The layer plan.


def test_the_papers_networks_have_as_many_parameters_as_those_of_its_authors() -> None:
    config = NetworkConfig()
    E, G, D = Embedder(config), Generator(config), Discriminator(config)
    assert [round(millions(network), 2) for network in (E, G, D)] == [14.83, 37.91, 19.55]
    assert G.affine_size == 13_056 and round(millions(G.P), 2) == 6.70


def test_self_attention_is_an_option_at_32_and_64() -> None:
    config = dataclasses.replace(NARROW, attention=True)
    networks = [kind(config) for kind in (Embedder, Generator, Discriminator)]
    assert [sum(isinstance(m, Attention) for m in network.modules()) for network in networks] == [1, 2, 1]


def test_self_attention_starts_as_the_identity() -> None:
    x = torch.randn(2, 16, 8, 8)
    attention = Attention(16)
    assert torch.equal(attention(x), x)
    attention.gamma.data.fill_(1)
    assert attention(x).shape == x.shape and not torch.allclose(attention(x), x)


@pytest.mark.parametrize("config", [RGB, HYBRID], ids=["rgb", "hybrid"])
def test_spectral_norm_is_on_every_layer_but_the_two_that_start_near_zero(config: NetworkConfig) -> None:
    E, G, D = Embedder(config), Generator(config), Discriminator(config)
    layers = {
        name: layer
        for network in (E, G, D)
        for name, layer in network.named_modules()
        if isinstance(layer, (nn.Conv2d, nn.Linear))
    }
    bare = {name for name, layer in layers.items() if not parametrize.is_parametrized(layer)}
    assert bare == ({"to_flow", "to_masks"} if config.output == "hybrid" else set())
    assert float(torch.linalg.matrix_norm(G.P.weight.detach(), 2)) == pytest.approx(1, abs=0.05)


def test_spectral_norm_folds_into_the_weights() -> None:
    G = Generator(RGB).eval()
    folded = copy.deepcopy(G)
    fold_spectral_norm(folded)
    y, psi_hat = pictures(2, 32), torch.randn(2, G.affine_size)
    assert not any("parametrizations" in name for name in folded.state_dict())
    assert torch.allclose(G(y, psi_hat).frame, folded(y, psi_hat).frame, atol=1e-5)
    assert any(parametrize.is_parametrized(module) for module in G.modules()), "the copy's original is whole"


# Blocks.


def test_instance_norm_is_torchs_times_weight_plus_bias() -> None:
    x, weight, bias = torch.randn(2, 5, 8, 8) * 3 + 1, torch.randn(2, 5), torch.randn(1, 5)
    expected = F.instance_norm(x, eps=1e-4) * weight[:, :, None, None] + bias[:, :, None, None]
    assert torch.allclose(instance_norm(x, weight, bias), expected, atol=1e-5)
    with torch.no_grad():
        assert torch.allclose(instance_norm(x, weight, bias), expected, atol=1e-5)


@pytest.mark.parametrize("rows", [(2, 2), (1, 1), (2, 1)])
def test_instance_norm_has_the_gradients_of_its_definition(rows: tuple[int, int]) -> None:
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    weight, bias = (torch.randn(n, 3, dtype=torch.float64, requires_grad=True) for n in rows)
    assert torch.autograd.gradcheck(instance_norm, (x, weight, bias))


def test_instance_norm_keeps_bfloat16_and_counts_in_float32() -> None:
    """16,384 values of about 100: sums of bfloat16 would stop growing long before the end."""
    x = (torch.randn(1, 2, 128, 128) + 100).bfloat16()
    out = instance_norm(x, torch.ones(1, 2), torch.zeros(1, 2))
    assert out.dtype == torch.bfloat16
    assert out.float().mean().abs() < 0.3 and out.float().std() == pytest.approx(1, abs=0.05)


def test_psi_is_scales_then_shifts() -> None:
    out = AdaptiveNorm(4)(torch.randn(2, 4, 16, 16), torch.tensor([[2.0] * 4 + [3.0] * 4]))
    assert torch.allclose(out.mean((2, 3)), torch.tensor(3.0), atol=1e-4)
    assert torch.allclose(out.std((2, 3), correction=0), torch.tensor(2.0), atol=1e-3)


@pytest.mark.parametrize("resize", ["up", "down"])
def test_the_skip_is_the_papers_though_it_works_at_the_smaller_side(resize: str) -> None:
    block = ResidualBlock(4, 8, None, "up" if resize == "up" else "down").eval()
    x = torch.randn(2, 4, 8, 8)
    skip = block.skip(F.interpolate(x, scale_factor=2)) if resize == "up" else F.avg_pool2d(block.skip(x), 2)
    out = F.relu(x)
    out = F.interpolate(out, scale_factor=2) if resize == "up" else out
    out = block.conv_2(F.relu(block.conv_1(out)))
    out = F.avg_pool2d(out, 2) if resize == "down" else out
    assert torch.allclose(block(x), out + skip, atol=1e-5)


# E.


def test_an_embedding_is_a_sum_of_what_is_positive() -> None:
    E = Embedder(RGB).eval()
    e = E(pictures(2, 32), pictures(2, 32))
    assert e.shape == (2, 16) and e.dtype == torch.float32 and (e >= 0).all()


def test_results_do_not_depend_on_the_batch() -> None:
    E, G, D = Embedder(RGB).eval(), Generator(RGB).eval(), Discriminator(RGB).eval()
    x, y = pictures(3, 32), pictures(3, 32)
    e = E(x, y)
    assert torch.allclose(E(x[1:2], y[1:2]), e[1:2], atol=1e-5)
    assert torch.allclose(G(y[1:2], G.P(e[1:2])).frame, G(y, G.P(e)).frame[1:2], atol=1e-4)
    assert torch.allclose(D(x[1:2], y[1:2], e[1:2]).r, D(x, y, e).r[1:2], atol=1e-4)


# G.


def test_rgb_output_is_the_painted_picture() -> None:
    output: Output = Generator(RGB)(pictures(2, 32), torch.randn(2, Generator(RGB).affine_size))
    assert output.frame.shape == (2, 3, 32, 32) and output.frame.abs().max() <= 1
    assert output.rgb is output.frame and output.masks is None and output.flow is None


def test_one_psi_serves_a_whole_batch() -> None:
    G = Generator(RGB).eval()
    y, psi_hat = pictures(3, 32), torch.randn(1, G.affine_size)
    assert torch.allclose(G(y, psi_hat).frame, G(y, psi_hat.expand(3, -1)).frame, atol=1e-5)


def test_scales_start_about_one() -> None:
    G = Generator(RGB)
    start = iter(torch.split(G.P.bias.detach(), G.affine_sizes))
    for block in [*G.middle, *G.up]:
        assert isinstance(block, ResidualBlock)
        for part in torch.split(next(start), [block.norm_1.affine_size, block.norm_2.affine_size]):
            assert (part.chunk(2)[0] == 1).all() and (part.chunk(2)[1] == 0).all()


def test_the_picture_depends_on_the_person() -> None:
    """The embedder that is ignored (vincent-thevenin#18): at the start at least, the way is open."""
    G = Generator(RGB).eval()
    y, e = pictures(1, 32).expand(2, -1, -1, -1), torch.rand(2, 16) * 10
    one, other = G(y, G.P(e)).frame
    assert (one - other).abs().mean() > 0.01


def test_nothing_normalises_the_output() -> None:
    """A norm on the three channels (grey-eye) takes every colour back to grey: here a bias shows."""
    G = Generator(RGB).eval()
    y, psi_hat = pictures(1, 32), torch.randn(1, G.affine_size)
    before = G(y, psi_hat).frame
    with torch.no_grad():
        G.to_rgb.get_parameter("bias").add_(torch.tensor([1.0, 0, 0]))
    shift = (G(y, psi_hat).frame - before).mean((0, 2, 3))
    assert shift[0] > 0.2 and shift[1] == shift[2] == 0


def test_landmarks_are_squeezed_to_16_pixels_and_no_further() -> None:
    """The paper's four halvings; six (grey-eye) leave nothing of where an eye is."""
    G = Generator(NARROW)
    assert 256 >> len(G.down) == 16 and len(G.middle) == 4


def test_hybrid_output_has_its_shapes() -> None:
    G = Generator(HYBRID)
    output = G(pictures(2, 32), torch.randn(2, G.affine_size), *hybrid_inputs(2, HYBRID))
    assert output.frame.shape == output.rgb.shape == (2, 3, 64, 64)
    assert output.masks is not None and output.masks.shape == (2, 4, 32, 32)
    assert torch.allclose(output.masks.sum(1), torch.tensor(1.0))
    assert output.flow is not None and output.flow.shape == (2, 3, 2, 8, 8)
    assert output.frame.abs().max() <= 1 + 1e-5


def test_a_blend_is_its_sources_by_their_masks() -> None:
    sources, grids = hybrid_inputs(2, HYBRID)
    masks = torch.tensor([0.5, 0.25, 0.0, 0.25])[None, :, None, None].expand(2, -1, 32, 32)
    rgb = pictures(2, 64)
    frame = blend(sources, grids, torch.zeros(2, 3, 2, 8, 8), masks, rgb)
    assert torch.allclose(frame, 0.5 * sources[:, 0] + 0.25 * sources[:, 1] + 0.25 * rgb, atol=1e-4)


def test_flow_moves_a_source_by_parts_of_its_half_width() -> None:
    sources, grids = hybrid_inputs(1, HYBRID)
    only_first = torch.tensor([1.0, 0, 0, 0])[None, :, None, None].expand(1, -1, 32, 32)
    flow = torch.zeros(1, 3, 2, 8, 8)
    flow[:, 0, 0] = 2 / 63 * 5  # five pixels to the right
    frame = blend(sources, grids, flow, only_first, pictures(1, 64))
    assert torch.allclose(frame[..., :-5], sources[:, 0, :, :, 5:], atol=1e-3)


def test_the_hybrid_starts_where_the_warp_control_stands() -> None:
    config = NetworkConfig(
        size=64, output="hybrid", output_size=128, channels=16, max_channels=32, embedding=32, residual=1, crop=64
    )
    clip, landmarks = head_clip(3, frames=40, size=128)
    support, driving = [0, 12, 24], [8, 30, 39]
    support_points, driving_points = landmarks.points[support], landmarks.points[driving]
    chosen = candidates.choose(support_points, driving_points, config)
    grids = candidates.grids(support_points, driving_points, chosen, config)
    E, G = Embedder(config), Generator(config)
    y = to_network(draw_clip(landmarks, (64, 64)))[driving]
    x = F.avg_pool2d(to_network(clip.frames), 2)[support]
    with torch.no_grad():
        e_hat = E(x, to_network(draw_clip(landmarks, (64, 64)))[support]).mean(0, keepdim=True)
        frames = to_picture(G(y, G.P(e_hat), to_network(clip.frames[support][chosen]), grids).frame)

    nearest = support_points[chosen[:, 0]]
    warped = warp_frames(clip.frames[support][chosen[:, 0]], base_flow(nearest, driving_points, (128, 128)))
    real = clip.frames[driving]
    assert (frames.float() - warped.float()).abs().mean() < 4  # of 255
    copied = clip.frames[support][chosen[:, 0]]
    assert (frames.float() - real.float()).abs().mean() < (copied.float() - real.float()).abs().mean()


def test_the_trunk_sees_candidates_where_the_frame_has_them() -> None:
    """Two conventions of where a pixel lies, at two sizes, must not differ: a half-pixel shift blurs all."""
    from generator.networks import _preview

    clip, _ = head_clip(1, frames=1, size=64)
    sources = to_network(clip.frames)[:, None]
    still = F.affine_grid(torch.eye(2, 3)[None], [1, 1, 64, 64], align_corners=True)[:, None]
    assert torch.allclose(_preview(sources, still, 32)[:, 0], F.avg_pool2d(sources[:, 0], 2), atol=1e-4)
    assert torch.allclose(_preview(sources, still, 64), sources, atol=1e-4)


# D.


def test_a_score_is_the_papers_projection_with_no_sigmoid() -> None:
    D = Discriminator(RGB).eval()
    x, y, w = pictures(2, 32), pictures(2, 32), torch.randn(2, 16)
    score = D(x, y, w)
    v = F.relu(score.features[-1]).sum((2, 3))
    expected = (v * (w + D.w_0.weight[0])).sum(1) + D.w_0.bias
    assert torch.allclose(score.r, expected, atol=1e-4)
    far = D(x, y, 1000 * torch.ones(1, 16)).r
    assert (far > 1).all(), "a sigmoid under a hinge never leaves its slope"


def test_features_are_taken_after_each_residual_block() -> None:
    score = Discriminator(RGB)(pictures(2, 32), pictures(2, 32), torch.zeros(1, 16))
    assert [tuple(f.shape[1:]) for f in score.features] == [(8, 16, 16), (16, 8, 8), (16, 4, 4), (16, 4, 4)]


def test_d_sees_one_crop_of_frame_and_landmarks() -> None:
    x = pictures(2, 64)
    y = F.avg_pool2d(x, 2)
    seen = view(x, y, HYBRID, torch.tensor([[0, 32], [5, 7]]))
    assert torch.equal(seen.x[0], x[0, :, :32, 32:]) and torch.equal(seen.x[1], x[1, :, 5:37, 7:39])
    grown = F.interpolate(y, size=(64, 64), mode="bilinear")
    assert torch.allclose(seen.y[1], grown[1, :, 5:37, 7:39], atol=1e-5)
    assert torch.equal(view(x, y, HYBRID).x, x[:, :, 16:48, 16:48])


def test_without_a_crop_d_sees_the_whole() -> None:
    x, y = pictures(2, 32), pictures(2, 32)
    assert view(x, y, RGB).x is x
    twice = NetworkConfig(size=32, output="hybrid", output_size=64, down=3)
    assert view(pictures(2, 64), y, twice).x.shape == (2, 3, 32, 32)


# Masks.


def test_beyond_its_reach_the_face_leaves_the_frame_as_it_was_filmed() -> None:
    config = replace(HYBRID, reach=3)
    _, landmarks = head_clip(2, 2, 32)
    y = to_network(draw_landmarks(landmarks.points[0], 32, 32))[None]
    masks = mask_start(y, config).softmax(1)  # [1, C + 1, S, S]
    drawn = (y[0] > -1).any(0)
    assert masks[0, 2][drawn].max() < 0.5 < 0.99 < masks[0, 2, 0, 0]
    assert torch.equal(mask_start(y, HYBRID), torch.zeros(1, 4, 32, 32))
    near = masks[0, 2] < 0.5
    assert drawn.sum() < near.sum() < 0.8 * near.numel()


# Precision.


@pytest.mark.parametrize("config", [RGB, HYBRID], ids=["rgb", "hybrid"])
def test_bfloat16_is_finite_and_near_float32(config: NetworkConfig) -> None:
    E, G, D = Embedder(config), Generator(config), Discriminator(config)
    for network in (E, G, D):
        network.to(memory_format=torch.channels_last)
    x, y = pictures(2, 32), pictures(2, 32)
    extra = hybrid_inputs(2, config) if config.output == "hybrid" else (None, None)
    frames, scores = [], []
    for mixed in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            e_hat = E(x, y)
            output = G(y, G.P(e_hat), *extra)
            score = D(*view(output.frame, y, config), e_hat)
        assert e_hat.dtype == output.frame.dtype == score.r.dtype == torch.float32
        frames.append(output.frame)
        scores.append(score.r)
    assert (frames[0] - frames[1]).abs().mean() < 0.06
    assert torch.allclose(scores[0], scores[1], rtol=0.05, atol=0.05)
    torch.autograd.backward(scores[1].sum())
    for network in (E, G, D):
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_constant_pictures_give_no_nan() -> None:
    """Black support frames and landmarks of no face: instance normalisation divides by a deviation of 0."""
    E, G = Embedder(RGB), Generator(RGB)
    black = -torch.ones(1, 3, 32, 32)
    frame = G(black, G.P(E(black, black))).frame
    torch.autograd.backward(frame.sum())
    assert frame.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in G.parameters())


# Pictures.


def test_pictures_survive_the_way_to_the_networks_and_back() -> None:
    values = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(to_picture(to_network(values)), values)
    assert to_network(values).min() == -1 and to_network(values).max() == 1
    assert to_picture(torch.tensor([-1.7, 1.7])).tolist() == [0, 255]


# Candidates.


def apart(faces: int) -> Tensor:
    """[faces, 68, 2] points of 64 pixels: a spline through points that nearly meet is no better than its rounding."""
    row = torch.arange(9) * 7.0
    grid = torch.cartesian_prod(row, row)[:68]
    return grid + 3 * torch.rand(faces, 68, 2)


def test_candidates_are_the_nearest_the_next_and_the_nearest_as_it_is() -> None:
    support, driving = apart(6), apart(4)
    chosen = candidates.choose(support, driving, HYBRID)
    assert torch.equal(chosen[:, 0], nearest_frames(support, driving)) and torch.equal(chosen[:, 2], chosen[:, 0])
    assert (chosen[:, 1] != chosen[:, 0]).all()
    grids = candidates.grids(support, driving, chosen, HYBRID)
    assert grids.shape == (4, 3, 64, 64, 2)
    for c in (0, 1):
        assert torch.allclose(grids[:, c], base_flow(support[chosen[:, c]], driving, (64, 64)), atol=1e-5)
    still = F.affine_grid(torch.eye(2, 3)[None], [1, 1, 64, 64], align_corners=True)
    assert torch.allclose(grids[:, 2], still.expand(4, -1, -1, -1), atol=1e-6)


def test_a_single_support_frame_fills_all_places() -> None:
    chosen = candidates.choose(torch.rand(1, 68, 2), torch.rand(3, 68, 2), HYBRID)
    assert chosen.tolist() == [[0, 0, 0]] * 3
    assert set(candidates.choose(torch.rand(2, 68, 2), torch.rand(1, 68, 2), HYBRID)[0].tolist()) == {0, 1}


def test_a_single_candidate_is_warped() -> None:
    one = NetworkConfig(size=32, output="hybrid", output_size=64, down=3, candidates=1)
    support, driving = apart(2), apart(1)
    chosen = candidates.choose(support, driving, one)
    grids = candidates.grids(support, driving, chosen, one)
    assert torch.allclose(grids[:, 0], base_flow(support[chosen[:, 0]], driving, (64, 64)), atol=1e-5)


# Config.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 100}, "network size 100 is not a power of two from 32 on; choose 128 or 256"),
        ({"output": "sepia"}, "network output 'sepia' is not known; choose 'rgb' or 'hybrid'"),
        ({"output_size": 300}, "network output_size 300 does not fit size 256; choose 256 or 512"),
        ({"down": 9}, "network down 9 does not fit size 256; choose 3 to 7"),
        ({"embedding": 0}, "network embedding is 0; it must be at least 1"),
        ({"residual": -1}, "network residual is -1; it must be at least 0"),
        ({"channels": 4, "attention": True}, "network attention needs channels of at least 8, not 4"),
        ({"crop": 100}, "network crop 100 does not fit size 256; choose 256 or leave it out"),
    ],
)
def test_a_config_that_does_not_fit_says_so(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        NetworkConfig(**change)  # type: ignore[arg-type]  # the values are wrong
