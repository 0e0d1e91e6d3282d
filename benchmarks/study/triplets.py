"""Draws what a study shows from a run of 'theval score': triplets of videos of one person, two real and one fake.

The three are as many frames of one size, at one frame rate, through one encoder, in files of one length without any
mark. Which of them is fake stands in study.json alone; manifest.csv marks the fakes, as every fake that theval writes.
"""

import os
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.shots import ShotsConfig, plan_sets
from benchmarks.study.folder import LETTERS, SCHEMA, Settings, Study, Triplet, by_condition, video_path, write_study
from thead_eval.data import Dataset, open_dataset
from thead_eval.errors import ConfigError, DatasetError, MediaError, RunError
from thead_eval.judging import Pair, Progress, read_pairs, resize
from thead_eval.manifest import ManifestRow, add_rows, typed_command
from thead_eval.media import read_clip, write_clip
from thead_eval.results import Failure, RunRecord, read_run
from thead_eval.run import RunFolder
from thead_eval.types import Clip
from thead_eval.weights import sha256_of

SHORTEST = 8  # frames of a video: below that nothing moves
BLOCKS = 8  # to a side, of the mosaic that an attention check shows in place of a fake
CHECK = "attention-check"  # the 'generator' of that in the manifest
FPS_APART = 0.01  # by how much the frame rates of videos beside each other may differ, as where fakes are judged
FREE = 8  # bytes of an empty box of MP4


def make_study(run: Path, folder: Path, settings: Settings, progress: Progress) -> Study:
    """Draw triplets of a run's fakes, and write their videos.

    Raises:
        RunError: the run has not ended, or a folder is something else or holds a study already.
        ConfigError: the run has nothing of the generators or shots that are named, or too little for a study.
        MediaError: a video cannot be written.
    """
    record = read_run(run)
    if record.status != "complete":
        raise RunError(f"run '{run}' has not ended; give the same 'theval score' command again, which continues it")
    if (folder / "study.json").exists():
        raise RunError(f"'{folder}' holds a study already, perhaps with answers; name another folder with -o")
    if folder.exists() and {path.name for path in folder.iterdir()} - {"videos", "manifest.csv"}:
        raise RunError(f"'{folder}' is not empty and not a study; name another folder with -o")
    (folder / "videos").mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(settings.seed)
    pairs = _choose(_located(run, record), settings, random)
    people = list({pair.identity: pair for pair in pairs}.values())
    order = random.permutation(len(people))
    checks = [people[order[number % len(people)]] for number in range(settings.checks)]
    dataset = _dataset_of(record)
    find = _clips_of_run(pairs) if dataset is None else _clips_of_dataset(dataset, record)
    triplets: list[Triplet] = []
    failures: list[Failure] = []
    rows: list[ManifestRow] = []
    wanted = [*((pair, False) for pair in pairs), *((pair, True) for pair in checks)]
    for number, (pair, is_check) in enumerate(wanted):
        progress("videos", number, len(wanted))
        try:
            shown = _draw(pair, find(pair), settings, random, is_check)
        except MediaError as error:
            failures.append(Failure(item=pair.item, labels=dict(pair.labels), reason=str(error)))
            continue
        triplet = Triplet(
            id=f"{number:04d}",
            identity=pair.identity,
            labels={} if is_check else dict(pair.labels),
            fake=LETTERS[int(random.integers(3))],
            frames=len(shown.fake),
            fps=shown.fake.fps,
        )
        rows += _write_videos(folder, triplet, pair, shown)
        triplets.append(triplet)
    progress("videos", len(wanted), len(wanted))
    if not by_condition(triplets) or (checks and not any(triplet.is_check for triplet in triplets)):
        raise ConfigError(f"'{run}' has too little for a study; the first reason: {failures[0].reason}")
    add_rows(folder, rows)
    drawn = (tuple(triplets), tuple(failures), dataset is not None)
    study = Study(SCHEMA, str(run.resolve()), record.started, settings, *drawn)
    write_study(folder, study)
    return study


def _located(run: Path, record: RunRecord) -> list[Pair]:
    """The run's pairs; clips that lie in the run folder are looked for there, wherever it was moved."""
    pairs = read_pairs(run).pairs
    if "sha256" not in record.dataset:
        return pairs
    folder = RunFolder(run, record.started, 0.0)
    return [
        replace(
            pair,
            fake=folder.clip(pair.labels["generator"], pair.labels["shots"], pair.item),
            real=replace(pair.real, path=folder.real(pair.real.item)),
        )
        for pair in pairs
    ]


def _choose(pairs: Sequence[Pair], settings: Settings, random: np.random.Generator) -> list[Pair]:
    """The same people of every condition that is asked for."""
    made = {pair.labels["generator"] for pair in pairs}
    for name in settings.generators:
        if name not in made:
            raise ConfigError(f"the run holds no fake of '{name}'; there are: {', '.join(sorted(made))}")
    chosen = [
        pair
        for pair in pairs
        if (not settings.generators or pair.labels["generator"] in settings.generators)
        and (not settings.shots or pair.labels.get("shots") in {str(count) for count in settings.shots})
    ]
    if not chosen:
        asked = ", ".join(map(str, settings.shots))
        raise ConfigError(f"the run holds no fake at {asked} shots; name others, or leave --shots out")
    people = sorted({pair.identity for pair in chosen})
    kept = {people[place] for place in random.permutation(len(people))[: settings.identities]}
    return [pair for pair in chosen if pair.identity in kept]


# What real videos of a person there are.


@dataclass(frozen=True)
class Recording:
    """Real frames of a person, in their order."""

    name: str
    fps: float
    usable: NDArray[np.bool_]  # [T] whether a face was found, as it was in the frames that fakes reproduce
    read: Callable[[Sequence[int]], Tensor]  # [B, 3, H, W] uint8 RGB


@dataclass(frozen=True)
class Footage:
    """The recording that a fake looks like, and others of the same person."""

    home: Recording
    first: int | None  # of the home's frames, that which the fake's first one reproduces; None: it is elsewhere
    others: tuple[Recording, ...]


def _dataset_of(record: RunRecord) -> Dataset | None:
    """The run's dataset, if it is still there and the same."""
    if "sha256" not in record.dataset:
        return None
    try:
        dataset = open_dataset(record.dataset["path"])
    except DatasetError:
        return None
    return dataset if dataset.sha256 == record.dataset["sha256"] else None


def _clips_of_dataset(dataset: Dataset, record: RunRecord) -> Callable[[Pair], Footage]:
    known = {field.name: record.config[field.name] for field in fields(ShotsConfig)}
    config = ShotsConfig(**known | {"data": dataset.path})
    plans = {plan.identity: plan for plan in plan_sets(config, dataset)[0]}
    clips = dataset.clips[dataset.clips["label"] == "real"]

    def recording(clip_id: str) -> Recording:
        fps = float(clips.loc[clips["id"] == clip_id, "fps"].iloc[0])
        found = dataset.landmarks(clip_id).found.numpy()
        return Recording(clip_id, fps, found, lambda indices: dataset.read(clip_id, indices)[0].frames)

    def footage(pair: Pair) -> Footage:
        plan = plans[pair.identity]
        own = sorted(clips.loc[clips["identity"] == pair.identity, "id"])
        others = tuple(recording(name) for name in own if name not in (plan.support_clip, plan.target_clip))
        # A generator that saw another clip than the one that drives it shows the clothes and the room of what it saw.
        first = plan.target_indices[0] if plan.support_clip == plan.target_clip else None
        return Footage(recording(plan.support_clip), first, others)

    return footage


def _clips_of_run(pairs: Sequence[Pair]) -> Callable[[Pair], Footage]:
    def recording(path: Path) -> Recording:
        clip = read_clip(path)
        return Recording(str(path), clip.fps, np.ones(len(clip), bool), lambda indices: clip.frames[list(indices)])

    def footage(pair: Pair) -> Footage:
        others = dict.fromkeys(other.real.path for other in pairs if other.identity == pair.identity)
        return Footage(
            recording(pair.real.path), 0, tuple(recording(path) for path in others if path != pair.real.path)
        )

    return footage


# The drawing.


@dataclass(frozen=True)
class Shown:
    """Three clips of one length, size and frame rate."""

    fake: Clip
    reals: tuple[Clip, Clip]
    sources: tuple[str, str]  # of the real ones


def _draw(pair: Pair, footage: Footage, settings: Settings, random: np.random.Generator, is_check: bool) -> Shown:
    """A fake beside two real clips, at other times than the one that it reproduces.

    As in the paper from three recordings, where the person has two more than the fake's own; else all three from one,
    as two that share clothes and a room would give away the third. No two show the same moment: then the third would
    surely be real.

    Raises:
        MediaError: a clip cannot be read, the person has too few real frames, or the shapes differ.
    """
    fake = read_clip(pair.real.path if is_check else pair.fake)
    longest = min(len(fake), int(settings.seconds * fake.fps))
    if abs(fake.fps - footage.home.fps) > FPS_APART * fake.fps:
        raise MediaError(f"'{pair.fake}' and the real frames have {fake.fps:.4g} and {footage.home.fps:.4g} a second")
    others = [
        other
        for other in footage.others
        if abs(other.fps - fake.fps) <= FPS_APART * fake.fps and windows(other.usable, longest)
    ]
    if longest >= SHORTEST and len(others) >= 2:
        first = int(random.integers(len(fake) - longest + 1))
        chosen = [others[place] for place in random.permutation(len(others))[:2]]
        starts = [int(random.choice(windows(other.usable, longest))) for other in chosen]
        return _shown(fake, first, chosen, starts, longest, is_check)
    home = footage.home
    for length in range(longest, SHORTEST - 1, -1):
        for first in random.permutation(np.arange(0, len(fake) - length + 1, length)):
            free = home.usable.copy()
            if footage.first is not None:
                free[footage.first + first : footage.first + first + length] = False
            places = windows(free, length)
            if len(places) >= 2:
                starts = [places[place] for place in random.permutation(len(places))[:2]]
                return _shown(fake, int(first), [home, home], starts, length, is_check)
    raise MediaError(
        f"'{pair.identity}' has too few real frames for a fake of {len(fake)} and two real videos of at least "
        f"{SHORTEST}, at other times"
    )


def windows(usable: NDArray[np.bool_], length: int) -> list[int]:
    """Where stretches of so many usable frames begin that do not overlap."""
    starts, run = [], 0
    for index, good in enumerate(usable):
        run = run + 1 if good else 0
        if run == length:
            starts.append(index - length + 1)
            run = 0
    return starts


def _shown(
    fake: Clip, first: int, chosen: Sequence[Recording], starts: Sequence[int], length: int, is_check: bool
) -> Shown:
    clips = [fake.frames[first : first + length]]
    clips += [other.read(range(start, start + length)) for other, start in zip(chosen, starts, strict=True)]
    height, width = min((clip.shape[2:] for clip in clips), key=lambda shape: shape[0] * shape[1])
    for clip in clips:
        if abs(clip.shape[3] / clip.shape[2] - width / height) > 0.01:
            raise MediaError(f"fake and real videos of '{fake.id}' have different shapes; crop them alike")
    clips = [resize(clip, height, width) for clip in clips]
    if is_check:
        clips[0] = mosaic(clips[0])
    made, one, other = (Clip(fake.id, clip, fake.fps) for clip in clips)
    return Shown(made, (one, other), (chosen[0].name, chosen[1].name))


def mosaic(frames: Tensor) -> Tensor:
    """Frames [T, 3, H, W] uint8 in coarse blocks: nobody who looks takes them for a video of a person."""
    blocks = torch.nn.functional.adaptive_avg_pool2d(frames.float(), BLOCKS)
    return torch.nn.functional.interpolate(blocks, frames.shape[2:], mode="nearest").round().to(torch.uint8)


# The files.


def _write_videos(folder: Path, triplet: Triplet, pair: Pair, shown: Shown) -> Iterator[ManifestRow]:
    letters = [triplet.fake, *(letter for letter in LETTERS if letter != triplet.fake)]
    paths = {letter: video_path(folder, triplet.id, letter) for letter in letters}
    for letter, clip in zip(letters, (shown.fake, *shown.reals), strict=True):
        write_clip(paths[letter], clip)
    length = max(path.stat().st_size for path in paths.values()) + FREE
    for path in paths.values():
        _pad(path, length)
    generator = CHECK if triplet.is_check else pair.labels["generator"]
    sources = (str(pair.real.path if triplet.is_check else pair.fake), *shown.sources)
    for letter, source in zip(letters, sources, strict=True):
        is_fake = letter == triplet.fake
        yield ManifestRow(
            file=str(paths[letter].relative_to(folder)),
            identity=pair.identity,
            label=generator if is_fake else "real",
            sha256=sha256_of(paths[letter]),
            frames=triplet.frames,
            fps=triplet.fps,
            generator=generator if is_fake else "",
            shots=triplet.labels.get("shots", "") if is_fake else "",
            sources=source,
            command=typed_command(),
        )


def _pad(path: Path, length: int) -> None:
    """Bring an MP4 file to a length with a box of zeros, which players skip; and give all files one date."""
    lacking = length - path.stat().st_size
    with path.open("ab") as file:
        file.write(struct.pack(">I4s", lacking, b"free") + bytes(lacking - FREE))
    os.utime(path, (0, 0))
