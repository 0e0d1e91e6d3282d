"""Fakes that others made, paired with the real clips that they reproduce: by name, or by a CSV."""

import hashlib
from pathlib import Path

import pandas as pd

from thead_eval.errors import ConfigError, RunError
from thead_eval.judging import NeverMade, Pair, PairSet, RealClip, count_frames
from thead_eval.results import Failure
from thead_eval.sources import VIDEO_SUFFIXES
from thead_eval.weights import sha256_of


def pair_by_name(fakes: Path, reals: Path) -> PairSet:
    """Pair FAKES/[GENERATOR/[SHOTS/]]NAME.* with REALS/NAME.*; NAME counts as the identity.

    Fakes without a folder of their own are labelled with the name of `fakes`. A fake without a real clip is a failure;
    a real clip without a fake counts as never made, in every condition that lacks it.

    Raises:
        ConfigError: a folder is missing, two clips of one place share a name, or nothing pairs.
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
        if path.is_relative_to(reals):  # as 'theval generate --data' lays them out
            continue
        folders = path.relative_to(fakes).parent.parts
        generator = folders[0] if folders else fakes.name
        shots = folders[1] if len(folders) > 1 and folders[1].isdecimal() else None
        if path.stem not in real_files:
            labels = {"generator": generator}
            failures.append(Failure(item=path.stem, labels=labels, reason=f"no clip of this name in '{reals}'"))
            continue
        pairs.append(_pair(path, real_files[path.stem], path.stem, generator, shots))
    never_made = []
    for folder, condition in {pair.folder: pair.labels for pair in pairs}.items():
        made = {pair.identity for pair in pairs if pair.folder == folder}
        for name in sorted(real_files.keys() - made):
            failure = Failure(item=name, labels=dict(condition), reason="no fake of this name")
            never_made.append(NeverMade(folder, count_frames(real_files[name]), failure))
    named = {path: name for name, path in real_files.items()}
    return _pair_set(pairs, never_made, failures, named, {"fakes": str(fakes), "reals": str(reals)})


def pair_by_table(table: Path, fakes: Path, reals: Path) -> PairSet:
    """Pair by a CSV with columns fake and real (paths in the two folders) and, if known, identity, generator, shots.

    Raises:
        ConfigError: the CSV cannot be read, lacks a column, has a wrong value, or nothing pairs.
    """
    fakes, reals = fakes.resolve(), reals.resolve()
    try:
        rows = pd.read_csv(table, dtype=str, keep_default_na=False)
    except (OSError, pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"--pairs '{table}' cannot be read ({error}); it must be a CSV with columns fake,real"
        ) from error
    lacking = {"fake", "real"} - set(rows.columns)
    if lacking:
        raise ConfigError(f"--pairs '{table}' has no column '{sorted(lacking)[0]}'; it needs fake,real")
    pairs, never_made, failures = [], [], []
    found: dict[Path, str] = {}
    for line, row in enumerate(rows.to_dict("records"), 2):
        fake, real = fakes / row["fake"], reals / row["real"]
        shots = row.get("shots") or None
        if shots and not shots.isdecimal():
            raise ConfigError(f"--pairs '{table}', line {line}: shots must be a whole number, not '{shots}'")
        pair = _pair(fake, real, row.get("identity") or real.stem, row.get("generator") or fakes.name, shots)
        absent = next((path for path in (real, fake) if not path.is_file()), None)
        if absent != real:
            found[real] = pair.identity
        if absent is None:
            pairs.append(pair)
            continue
        failure = Failure(item=row["fake"], labels=dict(pair.labels), reason=f"'{absent}' is missing")
        if absent == fake:
            never_made.append(NeverMade(pair.folder, count_frames(real), failure))
        else:
            failures.append(failure)
    described = {"fakes": str(fakes), "reals": str(reals), "pairs": str(table)}
    return _pair_set(pairs, never_made, failures, found, described)


def fingerprint(pairs: PairSet) -> str:
    """Changes when a clip does, so that what is known of a clip is not taken for what is known of its successor.

    Raises:
        RunError: a clip is gone.
    """
    states = []
    for path in sorted({path for pair in pairs.pairs for path in (pair.fake, pair.real.path)}):
        try:
            state = path.stat()
        except OSError as error:
            raise RunError(f"'{path}' is gone ({error.strerror}); put it back, or score into another --out") from error
        states.append(f"{path} {state.st_size} {state.st_mtime_ns}")
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


def _pair_set(
    pairs: list[Pair],
    never_made: list[NeverMade],
    failures: list[Failure],
    reals: dict[Path, str],  # real clips and who they show, also where a fake is missing
    described: dict[str, str],
) -> PairSet:
    if not pairs:
        first = next(iter([*failures, *(absent.failure for absent in never_made)]), None)
        hint = f"; the first: {first.item}: {first.reason}" if first else ""
        raise ConfigError(
            f"no fake has a real clip to be judged against{hint}; give partners one name, or pass --pairs CSV"
        )
    places: dict[tuple[str, str], Path] = {}
    for pair in pairs:
        for place, path in (((pair.folder, pair.item), pair.fake), (("real", pair.real.item), pair.real.path)):
            if places.setdefault(place, path) != path:
                raise ConfigError(f"'{path}' and '{places[place]}' differ only in their suffix; rename one of them")
    contents = sorted((identity, path.name, sha256_of(path)) for path, identity in reals.items())
    described |= {"reals_sha256": hashlib.sha256(repr(contents).encode()).hexdigest()}  # wherever they lie
    return PairSet(pairs, [], never_made, failures, described)


def _videos(folder: Path, option: str) -> list[Path]:
    if not folder.is_dir():
        raise ConfigError(f"{option} '{folder}' is not a folder")
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file())
