"""The examiner of few-shot fakes: a detector asked what people are asked, which of three pictures of a person is fake.

Zakharov et al. 2019, section 4: two real frames and one fake, of the same person. Who cannot tell is right in a third
of the cases. People are asked by 'theval study'.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from thead_eval.detection import score_clip
from thead_eval.errors import MediaError
from thead_eval.evidence import alike
from thead_eval.judging import Pair, PairSet, Progress
from thead_eval.media import read_clip
from thead_eval.results import USER, Failure, Measurement
from thead_eval.statistics import identity_means, mean_interval
from thead_eval.types import Clip, Detector, Remembering

METRIC = "spot_rate"  # what detectors answer
SUMMARIES = {
    METRIC: (
        "how often a detector gives a fake frame a higher score than two real frames of the same person, over all "
        "pairs of real frames, ties shared; 1/3 is chance; real and fake go through the smaller size and one JPEG"
    ),
    USER: (
        "how often people find the fake among two real videos of the same person, in 'theval study'; 1/3 is chance; "
        "the mean over participants of each one's share, without those who failed an attention check; its people are "
        "participants, its frames are answers; real and fake go through the smaller size and one H.264"
    ),
}


def spot(detector: Detector, what: PairSet, seed: int, progress: Progress) -> tuple[list[Measurement], list[Failure]]:
    """The share of triplets in which the detector finds the fake, a row a condition; and clips that it failed on.

    People from whom it has learnt are left out, as they are when it is judged otherwise.

    Args:
        detector: Is asked about each frame.
        what: The fakes beside their real clips.
        seed: Of the interval.
        progress: Told after each fake.
    """
    rates: dict[str, dict[str, list[NDArray[np.float64]]]] = {}
    labels: dict[str, Mapping[str, str]] = {}
    failures = []
    lost: dict[str, int] = {}
    learnt: dict[str, set[str]] = {}
    for done, pair in enumerate(what.pairs):
        progress("examining", done, len(what.pairs))
        labels[pair.folder] = pair.labels
        asked = rates.setdefault(pair.folder, {})
        if isinstance(detector, Remembering) and detector.knows(pair.identity):
            learnt.setdefault(pair.folder, set()).add(pair.identity)
            continue
        own = asked.setdefault(pair.identity, [])
        told = _spot_pair(detector, pair)
        if isinstance(told, Failure):
            failures.append(told)
            lost[pair.folder] = lost.get(pair.folder, 0) + 1
        else:
            own.append(told)
    progress("examining", len(what.pairs), len(what.pairs))
    row = partial(_row, detector.name, seed)
    rows = [
        row(labels[folder], people, lost.get(folder, 0), len(learnt.get(folder, ())))
        for folder, people in rates.items()
    ]
    return rows, failures


def _spot_pair(detector: Detector, pair: Pair) -> NDArray[np.float64] | Failure:
    """[T] of each frame of the fake the share of triplets in which it is found; NaN where it could not be scored."""
    try:
        fake, real = read_clip(pair.fake), read_clip(pair.real.path)
    except MediaError as error:
        return Failure(item=pair.item, labels=dict(pair.labels), reason=str(error))
    size = min(*fake.size, *real.size)
    scores = []
    for clip in (fake, real):
        if clip.size[0] != clip.size[1]:
            reason = f"'{clip.id}' is {clip.size[1]} x {clip.size[0]}, and detectors are asked about square head crops"
            return Failure(item=pair.item, labels=dict(pair.labels), reason=reason)
        said = score_clip(detector, Clip(clip.id, alike(clip.frames, size), clip.fps))
        if said.outcome != "scored":
            reason = f"'{detector.name}' {said.reason}"
            return Failure(item=pair.item, labels=dict(pair.labels), reason=reason)
        scores.append(said.logits)
    return found_among(scores[0], scores[1])


def found_among(fake: NDArray[np.floating], real: NDArray[np.floating]) -> NDArray[np.float64]:
    """[T] the share of all pairs of real frames beside which each fake frame scores highest; ties are shared.

    NaN of a frame without a score, and of all where there are fewer than two real frames with one.
    """
    real = real[~np.isnan(real)]
    below = (real < fake[:, None]).sum(axis=1)  # [T]
    equal = (real == fake[:, None]).sum(axis=1)
    pairs = len(real) * (len(real) - 1) / 2
    if not pairs:
        return np.full(len(fake), np.nan)
    share = (below * (below - 1) / 2 + below * equal / 2 + equal * (equal - 1) / 6) / pairs
    return np.where(np.isnan(fake), np.nan, share)


def _row(
    name: str,
    seed: int,
    labels: Mapping[str, str],
    people: Mapping[str, Sequence[NDArray[np.float64]]],
    lost: int,
    learnt: int,
) -> Measurement:
    frames = {identity: np.concatenate([np.empty(0), *rates]) for identity, rates in people.items()}
    interval = mean_interval(frames, seed)
    means = identity_means(frames)
    notes = [f"by '{name}', 1/3 is chance"] if interval.value is not None else [f"'{name}' scored no frame"]
    if lost:
        notes.append(f"{lost} fakes could not be judged by it")
    if learnt:
        many = f"{learnt} people from whom it has learnt are" if learnt > 1 else "1 person from whom it has learnt is"
        notes.append(f"{many} left out")
    return Measurement(
        metric=METRIC,
        **interval._asdict(),
        higher_is_better=False,
        n_frames=int(sum((~np.isnan(rates)).sum() for rates in frames.values())),
        n_identities=len(means),
        n_failed=int(sum(np.isnan(rates).sum() for rates in frames.values())) + lost,
        labels=dict(labels),
        per_identity={identity: means.get(identity) for identity in frames},
        note="; ".join(notes),
    )
