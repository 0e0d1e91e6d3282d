"""Metrics on 68 landmarks: how far the fake's points lie from the real's, missing faces, jitter.

Points are found by one landmarker on the fake and on the real frame. Two landmarkers disagree on real photographs by
3 % of the inter-ocular distance, so a difference of less than 1 % between two generators says nothing.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from thead_eval.types import FeatureMetric, Features, FrameValues

# Of the 68 points; right and left are the person's, so that the right eye is on the left of the picture.
RIGHT_EYE, LEFT_EYE = slice(36, 42), slice(42, 48)
RIGHT_OUTER_CORNER, LEFT_OUTER_CORNER = 36, 45

# A generic head in arbitrary units, x to the right of the picture, y down, z away from the camera: nose tip, chin,
# outer corners of the eyes, corners of the mouth.
HEAD_POINTS = [30, 8, 36, 45, 48, 54]
HEAD = np.array(
    [[0, 0, 0], [0, 330, 65], [-225, -170, 135], [225, -170, 135], [-150, 150, 125], [150, 150, 125]], dtype=np.float64
)

PROFILE_YAW = 45.0  # degrees, beyond which the eyes are too close in the picture to measure by
# Inter-ocular distances in one sqrt(w * h) of the points' box: the median of 293 frames of 57 people below 20 degrees.
# With it both norms are the same length on average; on one frame at 45 degrees they differ by 15 %.
BOX_TO_INTER_OCULAR = 0.61

AKD_SIDE = 256  # pixels: the frames on which first-order-model's authors measured theirs


class Similarity(NamedTuple):
    """Rotation, scale and shift in the plane, z -> factor * z + shift for points as complex numbers x + iy."""

    factor: NDArray[np.complex128]  # [B]
    shift: NDArray[np.complex128]  # [B]

    def move(self, points: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Points [B, N, 2], moved."""
        moved = self.factor[:, None] * _complex(points) + self.shift[:, None]
        return np.stack([moved.real, moved.imag], axis=-1)


def fit_similarity(source: NDArray[np.floating[Any]], target: NDArray[np.floating[Any]]) -> Similarity:
    """The similarity transforms that bring source [B, N, 2] nearest to target (Umeyama 1991, without reflections).

    In the plane one complex number rotates and scales, so that Umeyama's decomposition becomes a regression.
    """
    a, b = _complex(source), _complex(target)  # [B, N]
    centre_a, centre_b = a.mean(axis=1), b.mean(axis=1)
    a, b = a - centre_a[:, None], b - centre_b[:, None]
    with np.errstate(invalid="ignore"):  # NaN where there was no face
        factor = (a.conj() * b).sum(axis=1) / (a.conj() * a).real.sum(axis=1)
    return Similarity(factor, centre_b - factor * centre_a)


def yaw_degrees(landmarks: NDArray[np.floating[Any]]) -> FrameValues:
    """How far the heads of [B, 68, 2] landmarks are turned, positive to the right of the picture; NaN where NaN.

    Six points fitted by a generic head under weak perspective: good to about 15 degrees.
    """
    points = landmarks[:, HEAD_POINTS].astype(np.float64)
    points = points - points.mean(axis=1, keepdims=True)
    projection = np.linalg.pinv(HEAD - HEAD.mean(axis=0)) @ points  # [B, 3, 2]: head to picture
    axes = projection / np.linalg.norm(projection, axis=1, keepdims=True)
    right, down = axes[..., 0], axes[..., 1]  # [B, 3] the picture's axes in the head's coordinates
    away = np.cross(right, down)
    yaw: FrameValues = np.degrees(np.arctan2(-right[:, 2], away[:, 2]))
    return yaw


def inter_ocular(landmarks: NDArray[np.floating[Any]]) -> FrameValues:
    """The distance of the eyes' outer corners in [B, 68, 2] landmarks."""
    return _length(landmarks[:, RIGHT_OUTER_CORNER].astype(np.float64) - landmarks[:, LEFT_OUTER_CORNER])


def box_norm(landmarks: NDArray[np.floating[Any]]) -> FrameValues:
    """sqrt(w * h) of the box around [B, 68, 2] landmarks."""
    width, height = (landmarks.astype(np.float64).max(axis=1) - landmarks.min(axis=1)).T
    norm: FrameValues = np.sqrt(width * height)
    return norm


def face_norm(landmarks: NDArray[np.floating[Any]]) -> FrameValues:
    """The length to measure errors by: inter-ocular, or beyond PROFILE_YAW the box's, scaled to be like it."""
    profile = np.abs(yaw_degrees(landmarks)) > PROFILE_YAW
    return np.where(profile, BOX_TO_INTER_OCULAR * box_norm(landmarks), inter_ocular(landmarks))


def normalised_mean_error(fake: Features, real: Features) -> FrameValues:
    """The mean distance of corresponding points in units of the real face's norm, [T]."""
    error: FrameValues = _length(fake.astype(np.float64) - real).mean(axis=1) / face_norm(real)
    return error


def average_keypoint_distance(fake: Features, real: Features, size: Features) -> FrameValues:
    """The mean absolute difference of a coordinate, in pixels of a frame whose longer side is 256, [T].

    As the evaluation code of first-order-model computes it (pose-evaluation, cmp.py): x and y count by themselves, so
    that the value is 0.64 of the points' mean Euclidean distance where errors have no preferred direction.
    """
    scale = AKD_SIDE / size.max(axis=1).astype(np.float64)
    difference: FrameValues = np.abs(fake.astype(np.float64) - real).mean(axis=(1, 2)) * scale
    return difference


def missing_face(fake: Features, real: Features) -> FrameValues:
    """1 where only the real frame shows a face, 0 where both do, NaN where the real one does not, [T]."""
    return np.where(_found(real), 1.0 - _found(fake), np.nan)


def jitter(landmarks: Features) -> FrameValues:
    """The mean length of each point's second difference in time, in pixels, [T].

    The frames before and after are first brought onto the middle one by a similarity transform, which takes away the
    motion of the head and leaves that of the face. NaN at both ends and beside a frame without a face.
    """
    values = np.full(len(landmarks), np.nan)
    if len(landmarks) > 2:
        points = landmarks.astype(np.float64)
        before, now, after = points[:-2], points[1:-1], points[2:]
        before, after = fit_similarity(before, now).move(before), fit_similarity(after, now).move(after)
        values[1:-1] = _length(before - 2 * now + after).mean(axis=1)
    return values


def excess_jitter(fake: Features, real: Features) -> FrameValues:
    """The fake's jitter minus the real clip's, in units of the real face's norm, [T]; 0 for identical clips."""
    return (jitter(fake) - jitter(real)) / face_norm(real)


def _nme(network: str, landmarker: str) -> FeatureMetric:
    return FeatureMetric(
        name=f"nme_{network}",
        higher_is_better=False,
        unit="IOD",
        summary=f"Mean distance of 68 points ({landmarker}) over the real face's inter-ocular distance (outer corners, "
        f"36-45); beyond {PROFILE_YAW:.0f} degrees of yaw over {BOX_TO_INTER_OCULAR} sqrt(w h) of its points' box",
        features=(network,),
        compare=lambda fake, real: normalised_mean_error(fake[network], real[network]),
    )


nme_dlib68 = _nme("dlib68", "dlib")
nme_fan68 = _nme("fan68", "2D-FAN-4")


def _compare_akd(fake: Mapping[str, Features], real: Mapping[str, Features]) -> FrameValues:
    return average_keypoint_distance(fake["dlib68"], real["dlib68"], real["frame_size"])


akd_dlib68 = FeatureMetric(
    name="akd_dlib68",
    higher_is_better=False,
    unit="px at 256",
    summary="Mean absolute difference of a coordinate of 68 points (dlib), in pixels of a frame scaled to 256 on its "
    "longer side: the average keypoint distance as first-order-model's evaluation code computes it (there with FAN)",
    features=("dlib68", "frame_size"),
    compare=_compare_akd,
)

missing_face_dlib68 = FeatureMetric(
    name="missing_face_dlib68",
    higher_is_better=False,
    unit="",
    summary="Share of the frames with a real face in whose fake dlib's detector finds none",
    features=("dlib68",),
    compare=lambda fake, real: missing_face(fake["dlib68"], real["dlib68"]),
)

jitter_dlib68 = FeatureMetric(
    name="jitter_dlib68",
    higher_is_better=None,
    unit="IOD",
    summary="Mean second difference in time of 68 points (dlib), neighbours brought onto each frame by a similarity "
    "transform, over the norm of nme_dlib68, minus the same of the real clip: 0 is as steady as that, below 0 "
    "smoother; frames must be consecutive",
    features=("dlib68",),
    compare=lambda fake, real: excess_jitter(fake["dlib68"], real["dlib68"]),
    undefined_ends=1,
)


def _found(landmarks: Features) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = ~np.isnan(landmarks.sum(axis=(1, 2)))
    return found


def _complex(points: NDArray[np.floating[Any]]) -> NDArray[np.complex128]:
    return points[..., 0].astype(np.float64) + 1j * points[..., 1]


def _length(vectors: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    length: NDArray[np.float64] = np.linalg.norm(vectors.astype(np.float64), axis=-1)
    return length
