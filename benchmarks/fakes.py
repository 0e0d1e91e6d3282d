"""Fakes of everyone in a dataset, for others to judge or to learn from, beside the real frames that they reproduce.

FAKES/GENERATOR/SHOTS/IDENTITY.mkv   lossless, marked as synthetic in the metadata
FAKES/real/IDENTITY.mkv              the real frames, in the same coding
FAKES/manifest.csv                   a row a file: see thead_eval/manifest.py
FAKES/fakes.json                     the settings, and who or what failed and why
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.shots import ShotsConfig, load_generator, plan_sets, try_to_reproduce
from thead_eval.data import Dataset, FewShotPlan, open_dataset
from thead_eval.errors import ConfigError, RunError
from thead_eval.judging import Progress, run_tasks, worker_pool
from thead_eval.manifest import ManifestRow, add_rows, checkpoint_of, read_manifest, typed_command
from thead_eval.media import write_clip
from thead_eval.results import Failure, write_json
from thead_eval.run import PACKAGES, file_name, package_versions
from thead_eval.types import Clip
from thead_eval.weights import sha256_of

REAL = "real"  # the folder of the real frames
SETTINGS = "fakes.json"
FLUSH_SECONDS = 10.0  # after which what was made is written down: the table is written anew each time


class FakesMade(NamedTuple):
    """What there is now."""

    folder: str
    fakes: int
    kept: int  # of them, from an earlier command
    identities: int
    failures: list[Failure]


@dataclass(frozen=True)
class FakesTask:
    """What is to be made of one identity, so that its frames are read once."""

    out: Path
    config: ShotsConfig
    plan: FewShotPlan
    absent: tuple[tuple[str, int | None], ...]  # generator and shots; ("real", None) is the real clip
    command: str


class IdentityMade(NamedTuple):
    """What a worker did for one identity."""

    rows: list[ManifestRow]
    failures: list[Failure]


def make_fakes(config: ShotsConfig, out: Path, workers: int, progress: Progress) -> FakesMade:
    """Make every fake that is not there yet; `out` is a new folder, or one made with the same settings.

    People, support frames and targets are those of `benchmarks.shots`, so that the same settings judge the same fakes.

    Raises:
        ConfigError: the folder is something else, or was made with other settings.
        DatasetError: no identity has enough frames.
        PluginError: an unknown generator.
        RunError: a worker was killed, or no fake could be made.
    """
    if REAL in config.generators:
        raise ConfigError(f"a generator cannot be called '{REAL}' here, where that is the folder of the real frames")
    dataset = open_dataset(config.data)
    plans, failures = plan_sets(config, dataset)
    settings = _open(out, config, dataset)
    known = {row.file for row in read_manifest(out) if (out / row.file).is_file()}
    conditions = [(generator, shots) for generator in config.generators for shots in config.shots]
    wanted = {file_of(*condition, plan.identity) for condition in conditions for plan in plans}
    kept = len(wanted & known)
    tasks = [
        FakesTask(out, config, plan, absent, typed_command())
        for plan in plans
        if (absent := _absent(plan, config, known))
    ]
    rows: list[ManifestRow] = []
    written = time.monotonic()
    try:
        with worker_pool(workers) as pool:
            for _, made in run_tasks(make_identity, tasks, pool, progress, "generating"):
                rows += made.rows
                failures += made.failures
                if time.monotonic() - written > FLUSH_SECONDS:
                    add_rows(out, rows)
                    rows, written = [], time.monotonic()
    finally:
        add_rows(out, rows)
    failures.sort(key=lambda failure: (failure.item, sorted(failure.labels.items())))
    write_json(out / SETTINGS, settings | {"failures": [failure.model_dump(mode="json") for failure in failures]})
    there = len(wanted & {row.file for row in read_manifest(out)})
    if not there:
        raise RunError(f"no fake could be made; the first: {failures[0].item}: {failures[0].reason}")
    return FakesMade(str(out), there, kept, len(plans), failures)


def make_identity(task: FakesTask) -> IdentityMade:
    """Write the files of one identity that are not there yet."""
    out, config, plan = task.out, task.config, task.plan
    dataset = open_dataset(config.data)
    few_shot_set = plan.read(dataset)
    described = _describe(dataset, plan)
    rows: list[ManifestRow] = []
    failures: list[Failure] = []

    def write(file: str, clip: Clip, **columns: Any) -> None:  # Any: fields of a row
        (out / file).parent.mkdir(parents=True, exist_ok=True)
        write_clip(out / file, clip, lossless=True, synthetic=columns.get("generator"))
        columns |= {"sha256": sha256_of(out / file), "frames": len(clip), "fps": clip.fps, "command": task.command}
        rows.append(ManifestRow(file=file, **described, **columns))

    real = file_of(REAL, None, plan.identity)
    for name, shots in task.absent:
        if shots is None:
            write(real, few_shot_set.target, label="real")
            continue
        fake = try_to_reproduce(name, config.device, few_shot_set.take(shots))
        if isinstance(fake, Failure):
            failures.append(fake)
            continue
        checkpoint = checkpoint_of(load_generator(name, config.device))
        columns = {"label": name, "generator": name, "checkpoint_sha256": checkpoint, "shots": str(shots), "real": real}
        write(file_of(name, shots, plan.identity), fake, **columns)
    return IdentityMade(rows, failures)


def _absent(plan: FewShotPlan, config: ShotsConfig, known: set[str]) -> tuple[tuple[str, int | None], ...]:
    """What is to be made of this identity: (generator, shots), or (real, None)."""
    all_of_it = [(REAL, None), *((generator, shots) for generator in config.generators for shots in config.shots)]
    return tuple(what for what in all_of_it if file_of(*what, plan.identity) not in known)


def file_of(folder: str, shots: int | None, identity: str) -> str:
    """Where a clip lies in the folder."""
    return "/".join([file_name(folder), *([str(shots)] if shots else []), f"{file_name(identity)}.mkv"])


def _describe(dataset: Dataset, plan: FewShotPlan) -> dict[str, Any]:  # Any: fields of a row
    """Who is shown, and from which videos."""
    clips = {row["id"]: row for row in dataset.clips.to_dict("records")}
    support, target = clips[plan.support_clip], clips[plan.target_clip]
    first, last = (int(target["first_frame"]) + plan.target_indices[end] for end in (0, -1))
    return {
        "identity": plan.identity,
        "split": str(target["split"]),
        "sources": str(support["source"]),
        "source_sha256": str(support["source_sha256"]),
        "driver": f"{target['source']} frames {first}-{last}",
        "driver_sha256": str(target["source_sha256"]),
    }


def _open(out: Path, config: ShotsConfig, dataset: Dataset) -> dict[str, Any]:  # Any: JSON
    """A new folder, or one to continue: generators, shots and people may be added, the rest must be as it was."""
    fixed = {
        "dataset": dataset.sha256,
        "split": config.split,
        "min_frames": config.min_frames,
        "cross_clip": config.cross_clip,
        "seed": config.seed,
    }
    checkpoints = {name: checkpoint_of(load_generator(name, config.device)) for name in config.generators}
    path = out / SETTINGS
    try:
        earlier = json.loads(path.read_text())
    except FileNotFoundError:
        if out.exists() and any(out.iterdir()):
            raise ConfigError(
                f"'{out}' is not empty and holds no fakes of this command; name another folder with -o"
            ) from None
        earlier = {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"'{path}' cannot be read ({error}); name another folder with -o") from error
    known = earlier.get("checkpoints", {})
    for name, value in (fixed | {f"checkpoint of {name}": value for name, value in checkpoints.items()}).items():
        before = earlier.get(name, value) if name in fixed else known.get(name.removeprefix("checkpoint of "), value)
        if before != value:
            raise ConfigError(f"'{out}' was made with {name} = {before!r}, not {value!r}; name another folder with -o")
    settings = fixed | {"checkpoints": known | checkpoints, "packages": package_versions(PACKAGES)}
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_json(path, settings)
    except OSError as error:
        raise ConfigError(f"'{out}' cannot be written ({error.strerror}); name another folder with -o") from error
    return settings
