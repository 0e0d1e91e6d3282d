"""E, G and D of Zakharov et al. (ICCV 2019): the embedder, the generator, the discriminator, and what builds them.

Layer plan, normalisation and constants are those of the Samsung group's own code (latent-pose-reenactment, `FSTH.py`).
Pictures are float -1..1 [B, 3, H, W]; `y` is a picture of drawn landmarks in the same range.
"""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from thead_eval.errors import ConfigError

EPS = 1e-4  # of spectral and instance normalisation
SMALLEST = 4  # pixels: E and V halve down to this side
DOWN_ATTENTION, UP_ATTENTION = 32, 64  # sides where self-attention sits, if it is on
MAX_SHIFT = 0.15  # how far the residual flow reaches, of -1..1: 19 pixels of 256
# Logits of the mask at the start: the nearest candidate, the others, RGB. Of three candidates .96, .02, .02 and .01.
FIRST, OTHERS, RGB = 0.0, -4.0, -5.0
BEYOND = 8.0  # what is added to the logit of the unbent candidate out of `reach`


@dataclass(frozen=True)
class NetworkConfig:
    """What builds E, G and D; the defaults are the paper's. Saved in every checkpoint.

    Raises:
        ConfigError: the values do not fit together.
    """

    size: int = 256  # side of what E, G's trunk and D see
    output: Literal["rgb", "hybrid"] = "rgb"  # the paper's; or warped support frames, with RGB where they do not reach
    output_size: int = 256  # side of the frames that are made: size, or twice that
    channels: int = 64  # after the first block; doubles with each
    max_channels: int = 512
    embedding: int = 512  # N
    down: int = 4  # blocks of G that halve, and as many that double
    residual: int = 4  # blocks of G between them
    attention: bool = False  # SAGAN's, at 32 where pictures shrink and at 64 where they grow
    skips: bool = False  # G: its halving part is added to the doubling part, and its input seen by RGB and masks
    candidates: int = 3  # hybrid: support frames offered per driving frame, see candidates.py
    reach: int = 0  # hybrid: pixels of S from the drawn landmarks, from where on masks start at the unbent frame
    crop: int | None = None  # D sees a crop of this side of the output; None: the whole, at `size`

    def __post_init__(self) -> None:
        if self.size < 32 or self.size & (self.size - 1):
            raise ConfigError(f"network size {self.size} is not a power of two from 32 on; choose 128 or 256")
        if self.output not in ("rgb", "hybrid"):
            raise ConfigError(f"network output '{self.output}' is not known; choose 'rgb' or 'hybrid'")
        if self.output_size not in (self.size, 2 * self.size):
            raise ConfigError(
                f"network output_size {self.output_size} does not fit size {self.size}; "
                f"choose {self.size} or {2 * self.size}"
            )
        deepest = self.size.bit_length() - 2  # down to 2 x 2
        if not 3 <= self.down <= deepest:
            raise ConfigError(f"network down {self.down} does not fit size {self.size}; choose 3 to {deepest}")
        for name in ("channels", "max_channels", "embedding", "candidates"):
            if getattr(self, name) < 1:
                raise ConfigError(f"network {name} is {getattr(self, name)}; it must be at least 1")
        if self.residual < 0:
            raise ConfigError(f"network residual is {self.residual}; it must be at least 0")
        if self.attention and self.channels < 8:
            raise ConfigError(f"network attention needs channels of at least 8, not {self.channels}")
        if self.crop not in (None, self.size):
            raise ConfigError(
                f"network crop {self.crop} does not fit size {self.size}; choose {self.size} or leave it out"
            )

    def widths(self, blocks: int) -> list[int]:
        """Channels after each of so many blocks."""
        return [min(self.channels * 2**i, self.max_channels) for i in range(blocks)]


class Output(NamedTuple):
    """What G makes. Of output 'rgb', `frame` and `rgb` are one and the rest is None."""

    frame: Tensor  # [B, 3, O, O] -1..1
    rgb: Tensor  # [B, 3, O, O] the picture that is painted, not copied
    masks: Tensor | None  # [B, C + 1, S, S] what of each candidate, and last of rgb, is in the frame; sums to 1
    flow: Tensor | None  # [B, C, 2, S / 4, S / 4] added to the candidates' grids, x and y of -1..1


class Score(NamedTuple):
    """What D says."""

    r: Tensor  # [B] float32: real above 0, with the hinge from 1 on
    features: list[Tensor]  # after each residual block of V


class View(NamedTuple):
    """What D sees of a frame."""

    x: Tensor  # [B, 3, S, S]
    y: Tensor  # [B, 3, S, S]


def to_network(frames: Tensor) -> Tensor:
    """uint8 [..., 3, H, W] as networks see it: float32 -1..1."""
    return frames.float() / 127.5 - 1


def to_picture(x: Tensor) -> Tensor:
    """-1..1 as a frame: uint8 [..., 3, H, W]."""
    return ((x.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


class Embedder(nn.Module):
    """E: a frame and its landmarks to e [B, N]. The caller averages over frames to e_hat."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.blocks = _shrinking(config)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        out = torch.cat([x, y], 1)  # [B, 6, S, S]
        for block in self.blocks:
            out = block(out)
        return _pool(out)  # [B, N]


class Generator(nn.Module):
    """G: drawn landmarks, and the person as psi_hat = P e_hat, to a frame."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        hybrid = config.output == "hybrid"
        widths = config.widths(config.down)
        side, before = config.size, 3 + 3 * config.candidates if hybrid else 3
        shown = before if config.skips else 0

        self.down = nn.ModuleList()
        for i, width in enumerate(widths):
            side //= 2
            attention = config.attention and side == DOWN_ATTENTION
            norm: Norm = "instance" if i else None
            self.down.append(ResidualBlock(before, width, norm, "down", attention=attention, first=not i))
            before = width

        # Everything that takes a part of psi_hat, in the order of use.
        adaptive: list[ResidualBlock | AdaptiveNorm] = []
        adaptive += [ResidualBlock(before, before, "adaptive") for _ in range(config.residual)]
        self.middle = nn.ModuleList(adaptive)

        # At each side but the full one, where RGB and masks see the input itself: without norm, in its own colours.
        pairs = zip(reversed(widths[:-1]), reversed(widths), strict=False) if config.skips else ()
        self.skips = nn.ModuleList(spectral_norm(Conv2d(of, to, 3, padding=1)) for of, to in pairs)
        self.up = nn.ModuleList()
        for width in reversed(widths):
            side *= 2
            attention = config.attention and side == UP_ATTENTION
            self.up.append(block := ResidualBlock(before, width, "adaptive", "up", attention=attention))
            adaptive.append(block)
            if hybrid and side == config.size // 4:
                # Coarse and smooth: a flow at full size frayed hair and contours.
                adaptive.append(flow_norm := AdaptiveNorm(width))
                self.flow_norm = flow_norm
                self.to_flow = _near_zero(width, [0.0] * (2 * config.candidates))
            before = width

        factor = config.output_size // config.size
        adaptive.append(last_norm := AdaptiveNorm(before))
        self.last_norm = last_norm
        self.to_rgb = spectral_norm(Conv2d(before + shown, 3 * factor**2, 3, padding=1))
        self.shuffle = nn.PixelShuffle(factor)
        if hybrid:
            self.to_masks = _near_zero(before + shown, [FIRST, *[OTHERS] * (config.candidates - 1), RGB])

        self.affine_sizes = [module.affine_size for module in adaptive]
        self.affine_size = sum(self.affine_sizes)  # A
        self.P = spectral_norm(Linear(config.embedding, self.affine_size))
        # Scales start about 1, as in plain instance normalisation: safer on little data than about 0.
        with torch.no_grad():
            self.P.bias.copy_(torch.cat([module.affine_start() for module in adaptive]))

    def forward(self, y: Tensor, psi_hat: Tensor, sources: Tensor | None = None, grids: Tensor | None = None) -> Output:
        """Frames of the people that psi_hat [B, A] stands for ([1, A]: one person), in the poses of y [B, 3, S, S].

        Hybrid: `sources` [B, C, 3, O, O] are the support frames on offer, and `grids` [B, C, O, O, 2] float32 say where
        in each of them a pixel lies, as `grid_sample` wants it with align_corners=True.
        """
        psi = iter(torch.split(psi_hat, self.affine_sizes, 1))
        out = y
        if self.config.output == "hybrid":
            assert sources is not None and grids is not None, "the hybrid output needs sources and grids"
            out = torch.cat([y, _preview(sources, grids, self.config.size).flatten(1, 2)], 1)  # [B, 3 + 3C, S, S]
        halved = [out]
        for block in self.down:
            halved.append(out := block(out))
        for block in self.middle:
            out = block(out, next(psi))
        flow = None
        for i, block in enumerate(self.up):
            out = block(out, next(psi))
            if i < len(self.skips):
                out = out + self.skips[i](halved[-2 - i])
            if self.config.output == "hybrid" and out.shape[-1] == self.config.size // 4:
                flow = self.to_flow(F.relu(self.flow_norm(out, next(psi))))  # [B, 2C, S / 4, S / 4]

        out = F.relu(self.last_norm(out, next(psi)))
        if self.config.skips:
            out = torch.cat([out, halved[0]], 1)
        rgb = torch.tanh(self.shuffle(self.to_rgb(out)).float())  # [B, 3, O, O]
        if flow is None or sources is None or grids is None:
            return Output(rgb, rgb, None, None)
        flow = MAX_SHIFT * torch.tanh(flow.float())
        flow = flow.view(len(y), -1, 2, *flow.shape[-2:])  # [B, C, 2, S / 4, S / 4]
        masks = (self.to_masks(out).float() + mask_start(y, self.config)).softmax(1)  # [B, C + 1, S, S]
        return Output(blend(sources, grids, flow, masks, rgb), rgb, masks, flow)


class Discriminator(nn.Module):
    """D: a frame, its landmarks and a row w of W to a realism score: r = V(x, y)^T (w + w_0) + b.

    W is not in here: it is a table with a row per training video, of which a step updates only those that it used.
    Samsung's code puts spectral norm on W too; it is left out, as it ties every row to the whole table.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.V = _shrinking(config)
        self.V.append(ResidualBlock(config.embedding, config.embedding))
        self.w_0 = spectral_norm(Linear(config.embedding, 1))  # and b

    def forward(self, x: Tensor, y: Tensor, w: Tensor) -> Score:
        """Scores of what `view` cut out; w [B, N], or [1, N] for one person."""
        out = torch.cat([x, y], 1)  # [B, 6, S, S]
        features = []
        for block in self.V:
            out = block(out)
            features.append(out)
        v = _pool(out)  # [B, N]
        r = (v * w.float()).sum(1) + self.w_0(v)[:, 0]
        return Score(r, features)


def view(x: Tensor, y: Tensor, config: NetworkConfig, corners: Tensor | None = None) -> View:
    """What D sees of frames x [B, 3, O, O] with landmarks y [B, 3, S, S].

    With `config.crop`, a square whose upper left pixels are `corners` [B, 2] (row, column; None: in the middle), else
    the whole, at `size`. Fake and real frames must be seen at the same corners.
    """
    if config.crop is None:
        return View(x if config.output_size == config.size else F.avg_pool2d(x, 2), y)
    room = config.output_size - config.crop
    places = [(room // 2, room // 2)] * len(x) if corners is None else [(int(a), int(b)) for a, b in corners]
    grown = _enlarge(y, config.output_size)
    both = torch.cat([x, grown.to(x.dtype)], 1)
    cut = torch.stack([p[:, i : i + config.crop, j : j + config.crop] for p, (i, j) in zip(both, places, strict=True)])
    return View(cut[:, :3], cut[:, 3:])


def mask_start(y: Tensor, config: NetworkConfig) -> Tensor:
    """What the mask's logits begin with [B, C + 1, S, S], for landmarks drawn as y.

    Beyond the face and its rim, what moves is seldom the head: as it was filmed, the support frame is sharper there and
    more often right than bent.
    """
    logits = y.new_zeros(len(y), config.candidates + 1, *y.shape[2:])
    if config.reach and config.candidates > 1:
        drawn = (y.amax(1, keepdim=True) > -1).float()
        side = 2 * config.reach + 1
        # A square as two lines.
        near = F.max_pool2d(drawn, (side, 1), 1, (config.reach, 0))
        near = F.max_pool2d(near, (1, side), 1, (0, config.reach))
        near = F.avg_pool2d(near, 5, 1, 2, count_include_pad=False)  # a soft rim
        logits[:, config.candidates - 1] = BEYOND * (1 - near[:, 0])
    return logits


def blend(sources: Tensor, grids: Tensor, flow: Tensor, masks: Tensor, rgb: Tensor) -> Tensor:
    """The hybrid frame [B, 3, O, O]: each source sampled where grid + flow says, and rgb, weighed by the masks."""
    O = sources.shape[-1]
    with torch.autocast(sources.device.type, enabled=False):
        shift = _enlarge(flow, O).permute(0, 1, 3, 4, 2)  # [B, C, O, O, 2]
        # A bilinear sample blurs: a real frame moved by half a pixel is at fd_efflite0 9.1, by bicubic at 4.5.
        # It overshoots at edges, hence the clamp.
        warped = _sample(sources, grids + shift, "bicubic", align_corners=True).clamp(-1, 1)  # [B, C, 3, O, O]
        m = _enlarge(masks, O)[:, :, None]  # [B, C + 1, 1, O, O]
        return (m[:, :-1] * warped).sum(1) + m[:, -1] * rgb


# What the three are made of.

Norm = Literal["instance", "adaptive"] | None


class ResidualBlock(nn.Module):
    """norm, ReLU, conv, norm, ReLU, conv, and a skip beside them; `resize` doubles or halves the side on the way.

    The first block of a network sees a picture, and leaves out what stands before its first convolution.
    """

    def __init__(
        self,
        before: int,
        after: int,
        norm: Norm = None,
        resize: Literal["up", "down"] | None = None,
        *,
        attention: bool = False,
        first: bool = False,
    ) -> None:
        super().__init__()
        self.first, self.resize = first, resize
        self.norm_1 = _norm(before, norm)
        self.conv_1 = spectral_norm(Conv2d(before, after, 3, padding=1, bias=norm is None))
        self.norm_2 = _norm(after, norm)
        self.conv_2 = spectral_norm(Conv2d(after, after, 3, padding=1, bias=norm is None))
        changes = before != after or resize is not None
        self.skip = spectral_norm(Conv2d(before, after, 1)) if changes else nn.Identity()
        self.attention = Attention(after) if attention else nn.Identity()
        self.affine_size = 2 * before + 2 * after if norm == "adaptive" else 0

    def affine_start(self) -> Tensor:
        """Where its part of psi_hat starts: scales 1, shifts 0."""
        return torch.cat([n.affine_start() for n in (self.norm_1, self.norm_2) if isinstance(n, AdaptiveNorm)])

    def forward(self, x: Tensor, psi: Tensor | None = None) -> Tensor:
        """x [B, before, H, W] to [B, after, ...]; psi [B or 1, affine_size] where the norm is adaptive."""
        psi_1 = psi_2 = None
        if psi is not None:
            psi_1, psi_2 = torch.split(psi, [self.norm_1.affine_size, self.norm_2.affine_size], 1)
        out = x if self.first else F.relu(self.norm_1(x, psi_1))
        if self.resize == "up":
            out = F.interpolate(out, scale_factor=2, mode="nearest")
        out = self.conv_1(out)
        out = self.conv_2(F.relu(self.norm_2(out, psi_2)))
        # A 1x1 convolution commutes with both ways to resize: the skip does it at the smaller side.
        if self.resize == "down":
            out = F.avg_pool2d(out, 2)
            x = F.avg_pool2d(x, 2)
        skip = self.skip(x)
        if self.resize == "up":
            skip = F.interpolate(skip, scale_factor=2, mode="nearest")
        attended: Tensor = self.attention(out + skip)
        return attended


class InstanceNorm(nn.Module):
    """Instance normalisation with a scale and a shift of its own."""

    affine_size = 0

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, psi: None = None) -> Tensor:
        return instance_norm(x, self.weight[None], self.bias[None])


class AdaptiveNorm(nn.Module):
    """AdaIN: instance normalisation whose scale and shift are a part of psi_hat, scales first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels, self.affine_size = channels, 2 * channels

    def affine_start(self) -> Tensor:
        """Scales 1, shifts 0."""
        return torch.cat([torch.ones(self.channels), torch.zeros(self.channels)])

    def forward(self, x: Tensor, psi: Tensor) -> Tensor:
        weight, bias = psi.chunk(2, 1)
        return instance_norm(x, weight, bias)


class NoNorm(nn.Module):
    """Nothing, in the place of a norm."""

    affine_size = 0

    def forward(self, x: Tensor, psi: None = None) -> Tensor:
        return x


class Attention(nn.Module):
    """Self-attention over all positions (Zhang et al. 2019, SAGAN); gamma starts at 0, as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.f = spectral_norm(Conv2d(channels, channels // 8, 1))
        self.g = spectral_norm(Conv2d(channels, channels // 8, 1))
        self.h = spectral_norm(Conv2d(channels, channels, 1))
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        key, query, value = (part(x).flatten(2).mT for part in (self.f, self.g, self.h))  # [B, H * W, ...]
        attended = F.scaled_dot_product_attention(query, key, value, scale=1.0)  # [B, H * W, C]
        return x + self.gamma * attended.mT.reshape(x.shape)


def instance_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x [B, C, H, W] normalised over its positions, times weight, plus bias [B or 1, C]; statistics in float32."""
    if torch.is_grad_enabled():
        out: Tensor = _InstanceNorm.apply(x, weight, bias)
        return out
    mean, rstd = _statistics(x)
    return _scaled(x, weight * rstd, bias - weight * rstd * mean)


class _InstanceNorm(torch.autograd.Function):
    """As written above; by hand, as in bfloat16 on a CPU the normalisations of torch cost more than the convolutions.

    `group_norm` took several times as long at [4, 32, 128, 128]; `instance_norm` gives up channels_last.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:  # Any: torch has no type for it
        mean, rstd = _statistics(x)
        ctx.save_for_backward(x, weight, mean, rstd)
        ctx.bias_shape = bias.shape
        return _scaled(x, weight * rstd, bias - weight * rstd * mean)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight, mean, rstd = ctx.saved_tensors
        g = gradients[0]
        wide = g.to(mean.dtype)
        mean_g = wide.mean((2, 3))  # [B, C]
        mean_gx = (wide * x).mean((2, 3))
        mean_gn = rstd * (mean_gx - mean * mean_g)  # n: x, normalised
        # weight rstd (g - mean_g - n mean_gn), as a sum of three.
        of_g, of_x = weight * rstd, -weight * rstd * rstd * mean_gn
        gx = _scaled(x, of_x, -of_x * mean - of_g * mean_g).addcmul_(g, of_g.to(x.dtype)[:, :, None, None])
        positions = x.shape[2] * x.shape[3]
        g_weight = (positions * mean_gn).sum_to_size(weight.shape)
        g_bias = (positions * mean_g).sum_to_size(ctx.bias_shape)
        return gx, g_weight.to(weight.dtype), g_bias.to(weight.dtype)


def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and 1 / deviation over the positions [B, C], of float32 or wider."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    mean = wide.mean((2, 3))
    # Several times as fast as var_mean. Squares cancel only where the mean is 100 deviations away from 0 and more.
    variance = (wide.square().mean((2, 3)) - mean.square()).clamp_min(0)
    return mean, (variance + EPS).rsqrt()


def _scaled(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """scale x + shift, both [B, C], in x's own type."""
    return torch.addcmul(shift.to(x.dtype)[:, :, None, None], x, scale.to(x.dtype)[:, :, None, None])


class Conv2d(nn.Conv2d):
    """A convolution whose spectral norm is found in float32, whatever the convolution itself runs in."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            weight = self.weight
        return F.conv2d(x, weight, self.bias, padding=self.padding)


class Linear(nn.Linear):
    """A linear layer in float32: the two that there are end in a score, and in the scales of everything."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(x.float(), self.weight, self.bias)


Layer = TypeVar("Layer", Conv2d, Linear)


def spectral_norm(layer: Layer) -> Layer:
    """The layer, its weight from now on divided by its largest singular value: one power iteration a forward."""
    parametrizations.spectral_norm(layer, eps=EPS)
    return layer


def fold_spectral_norm(network: nn.Module) -> None:
    """Make every normalised weight in a network a plain one, of the value that it has in eval mode now.

    Not by `parametrize.remove_parametrizations`, which breaks the network that this one was copied from: the two share
    the class that it takes the weight from.
    """
    for layer in list(network.modules()):
        if isinstance(layer, Conv2d | Linear) and parametrize.is_parametrized(layer, "weight"):
            weight = layer.eval().weight.detach().clone()
            layer.__class__ = parametrize.type_before_parametrizations(layer)
            del layer.parametrizations
            layer.weight = nn.Parameter(weight)


def _near_zero(before: int, start: list[float]) -> nn.Conv2d:
    """A head that says `start` at first. Without spectral norm, which would undo the small weights."""
    conv = nn.Conv2d(before, len(start), 3, padding=1)
    nn.init.normal_(conv.weight, std=1e-3)
    conv.bias = nn.Parameter(torch.tensor(start))
    return conv


def _norm(channels: int, norm: Norm) -> InstanceNorm | AdaptiveNorm | NoNorm:
    if norm is None:
        return NoNorm()
    return InstanceNorm(channels) if norm == "instance" else AdaptiveNorm(channels)


def _shrinking(config: NetworkConfig) -> nn.ModuleList:
    """Residual blocks from x and y [B, 6, S, S] to [B, N, 4, 4]."""
    count = (config.size // SMALLEST).bit_length() - 1
    blocks, side, before = nn.ModuleList(), config.size, 6
    for i, width in enumerate([*config.widths(count - 1), config.embedding]):
        side //= 2
        attention = config.attention and side == DOWN_ATTENTION
        blocks.append(ResidualBlock(before, width, None, "down", attention=attention, first=not i))
        before = width
    return blocks


def _pool(x: Tensor) -> Tensor:
    """[B, N, 4, 4] to [B, N] float32: the sum of what is positive."""
    return F.relu(x).float().sum((2, 3))


def _preview(sources: Tensor, grids: Tensor, size: int) -> Tensor:
    """The candidates as the trunk sees them: sampled at its own size [B, C, 3, S, S]."""
    B, C, _, _, O = sources.shape
    coarse = grids.flatten(0, 1).permute(0, 3, 1, 2)  # [B * C, 2, O, O]
    small = sources.flatten(0, 1)
    if size < O:  # half: bilinear is the mean of 2 x 2
        coarse, small = (F.interpolate(x, size=(size, size), mode="bilinear") for x in (coarse, small))
    # The corners of a picture, unlike the centres of its first and last pixel, are the same at both sizes.
    places = coarse.permute(0, 2, 3, 1) * ((O - 1) / O)
    return _sample(small.view(B, C, 3, size, size), places.view(B, C, size, size, 2), "bilinear", align_corners=False)


def _sample(sources: Tensor, grids: Tensor, mode: str, *, align_corners: bool) -> Tensor:
    """[B, C, 3, H, W] at grids [B, C, h, w, 2]; beyond the border the edge pixel continues."""
    with torch.autocast(sources.device.type, enabled=False):
        flat, places = sources.float().flatten(0, 1), grids.float().flatten(0, 1)
        sampled = F.grid_sample(flat, places, mode=mode, padding_mode="border", align_corners=align_corners)
    return sampled.view(*sources.shape[:3], *grids.shape[2:4])


def _enlarge(x: Tensor, side: int) -> Tensor:
    """[..., h, w] to [..., side, side], bilinear.

    By a matrix for each direction, as the backward pass of `interpolate` takes several times as long on a CPU.
    """
    if x.shape[-1] == side:
        return x
    identity = torch.eye(x.shape[-1], device=x.device)[None, None]
    grow = F.interpolate(identity, size=(side, x.shape[-1]), mode="bilinear")[0, 0]  # [side, h]
    return grow @ (x @ grow.mT)
