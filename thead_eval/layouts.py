"""Public benchmarks as they lie on a disk, to manifests: which videos there are, what made them, who is in each.

A fake shows one person and is made of another: both count, as a detector that learnt either of them has an easier time.
So no manifest has a person in two splits, in whatever role: where a benchmark's own split has, videos of the earlier
split are left out and counted.
"""

import csv
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from thead_eval.errors import ConfigError
from thead_eval.sources import (
    COMPRESSIONS,
    FACE_SWAPS,
    SPLITS,
    VIDEO_SUFFIXES,
    Ratios,
    Split,
    join_people,
    safe_name,
    split_of,
)

COLUMNS = ("file", "identity", "label", "split", "target", "source")
# Labels of DeepfakeBench and DF40 that put a face on another's video; all others set the video's person in motion.
SWAPS = frozenset(
    "ff-df ff-fs ff-fh dfd_fake celebdfv1 celebdfv2 fsgan faceswap simswap inswap blendface uniface".split()
)
SWAPS |= frozenset("mobileswap e4s facedancer deepfacelab".split())


@dataclass(frozen=True)
class Row:
    """A video of a benchmark."""

    file: str  # relative to the folder
    identity: str  # who is shown
    label: str = "real"  # or what made it
    target: str = ""  # of a fake: whose video it was, or who was set in motion
    source: str = ""  # of a fake: whose face, expression or speech was put there
    official: Split | None = None  # the benchmark's own split, where it says one
    frames: tuple[str, ...] = ()  # instead of a video: its pictures, in their order

    @property
    def people(self) -> set[str]:
        """All who are in it, in any role."""
        return {self.identity, self.target, self.source} - {""}


class Layout(NamedTuple):
    """How a benchmark lies."""

    summary: str
    read: Callable[[Path, "Asked"], Iterator[Row]]


@dataclass(frozen=True)
class Asked:
    """What a user says beside the folder."""

    compression: str = "c23"  # of FaceForensics++
    index: Path | None = None  # DeepfakeBench: the JSON
    reals: Path | None = None  # TalkingHeadBench: the folder of real videos, which it does not hold


class Imported(NamedTuple):
    """What a folder holds as a manifest."""

    rows: list[Row]
    splits: dict[str, Split]  # of each row, by file
    how: str  # they were made
    crossing: int  # videos that were left out, as they show people of two splits
    unread: int  # videos in the folder that do not lie where the layout has them, or are in no official split


def import_layout(layout: str, folder: Path, asked: Asked, official: bool | None, ratios: Ratios) -> Imported:
    """The videos of a benchmark with people apart in splits.

    Args:
        layout: A name in LAYOUTS.
        folder: The benchmark.
        asked: What else is to be known.
        official: Its own split; None: where it has one.
        ratios: By which people are split otherwise.

    Raises:
        ConfigError: the folder holds nothing of the kind, or has no split of its own where that was asked for.
    """
    if not folder.is_dir():
        raise ConfigError(f"'{folder}' is not a folder; give the one that holds the benchmark")
    rows = sorted(LAYOUTS[layout].read(folder, asked), key=lambda row: row.file)
    if not rows:
        raise ConfigError(
            f"'{folder}' holds no video where layout '{layout}' has them ({LAYOUTS[layout].summary}); check the path"
        )
    videos = {file.relative_to(folder).as_posix() for file in _videos(folder)}
    has_own = any(row.official for row in rows)
    if official and not has_own:
        raise ConfigError(f"no file in '{folder}' says which split of '{layout}' is whose; pass --split people")
    if official is not False and has_own:
        own = [row for row in rows if row.official]
        kept = list(_apart(own))
        splits = {row.file: row.official for row in kept if row.official}
        how, crossing = "the benchmark's own", len(own) - len(kept)
        unlisted = len(rows) - len(own)
    else:
        people = _split_people(rows, ratios)
        kept = [row for row in rows if len({people[person] for person in row.people}) == 1]
        splits = {row.file: people[row.identity] for row in kept}
        how, crossing, unlisted = "by people", len(rows) - len(kept), 0
    return Imported(kept, splits, how, crossing, len(videos - {row.file for row in rows}) + unlisted)


def _apart(rows: Sequence[Row]) -> Iterator[Row]:
    """Those of an official split that show nobody of a later one: what is judged stays whole."""
    later: set[str] = set()
    kept: list[Row] = []
    for split in reversed(SPLITS):
        own = [row for row in rows if row.official == split and not row.people & later]
        kept += own
        later |= {person for row in own for person in row.people}
    chosen = {row.file for row in kept}
    return (row for row in rows if row.file in chosen)


def _split_people(rows: Sequence[Row], ratios: Ratios) -> dict[str, Split]:
    """The split of each person, by the name alone; of all whom fakes join, where these are small groups."""
    joined = join_people(row.people for row in rows)
    # In FaceForensics++ people are joined in pairs; in Celeb-DF everyone is swapped with everyone.
    grouped = max(Counter(joined.values()).values()) <= max(2, len(joined) // 10)
    return {person: split_of(group if grouped else person, ratios) for person, group in joined.items()}


# Layouts.


def _voxceleb(folder: Path, asked: Asked) -> Iterator[Row]:
    """`[dev|test/]IDENTITY/VIDEO/CLIP.mp4`; or `train|test/IDENTITY#VIDEO#...mp4`, as video-preprocessing has it."""
    for file in _videos(folder):
        path = file.relative_to(folder)
        *parts, name = path.parts
        flat = name.split("#")
        if len(flat) >= 3:
            identity = flat[0]
        elif len(parts) >= 2 and re.fullmatch(r"id\d+", parts[-2]):
            identity, parts = parts[-2], parts[:-2]
        else:
            continue
        words = {word for part in (folder.name, *parts) for word in re.split(r"[^a-z]+", part.lower())}
        official: Split | None = "test" if "test" in words else "train" if words & {"dev", "train"} else None
        if official == "train":  # dev people are many, and nobody said who validates: one in fifty, by name
            official = "val" if split_of(identity, Ratios(0.98, 0.02, 0)) == "val" else "train"
        yield Row(path.as_posix(), safe_name(identity), official=official)


def _faceforensics(folder: Path, asked: Asked) -> Iterator[Row]:
    """`original_sequences/youtube/c23/videos/000.mp4`, `manipulated_sequences/METHOD/c23/videos/TARGET_SOURCE.mp4`.

    The split is that of `splits/train.json` and so on, lists of pairs, which lie in its repository and not among the
    videos; DeepFakeDetection's actors have none.
    """
    if asked.compression not in COMPRESSIONS:
        raise ConfigError(f"--compression {asked.compression} is none of {', '.join(sorted(COMPRESSIONS))}")
    listed = _pair_lists(folder)
    for file in _videos(folder):
        path = file.relative_to(folder).as_posix()
        match path.split("/"):
            case ["original_sequences", subset, compression, "videos", name] if compression == asked.compression:
                actor = subset == "actors"
                number = name.split("_")[0].removesuffix(file.suffix)
                yield Row(path, f"actor-{number}" if actor else number, official=None if actor else listed.get(number))
            case ["manipulated_sequences", method, compression, "videos", name] if compression == asked.compression:
                ids = re.match(r"(\d+)_(\d+)", name)
                if ids is None:
                    continue
                actor = method == "DeepFakeDetection"
                target, source = (f"actor-{number}" if actor else number for number in ids.groups())
                shown = source if method in FACE_SWAPS else target
                yield Row(path, shown, method, target, source, None if actor else listed.get(ids[1]))


def _pair_lists(folder: Path) -> dict[str, Split]:
    """The split of each number, of `train.json`, `val.json` and `test.json` in the folder or its `splits`."""
    found: dict[str, Split] = {}
    for split in SPLITS:
        for path in (folder / "splits" / f"{split}.json", folder / f"{split}.json"):
            if path.is_file():
                pairs = _read_json(path)
                found |= {str(number): split for pair in pairs for number in pair}
                break
    return found


def _celeb_df(folder: Path, asked: Asked) -> Iterator[Row]:
    """Celeb-DF and Celeb-DF++: `Celeb-real/id0_0000.mp4`, `YouTube-real/00000.mp4`, `List_of_testing_videos.txt`, and
    `Celeb-synthesis/[SCENARIO/METHOD/]id0_id1_0000.mp4`.

    Of `id0_id1`, id0 is whose video it was and id1 whose face. In FaceReenact and TalkingFace id0 is who is shown.
    """
    tested = _testing_list(folder / "List_of_testing_videos.txt")
    for file in _videos(folder):
        path = file.relative_to(folder).as_posix()
        ids = re.findall(r"id\d+", file.name)
        official: Split | None = None
        if tested:
            official = "test" if path in tested else "train"
        match path.split("/")[:-1]:
            case ["Celeb-real"] if ids:
                yield Row(path, ids[0], official=official)
            case ["YouTube-real"]:
                yield Row(path, f"youtube-{safe_name(file.stem)}", official=official)
            case ["Celeb-synthesis"] if len(ids) > 1:
                yield Row(path, ids[1], "Celeb-DF", ids[0], ids[1], official)
            case ["Celeb-synthesis", scenario, method] if ids:
                source = ids[1] if len(ids) > 1 else ""
                shown = source if scenario == "FaceSwap" and source else ids[0]
                yield Row(path, shown, method, ids[0], source, official)


def _testing_list(path: Path) -> set[str]:
    """`1 YouTube-real/00170.mp4`, a line a video."""
    if not path.is_file():
        return set()
    return {line.split(maxsplit=1)[-1].strip() for line in path.read_text().splitlines() if line.strip()}


def _talkingheadbench(folder: Path, asked: Asked) -> Iterator[Row]:
    """`fake/GENERATOR/SPLIT/IMAGE--DRIVER--METHOD.mp4`, `fake/additional_dataset/GENERATOR/...`.

    A JSON names the real videos, which are CelebV-HQ's and FaceForensics++'s and lie elsewhere (`--reals`).
    """
    for file in _videos(folder / "fake"):
        path = file.relative_to(folder).as_posix()
        people = file.stem.split("--")
        if len(people) < 3:
            continue
        image, driver = f"ffhq-{safe_name(people[0])}", _celebv_person(people[1])
        match path.split("/")[1:-1]:
            case ["additional_dataset", generator]:
                yield Row(path, image, generator, image, driver, "test")
            case [generator, split] if split in SPLITS:
                yield Row(path, image, generator, image, driver, next(known for known in SPLITS if known == split))
    if asked.reals is None:
        return
    there = {file.stem: file for file in _videos(asked.reals)}
    for index in sorted(folder.glob("*/*_dataset_split.json")):
        for split, name in _names_by_split(_read_json(index), None):
            video = there.get(Path(name).stem)
            if video is not None:
                yield Row(str(video.resolve()), _celebv_person(video.stem), official=split)


def _celebv_person(stem: str) -> str:
    """CelebV-HQ's clips are called VIDEO_NUMBER, and each video shows one person; FaceForensics++'s are a number."""
    return safe_name(stem if stem.isdecimal() else re.sub(r"_\d+$", "", stem))


def _names_by_split(content: Any, split: Split | None) -> Iterator[tuple[Split, str]]:  # Any: JSON
    """Names in lists, at any depth below a key that names their split."""
    if isinstance(content, dict):
        for key, value in content.items():
            named = next((known for known in SPLITS if known == key), split)
            yield from _names_by_split(value, named)
    elif isinstance(content, list):
        for value in content:
            yield from _names_by_split(value, split)
    elif isinstance(content, str) and split:
        yield split, content


def _deepfakebench(folder: Path, asked: Asked) -> Iterator[Row]:
    """DeepfakeBench's and DF40's JSON: `{dataset: {label: {split: [{compression:] {video: {label, frames}}}}}`.

    Frames are paths of pictures of aligned faces, which end as they do below the folder.

    A label that ends on 'real' is real. People are the numbers or ids in a video's name, TARGET_SOURCE.
    """
    if asked.index is None:
        raise ConfigError("layout 'deepfakebench' needs the JSON that lists its frames; pass --index FILE")
    seen: dict[str, Row] = {}
    for labels in _read_json(asked.index).values():
        for label, splits in labels.items():
            for split, videos in splits.items():
                for name, video in _videos_of(videos, asked.compression):
                    row = _deepfakebench_row(folder, label, split, name, video)
                    # Test videos are listed under 'val' too: a video is in its last split.
                    if row and (row.file not in seen or _later(row, seen[row.file])):
                        seen[row.file] = row
    yield from seen.values()


def _later(row: Row, other: Row) -> bool:
    return row.official is not None and other.official is not None and _place(row.official) > _place(other.official)


def _place(split: Split) -> int:
    return SPLITS.index(split)


def _videos_of(videos: Mapping[str, Any], compression: str) -> Iterator[tuple[str, Any]]:  # Any: JSON
    """Name and entry, of the asked compression where they are sorted by that."""
    for name, value in videos.items():
        if "frames" in value:
            yield name, value
        elif name == compression:
            yield from value.items()


def _deepfakebench_row(folder: Path, label: str, split: str, name: str, video: Mapping[str, Any]) -> Row | None:
    """None where its frames are not below the folder."""
    official = next((known for known in SPLITS if known == split), None)
    listed = sorted((str(path).replace("\\", "/") for path in video["frames"]), key=_number)
    start = _below(folder, listed[0]) if listed else None
    if official is None or start is None:
        return None
    frames = tuple("/".join(frame.split("/")[start:]) for frame in listed)
    home = Path(frames[0]).parent.as_posix()
    named = re.sub(r"_\d{4}$", "", name) if name.startswith("id") else name  # Celeb-DF: id0_id1_0000
    people = [safe_name(person) for person in re.findall(r"id\d+|\d+", named)[:2]] or [safe_name(name)]
    if label.lower().endswith("real"):
        return Row(home, people[0], official=official, frames=frames)
    method = re.sub(r"[_-]fake$", "", label, flags=re.IGNORECASE)
    target, source = people[0], people[1] if len(people) > 1 else ""
    shown = source if source and method.lower() in SWAPS else target
    return Row(home, shown, method, target, source, official, frames)


def _below(folder: Path, frame: str) -> int | None:
    """From which part on a path lies below the folder."""
    parts = frame.split("/")
    return next((start for start in range(len(parts)) if (folder / "/".join(parts[start:])).is_file()), None)


def _number(path: str) -> tuple[int, str]:
    digits = re.findall(r"\d+", path.rpartition("/")[2])
    return (int(digits[-1]) if digits else 0, path)


LAYOUTS: dict[str, Layout] = {
    "voxceleb": Layout("[dev|test/]IDENTITY/VIDEO/CLIP.mp4", _voxceleb),
    "faceforensics": Layout("manipulated_sequences/METHOD/COMPRESSION/videos/TARGET_SOURCE.mp4", _faceforensics),
    "celeb-df": Layout("Celeb-real/, YouTube-real/, Celeb-synthesis/[SCENARIO/METHOD/]", _celeb_df),
    "deepfakebench": Layout("the JSON of DeepfakeBench or DF40, and the frames that it lists", _deepfakebench),
    "talkingheadbench": Layout("fake/GENERATOR/SPLIT/IMAGE--DRIVER--METHOD.mp4", _talkingheadbench),
}


# Files.


def write_manifest(imported: Imported, folder: Path, out: Path, tell: Callable[[str, int, int], None]) -> None:
    """Write the manifest, and beside it in `clips/` the videos of which the benchmark has only pictures, lossless.

    Paths are relative to the manifest.

    Raises:
        ConfigError: pictures of a video differ in size, or the manifest cannot be written.
        MediaError: a picture cannot be read.
    """
    pictured = [row for row in imported.rows if row.frames]
    lines = []
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        for done, row in enumerate(imported.rows):
            video = folder / row.file
            if row.frames:
                tell("clips", done, len(pictured))
                video = out.parent / "clips" / f"{row.file}.mkv"
                if not video.exists():
                    _write_pictures(row, folder, video)
            file = Path(os.path.relpath(video.absolute(), out.parent.absolute())).as_posix()
            lines.append((file, row.identity, row.label, imported.splits[row.file], row.target, row.source))
        temporary = out.with_name(f".{out.name}.{os.getpid()}")
        with temporary.open("w", newline="", encoding="utf-8") as written:
            csv.writer(written, lineterminator="\n").writerows([COLUMNS, *sorted(lines)])
        temporary.replace(out)
    except OSError as error:
        raise ConfigError(
            f"'{error.filename or out}' cannot be written ({error.strerror}); name another with -o"
        ) from error
    if pictured:
        tell("clips", len(pictured), len(pictured))


def _write_pictures(row: Row, folder: Path, video: Path) -> None:
    import torch

    from thead_eval.media import read_image, write_clip
    from thead_eval.types import Clip

    frames = [read_image(folder / frame) for frame in row.frames]  # each [3, H, W]
    if len({frame.shape for frame in frames}) > 1:
        raise ConfigError(f"the pictures in '{folder / row.file}' differ in size; they are to be one video's, aligned")
    video.parent.mkdir(parents=True, exist_ok=True)
    write_clip(video, Clip(row.file, torch.stack(frames), 25.0), lossless=True)  # nobody kept their frame rate


def _videos(folder: Path) -> list[Path]:
    """All below a folder, in the order of their paths."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file())


def _read_json(path: Path) -> Any:  # Any: JSON
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"'{path}' cannot be read as JSON ({error}); get it again, or correct the path") from error
