"""Whether what a detector learns from and what judges it are apart, and whether the files alone give fakes away.

Four leaks that published benchmarks had: a person in two splits, by name or under two names; one recording in two
splits; one file in two splits, or as real and as fake; and fakes that codec, size, bitrate or length tell from reals.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from thead_eval import metadata, plugins
from thead_eval.data import Split
from thead_eval.errors import DatasetError, MediaError
from thead_eval.evidence import Evidence, Item, spread
from thead_eval.metrics.detection import auc
from thead_eval.statistics import Interval, bootstrap_bounds
from thead_eval.tensors import read_tensors, write_tensors
from thead_eval.types import ExtractFunction, FeatureNetwork

# Of dlib's embeddings: people told apart by eye lie at 0.5 and more of each other, and its own advice, 0.6, merges
# strangers, people of one origin more often than others.
SAME_PERSON = 0.4
# The same clip coded or framed anew lies at 0.1 at most; of 13 362 pairs of strangers none below 0.3.
ONE_RECORDING = 0.2
FACES = 4  # frames of each person
METADATA_AUC = 0.55  # what the files alone may reach

Check = Literal["identity", "face", "recording", "file", "metadata"]
Progress = Callable[[str, int, int], None]
Vectors = dict[str, NDArray[np.float32]]  # [128] each, by name


@dataclass(frozen=True)
class Leak:
    """Something that training and judgement share, or that tells fakes without their pictures."""

    check: Check
    what: str  # a sentence
    items: tuple[str, ...] = ()  # ids of the clips, or names of the people
    certain: bool = True  # otherwise it may be chance


class Tell(NamedTuple):
    """How well one property of the files tells fakes from reals."""

    name: str
    auc: float  # 0.5 to 1, whichever side the fakes are on
    remains: str  # of it in what detectors are given


@dataclass(frozen=True)
class Audit:
    """What was checked, and what was found."""

    clips: int
    identities: int
    faces: int  # people whose faces were compared
    faceless: tuple[str, ...]  # people in none of whose frames a face was found
    unreadable: tuple[str, ...]  # clips whose files cannot be read, with the reason
    metadata: Interval  # AUC of the detector that sees no picture, people held out; None where nothing can be told
    tells: tuple[Tell, ...]  # the most telling first
    leaks: tuple[Leak, ...]
    doubts: tuple[Leak, ...]  # two faces that are alike, of which some are always found among many people


def audit(
    evidence: Evidence, seed: int, progress: Progress, *, faces: Evidence | None, kept: Path | None = None
) -> Audit:
    """Look for every leak.

    Args:
        evidence: All splits together.
        seed: Of the folds and the interval.
        progress: Told after each person and file.
        faces: Of whom faces are compared as well, which takes most of the time; None: nobody.
        kept: A file of what was measured of these faces, which is not measured twice.
    """
    leaks = [*shared_identities(evidence.items), *shared_recordings(evidence.items), *shared_files(evidence.items)]
    vectors: Vectors = {}
    people = {item.identity for item in evidence.items}
    if faces:
        vectors = embed_people_once(faces, kept, progress) if kept else embed_people(faces, progress)
        leaks += shared_faces(faces.items, vectors)
    rows, items, unreadable = _read_metadata(evidence.items, progress)
    interval, tells = tell_by_metadata(rows, items, seed)
    if interval.value is not None and interval.value > METADATA_AUC and (interval.low is None or interval.low > 0.5):
        worst = "; ".join(f"{tell.name} alone {tell.auc:.2f}" for tell in tells if tell.auc > METADATA_AUC)
        leaks.append(
            Leak(
                "metadata",
                f"without a picture, files tell fakes with AUC {interval.value:.2f}, more than {METADATA_AUC}"
                + (f": {worst}" if worst else ""),
            )
        )
    return Audit(
        clips=len(evidence.items),
        identities=len(people),
        faces=len(vectors),
        faceless=tuple(sorted({item.identity for item in faces.items} - vectors.keys())) if faces else (),
        unreadable=tuple(unreadable),
        metadata=interval,
        tells=tuple(tells),
        leaks=tuple(leak for leak in leaks if leak.certain),
        doubts=tuple(leak for leak in leaks if not leak.certain),
    )


# People, recordings, files.


def shared_identities(items: Sequence[Item]) -> Iterator[Leak]:
    """People in two splits."""
    for name, own in _by(items, "identity"):
        splits = sorted({item.split for item in own})
        if len(splits) > 1:
            yield Leak("identity", f"'{name}' is in {' and '.join(splits)}", tuple(item.id for item in own))


def shared_recordings(items: Sequence[Item]) -> Iterator[Leak]:
    """Recordings from which clips of two splits were cut or made."""
    for name, own in _by(items, "source"):
        splits = sorted({item.split for item in own})
        if len(splits) > 1:
            what = f"one recording (sha256 {name[:12]}) is in {' and '.join(splits)}"
            yield Leak("recording", what, tuple(item.id for item in own))


def shared_files(items: Sequence[Item]) -> Iterator[Leak]:
    """The same file in two splits, or as real and as fake."""
    for name, own in _by([item for item in items if not item.clip], "sha256"):
        splits, labels = sorted({item.split for item in own}), {item.label for item in own}
        if len(splits) > 1 or len(labels) > 1:
            where = " and ".join(splits) if len(splits) > 1 else "real and fake"
            yield Leak("file", f"one file (sha256 {name[:12]}) is in {where}", tuple(item.id for item in own))


def _by(items: Sequence[Item], field: Literal["identity", "source", "sha256"]) -> Iterator[tuple[str, list[Item]]]:
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(getattr(item, field), []).append(item)
    yield from groups.items()


# Faces.


def embed_people(evidence: Evidence, progress: Progress) -> Vectors:
    """[128] of each person in whose frames a face was found: the mean over a few frames of one clip.

    A real one first, and one whose landmarks are known, as finding them takes longer than all the rest.

    Raises:
        WeightsMissing: dlib's face recogniser is not installed.
    """
    find, recognise = _load("dlib68"), _load("dlib_resnet")
    vectors = {}
    people = _by(sorted(evidence.items, key=lambda item: (item.label != "real", not item.clip)), "identity")
    names = list(people)
    for done, (name, own) in enumerate(names):
        progress("faces", done, len(names))
        places = spread(own[0].frames, FACES)
        try:
            frames = evidence.read(own[0], places).frames
            landmarks = evidence.landmarks(own[0], places)
        except (DatasetError, MediaError):
            continue  # told with the metadata
        points = find(frames, None) if landmarks is None else landmarks.points  # [FACES, 68, 2]; NaN without a face
        rows = recognise(frames, points).numpy()  # [FACES, 128]; likewise
        if not np.isnan(rows).all():
            vectors[name] = np.nanmean(rows, axis=0)
    progress("faces", len(names), len(names))
    return vectors


def embed_people_once(evidence: Evidence, kept: Path, progress: Progress) -> Vectors:
    """The same, read from the file `kept` where that is of the same evidence, and written there otherwise."""
    # Folds differ in who is in which split, and in no face.
    of_whom = Evidence(tuple(replace(item, split="train") for item in evidence.items), evidence.size).sha256
    if kept.exists():
        stored = read_tensors(kept, "theval detect train")
        if stored.metadata["evidence"] == of_whom:
            return {name: vector.numpy() for name, vector in stored.tensors.items()}
    vectors = embed_people(evidence, progress)
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(
        kept,
        {name: torch.from_numpy(vector) for name, vector in vectors.items()},
        {"evidence": of_whom},
    )
    return vectors


def _load(name: str) -> ExtractFunction:
    network: FeatureNetwork = plugins.load("features", name)
    return network.load(torch.device("cpu"))


def shared_faces(items: Sequence[Item], vectors: Vectors) -> Iterator[Leak]:
    """People of two splits, under two names, whose faces are nearer than those of one person usually are; the nearest
    first.
    """
    splits: dict[str, set[Split]] = {}
    for item in items:
        splits.setdefault(item.identity, set()).add(item.split)
    names = sorted(vectors)
    if len(names) < 2:
        return
    rows = np.stack([vectors[name] for name in names]).astype(np.float64)
    apart = cdist(rows, rows)  # [N, N]
    near = np.argwhere(np.triu(apart < SAME_PERSON, 1))
    for a, b in near[np.argsort(apart[*near.T], kind="stable")]:
        if splits[names[a]] != splits[names[b]]:
            where = f"{' and '.join(sorted(splits[names[a]]))}, {' and '.join(sorted(splits[names[b]]))}"
            certain = bool(apart[a, b] < ONE_RECORDING)
            words = "look like one recording" if certain else "may be one person"
            what = f"'{names[a]}' and '{names[b]}' ({where}) {words}: their faces' distance is {apart[a, b]:.2f}"
            yield Leak("face", what, (names[a], names[b]), certain)


# Files.


def _read_metadata(items: Sequence[Item], progress: Progress) -> tuple[list[metadata.Metadata], list[Item], list[str]]:
    rows, readable, unreadable = [], [], []
    for done, item in enumerate(items):
        progress("files", done, len(items))
        try:
            rows.append(metadata.read_metadata(item))
        except MediaError as error:
            unreadable.append(str(error))
        else:
            readable.append(item)
    progress("files", len(items), len(items))
    return rows, readable, unreadable


def tell_by_metadata(
    rows: Sequence[metadata.Metadata], items: Sequence[Item], seed: int
) -> tuple[Interval, list[Tell]]:
    """AUC of the detector that sees no picture, over people that it did not learn from, and of each property alone."""
    fake = np.array([item.label == "fake" for item in items], dtype=bool)
    if fake.all() or not fake.any():
        return Interval(None, None, None), []
    names = [item.identity for item in items]
    p = metadata.cross_validated(rows, fake, names, seed)
    known = ~np.isnan(p)
    if len(np.unique(fake[known])) < 2:
        return Interval(None, None, None), []
    of_known, p_known = fake[known], p[known]
    identities = np.unique(np.array(names)[known], return_inverse=True)[1]
    smaller_class = min(len(np.unique(identities[of_known == label])) for label in (False, True))
    bounds = bootstrap_bounds(
        lambda draws: auc(of_known, p_known, draws), identities, seed, "odds", freedom=smaller_class - 1
    )
    low, high = bounds or (None, None)
    tells = []
    for name, remains in metadata.REMAINS.items():
        values = [getattr(row, name) for row in rows]
        if isinstance(values[0], str):  # ranked by the share of fakes among the clips that have it
            share = {value: fake[[v == value for v in values]].mean() for value in set(values)}
            values = [share[value] for value in values]
        alone = float(auc(fake, np.nan_to_num(np.array(values, dtype=float), nan=-1.0))[0])
        tells.append(Tell(name, max(alone, 1 - alone), remains))
    tells.sort(key=lambda tell: -tell.auc)
    return Interval(float(auc(of_known, p_known)[0]), low, high), tells
