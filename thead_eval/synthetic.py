"""Procedural talking heads with exact landmarks: licence-free data for tests, and for a first run with no download.

A head is 68 points in space and a few contours; a frame is painted through the projected points, back to front, so
the landmarks are exact by construction. The unit of length is the distance of the outer eye corners, x points to the
right of the picture, y down, z to the viewer; the origin lies between the eyes.
"""

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from thead_eval.types import Clip, Landmarks

Array = NDArray[np.float64]
Picture = NDArray[np.uint8]

# A face at rest that looks at the viewer, x y z in the iBUG order: the left half in the picture and the middle; the
# right half mirrors it. Cheeks and jaw lie on circles about the axis through the ears, which gives their z.
JAW = [(-0.78, 0.05), (-0.77, 0.26), (-0.74, 0.46), (-0.69, 0.66), (-0.62, 0.85), (-0.51, 1.02), (-0.37, 1.15)]
JAW += [(-0.20, 1.24), (0, 1.27)]
BROW = [(-0.66, -0.17, -0.05), (-0.56, -0.27, 0.06), (-0.43, -0.31, 0.13), (-0.29, -0.30, 0.17), (-0.15, -0.25, 0.19)]
BRIDGE = [(0, -0.05, 0.16), (0, 0.08, 0.23), (0, 0.21, 0.31), (0, 0.34, 0.37)]
NOSTRIL = [(-0.15, 0.45, 0.19), (-0.08, 0.48, 0.25), (0, 0.50, 0.28)]
EYE = [(-0.50, 0, 0), (-0.41, -0.055, 0.07), (-0.31, -0.055, 0.09), (-0.22, 0.01, 0.06), (-0.31, 0.035, 0.08)]
EYE += [(-0.41, 0.035, 0.06)]
LIPS = [(-0.28, 0.76, 0.10), (-0.19, 0.69, 0.18), (-0.08, 0.65, 0.23), (0, 0.67, 0.24)]  # 48-51
UNDER = [(0, 0.88, 0.23), (-0.085, 0.87, 0.21), (-0.19, 0.83, 0.16)]  # 57-59
INNER = [(-0.24, 0.76, 0.11), (-0.08, 0.745, 0.20), (0, 0.75, 0.21)]  # 60-62; 66-67 touch them at rest

AXIS_Z = -0.72  # depth of the axis through the ears
PIVOT = np.array([0.0, 0.9, -0.7])  # where the head turns on the neck
DISTANCE = 8.0  # of the camera

SHIFT = 4  # binary places of a pixel in OpenCV's coordinates
TURN = np.linspace(0, 2 * np.pi, 16, endpoint=False)
CIRCLE = np.stack([np.cos(TURN), np.sin(TURN)], 1)

SKIN = [(247, 217, 196), (238, 200, 172), (224, 180, 146), (200, 152, 116), (164, 116, 84), (128, 86, 62), (98, 66, 50)]
HAIR = [(26, 22, 22), (54, 38, 30), (94, 62, 40), (144, 98, 58), (200, 162, 104), (150, 70, 42), (156, 154, 152)]
IRIS = [(62, 42, 28), (98, 66, 36), (72, 104, 142), (78, 116, 88), (112, 122, 126)]


@dataclass(frozen=True)
class Head:
    """What makes a person: shape, colours and style."""

    points: Array  # [68, 3] at rest
    skin: Array  # [3] RGB 0..255
    hair: Array  # [3]
    iris: Array  # [3]
    lips: Array  # [3]
    brows: float  # their thickness, 1 = usual
    hairline: float  # y at the middle of the forehead
    parting: float  # -1..1
    volume: float  # how far hair stands off the skull, 0 = bald
    length: float  # y down to which hair falls behind the ears; -9 = short
    beard: float  # 0..1
    strands: Array  # [N] how bright each strand of the hair is, about 1
    glasses: bool


@dataclass(frozen=True)
class Scene:
    """What makes a take besides its motion."""

    background: Picture  # [64, 64, 3]
    clothes: Array  # [3] RGB 0..255
    light: Array  # [3] towards the light, of length 1
    ambient: float  # 0..1
    tint: Array  # [3] the light's colour, about 1


class Pose(NamedTuple):
    """Where the head is and what the face does; all zeros = at rest, looking at the viewer."""

    yaw: float = 0.0  # radians, positive = to the right of the picture
    pitch: float = 0.0  # radians, positive = down
    roll: float = 0.0  # radians, positive = clockwise
    x: float = 0.0  # shift
    y: float = 0.0
    zoom: float = 0.0  # 0.1 = a tenth larger
    mouth: float = 0.0  # 0..1 open
    smile: float = 0.0  # -1..1
    brows: float = 0.0  # -1..1 raised
    blink: float = 0.0  # 0..1 closed
    gaze: float = 0.0  # -1..1


def head_clip(
    identity_seed: int, frames: int = 128, size: int = 256, fps: float = 25.0, seed: int = 0
) -> tuple[Clip, Landmarks]:
    """A person, fixed by `identity_seed`, talks and blinks; `seed` is the take: motion, light, background, clothes.

    A longer clip begins with the frames of a shorter one.
    """
    head, scene = make_head(identity_seed), make_scene(identity_seed, seed)
    drawn = [render_head(head, scene, pose, size) for pose in make_motion(identity_seed, seed, frames, fps)]
    pictures = torch.from_numpy(np.stack([picture for picture, _ in drawn])).permute(0, 3, 1, 2).contiguous()
    points = torch.from_numpy(np.stack([points for _, points in drawn])).float()
    clip = Clip(f"head{identity_seed:04d}-{seed}", pictures, fps)
    return clip, Landmarks(points, torch.ones(frames, dtype=torch.bool))


def make_head(seed: int) -> Head:
    """The person of that number."""
    rng = np.random.default_rng([seed, 1])
    tone = rng.uniform(0, len(SKIN) - 1)
    skin = _blend(np.array(SKIN), tone) * rng.uniform(0.97, 1.03, 3)
    dark = tone > 3
    hair = np.array(HAIR[rng.integers(2 if dark else len(HAIR))]) * rng.uniform(0.8, 1.2)
    iris = np.array(IRIS[rng.integers(2 if dark else len(IRIS))]) * rng.uniform(0.85, 1.15)
    lips = skin * rng.uniform([0.78, 0.52, 0.52], [0.92, 0.68, 0.70])
    long = rng.random() < 0.45
    volume = 0.0 if not long and rng.random() < 0.15 else rng.uniform(0.08, 0.26)
    return Head(
        points=_make_shape(rng),
        skin=skin,
        hair=hair,
        iris=iris,
        lips=lips,
        brows=rng.uniform(0.6, 1.5),
        hairline=rng.uniform(-0.9, -0.6),
        parting=rng.uniform(-1, 1),
        volume=volume,
        length=rng.uniform(0.8, 2.0) if long else -9.0,
        beard=0.0 if long or rng.random() < 0.5 else rng.uniform(0.1, 0.5),
        strands=rng.uniform(0.7, 1.3, 40),
        glasses=bool(rng.random() < 0.15),
    )


def make_scene(identity_seed: int, seed: int) -> Scene:
    """Background, clothes and light of a take."""
    rng = np.random.default_rng([identity_seed, seed, 2])
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    angle = rng.uniform(0, 2 * np.pi)
    ramp = 0.5 + 0.4 * (x * np.cos(angle) + y * np.sin(angle))[..., None]
    cloud = cv2.GaussianBlur(rng.normal(size=(64, 64, 3)), (0, 0), rng.uniform(1.5, 8))
    first, second = rng.uniform(40, 210, (2, 1)) + rng.uniform(-35, 35, (2, 3))
    background = first + 0.6 * (second - first) * ramp + 9 * cloud / cloud.std()
    light = np.array([rng.uniform(-0.7, 0.7), rng.uniform(-0.7, -0.1), 1.0])
    return Scene(
        background=background.clip(0, 255).astype(np.uint8),
        clothes=rng.uniform(40, 190) + rng.uniform(-40, 40, 3),
        light=light / np.linalg.norm(light),
        ambient=rng.uniform(0.45, 0.65),
        tint=rng.uniform(0.97, 1.03, 3),
    )


def make_motion(identity_seed: int, seed: int, frames: int, fps: float) -> list[Pose]:
    """The poses of a take: slow turns of the head, phrases of talk with pauses, a blink every few seconds."""
    rng = np.random.default_rng([identity_seed, seed, 3])
    seconds = np.arange(frames) / fps

    def wander(size: float, slowest: float, fastest: float) -> Array:
        """A sum of three sines of random phase, within +-size."""
        rate, phase = rng.uniform(slowest, fastest, 3), rng.uniform(0, 2 * np.pi, 3)
        weight = rng.uniform(0.5, 1, 3)
        waves = np.sin(2 * np.pi * rate * seconds[:, None] + phase)  # [T, 3]
        total: Array = size * (waves @ (weight / weight.sum()))
        return total

    phrase = (wander(1, 0.1, 0.35) + 0.25).clip(0, 0.4) / 0.4  # 0 in pauses
    openings = rng.uniform(1.5, 5.0, 200).cumsum()  # when blinks begin, in seconds
    since = (seconds % openings[-1])[:, None] - openings  # [T, 200]
    blink = np.where((since >= 0) & (since < 0.28), np.sin(np.pi * since / 0.28), 0).max(1)
    return [
        Pose(*(float(v) for v in row))
        for row in zip(
            rng.normal(0, 0.08) + wander(0.32, 0.05, 0.25),
            rng.normal(0, 0.03) + wander(0.15, 0.05, 0.3),
            rng.normal(0, 0.03) + wander(0.13, 0.05, 0.2),
            wander(0.12, 0.04, 0.15),
            wander(0.07, 0.04, 0.2),
            rng.uniform(-0.1, 0.08) + wander(0.04, 0.04, 0.15),
            phrase * (0.35 + wander(0.75, 1.5, 4.5)).clip(0, 1),
            wander(0.8, 0.05, 0.4),
            wander(0.8, 0.1, 0.6),
            blink,
            wander(1.0, 0.1, 0.5),
            strict=True,
        )
    ]


def pose_points(head: Head, pose: Pose, size: int = 256) -> Array:
    """The 68 points [68, 2] in pixels, without the painting, which takes most of the time."""
    view = _View(pose, size)
    shape = _express(head.points, pose)
    return np.concatenate([view.outline(shape[:17]), view.project(shape[17:])])


def render_head(head: Head, scene: Scene, pose: Pose, size: int = 256) -> tuple[Picture, Array]:
    """A frame [size, size, 3] uint8 RGB and its 68 points [68, 2] in pixels."""
    view = _View(pose, size)
    points = pose_points(head, pose, size)
    paint = _Painting(scene.background, size, view.unit)
    width, temple = head.points[16, 0], head.points[16, 1]

    def skull(volume: float) -> Array:
        """The head's upper edge [13, 3] from left to right, with hair that stands off by `volume`."""
        angle = np.linspace(0, np.pi, 13)
        x = -(width + volume * np.sin(angle) ** 0.5) * np.cos(angle)
        return _on_circles(x, temple - (1.08 + volume) * np.sin(angle), width + 0.08 + volume)

    # Behind the face.
    hair_edge = view.outline(skull(head.volume))
    if head.length > temple:
        fall = np.linspace(temple - 0.3, head.length, 5)
        reach = width + head.volume * np.array([0.8, 1.1, 1.2, 1.0, 0.6])
        right, left = _on_circles(reach, fall, width + 0.3), _on_circles(-reach, fall, width + 0.3)
        back = np.concatenate([hair_edge[2:-2], view.outline(right), view.outline(left)[::-1]])
        paint.fill(_smooth(back, closed=True), head.hair * 0.65)
    body, unit = view.body(), view.unit
    paint.fill(body + unit * np.array([[-0.45, -0.5], [-0.5, 0.9], [0.5, 0.9], [0.45, -0.5]]), head.skin * 0.82)
    half = np.array([[0.1, 0.78], [0.46, 0.42], [0.62, 0.36], [1.3, 0.62], [1.9, 0.95], [2.2, 1.8], [2.3, 4]])
    paint.fill(body + unit * np.concatenate([half[::-1] * [-1, 1], half]), scene.clothes)
    lobe = np.array([(0, -0.12), (0.07, -0.2), (0.13, -0.12), (0.11, 0.1), (0.05, 0.26), (-0.03, 0.28)])
    for side in (-1, 1):
        ear = np.stack([side * (width - 0.04 + lobe[:, 0]), temple + 0.06 + lobe[:, 1], np.full(6, AXIS_Z)], 1)
        paint.fill(_smooth(view.project(ear), closed=True), head.skin * 0.9)

    # The face, then what lies before it.
    paint.fill(np.concatenate([_smooth(points[:17]), _smooth(view.outline(skull(0))[::-1])]), head.skin)
    _paint_face(paint, head, points, pose.gaze)
    if head.volume:
        x = np.linspace(-1, 1, 9)
        y = temple - 0.1 + (1 - x**4) * (head.hairline - temple + 0.1 + 0.2 * np.abs(x - head.parting))
        hairline = view.outline(_on_circles(width * x, y, width + 0.06))
        paint.fill(np.concatenate([_smooth(hair_edge), _smooth(hairline)[::-1]]), head.hair)
        for tone, end in zip(head.strands, np.linspace(0.02, 0.98, len(head.strands)), strict=True):
            start = 0.6 * end + 0.4 * (0.5 + 0.25 * head.parting)  # strands fan out from the parting
            places = ((start, 0.1), ((start + end) / 2, 0.45), (end, 0.95))  # along the edges, down from the upper one
            strand = [(1 - d) * _blend(hair_edge, 12 * s) + d * _blend(hairline, 8 * s) for s, d in places]
            paint.line(_smooth(np.stack(strand)), head.hair * tone, 0.02)
    if head.glasses:
        frame = np.array([40.0, 36, 36])
        for eye in (points[36:42], points[42:48]):
            corners = unit * np.array(
                [[-0.2, -0.02], [-0.15, -0.14], [0.15, -0.14], [0.2, -0.02], [0.13, 0.17], [-0.13, 0.17]]
            )
            paint.line(_smooth(eye.mean(0) + corners, closed=True), frame, 0.025)
        paint.line(points[[39, 27, 42]], frame, 0.025)

    # The light, as a map that multiplies what was painted, but not the background.
    light = cv2.resize(_light_map(head, scene, points, size), (size, size), interpolation=cv2.INTER_LINEAR)
    light = 1 + (light[..., None] * scene.tint.astype(np.float32) - 1) * (paint.mask[..., None] * np.float32(1 / 255))
    return (paint.picture * light).clip(0, 255).astype(np.uint8), points


def _paint_face(paint: "_Painting", head: Head, points: Array, gaze: float) -> None:
    """Brows, eyes, nose and mouth, each through its points."""
    unit, skin = paint.unit, head.skin
    for brow in (points[17:22], points[26:21:-1]):
        half = 0.035 * head.brows * unit * np.array([[0.3], [0.9], [1.2], [1.3], [1.0]]) * [0, 1]
        paint.fill(np.concatenate([_smooth(brow - half), _smooth(brow + half)[::-1]]), 0.75 * head.hair + 0.1 * skin)

    for eye in (points[36:42], points[42:48]):
        upper, lower = _smooth(eye[:4]), _smooth(eye[[3, 4, 5, 0]])
        opening = np.concatenate([upper, lower])
        centre = eye[[0, 3]].mean(0) + unit * np.array([0.035 * gaze, -0.012])
        paint.fill(opening, np.array([236.0, 232, 228]))
        paint.fill(paint.ellipse(centre, 0.068, 0.068), head.iris * 0.6, within=opening)
        paint.fill(paint.ellipse(centre, 0.058, 0.058), head.iris, within=opening)
        paint.fill(paint.ellipse(centre, 0.03, 0.03), np.array([12.0, 12, 14]), within=opening)
        paint.fill(paint.ellipse(centre - 0.022 * unit, 0.013, 0.013), np.array([250.0, 250, 250]), within=opening)
        paint.line(lower, skin * 0.62, 0.014)
        paint.line(upper, skin * 0.2, 0.03)
        paint.line(upper - [0, 0.055 * unit], skin * 0.68, 0.016)  # the lid's crease

    paint.line(_smooth(points[31:36]), skin * 0.6, 0.022)
    for end, inside in ((31, 32), (35, 34)):
        hole = 0.45 * points[end] + 0.55 * points[inside] - [0, 0.015 * unit]
        paint.fill(paint.ellipse(hole, 0.042, 0.022), skin * 0.3)
        wing = points[end] + (points[end] - points[33]) * [[0.1, 0], [0.22, 0], [0.05, 0]]
        paint.line(_smooth(wing + unit * np.array([[0, 0.01], [0, -0.07], [0, -0.14]])), skin * 0.7, 0.018)

    above, below = _smooth(points[60:65]), _smooth(points[[64, 65, 66, 67, 60]])
    paint.fill(np.concatenate([above, below]), np.array([70.0, 22, 24]))
    gap = max(points[66, 1] - points[62, 1], 0.0)
    teeth = points[64:59:-1] + gap * np.array([[0, 0], [0, 0.35], [0, 0.4], [0, 0.35], [0, 0]])
    paint.fill(np.concatenate([above, _smooth(teeth)]), np.array([232.0, 226, 216]))
    paint.fill(np.concatenate([_smooth(points[48:55]), above[::-1]]), head.lips * 0.88)
    paint.fill(np.concatenate([_smooth(points[[54, 55, 56, 57, 58, 59, 48]]), below[::-1]]), head.lips)
    paint.line(above, head.lips * 0.45, 0.018)


def _light_map(head: Head, scene: Scene, points: Array, size: int) -> NDArray[np.float32]:
    """How light falls on the head [64, 64], about 1: it is smooth, so a small map is enough."""
    p = (points + 0.5) * (64 / size) - 0.5  # [68, 2] in pixels of the map
    unit = float(np.hypot(*(p[8] - p[27]))) / 1.3
    centre = (p[27] + p[8]) / 2
    x, y = (np.arange(64) - centre[0]) / (1.05 * unit), ((np.arange(64) - centre[1]) / (1.5 * unit))[:, None]
    z = np.sqrt((1 - x**2 - y**2).clip(0.02))
    lambert = (x * scene.light[0] + y * scene.light[1] + z * scene.light[2]).clip(0)  # [64, 64] of an ellipsoid

    shadow = np.ones((64, 64), np.float32)

    def shade(value: float, *parts: Array) -> None:
        cv2.fillPoly(shadow, [_fixed(np.concatenate(parts))], value, cv2.LINE_8, SHIFT)

    down = np.array([0, unit])
    shade(0.8, p[17:22] + 0.05 * down, p[[39, 40, 41, 36]] + 0.06 * down)  # under the brows
    shade(0.8, p[22:27] + 0.05 * down, p[[45, 46, 47, 42]] + 0.06 * down)
    shade(0.78, p[[27, 30, 33]], p[[31, 39] if scene.light[0] > 0 else [35, 42]])  # the nose's far side
    shade(0.72, p[[31, 33, 35]], p[[34, 32]] + 0.12 * down)  # under nose, lip and chin
    shade(0.78, p[[59, 57, 55]], p[[56, 58]] + 0.12 * down)
    shade(0.62, p[3:14] + 0.02 * down, p[13:2:-1] + 0.35 * down)
    if head.beard:
        shade(1 - 0.6 * head.beard, p[2:15], p[[54, 57, 48]])
        shade(1 - 0.6 * head.beard, p[48:55], p[[35, 33, 31]])
    cv2.polylines(shadow, [_fixed(p[27:31])], False, 1.15, 1, cv2.LINE_8, SHIFT)  # along the nose
    light: Array = (scene.ambient + (1.1 - scene.ambient) * lambert) * cv2.GaussianBlur(shadow, (0, 0), 1.2)
    return light.astype(np.float32)


class _View:
    """The camera of one frame: from space to pixels."""

    def __init__(self, pose: Pose, size: int) -> None:
        self.pose, self.size = pose, size
        self.unit = 0.3 * size * (1 + pose.zoom)  # pixels
        (sy, sp, sr), (cy, cp, cr) = np.sin(pose[:3]), np.cos(pose[:3])
        yaw = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
        pitch = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
        roll = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
        self.rotation = roll @ pitch @ yaw
        self.centre = size * np.array([0.5, 0.43]) - 0.5

    def project(self, points: Array) -> Array:
        """[N, 3] in space to [N, 2] in pixels."""
        turned = (points - PIVOT) @ self.rotation.T + PIVOT + [self.pose.x, self.pose.y, 0]
        pixels: Array = self.centre + self.unit * turned[:, :2] * (DISTANCE / (DISTANCE - turned[:, 2:]))
        return pixels

    def outline(self, points: Array) -> Array:
        """As `project`, for points of the head's edge: on the far side they slide forward to where it is seen."""
        x, y, z = points.T
        radius, angle = np.hypot(x, z - AXIS_Z), np.arctan2(x, z - AXIS_Z)  # about the axis through the ears
        limit = np.pi / 2 - abs(self.pose.yaw)
        far = np.sign(x) == np.sign(self.pose.yaw)
        angle = np.where(far, angle.clip(-limit, limit), angle)
        return self.project(np.stack([radius * np.sin(angle), y, AXIS_Z + radius * np.cos(angle)], 1))

    def body(self) -> Array:
        """Where the neck begins, in pixels: the body shifts with the head and does not turn."""
        upright = _View(Pose(x=self.pose.x, y=self.pose.y, zoom=self.pose.zoom), self.size)
        return upright.project(PIVOT[None]).reshape(2)


class _Painting:
    """A picture in work: smooth-edged shapes in pixels, widths in head units."""

    def __init__(self, background: Picture, size: int, unit: float) -> None:
        self.unit = unit  # pixels
        self.picture = cv2.resize(background, (size, size), interpolation=cv2.INTER_CUBIC)
        self.mask = np.zeros((size, size), np.uint8)  # 255 where something was painted

    def fill(self, polygon: Array, colour: Array, within: Array | None = None) -> None:
        """A polygon, or only its part within another; both must then be nearly convex."""
        if within is not None:
            area, common = cv2.intersectConvexConvex(polygon.astype(np.float32), within.astype(np.float32))
            if area <= 0:
                return
            polygon = common[:, 0].astype(np.float64)
        corners = [_fixed(polygon)]
        cv2.fillPoly(self.picture, corners, colour.clip(0, 255).tolist(), cv2.LINE_AA, SHIFT)
        cv2.fillPoly(self.mask, corners, 255, cv2.LINE_AA, SHIFT)

    def line(self, points: Array, colour: Array, width: float) -> None:
        pixels = max(1, round(width * self.unit))
        cv2.polylines(self.picture, [_fixed(points)], False, colour.clip(0, 255).tolist(), pixels, cv2.LINE_AA, SHIFT)

    def ellipse(self, centre: Array, width: float, height: float) -> Array:
        corners: Array = centre + self.unit * CIRCLE * [width, height]
        return corners


def _fixed(points: Array) -> NDArray[np.int32]:
    fixed: NDArray[np.int32] = np.round(points * 2**SHIFT).astype(np.int32)
    return fixed


def _blend(rows: Array, position: float) -> Array:
    """Between the rows of an array."""
    i = min(max(int(position), 0), len(rows) - 2)
    between: Array = rows[i] + (position - i) * (rows[i + 1] - rows[i])
    return between


def _on_circles(x: Array, y: Array, radius: Array | float) -> Array:
    """Points [N, 3] at these x, y on circles about the axis through the ears."""
    return np.stack([x, y, AXIS_Z + np.sqrt((np.asarray(radius) ** 2 - x**2).clip(0))], 1)


@cache
def _spline(count: int, closed: bool) -> Array:
    """The matrix [M, count] of a Catmull-Rom curve through `count` points."""
    steps = 4
    spans = count if closed else count - 1
    matrix = np.zeros((spans * steps + (not closed), count))
    for row in range(len(matrix)):
        i, t = row // steps, row % steps / steps
        weights = (
            -0.5 * t + t**2 - 0.5 * t**3,
            1 - 2.5 * t**2 + 1.5 * t**3,
            0.5 * t + 2 * t**2 - 1.5 * t**3,
            -0.5 * t**2 + 0.5 * t**3,
        )
        for k, weight in zip(range(i - 1, i + 3), weights, strict=True):
            matrix[row, k % count if closed else min(max(k, 0), count - 1)] += weight
    return matrix


def _smooth(points: Array, closed: bool = False) -> Array:
    """A curve [M, 2] through the points [N, 2]."""
    curve: Array = _spline(len(points), closed) @ points
    return curve


def _make_shape(rng: np.random.Generator) -> Array:
    """A person's 68 points [68, 3] at rest."""
    u = rng.uniform
    width, length, square = u(0.92, 1.08), u(0.94, 1.07), u(-0.06, 0.06)
    jaw = np.array(JAW)
    jaw[:, 0] *= width + square * np.linspace(-0.5, 1, 9)
    jaw[:, 1] = jaw[:, 1] * length
    half_width = -jaw[0, 0]
    jaw3 = _on_circles(jaw[:, 0], jaw[:, 1], np.linspace(half_width, 0.92, 9))
    brow = np.array(BROW) * [u(0.94, 1.05), 1, 1] + [0, u(-0.05, 0.03), 0]
    brow[:, 1] += u(-0.05, 0.05) * np.linspace(-1, 1, 5) + u(-0.03, 0.02) * np.array([0, 0.7, 1, 0.7, 0])
    nose_length, nose_width = u(0.9, 1.1), u(0.82, 1.2)
    bridge = np.array(BRIDGE) * [1, nose_length, u(0.85, 1.15)]
    nostril = np.array(NOSTRIL) * [nose_width, nose_length, 1]
    eye = np.array(EYE)
    middle = eye[[0, 3]].mean(0)
    eye = middle + (eye - middle) * [u(0.88, 1.1), u(0.75, 1.3), 1] + [u(-0.02, 0.02), 0, 0]
    eye[:, 1] += u(-0.07, 0.07) * (eye[:, 0] - middle[0])
    mouth_width, lip = u(0.82, 1.15), u(0.7, 1.3)
    lips, under, inner = np.array(LIPS), np.array(UNDER), np.array(INNER)
    for part in (lips, under):
        part[:, 1] = 0.755 + (part[:, 1] - 0.755) * lip
    for part in (lips, under, inner):
        part[:, 0] *= mouth_width
        part[:, 1] = part[:, 1] * (0.5 + 0.5 * length) + 0.5 * (nose_length - 1) * 0.5
    flip = np.array([-1, 1, 1])
    return np.concatenate(
        [
            np.concatenate([jaw3, jaw3[-2::-1] * flip]),
            np.concatenate([brow, brow[::-1] * flip]),
            bridge,
            np.concatenate([nostril, nostril[-2::-1] * flip]),
            eye,
            eye[[3, 2, 1, 0, 5, 4]] * flip,
            np.concatenate([lips, lips[-2::-1] * flip]),
            np.concatenate([under[:0:-1] * flip, under]),
            np.concatenate([inner, inner[-2::-1] * flip]),
            np.stack([inner[1] * flip, inner[2], inner[1]]),
        ]
    )


def _express(rest: Array, pose: Pose) -> Array:
    """The points [68, 3] with what the face does."""
    points = rest.copy()
    # The jaw drops: most at the chin and the lower lip.
    points[3:14, 1] += 0.16 * pose.mouth * np.sin(np.linspace(0.25, np.pi - 0.25, 11))
    points[[55, 56, 57, 58, 59], 1] += 0.24 * pose.mouth * np.array([0.7, 0.95, 1, 0.95, 0.7])
    points[[65, 66, 67], 1] += 0.24 * pose.mouth * np.array([0.93, 1, 0.93])
    points[[48, 54, 60, 64], 1] += 0.09 * pose.mouth
    points[49:54, 1] -= 0.02 * pose.mouth
    points[48:, 0] *= 1 - 0.12 * pose.mouth + 0.1 * pose.smile
    corners = np.abs(points[48:, 0]) / np.abs(points[48, 0])
    points[48:, 1] -= 0.06 * pose.smile * corners**2
    points[17:27, 1] -= 0.05 * pose.brows
    for upper, lower in ((37, 41), (38, 40), (43, 47), (44, 46)):
        points[upper] += pose.blink * (points[lower] - points[upper])
    return points
