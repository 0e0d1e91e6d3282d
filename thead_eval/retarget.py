"""One person's motion on another's face: landmarks that keep the source's shape and take the driver's movement."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from thead_eval.errors import NoFaceFound
from thead_eval.types import NUM_POINTS, Landmarks

Motion = Literal["all", "expression", "head"]

STABLE = [*range(27, 36), 36, 39, 42, 45]  # nose and corners of the eyes: they move with the skull alone
LIDS = ([37, 38, 43, 44], [41, 40, 47, 46])  # upper, lower
LIPS = ([61, 62, 63], [67, 66, 65])  # their inner edges

# How far each point lies towards the viewer, in distances of the outer eye corners: the mean of 200 procedural heads
# (`synthetic.make_head(n).points[:, 2]`).
DEPTHS = [-0.72, -0.51, -0.38, -0.26, -0.14, -0.02, 0.08, 0.16, 0.2]  # the oval from the left to the chin
DEPTHS += DEPTHS[-2::-1]
DEPTHS += [-0.05, 0.06, 0.13, 0.17, 0.19, 0.19, 0.17, 0.13, 0.06, -0.05]  # brows
DEPTHS += [0.16, 0.23, 0.31, 0.37, 0.19, 0.25, 0.28, 0.25, 0.19]  # nose
DEPTHS += [0.0, 0.07, 0.09, 0.06, 0.08, 0.06, 0.06, 0.09, 0.07, 0.0, 0.06, 0.08]  # eyes
DEPTHS += [0.1, 0.18, 0.23, 0.24, 0.23, 0.18, 0.1, 0.16, 0.21, 0.23, 0.21, 0.16]  # lips, outer edge
DEPTHS += [0.11, 0.2, 0.21, 0.2, 0.11, 0.2, 0.21, 0.2]  # inner edge
# By how much each point of the oval shows expression. Its sides are where the head ends as it is seen, so that they
# slide over the skin as it turns; all other points show it fully.
OVAL = [0.0, 0.0, 0.0, 0.0, 0.33, 0.67, 1.0, 1.0, 1.0, 1.0, 1.0, 0.67, 0.33, 0.0, 0.0, 0.0, 0.0]


def relative_motion(
    driving: Landmarks, source_points: Tensor, neutral: int | None = None, motion: Motion = "all"
) -> Landmarks:
    """The driver's movement since its neutral frame, applied to the source's points [68, 2], in the source's pixels.

    Both neutral faces are brought together by a similarity, so where the driver's camera stood, how near and how
    tilted, has no effect (Procrustes on all points: a ratio of eye distances would change with the yaw of either).
    Then each frame moves the source's points as a whole by the driver's head motion in the picture's plane, a
    similarity of its nose and eyes, and adds point by point what is left: turns of the head out of that plane, and
    expression. Eyes close as far as the driver's do, in parts of their own opening, and lips do not pass through
    each other. At the neutral frame the result is `source_points`.

    Args:
        driving: Rows without a face stay so.
        source_points: A face at rest, best seen from the front.
        neutral: The driver's frame at rest; None looks for it, see `find_neutral`.
        motion: Of expression and head only one, or both.

    Raises:
        NoFaceFound: no driving row, the neutral one, or the source has no landmarks.
        ValueError: source_points are not [68, 2].
    """
    if source_points.shape != (NUM_POINTS, 2):
        raise ValueError(f"source points must be [68, 2], not {list(source_points.shape)}")
    if not source_points.isfinite().all():
        raise NoFaceFound("the source picture has no landmarks; choose a picture with one clear face")
    index = find_neutral(driving) if neutral is None else neutral
    if not driving.found[index]:
        raise NoFaceFound(f"driving frame {index} has no landmarks, so it cannot be the neutral one; choose another")

    source = _complex(source_points)[None]  # [1, 68]
    moving = _complex(driving.points)  # [T, 68]
    moving = _fit(moving[index : index + 1], source).apply(moving)  # in the source's pixels
    rest = moving[index : index + 1]
    head = _fit(rest[:, STABLE], moving[:, STABLE])
    beyond = moving - head.apply(rest)  # [T, 68] what no similarity explains: turns of the head, and expression
    expression = torch.tensor(OVAL + [1.0] * 51) * (moving - _turn_head(rest, moving))
    if motion == "all":
        result = head.apply(source) + beyond
    elif motion == "head":
        result = head.apply(source) + beyond - expression
    else:
        result = source + expression / head.turn
    if motion != "head":
        tilt = head.turn if motion == "all" else torch.ones_like(head.turn)
        _close_eyes(result, source, moving / head.turn, rest, tilt)
        _part_lips(result, source, tilt)
    points = torch.view_as_real(result).float()
    return Landmarks(points.where(driving.found[:, None, None], torch.nan), driving.found)


def absolute_motion(driving: Landmarks, support: Landmarks) -> Landmarks:
    """The driver's poses as they are, in the support frames' pixels; for a driver who is the same person.

    Where the driver's camera stood shows in the frame that is most like a support frame: one scale and one shift bring
    the two together, and all other frames with them. Tilts stay, as they are the head's and not the camera's.

    Raises:
        NoFaceFound: no driving row, or no support frame, has landmarks.
    """
    for landmarks, what in ((driving, "driving"), (support, "support")):
        if not landmarks.found.any():
            raise NoFaceFound(f"none of {len(landmarks)} {what} frames has landmarks; choose others")
    target = support.points[support.found].double()  # [K, 68, 2]
    centre = target.mean(1, keepdim=True)
    size = (target - centre).square().sum((1, 2)).sqrt()  # [K]
    own = driving.points.double()  # [T, 68, 2]
    own_centre = own.mean(1, keepdim=True)
    own_size = (own - own_centre).square().sum((1, 2)).sqrt()  # [T]
    shapes = ((target - centre) / size[:, None, None]).flatten(1)  # [K, 136]
    own_shapes = ((own - own_centre) / own_size[:, None, None]).flatten(1)  # [T, 136]
    differences = torch.cdist(own_shapes, shapes).where(driving.found[:, None], torch.inf)  # [T, K]
    row, k = divmod(int(differences.argmin()), len(target))
    points = centre[k] + (own - own_centre[row]) * (size[k] / own_size[row])
    return Landmarks(points.float(), driving.found)


def _turn_head(rest: Tensor, moving: Tensor) -> Tensor:
    """The resting face [1, 68] as a rigid body in each frame's pose [T, 68]: turned, scaled and shifted, no more.

    A scaled orthographic camera through the stable points, whose depths are a mean head's.
    """
    flat = torch.view_as_real(rest)[0]  # [68, 2]
    size = (flat[36] - flat[45]).norm()
    body = torch.cat([flat, size * torch.tensor(DEPTHS)[:, None]], 1)  # [68, 3]
    centre = body[STABLE].mean(0)
    target = torch.view_as_real(moving)[:, STABLE]  # [T, 13, 2]
    middle = target.nan_to_num().mean(1, keepdim=True)
    spread = (body[STABLE] - centre).expand(len(target), -1, -1)
    camera = torch.linalg.lstsq(spread, target.nan_to_num() - middle).solution.mT  # [T, 2, 3]
    u, s, v = torch.linalg.svd(camera, full_matrices=False)
    camera = s.mean(-1)[:, None, None] * (u @ v)  # the nearest with rows of one length at a right angle
    return _complex((body - centre) @ camera.mT + middle)


def _close_eyes(result: Tensor, source: Tensor, moving: Tensor, rest: Tensor, tilt: Tensor) -> None:
    """Put the upper lids where the source's eyes are open by the same part as the driver's; `result` changes.

    Added point by point, a blink of wide eyes would turn narrow ones inside out.
    """
    upper, lower = LIDS
    part = (moving[:, upper] - moving[:, lower]) / (rest[:, upper] - rest[:, lower])  # [T, 4]
    result[:, upper] = result[:, lower] + tilt * part * (source[:, upper] - source[:, lower])


def _part_lips(result: Tensor, source: Tensor, tilt: Tensor) -> None:
    """Bring inner lips that have passed through each other back to where they met; `result` changes."""
    upper, lower = LIPS
    down = tilt * (source[:, 8:9] - source[:, 27:28])  # [T, 1] from the nose's root to the chin
    down = down / down.abs()
    overlap = (-((result[:, lower] - result[:, upper]) * down.conj()).real).clamp_min(0)  # [T, 3]
    result[:, upper] -= overlap / 2 * down
    result[:, lower] += overlap / 2 * down


def find_neutral(driving: Landmarks) -> int:
    """The frame where the mouth is most closed, the eyes are most open and the face looks most to the front.

    The three count as fractions: of the eyes' distance, of the eyes' usual opening, of the face's half width.

    Raises:
        NoFaceFound: no row has landmarks.
    """
    if not driving.found.any():
        raise NoFaceFound(f"none of {len(driving)} driving frames has landmarks; check the driving video")
    p = driving.points.double()  # [T, 68, 2]

    def distance(a: int, b: int) -> Tensor:
        return (p[:, a] - p[:, b]).square().sum(-1).sqrt()  # [T]

    eyes = distance(36, 45)
    mouth = (distance(61, 67) + distance(62, 66) + distance(63, 65)) / (3 * eyes)
    opening = (distance(37, 41) + distance(38, 40) + distance(43, 47) + distance(44, 46)) / (4 * eyes)
    closed = (1 - opening / opening[driving.found].median().clamp_min(1e-6)).clamp_min(0)
    left, right = distance(30, 2), distance(30, 14)
    turned = (left - right).abs() / (left + right)
    return int((mouth + closed + turned).where(driving.found, torch.inf).argmin())


class _Similarity(NamedTuple):
    """Scale, rotation and shift of the picture's plane, in complex numbers: z -> turn * z + shift."""

    turn: Tensor  # [T, 1]
    shift: Tensor  # [T, 1]

    def apply(self, points: Tensor) -> Tensor:
        return self.turn * points + self.shift


def _fit(points: Tensor, target: Tensor) -> _Similarity:
    """The similarity that brings points [T or 1, N] nearest to the target [T or 1, N] in least squares."""
    centre, target_centre = points.mean(1, keepdim=True), target.mean(1, keepdim=True)
    spread = points - centre
    turn = (spread.conj() * (target - target_centre)).sum(1, keepdim=True)
    turn = turn / spread.abs().square().sum(1, keepdim=True).clamp_min(1e-12)
    return _Similarity(turn, target_centre - turn * centre)


def _complex(points: Tensor) -> Tensor:
    """Points [..., 2] as complex numbers x + iy."""
    return torch.view_as_complex(points.double().contiguous())
