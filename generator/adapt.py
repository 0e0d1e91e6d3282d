"""The few-shot stage: from a few frames of a new person to G' and psi' (section 3.4 of Zakharov et al., ICCV 2019).

Feed-forward, psi' = P e_NEW and G' = G. Fine-tuned, psi' starts there and is then learnt directly together with G', as
is w' = w_0 + e_NEW with the rest of D', on the person's own frames.

In the hybrid output a step must not see its own answer: the frame that it makes is one support frame, and what it may
warp are others, so that it learns what it will be asked. With a single frame there is no other: the candidate is the
frame itself after a random smooth thin-plate warp, and the target stays as it was filmed. That way round the blur and
the folds of the artificial warp are in what the network is given, never in what it learns to make; and as the base flow
knows the warp at the 68 points alone, copying does not give the answer. From so little it learns psi'
alone, unless asked otherwise.
"""

import copy
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from generator import candidates, losses
from generator.copy import usable_support
from generator.networks import Discriminator, Embedder, Generator, NetworkConfig, Output, to_network, view
from generator.samples import Augmentation, draw_change, place, see, unchanged
from generator.talker import computes_bfloat16
from generator.warp import base_flow, warp_frames
from thead_eval.drawing import draw_landmarks
from thead_eval.errors import ConfigError, TrainingFailed
from thead_eval.types import Clip, Landmarks, Tell

Tune = Literal["all", "adain", "adain+last_up", "heads"]
TUNED: dict[Tune, tuple[str, ...]] = {  # parts of G that are learnt beside psi'
    "all": ("down", "middle", "up", "skips", "to_rgb", "to_flow", "to_masks"),
    "adain": (),
    "adain+last_up": ("up.-1", "to_rgb", "to_flow", "to_masks"),
    "heads": ("to_rgb", "to_flow", "to_masks"),
}
# Of a person's own frames: no stretch, as these landmarks may tell whose face it is.
GENTLE = Augmentation(crop=0.5, smallest=0.9, colour=0.08, stretch=0.0, noise=0.3)
HOLD_FROM = 8  # shots from which whole frames are held back to judge by; with fewer, augmented views
HELD_VIEWS = 4


@dataclass(frozen=True)
class LossWeights:
    """What L' is made of: the terms of meta-learning without the match."""

    content_networks: tuple[str, ...] = ("efflite0",)
    content: float = 1.0
    content_crop: int | None = None  # the content networks see a random square of this side; None: the whole frame
    adversarial: float = 1.0
    feature_matching: float = 10.0
    l1: float = 1.0
    rgb: float = 0.2  # hybrid: L1 of what is painted, so that psi' learns the person where the mask copies
    mask: float = 0.0  # hybrid: of the frame, how much is painted
    flow: float = 0.0  # hybrid: differences of neighbours in the residual flow


@dataclass(frozen=True)
class AdaptConfig:
    """How a person is learnt.

    Raises:
        ConfigError: a value is out of range.
    """

    # Iterations, not epochs: with more frames an epoch grows, and a network that trains too long forgets how to move.
    steps: int = 40
    batch: int = 2
    tune: Tune | None = None  # None: all, but psi' alone where a hybrid has a single frame, see `_choose_tuned`
    lr: float = 5e-5  # of psi' and G'
    d_lr: float = 2e-4  # of w' and D'
    betas: tuple[float, float] = (0.0, 0.999)
    eps: float = 1e-5
    ema: float = 0.97  # of psi' and G': what is kept
    anchor: float = 0.0  # part of the way back to where they began that psi' and G' go each step
    weights: LossWeights | None = None  # None: those that the checkpoint was meta-learnt with

    # Early stop: the average that makes the held views best is kept.
    check_every: int = 10
    patience: int = 2  # checks without a better one

    augmentation: Augmentation = GENTLE
    jitter: float = 0.03  # one shot, hybrid: how far the thin-plate warp moves its nodes, of the frame's side
    seed: int = 0
    precision: Literal["32-true", "bf16-mixed"] | None = None  # None: bfloat16 where the device computes in it

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "check_every", "patience"):
            if getattr(self, name) < 1:
                raise ConfigError(f"adapt {name} is {getattr(self, name)}; it must be at least 1")
        if self.tune is not None and self.tune not in TUNED:
            raise ConfigError(f"adapt tune '{self.tune}' is not known; choose {', '.join(TUNED)}")
        if not 0 <= self.ema < 1:
            raise ConfigError(f"adapt ema is {self.ema}; it must be from 0 to below 1")
        if not 0 <= self.anchor < 1:
            raise ConfigError(f"adapt anchor is {self.anchor}; it must be from 0 to below 1")
        if not 0 <= self.jitter <= 0.1:
            raise ConfigError(f"adapt jitter is {self.jitter}; choose 0 to 0.1 of the frame's side")


class Networks(NamedTuple):
    """What meta-learning left; adapting changes none of them."""

    E: Embedder
    G: Generator
    D: Discriminator | None  # fine-tuning alone needs it
    weights: LossWeights = LossWeights()


@dataclass(frozen=True)
class Person:
    """Support frames with landmarks, as the networks take them."""

    frames: Tensor  # [K, 3, O, O] uint8
    points: Tensor  # [K, 68, 2] in pixels of O
    pictures: tuple[Image.Image, ...]  # as they were given, square
    given_points: NDArray[np.float32]  # [K, 68, 2] in their pixels

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def side(self) -> int:
        """Pixels a side of the frames that were given."""
        return self.pictures[0].width


class Check(NamedTuple):
    """One look at the held views."""

    step: int
    loss: float


@dataclass(frozen=True)
class Adapted:
    """A person, learnt."""

    G: Generator
    psi_prime: Tensor  # [1, A]
    person: Person
    steps: int  # updates in the average that was kept; 0: feed-forward
    seconds: float
    checks: tuple[Check, ...] = ()


def adapt(
    networks: Networks,
    support: Clip,
    landmarks: Landmarks,
    config: AdaptConfig | None,
    tell: Tell = lambda step, of: None,
) -> Adapted:
    """Learn a person from its support frames; `config` None: feed-forward. The networks stay as they were.

    The same input gives the same result, on one machine and number of threads. `tell` is told of each update.

    Raises:
        NoFaceFound: no support frame has landmarks.
        ConfigError: the frames are not square.
        TrainingFailed: a loss became NaN.
    """
    begin = time.perf_counter()
    device = next(networks.G.parameters()).device
    person = prepare(support, landmarks, networks.G.config)
    e_new = embed(networks.E, person, device)  # [1, N]
    with torch.no_grad():
        psi_prime = networks.G.P(e_new)  # [1, A]
    if config is None:
        return Adapted(networks.G, psi_prime, person, 0, time.perf_counter() - begin)
    tuned = _fine_tune(networks, psi_prime, e_new, person, config, support.id, tell)
    best = min(tuned.checks, key=lambda check: check.loss)
    return Adapted(tuned.G, tuned.psi_prime, person, best.step, time.perf_counter() - begin, tuned.checks)


def prepare(support: Clip, landmarks: Landmarks, config: NetworkConfig) -> Person:
    """The support frames that have landmarks, at the networks' size.

    Raises:
        NoFaceFound: none has.
        ConfigError: the frames are not square.
    """
    clip, points = usable_support(support, landmarks)
    height, width = clip.size
    if height != width:
        raise ConfigError(f"clip '{clip.id}' is {width}x{height}, and the generator takes square head crops; crop it")
    pictures = tuple(Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy()) for frame in clip.frames.cpu())
    given, whole = points.cpu().numpy(), unchanged(width)
    placed = np.stack([place(p, whole, config.output_size, width) for p in given])
    return Person(
        _stack([see(p, whole, config.output_size) for p in pictures]), torch.from_numpy(placed), pictures, given
    )


@torch.no_grad()
def embed(E: Embedder, person: Person, device: torch.device) -> Tensor:
    """e_NEW [1, N]: the mean of E over all T frames."""
    whole, side = unchanged(person.side), E.config.size
    x = _stack([see(picture, whole, side) for picture in person.pictures])  # [T, 3, S, S]
    y = torch.stack([_draw(place(p, whole, side, person.side), side) for p in person.given_points])
    e: Tensor = E(to_network(x.to(device)), to_network(y.to(device)))  # [T, N]
    return e.mean(0, keepdim=True)


class _Tuned(NamedTuple):
    G: Generator
    psi_prime: Tensor
    checks: tuple[Check, ...]


def _fine_tune(
    networks: Networks, psi_hat: Tensor, e_new: Tensor, person: Person, config: AdaptConfig, id: str, tell: Tell
) -> _Tuned:
    """The average of G' and psi' that made the held views best."""
    G, D = networks.G, networks.D
    assert D is not None, "fine-tuning needs D"
    device, network, weights = psi_hat.device, G.config, config.weights or networks.weights
    judging = bool(weights.adversarial or weights.feature_matching)
    content = _load_content(weights.content_networks, device)
    mixed = config.precision == "bf16-mixed" or (config.precision is None and computes_bfloat16(device))
    precision = torch.autocast(device.type, torch.bfloat16, enabled=mixed)

    # psi' starts at P e_NEW and G' at G, w' = w_0 + e_NEW with w_0 as it is, theta and b at D's. P is not needed.
    start = psi_hat.clone()
    psi_prime = nn.Parameter(start.clone())
    w = nn.Parameter(e_new.clone())
    G, D = copy.deepcopy(G).requires_grad_(False).train(), copy.deepcopy(D).requires_grad_(True).train()
    tune = config.tune or _choose_tuned(person, network)
    tuned: list[Tensor] = [psi_prime, *_tuned_parameters(G, tune)]
    for parameter in tuned:
        parameter.requires_grad_(True)
    w_0 = D.w_0.get_parameter("parametrizations.weight.original").requires_grad_(False)
    judged = [w, *(parameter for parameter in D.parameters() if parameter is not w_0)]
    begun = [parameter.detach().clone() for parameter in tuned]

    average = copy.deepcopy(G).eval().requires_grad_(False)
    average_psi = start.clone()
    averages: list[Tensor] = [average_psi, *_tuned_parameters(average, tune)]

    optimizer = torch.optim.Adam(tuned, config.lr, config.betas, config.eps, fused=True)
    d_optimizer = torch.optim.Adam(judged, config.d_lr, config.betas, config.eps, fused=True)

    held, targets = _hold(person)
    held_views = _draw_views(person, held, np.random.default_rng([config.seed, 1]), network, config).to(device)

    def check(step: int) -> Check:
        with torch.no_grad(), precision:
            frame = average(held_views.y, average_psi, held_views.sources, held_views.grids).frame
            judged_by = content(frame, held_views.x, held_views.points)
            loss = weights.content * judged_by + weights.l1 * (frame - held_views.x).abs().mean()
        return Check(step, float(loss))

    state = [*averages, *average.buffers()]
    best, kept = check(0), [tensor.clone() for tensor in state]
    checks = [best]
    for step in range(1, config.steps + 1):
        draw = np.random.default_rng([config.seed, 2, step])
        chosen = [targets[i] for i in _turns(len(targets), step, config)]
        views = _draw_views(person, chosen, draw, network, config).to(device)
        corners = None if network.crop is None else _draw_corners(draw, network.crop, network.output_size, config.batch)

        # psi' and G'.
        for parameter in judged:
            parameter.requires_grad_(False)
        with precision:
            output: Output = G(views.y, psi_prime, views.sources, views.grids)
            square = losses.draw_square(draw, weights.content_crop, network.output_size)
            parts = {"content": weights.content * content(output.frame, views.x, views.points, square)}
        parts["l1"] = weights.l1 * (output.frame - views.x).abs().mean()
        if output.masks is not None and output.flow is not None:
            parts["rgb"] = weights.rgb * (output.rgb - views.x).abs().mean()
            parts["mask"] = weights.mask * output.masks[:, -1].mean()
            rough = output.flow.diff(dim=-1).abs().mean() + output.flow.diff(dim=-2).abs().mean()
            parts["flow"] = weights.flow * rough
        if judging:
            real, fake = view(views.x, views.y, network, corners), view(output.frame, views.y, network, corners)
            with precision:
                r_fake, fake_features = D(fake.x, fake.y, w)
                with torch.no_grad():
                    _, real_features = D(real.x, real.y, w)
            parts["adversarial"] = weights.adversarial * losses.adversarial_loss(r_fake)
            parts["feature_matching"] = weights.feature_matching * losses.feature_matching_loss(
                fake_features, real_features
            )
        _refuse_nan(parts, id, step, config)
        optimizer.zero_grad()
        torch.autograd.backward(torch.stack(list(parts.values())).sum())
        optimizer.step()

        # w' and D'.
        if judging:
            for parameter in judged:
                parameter.requires_grad_(True)
            with precision:
                both = torch.cat([real.x, fake.x.detach()]), torch.cat([real.y, real.y])
                r_real, r_fake = D(*both, w).r.chunk(2)
            d_loss = losses.discriminator_loss(r_real, r_fake)
            _refuse_nan({"discriminator": d_loss}, id, step, config)
            d_optimizer.zero_grad()
            torch.autograd.backward(d_loss)
            d_optimizer.step()

        with torch.no_grad():
            if config.anchor:
                torch._foreach_lerp_(tuned, begun, config.anchor)
            # In the beginning the average follows faster.
            torch._foreach_lerp_(averages, tuned, 1 - min(config.ema, step / (step + 9)))
            for averaged, buffer in zip(average.buffers(), G.buffers(), strict=True):
                averaged.copy_(buffer)
        tell(step, config.steps)
        if step % config.check_every and step < config.steps:
            continue
        checks.append(check(step))
        if checks[-1].loss < best.loss:
            best, kept = checks[-1], [tensor.clone() for tensor in state]
        elif sum(later.step > best.step for later in checks) >= config.patience:
            break
    torch._foreach_copy_(state, kept)
    return _Tuned(average, average_psi, tuple(checks))


def _refuse_nan(parts: Mapping[str, Tensor], id: str, step: int, config: AdaptConfig) -> None:
    """Before a backward pass: that of a warp with NaN in its grid ends the process."""
    for name, value in zip(parts, torch.stack(list(parts.values())).tolist(), strict=True):
        if not math.isfinite(value):
            raise TrainingFailed(
                f"adapting to '{id}': the loss '{name}' is {value} at step {step} of {config.steps}; "
                "choose a smaller lr, or the feed-forward generator 'fewshot_ff'"
            )


def _draw_corners(draw: np.random.Generator, crop: int, side: int, count: int) -> Tensor:
    """Upper left pixels [count, 2] of squares that D sees."""
    return torch.from_numpy(draw.integers(0, side - crop + 1, (count, 2)))


@lru_cache(maxsize=2)
def _load_content(names: tuple[str, ...], device: torch.device) -> losses.ContentLoss:
    """Kept: the next person needs it again."""
    return losses.load_content(names, device)


def _choose_tuned(person: Person, network: NetworkConfig) -> Tune:
    """What is learnt where nobody says.

    Undoing an artificial warp is not what a hybrid will be asked: with all of G' learnt from one frame, SSIM of people
    it had not seen fell by .01 to .025 below the feed-forward generator's, and the held views, warped alike, did not
    tell. psi' alone keeps it.
    """
    return "adain" if network.output == "hybrid" and len(person) == 1 else "all"


def _tuned_parameters(G: Generator, tune: Tune) -> list[Tensor]:
    """Those of G that this choice learns, in a fixed order."""
    found: list[Tensor] = []
    for name in TUNED[tune]:
        if name == "up.-1":
            found += G.up[-1].parameters()
        elif hasattr(G, name):  # heads of the hybrid
            found += getattr(G, name).parameters()
    return found


def _hold(person: Person) -> tuple[list[int], list[int]]:
    """HELD_VIEWS frames to judge by, some twice, and the frames to learn; apart where there are enough."""
    count = len(person)
    if count < HOLD_FROM:
        return [i % count for i in range(HELD_VIEWS)], list(range(count))
    held = [i * HOLD_FROM for i in range(count // HOLD_FROM)]
    return [held[i % len(held)] for i in range(HELD_VIEWS)], [i for i in range(count) if i not in held]


def _turns(count: int, step: int, config: AdaptConfig) -> list[int]:
    """Which targets step 1, 2, ... takes: all in random order, then all again in another."""
    turns = []
    for number in range((step - 1) * config.batch, step * config.batch):
        again, turn = divmod(number, count)
        turns.append(int(np.random.default_rng([config.seed, 3, again]).permutation(count)[turn]))
    return turns


class Views(NamedTuple):
    """Frames to make, and what they may be made from. Pictures are networks' values, -1..1."""

    x: Tensor  # [B, 3, O, O]
    y: Tensor  # [B, 3, S, S]
    points: Tensor  # [B, 68, 2] in pixels of O
    sources: Tensor | None  # [B, C, 3, O, O]
    grids: Tensor | None  # [B, C, O, O, 2]

    def to(self, device: torch.device) -> "Views":
        """The same on a device."""
        sources = None if self.sources is None else self.sources.to(device)
        grids = None if self.grids is None else self.grids.to(device)
        return Views(self.x.to(device), self.y.to(device), self.points.to(device), sources, grids)


def _draw_views(
    person: Person, targets: list[int], draw: np.random.Generator, network: NetworkConfig, config: AdaptConfig
) -> Views:
    """Support frames as targets, each seen through an augmentation that its candidates share."""
    side, size = person.side, network.output_size
    x, y, all_points, all_sources, all_grids = [], [], [], [], []
    for t in targets:
        change = draw_change(draw, side, config.augmentation)
        points = person.given_points[t] if change.noise is None else person.given_points[t] + change.noise
        x.append(see(person.pictures[t], change, size))
        y.append(_draw(place(points, change, network.size, side), network.size))
        driving = torch.from_numpy(place(points, change, size, side))[None]  # [1, 68, 2]
        all_points.append(driving)
        if network.output == "hybrid":
            offered = _offer(person, t, draw, config)
            placed = torch.from_numpy(np.stack([place(p, change, size, side) for _, p in offered]))  # [K, 68, 2]
            chosen = candidates.choose(placed, driving, network)  # [1, C]
            seen = {k: see(offered[k][0], change, size) for k in set(chosen[0].tolist())}
            all_sources.append(_stack([seen[k] for k in chosen[0].tolist()]))
            all_grids.append(candidates.grids(placed, driving, chosen, network))
    return Views(
        to_network(_stack(x)),
        to_network(torch.stack(y)),
        torch.cat(all_points),
        to_network(torch.stack(all_sources)) if all_sources else None,
        torch.cat(all_grids) if all_grids else None,
    )


def _offer(
    person: Person, target: int, draw: np.random.Generator, config: AdaptConfig
) -> list[tuple[Image.Image, NDArray[np.float32]]]:
    """Pictures with their points that the target may be made from: never itself.

    A random part of the others: the nearest of all is often the frame before or after, nearer than any will be.
    """
    others = [k for k in range(len(person)) if k != target]
    if not others:
        return [warp_smoothly(person.pictures[target], person.given_points[target], draw, config.jitter)]
    count = int(draw.integers(1, len(others) + 1))
    return [(person.pictures[k], person.given_points[k]) for k in draw.choice(others, count, replace=False)]


def warp_smoothly(
    picture: Image.Image, points: NDArray[np.float32], draw: np.random.Generator, jitter: float
) -> tuple[Image.Image, NDArray[np.float32]]:
    """The picture, and its points [68, 2], after a random smooth warp that leaves the border where it is.

    A thin-plate spline through 4 x 4 nodes over the face, which move together and each by itself.
    """
    side = picture.width
    low, high = points.min(0), points.max(0)
    steps = np.linspace(-0.1, 1.1, 4)
    nodes = np.stack(np.meshgrid(*(low[i] + steps * (high[i] - low[i]) for i in (0, 1))), -1).reshape(1, 16, 2)
    moved = nodes + side * jitter * (draw.standard_normal((1, 1, 2)) + draw.standard_normal((1, 16, 2)) / 2)
    grid = base_flow(torch.from_numpy(nodes).float(), torch.from_numpy(moved).float(), (side, side))
    pixels = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)[None]
    warped = warp_frames(pixels, grid)[0].permute(1, 2, 0).numpy()

    # The grid says where a pixel p came from, p + d(p); a point q is now where p + d(p) = q.
    y, x = torch.meshgrid(torch.linspace(-1, 1, side), torch.linspace(-1, 1, side), indexing="ij")
    shift = (grid - torch.stack([x, y], -1)).permute(0, 3, 1, 2)  # [1, 2, side, side]
    q = torch.from_numpy(points)[None] * 2 / (side - 1) - 1  # [1, 68, 2]
    p = q
    for _ in range(8):
        at = F.grid_sample(shift, p[:, None], padding_mode="border", align_corners=True)  # [1, 2, 1, 68]
        p = q - at[:, :, 0].mT
    return Image.fromarray(warped), ((p[0] + 1) * (side - 1) / 2).numpy()


def _draw(points: NDArray[np.float32], side: int) -> Tensor:
    return draw_landmarks(torch.from_numpy(points), side, side)


def _stack(pictures: list[NDArray[np.uint8]]) -> Tensor:
    """Pictures [side, side, 3] as [B, 3, side, side]."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
