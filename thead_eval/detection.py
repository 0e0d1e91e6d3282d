"""What detectors say of clips, a row a frame, and the numbers that are made of it without them.

The scores are what is kept: every number of `theval detect eval` is made of scores.parquet, so that it can be made
anew, by other metrics or for fewer people, without a detector. A row names its clip, person, generator and source;
none of them is read out of a path, so that clips of equal file names stay apart.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from scipy.special import expit, logit
from torch import Tensor

from thead_eval.errors import RunError
from thead_eval.evidence import Item
from thead_eval.metrics.detection import METRICS, DetectionMetric, Values, once, why_not
from thead_eval.results import Failure, LeftOut, Measurement, write_json
from thead_eval.statistics import ROUNDING, Draws, Scale, bootstrap_bounds, jackknife_groups
from thead_eval.types import Clip, Detector

SCHEMA = 1
SCORES = "scores.parquet"
ITEMS = "items.json"
AGGREGATION = "mean logit"  # of a clip's frames that could be scored
SURE = 1e-6  # a probability nearer to 0 or 1 than this has the logit of this: one frame must not outweigh all others
MAX_FAILED = 0.1  # of a detector's clips; with more there is no number, as those that are left were chosen by it

Outcome = Literal["scored", "unreadable", "raised", "nothing", "not probabilities"]

SCORE_SCHEMA = pa.schema(
    [
        ("model", pa.string()),  # a key of the table's models
        ("perturbation", pa.string()),  # '' as it is
        ("level", pa.int32()),  # 1 to 5, the strongest; 0 as it is
        ("item", pa.string()),
        ("label", pa.string()),  # real, fake
        ("generator", pa.string()),  # '' of a real clip
        ("shots", pa.string()),
        ("identity", pa.string()),
        ("source", pa.string()),  # sha256 of the recording
        ("collection", pa.string()),  # the dataset or folder that it was named with
        ("split", pa.string()),
        ("identity_seen", pa.bool_()),  # by the model, in training or validation; null where nobody knows
        ("generator_seen", pa.bool_()),  # null of a real clip, or where nobody knows
        ("frame", pa.int32()),  # its number in the clip; null in the one row of a clip of which nothing could be read
        ("logit", pa.float32()),  # NaN where it could not be scored
        ("p", pa.float32()),  # calibrated
        ("outcome", pa.string()),  # of the clip
        ("reason", pa.string()),  # null where it was scored
    ]
)


class Model(BaseModel):
    """What made scores, and how a clip's probability and verdict follow from the logits of its frames."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str  # unique in a table
    detector: str
    sha256: str = ""  # of its weights
    training: str = ""  # '' as it came; else which of a protocol's trainings
    held_out: str = ""  # the generator that this training did not see
    known_fakes: int | None = None  # of that generator, which it saw after all
    draw: int | None = None  # which of several choices of these
    fold: int | None = None  # the people that this training was asked about, where each of several has its own
    scale: float = 1.0  # Platt: p = sigmoid(scale * mean logit + shift)
    shift: float = 0.0
    thresholds: dict[str, float] = {}  # mean logits, by the percent of validation reals that reach them at most
    aggregation: Literal["mean logit"] = "mean logit"

    @property
    def line(self) -> tuple[float, float]:
        """Scale and shift that make its logits comparable with those of the other folds: of a lone model, none."""
        return (1.0, 0.0) if self.fold is None else (self.scale, self.shift)


@runtime_checkable
class GivesLogits(Protocol):
    """A detector whose raw output is calibrated afterwards, for a whole clip."""

    def logits(self, frames: Tensor) -> Tensor:
        """[T] float32 of uint8 [T, 3, H, W]; NaN where a frame could not be scored."""
        ...


class FrameScores(NamedTuple):
    """What a detector said of one clip."""

    logits: NDArray[np.float32]  # [T]
    outcome: Outcome
    reason: str | None


@dataclass(frozen=True)
class Scores:
    """A table of scores, and the models in it."""

    frames: pd.DataFrame  # SCORE_SCHEMA
    models: dict[str, Model]


def score_clip(detector: Detector, clip: Clip) -> FrameScores:
    """A detector's logits of each frame; of one that raises, or gives no probabilities, NaN and the reason.

    A detector can be a stranger's, and one clip must not end a night's work: it is counted, and no number made of it.
    """
    none = np.full(len(clip), np.nan, dtype=np.float32)
    try:
        given = detector.logits(clip.frames) if isinstance(detector, GivesLogits) else detector.score(clip)
        values = np.asarray(given.detach().cpu(), dtype=np.float32)
    except Exception as error:
        return FrameScores(none, "raised", f"{type(error).__name__}: {error}")
    if values.shape != (len(clip),):
        return FrameScores(none, "not probabilities", f"gave {list(values.shape)} scores for {len(clip)} frames")
    known = values[~np.isnan(values)]
    if not len(known):
        return FrameScores(none, "nothing", "gave NaN for every frame")
    if isinstance(detector, GivesLogits):
        if np.isinf(known).any():
            return FrameScores(none, "not probabilities", "gave an infinite logit")
        return FrameScores(values, "scored", None)
    if known.min() < 0 or known.max() > 1:
        reason = f"gave scores of {known.min():g} to {known.max():g}, which are no probabilities"
        return FrameScores(none, "not probabilities", reason)
    return FrameScores(logit(values.clip(SURE, 1 - SURE)), "scored", None)


def score_rows(
    model: Model,
    item: Item,
    collection: str,
    seen: tuple[bool | None, bool | None],
    indices: Sequence[int],
    scores: FrameScores,
    perturbation: str = "",
    level: int = 0,
) -> pa.Table:
    """The rows of one clip; one row without a frame where it could not be read.

    Args:
        model: What made the scores.
        item: The clip.
        collection: The dataset or folder that the clip was named with.
        seen: Whether the model has seen the person and the generator; None where nobody knows.
        indices: The frames' numbers in the clip.
        scores: Of these frames.
        perturbation: What was done to them.
        level: How strongly.
    """
    fields: dict[str, Any] = {  # Any: of several types
        "model": model.key,
        "perturbation": perturbation,
        "level": level,
        "item": item.id,
        **{name: getattr(item, name) for name in ("label", "generator", "shots", "identity", "source", "split")},
        "collection": collection,
        "identity_seen": seen[0],
        "generator_seen": None if item.label == "real" else seen[1],
        "outcome": scores.outcome,
        "reason": scores.reason,
    }
    columns: dict[str, Any] = {
        "frame": list(indices) or [None],
        "logit": scores.logits if len(indices) else [np.nan],
        "p": expit(model.scale * scores.logits + model.shift) if len(indices) else [np.nan],
    }
    count = len(columns["frame"])
    return pa.table({name: columns.get(name, [fields.get(name)] * count) for name in SCORE_SCHEMA.names}, SCORE_SCHEMA)


def write_scores(path: Path, tables: Iterable[pa.Table], models: Iterable[Model]) -> None:
    """Write a table of scores whole or not at all; an empty iterable leaves a table without rows."""
    content = {"schema": SCHEMA, "models": [model.model_dump(mode="json") for model in models]}
    schema = SCORE_SCHEMA.with_metadata({"theval": json.dumps(content)})
    temporary = path.with_name(f".{path.name}")
    with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for table in tables:
            writer.write_table(table.cast(schema))
    temporary.replace(path)


def read_scores(path: Path) -> Scores:
    """A table that `write_scores` wrote.

    Raises:
        RunError: it is missing, something else, of another version, or says two things of one frame.
    """
    try:
        table = pq.read_table(path)
        content = json.loads((table.schema.metadata or {})[b"theval"])
        if content["schema"] != SCHEMA:
            raise RunError(f"'{path}' has schema {content['schema']}, this theval reads {SCHEMA}; judge again")
        models = [Model.model_validate(model) for model in content["models"]]
        frames = table.select(SCORE_SCHEMA.names).cast(SCORE_SCHEMA).to_pandas()
    except FileNotFoundError:
        raise RunError(f"'{path}' does not exist; make it with 'theval detect eval'") from None
    except (OSError, pa.ArrowInvalid, KeyError, ValueError, ValidationError) as error:
        raise RunError(f"'{path}' is no table of scores ({_first_line(error)}); judge again") from error
    if unknown := set(frames["model"]) - {model.key for model in models}:
        raise RunError(f"'{path}' holds scores of '{min(unknown)}' and does not say what that is; judge again")
    twice = frames.duplicated(["model", "perturbation", "level", "item", "frame"])
    if twice.any():
        raise RunError(f"'{path}' says two things of frame {frames[twice].iloc[0]['item']}; judge again")
    return Scores(frames, {model.key: model for model in models})


def write_items(run: Path, items: Iterable[Item]) -> None:
    """Write RUN/items.json: of each item that is a file, where it lay when it was judged."""
    write_json(run / ITEMS, {item.id: str(Path(item.path).resolve()) for item in items if not item.clip})


def read_items(run: Path) -> dict[str, Path]:
    """RUN/items.json; nothing of a run of scores alone.

    Raises:
        RunError: it is damaged.
    """
    path = run / ITEMS
    if not path.is_file():
        return {}
    try:
        return TypeAdapter(dict[str, Path]).validate_json(path.read_bytes())
    except ValidationError as error:
        raise RunError(f"'{path}' is damaged ({_first_line(error)}); judge again") from error


def failures_of(scores: Scores) -> list[Failure]:
    """Clips that a model was asked about as they are, and of which it has no score."""
    rows = scores.frames[(scores.frames["perturbation"] == "") & (scores.frames["outcome"] != "scored")]
    once_each = rows.drop_duplicates(["model", "item"])
    return [
        Failure(item=row["item"], labels={"detector": row["model"]}, reason=f"{row['outcome']}: {row['reason']}")
        for row in once_each.to_dict("records")
    ]


CLIP_COLUMNS = [name for name in SCORE_SCHEMA.names if name not in ("frame", "logit", "p")]


def clip_scores(scores: Scores) -> pd.DataFrame:
    """A row a clip: the mean logit of its scored frames, the probability that follows, and the counts of both."""
    keys = ["model", "perturbation", "level", "item"]
    grouped = scores.frames.groupby(keys, sort=False)
    clips = grouped[[name for name in CLIP_COLUMNS if name not in keys]].first()
    clips["logit"] = grouped["logit"].mean()  # NaN left out
    clips["frames"] = grouped["logit"].count()
    clips["failed"] = grouped["logit"].size() - clips["frames"]
    clips = clips.reset_index()
    for name, by in (("scale", "scale"), ("shift", "shift")):
        by_key = {key: getattr(model, by) for key, model in scores.models.items()}
        clips[name] = clips["model"].map(by_key).astype(float)
    clips["p"] = expit(clips["scale"] * clips["logit"] + clips["shift"])
    clips["logit"] = _comparable(clips, scores)
    return clips.drop(columns=["scale", "shift"])


def _comparable(rows: pd.DataFrame, scores: Scores) -> pd.Series:
    """The logits of rows; of folds, whose detectors have each their own scale, the calibrated ones."""
    scale = rows["model"].map({key: model.line[0] for key, model in scores.models.items()})
    shift = rows["model"].map({key: model.line[1] for key, model in scores.models.items()})
    return rows["logit"].astype(float) * scale.astype(float) + shift.astype(float)


# From scores to measurements.

# A protocol by what is new to the model: (person, generator). Real clips belong to each in which the person fits.
PROTOCOLS: dict[str, tuple[bool, bool]] = {"P1": (True, False), "P2": (False, True), "P3": (True, True)}
UNKNOWN = "as given"  # the protocol of a model of which nobody knows what it has seen
ALL = "all"  # generators
PERTURBED = ("auc", "tpr_at_5", "tpr_at_1")  # what is measured under perturbations, beside the reals that flip


@dataclass(frozen=True)
class Question:
    """A set of scores, and what it is asked about."""

    labels: dict[str, str]
    models: tuple[Model, ...]  # more than one: the draws or the folds of a training
    clips: pd.DataFrame  # a row a clip and draw, failed ones too

    @property
    def drawn(self) -> bool:
        """Whether the models differ in what was drawn for them to learn from, and judge the same clips."""
        return self.models[0].draw is not None


@dataclass(frozen=True)
class _Number:
    """A number still to be computed, of rows of which each draw holds so many."""

    name: str
    higher_is_better: bool
    compute: Callable[[Draws], Values]
    absent: str = ""  # why it has no value
    scale: Scale = "share"  # of its interval


def measure_scores(scores: Scores, seed: int, progress: Callable[[str, int, int], None]) -> list[Measurement]:
    """Every number of a table: by protocol, generator, shots and collection of reals, for clips and for frames.

    Intervals are from drawing people with replacement. Probabilities are judged with reals and fakes weighing alike,
    so that the number of fakes made of each person is in no number but `ap`.
    """
    clips = clip_scores(scores)
    questions = list(ask(scores, clips))
    measurements = []
    for done, question in enumerate(questions):
        progress("numbers", done, len(questions))
        measurements += measure_question(question, "clip", question.clips, seed)
        if not question.labels.keys() & {"shots", "perturbation"} and not question.drawn:
            measurements += measure_question(question, "frame", frame_scores(scores, question), seed)
    progress("numbers", len(questions), len(questions))
    return measurements


def ask(scores: Scores, clips: pd.DataFrame) -> Iterator[Question]:
    """The questions that a table can answer: fakes of one kind, beside all reals of the same protocol."""
    as_is = clips[clips["perturbation"] == ""].set_index(["model", "item"])["logit"]
    before = pd.MultiIndex.from_frame(clips[["model", "item"]])
    clips = clips.assign(logit_as_is=as_is.reindex(before).to_numpy())
    trainings: dict[tuple[str, ...], list[Model]] = {}  # draws and folds of one training are one question
    for model in scores.models.values():
        alone = "" if model.draw is not None or model.fold is not None else model.key
        trainings.setdefault((model.detector, model.training, str(model.known_fakes), alone), []).append(model)
    alike = Counter(parts[:3] for parts in trainings)
    for parts, models in trainings.items():
        model = models[0]
        own = clips[clips["model"].isin([each.key for each in models])]
        name = model.key if alike[parts[:3]] > 1 else model.detector
        named = {"detector": name, "training": model.training, "held_out": model.held_out}
        named["known_fakes"] = "" if model.known_fakes is None else str(model.known_fakes)
        for (perturbation, level), rows in own.groupby(["perturbation", "level"], sort=True):
            strength = {"perturbation": str(perturbation), "level": str(level)} if perturbation else {}
            for protocol, asked in _by_protocol(rows):
                labels = {name: value for name, value in (named | strength | {"protocol": protocol}).items() if value}
                for kind, chosen in _by_kind(asked, detailed=not perturbation):
                    yield Question(kind | labels, tuple(models), chosen)


def _by_protocol(clips: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    real = clips["label"] == "real"
    unknown = clips["identity_seen"].isna()
    if unknown.any():
        yield UNKNOWN, clips
        return
    for protocol, (new_person, new_generator) in PROTOCOLS.items():
        fits = clips["identity_seen"].eq(not new_person) & (real | clips["generator_seen"].eq(not new_generator))
        if (fits & ~real).any():
            yield protocol, clips[fits]


def _by_kind(clips: pd.DataFrame, detailed: bool) -> Iterator[tuple[dict[str, str], pd.DataFrame]]:
    """All fakes; those of each generator; of each at so many shots; all, beside the reals of each collection."""
    real = clips["label"] == "real"
    generators = sorted(set(clips.loc[~real, "generator"]))
    if len(generators) > 1:
        yield {"generator": ALL}, clips
    for generator in generators:
        of_it = clips["generator"] == generator
        yield {"generator": generator}, clips[real | of_it]
        shots = sorted(set(clips.loc[of_it, "shots"]) - {""}, key=lambda text: (len(text), text))
        if detailed and len(shots) > 1:
            for count in shots:
                kind = {"generator": generator, "shots": count}
                yield kind, clips[real | (of_it & (clips["shots"] == count))]
    collections = sorted(set(clips.loc[real, "collection"]))
    if detailed and len(collections) > 1:
        for collection in collections:
            yield {"generator": ALL, "reals": collection}, clips[~real | (clips["collection"] == collection)]


def frame_scores(scores: Scores, question: Question) -> pd.DataFrame:
    """The frames of a question's clips, as rows of one frame each."""
    frames = scores.frames
    chosen = frames[
        (frames["perturbation"] == "")
        & frames["model"].isin([model.key for model in question.models])
        & frames["item"].isin(question.clips["item"])
    ]
    known = chosen["logit"].notna().astype(int)
    logits = _comparable(chosen, scores)
    return chosen.assign(frames=known, failed=1 - known, logit=logits, logit_as_is=logits)


def measure_question(
    question: Question, unit: Literal["clip", "frame"], rows: pd.DataFrame, seed: int
) -> list[Measurement]:
    """The numbers of one question; without a value, and with the reason, where the detector failed."""
    clips = question.clips
    failed_clips = (clips["frames"] == 0).sum() / max(len(clips), 1)
    scored = rows[rows["frames"] > 0]
    broken = ""
    if failed_clips > MAX_FAILED:
        reasons = clips.loc[clips["frames"] == 0, "reason"]
        broken = f"{failed_clips:.0%} of the clips have no score ({reasons.iloc[0]}); no number is made of the rest"
    elif len(scored) > 1 and scored["logit"].nunique() == 1:
        broken = f"the detector says {scored['p'].iloc[0]:.3g} of everything"
    fake = (scored["label"] == "fake").to_numpy()
    codes, people = pd.factorize(scored["identity"])
    identities = codes.astype(np.int64)
    groups = jackknife_groups(np.argsort(people)) if len(people) > 1 else []
    kept = np.ones((len(groups), len(people)))  # how often each draw of the jackknife holds each person
    for draw, group in zip(kept, groups, strict=True):
        draw[group] = 0
    of_class = [scored.loc[mask, "identity"].nunique() for mask in (fake, ~fake) if mask.any()]
    smaller_class = min(of_class, default=0)
    perturbed = "perturbation" in question.labels
    made = []
    for number in _numbers(question, scored, fake, unit, perturbed):
        note = broken or number.absent or ("" if len(scored) else "nothing was scored")
        value = low = high = None
        left_out: tuple[LeftOut, ...] = ()
        if not note:
            value = float(number.compute(once(len(scored)))[0])
            bounds = bootstrap_bounds(number.compute, identities, seed, number.scale, freedom=smaller_class - 1)
            low, high = bounds or (None, None)
            left = number.compute(Draws(kept, identities)) if groups else np.empty(0)
            if not np.isnan(left).any():
                left_out = tuple(
                    LeftOut(identities=tuple(sorted(people[group])), value=each)
                    for group, each in zip(groups, left.tolist(), strict=True)
                )
            ends = [end for end in (0.0, 1.0) if abs(value - end) < ROUNDING]
            if number.scale in ("odds", "share") and ends and low is not None and high is not None:
                # The same in each draw, or nearly, however few people there are to draw from.
                value, fault = ends[0], 1 - 0.025 ** (1 / smaller_class)
                low, high = (min(low, 1 - fault), 1.0) if value else (0.0, max(high, fault))
        made.append(
            Measurement(
                metric=number.name,
                value=value,
                low=low,
                high=high,
                higher_is_better=number.higher_is_better,
                n_frames=int(scored["frames"].sum()),
                n_identities=int(scored["identity"].nunique()),
                n_failed=int(rows["failed"].sum()),
                n_real=_count(scored[~fake], unit),
                n_fake=_count(scored[fake], unit),
                labels=question.labels | {"unit": unit},
                left_out=left_out,
                note=note,
            )
        )
    return made


def _count(rows: pd.DataFrame, unit: Literal["clip", "frame"]) -> int:
    """Clips, each once however many draws of a training have judged it; or frames."""
    return int(rows["item"].nunique()) if unit == "clip" else len(rows)


def _numbers(
    question: Question, scored: pd.DataFrame, fake: NDArray[np.bool_], unit: str, perturbed: bool
) -> Iterator[_Number]:
    """What is asked of these rows."""
    models = scored["model"].to_numpy()
    draws = [np.arange(len(scored))]  # folds are one draw: each judges clips of its own
    if question.drawn:
        draws = [np.flatnonzero(models == key) for key in dict.fromkeys(models)] or [np.arange(0)]
    # Platt's line is level where validation could not tell fakes from real clips.
    flat = (
        f"its calibration says {scored['p'].iloc[0]:.3g} of everything"
        if scored["p"].nunique() == 1 < len(scored)
        else ""
    )
    for metric in METRICS:
        if not perturbed or metric.name in PERTURBED:
            compute = _over_draws(metric, scored, fake, draws)
            absent = why_not(metric, fake[draws[0]]) or (flat if metric.reads == "probability" else "")
            yield _Number(metric.name, metric.higher_is_better, compute, absent, metric.scale)
    if unit == "frame" or len(draws) > 1:
        return
    logits, logits_as_is = scored["logit"].to_numpy(), scored["logit_as_is"].to_numpy()
    for fpr in (rate for rate in question.models[0].thresholds if all(rate in m.thresholds for m in question.models)):
        of_model = {m.key: m.line[0] * m.thresholds[fpr] + m.line[1] for m in question.models}
        threshold = np.array([of_model[key] for key in models])
        flagged, before = logits >= threshold, logits_as_is >= threshold
        for name, of_class, counted, more_is_better in (
            (f"fakes_flagged_at_{fpr}", fake, flagged, True),
            (f"reals_flagged_at_{fpr}", ~fake, flagged, False),
            (f"reals_flipped_at_{fpr}", ~fake, flagged != before, False),
        ):
            if perturbed or "flipped" not in name:
                absent = "" if of_class.any() else f"there are no {name.split('_')[0]}"
                yield _Number(name, more_is_better, _share(counted, of_class), absent)


def _over_draws(
    metric: DetectionMetric, scored: pd.DataFrame, fake: NDArray[np.bool_], draws: Sequence[NDArray[np.intp]]
) -> Callable[[Draws], Values]:
    """The metric, meaned over the draws of a training, which judged the same clips."""
    column = "p" if metric.reads == "probability" else "logit"
    values = scored[column].to_numpy(dtype=np.float64)

    def compute(drawn: Draws) -> Values:
        of_each = []
        for rows in draws:
            own = Draws(drawn.counts, drawn.identity[rows])
            settings = {"balance": True} if metric.reads == "probability" else {}
            of_each.append(metric.compute(fake[rows], values[rows], own, **settings))
        mean: Values = np.mean(of_each, axis=0)
        return mean

    return compute


def _share(counted: NDArray[np.bool_], of_class: NDArray[np.bool_]) -> Callable[[Draws], Values]:
    def compute(drawn: Draws) -> Values:
        weights = drawn.weights
        whole = weights @ of_class
        nothing = np.full(len(whole), np.nan)
        share: Values = np.divide(weights @ (counted & of_class), whole, out=nothing, where=whole > 0)
        return share

    return compute


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
