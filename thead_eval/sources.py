"""Which videos a folder holds: who is in each, whether it is real, and which split it belongs to."""

import csv
import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from thead_eval.errors import ConfigError

Split = Literal["train", "val", "test"]
Layout = Literal["auto", "voxceleb", "faceforensics", "folders", "flat"]
SPLITS: tuple[Split, ...] = get_args(Split)

VIDEO_SUFFIXES = frozenset(".3gp .avi .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .mxf .ogv .ts .webm .wmv".split())

# FaceForensics++: `TARGET_SOURCE.mp4` puts the source's face on the target's video, or only its expression.
FACE_SWAPS = frozenset({"Deepfakes", "FaceSwap", "FaceShifter", "DeepFakeDetection"})
COMPRESSIONS = frozenset({"raw", "c0", "c23", "c40"})  # other folders hold masks and models


class Ratios(NamedTuple):
    """Parts of all identities, which add up to 1."""

    train: float
    val: float
    test: float


@dataclass(frozen=True)
class Source:
    """A video file to prepare."""

    file: str  # relative to the folder, with '/'
    name: str  # unique in the folder, and safe in file names: the clips' ids begin with it
    identity: str
    label: str  # "real", or what made it
    split: Split


class Survey(NamedTuple):
    """What a folder holds, and how that was read."""

    layout: Layout | Literal["manifest"]  # never "auto": what that came to
    sources: list[Source]  # in the order of their names
    left_out: int  # videos in the folder that do not lie where the layout has them

    @property
    def people(self) -> list[str]:
        """Each identity once."""
        return list(dict.fromkeys(source.identity for source in self.sources))


@dataclass(frozen=True)
class _Found:
    """A file with what its place or the manifest says."""

    file: str
    identity: str
    label: str = "real"
    group: str | None = None  # identities that must share a split; None: the identity alone
    split: Split | None = None


def find_sources(
    folder: Path, layout: Layout, ratios: Ratios, manifest: Path | None = None, exclude: Path | None = None
) -> list[Source]:
    """The videos below a folder; see `survey`."""
    return survey(folder, layout, ratios, manifest, exclude).sources


def survey(
    folder: Path, layout: Layout, ratios: Ratios, manifest: Path | None = None, exclude: Path | None = None
) -> Survey:
    """The videos below a folder, in the order of their names, and the layout that says who is in them.

    Args:
        folder: Searched with all its sub-folders, but for hidden ones.
        layout: How paths say who is in a video; 'auto' looks.
        ratios: By which identities are split where the manifest does not say; an identity's split depends on its
            name alone, so that adding others moves nobody.
        manifest: A CSV with the columns `file` and `identity`, and perhaps `label` and `split`; only its videos count.
        exclude: A folder inside that is not searched.

    Raises:
        ConfigError: there is no video, the manifest or the layout does not fit, or 'auto' cannot tell.
    """
    if min(ratios) < 0 or abs(sum(ratios) - 1) > 1e-6:
        raise ConfigError(
            f"split {','.join(map(str, ratios))} does not add up to 1; give three parts, as 0.7,0.15,0.15"
        )
    if not folder.is_dir():
        raise ConfigError(f"'{folder}' is not a folder; give the one that holds the videos")
    if manifest is not None:
        if layout not in ("auto", "flat"):
            raise ConfigError(f"a manifest says who is in each video, and so does layout '{layout}'; give one of them")
        found = sorted(_read_manifest(manifest, folder), key=lambda row: row.file)
        if not found:
            raise ConfigError(f"manifest '{manifest}' names no video inside '{folder}'; its paths are relative to it")
        return Survey("manifest", _sources(found, ratios), 0)
    files = sorted(_videos(folder, exclude))
    if not files:
        raise ConfigError(f"'{folder}' holds no video ({', '.join(sorted(VIDEO_SUFFIXES))}); check the path")
    taken = _look(folder, files) if layout == "auto" else layout
    found = _read_layout(files, taken, folder)
    return Survey(taken, _sources(found, ratios), len(files) - len(found))


def _sources(found: list[_Found], ratios: Ratios) -> list[Source]:
    splits = _split(found, ratios)
    names = _names([row.file for row in found])
    return [Source(row.file, names[row.file], row.identity, row.label, splits[row.identity]) for row in found]


def _videos(folder: Path, exclude: Path | None) -> Iterator[str]:
    excluded = exclude.resolve() if exclude else None
    for parent, folders, files in os.walk(folder, followlinks=True):
        here = Path(parent)
        folders[:] = [name for name in folders if name[0] != "." and (here / name).resolve() != excluded]
        for name in files:
            if name[0] != "." and Path(name).suffix.lower() in VIDEO_SUFFIXES:
                yield (here / name).relative_to(folder).as_posix()


def _look(folder: Path, files: list[str]) -> Layout:
    """The layout that the paths show; never 'flat' where several files may show one person, whom splits would share."""
    if any((folder / name).is_dir() for name in ("original_sequences", "manipulated_sequences")):
        return "faceforensics"
    depths = {min(file.count("/"), 2) for file in files}
    if depths == {2}:
        return "voxceleb"
    if depths == {1}:
        return "folders"
    inside = Counter(file.rpartition("/")[0] for file in files if "/" in file)
    crowded = [name for name, count in inside.items() if count > 1]
    if crowded:
        raise ConfigError(
            f"the videos in '{folder}' do not lie equally deep, and '{crowded[0]}' holds several, so their paths do "
            "not tell who is in them; give a --manifest, or --layout folders (a folder is a person), voxceleb, or "
            "flat (a file is a person)"
        )
    return "flat"


def _read_layout(files: list[str], layout: Layout, folder: Path) -> list[_Found]:
    readers: dict[Layout, Callable[[str], _Found | None]] = {
        "voxceleb": _voxceleb,
        "faceforensics": _faceforensics,
        "folders": _folders,
        "flat": lambda file: _Found(file, safe_name(Path(file).with_suffix("").as_posix())),
    }
    rows = [row for file in files if (row := readers[layout](file)) is not None]
    if not rows:
        raise ConfigError(
            f"none of the {len(files)} videos in '{folder}' lies where layout '{layout}' has them; "
            "give another --layout, or a --manifest"
        )
    return list(_join_groups(rows)) if layout == "faceforensics" else rows


def _voxceleb(file: str) -> _Found | None:
    """`[any/]IDENTITY/VIDEO/CLIP.mp4`."""
    parts = file.split("/")
    return _Found(file, safe_name(parts[-3])) if len(parts) >= 3 else None


def _folders(file: str) -> _Found | None:
    """`[any/]IDENTITY/CLIP.mp4`."""
    parts = file.split("/")
    return _Found(file, safe_name(parts[-2])) if len(parts) >= 2 else None


def _faceforensics(file: str) -> _Found | None:
    """`original_sequences/youtube/c23/videos/000.mp4`, `manipulated_sequences/Deepfakes/c23/videos/000_003.mp4`."""
    match file.split("/"):
        case ["original_sequences", subset, compression, "videos", name] if compression in COMPRESSIONS:
            person = _person(name.split("_")[0].removesuffix(Path(name).suffix), subset == "actors")
            return _Found(file, person, group=person)
        case ["manipulated_sequences", method, compression, "videos", name] if compression in COMPRESSIONS:
            ids = re.match(r"(\d+)_(\d+)", name)
            if ids is None:
                return None
            target, source = (_person(number, method == "DeepFakeDetection") for number in ids.groups())
            return _Found(file, source if method in FACE_SWAPS else target, method, f"{target} {source}")
    return None


def _person(number: str, actor: bool) -> str:
    return f"actor-{number}" if actor else number


def _join_groups(rows: list[_Found]) -> Iterator[_Found]:
    """One group for all people whom manipulations connect: a fake shows two of them, and no split may know either."""
    joined = join_people((row.group or row.identity).split() for row in rows)
    for row in rows:
        yield _Found(row.file, row.identity, row.label, joined[(row.group or row.identity).split()[0]])


def join_people(together: Iterable[Collection[str]]) -> dict[str, str]:
    """Of each person the first, by name, of all with whom some of these sets connect it."""
    parent: dict[str, str] = {}

    def root(person: str) -> str:
        while parent.setdefault(person, person) != person:
            person = parent[person]
        return person

    for people in together:
        first, *rest = sorted(people)
        root(first)
        for other in rest:
            a, b = sorted((root(first), root(other)))
            parent[b] = a
    return {person: root(person) for person in list(parent)}


def _read_manifest(manifest: Path, folder: Path) -> Iterator[_Found]:
    """The rows whose file is a video inside the folder; other rows and columns do not count."""
    try:
        with manifest.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines)
            missing = {"file", "identity"} - set(reader.fieldnames or ())
            if missing:
                raise ConfigError(f"manifest '{manifest}' has no column '{min(missing)}'; its first line names them")
            rows = list(enumerate(reader, start=2))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"cannot read manifest '{manifest}' ({error}); give a CSV file in UTF-8") from error
    seen: dict[str, int] = {}
    for line, row in rows:
        named = row["file"] or ""
        path = next((p for p in (manifest.parent / named, folder / named) if p.is_file()), None)
        if Path(named).suffix.lower() not in VIDEO_SUFFIXES:
            continue
        if path is None:
            raise ConfigError(f"manifest '{manifest}', line {line}: there is no file '{named}'; correct the row")
        file = _inside(path, folder)
        if file is None:
            continue
        if file in seen:
            raise ConfigError(f"manifest '{manifest}': lines {seen[file]} and {line} name one file; remove one of them")
        seen[file] = line
        identity, split = (row["identity"] or "").strip(), (row.get("split") or "").strip()
        if not identity or identity != safe_name(identity):
            raise ConfigError(
                f"manifest '{manifest}', line {line}: '{identity}' cannot be an identity, which becomes a file's name; "
                "use letters, digits, '.', '-', '_' and spaces"
            )
        if split and split not in SPLITS:
            raise ConfigError(f"manifest '{manifest}', line {line}: split '{split}' is none of {', '.join(SPLITS)}")
        label = (row.get("label") or "").strip() or "real"
        yield _Found(file, identity, label, split=next((known for known in SPLITS if known == split), None))


def _inside(path: Path, folder: Path) -> str | None:
    """The path relative to the folder; None where it lies elsewhere. Links count as what they are, then as targets."""
    for place, root in ((path.absolute(), folder.absolute()), (path.resolve(), folder.resolve())):
        place, root = Path(os.path.normpath(place)), Path(os.path.normpath(root))
        if place.is_relative_to(root):
            return place.relative_to(root).as_posix()
    return None


def safe_name(name: str) -> str:
    """A name with '-' for what cannot stand in a file's name or has a meaning in a clip's id."""
    return re.sub(r"[^\w. -]", "-", name).lstrip(". ")


def _split(rows: list[_Found], ratios: Ratios) -> dict[str, Split]:
    """The split of each identity."""
    splits: dict[str, Split] = {}
    for row in rows:
        if row.split is not None and splits.setdefault(row.identity, row.split) != row.split:
            raise ConfigError(
                f"the manifest puts identity '{row.identity}' in '{splits[row.identity]}' and in '{row.split}'; "
                "all files of a person belong in one split"
            )
    for row in rows:
        if row.identity not in splits:
            splits[row.identity] = split_of(row.group or row.identity, ratios)
    return splits


def split_of(group: str, ratios: Ratios) -> Split:
    """Of a person or group, by the name alone."""
    place = int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big") / 2**64  # 0..1
    if place < ratios.train:
        return "train"
    return "val" if place < ratios.train + ratios.val else "test"


def _names(files: list[str]) -> dict[str, str]:
    """A unique name for each path, which is the path itself where that is unique without '/' and suffix."""
    names = {file: safe_name(str(Path(file).with_suffix("").as_posix())).replace(" ", "-") for file in files}
    count = Counter(names.values())
    return {
        file: name if count[name] == 1 else f"{name}-{hashlib.sha256(file.encode()).hexdigest()[:8]}"
        for file, name in names.items()
    }
