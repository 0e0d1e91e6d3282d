"""What a training sees: frames of the evidence, read once into a file that is mapped into memory, and samples of them.

Sample number n of a training is a pure function of (seed, n), so nothing has to be remembered to continue a run, and
two processes with half a batch each see what one sees with the whole.
"""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detectors.augment import UNCHANGED, Augmentation, change, draw_change
from detectors.sbi import self_blend
from thead_eval.errors import DatasetError
from thead_eval.evidence import SIDE, Evidence, Item, spread, window_span
from thead_eval.pictures import Picture
from thead_eval.results import write_json
from thead_eval.types import NUM_POINTS, Tell

SAME_PERSON = 0.5  # of the real samples show whom the fake beside them shows: who it is tells nothing
READERS = 2  # threads that read clips


@dataclass(frozen=True)
class Footage:
    """Windows of consecutive frames, spread over the clips of some evidence, in one file."""

    items: tuple[Item, ...]  # those that are long enough
    too_short: int  # clips that are not
    frames: NDArray[np.uint8]  # [N, W, 224, 224, 3] mapped
    owner: NDArray[np.int64]  # [N] whose window it is: a place in `items`
    points: NDArray[np.float32]  # [N, 68, 2] landmarks of a window's first frame; NaN where none are known

    @cached_property
    def fake(self) -> NDArray[np.bool_]:
        """[N]"""
        fakes: NDArray[np.bool_] = np.array([item.label == "fake" for item in self.items], np.bool_)
        return fakes[self.owner]

    @cached_property
    def reals_of(self) -> dict[str, NDArray[np.int64]]:
        """The real windows of each person."""
        found: dict[str, list[int]] = {}
        for row in np.flatnonzero(~self.fake):
            found.setdefault(self.items[int(self.owner[row])].identity, []).append(int(row))
        return {name: np.array(rows) for name, rows in sorted(found.items())}

    @cached_property
    def faces_of(self) -> dict[str, NDArray[np.int64]]:
        """Those of them that have landmarks."""
        known = np.isfinite(self.points).reshape(len(self.points), -1).min(axis=1)
        return {name: rows[known[rows]] for name, rows in self.reals_of.items() if known[rows].any()}

    @cached_property
    def fakes_of(self) -> dict[str, dict[str, NDArray[np.int64]]]:
        """The windows of each person's fakes by each generator."""
        found: dict[str, dict[str, list[int]]] = {}
        for row in np.flatnonzero(self.fake):
            item = self.items[int(self.owner[row])]
            found.setdefault(item.generator, {}).setdefault(item.identity, []).append(int(row))
        return {
            generator: {name: np.array(rows) for name, rows in sorted(people.items())}
            for generator, people in sorted(found.items())
        }


def read_footage(
    evidence: Evidence, path: Path, count: int, window: int, stride: int, tell: Tell = lambda done, of: None
) -> Footage:
    """At most `count` windows of each clip, `window` frames each, `stride` apart; read once, then kept at `path`.

    Raises:
        DatasetError: no clip is long enough, or one is missing or damaged.
        MediaError: a file cannot be read.
    """
    items = long_enough(evidence, window, stride)
    starts = [spread_windows(item, count, window, stride) for item in items]
    owner = np.repeat(np.arange(len(items)), [len(own) for own in starts])
    first = np.concatenate([[0], np.cumsum([len(own) for own in starts])])
    shape = (len(owner), window, SIDE, SIDE, 3)
    about: dict[str, Any] = {"evidence": evidence.sha256, "count": count, "stride": stride, "shape": list(shape)}
    described, landmarks = path.with_suffix(".json"), path.with_suffix(".points.npy")
    if not described.exists() or json.loads(described.read_text()) != about:
        path.parent.mkdir(parents=True, exist_ok=True)
        described.unlink(missing_ok=True)
        mapped = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
        points = np.full((len(owner), NUM_POINTS, 2), np.nan, np.float32)

        def read(number: int) -> None:
            item, own = items[number], starts[number]
            for row, pictures in enumerate(read_windows(evidence, item, own, window, stride), first[number]):
                mapped[row] = pictures
            known = evidence.landmarks(item, own)
            if known is not None:
                points[first[number] : first[number + 1]] = known.points.numpy()

        with ThreadPoolExecutor(READERS, "clips") as pool:
            for done, _ in enumerate(pool.map(read, range(len(items))), 1):
                tell(done, len(items))
        mapped.flush()
        np.save(landmarks, points)
        write_json(described, about)  # last, as it says that the others are whole
    mapped = np.load(path, mmap_mode="r")
    return Footage(items, len(evidence.items) - len(items), mapped, owner, np.load(landmarks))


def long_enough(evidence: Evidence, window: int, stride: int) -> tuple[Item, ...]:
    """The clips that hold a window of so many frames, `stride` apart.

    Raises:
        DatasetError: there is none.
    """
    least = window_span(window, stride)
    items = tuple(item for item in evidence.items if item.frames >= least)
    if not items:
        raise DatasetError(f"none of {len(evidence.items)} clips has {least} frames; give longer ones")
    return items


def spread_windows(item: Item, count: int, window: int, stride: int) -> list[int]:
    """Where at most `count` windows of a clip begin, spread over the whole of it."""
    return spread(item.frames - window_span(window, stride) + 1, count)


def read_windows(
    evidence: Evidence, item: Item, starts: Sequence[int], window: int, stride: int
) -> Iterator[NDArray[np.uint8]]:
    """Each window's frames [W, 224, 224, 3]; a frame of several windows is read once.

    Raises:
        DatasetError, MediaError: the clip is missing or damaged.
    """
    wanted = sorted({start + n * stride for start in starts for n in range(window)})
    pictures = evidence.read(item, wanted).frames.permute(0, 2, 3, 1).numpy()
    place = {index: n for n, index in enumerate(wanted)}
    for start in starts:
        yield pictures[[place[start + n * stride] for n in range(window)]]


class Batch(NamedTuple):
    """Samples as networks see them."""

    x: Tensor  # [B, W, 3, S, S] uint8 RGB
    fake: Tensor  # [B] float32, 1 = fake

    def to(self, device: torch.device) -> "Batch":
        """The same on a device."""
        return Batch(self.x.to(device, non_blocking=True), self.fake.to(device, non_blocking=True))


class Sample(NamedTuple):
    """Which window, and whether it is blended with itself into a fake."""

    row: int
    fake: bool
    blend: int | None  # the blend's seed


def draw_sample(footage: Footage, seed: int, number: int, blends: float) -> Sample:
    """Sample `number` of the training with this seed: even ones are fake, and an odd one is the real one beside it.

    A fake is of each generator equally often, and of each of its people. That part of the fakes which is `blends`, 0 to
    1, nobody made: each is the real one beside it, blended with itself.
    """
    pair, odd = divmod(number, 2)
    draw = np.random.default_rng([seed, 1, pair])
    if blends == 1 or (blends and draw.random() < blends):
        faces = list(footage.faces_of.values())
        row = int(draw.choice(faces[draw.integers(len(faces))]))
        return Sample(row, not odd, None if odd else int(draw.integers(2**31)))
    everyone = list(footage.reals_of)
    by_generator = list(footage.fakes_of.values())
    people = by_generator[draw.integers(len(by_generator))]
    person = list(people)[draw.integers(len(people))]
    if not odd:
        return Sample(int(draw.choice(people[person])), True, None)
    if person not in footage.reals_of or draw.random() >= SAME_PERSON:
        person = everyone[draw.integers(len(everyone))]
    return Sample(int(draw.choice(footage.reals_of[person])), False, None)


def read_batch(
    footage: Footage, numbers: Sequence[int], seed: int, by: Augmentation, size: int, *, blends: float = 0.0
) -> Batch:
    """These samples of the training with this seed, each changed in its own way."""
    pictures, fake = [], []
    for number in numbers:
        sample = draw_sample(footage, seed, number, blends)
        window = window_of(footage, sample)
        changed = change(window, draw_change(np.random.default_rng([seed, 2, number]), by), size)
        pictures.append(np.stack(changed))
        fake.append(sample.fake)
    return Batch(planes(np.stack(pictures)), torch.tensor(fake, dtype=torch.float32))


def window_of(footage: Footage, sample: Sample) -> list[Picture]:
    """The frames [224, 224, 3] of a sample, before they are changed."""
    window = list(footage.frames[sample.row])
    if sample.blend is not None:
        window = [self_blend(frame, footage.points[sample.row], sample.blend) for frame in window]
    return window


def read_pictures(footage: Footage, samples: Sequence[Sample], size: int) -> Tensor:
    """[B, W, 3, S, S] uint8, unchanged."""
    windows = [np.stack(change(window_of(footage, sample), UNCHANGED, size)) for sample in samples]
    return planes(np.stack(windows))


def planes(pictures: NDArray[np.uint8]) -> Tensor:
    """[..., H, W, 3] as [..., 3, H, W] without copying: in memory it is channels_last already."""
    return torch.from_numpy(pictures).movedim(-1, -3)
