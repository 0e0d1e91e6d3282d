"""Prepared datasets on disk (shards of JPEG frames, a parquet index with landmarks), and few-shot sets from them.

DATASET/dataset.json    how it was made: crop size, JPEG quality, detection and landmark backends, packages
DATASET/clips.parquet   a row per clip, and a row per source file that gave none, with the reason
DATASET/frames.parquet  a row per frame: clip, index, shard, byte offset and size, 68 landmarks, found
DATASET/shards/*.tar    `<clip id>/<index>.jpg`: the WebDataset layout, so that any frame is one ranged read
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from thead_eval import pictures
from thead_eval.errors import DatasetError, NobodyFits
from thead_eval.results import Failure, write_json
from thead_eval.types import NUM_POINTS, Clip, FewShotSet, Landmarks

SHARD_BYTES = 256 * 2**20
CLIPS_PER_ROW_GROUP = 16

Split = Literal["train", "val", "test"]
Reason = Literal["unreadable", "no face", "face lost", "too short"]

CLIP_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("identity", pa.string()),
        ("source", pa.string()),  # path relative to the folder that was prepared
        ("source_sha256", pa.string()),
        ("label", pa.string()),  # "real", or the generator's name
        ("split", pa.string()),
        ("fps", pa.float64()),
        ("frames", pa.int32()),
        ("first_frame", pa.int32()),  # its number in the source
        ("crop_box", pa.list_(pa.float32(), 4)),  # x0, y0, x1, y1 in pixels of the source
        ("reason", pa.string()),  # null where the clip was accepted
        ("detail", pa.string()),
    ]
)
FRAME_SCHEMA = pa.schema(
    [
        ("clip", pa.string()),
        ("index", pa.int32()),
        ("shard", pa.string()),
        ("offset", pa.int64()),
        ("size", pa.int32()),
        ("landmarks", pa.list_(pa.float32(), 2 * NUM_POINTS)),  # x0, y0, x1, y1, ... in pixels of the crop; NaN
        ("found", pa.bool_()),
    ]
)


class DatasetInfo(BaseModel):
    """dataset.json. Holds no time of day, so that the same command makes the same bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    size: int  # pixels a side
    jpeg_quality: int
    detector: str
    landmarks: str
    settings: dict[str, Any] = {}  # the other settings of `theval prepare`; Any: JSON
    packages: dict[str, str] = {}


@dataclass(frozen=True)
class PreparedClip:
    """One clip on its way into a dataset."""

    id: str
    identity: str
    source: str
    source_sha256: str
    label: str
    split: Split
    fps: float
    first_frame: int
    crop_box: tuple[float, float, float, float]
    jpegs: Iterable[bytes]
    landmarks: Landmarks


@dataclass(frozen=True)
class RejectedSource:
    """A source file that gave no clip."""

    source: str
    source_sha256: str
    identity: str
    label: str
    split: Split
    reason: Reason
    detail: str


def encode_jpeg(frame: Tensor, quality: int) -> bytes:
    """A [3, H, W] uint8 frame as JPEG, as `theval prepare` encodes it."""
    return pictures.encode_jpeg(frame.permute(1, 2, 0).numpy(), quality)


def decode_jpeg(content: bytes) -> Tensor:
    """A JPEG as a [3, H, W] uint8 RGB frame."""
    with Image.open(io.BytesIO(content)) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def write_dataset(path: Path, clips: Iterable[PreparedClip | RejectedSource], info: DatasetInfo) -> None:
    """Write a dataset from clips in their order, one at a time; dataset.json comes last and marks it as whole.

    Raises:
        DatasetError: no clip was accepted.
    """
    (path / "shards").mkdir(parents=True, exist_ok=True)
    (path / "dataset.json").unlink(missing_ok=True)
    rows: list[dict[str, Any]] = []  # Any: a row of mixed types
    index_file = path / "frames.parquet"
    with pq.ParquetWriter(index_file, FRAME_SCHEMA, compression="zstd") as index, _Shards(path / "shards") as shards:
        pending: list[pa.Table] = []
        for clip in clips:
            if isinstance(clip, RejectedSource):
                rows.append(_rejected_row(clip))
                continue
            rows.append(_clip_row(clip))
            pending.append(_frame_table(clip, shards.add(clip)))
            if len(pending) == CLIPS_PER_ROW_GROUP:
                index.write_table(pa.concat_tables(pending).combine_chunks())
                pending.clear()
        if pending:
            index.write_table(pa.concat_tables(pending).combine_chunks())
    pq.write_table(pa.Table.from_pylist(rows, CLIP_SCHEMA), path / "clips.parquet", compression="zstd")
    if all(row["reason"] is not None for row in rows):
        raise DatasetError(f"'{path}': none of {len(rows)} source files gave a clip; see the reasons in clips.parquet")
    write_json(path / "dataset.json", info.model_dump(mode="json"))


class _Shards:
    """Tar files of frames, a new one when the last is full. A clip never spans two."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0
        self.tar: tarfile.TarFile | None = None

    def __enter__(self) -> "_Shards":
        return self

    def __exit__(self, *_: object) -> None:
        if self.tar is not None:
            self.tar.close()

    def add(self, clip: PreparedClip) -> list[tuple[str, int, int]]:
        """Shard name, byte offset and size of each frame."""
        if self.tar is not None and self.tar.offset > SHARD_BYTES:
            self.tar.close()
            self.tar = None
        if self.tar is None:
            self.name = f"{self.count:05d}.tar"
            self.tar = tarfile.open(self.folder / self.name, "w", format=tarfile.GNU_FORMAT)
            self.count += 1
        places = []
        for number, content in enumerate(clip.jpegs):
            member = tarfile.TarInfo(f"{clip.id}/{number:06d}.jpg")  # mtime 0: the same input makes the same bytes
            member.size = len(content)
            self.tar.addfile(member, io.BytesIO(content))
            padded = -(-len(content) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
            places.append((self.name, self.tar.offset - padded, len(content)))
        return places


def _frame_table(clip: PreparedClip, places: list[tuple[str, int, int]]) -> pa.Table:
    if len(places) != len(clip.landmarks):
        raise ValueError(f"clip '{clip.id}' has {len(places)} frames and {len(clip.landmarks)} rows of landmarks")
    shards, offsets, sizes = zip(*places, strict=True)
    points = pa.FixedSizeListArray.from_arrays(pa.array(clip.landmarks.points.flatten().numpy()), 2 * NUM_POINTS)
    columns = [[clip.id] * len(places), range(len(places)), shards, offsets, sizes, points]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, FRAME_SCHEMA, strict=False)]
    return pa.Table.from_arrays([*arrays, pa.array(clip.landmarks.found.numpy())], schema=FRAME_SCHEMA)


def _clip_row(clip: PreparedClip) -> dict[str, Any]:
    kept = ("id", "identity", "source", "source_sha256", "label", "split", "fps", "first_frame", "crop_box")
    return {name: getattr(clip, name) for name in kept} | {
        "frames": len(clip.landmarks),
        "reason": None,
        "detail": None,
    }


def _rejected_row(source: RejectedSource) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(CLIP_SCHEMA.names)
    return row | vars(source)


@dataclass(frozen=True)
class Dataset:
    """A prepared dataset, local or remote. Only the clip table is held in memory."""

    path: str  # a folder, or any URL that fsspec reads
    info: DatasetInfo
    clips: pd.DataFrame  # the accepted clips: CLIP_SCHEMA
    rejected: pd.DataFrame  # the sources that gave none: CLIP_SCHEMA
    sha256: str  # of clips.parquet and frames.parquet: a fingerprint of the content

    def landmarks(self, clip_id: str) -> Landmarks:
        """All landmarks of a clip.

        Raises:
            DatasetError: there is no such clip.
        """
        rows = self._rows(clip_id, ["landmarks", "found"])
        return _landmarks(rows)

    def found_shares(self) -> "pd.Series[float]":
        """Of each clip, by id, the share of frames with landmarks."""
        frames = pq.read_table(
            f"{self.path}/frames.parquet", columns=["clip", "found"], filesystem=_filesystem(self.path)
        ).to_pandas()
        shares: pd.Series[float] = frames.groupby("clip")["found"].mean()
        return shares

    def read(self, clip_id: str, indices: Sequence[int] | None = None) -> tuple[Clip, Landmarks]:
        """Frames and landmarks of a clip: all of them, or those at `indices`, in that order.

        Raises:
            DatasetError: there is no such clip, or a shard is missing or damaged.
        """
        rows = self._rows(clip_id, None)
        if indices is not None:
            rows = rows.take(list(indices))
        frames = torch.stack(list(self._frames(rows, clip_id)))  # [T, 3, H, W]
        fps = float(self.clips.loc[self.clips["id"] == clip_id, "fps"].iloc[0])
        return Clip(clip_id, frames, fps), _landmarks(rows)

    def _rows(self, clip_id: str, columns: list[str] | None) -> pa.Table:
        # Row groups hold a few clips each, so the filter reads a small part of the file.
        rows = pq.read_table(
            f"{self.path}/frames.parquet",
            columns=columns,
            filters=[("clip", "==", clip_id)],
            filesystem=_filesystem(self.path),
        )
        if not rows.num_rows:
            raise DatasetError(f"dataset '{self.path}' has no clip '{clip_id}'; its ids are in clips.parquet")
        return rows

    def _frames(self, rows: pa.Table, clip_id: str) -> Iterator[Tensor]:
        shard = rows["shard"][0].as_py()  # one clip lies in one shard
        path = f"{self.path}/shards/{shard}"
        try:
            with _filesystem(self.path).open(path) as file:
                for offset, size in zip(rows["offset"].to_pylist(), rows["size"].to_pylist(), strict=True):
                    file.seek(offset)
                    yield decode_jpeg(file.read(size))
        except (OSError, SyntaxError) as error:  # Pillow raises SyntaxError for a broken file
            raise DatasetError(f"'{path}': clip '{clip_id}' cannot be read ({error}); prepare it again") from error


def open_dataset(path: str | Path) -> Dataset:
    """Open a prepared dataset.

    Raises:
        DatasetError: it is missing, unfinished, damaged or of another schema.
    """
    root = str(path).rstrip("/")
    files = _filesystem(root)
    try:
        info = DatasetInfo.model_validate(json.loads(files.cat_file(f"{root}/dataset.json")))
        clips = pd.DataFrame(pq.read_table(f"{root}/clips.parquet", filesystem=files).to_pylist())
        fingerprint = hashlib.sha256()
        for name in ("clips.parquet", "frames.parquet"):
            with files.open(f"{root}/{name}") as file:
                for block in iter(lambda: file.read(2**20), b""):
                    fingerprint.update(block)
    except FileNotFoundError as error:
        missing = error.filename or str(error)
        raise DatasetError(
            f"'{root}' is not a prepared dataset ('{missing}' is missing); make one with 'theval prepare VIDEOS {root}'"
        ) from None
    except (ValidationError, json.JSONDecodeError, pa.ArrowInvalid) as error:
        detail = " ".join(str(error).split())[:120]
        raise DatasetError(f"dataset '{root}' is damaged or of another version ({detail}); prepare it again") from error
    accepted = clips["reason"].isna()
    return Dataset(
        root,
        info,
        clips[accepted].reset_index(drop=True),
        clips[~accepted].reset_index(drop=True),
        fingerprint.hexdigest(),
    )


def _filesystem(path: str) -> fsspec.AbstractFileSystem:
    return fsspec.core.url_to_fs(path)[0]


def _landmarks(rows: pa.Table) -> Landmarks:
    points = np.array(rows["landmarks"].combine_chunks().flatten(), dtype=np.float32).reshape(-1, NUM_POINTS, 2)
    return Landmarks(torch.from_numpy(points), torch.from_numpy(np.array(rows["found"], dtype=bool)))


# Few-shot sets: the protocol of Zakharov et al. 2019, section 4.

TARGET_FRAMES = 32  # hold-out frames of each person, consecutive, so that their motion can be judged
GAP_FRAMES = 16  # between the last support frame and the first target frame of one recording


@dataclass(frozen=True)
class FewShotPlan:
    """Which frames of one identity are support and which are target; `read` fetches them."""

    identity: str
    support_clip: str
    support_indices: tuple[int, ...]  # in the order in which shots take them
    target_clip: str
    target_indices: tuple[int, ...]

    def read(self, dataset: Dataset) -> FewShotSet:
        """The frames and landmarks of this plan."""
        support, support_landmarks = dataset.read(self.support_clip, self.support_indices)
        target, target_landmarks = dataset.read(self.target_clip, self.target_indices)
        return FewShotSet(self.identity, support, support_landmarks, target, target_landmarks)


def named_clips(clips: pd.DataFrame) -> pd.DataFrame:
    """Without second people of a recording, NAME~2, who may be anyone."""
    return clips[~clips["identity"].str.contains("~", regex=False)]


def plan_few_shot_sets(
    dataset: Dataset,
    split: Split | Literal["all"],
    shots: int,
    seed: int,
    identities: int | None = None,
    min_frames: int = 0,
    cross_clip: bool = False,
) -> tuple[list[FewShotPlan], list[Failure]]:
    """A plan for each identity of a split that has enough frames, by name; the others as failures.

    The targets are the last 32 consecutive frames with landmarks of the identity's longest clip. Support frames are
    drawn without order from those that end 16 frames before them or, with `cross_clip`, from another clip.

    Raises:
        NobodyFits: no identity of the split has enough frames.
    """
    real = dataset.clips[dataset.clips["label"] == "real"]
    clips = real if split == "all" else real[real["split"] == split]
    if clips.empty:
        there = ", ".join(f"{name} {count}" for name, count in real.groupby("split")["identity"].nunique().items())
        raise NobodyFits(
            f"dataset '{dataset.path}': split '{split}' has no real clip (people: {there or 'none'}); name another "
            "with --split, or prepare more videos"
        )
    plans: list[FewShotPlan] = []
    failures: list[Failure] = []
    for identity, own in clips.groupby("identity", sort=True):
        if "~" in str(identity):  # who this is nobody said, and after a cut it may be somebody under another number
            failures.append(Failure(item=str(identity), reason="a second person in somebody's video, of no known name"))
            continue
        longest_first = own.sort_values(["frames", "id"], ascending=[False, True], kind="stable")
        longest_first = longest_first[longest_first["frames"] >= min_frames]
        if longest_first.empty:
            continue
        plan = _plan(dataset, str(identity), list(longest_first["id"]), shots, seed, cross_clip)
        if isinstance(plan, FewShotPlan):
            plans.append(plan)
        else:
            failures.append(plan)
        if len(plans) == identities:
            break
    if not plans and not failures:
        raise NobodyFits(
            f"dataset '{dataset.path}': the longest clip of split '{split}' has {clips['frames'].max():.0f} frames, "
            f"{min_frames} are asked for; lower --min-frames"
        )
    if not plans:
        raise NobodyFits(
            f"dataset '{dataset.path}': no identity of split '{split}' has {shots} support and {TARGET_FRAMES} target "
            f"frames ({len(failures)} tried); ask for fewer --shots, or another --split"
        )
    return plans, failures


def _plan(
    dataset: Dataset, identity: str, clip_ids: list[str], shots: int, seed: int, cross_clip: bool
) -> FewShotPlan | Failure:
    target_clip = clip_ids[0]
    found = dataset.landmarks(target_clip).found.numpy()
    start = _last_run(found, TARGET_FRAMES)
    if start is None:
        return Failure(item=identity, reason=f"no {TARGET_FRAMES} consecutive frames with landmarks")
    support_clip = target_clip
    support_end = start - GAP_FRAMES
    if cross_clip:
        if len(clip_ids) == 1:
            return Failure(item=identity, reason="only one clip of this person, and --cross-clip needs two")
        support_clip = clip_ids[1]
        found = dataset.landmarks(support_clip).found.numpy()
        support_end = len(found)
    candidates = np.flatnonzero(found[: max(support_end, 0)])
    if len(candidates) < shots:
        return Failure(item=identity, reason=f"too short: {len(candidates)} support frames, {shots} needed")
    # Seeded by the identity's name, so that its frames do not depend on who else is in the split; a permutation's
    # beginning does not depend on how many are asked, so that shots nest.
    key = hashlib.sha256(f"{seed}/{identity}".encode()).digest()
    order = np.random.default_rng(int.from_bytes(key[:8], "little")).permutation(candidates)
    targets = tuple(range(start, start + TARGET_FRAMES))
    return FewShotPlan(identity, support_clip, tuple(int(i) for i in order[:shots]), target_clip, targets)


def _last_run(found: np.ndarray[Any, np.dtype[np.bool_]], length: int) -> int | None:
    """Start of the last `length` consecutive True values."""
    for start in range(len(found) - length, -1, -1):
        if found[start : start + length].all():
            return start
    return None
