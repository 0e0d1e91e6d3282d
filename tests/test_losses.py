"""The losses: by hand where a reader can follow, and content networks that hold in both precisions."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generator import losses
from generator.losses import (
    ContentLoss,
    EfficientNetLite0,
    Square,
    adversarial_loss,
    caffe_vgg19,
    caffe_vggface,
    content_loss,
    cut_faces,
    discriminator_loss,
    feature_matching_loss,
    load_content,
    match_loss,
)
from generator.networks import to_network, to_picture
from thead_eval import weights
from thead_eval.dlib_resnet import read_dlib_resnet
from thead_eval.errors import ConfigError, WeightsCorrupt, WeightsMissing
from thead_eval.synthetic import head_clip

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def efflite0() -> ContentLoss:
    return load_content(["efflite0"], CPU)


@pytest.fixture(scope="module")
def heads() -> Tensor:
    """Four people [4, 3, 128, 128]."""
    return to_network(torch.cat([head_clip(person, frames=1, size=128)[0].frames for person in range(4)]))


# Of the same four people [4, 68, 2].
POINTS = torch.cat([head_clip(person, frames=1, size=128)[1].points for person in range(4)])


# Adversarial terms.


def test_the_hinge_by_hand() -> None:
    r_real, r_fake = torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.5])
    assert discriminator_loss(r_real, r_fake) == (0 + 0.5) / 2 + (0 + 1.5) / 2


def test_the_hinge_rewards_nothing_beyond_one() -> None:
    """Without its ReLU (grey-eye#20) a sure D is paid for ever greater scores, and runs away."""
    r_real, r_fake = torch.tensor([50.0], requires_grad=True), torch.tensor([-50.0], requires_grad=True)
    loss = discriminator_loss(r_real, r_fake)
    torch.autograd.backward(loss)
    assert loss == 0 and r_real.grad == 0 and r_fake.grad == 0


def test_g_is_paid_for_its_score() -> None:
    r_fake = torch.tensor([3.0, -1.0], requires_grad=True)
    loss = adversarial_loss(r_fake)
    torch.autograd.backward(loss)
    assert loss == -1 and r_fake.grad is not None and r_fake.grad.tolist() == [-0.5, -0.5]


def test_feature_matching_is_the_mean_over_the_maps_and_moves_the_fake_alone() -> None:
    fake = [torch.zeros(1, 1, 2, 2, requires_grad=True), torch.zeros(1, 3, 1, 1, requires_grad=True)]
    real = [torch.ones(1, 1, 2, 2, requires_grad=True), 3 * torch.ones(1, 3, 1, 1, requires_grad=True)]
    loss = feature_matching_loss(fake, real)
    torch.autograd.backward(loss)
    assert loss == 2
    assert all(f.grad is not None for f in fake) and all(r.grad is None for r in real[:1])


def test_match_loss_by_hand() -> None:
    assert match_loss(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 4.0]])) == 1.5


def test_match_loss_pulls_both() -> None:
    e_hat, w = torch.zeros(1, 2, requires_grad=True), torch.ones(1, 2, requires_grad=True)
    torch.autograd.backward(match_loss(e_hat, w))
    assert e_hat.grad is not None and w.grad is not None


# Content.


def test_content_is_nothing_for_the_same_and_grows_with_blur(efflite0: ContentLoss, heads: Tensor) -> None:
    blurred = [F.avg_pool2d(heads, side, 1, side // 2) for side in (3, 7)]
    little, much = (float(efflite0(picture, heads, POINTS)) for picture in blurred)
    assert float(efflite0(heads, heads, POINTS)) == 0
    assert 0 < little < much < float(efflite0(heads.flip(0), heads, POINTS))


def test_every_layer_counts_alike(heads: Tensor) -> None:
    """Of another person's picture each of the six layers, and of the pooled features, makes 1 / 20 to 1 / 3 of it."""
    network = EfficientNetLite0().eval().requires_grad_(False)
    maps, others = network.maps(heads), network.maps(heads.flip(0))
    parts = torch.tensor([float((a - b).abs().mean() / b.abs().mean()) for a, b in zip(others, maps, strict=True)])
    assert len(parts) == 7 and ((parts / parts.sum()) > 0.05).all() and ((parts / parts.sum()) < 0.34).all()


def test_content_does_not_depend_on_the_batch(efflite0: ContentLoss, heads: Tensor) -> None:
    whole = efflite0(heads.flip(0), heads, POINTS)
    alone = torch.stack(
        [efflite0(a[None], b[None], POINTS[: len(b[None])]) for a, b in zip(heads.flip(0), heads, strict=True)]
    )
    assert torch.allclose(whole, alone.mean(), rtol=1e-4)


def test_content_moves_the_fake_and_nothing_else(efflite0: ContentLoss, heads: Tensor) -> None:
    fake, real = heads.flip(0).requires_grad_(), heads.clone().requires_grad_()
    torch.autograd.backward(efflite0(fake, real, POINTS[: len(real)]))
    assert fake.grad is not None and fake.grad.abs().sum() > 0 and real.grad is None
    network = efflite0.networks[0]
    assert not network.training and not any(parameter.requires_grad for parameter in network.parameters())


def test_descending_the_content_loss_is_possible(efflite0: ContentLoss, heads: Tensor) -> None:
    real = heads[:1]
    fake = F.avg_pool2d(real, 9, 1, 4).requires_grad_()
    optimizer = torch.optim.Adam([fake], 0.005)
    before = float(efflite0(fake.detach(), real, POINTS[: len(real)]))
    for _ in range(15):
        optimizer.zero_grad()
        torch.autograd.backward(efflite0(fake, real, POINTS[: len(real)]))
        optimizer.step()
    assert float(efflite0(fake.detach(), real, POINTS[: len(real)])) < 0.75 * before


def test_content_in_bfloat16_is_near_float32_and_finite(efflite0: ContentLoss, heads: Tensor) -> None:
    flat = torch.zeros_like(heads)
    for fake in (heads.flip(0), flat, flat + 1, flat - 1):
        fake = fake.clone().requires_grad_()
        exact = efflite0(fake, heads, POINTS)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = efflite0(fake, heads, POINTS)
        torch.autograd.backward(rounded)
        assert rounded.item() == pytest.approx(exact.item(), rel=0.03)
        assert fake.grad is not None and fake.grad.isfinite().all()
    with torch.autocast("cpu", torch.bfloat16):
        assert efflite0(heads, flat, POINTS).isfinite()


def test_faces_are_cut_as_dlib_cuts_them(heads: Tensor) -> None:
    import dlib

    frames = to_picture(heads).permute(0, 2, 3, 1).contiguous().numpy()
    for frame, points, cut in zip(frames, POINTS, cut_faces(heads, POINTS), strict=True):
        left, top, right, bottom = (int(v) for v in (*points.min(0).values, *points.max(0).values))
        parts = [dlib.point(round(x), round(y)) for x, y in points.tolist()]
        shape = dlib.full_object_detection(dlib.rectangle(left, top, right, bottom), parts)
        chip = torch.from_numpy(dlib.get_face_chip(frame, shape, size=150, padding=0.25)).permute(2, 0, 1)
        inside = (slice(None), slice(30, 120), slice(30, 120))
        near, other = (float((to_picture(x)[inside].float() - chip[inside]).abs().mean()) for x in (cut, cut.flip(2)))
        assert near < 0.5 * other


def test_the_face_network_is_the_metrics_own_and_sees_faces_alone(heads: Tensor) -> None:
    content = load_content(["dlib_resnet"], CPU)
    network = content.networks[0]
    assert network.of_faces and len(network.maps(cut_faces(heads, POINTS))) == len(network.layer_weights)
    descriptors = network.maps(cut_faces(heads, POINTS))[-1][:, :, 0, 0]  # [4, 128]
    expected = read_dlib_resnet(weights.path("dlib_resnet"))((cut_faces(heads, POINTS) + 1) * 127.5)
    assert torch.allclose(descriptors, expected, atol=1e-5)

    corner = heads.clone()
    corner[..., :6, :6] = 1  # outside of every face
    assert content(corner, heads, POINTS) == 0
    fake = heads.flip(0).requires_grad_()
    loss = content(fake, heads, POINTS)
    torch.autograd.backward(loss)
    assert loss > 0 and fake.grad is not None and fake.grad.abs().sum() > 0 and fake.grad.isfinite().all()


def test_a_square_is_all_that_counts(efflite0: ContentLoss, heads: Tensor) -> None:
    other = heads.clone()
    other[..., 64:, :] = 0
    assert efflite0(other, heads, POINTS, Square(0, 0, 64)) == 0 < efflite0(other, heads, POINTS, Square(32, 0, 64))


def vgg_state(layers: nn.Sequential) -> dict[str, Tensor]:
    """Seeded weights, by names as Caffe's."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, tensor in layers.state_dict().items():
        scale = (2 / tensor[0].numel()) ** 0.5 if tensor.ndim == 4 else 0.1
        state[f"caffe.{name}"] = torch.randn(tensor.shape, generator=generator) * scale
    return state


@pytest.mark.parametrize("name", ["vgg19", "vggface"])
def test_the_papers_networks_see_what_they_were_trained_on(name: str) -> None:
    from torchvision.models import vgg16, vgg19

    with torch.device("meta"):
        layers = vgg19().features if name == "vgg19" else vgg16().features
    state = vgg_state(layers)
    build, mean = (
        (caffe_vgg19, (103.939, 116.779, 123.680)) if name == "vgg19" else (caffe_vggface, losses.VGGFACE_MEAN)
    )
    network = build(state, Path("file.pth")).eval().requires_grad_(False)

    red = torch.full((1, 3, 32, 32), -1.0)
    red[:, 0] = 1  # (255, 0, 0) is blue 0, green 0, red 255
    caffe = (torch.tensor([0.0, 0.0, 255.0]) - torch.tensor(mean))[None, :, None, None].expand(1, 3, 32, 32)
    kernel, bias = list(state.values())[:2]
    maps = network.maps(red)
    assert torch.allclose(maps[0], F.relu(F.conv2d(caffe, kernel, bias, padding=1)), atol=1e-3)
    assert [m.shape[1] for m in maps] == [64, 128, 256, 512, 512]
    assert [m.shape[2] for m in maps] == [32, 16, 8, 4, 2]
    loss = content_loss(network, -red, red)
    weight = 1e-2 if name == "vgg19" else 2e-3
    expected = sum(weight * (a - b).abs().mean() for a, b in zip(network.maps(-red), maps, strict=True))
    assert torch.allclose(loss, torch.as_tensor(expected))


def test_a_file_of_another_network_is_refused() -> None:
    with pytest.raises(WeightsCorrupt, match=r"'file.pth' is not the network that its name says: 0.weight has 10 val"):
        caffe_vgg19({"conv": torch.zeros(10)}, Path("file.pth"))
    with pytest.raises(WeightsCorrupt, match=r"0.weight has 0 values of 1728; get the file again"):
        caffe_vggface({}, Path("file.pth"))


def test_a_missing_network_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THEVAL_WEIGHTS", str(tmp_path))
    with pytest.raises(
        WeightsMissing, match=r"vgg19 .*put the file of https://web.eecs.umich.edu/.*/vgg19-d01eb7cb.pth there, or"
    ):
        load_content(["vgg19"], CPU)
    with pytest.raises(WeightsMissing, match="run 'theval weights fetch vggface'"):
        load_content(["vggface"], CPU)
    assert "vggface" in weights.TABLE


def test_unknown_names_say_so() -> None:
    with pytest.raises(ConfigError, match=r"no content network is named 'vgg91'; did you mean 'vgg19'\?"):
        load_content(["vgg91"], CPU)
    with pytest.raises(ConfigError, match="no content network is named; choose of vgg19, vggface, efflite0"):
        load_content([], CPU)


def test_several_networks_add_up(efflite0: ContentLoss, heads: Tensor) -> None:
    twice = load_content(["efflite0", "efflite0"], CPU)
    assert torch.allclose(twice(heads.flip(0), heads, POINTS), 2 * efflite0(heads.flip(0), heads, POINTS))
