"""Training episodes from a prepared dataset: a frame to make, others of the same clip to make it from, changed alike.

Sample number n of a training is a pure function of (seed, n), so nothing has to be remembered to continue a run, and
two processes with half a batch each see what one sees with the whole.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, TypeVar

import numpy as np
import pyarrow.parquet as pq
import torch
from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from generator.candidates import choose
from generator.networks import NetworkConfig
from thead_eval.data import Dataset, Split
from thead_eval.drawing import paint_landmarks
from thead_eval.errors import ConfigError, DatasetError
from thead_eval.types import NUM_POINTS

GAP_FRAMES = 16  # between target and support, where the clip allows; as in thead_eval.data
# What each of the 68 points is called in a mirror.
MIRRORED = np.array(
    [
        *range(16, -1, -1),  # oval
        *range(26, 16, -1),  # brows
        *range(27, 31),  # nose
        *range(35, 30, -1),
        *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),  # eyes
        *range(54, 47, -1),  # outer lips
        *range(59, 54, -1),
        *range(64, 59, -1),  # inner lips
        *range(67, 64, -1),
    ]
)

Points = NDArray[np.float32]
Made = TypeVar("Made")


@dataclass(frozen=True)
class Augmentation:
    """How episodes are changed. Target and support alike, as one camera saw them, unless said otherwise.

    Raises:
        ConfigError: a value is out of range.
    """

    flip: float = 0.5  # of the episodes
    crop: float = 0.5  # of the episodes that see less than the whole picture
    smallest: float = 0.85  # side of that part
    colour: float = 0.15  # of brightness, contrast, gamma and the balance of channels: at most so much up or down
    # Of the driving landmarks alone: they shall not tell whose face it is.
    stretch: float = 0.08  # width and height about their middle, each at most so much up or down
    noise: float = 0.5  # standard deviation of each point, in pixels of 256

    def __post_init__(self) -> None:
        for name in ("flip", "crop"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"augmentation {name} = {getattr(self, name)} is not a part of the episodes, 0 to 1")
        if not 0.25 <= self.smallest <= 1:
            raise ConfigError(f"augmentation smallest = {self.smallest} is out of range; choose 0.25 to 1")
        for name in ("colour", "stretch"):
            if not 0 <= getattr(self, name) <= 0.5:
                raise ConfigError(f"augmentation {name} = {getattr(self, name)} is out of range; choose 0 to 0.5")
        if self.noise < 0:
            raise ConfigError(f"augmentation noise = {self.noise} is negative; 0 turns it off")


UNCHANGED = Augmentation(flip=0, crop=0, colour=0, stretch=0, noise=0)


@dataclass(frozen=True)
class FootageClip:
    """Where the frames of one clip lie, and their landmarks."""

    id: str
    identity: str
    shard: str  # path or URL
    offsets: NDArray[np.int64]  # [T]
    sizes: NDArray[np.int32]  # [T]
    points: Points  # [T, 68, 2] pixels of the crop
    usable: NDArray[np.int64]  # the frames with landmarks; two at least


@dataclass(frozen=True)
class Footage:
    """The real clips of a split: landmarks in memory, frames where they are."""

    path: str
    size: int  # pixels a side
    clips: tuple[FootageClip, ...]  # by id; a clip's place is its row of W
    people: tuple[tuple[int, ...], ...]  # by name: the places of each person's clips
    files: AbstractFileSystem

    def picture(self, clip: int, frame: int) -> Image.Image:
        """One frame, RGB.

        Raises:
            DatasetError: the shard is missing or damaged.
        """
        of = self.clips[clip]
        start = int(of.offsets[frame])
        try:
            # A ranged read that shares nothing, so that threads may call it.
            return Image.open(io.BytesIO(self.files.cat_file(of.shard, start, start + int(of.sizes[frame])))).convert(
                "RGB"
            )
        except (OSError, SyntaxError) as error:  # Pillow raises SyntaxError for a broken file
            raise DatasetError(
                f"'{of.shard}': frame {frame} of clip '{of.id}' cannot be read ({error}); prepare it again"
            ) from error


def read_footage(dataset: Dataset, split: Split) -> Footage:
    """What the index says about the real clips of a split that have two frames with landmarks or more.

    Raises:
        DatasetError: there is none.
    """
    files = url_to_fs(dataset.path)[0]
    rows = dataset.clips[(dataset.clips["label"] == "real") & (dataset.clips["split"] == split)]
    identity_of = dict(zip(rows["id"], rows["identity"], strict=True))
    clips: list[FootageClip] = []
    with files.open(f"{dataset.path}/frames.parquet") as file:
        index = pq.ParquetFile(file)
        for group in range(index.num_row_groups):  # a clip never spans two
            table = index.read_row_group(group)
            names = np.array(table["clip"].to_pylist())
            starts = np.flatnonzero(np.append(True, names[1:] != names[:-1]))
            for start, end in zip(starts, [*starts[1:], len(names)], strict=True):
                id = str(names[start])
                if id not in identity_of:
                    continue
                part = table.slice(start, end - start)
                points = np.array(part["landmarks"].combine_chunks().flatten(), np.float32)
                usable = np.flatnonzero(np.array(part["found"], bool))
                if len(usable) < 2:
                    continue
                clips.append(
                    FootageClip(
                        id,
                        str(identity_of[id]),
                        f"{dataset.path}/shards/{part['shard'][0].as_py()}",
                        np.array(part["offset"], np.int64),
                        np.array(part["size"], np.int32),
                        points.reshape(-1, NUM_POINTS, 2),
                        usable,
                    )
                )
    if not clips:
        raise DatasetError(
            f"dataset '{dataset.path}' has no real clip with landmarks in split '{split}'; "
            "prepare more videos, or another --split"
        )
    clips.sort(key=lambda clip: clip.id)
    places: dict[str, list[int]] = {}
    for row, clip in enumerate(clips):
        places.setdefault(clip.identity, []).append(row)
    people = tuple(tuple(places[name]) for name in sorted(places))
    return Footage(dataset.path, dataset.info.size, tuple(clips), people, files)


class Change(NamedTuple):
    """What an augmentation drew for one episode."""

    flip: bool
    box: tuple[float, float, float, float]  # the part that is seen: x0, y0, x1, y1 in pixels of the crop
    colours: tuple[int, ...] | None  # 3 x 256: what each value of each channel becomes
    stretch: tuple[float, float]
    noise: Points | None  # [68, 2] pixels of the crop


@dataclass(frozen=True)
class Episode:
    """One sample: which frames, and how they are changed."""

    clip: int
    target: int
    support: tuple[int, ...]  # K frames of the same clip, the target never among them
    change: Change


def draw_episode(
    footage: Footage, seed: int, number: int, shots: tuple[int, int], augmentation: Augmentation
) -> Episode:
    """Sample `number` of the training with this seed.

    Each epoch takes every person once, in a new order; clip, frames and K, which is log-uniform in `shots` (both ends
    included), are drawn anew.
    """
    epoch, turn = divmod(number, len(footage.people))
    draw = np.random.default_rng([seed, 1, number])
    clip = int(draw.choice(footage.people[_order(seed, epoch, len(footage.people))[turn]]))
    usable = footage.clips[clip].usable
    target = int(draw.choice(usable))
    gap = GAP_FRAMES
    while len(apart := usable[np.abs(usable - target) >= gap]) == 0:
        gap //= 2  # ends at 1: two frames are usable
    fewest, most = shots
    count = min(int(np.exp(draw.uniform(np.log(fewest), np.log(most + 1)))), most, len(apart))
    support = tuple(int(frame) for frame in draw.choice(apart, count, replace=False))
    return Episode(clip, target, support, draw_change(draw, footage.size, augmentation))


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, people: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, 0, epoch]).permutation(people)


def draw_change(draw: np.random.Generator, size: int, by: Augmentation) -> Change:
    side = size * (draw.uniform(by.smallest, 1) if draw.random() < by.crop else 1)
    x, y = draw.uniform(0, size - side, 2) if side < size else (0.0, 0.0)
    colours = None
    if by.colour:
        level = np.arange(256)[None] / 255  # [1, 256]
        gamma, contrast, brightness = draw.uniform(-by.colour, by.colour, 3)
        balance = 1 + draw.uniform(-by.colour, by.colour, (3, 1)) / 3
        curve = level ** np.exp(gamma) * balance  # [3, 256]
        curve = (curve - 0.5) * (1 + contrast) + 0.5 + brightness / 2
        colours = tuple((curve * 255).round().clip(0, 255).astype(int).flatten().tolist())
    stretch = draw.uniform(1 - by.stretch, 1 + by.stretch, 2)
    noise = (draw.standard_normal((NUM_POINTS, 2)) * by.noise * size / 256).astype(np.float32) if by.noise else None
    return Change(
        bool(draw.random() < by.flip),
        (float(x), float(y), float(x + side), float(y + side)),
        colours,
        (float(stretch[0]), float(stretch[1])),
        noise,
    )


def unchanged(size: int) -> Change:
    """The whole picture as it is."""
    return draw_change(np.random.default_rng(0), size, UNCHANGED)


class Batch(NamedTuple):
    """Episodes as the networks need them; O = output_size, S = size. Pictures are uint8 RGB."""

    clips: Tensor  # [B] int64: rows of W
    x: Tensor  # [B, 3, O, O] the target frames
    y: Tensor  # [B, 3, S, S] their landmarks, drawn
    points: Tensor  # [B, 68, 2] the same in pixels of O
    x_support: Tensor  # [M, 3, S, S] what E sees, of all episodes
    y_support: Tensor  # [M, 3, S, S]
    owner: Tensor  # [M] int64: the episode that each of them belongs to
    sources: Tensor  # [B, C, 3, O, O] support frames to warp, the nearest first; C = 0 where output is 'rgb'
    source_points: Tensor  # [B, C, 68, 2] in pixels of O

    def to(self, device: torch.device) -> "Batch":
        """The same on a device."""
        return Batch(*(field.to(device, non_blocking=True) for field in self))


def read_batch(footage: Footage, episodes: Sequence[Episode], config: NetworkConfig, embed: int) -> Batch:
    """The pictures of episodes. E sees the first `embed` support frames of each, the candidates come from all.

    Made by Pillow, OpenCV and numpy, which let other threads work: torch would start a second team of OpenMP threads,
    and the two would fight for the cores.

    Raises:
        DatasetError: a shard is missing or damaged.
    """
    B, O, S = len(episodes), config.output_size, config.size  # the networks' letters
    C = config.candidates if config.output == "hybrid" else 0
    M = sum(len(episode.support[:embed]) for episode in episodes)
    x, y = np.empty((B, O, O, 3), np.uint8), np.empty((B, S, S, 3), np.uint8)
    points = np.empty((B, NUM_POINTS, 2), np.float32)
    x_support, y_support = np.empty((M, S, S, 3), np.uint8), np.empty((M, S, S, 3), np.uint8)
    owner = np.empty(M, np.int64)
    sources = np.empty((B, C, O, O, 3), np.uint8)
    source_points = np.empty((B, C, NUM_POINTS, 2), np.float32)
    m = 0
    for b, episode in enumerate(episodes):
        change = episode.change
        all_points = footage.clips[episode.clip].points
        pictures = {frame: footage.picture(episode.clip, frame) for frame in (episode.target, *episode.support[:embed])}
        x[b] = see(pictures[episode.target], change, O)
        driving = _stretched(all_points[episode.target], change)
        points[b] = place(driving, change, O, footage.size)
        y[b] = paint_landmarks(place(driving, change, S, footage.size), S, S)
        for frame in episode.support[:embed]:
            x_support[m] = see(pictures[frame], change, S)
            y_support[m] = paint_landmarks(place(all_points[frame], change, S, footage.size), S, S)
            owner[m] = b
            m += 1
        if C:
            offered = np.stack([place(all_points[frame], change, O, footage.size) for frame in episode.support])
            chosen = choose(torch.from_numpy(offered), torch.from_numpy(points[b : b + 1]), config)[0].tolist()  # [C]
            source_points[b] = offered[chosen]
            for c, row in enumerate(chosen):
                first = chosen.index(row)
                if first < c:
                    sources[b, c] = sources[b, first]
                    continue
                frame = episode.support[row]
                if frame not in pictures:
                    pictures[frame] = footage.picture(episode.clip, frame)
                sources[b, c] = see(pictures[frame], change, O)
    return Batch(
        torch.tensor([episode.clip for episode in episodes]),
        _planes(x),
        _planes(y),
        torch.from_numpy(points),
        _planes(x_support),
        _planes(y_support),
        torch.from_numpy(owner),
        _planes(sources),
        torch.from_numpy(source_points),
    )


def see(picture: Image.Image, change: Change, side: int) -> NDArray[np.uint8]:
    """A frame [side, side, 3] through the change's camera."""
    if change.box != (0, 0, *picture.size) or picture.size != (side, side):
        picture = picture.resize((side, side), Image.Resampling.BILINEAR, box=change.box)
    if change.colours is not None:
        picture = picture.point(change.colours)
    pixels = np.asarray(picture)
    return pixels[:, ::-1] if change.flip else pixels


def place(points: Points, change: Change, side: int, size: int) -> Points:
    """Points of the crop [68, 2] where `see` shows them."""
    x0, y0, x1, _ = change.box
    placed: Points = (points + 0.5 - np.array([x0, y0], np.float32)) * np.float32(side / (x1 - x0)) - 0.5
    if change.flip:
        placed = placed[MIRRORED]
        placed[:, 0] = side - 1 - placed[:, 0]
    return placed


def _stretched(points: Points, change: Change) -> Points:
    middle = points.mean(0)
    moved: Points = middle + (points - middle) * np.array(change.stretch, np.float32)
    return moved if change.noise is None else moved + change.noise


def _planes(pictures: NDArray[np.uint8]) -> Tensor:
    """[..., H, W, 3] as [..., 3, H, W] without copying: in memory it is channels_last already."""
    return torch.from_numpy(pictures).movedim(-1, -3)
