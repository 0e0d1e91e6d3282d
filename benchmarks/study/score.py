"""From answers to the paper's USER: how often people find the fake, of each generator at each number of shots."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.study.answers import Answer
from benchmarks.study.folder import Study, by_condition
from thead_eval.results import USER, Measurement
from thead_eval.statistics import share_interval


@dataclass(frozen=True)
class Attendance:
    """Who took part: each participant with an answer is in one of these lists, by id."""

    judged: tuple[str, ...]  # right in every attention check that they came to
    inattentive: tuple[str, ...]  # wrong in one or more
    unchecked: tuple[str, ...]  # left before the first, so that nobody knows whether they looked


def attendance(study: Study, answers: Sequence[Answer]) -> Attendance:
    """Whose answers count. Where the study has no checks, everybody's."""
    checks = {triplet.id: triplet.fake for triplet in study.triplets if triplet.is_check}
    passed: dict[str, list[bool]] = {}
    for answer in answers:
        own = passed.setdefault(answer.participant, [])
        if answer.triplet in checks:
            own.append(answer.chosen == checks[answer.triplet])
    return Attendance(
        tuple(id for id, own in passed.items() if all(own) and (own or not checks)),
        tuple(id for id, own in passed.items() if not all(own)),
        tuple(id for id, own in passed.items() if checks and not own),
    )


def measure(study: Study, answers: Sequence[Answer]) -> list[Measurement]:
    """A row for each generator and number of shots.

    A row's "identities" are participants, its frames are answers: people are asked about whole videos, and the
    interval says what other participants would have answered.
    """
    took_part = attendance(study, answers)
    everybody = f"{len({answer.participant for answer in answers})} participants"
    notes = []
    if took_part.inattentive:
        notes.append(f"not counted, as they failed an attention check: {len(took_part.inattentive)} of {everybody}")
    if took_part.unchecked:
        notes.append(
            f"not counted, as they left before the first such check: {len(took_part.unchecked)} of {everybody}"
        )
    rows = []
    for triplets in by_condition(study.triplets).values():
        fakes = {triplet.id: triplet.fake for triplet in triplets}
        right: dict[str, list[float]] = {}
        lost = 0
        for answer in answers:
            if answer.triplet in fakes:
                if answer.participant in took_part.judged:
                    right.setdefault(answer.participant, []).append(float(answer.chosen == fakes[answer.triplet]))
                else:
                    lost += 1
        shares = {id: np.array(own) for id, own in right.items()}
        interval = share_interval(shares)
        own_notes = [] if shares else ["nobody whose answers count was asked yet"]
        own_notes += ["no interval: one participant"] if len(shares) == 1 else []
        rows.append(
            Measurement(
                metric=USER,
                **interval._asdict(),
                higher_is_better=False,
                n_frames=sum(map(len, shares.values())),
                n_identities=len(shares),
                n_failed=lost,
                labels=triplets[0].labels,
                per_identity={f"participant {id}": float(own.mean()) for id, own in shares.items()},
                note="; ".join([*own_notes, *notes]),
            )
        )
    return rows
