"""Is it the same person? Distances of face embeddings, and the scale on which they are read."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from thead_eval.types import FeatureMetric, Features, FrameValues


def cosine(a: Features, b: Features) -> FrameValues:
    """The cosine of corresponding rows of [T, D], [T]; NaN where either row is NaN."""
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    lengths = np.linalg.norm(a64, axis=1) * np.linalg.norm(b64, axis=1)
    products: FrameValues = (a64 * b64).sum(axis=1) / lengths
    return products


def euclidean(a: Features, b: Features) -> FrameValues:
    """The distance of corresponding rows of [T, D], [T]; NaN where either row is NaN."""
    distance: FrameValues = np.linalg.norm(a.astype(np.float64) - b, axis=1)
    return distance


csim_facenet = FeatureMetric(
    name="csim_facenet",
    higher_is_better=True,
    unit="cosine",
    summary="Cosine of the fake's and the real frame's FaceNet embeddings (InceptionResnetV1, VGGFace2, MTCNN crop)",
    features=("facenet",),
    compare=lambda fake, real: cosine(fake["facenet"], real["facenet"]),
)

csim_mobilefacenet = FeatureMetric(
    name="csim_mobilefacenet",
    higher_is_better=True,
    unit="cosine",
    summary="Cosine of the fake's and the real frame's MobileFaceNet embeddings (ArcFace loss, aligned by five points)",
    features=("mobilefacenet",),
    compare=lambda fake, real: cosine(fake["mobilefacenet"], real["mobilefacenet"]),
)

csim_dlib = FeatureMetric(
    name="csim_dlib",
    higher_is_better=True,
    unit="cosine",
    summary="Cosine of the fake's and the real frame's dlib embeddings; trained for distances, not angles: unrelated "
    "people score about 0.83, so read it beside the calibration line, or read l2_dlib",
    features=("dlib_resnet",),
    compare=lambda fake, real: cosine(fake["dlib_resnet"], real["dlib_resnet"]),
)

l2_dlib = FeatureMetric(
    name="l2_dlib",
    higher_is_better=False,
    unit="",
    summary="Euclidean distance of the fake's and the real frame's dlib embeddings; dlib takes less than 0.6 for the "
    "same person",
    features=("dlib_resnet",),
    compare=lambda fake, real: euclidean(fake["dlib_resnet"], real["dlib_resnet"]),
)


@dataclass(frozen=True)
class Calibration:
    """The cosine between real frames: of one person, and of two. None where there is no such pair."""

    same_mean: float | None
    same_sd: float | None
    same_pairs: int
    different_mean: float | None
    different_sd: float | None
    different_pairs: int
    auc: float | None  # the chance that a pair of one person scores higher than a pair of two


def calibrate(
    features: Features, identities: NDArray[np.int64], groups: NDArray[np.int64], *, seed: int = 0, rows: int = 2000
) -> Calibration:
    """What an embedding's cosine is worth on this set: between frames of one person, and of different people.

    Args:
        features: [N, D]; rows with NaN are left out.
        identities: [N], a number per person.
        groups: [N], a number per clip or part of one; pairs within a group, near copies of each other, are left out.
        seed: of the choice of rows.
        rows: All pairs of this many rows are compared, chosen evenly over the groups of each person.
    """
    from sklearn.metrics import roc_auc_score  # half a second, of every process that judges clips

    table = pd.DataFrame({"identity": identities, "group": groups})[~np.isnan(features).any(axis=1)]
    table = table.sample(frac=1, random_state=seed)
    # One row of every group of every person, then a second of each, and so on.
    turn = table.groupby(["identity", "group"]).cumcount()
    table = table.loc[turn.sort_values(kind="stable").index[:rows]]

    unit = features[table.index].astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    first, second = np.triu_indices(len(table), k=1)
    person, group = table["identity"].to_numpy(), table["group"].to_numpy()
    across = group[first] != group[second]
    first, second = first[across], second[across]
    cosines = (unit @ unit.T)[first, second]
    same = person[first] == person[second]
    both_kinds = same.any() and not same.all()
    return Calibration(
        *_moments(cosines[same]),
        *_moments(cosines[~same]),
        auc=float(roc_auc_score(same, cosines)) if both_kinds else None,
    )


def _moments(values: NDArray[np.float64]) -> tuple[float | None, float | None, int]:
    if not len(values):
        return None, None, 0
    return float(values.mean()), float(values.std()), len(values)
