"""A generator adapted to one person: driving landmarks in, frames out, fast.

Of a person, psi' does not change any more. `fold` makes constants of what follows from that and from the end of
training: the scales and shifts of AdaIN, and the weights that spectral norm divides anew on each forward. A convolution
and a change of size beside it become one convolution with a stride.
"""

import copy
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generator import candidates, checkpoint
from generator.copy import held_points
from generator.networks import (
    EPS,
    MAX_SHIFT,
    AdaptiveNorm,
    Generator,
    InstanceNorm,
    Output,
    ResidualBlock,
    fold_spectral_norm,
    mask_start,
    to_network,
    to_picture,
)
from generator.warp import STRIDE, spline_nodes
from thead_eval.drawing import draw_landmarks
from thead_eval.errors import CheckpointError, ConfigError
from thead_eval.types import Clip, Landmarks

BATCH = 8  # frames made at a time: a bound on memory
Precision = Literal["32-true", "bf16-true"]


class Origin(NamedTuple):
    """Where a talker comes from, for whoever writes down what made a fake."""

    generator: str  # its name
    checkpoint: str  # sha256 of the file with its networks
    steps: int  # of fine-tuning; 0: feed-forward
    seconds: float  # that adapting took


@dataclass(frozen=True)
class FewShotTalker:
    """One person, ready to be animated."""

    id: str  # of the clip that it was adapted on
    network: "Unfolded | Folded"
    side: int  # pixels a side of the support frames as they were given, which driving landmarks refer to
    origin: Origin

    @property
    def size(self) -> int:
        """Pixels a side of the frames that it makes."""
        return self.network.config.output_size

    def animate(self, driving: Landmarks, fps: float) -> Clip:
        """A frame for each driving row; a row without a face holds the one before it.

        Raises:
            NoFaceFound: no driving row has landmarks.
        """
        frames = torch.empty(len(driving), 3, self.size, self.size, dtype=torch.uint8)
        start = 0
        for part in self.stream(driving):
            frames[start : start + len(part)] = part
            start += len(part)
        return Clip(self.id, frames, fps)

    def stream(self, driving: Landmarks, batch: int = BATCH) -> Iterator[Tensor]:
        """The same frames [b, 3, O, O] uint8, a few at a time: memory does not grow with the track.

        Raises:
            NoFaceFound: no driving row has landmarks.
        """
        points = rescale(held_points(driving, self.id), self.side, self.size)
        for part in torch.split(points, batch):
            yield self.make_frames(part)

    @torch.inference_mode()
    def make_frames(self, points: Tensor) -> Tensor:
        """Frames [B, 3, O, O] uint8 with these landmarks [B, 68, 2], in pixels of O."""
        size = self.network.config.size
        drawn = [draw_landmarks(p, size, size) for p in rescale(points, self.size, size)]
        y = to_network(torch.stack(drawn).to(self.network.points.device))
        return to_picture(self.network(y, points.to(y.device))).cpu()


def rescale(points: Tensor, side: int, new_side: int) -> Tensor:
    """Points in pixels of a picture, in pixels of the same picture at another size."""
    return (points + 0.5) * (new_side / side) - 0.5


class Unfolded(nn.Module):
    """G' as it was adapted. What `Folded` is to agree with, and faster than."""

    psi_prime: Tensor
    support: Tensor
    points: Tensor

    def __init__(self, G: Generator, psi_prime: Tensor, support: Tensor, points: Tensor) -> None:
        """For psi' [1, A] and support frames [K, 3, O, O] uint8 with landmarks [K, 68, 2] in their pixels."""
        super().__init__()
        self.config = G.config
        self.G = G
        self.register_buffer("psi_prime", psi_prime)
        self.register_buffer("support", support)
        self.register_buffer("points", points)

    def forward(self, y: Tensor, points: Tensor) -> Tensor:
        """Frames [B, 3, O, O] with landmarks [B, 68, 2] in pixels of O, drawn as y [B, 3, S, S]; pictures are -1..1."""
        psi = self.psi_prime
        if self.config.output == "rgb":
            painted: Output = self.G(y, psi)
            return painted.frame
        chosen = candidates.choose(self.points, points, self.config)  # [B, C]
        grids = candidates.grids(self.points, points, chosen, self.config)
        output: Output = self.G(y, psi, to_network(self.support[chosen]), grids)
        return output.frame


class Folded(nn.Module):
    """G' of one person, with as little to compute as gives the same frames.

    In bfloat16 they differ by rounding; statistics, flow, masks and all that touches support frames stay in float32.
    """

    points: Tensor
    pictures: Tensor
    seen: Tensor
    still: Tensor
    nodes_to_size: Tensor
    nodes_to_output: Tensor
    flow_to_output: Tensor

    def __init__(self, unfolded: Unfolded, precision: Precision) -> None:
        super().__init__()
        G = unfolded.G
        self.config = G.config
        self.hybrid = G.config.output == "hybrid"
        self.register_buffer("points", unfolded.points)
        if self.hybrid:
            self._keep_pictures(unfolded.support)

        # In the order in which G hands out the parts of psi.
        parts = iter(torch.split(unfolded.psi_prime[0], G.affine_sizes))
        self.down = nn.ModuleList(FoldedBlock(block) for block in G.down)
        self.middle = nn.ModuleList(FoldedBlock(block, next(parts)) for block in G.middle)
        self.up = nn.ModuleList()
        for block in G.up:
            self.up.append(FoldedBlock(block, next(parts)))
            if self.hybrid and len(G.up) - len(self.up) == 2:  # at a quarter of the size
                self.flow_norm, self.to_flow = FoldedNorm(*next(parts).chunk(2)), _conv(G.to_flow)
        self.skips = nn.ModuleList(_conv(skip) for skip in G.skips)
        self.last_norm = FoldedNorm(*next(parts).chunk(2))
        self.heads = _join(G.to_rgb, G.to_masks) if self.hybrid else _conv(G.to_rgb)
        self.shuffle = G.shuffle
        self.set_precision(precision)

    def _keep_pictures(self, support: Tensor) -> None:
        """Support frames at both sizes, and what takes splines and flow to them."""
        O, S, device = self.config.output_size, self.config.size, support.device
        steps = torch.linspace(-1, 1, math.ceil((O - 1) / STRIDE) + 1, device=device)
        pictures = to_network(support).contiguous()
        # Changes of size as matrices, applied from both sides: many times as fast as F.interpolate.
        nodes_to_output = _growth(len(steps), O, align_corners=True).to(device)  # [O, rows]
        for name, tensor in {
            "pictures": pictures,  # [K, 3, O, O]
            "seen": F.avg_pool2d(pictures, O // S),  # [K, 3, S, S]
            "still": torch.stack(torch.meshgrid(steps, steps, indexing="xy")),  # [2, rows, columns]: moves nothing
            "nodes_to_output": nodes_to_output,
            "nodes_to_size": nodes_to_output.view(S, -1, len(steps)).mean(1),  # [S, rows]
            "flow_to_output": _growth(S // 4, O, align_corners=False).to(device),  # [O, S / 4]
        }.items():
            self.register_buffer(name, tensor, persistent=False)

    def set_precision(self, precision: Precision) -> None:
        """Convolutions in bfloat16 or float32; norms keep theirs in float32 and take any input."""
        self.precision: Precision = precision
        self.dtype = torch.bfloat16 if precision == "bf16-true" else torch.float32
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                module.to(self.dtype).to(memory_format=torch.channels_last)

    def compile_trunk(self) -> None:
        """By torch.compile, at the first frame, which raises ConfigError where it cannot be done. On two CPU cores that
        took 40 s and made nothing faster, and with the warps, which are not in it, everything three times as slow; so
        nobody does it unasked."""
        compiled = torch.compile(self.trunk)

        def trunk(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            from torch._dynamo.exc import BackendCompilerFailed  # by now it is imported

            try:
                return compiled(x)
            except BackendCompilerFailed as error:
                raise ConfigError(
                    f"torch.compile does not work here ({str(error).splitlines()[0]}); install a C++ compiler such as "
                    "g++, or leave --compile out"
                ) from error

        self.trunk = trunk  # type: ignore[method-assign]  # as torch means it to be used

    def forward(self, y: Tensor, points: Tensor) -> Tensor:
        """Frames [B, 3, O, O] with landmarks [B, 68, 2] in pixels of O, drawn as y [B, 3, S, S]; pictures are -1..1."""
        if not self.hybrid:
            return self.paint(y)
        side = self.config.output_size
        chosen = candidates.choose(self.points, points, self.config)  # [B, C]
        bent = chosen[:, : max(self.config.candidates - 1, 1)]
        nodes = spline_nodes(self.points[bent], points, (side, side))
        return self.bend_and_paint(y, self.pictures[chosen], self.seen[chosen], nodes)

    def paint(self, y: Tensor) -> Tensor:
        """Output 'rgb'."""
        rgb, _, _ = self.trunk(y)
        return rgb

    def bend_and_paint(self, y: Tensor, pictures: Tensor, seen: Tensor, nodes: Tensor) -> Tensor:
        """Output 'hybrid', from support frames at both sizes [B, C, 3, O, O] and [B, C, 3, S, S], and the nodes
        [B, C - 1 or 1, 2, rows, columns] of the splines that bend them; the last candidate is not bent."""
        B, C, _, O, _ = pictures.shape
        if C > 1:
            nodes = torch.cat([nodes, self.still.expand(B, 1, -1, -1, -1)], 1)
        nodes = nodes.flatten(0, 2)  # [B * C * 2, rows, columns]

        # What the trunk sees. Unlike pixels' centres, a picture's corners are the same at both sizes.
        grids = self.nodes_to_size @ nodes @ self.nodes_to_size.mT * ((O - 1) / O)
        seen = _sample(seen.flatten(0, 1), grids, "bilinear", align_corners=False)  # [B * C, 3, S, S]
        rgb, masks, flow = self.trunk(torch.cat([y, seen.view(B, -1, *seen.shape[2:])], 1))

        grids = self.nodes_to_output @ nodes @ self.nodes_to_output.mT
        grids = grids.baddbmm_(
            self.flow_to_output @ flow.flatten(0, 1), self.flow_to_output.mT.expand(grids.shape[0], -1, -1)
        )
        warped = _sample(pictures.flatten(0, 1), grids, "bicubic", align_corners=True)
        warped = warped.clamp_(-1, 1).view(B, C, 3, O, O)
        masks = F.interpolate(masks, size=(O, O), mode="bilinear")  # [B, C + 1, O, O]
        frame = rgb.mul_(masks[:, C:])
        for c in range(C):
            frame.addcmul_(masks[:, c : c + 1], warped[:, c])
        return frame

    def trunk(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """RGB [B, 3, O, O], and of the hybrid masks [B, C + 1, S, S] and flow [B, 2C, S / 4, S / 4]: float32."""
        out = x.to(self.dtype, memory_format=torch.channels_last)
        halved = [out]
        for block in self.down:
            halved.append(out := block(out))
        for block in self.middle:
            out = block(out)
        flow = masks = out  # of output 'rgb' nobody looks at them
        for i, block in enumerate(self.up):
            out = block(out)
            if i < len(self.skips):
                out = out.add_(self.skips[i](halved[-2 - i]))
            if self.hybrid and len(self.up) - i == 3:
                flow = MAX_SHIFT * torch.tanh(self.to_flow(self.flow_norm(out)).float())
        out = self.last_norm(out)
        if self.config.skips:
            out = torch.cat([out, halved[0]], 1)
        heads = self.heads(out).to(torch.float32, memory_format=torch.contiguous_format)
        painted = 3 * self.shuffle.upscale_factor**2
        rgb = self.shuffle(heads[:, :painted].tanh_())
        if self.hybrid:
            masks = (heads[:, painted:] + mask_start(x[:, :3], self.config)).softmax(1)
        return rgb, masks, flow


class FoldedBlock(nn.Module):
    """`ResidualBlock` for one person; what changes size does so within its convolutions."""

    def __init__(self, block: nn.Module, psi: Tensor | None = None) -> None:
        """`psi` [affine_size] where the block is adaptive."""
        super().__init__()
        assert isinstance(block, ResidualBlock)
        parts: Sequence[Tensor | None] = (None, None)
        if psi is not None:
            parts = torch.split(psi, [block.norm_1.affine_size, block.norm_2.affine_size])
        self.norm_1, self.norm_2 = _fold_norm(block.norm_1, parts[0]), _fold_norm(block.norm_2, parts[1])
        if block.first:
            self.norm_1 = nn.Identity()
        self.up = block.resize == "up"
        self.conv_1 = _grow_and_conv(block.conv_1) if self.up else _conv(block.conv_1)
        self.conv_2 = _conv_and_shrink(block.conv_2) if block.resize == "down" else _conv(block.conv_2)
        self.skip: nn.Module = nn.Identity()
        if not isinstance(block.skip, nn.Identity):
            self.skip = _conv_and_shrink(block.skip) if block.resize == "down" else _conv(block.skip)
        self.attention = copy.deepcopy(block.attention)
        fold_spectral_norm(self.attention)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, before, H, W] to [B, after, ...]."""
        out = self.conv_2(self.norm_2(self.conv_1(self.norm_1(x))))
        skip = self.skip(x)
        if self.up:
            skip = F.interpolate(skip, scale_factor=2, mode="nearest")
        attended: Tensor = self.attention(out.add_(skip))
        return attended


class FoldedNorm(nn.Module):
    """Instance normalisation whose scale and shift are constants, and the ReLU that always follows."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
        self.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        # CUDA, unlike a CPU, takes no bfloat16 with these in float32.
        weight, bias = (p.to(x.dtype) if x.is_cuda else p for p in (self.weight, self.bias))
        # The same function twice: on CPUs and in channels_last, one is fast for large maps and one for small.
        if x.shape[-1] >= 32:
            return F.relu_(F.group_norm(x, x.shape[1], weight, bias, EPS))
        return F.relu_(F.instance_norm(x, weight=weight, bias=bias, eps=EPS))


def _fold_norm(norm: nn.Module, psi: Tensor | None = None) -> nn.Module:
    if isinstance(norm, AdaptiveNorm):
        assert psi is not None
        return FoldedNorm(*psi.chunk(2))
    if isinstance(norm, InstanceNorm):
        return FoldedNorm(norm.weight, norm.bias)
    return nn.ReLU(inplace=True)


def _join(first: nn.Module, second: nn.Module) -> nn.Conv2d:
    """Two layers over the same input as one."""
    assert isinstance(first, nn.Conv2d) and isinstance(second, nn.Conv2d)
    joined = _conv(first, weight=torch.cat([first.weight, second.weight]))
    assert first.bias is not None and second.bias is not None
    return _filled(joined, joined.weight, torch.cat([first.bias, second.bias]))


def _conv(layer: nn.Module, stride: int = 1, padding: int | None = None, weight: Tensor | None = None) -> nn.Conv2d:
    """A convolution without spectral norm: the layer's own, or another kernel in its place."""
    assert isinstance(layer, nn.Conv2d)
    weight = (layer.weight if weight is None else weight).detach()
    after, before, side, _ = weight.shape
    conv = nn.Conv2d(
        before, after, side, stride, side // 2 if padding is None else padding, bias=layer.bias is not None
    )
    return _filled(conv, weight, layer.bias)


def _conv_and_shrink(layer: nn.Module) -> nn.Conv2d:
    """The layer and the mean of 2 x 2 after it (or before: they commute where the kernel is 1 x 1), as one."""
    assert isinstance(layer, nn.Conv2d)
    return _conv(layer, stride=2, padding=layer.kernel_size[0] // 2, weight=_widened(layer.weight) / 4)


def _grow_and_conv(layer: nn.Module) -> nn.ConvTranspose2d:
    """Doubling by repetition and the layer after it, as one."""
    assert isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3)
    weight = _widened(layer.weight.detach()).flip(2, 3).transpose(0, 1)
    conv = nn.ConvTranspose2d(weight.shape[0], weight.shape[1], 4, 2, 1, bias=layer.bias is not None)
    return _filled(conv, weight, layer.bias)


Conv = TypeVar("Conv", nn.Conv2d, nn.ConvTranspose2d)


def _filled(conv: Conv, weight: Tensor, bias: Tensor | None) -> Conv:
    conv.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
    if bias is not None:
        conv.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
    return conv


def _widened(weight: Tensor) -> Tensor:
    """Kernels [a, b, n, n] folded with a square of 2 x 2 ones: [a, b, n + 1, n + 1]."""
    square = torch.ones(1, 1, 2, 2, dtype=weight.dtype, device=weight.device)
    wide = F.conv2d(weight.flatten(0, 1)[:, None], square, padding=1)
    return wide.view(*weight.shape[:2], *wide.shape[2:])


def _growth(few: int, many: int, *, align_corners: bool) -> Tensor:
    """Bilinear growth of a row of pixels, as a matrix [many, few]."""
    grown = F.interpolate(torch.eye(few)[None], size=many, mode="linear", align_corners=align_corners)
    return grown[0].mT.contiguous()


def _sample(sources: Tensor, grids: Tensor, mode: str, *, align_corners: bool) -> Tensor:
    """Pictures [N, 3, H, W] at grids [N * 2, h, w]; beyond the border the edge pixel continues."""
    places = grids.view(-1, 2, *grids.shape[1:]).permute(0, 2, 3, 1)  # [N, h, w, 2]
    return F.grid_sample(sources, places, mode=mode, padding_mode="border", align_corners=align_corners)


def fold(talker: FewShotTalker, precision: Precision) -> FewShotTalker:
    """The same talker with all that is constant for the person in its network's weights."""
    assert isinstance(talker.network, Unfolded), "a talker is folded once"
    return replace(talker, network=Folded(talker.network, precision))


def computes_bfloat16(device: torch.device) -> bool:
    """Whether it has instructions for it: where it would only pretend to, float32 is faster."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("avx512_bf16"))


def save_talker(path: Path, talker: FewShotTalker) -> None:
    """Write a folded talker whole or not at all.

    Raises:
        CheckpointError: the file could not be written.
    """
    network = talker.network
    assert isinstance(network, Folded), "only a folded talker is kept"
    tensors = {"support": to_picture(network.pictures)} if network.hybrid else {}
    about = {"id": talker.id, "side": talker.side, "precision": network.precision, **talker.origin._asdict()}
    checkpoint.save(path, {"talker": network, "person": tensors}, network.config, {"talker": json.dumps(about)})


def load_talker(path: Path, device: torch.device) -> FewShotTalker:
    """A talker that `save_talker` wrote.

    Raises:
        CheckpointError: there is no such file, it is damaged, or no talker.
    """
    saved = checkpoint.load(path)
    if "talker" not in saved.metadata:
        raise CheckpointError(
            f"'{path}' is a checkpoint, not a talker, which is one person; "
            "'theval generate --photos ... --save-talker FILE' writes one"
        )
    about = json.loads(saved.metadata["talker"])
    G = Generator(saved.config).eval()  # its weights are replaced below
    psi_prime, support = torch.empty(1, G.affine_size), saved.part("person").get("support", torch.empty(0))
    network = Folded(Unfolded(G, psi_prime, support, saved.part("talker")["points"]), about["precision"])
    saved.restore("talker", network)
    origin = Origin(*(about[field] for field in Origin._fields))
    return FewShotTalker(about["id"], network.to(device), about["side"], origin)
