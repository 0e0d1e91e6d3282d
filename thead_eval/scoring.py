"""From judged clips to measurements: values over people, with intervals, counts, failures and what they are read on."""

import errno
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from thead_eval import plugins, statistics, weights
from thead_eval.errors import RunError, WeightsMissing
from thead_eval.judging import (
    LANDMARKS,
    RESIZE,
    Judged,
    JudgeTask,
    Pair,
    PairSet,
    Progress,
    RealClip,
    count_frames,
    features_path,
    judge_clip,
    read_scores,
    run_tasks,
    worker_pool,
    write_pairs,
)
from thead_eval.metrics.identity import calibrate
from thead_eval.results import USER, Failure, LeftOut, Measurement, read_measurements, read_run, write_measurements
from thead_eval.run import RunFolder, open_run
from thead_eval.spotting import spot
from thead_eval.types import (
    Detector,
    FeatureMetric,
    FeatureNetwork,
    FeatureSet,
    FrameValues,
    Metric,
    PixelMetric,
    SetMetric,
)


@dataclass
class Outcome:
    """All measurements of a run, and what could not be made or judged."""

    measurements: list[Measurement] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    weights: dict[str, str] = field(default_factory=dict)  # name to sha256 of each file that was read
    sizes: dict[str, str] = field(default_factory=dict)  # generator to its own frame size and the resize


# Settings that a run's fakes depend on: it is continued only with the same.
FIXED = tuple("dataset split shots identities min_frames cross_clip seed fakes reals pairs clips theval".split())
# What a full, read-only or failing disk answers; a short write by numpy has no number at all.
DISK_ERRORS = (None, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)


def score_run(
    out: Path,
    config: dict[str, Any],
    make_pairs: Callable[[RunFolder, ProcessPoolExecutor | None], PairSet],
    workers: int,
    progress: Progress,
    examiner: Detector | None = None,
) -> Outcome:
    """Open or continue a run folder, make its pairs, judge them, and write the record.

    Args:
        out: The run folder.
        config: The resolved settings, among them `metrics`, `seed` and `device`, and `checkpoints` where the fakes are
            made of some: generator to sha256; Any: JSON.
        make_pairs: Generates or finds what is judged, with the processes that it may use.
        workers: Processes; 1 works in this one.
        progress: Told of each step.
        examiner: A detector that is asked to spot the fakes; see `thead_eval.spotting`.

    Raises:
        RunError: the folder holds something else, other settings or fakes by another checkpoint, or is full, a worker
            was killed, or no pair could be judged.
    """
    _check_checkpoints(out, config)
    run = open_run(out, config, FIXED)
    try:
        run.record("predicting", config, {}, {}, [])
        with worker_pool(workers) as pool:
            pairs = make_pairs(run, pool)
            write_pairs(run.path, pairs)
            run.record("scoring", config, pairs.dataset, {}, [])
            outcome = score_pairs(run, pairs, config["metrics"], config["seed"], config["device"], pool, progress)
        if examiner is not None:
            spotted, failures = spot(examiner, pairs, config["seed"], progress)
            outcome.measurements += spotted
            outcome.failures += failures
            if sha256 := getattr(examiner, "sha256", None):
                outcome.weights[f"detector {examiner.name}"] = sha256
        if (out / "measurements.json").exists():  # what people answered about these fakes is not made anew
            outcome.measurements += [row for row in read_measurements(out) if row.metric == USER]
        write_measurements(run.path, outcome.measurements)
        run.record("complete", config | {"sizes": outcome.sizes}, pairs.dataset, outcome.weights, outcome.failures)
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise RunError(
            f"cannot write '{error.filename or out}' ({error.strerror or error}); free some space or make it writable, "
            "and run the same command again, which continues where this one stopped"
        ) from error
    return outcome


def _check_checkpoints(out: Path, config: Mapping[str, Any]) -> None:  # Any: JSON
    """Fakes that are there are not made again, so they must be by the checkpoints that are there now.

    Raises:
        RunError: a generator of the run has another.
    """
    if not (out / "run.json").exists():
        return
    earlier = read_run(out).config
    before, now = earlier.get("checkpoints", {}), config.get("checkpoints", {})
    for name in earlier.get("generators", ()):
        one, other = before.get(name, ""), now.get(name, "")
        if one != other:
            raise RunError(
                f"'{out}' has fakes by '{name}' with {_checkpoint(one)}, and '{name}' now has {_checkpoint(other)}; "
                "name another folder with --out, or the checkpoint that made them in THEVAL_CHECKPOINT"
            )


def _checkpoint(sha256: str) -> str:
    return f"checkpoint {sha256[:12]}" if sha256 else "no checkpoint on record"


def score_pairs(
    run: RunFolder,
    what: PairSet,
    metric_names: Sequence[str],
    seed: int,
    device: str,
    pool: ProcessPoolExecutor | None,
    progress: Progress,
) -> Outcome:
    """Judge every pair by every metric, and reduce the values to measurements.

    Args:
        run: where features and values are kept.
        what: the pairs.
        metric_names: as `theval list metric` shows them.
        seed: of the resampling.
        device: of the networks.
        pool: processes that judge; None judges in this one.
        progress: told after each clip.

    Raises:
        PluginError: an unknown metric.
        RunError: a worker was killed, or no pair could be judged.
    """
    pairs = what.pairs
    metrics: list[Metric] = [plugins.load("metric", name) for name in dict.fromkeys(metric_names)]
    networks = {name: plugins.load("features", name) for metric in metrics for name in _networks_of(metric)}
    if any(network.uses_landmarks for network in networks.values()):
        networks[LANDMARKS] = plugins.load("features", LANDMARKS)
    notes = {metric.name: _missing_weights(metric, networks) for metric in metrics}
    usable = [metric for metric in metrics if not notes[metric.name]]
    needed = tuple(sorted({name for metric in usable for name in _networks_of(metric)}))
    if any(networks[name].uses_landmarks for name in needed):
        needed = (LANDMARKS, *(name for name in needed if name != LANDMARKS))
    paired = tuple(metric.name for metric in usable if not isinstance(metric, SetMetric))

    outcome = Outcome(
        failures=[*what.failures, *(item.failure for item in what.never_made)], weights=_weights_read(usable, networks)
    )
    reals = list({pair.real.path: pair.real for pair in pairs}.values())
    tasks = [JudgeTask(run.path, device, clip, needed, ()) for clip in (*reals, *what.support)]
    unreadable: dict[Path, str] = {}
    for task, judged in run_tasks(judge_clip, tasks, pool, progress, "real clips"):
        if judged.failure:
            assert isinstance(task.clip, RealClip)
            unreadable[task.clip.path] = judged.failure
            outcome.failures.append(Failure(item=task.clip.item, reason=judged.failure))
    tasks = [JudgeTask(run.path, device, pair, needed, paired) for pair in pairs if pair.real.path not in unreadable]
    results: dict[tuple[str, str], Judged] = {}
    sizes: dict[str, set[str]] = {}
    for task, judged in run_tasks(judge_clip, tasks, pool, progress, "fakes"):
        pair = task.clip
        assert isinstance(pair, Pair)
        results[pair.folder, pair.item] = judged
        if judged.failure:
            outcome.failures.append(Failure(item=pair.item, labels=dict(pair.labels), reason=judged.failure))
        else:
            sizes.setdefault(pair.labels["generator"], set()).add(_size_note(judged.size, judged.judged_size))
    outcome.sizes = {generator: "; ".join(sorted(notes)) for generator, notes in sorted(sizes.items())}
    if not any(judged.failure is None for judged in results.values()):
        first = outcome.failures[0].reason if outcome.failures else "there are no pairs"
        raise RunError(f"none of {len(pairs)} pairs could be judged; the first: {first}")

    _write_frames(run.path, pairs, results, paired)
    by_folder: dict[str, list[Pair]] = {}
    for pair in pairs:
        by_folder.setdefault(pair.folder, []).append(pair)
    lost: dict[str, int] = {}  # frames of fakes that were never made
    for absent in what.never_made:
        lost[absent.folder] = lost.get(absent.folder, 0) + absent.frames
    floors: dict[tuple[str, ...], float | None] = {}
    cells = [(folder, metric) for folder in by_folder for metric in metrics]
    for done, (folder, metric) in enumerate(cells):
        progress("numbers", done, len(cells))
        own = by_folder[folder]
        if notes[metric.name]:
            row = _not_computed(metric, own[0].labels, notes[metric.name])
        elif isinstance(metric, SetMetric):
            row = _measure_set(run.path, metric, own, results, lost.get(folder, 0), seed, floors)
        else:
            row = _measure_frames(run.path, metric, own, results, lost.get(folder, 0), seed)
        outcome.measurements.append(row)
    progress("numbers", len(cells), len(cells))
    for absent in what.never_made:  # conditions of which no fake was made at all
        if absent.folder not in by_folder and lost[absent.folder]:
            labels, failed = absent.failure.labels, lost[absent.folder]
            outcome.measurements += [_not_computed(m, labels, "no fake could be generated", failed) for m in metrics]
            lost[absent.folder] = 0
    judged_reals = [clip for clip in reals if clip.path not in unreadable]
    judged_support = [clip for clip in what.support if clip.path not in unreadable]
    for metric in usable:
        if isinstance(metric, FeatureMetric) and metric.name.startswith("csim_"):
            outcome.measurements.extend(_calibrate(run.path, metric, judged_reals, judged_support, seed))
    return outcome


def _write_frames(
    run: Path, pairs: Sequence[Pair], results: Mapping[tuple[str, str], Judged], metrics: Sequence[str]
) -> None:
    """RUN/frames.parquet: a row per judged frame."""
    labels = {"generator": pa.string(), "shots": pa.int32(), "identity": pa.string(), "clip": pa.string()}
    schema = pa.schema(labels | {"index": pa.int32()} | dict.fromkeys(metrics, pa.float64()))
    temporary = run / ".frames.parquet"
    with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for pair in pairs:
            judged = results.get((pair.folder, pair.item))
            if judged is None or judged.failure or not judged.frames:
                continue
            values = read_scores(run, pair)
            shots = pair.labels.get("shots")
            rows = pd.DataFrame(
                {"generator": pair.labels["generator"], "identity": pair.identity, "clip": pair.item}
                | {"index": np.arange(judged.frames), "shots": int(shots) if shots else None}
                | {name: values[name] for name in metrics}
            )
            writer.write_table(pa.Table.from_pandas(rows, schema, preserve_index=False))
    temporary.replace(run / "frames.parquet")


# From values to measurements.


def _measure_frames(
    run: Path,
    metric: PixelMetric | FeatureMetric,
    pairs: Sequence[Pair],
    results: Mapping[tuple[str, str], Judged],
    never_made: int,
    seed: int,
) -> Measurement:
    """A metric with a value per frame: the mean over identities of each identity's mean."""
    ends = metric.undefined_ends if isinstance(metric, FeatureMetric) else 0
    by_identity: dict[str, list[FrameValues]] = {}
    failed = never_made
    for pair in pairs:
        judged = results.get((pair.folder, pair.item))
        if judged is None or judged.failure:
            failed += _length_of(run, pair.real)
            by_identity.setdefault(pair.identity, [])
            continue
        values = read_scores(run, pair)[metric.name]
        values = values[ends : len(values) - ends]
        failed += judged.unpaired + int(np.isnan(values).sum())
        by_identity.setdefault(pair.identity, []).append(values)
    frames = {name: np.concatenate([np.empty(0), *arrays]) for name, arrays in by_identity.items()}
    means = statistics.identity_means(frames)
    interval = statistics.mean_interval(frames, seed)
    scored = int(sum((~np.isnan(values)).sum() for values in frames.values()))
    notes = [] if scored else ["no frame could be judged"]
    smallest = min((min(results[p.folder, p.item].judged_size) for p in pairs if _was_judged(results, p)), default=None)
    if smallest and isinstance(metric, PixelMetric) and smallest < metric.minimum_size:
        notes.append(f"the sides of a frame must be at least {metric.minimum_size} px")
    if scored and interval.low is None:
        notes.append("no interval: one identity")
    longer = sum(results[p.folder, p.item].longer for p in pairs if _was_judged(results, p))
    if longer:
        notes.append(f"{longer} fakes are longer than their real clips, and were judged as far as those go")
    return Measurement(
        metric=metric.name,
        **interval._asdict(),
        unit=metric.unit,
        higher_is_better=metric.higher_is_better,
        n_frames=scored,
        n_identities=len(means),
        n_failed=failed,
        n_effective=statistics.effective_frames(frames),
        labels=dict(pairs[0].labels),
        per_identity={name: means.get(name) for name in by_identity},
        note="; ".join(notes),
    )


def _measure_set(
    run: Path,
    metric: SetMetric,
    pairs: Sequence[Pair],
    results: Mapping[tuple[str, str], Judged],
    never_made: int,
    seed: int,
    floors: dict[tuple[str, ...], float | None],
) -> Measurement:
    """A metric of the whole set, with a jackknife over identities and the floor that the real set gives itself.

    `floors` keeps the floors of this run, as most conditions share one real set.
    """
    judged_pairs = [pair for pair in pairs if _was_judged(results, pair)]
    lost = never_made + sum(_length_of(run, pair.real) for pair in pairs if not _was_judged(results, pair))
    lost += sum(results[pair.folder, pair.item].unpaired for pair in judged_pairs)
    names = sorted({pair.identity for pair in judged_pairs})
    numbers = {name: n for n, name in enumerate(names)}
    reals = list({pair.real.path: pair.real for pair in judged_pairs}.values())
    with tempfile.TemporaryDirectory(dir=run, prefix=".set-") as folder:
        fake, dropped = _gather(run, metric.feature, judged_pairs, numbers, Path(folder) / "fake.npy")
        real, _ = _gather(run, metric.feature, reals, numbers, Path(folder) / "real.npy")
        frames, people = len(fake.features), len(np.unique(fake.identities))
        if frames < 2 or len(real.features) < 2:
            return _not_computed(metric, pairs[0].labels, "fewer than two frames could be judged", lost + dropped)
        interval, groups, left = statistics.jackknife(metric.distance, fake, real)
        floor_of = (metric.name, *(str(clip.path) for clip in reals))
        if floor_of not in floors:
            floors[floor_of] = statistics.noise_floor(metric.distance, real, seed)
        effective = statistics.effective_feature_frames(fake)
    notes = []
    if interval.value is None:
        notes.append("too few frames or identities for this distance")
    if frames < metric.minimum_frames or people < metric.minimum_identities:
        notes.append(
            f"small sample: below {metric.minimum_frames} frames or {metric.minimum_identities} identities the value "
            "depends on how many there are; compare it only with values of the same people and frames"
        )
    return Measurement(
        metric=metric.name,
        **interval._asdict(),
        unit=metric.unit,
        higher_is_better=metric.higher_is_better,
        n_frames=frames,
        n_identities=people,
        n_failed=lost + dropped,
        n_effective=effective,
        noise_floor=floors[floor_of],
        labels=dict(pairs[0].labels),
        left_out=tuple(
            LeftOut(identities=tuple(sorted(names[n] for n in group)), value=value)
            for group, value in zip(groups, left.tolist(), strict=True)
        ),
        note="; ".join(notes),
    )


def _was_judged(results: Mapping[tuple[str, str], Judged], pair: Pair) -> bool:
    judged = results.get((pair.folder, pair.item))
    return judged is not None and judged.failure is None


def _gather(
    run: Path, network: str, clips: Sequence[Pair] | Sequence[RealClip], numbers: Mapping[str, int], path: Path
) -> tuple[FeatureSet, int]:
    """The features of many clips as one memory map, without the rows that failed, and how many those were."""
    files = [features_path(run, network, clip.folder, clip.item) for clip in clips]
    kept, dropped, width = [], 0, 0
    for file in files:
        rows = np.load(file, mmap_mode="r")
        good = ~np.isnan(rows.reshape(len(rows), -1)).any(axis=1)
        kept.append(np.flatnonzero(good))
        dropped += int((~good).sum())
        width = int(np.prod(rows.shape[1:]))
    count = sum(len(rows) for rows in kept)
    identities = np.repeat([numbers[clip.identity] for clip in clips], [len(rows) for rows in kept]).astype(np.int64)
    if not count:
        return FeatureSet(np.empty((0, width), np.float32), identities), dropped
    gathered = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(count, width))
    start = 0
    for file, rows in zip(files, kept, strict=True):
        gathered[start : start + len(rows)] = np.load(file)[rows].reshape(len(rows), -1)
        start += len(rows)
    return FeatureSet(gathered, identities), dropped


def _calibrate(
    run: Path, metric: FeatureMetric, reals: Sequence[RealClip], support: Sequence[RealClip], seed: int
) -> list[Measurement]:
    """What the cosine is between two real frames of one person, and of two people: the scale that CSIM is read on."""
    numbers = {name: n for n, name in enumerate(sorted({clip.identity for clip in reals}))}
    rows, identities, groups = [], [], []
    for group, clip in enumerate(chain(reals, support)):
        features = np.load(features_path(run, metric.features[-1], clip.folder, clip.item))
        features = features[~np.isnan(features).any(axis=1)]
        if clip.identity not in numbers or not len(features):
            continue
        # A few frames of each clip: pairs within one clip are not compared, and more frames of it say little more.
        features = features[:: max(1, len(features) // 4)][:4]
        rows.append(features)
        identities += [numbers[clip.identity]] * len(features)
        groups += [group] * len(features)
    if not rows:
        return []
    line = calibrate(np.concatenate(rows), np.array(identities), np.array(groups), seed=seed)
    auc = "" if line.auc is None else f"; the two are told apart with AUC {line.auc:.3f}"
    return [
        Measurement(
            metric=metric.name,
            value=mean,
            sd=sd,
            unit=metric.unit,
            higher_is_better=metric.higher_is_better,
            n_frames=count,
            n_identities=len(numbers),
            n_failed=0,
            labels={"generator": "real", "pair": which},
            note=f"{count} pairs of real frames{auc}" if count else f"no two real clips of {which}",
        )
        for which, mean, sd, count in (
            ("same person", line.same_mean, line.same_sd, line.same_pairs),
            ("different people", line.different_mean, line.different_sd, line.different_pairs),
        )
    ]


def _not_computed(metric: Metric, labels: Mapping[str, str], note: str, failed: int = 0) -> Measurement:
    return Measurement(
        metric=metric.name,
        value=None,
        unit=metric.unit,
        higher_is_better=metric.higher_is_better,
        n_frames=0,
        n_identities=0,
        n_failed=failed,
        labels=dict(labels),
        note=note,
    )


def _length_of(run: Path, real: RealClip) -> int:
    """Frames of a real clip, as its features have them; 0 where it could not be read either."""
    for network in sorted((run / "features").glob("*")):
        path = features_path(run, network.name, real.folder, real.item)
        if path.exists():
            return len(np.load(path, mmap_mode="r"))
    return count_frames(real.path)


def _networks_of(metric: Metric) -> tuple[str, ...]:
    if isinstance(metric, FeatureMetric):
        return metric.features
    return (metric.feature,) if isinstance(metric, SetMetric) else ()


def _weight_names(metric: Metric, networks: Mapping[str, FeatureNetwork]) -> list[str]:
    names = list(metric.weights) if isinstance(metric, PixelMetric) else []
    for network in _networks_of(metric):
        names += networks[network].weights
        if networks[network].uses_landmarks:
            names += networks[LANDMARKS].weights
    return names


def _missing_weights(metric: Metric, networks: Mapping[str, FeatureNetwork]) -> str:
    """Why the metric cannot be computed here; empty where it can."""
    try:
        for name in _weight_names(metric, networks):
            if name in weights.TABLE:
                weights.path(name)
        # Only a plug-in's own `load` knows whether its files are there.
        if isinstance(metric, PixelMetric) and _is_foreign("metric", metric.name):
            metric.load(torch.device("cpu"))
        for name in _networks_of(metric):
            if _is_foreign("features", name):
                networks[name].load(torch.device("cpu"))
    except WeightsMissing as error:
        return str(error)
    return ""


def _is_foreign(kind: plugins.Kind, name: str) -> bool:
    return plugins.available(kind)[name].package != "theval"


def _weights_read(metrics: Sequence[Metric], networks: Mapping[str, FeatureNetwork]) -> dict[str, str]:
    names = sorted({name for metric in metrics for name in _weight_names(metric, networks)})
    return {name: weights.TABLE[name].sha256 for name in names if name in weights.TABLE}  # `path` has verified them


def _size_note(own: tuple[int, int], judged: tuple[int, int]) -> str:
    text = f"{own[1]}x{own[0]}"
    return text if own == judged else f"{text}, resized to {judged[1]}x{judged[0]} ({RESIZE})"
