"""A talker as one ONNX file: it runs with numpy, OpenCV and onnxruntime, from landmarks alone and without torch.

    from generator.avatar import load_avatar
    avatar = load_avatar("avatar.onnx")
    for frames in avatar.stream(points):  # points [T, 68, 2] in pixels of the support frames
        ...                               # frames [b, O, O, 3] uint8 RGB

The graph takes what a driving frame is drawn as, which support frames to bend, and the nodes of the splines that bend
them; what makes these from landmarks is here. The graph holds the support frames. Its metadata says what it is.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from thead_eval.drawing import paint_landmarks
from thead_eval.errors import CheckpointError

Points = NDArray[np.float32]
Frames = NDArray[np.uint8]

BATCH = 8  # frames made at a time
KEY = "theval avatar 1"  # of the metadata that an avatar has
STRIDE, SMOOTHING = 4, 1e-2  # of the spline, as in warp.py, which says why


class About(NamedTuple):
    """What an avatar's metadata says."""

    id: str  # of the person's clip
    size: int  # pixels a side of the drawn landmarks
    output_size: int  # of its frames
    side: int  # of the support frames, which driving landmarks refer to
    candidates: int  # support frames for each driving frame; 0: none, all is painted
    points: list[list[list[float]]]  # of the support frames, in pixels of the output
    generator: str
    checkpoint: str  # sha256
    comment: str


@dataclass(frozen=True)
class Avatar:
    """One person, ready to be animated."""

    session: Any  # onnxruntime.InferenceSession, which has no types
    about: About

    def animate(self, points: Points) -> Frames:
        """Frames [T, O, O, 3] with these landmarks [T, 68, 2]."""
        return np.concatenate(list(self.stream(points)))

    def stream(self, points: Points) -> Iterator[Frames]:
        """The same, a few at a time: memory does not grow with the track.

        Raises:
            ValueError: points are not [T, 68, 2] without NaN.
        """
        if points.ndim != 3 or points.shape[1:] != (68, 2) or not np.isfinite(points).all():
            raise ValueError(f"an avatar is driven by landmarks [T, 68, 2] without NaN, not {list(points.shape)}")
        for start in range(0, len(points), BATCH):
            yield self.session.run(None, self._feed(points[start : start + BATCH].astype(np.float32)))[0]

    def _feed(self, points: Points) -> dict[str, NDArray[Any]]:
        about = self.about
        drawn = rescale(points, about.side, about.size)
        feed: dict[str, NDArray[Any]] = {"y": np.stack([paint_landmarks(p, about.size, about.size) for p in drawn])}
        if about.candidates:
            support, driving = np.array(about.points, np.float32), rescale(points, about.side, about.output_size)
            feed["chosen"] = choose(support, driving, about.candidates)
            bent = feed["chosen"][:, : max(about.candidates - 1, 1)]
            feed["nodes"] = spline_nodes(support[bent], driving, about.output_size)
        return feed


def load_avatar(path: Path | str, threads: int = 0) -> Avatar:
    """An avatar that `theval export` wrote; on `threads` threads, 0: all cores.

    Raises:
        CheckpointError: there is no such file, or it is something else.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common class
        raise CheckpointError(f"'{path}' cannot be read as an avatar ({error}); export the talker again") from None
    metadata = session.get_modelmeta().custom_metadata_map
    if KEY not in metadata:
        raise CheckpointError(f"'{path}' is no avatar of theval's; 'theval export' makes one")
    return Avatar(session, About(**json.loads(metadata[KEY])))


def rescale(points: Points, side: int, new_side: int) -> Points:
    """Points in pixels of a picture, in pixels of the same picture at another size."""
    return ((points + 0.5) * np.float32(new_side / side) - 0.5).astype(np.float32)


def choose(support_points: Points, driving_points: Points, count: int) -> NDArray[np.int64]:
    """`candidates.choose`: indices [T, count] of support rows [K, 68, 2] for driving ones [T, 68, 2]."""
    warped = max(count - 1, 1)
    difference = driving_points[:, None].reshape(len(driving_points), 1, -1) - support_points.reshape(
        1, len(support_points), -1
    )
    nearest = np.square(difference).sum(-1).argsort(axis=1, kind="stable")[:, :warped]
    return np.concatenate([nearest, np.repeat(nearest[:, :1], count - nearest.shape[1], axis=1)], axis=1)


def spline_nodes(support_points: Points, driving_points: Points, side: int) -> NDArray[np.float32]:
    """`warp.spline_nodes` in numpy: nodes [B, C, 2, rows, rows] that bend support rows [B, C, 68, 2]."""
    B, C = support_points.shape[:2]
    half = (side - 1) / 2
    steps = np.linspace(-1, 1, 5)
    anchors = np.array([[x, y] for x in steps for y in steps if max(abs(x), abs(y)) == 1])  # [16, 2]
    target = np.concatenate([driving_points / half - 1, np.broadcast_to(anchors, (B, 16, 2))], 1)  # [B, n, 2]
    source = np.concatenate([support_points / half - 1, np.broadcast_to(anchors, (B, C, 16, 2))], 2)
    n = target.shape[1]
    system = np.zeros((B, n + 3, n + 3))
    system[:, :n, :n] = _kernel(np.square(target[:, :, None] - target[:, None]).sum(-1)) + SMOOTHING * np.eye(n)
    system[:, :n, n : n + 2], system[:, :n, n + 2] = target, 1
    system[:, n:, :n] = system[:, :n, n:].transpose(0, 2, 1)
    right = np.zeros((B, n + 3, 2 * C))
    right[:, :n] = (source - target[:, None]).transpose(0, 2, 1, 3).reshape(B, n, 2 * C)
    weights = np.linalg.solve(system, right).astype(np.float32)  # [B, n + 3, 2C]

    rows = math.ceil((side - 1) / STRIDE) + 1
    line = np.linspace(-1, 1, rows, dtype=np.float32)
    x, y = np.meshgrid(line, line)
    nodes = np.stack([x, y], -1)  # [rows, rows, 2]
    made = np.empty((B, C, 2, rows, rows), np.float32)
    for b in range(B):
        points = target[b].astype(np.float32)
        squares = np.square(line[:, None, None] - points[:, 1]) + np.square(line[:, None] - points[:, 0])
        bent = _kernel(squares) @ weights[b, :n] + nodes @ weights[b, n : n + 2] + weights[b, n + 2]
        made[b] = (bent.reshape(rows, rows, C, 2) + nodes[:, :, None]).transpose(2, 3, 0, 1)
    return made


def _kernel(squares: NDArray[Any]) -> NDArray[Any]:
    """r^2 log r of squared distances; 0 at 0."""
    squares = np.maximum(squares, 1e-30)
    bent: NDArray[Any] = np.log(squares) * squares * squares.dtype.type(0.5)
    return bent
