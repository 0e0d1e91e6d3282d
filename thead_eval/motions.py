"""The driving tracks that the package carries, and the command that makes them: `python -m thead_eval.motions`.

They are drawn by hand for a procedural head: no recording of anybody is in them, and no licence but theval's own.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from thead_eval.synthetic import Pose, make_head, pose_points
from thead_eval.tracks import DrivingTrack, NamedTrack, TrackInfo, write_track
from thead_eval.types import Landmarks

FOLDER = Path(__file__).parent / "motions"
FPS = 25.0
SIZE = 256
HEAD = 0  # the procedural head that moves; on another face only its movement counts

Array = NDArray[np.float64]


def make_motion(name: NamedTrack) -> DrivingTrack:
    """The track of that name. Each begins and ends at rest, so that it can be repeated."""
    poses = MOTIONS[name]()
    head = make_head(HEAD)
    points = torch.from_numpy(np.stack([pose_points(head, pose, SIZE) for pose in poses])).float()
    info = TrackInfo(name=name, fps=FPS, height=SIZE, width=SIZE, landmarks="procedural")
    return DrivingTrack(info, Landmarks(points, torch.ones(len(points), dtype=torch.bool)), "")


def nod() -> list[Pose]:
    """Two nods, the second smaller, in 3 seconds."""
    t = _seconds(3.0)
    pitch = 0.20 * _bump(t, 0.75, 0.45) - 0.05 * _bump(t, 1.25, 0.35) + 0.13 * _bump(t, 1.75, 0.42)
    yaw = 0.04 * np.sin(2 * np.pi * t / 3.0) * _ends(t)
    blink = _bump(t, 0.8, 0.14) + _bump(t, 2.45, 0.12)
    brows = 0.35 * _bump(t, 0.35, 0.35)
    return _poses(t, pitch=pitch, yaw=yaw, y=0.05 * pitch / 0.2, blink=blink, brows=brows)


def smile() -> list[Pose]:
    """A smile that comes, stays and goes, with a tilt of the head, in 4 seconds."""
    t = _seconds(4.0)
    rise = _smooth((t - 0.5) / 0.6) * (1 - _smooth((t - 2.9) / 0.8))
    blink = (0.22 * rise + _bump(t, 1.9, 0.12)).clip(0, 1)  # cheeks lift the lower lids
    return _poses(
        t,
        smile=2.0 * rise,
        mouth=0.12 * rise,
        brows=0.3 * _bump(t, 0.8, 0.5),
        blink=blink,
        roll=0.07 * rise,
        yaw=-0.09 * rise,
        pitch=-0.03 * rise,
    )


def talk() -> list[Pose]:
    """Three phrases with pauses, blinks between them and small movements of the head, in 8 seconds."""
    rng = np.random.default_rng(5)
    t = _seconds(8.0)
    mouth, wide, stress = np.zeros_like(t), np.zeros_like(t), np.zeros_like(t)
    for begin, end in ((0.5, 2.6), (3.1, 5.0), (5.6, 7.4)):
        at = begin
        while at < end:
            length = rng.uniform(0.16, 0.27)  # of a syllable
            strength = rng.uniform(0.25, 0.85)
            pulse = _bump(t, at + length / 2, 0.62 * length)
            mouth += strength * pulse
            wide += rng.uniform(-0.6, 0.5) * _bump(t, at + length / 2, 0.9 * length)
            stress += (strength > 0.7) * _bump(t, at + length / 2, 0.22)
            at += length
    ends = _ends(t)
    sway = [
        sum(a * np.sin(2 * np.pi * (f * t + p)) for a, f, p in rng.uniform(0, 1, (3, 3)) * [1, 0.45, 1]) for _ in "yrx"
    ]
    return _poses(
        t,
        mouth=(mouth * ends).clip(0, 1),
        smile=(wide * ends).clip(-1, 1),
        yaw=0.10 * sway[0] * ends,
        roll=0.035 * sway[1] * ends,
        x=0.02 * sway[2] * ends,
        pitch=0.035 * stress * ends,
        brows=(0.5 * (_bump(t, 0.6, 0.4) + _bump(t, 3.2, 0.4) + _bump(t, 5.7, 0.4))).clip(0, 1),
        blink=(_bump(t, 0.3, 0.12) + _bump(t, 2.85, 0.13) + _bump(t, 5.3, 0.12) + _bump(t, 7.6, 0.12)).clip(0, 1),
    )


MOTIONS: dict[NamedTrack, Callable[[], list[Pose]]] = {"nod": nod, "smile": smile, "talk": talk}


def _seconds(length: float) -> Array:
    return np.arange(round(length * FPS)) / FPS


def _bump(t: Array, centre: float, half: float) -> Array:
    """1 at the centre, 0 from half a width on: one period of a raised cosine."""
    bump: Array = np.where(np.abs(t - centre) < half, 0.5 + 0.5 * np.cos(np.pi * (t - centre) / half), 0.0)
    return bump


def _smooth(x: Array) -> Array:
    """From 0 to 1 as x goes from 0 to 1, without a corner."""
    x = x.clip(0, 1)
    return x * x * (3 - 2 * x)


def _ends(t: Array) -> Array:
    """1, but 0 at the first and last frame."""
    return _smooth(t / 0.4) * _smooth((t[-1] - t) / 0.4)


def _poses(t: Array, **values: Array) -> list[Pose]:
    return [Pose(**{name: float(value[n]) for name, value in values.items()}) for n in range(len(t))]


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for motion in MOTIONS:
        write_track(FOLDER / f"{motion}.parquet", make_motion(motion))
