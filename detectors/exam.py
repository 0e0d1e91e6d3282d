"""What chooses among the states of a training: the clips of validation people, and the numbers made of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detectors.calibration import Calibration, calibrate, operating_points, platt
from detectors.samples import Footage, Sample, read_pictures
from thead_eval.errors import DatasetError
from thead_eval.evidence import Evidence, Item, judged_items
from thead_eval.metrics.detection import auc
from thead_eval.verdicts import OperatingPoint

BLENDED = "blended"  # the generator's name where real frames were blended with themselves
BATCH = 32

Learn = Callable[[Tensor], Tensor]  # windows uint8 [B, W, 3, S, S] to logits [B]


@dataclass(frozen=True)
class Clips:
    """Validation clips, and which of them each window is of."""

    owner: NDArray[np.int64]  # [N] of each window its clip
    fake: NDArray[np.bool_]  # [V] of each clip
    generators: tuple[str, ...]  # [V] '' of a real clip
    identities: tuple[str, ...]  # [V]

    @property
    def people(self) -> tuple[int, int]:
        """How many are there, real and fake."""
        names = np.array(self.identities)
        return len(np.unique(names[~self.fake])), len(np.unique(names[self.fake]))


@dataclass(frozen=True)
class Exam(Clips):
    """And the windows themselves."""

    footage: Footage
    samples: tuple[Sample, ...]


def warn_of_blends(clips: Clips, blends: bool, say: Callable[[str], None]) -> None:
    """Where blends were asked for, and nothing could be blended."""
    if blends and BLENDED not in clips.generators:
        say(
            "no real clip of validation people has landmarks, so none is blended: the fakes of known generators alone "
            "choose and calibrate; name a prepared dataset with --data"
        )


class Result(NamedTuple):
    """What a network came to."""

    logits: NDArray[np.float64]  # [V] the mean of each clip's windows; NaN where none could be scored
    values: dict[str, float]
    score: float  # what chooses: the mean log-loss over generators, after Platt scaling; the lower the better


def examined(evidence: Evidence, *, blends: bool) -> Evidence:
    """What has to be read for an exam on these people."""
    return evidence if blends else evidence.judged()


def prepare_exam(footage: Footage, *, blends: bool, seed: int) -> Exam:
    """The clips of validation people; with `blends`, their real ones also blended with themselves.

    These stand for the generators that nobody has fakes of: what is chosen and calibrated knows that there are such.
    A blend needs landmarks, so whole clips of a dataset are blended where only a part of each is asked about as it is.

    Raises:
        DatasetError: there are no real clips, or no fakes.
    """
    asked = is_asked(footage.items)
    samples = [Sample(row, bool(footage.fake[row]), None) for row in np.flatnonzero(asked[footage.owner]).tolist()]
    if blends:
        faces = np.concatenate([np.empty(0, np.int64), *footage.faces_of.values()])
        samples += [Sample(row, True, seed + row) for row in faces.tolist()]
    rows = np.array([sample.row for sample in samples], np.int64)
    clips = list_clips(footage.items, footage.owner[rows], np.array([s.blend is not None for s in samples], np.bool_))
    return Exam(**vars(clips), footage=footage, samples=tuple(samples))


def is_asked(items: Sequence[Item]) -> NDArray[np.bool_]:
    """[V] which of these clips an exam asks about as they are; the others are there to be blended."""
    asked = {item.id for item in judged_items(items)}
    return np.array([item.id in asked for item in items], np.bool_)


def list_clips(items: Sequence[Item], place: NDArray[np.int64], blended: NDArray[np.bool_]) -> Clips:
    """The clips of windows [N], each of the item at its `place`, as it is or blended with itself.

    Raises:
        DatasetError: there are no real clips, or no fakes.
    """
    clips = [(item.label == "fake", item.generator, item.identity) for item in items]
    clips += [(True, BLENDED, item.identity) for item in items]
    there, owner = np.unique(place + len(items) * blended, return_inverse=True)
    fake = np.array([clips[n][0] for n in there], np.bool_)
    if fake.all() or not fake.any():
        cure = "real clips of validation people with --data"
        if not fake.any():
            cure = "fakes of validation people with --fakes"
        raise DatasetError(
            f"the split 'val' holds {(~fake).sum()} real clips and {fake.sum()} fakes; validation needs both: name "
            f"{cure}"
        )
    return Clips(owner, fake, tuple(clips[n][1] for n in there), tuple(clips[n][2] for n in there))


@torch.no_grad()
def sit(exam: Exam, learn: Learn, size: int, device: torch.device) -> Result:
    """All windows by a network, clip by clip."""
    logits = []
    for first in range(0, len(exam.samples), BATCH):
        windows = read_pictures(exam.footage, exam.samples[first : first + BATCH], size)
        logits.append(learn(windows.to(device)).float().cpu())
    return mark(exam, torch.cat(logits).double().numpy())


def mark(clips: Clips, logits: NDArray[np.float64]) -> Result:
    """The numbers made of a logit a window [N].

    Raises:
        DatasetError: of the real clips or of the fakes none could be scored.
    """
    known = np.isfinite(logits)
    asked = len(clips.fake)
    count = np.bincount(clips.owner[known], minlength=asked)
    sums = np.bincount(clips.owner[known], logits[known], minlength=asked)
    means = np.divide(sums, count, out=np.full(asked, np.nan), where=count > 0)
    scored = count > 0
    fake, names, makers = clips.fake[scored], np.array(clips.identities)[scored], np.array(clips.generators)[scored]
    if fake.all() or not fake.any():
        raise DatasetError(f"of {asked} validation clips, {scored.sum()} could be scored, none real or none fake")
    a, b = platt(means[scored], fake, np.ones(len(fake)), names)
    line = a * means[scored] + b
    losses = np.logaddexp(0, np.where(fake, -line, line))  # -log p of what the clip is
    values: dict[str, float] = {"auc": float(auc(fake, means[scored])[0])}
    of_generator = []
    for generator in np.unique(makers[fake]):
        own = makers == generator
        values[f"auc/{generator}"] = float(auc(fake[own | ~fake], means[scored][own | ~fake])[0])
        of_generator.append((losses[own].mean() + losses[~fake].mean()) / 2)
    values["failed"] = float(asked - scored.sum())
    within = np.square(logits[known] - means[clips.owner[known]]).sum() / max(known.sum() - scored.sum(), 1)
    values["window_deviation"] = float(np.sqrt(within))  # of a window from its clip: how much one alone can be off
    return Result(means, values, float(np.mean(of_generator)))


class Verdicts(NamedTuple):
    """How a network's logits are to be read."""

    calibration: Calibration
    points: tuple[OperatingPoint, ...]


def set_verdicts(clips: Clips, logits: NDArray[np.float64], seed: int) -> Verdicts:
    """Calibration and operating points by the clips that could be scored."""
    scored = np.isfinite(logits)
    fake, names = clips.fake[scored], np.array(clips.identities)[scored]
    return Verdicts(calibrate(logits[scored], fake, list(names), seed), operating_points(logits[scored], fake))
