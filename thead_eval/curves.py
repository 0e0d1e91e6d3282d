"""ROC and reliability of scores as points to draw, which `theval detect eval` writes beside its numbers."""

import json
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from thead_eval.detection import Scores, ask, clip_scores, frame_scores
from thead_eval.errors import RunError
from thead_eval.metrics.detection import balanced, reliability_bins, sweep
from thead_eval.results import write_json

SCHEMA = 1
CURVES = "curves.json"


class Bin(BaseModel):
    """Of all scores whose probability lies in one of the 15 bins of `ece`, reals and fakes weighing alike."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    p: float  # mean probability that was said
    fakes: float  # share of fakes that were found
    count: int


class Curve(BaseModel):
    """What one question's scores look like."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    labels: dict[str, str]  # of the measurements of the same question
    n_real: int
    n_fake: int
    roc: list[tuple[float, float]]  # false and true positive rate, at the corners of the curve
    reliability: list[Bin]


def make_curves(scores: Scores) -> list[Curve]:
    """Of every question about clips as they are; those of single shots, draws and collections are left out."""
    clips = clip_scores(scores)
    made = []
    for question in ask(scores, clips[clips["perturbation"] == ""]):
        if question.labels.keys() & {"shots", "reals", "known_fakes"}:
            continue
        units: dict[Literal["clip", "frame"], pd.DataFrame] = {
            "clip": question.clips,
            "frame": frame_scores(scores, question),
        }
        for unit, rows in units.items():
            known = rows[rows["logit"].notna()]
            fake = (known["label"] == "fake").to_numpy()
            if fake.any() and not fake.all() and known["logit"].nunique() > 1:
                logits, p = known["logit"].to_numpy(dtype=float), known["p"].to_numpy(dtype=float)
                made.append(
                    Curve(
                        labels=question.labels | {"unit": unit},
                        n_real=int((~fake).sum()),
                        n_fake=int(fake.sum()),
                        roc=_roc(fake, logits),
                        reliability=_reliability(fake, p),
                    )
                )
    return made


def _roc(fake: NDArray[np.bool_], logits: NDArray[np.float64]) -> list[tuple[float, float]]:
    """Without the points on a straight line between their neighbours."""
    curve = sweep(fake, logits)
    x, y = curve.false_positive_rate[0], curve.true_positive_rate[0]
    step_x, step_y = np.diff(curve.reals[0]), np.diff(curve.fakes[0])
    corner = np.concatenate([[True], step_x[1:] * step_y[:-1] != step_x[:-1] * step_y[1:], [True]])
    return [(float(a), float(b)) for a, b in zip(x[corner], y[corner], strict=True)]


def _reliability(fake: NDArray[np.bool_], p: NDArray[np.float64]) -> list[Bin]:
    weights = balanced(np.ones((1, len(p))), fake)[0]
    bins = reliability_bins(p)
    found = []
    for number in np.unique(bins):
        own = bins == number
        share = weights[own] / weights[own].sum()
        found.append(Bin(p=float(share @ p[own]), fakes=float(share @ fake[own]), count=int(own.sum())))
    return found


def write_curves(run: Path, curves: list[Curve]) -> None:
    """Write RUN/curves.json."""
    write_json(run / CURVES, {"schema": SCHEMA, "curves": [curve.model_dump(mode="json") for curve in curves]})


def read_curves(run: Path) -> list[Curve]:
    """RUN/curves.json.

    Raises:
        RunError: it is missing, damaged or of another version.
    """
    path = run / CURVES
    try:
        content = json.loads(path.read_text())
        if content["schema"] != SCHEMA:
            raise RunError(f"'{path}' has schema {content['schema']}, this theval reads {SCHEMA}; judge again")
        return [Curve.model_validate(curve) for curve in content["curves"]]
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise RunError(f"'{path}' cannot be read ({' '.join(str(error).split())[:120]}); judge again") from error
