"""Detectors judged: as they come, or trained anew for each protocol on what that protocol lets them see.

P1   people it has not seen, generators that it has       P3   neither
P2   people it has seen, a generator that it has not      k-shot   P3, but for k fakes of the generator

A protocol's training sees the training people; for each generator there is one that does not see its fakes. Judged on
the fakes of every generator, these trainings make the leave-one-generator-out matrix. With folds, everyone is judged.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.robustness import LEVELS, PERTURBATIONS
from thead_eval.data import Split
from thead_eval.detection import FrameScores, Model, score_clip, score_rows, write_scores
from thead_eval.errors import ConfigError, DatasetError, MediaError
from thead_eval.evidence import Evidence, Item, group_people, spread
from thead_eval.judging import Progress
from thead_eval.metadata import Metadata, MetadataDetector, read_metadata
from thead_eval.recipes import check_name
from thead_eval.run import RunFolder, file_name
from thead_eval.types import Clip, Detector, Remembering

PROTOCOLS = ("P1", "P2", "P3", "k-shot")
LEARNT: tuple[Split, ...] = ("train", "val")  # the second to choose and calibrate by
EARLY = 1 / 2  # of each clip of the training people, which P2 lets a detector learn from
LATE = 3 / 8  # of it, at its end, on which P2 judges; between the two is a gap, as neighbours are near copies
SHORTEST = 16  # frames of a clip that is cut in two
FOLDED = {"P1", "P3"}  # protocols in which a clip is judged by one fold's training alone
KNOWN_FAKES = (1, 8, 32)  # of the generator that was held out; 0 is P3
DRAWS = 5  # choices of these

Fit = Callable[[str, Evidence, Path, int], Detector]  # (kind of detector, what it may see, folder, seed)
Shown = list[tuple[list[int], Clip]]  # runs of frames of a clip, by number
Seen = tuple[bool | None, bool | None]  # whether a model has seen the person, and the generator; None: nobody knows


@runtime_checkable
class Trained(Remembering, Protocol):
    """What a detector of theval's says of itself, and a stranger's need not."""

    sha256: str
    calibration: Any  # a and b of Platt's map
    operating_points: Mapping[float, Any]  # by rate: from which mean logit on a clip is called fake
    generators: Sequence[str]  # whose fakes it was trained on


@dataclass(frozen=True)
class Judge:
    """A detector, and the clips that it is asked about; or, without one, the detector that sees no picture."""

    model: Model
    detector: Detector | None
    seen: Callable[[Item], Seen]
    items: tuple[Item, ...]
    learnt_from: tuple[Item, ...] = ()  # by the detector that sees no picture

    @property
    def window(self) -> int:
        """How many consecutive frames a score needs."""
        return int(getattr(self.detector, "window", 1))

    def shown_at(self, size: int) -> int:
        """The size by way of which clips of this one are brought to it: not a finer one than it learnt from."""
        return min(size, getattr(self.detector, "size", size))

    def forgotten(self) -> "Judge":
        """Without the detector, which may be large, once it has been asked."""
        return replace(self, detector=None)


@dataclass(frozen=True)
class Training:
    """What a protocol lets a detector see, and what it is then asked."""

    name: str
    held_out: str  # the generator that it does not see; '' for none
    known_fakes: int | None  # of that generator, which it sees after all
    draw: int | None
    learn: Evidence  # the splits train, and val to choose and calibrate by
    judged: tuple[Item, ...]
    fold: int | None = None  # whose people are judged; None where the evidence says who they are

    @property
    def labels(self) -> dict[str, Any]:  # Any: of a model
        """What a model says of its training."""
        return {
            "training": self.name,
            "held_out": self.held_out,
            "known_fakes": self.known_fakes,
            "draw": self.draw,
            "fold": self.fold,
        }

    @property
    def place(self) -> str:
        """What tells it from the others."""
        fold = None if self.fold is None else f"fold {self.fold}"
        return "-".join(str(part) for part in (self.name, self.known_fakes, self.draw, fold) if part is not None)

    def seen(self, item: Item) -> Seen:
        """Whether its person and its generator were there to be learnt."""
        known = {each.identity for each in self.learn.items}, set(self.learn.generators) - {self.held_out}
        return item.identity in known[0], item.generator in known[1]


# Detectors as they come.


def judge_as_given(detectors: Mapping[str, Detector], evidence: Evidence, split: Split | None) -> list[Judge]:
    """Each on the clips of a split or, without one, on those of people it has not seen.

    A detector that does not say whom it has seen is asked about the test people. Beside them stands the detector that
    sees no picture, which learns from the training people where there are real clips and fakes of them.

    Raises:
        ConfigError: there are no such clips.
    """
    judges = []
    for key, detector in detectors.items():
        trained = detector if isinstance(detector, Trained) else None
        asked = tuple(item for item in evidence.items if _is_asked(item, split, trained))
        items = Evidence(asked, evidence.size).judged().items
        _check(items, f"'{key}' could be asked about")
        judges.append(Judge(_model(key, detector), detector, _seen_by(trained), tuple(items)))
    learnt_from = evidence.of("train").judged().items
    if _teach(learnt_from):
        people = {item.identity for item in learnt_from}
        generators = {item.generator for item in learnt_from}
        others = {item.id: item for judge in judges for item in judge.items if item.identity not in people}
        model = Model(key="metadata", detector="metadata")
        seen: Callable[[Item], Seen] = lambda item: (False, item.generator in generators)  # noqa: E731  # beside its use
        judges.append(Judge(model, None, seen, tuple(others.values()), learnt_from))
    return judges


def _teach(items: Sequence[Item]) -> bool:
    """Whether what tells real from fake can be learnt from them."""
    return {item.label for item in items} == {"real", "fake"}


def teaches(evidence: Evidence, splits: Sequence[Split] = LEARNT) -> bool:
    """Whether there are real clips and fakes of people of each of these splits."""
    return all(_teach(evidence.of(split).judged().items) for split in splits)


def known_to(evidence: Evidence) -> Evidence:
    """What a detector may learn from that is then asked about the test people."""
    judged = (item for split in LEARNT for item in evidence.of(split).judged().items)
    return Evidence(tuple(judged), evidence.size)


def _is_asked(item: Item, split: Split | None, trained: Trained | None) -> bool:
    if split is None and trained is not None:
        return not trained.knows(item.identity)
    return item.split == (split or "test")


def _seen_by(trained: Trained | None) -> Callable[[Item], Seen]:
    if trained is None:
        return lambda item: (None, None)
    return lambda item: (trained.knows(item.identity), item.generator in trained.generators)


def _model(key: str, detector: Detector, training: Training | None = None) -> Model:
    labels = training.labels if training else {}
    if isinstance(detector, Trained):
        labels["sha256"] = detector.sha256
        labels["scale"], labels["shift"] = detector.calibration.a, detector.calibration.b
        labels["thresholds"] = {f"{100 * rate:g}": point.fake for rate, point in detector.operating_points.items()}
    return Model(key=key, detector=detector.name, **labels)


# Protocols.


def plan_trainings(
    evidence: Evidence,
    protocols: Sequence[str],
    seed: int,
    known_fakes: Sequence[int] = KNOWN_FAKES,
    draws: int = DRAWS,
) -> list[Training]:
    """The trainings that these protocols need, each once.

    Where P2 is asked for, all of them learn from the first half of each training clip, so that only what is new to the
    detector tells the protocols apart.

    Raises:
        ConfigError: a protocol is unknown, or there are too few generators or clips for it.
    """
    for protocol in protocols:
        check_name(protocol, PROTOCOLS, "no protocol is named")
    if len(evidence.generators) < 2 and set(protocols) - {"P1"}:
        raise ConfigError(
            f"{' and '.join(set(protocols) - {'P1'})} hold out one generator and learn from others, and there are only "
            f"fakes of '{evidence.generators[0] if evidence.generators else 'none'}'; name more --fakes"
        )
    test = evidence.of("test").judged().items
    _check(test, "of the split 'test' could be judged")
    halved = "P2" in protocols
    known = [item for item in evidence.items if item.split != "test"]
    learnt = [_early(item) if halved and item.split == "train" else item for item in known]
    learn = Evidence(tuple(learnt), evidence.size)
    train = evidence.of("train").judged().items
    late = [_late(item) for item in train if halved and item.frames >= SHORTEST]
    trainings = []
    if "P1" in protocols:
        trainings.append(Training("all generators", "", None, None, learn, tuple(test)))
    for generator in evidence.generators:
        name = f"without {generator}"
        own_test = [item for item in test if item.generator in ("", generator)]
        if set(protocols) & {"P2", "P3", "k-shot"}:  # of k-shot it is the one that knows none
            asked = [item for item in late if item.generator in ("", generator)]
            new = test if "P3" in protocols else own_test if "k-shot" in protocols else ()
            trainings.append(Training(name, generator, None, None, learn.without([generator]), (*new, *asked)))
        if "k-shot" in protocols:
            fakes = [item for item in learnt if item.generator == generator and item.split == "train"]
            for count in known_fakes:
                if count > len(fakes):
                    raise ConfigError(
                        f"{count} fakes of '{generator}' were to be known, and training people have {len(fakes)}"
                    )
                for draw in range(draws):
                    chosen = np.random.default_rng([seed, draw]).permutation(len(fakes))[:count]
                    some = [fakes[index] for index in sorted(chosen)]
                    seen = Evidence((*learn.without([generator]).items, *some), evidence.size)
                    trainings.append(Training(name, generator, count, draw, seen, tuple(own_test)))
    return trainings


def split_folds(evidence: Evidence, folds: int, seed: int) -> list[Evidence]:
    """The same clips in other splits: in each fold its own people are to test, the next one's to validate on, and the
    others to learn from. People who share a recording are in one fold.

    Raises:
        ConfigError: there are too few people.
    """
    group = group_people(evidence.items)
    names = sorted(set(group.values()), key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).hexdigest())
    if not 3 <= folds <= len(names):
        raise ConfigError(
            f"{folds} folds cannot be made of {len(names)} people, or groups of people who share recordings; "
            "choose from 3 to as many"
        )
    fold_of = {name: n % folds for n, name in enumerate(names)}
    made = []
    for fold in range(folds):
        split: dict[int, Split] = {fold: "test", (fold + 1) % folds: "val"}
        items = (replace(item, split=split.get(fold_of[group[item.identity]], "train")) for item in evidence.items)
        made.append(Evidence(tuple(items), evidence.size))
    return made


def plan_folds(folds: Sequence[Evidence], protocols: Sequence[str], seed: int) -> list[Training]:
    """The trainings of these protocols in each of the folds.

    Few people make a rate of one false alarm in a hundred hard to measure, when only a seventh of them is judged.

    Raises:
        ConfigError: as `plan_trainings`, or a protocol would judge a clip more than once, or a fold lacks clips.
    """
    if set(protocols) - FOLDED:
        raise ConfigError(
            f"--folds is for {' and '.join(sorted(FOLDED))}, in which each clip is judged once; leave out the others"
        )
    trainings = []
    for number, evidence in enumerate(folds):
        splits: tuple[Split, ...] = (*LEARNT, "test")
        for split in splits:
            if not teaches(evidence, (split,)):
                raise ConfigError(
                    f"in fold {number + 1} of {len(folds)} the people of the part '{split}' have no real clips, or no "
                    "fakes; choose fewer --folds, or name more with --fakes"
                )
        trainings += [replace(training, fold=number) for training in plan_trainings(evidence, protocols, seed)]
    return trainings


def _early(item: Item) -> Item:
    return item.part(0, int(EARLY * item.frames)) if item.frames >= SHORTEST else item


def _late(item: Item) -> Item:
    frames = int(LATE * item.frames)
    return item.part(item.frames - frames, frames)


def judge_trainings(
    trainings: Sequence[Training], kinds: Sequence[str], fit: Fit, folder: Path, seed: int, progress: Progress
) -> Iterator[Judge]:
    """Train each kind of detector as each training says, or read it where it was; one at a time, as they are large."""
    total, done = len(trainings) * len(kinds), 0
    for training in trainings:
        for kind in kinds:
            progress("trainings", done, total)
            detector = fit(kind, training.learn, folder / file_name(kind) / file_name(training.place), seed)
            model = _model(f"{kind}, {training.place}", detector, training)
            yield Judge(model, detector, training.seen, training.judged)
            done += 1
        learnt_from = training.learn.of("train").judged().items
        if _teach(learnt_from):
            model = Model(key=f"metadata, {training.place}", detector="metadata", **training.labels)
            yield Judge(model, None, training.seen, training.judged, learnt_from)
    progress("trainings", total, total)


# Scores.


def score(
    run: RunFolder,
    evidence: Evidence,
    judges: Sequence[Judge],
    collections: Mapping[str, str],
    frames: int,
    perturbations: Sequence[str],
    progress: Progress,
) -> None:
    """Ask every judge about its clips, as they are and perturbed, and keep the answers: a file a clip, so that an
    interrupted run continues.

    Args:
        run: Where the answers are kept, under scores/.
        evidence: Reads the clips.
        judges: Who is asked.
        collections: The dataset or folder that clips were named with, by their path.
        frames: Of each clip, at most, spread over the whole of it.
        perturbations: By name, each at all levels.
        progress: Told after each clip.
    """
    items = list({item.id: item for judge in judges for item in judge.items}.values())
    of_judge = [(judge, {item.id for item in judge.items}) for judge in judges if judge.detector]
    for judge in judges:
        if judge.detector is None:
            _score_metadata(run, judge, collections)
    for done, item in enumerate(items):
        progress("clips", done, len(items))
        read: dict[tuple[int, int], Shown | FrameScores] = {}  # as most detectors are shown the same frames
        for judge, asked in of_judge:
            for perturbation in ("", *perturbations):
                path = _part(run, judge.model, perturbation, item)
                if item.id not in asked or path.exists():
                    continue
                asked_for = judge.window, judge.shown_at(evidence.size)
                if asked_for not in read:
                    read[asked_for] = _read(replace(evidence, size=asked_for[1]), item, frames, judge.window)
                _write(path, list(_ask(judge, item, collections[item.path], read[asked_for], perturbation)))
    progress("clips", len(items), len(items))


def _read(evidence: Evidence, item: Item, frames: int, window: int) -> Shown | FrameScores:
    """The frames that a detector is shown, or why there are none."""
    try:
        return [(run, evidence.read(item, run)) for run in sample_runs(item.frames, frames, window)]
    except (DatasetError, MediaError) as error:
        return FrameScores(np.zeros(0, np.float32), "unreadable", str(error))


def _ask(
    judge: Judge, item: Item, collection: str, shown: Shown | FrameScores, perturbation: str
) -> Iterator[pa.Table]:
    """The rows of a clip, for each level of a perturbation."""
    assert judge.detector is not None
    seed = int(hashlib.sha256(item.id.encode()).hexdigest()[:8], 16)
    for level in LEVELS if perturbation else (0,):
        indices: list[int] = []
        if isinstance(shown, FrameScores):
            whole = shown
        else:
            said = []
            for run, clip in shown:
                if perturbation:
                    clip = Clip(clip.id, PERTURBATIONS[perturbation](clip.frames, level, seed), clip.fps)
                said.append(score_clip(judge.detector, clip))
                indices += run
            whole = _together(said)
        yield score_rows(judge.model, item, collection, judge.seen(item), indices, whole, perturbation, level)


def _together(runs: Sequence[FrameScores]) -> FrameScores:
    """What was said of a clip's runs: nothing, where the detector failed in one of them."""
    order = ("raised", "not probabilities", "scored", "nothing")
    first = min(runs, key=lambda said: order.index(said.outcome))
    logits = np.concatenate([said.logits for said in runs])
    if first.outcome in ("raised", "not probabilities"):
        logits = np.full_like(logits, np.nan)
    return first._replace(logits=logits)


def sample_runs(frames: int, count: int, window: int) -> list[list[int]]:
    """`count` frames of a clip, spread over all of it: one by one or, for a window, in runs of so many neighbours."""
    if window == 1:
        return [spread(frames, count)]
    if frames <= window:
        return [list(range(frames))]
    runs = max(1, min(count, frames) // window)
    spare = frames - runs * window + 1
    starts = [n * window + int((n + 0.5) * spare / runs) for n in range(runs)]  # no frame is in two
    return [list(range(start, start + window)) for start in starts]


def _score_metadata(run: RunFolder, judge: Judge, collections: Mapping[str, str]) -> None:
    """As `score`, for the detector that sees no picture; its answer stands in a row of frame 0."""
    absent = [item for item in judge.items if not _part(run, judge.model, "", item).exists()]
    if not absent:
        return
    known = {item.id: _metadata(item) for item in judge.learnt_from}
    readable = [item for item in judge.learnt_from if isinstance(known[item.id], Metadata)]
    rows = [row for row in known.values() if isinstance(row, Metadata)]
    detector = MetadataDetector().fit(rows, np.array([item.label == "fake" for item in readable]))
    for item in absent:
        row = _metadata(item)
        said = FrameScores(detector.logits([row]), "scored", None) if isinstance(row, Metadata) else row
        indices = range(len(said.logits))
        path = _part(run, judge.model, "", item)
        _write(path, [score_rows(judge.model, item, collections[item.path], judge.seen(item), indices, said)])


def _metadata(item: Item) -> Metadata | FrameScores:
    """What the file says, or why it cannot be read."""
    try:
        return read_metadata(item)
    except MediaError as error:
        return FrameScores(np.zeros(0, np.float32), "unreadable", str(error))


def gather(run: RunFolder, judges: Sequence[Judge], perturbations: Sequence[str], out: Path) -> None:
    """Put all answers into one table."""
    parts = (
        path
        for judge in judges
        for perturbation in ("", *perturbations)
        for item in judge.items
        if (path := _part(run, judge.model, perturbation, item)).exists()
    )
    write_scores(out, (pq.read_table(path) for path in parts), [judge.model for judge in judges])


def _part(run: RunFolder, model: Model, perturbation: str, item: Item) -> Path:
    name = hashlib.sha256(item.id.encode()).hexdigest()[:16]
    whose = file_name(f"{model.key} {model.sha256[:12]}" if model.sha256 else model.key)  # one trained anew is another
    return run.path / "scores" / whose / (perturbation or "as is") / f"{name}.parquet"


def _write(path: Path, tables: Sequence[pa.Table]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    pq.write_table(pa.concat_tables(tables), temporary)
    temporary.replace(path)


def _check(items: Sequence[Item], what: str) -> None:
    """There must be real clips and fakes.

    Raises:
        ConfigError: there are none of one kind.
    """
    for label in ("real", "fake"):
        if not any(item.label == label for item in items):
            raise ConfigError(f"no {label} clip {what}; name more with --data or --fakes, or another --split")
