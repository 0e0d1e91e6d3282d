"""Fakes that others made, paired with the real clips that they reproduce: by name, or by a CSV."""

import hashlib
from pathlib import Path

import pandas as pd

from thead_eval.errors import ConfigError
from thead_eval.judging import Pair, PairSet, RealClip
from thead_eval.results import Failure

VIDEO_SUFFIXES = {".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v"}


def pair_by_name(fakes: Path, reals: Path) -> PairSet:
    """Pair FAKES/[GENERATOR/[SHOTS/]]NAME.* with REALS/NAME.*; NAME counts as the identity.

    Fakes without a folder of their own are labelled with the name of `fakes`. What has no partner is a failure.

    Raises:
        ConfigError: a folder is missing, two real clips share a name, or nothing pairs.
    """
    fakes, reals = fakes.resolve(), reals.resolve()  # a run is judged again, and reported, from other folders
    real_files: dict[str, Path] = {}
    for path in _videos(reals, "--reals"):
        if path.stem in real_files:
            raise ConfigError(
                f"'{path}' and '{real_files[path.stem]}' share a name, so nothing can be paired by it; pass --pairs CSV"
            )
        real_files[path.stem] = path
    pairs, failures = [], []
    for path in _videos(fakes, "--fakes"):
        folders = path.relative_to(fakes).parent.parts
        generator = folders[0] if folders else fakes.name
        shots = folders[1] if len(folders) > 1 and folders[1].isdigit() else None
        if path.stem not in real_files:
            labels = {"generator": generator}
            failures.append(Failure(item=path.stem, labels=labels, reason=f"no clip of this name in '{reals}'"))
            continue
        pairs.append(_pair(path, real_files[path.stem], path.stem, generator, shots))
    return _pair_set(pairs, failures, real_files, {"fakes": str(fakes), "reals": str(reals)})


def pair_by_table(table: Path, fakes: Path, reals: Path) -> PairSet:
    """Pair by a CSV with columns fake and real (paths in the two folders) and, if known, identity, generator, shots.

    Raises:
        ConfigError: the CSV cannot be read, lacks a column, or has no row.
    """
    try:
        rows = pd.read_csv(table, dtype=str, keep_default_na=False)
    except (OSError, pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"--pairs '{table}' cannot be read ({error}); it must be a CSV with columns fake,real"
        ) from error
    lacking = {"fake", "real"} - set(rows.columns)
    if lacking:
        raise ConfigError(f"--pairs '{table}' has no column '{sorted(lacking)[0]}'; it needs fake,real")
    fakes, reals = fakes.resolve(), reals.resolve()
    pairs, failures, real_files = [], [], {}
    for row in rows.to_dict("records"):
        fake, real = fakes / row["fake"], reals / row["real"]
        generator = row.get("generator") or fakes.name
        absent = next((path for path in (fake, real) if not path.is_file()), None)
        if absent is not None:
            failures.append(Failure(item=row["fake"], labels={"generator": generator}, reason=f"'{absent}' is missing"))
            continue
        real_files[str(real)] = real
        pairs.append(
            _pair(fake, real, row.get("identity") or Path(row["real"]).stem, generator, row.get("shots") or None)
        )
    described = {"fakes": str(fakes), "reals": str(reals), "pairs": str(table)}
    return _pair_set(pairs, failures, real_files, described)


def fingerprint(pairs: PairSet) -> str:
    """Changes when a clip does, so that what is known of a clip is not taken for what is known of its successor."""
    paths = sorted({path for pair in pairs.pairs for path in (pair.fake, pair.real.path)})
    states = [f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in paths]
    return hashlib.sha256("\n".join(states).encode()).hexdigest()


def _pair(fake: Path, real: Path, identity: str, generator: str, shots: str | None) -> Pair:
    labels = {"generator": generator} | ({"shots": shots} if shots else {})
    # The whole path, as two folders may hold clips of one name.
    return Pair(
        "-".join(labels.values()),
        labels,
        str(fake.with_suffix("")),
        identity,
        fake,
        RealClip("real", str(real.with_suffix("")), identity, real),
    )


def _pair_set(pairs: list[Pair], failures: list[Failure], reals: dict[str, Path], described: dict[str, str]) -> PairSet:
    if not pairs:
        first = failures[0] if failures else None
        hint = f"; the first: {first.item}: {first.reason}" if first else ""
        raise ConfigError(
            f"no fake has a real clip to be judged against{hint}; give partners one name, or pass --pairs CSV"
        )
    return PairSet(pairs, [], [], failures, described)


def _videos(folder: Path, option: str) -> list[Path]:
    if not folder.is_dir():
        raise ConfigError(f"{option} '{folder}' is not a folder")
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file())
