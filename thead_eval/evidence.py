"""What detectors learn from and are judged on: real clips and fakes of them, each with who, whence and which split.

Real and fake come the same way, so that neither codec nor size nor block grid tells them apart: decoded, brought to the
smallest size among all of them, then to 224 pixels, then through one JPEG.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from thead_eval import pictures
from thead_eval.data import Dataset, Split, decode_jpeg, open_dataset
from thead_eval.errors import DatasetError
from thead_eval.judging import Progress, count_frames
from thead_eval.manifest import COLUMNS, ManifestRow, read_manifest
from thead_eval.manifest import NAME as MANIFEST
from thead_eval.media import iter_frames, probe_video
from thead_eval.sources import Ratios, survey
from thead_eval.types import Clip, Landmarks
from thead_eval.weights import sha256_of

# Pixels a side of what detectors are given. Not 256, the size of a crop: a real frame copied pixel by pixel would keep
# the block grid of its video and of the dataset's JPEG, which a generator's frame never has.
SIDE = 224
QUALITY = 90  # of the JPEG, with chroma at full resolution
RATIOS = Ratios(0.7, 0.15, 0.15)  # of identities of which nothing else says the split, as in 'theval prepare'


@dataclass(frozen=True)
class Item:
    """One clip of head crops."""

    id: str  # unique among the evidence; nothing is read out of it
    label: Literal["real", "fake"]
    generator: str  # '' of a real clip
    shots: str  # that the generator adapted on, where that is known
    identity: str  # who is shown
    source: str  # sha256 of the recording that it is, or that it reproduces
    split: Split
    frames: int
    fps: float
    size: int  # pixels a side, as stored
    path: str  # of a video file, or of a prepared dataset
    clip: str  # its id in that dataset; '' of a file
    sha256: str  # of the file, or of the dataset
    first: int = 0  # number of its first frame in the file or clip, where it is a part of that

    def part(self, first: int, frames: int) -> "Item":
        """So many of its frames, from the given one on, as a clip of its own."""
        return replace(
            self, id=f"{self.id}, frames {first} to {first + frames - 1}", first=self.first + first, frames=frames
        )


@dataclass(frozen=True)
class Evidence:
    """Items in a fixed order, and the size that all are brought to."""

    items: tuple[Item, ...]
    size: int  # the smallest of the items'

    @cached_property
    def sha256(self) -> str:
        """A fingerprint of what is in it, wherever it lies."""
        rows = [asdict(replace(item, path="")) for item in self.items]
        return hashlib.sha256(json.dumps([self.size, rows], sort_keys=True).encode()).hexdigest()

    @property
    def generators(self) -> tuple[str, ...]:
        """Each once, by name."""
        return tuple(sorted({item.generator for item in self.items if item.label == "fake"}))

    def of(self, split: Split) -> "Evidence":
        """The items of a split; all are still brought to the same size."""
        return Evidence(tuple(item for item in self.items if item.split == split), self.size)

    def without(self, generators: Sequence[str]) -> "Evidence":
        """All but the fakes of these generators."""
        return Evidence(tuple(item for item in self.items if item.generator not in generators), self.size)

    def judged(self) -> "Evidence":
        """Of the real clips those that the fakes reproduce, as far as these lie beside them as files.

        They are as many frames as a fake's, coded alike, of the same moments. Whole clips of a dataset are there to be
        learnt from; they are judged only beside fakes of which the real frames are missing, and nobody twice.
        """
        return Evidence(judged_items(self.items), self.size)

    def frames(self, item: Item, count: int) -> Clip:
        """At most `count` frames, spread over the whole clip: see `spread` and `read`."""
        return self.read(item, spread(item.frames, count))

    def read(self, item: Item, indices: Sequence[int]) -> Clip:
        """These frames [T, 3, 224, 224] as detectors are given them.

        Raises:
            DatasetError, MediaError: the clip is missing or damaged.
        """
        indices = [item.first + index for index in indices]
        if item.clip:
            frames = open_dataset_once(item.path).read(item.clip, indices)[0].frames
        else:
            frames = _read_file(item, indices)
        return Clip(item.id, alike(frames, self.size), item.fps)

    def landmarks(self, item: Item, indices: Sequence[int]) -> Landmarks | None:
        """Of these frames, in pixels of 224; None of a file, beside which none lie.

        Raises:
            DatasetError: the clip is missing.
        """
        if not item.clip:
            return None
        landmarks = open_dataset_once(item.path).landmarks(item.clip).take([item.first + index for index in indices])
        return Landmarks((landmarks.points + 0.5) * (SIDE / item.size) - 0.5, landmarks.found)


def judged_items(items: Sequence[Item]) -> tuple[Item, ...]:
    """See `Evidence.judged`."""
    partners = {(item.identity, item.source) for item in items if item.label == "real" and not item.clip}
    fakes = [item for item in items if item.label == "fake"]
    needed = not partners or any((item.identity, item.source) not in partners for item in fakes)
    whole = [item for item in items if item.label == "real" and item.clip]
    cut = {item.id for item in whole if not needed or (item.identity, item.source) in partners}
    return tuple(item for item in items if item.id not in cut)


def group_people(items: Sequence[Item]) -> dict[str, str]:
    """By person, a name for all with whom they share a recording, directly or by others."""
    group = {item.identity: item.identity for item in items}
    first: dict[str, str] = {}
    for item in items:
        one, other = group[item.identity], group[first.setdefault(item.source, item.identity)]
        if one != other:
            group = {person: one if name == other else name for person, name in group.items()}
    return group


_OPEN: dict[str, Dataset] = {}


def open_dataset_once(path: str) -> Dataset:
    """A dataset by its path, opened on first use: its fingerprint takes a pass over the index."""
    if path not in _OPEN:
        _OPEN[path] = open_dataset(path)
    return _OPEN[path]


def spread(frames: int, count: int) -> list[int]:
    """`count` numbers from 0 to `frames`, at equal distances over all of them; every one where there are fewer.

    Each is the middle of its share: of 270 frames, 32 are 4, 12, 21, ... 265. Taking the first 32, as a widely used
    benchmark does, judges one second of each video.
    """
    if frames <= count:
        return list(range(frames))
    return [int((place + 0.5) * frames / count) for place in range(count)]


def window_span(window: int, stride: int) -> int:
    """Frames from the first to the last of a window of so many frames, `stride` apart."""
    return (window - 1) * stride + 1


def alike(frames: Tensor, size: int, quality: int = QUALITY) -> Tensor:
    """[T, 3, H, H] uint8 crops of any size as [T, 3, 224, 224], by way of `size` and a JPEG, as real and fake come."""
    shown = []
    for frame in frames:
        picture = Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy())
        for side in (size, SIDE):
            if picture.width > side or (side == SIDE and picture.width != SIDE):
                picture = picture.resize((side, side), Image.Resampling.BILINEAR)  # antialiased where it shrinks
        shown.append(decode_jpeg(pictures.encode_jpeg(np.asarray(picture), quality)))
    return torch.stack(shown) if shown else torch.empty(0, 3, SIDE, SIDE, dtype=torch.uint8)


def read_evidence(
    dataset: Dataset | None,
    fakes: Sequence[Path],
    *,
    whole: bool = True,
    progress: Progress = lambda what, done, of: None,
) -> Evidence:
    """Real clips of a dataset, and clips of other folders, in the order in which they are named.

    A folder is one that 'theval generate --data' made, where the real frames that each fake reproduces count too; or a
    prepared dataset whose labels name generators; or videos of head crops, with a manifest.csv or laid out as
    'theval prepare' reads them. Identities of `dataset` keep its split everywhere; others have that which their folder
    states, or one by their name. Real clips that lie in two of the folders, as those do that the fakes in both
    reproduce, count once, as the first's.

    Args:
        dataset: Its real clips.
        fakes: Folders.
        whole: All clips of the dataset, from which there is more to learn; without, see `Evidence.judged`.
        progress: Told after each file of a folder: where no manifest knows them, they are hashed and counted.

    Raises:
        DatasetError: a folder is missing, unreadable or holds nothing, two items share an id, or one is no head crop.
        ConfigError: a manifest is wrong.
    """
    known: dict[str, Split] = {}
    items: list[Item] = []
    if dataset is not None:
        known = dict(zip(dataset.clips["identity"], dataset.clips["split"], strict=True))
        items += [item for item in _dataset_items(dataset, "") if item.label == "real"]
    added: list[Item] = []
    for folder in fakes:
        if not folder.is_dir():
            raise DatasetError(f"'{folder}' is not a folder; give one that 'theval generate --data' made, or of videos")
        if (folder / "dataset.json").exists():
            added += _dataset_items(open_dataset(folder), f"{folder.name}/")
        else:
            added += _folder_items(folder, progress)
    items = list(_once([*items, *(replace(item, split=known.get(item.identity, item.split)) for item in added)]))
    if not items:
        raise DatasetError("there is neither a real clip nor a fake; give --data DATASET, and --fakes FOLDER")
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise DatasetError(f"two clips are called '{item.id}'; rename one of the folders that hold them")
        seen.add(item.id)
    evidence = Evidence(tuple(items), min(item.size for item in items))
    return evidence if whole else evidence.judged()


def _once(items: Iterable[Item]) -> Iterator[Item]:
    """The items; of real ones with the same contents, of the same person, the first.

    The real frames that fakes of several folders reproduce lie in each of them.
    """
    seen = set()
    for item in items:
        contents = (item.sha256, item.clip, item.identity, item.source)
        if item.label == "fake" or contents not in seen:
            yield item
        if item.label == "real":
            seen.add(contents)


def _dataset_items(dataset: Dataset, prefix: str) -> Iterator[Item]:
    """A prepared dataset's clips, without those of people whom nobody named: they may be anyone's."""
    _OPEN[dataset.path] = dataset
    for row in dataset.clips.to_dict("records"):
        if "~" in row["identity"]:
            continue
        real = row["label"] == "real"
        yield Item(
            id=prefix + row["id"],
            label="real" if real else "fake",
            generator="" if real else row["label"],
            shots="",
            identity=row["identity"],
            source=row["source_sha256"],
            split=row["split"],
            frames=int(row["frames"]),
            fps=float(row["fps"]),
            size=dataset.info.size,
            path=dataset.path,
            clip=row["id"],
            sha256=dataset.sha256,
        )


def _folder_items(folder: Path, progress: Progress) -> Iterator[Item]:
    """Videos of head crops, with what a manifest says of them."""
    manifest = folder / MANIFEST
    heading = manifest.read_text(encoding="utf-8-sig").partition("\n")[0].strip() if manifest.exists() else ""
    ours = heading == ",".join(COLUMNS)
    rows = {row.file: row for row in read_manifest(folder)} if ours else {}
    found = survey(folder, "auto", RATIOS, manifest if manifest.exists() else None)
    # Where nothing says what is real, nothing is: a folder of fakes was asked for.
    unlabelled = found.layout != "faceforensics" and "label" not in heading.split(",")
    if unlabelled and (folder / "real").is_dir():
        raise DatasetError(
            f"'{folder}' holds a folder 'real', and nothing says what in it is real; write '{manifest}' with "
            "the columns file,identity,label"
        )
    for done, source in enumerate(found.sources, 1):
        path = folder / source.file
        info = probe_video(path)
        if info.width != info.height:
            raise DatasetError(
                f"'{path}' is {info.width} x {info.height}, not a square head crop; make a dataset of the folder with "
                "'theval prepare', and name that"
            )
        row = rows.get(source.file, ManifestRow(source.file, source.identity, source.label))
        sha256 = row.sha256 or sha256_of(path)
        real = source.label == "real" and not unlabelled
        label = folder.name if unlabelled else source.label
        yield Item(
            id=f"{folder.name}/{source.file}",
            label="real" if real else "fake",
            generator="" if real else row.generator or label,
            shots=row.shots,
            identity=source.identity,
            source=row.driver_sha256 or row.source_sha256 or sha256,
            split=source.split,
            frames=row.frames or count_frames(path),
            fps=row.fps or info.fps,
            size=info.width,
            path=str(path),
            clip="",
            sha256=sha256,
        )
        progress(str(folder), done, len(found.sources))


def _read_file(item: Item, indices: Sequence[int]) -> Tensor:
    wanted = set(indices)
    found: dict[int, Tensor] = {}
    number = 0
    for batch in iter_frames(Path(item.path)):
        for frame in batch:
            if number in wanted:
                found[number] = frame
            number += 1
        if len(found) == len(wanted):
            break
    if lacking := wanted - found.keys():
        raise DatasetError(
            f"'{item.path}' has {number} frames, and number {min(lacking)} was to be read; it changed, make it again"
        )
    return torch.stack([found[index] for index in indices])
