"""A talker as one ONNX file: it runs with numpy, OpenCV and onnxruntime, from landmarks alone and without torch.

    from generator.avatar import load_avatar
    avatar = load_avatar("avatar.onnx")
    for frame in avatar.stream(points):  # points [T, 68, 2] in pixels of the support frames
        ...                              # frame [O, O, 3] uint8 RGB

The graph is the network, from the drawn landmarks and the bent support frames x [1, 3 + 3C, S, S] to what is painted
[1, 3, O, O], and of the hybrid the masks [1, C + 1, O, O] and the residual flow [1, 2C, S / 4, S / 4]. Drawing, bending
and blending are here: onnxruntime takes nine times as long as OpenCV to sample pictures. The support frames are in the
file's metadata, which says what the file is, too.
"""

import base64
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from thead_eval.drawing import paint_landmarks
from thead_eval.errors import CheckpointError

Points = NDArray[np.float32]
Frame = NDArray[np.uint8]
Values = NDArray[np.float32]

KEY = "theval avatar 1"  # of the metadata that an avatar has
STRIDE, SMOOTHING = 4, 1e-2  # of the spline, as in warp.py, which says why


class About(NamedTuple):
    """What an avatar's metadata says."""

    id: str  # of the person's clip
    size: int  # pixels a side of the drawn landmarks
    output_size: int  # of its frames
    side: int  # of the support frames as they were given, which driving landmarks refer to
    candidates: int  # support frames for each driving frame; 0: none, all is painted
    points: list[list[list[float]]]  # of the support frames, in pixels of the output
    support: list[str]  # the support frames: PNG in base64
    generator: str
    checkpoint: str  # sha256
    comment: str


@dataclass(frozen=True)
class Avatar:
    """One person, ready to be animated."""

    session: Any  # onnxruntime.InferenceSession, which has no types
    about: About

    def animate(self, points: Points) -> Frame:
        """Frames [T, O, O, 3] uint8 RGB with these landmarks; see `stream`."""
        return np.stack(list(self.stream(points)))

    def stream(self, points: Points) -> Iterator[Frame]:
        """Frames [O, O, 3] uint8 RGB one by one, so that memory does not grow with the track.

        Args:
            points: [T, 68, 2] landmarks of the person, x and y in pixels of a frame of `about.side` a side. Of somebody
                else, they must be fitted to this face first, as `thead_eval.retarget` does it.

        Raises:
            ValueError: points are not [T, 68, 2] without NaN.
        """
        if points.ndim != 3 or points.shape[1:] != (68, 2) or not np.isfinite(points).all():
            raise ValueError(f"an avatar is driven by landmarks [T, 68, 2] without NaN, not {list(points.shape)}")
        for row in points.astype(np.float32):
            yield self._make_frame(row)

    def _make_frame(self, points: Points) -> Frame:
        about = self.about
        S, O, C = about.size, about.output_size, about.candidates  # as in the networks
        x = [_to_network(paint_landmarks(rescale(points, about.side, S), S, S))]
        if not C:
            (rgb,) = self._run(x)
            return _to_picture(rgb.transpose(1, 2, 0))
        person, driving = self._person, rescale(points, about.side, O)
        chosen = choose(person.points, driving, C)
        bent = spline_nodes(person.points[chosen[: max(C - 1, 1)]], driving, O)
        nodes = bent if C == 1 else np.concatenate([bent, person.still[None]])  # [C, 2, rows, rows]

        # A picture's corners are the same at both sizes, pixels' centres are not.
        grids = person.to_size @ nodes @ person.to_size.T  # -1..1 between the centres of O
        places = (grids * ((O - 1) / O) + 1) * (S / 2) - 0.5  # pixels of S
        for k, (across, down) in zip(chosen, places.astype(np.float32), strict=True):
            x.append(cv2.remap(person.seen[k], across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))
        rgb, masks, flow = self._run(x)
        shift = person.flow_to_output @ flow.reshape(C, 2, *flow.shape[1:]) @ person.flow_to_output.T
        moved = person.to_output @ nodes @ person.to_output.T + shift
        moved = ((moved + 1) * ((O - 1) / 2)).astype(np.float32)  # pixels of O
        frame: Values = rgb.transpose(1, 2, 0) * masks[C, :, :, None]
        for k, mask, (across, down) in zip(chosen, masks[:C], moved, strict=True):
            warped = cv2.remap(person.pictures[k], across, down, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
            frame += mask[:, :, None] * warped.clip(-1, 1)
        return _to_picture(frame)

    def _run(self, parts: list[Values]) -> list[Values]:
        """The graph's outputs for pictures [S, S, 3], without the batch of one."""
        x = np.ascontiguousarray(np.concatenate(parts, axis=2).transpose(2, 0, 1)[None])
        return [output[0] for output in self.session.run(None, {"x": x})]

    @cached_property
    def _person(self) -> "_Person":
        return _Person.of(self.about)


class _Person(NamedTuple):
    """What does not change from frame to frame."""

    points: Points  # [K, 68, 2]
    pictures: Values  # [K, O, O, 3] -1..1
    seen: Values  # [K, S, S, 3]
    still: Values  # [2, rows, rows]: nodes that move nothing
    to_size: Values  # [S, rows]: nodes to pixels, from both sides
    to_output: Values  # [O, rows]
    flow_to_output: Values  # [O, S / 4]

    @staticmethod
    def of(about: About) -> "_Person":
        pictures = np.stack([_to_network(_decode(png)) for png in about.support])
        factor = about.output_size // about.size
        line = np.linspace(-1, 1, math.ceil((about.output_size - 1) / STRIDE) + 1, dtype=np.float32)
        to_output = growth(len(line), about.output_size, align_corners=True)
        return _Person(
            np.array(about.points, np.float32),
            pictures,
            pictures.reshape(len(pictures), about.size, factor, about.size, factor, 3).mean((2, 4)),
            np.stack(np.meshgrid(line, line)),
            to_output.reshape(about.size, factor, -1).mean(1),
            to_output,
            growth(about.size // 4, about.output_size, align_corners=False),
        )


def load_avatar(path: Path | str, threads: int = 0) -> Avatar:
    """An avatar that `theval export` wrote; its network on `threads` threads, 0: all cores.

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


def encode_picture(frame: Frame) -> str:
    """A frame [H, W, 3] RGB as PNG in base64."""
    ok, png = cv2.imencode(".png", frame[..., ::-1])
    assert ok
    return base64.b64encode(png.tobytes()).decode()


def _decode(png: str) -> Frame:
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(png), np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return np.ascontiguousarray(picture[..., ::-1], np.uint8)


def _to_network(picture: Frame) -> Values:
    return picture.astype(np.float32) / np.float32(127.5) - 1


def _to_picture(x: Values) -> Frame:
    return ((x + 1) * np.float32(127.5)).round().clip(0, 255).astype(np.uint8)


def rescale(points: Points, side: int, new_side: int) -> Points:
    """Points in pixels of a picture, in pixels of the same picture at another size."""
    return ((points + 0.5) * np.float32(new_side / side) - 0.5).astype(np.float32)


def growth(few: int, many: int, *, align_corners: bool) -> Values:
    """Bilinear growth of a row of pixels, as a matrix [many, few]: with the same first and last centre, or border."""
    if align_corners:
        places = np.linspace(0, few - 1, many)
    else:
        places = ((np.arange(many) + 0.5) * (few / many) - 0.5).clip(0, few - 1)
    left = np.minimum(places.astype(int), few - 2)
    matrix = np.zeros((many, few))
    matrix[np.arange(many), left] = 1 - (places - left)
    matrix[np.arange(many), left + 1] = places - left
    return matrix.astype(np.float32)


def choose(support_points: Points, driving_points: Points, count: int) -> NDArray[np.int64]:
    """`candidates.choose`: indices [count] of support rows [K, 68, 2] for driving points [68, 2]."""
    distances = np.square(support_points - driving_points).sum((1, 2))
    nearest = distances.argsort(kind="stable")[: max(count - 1, 1)]
    return np.concatenate([nearest, np.repeat(nearest[:1], count - len(nearest))])


def spline_nodes(support_points: Points, driving_points: Points, side: int) -> Values:
    """`warp.spline_nodes`: nodes [C, 2, rows, rows] that bend support frames [C, 68, 2] onto [68, 2]."""
    C, half = len(support_points), (side - 1) / 2
    steps = np.linspace(-1, 1, 5)
    anchors = np.array([[x, y] for x in steps for y in steps if max(abs(x), abs(y)) == 1])  # [16, 2]
    target = np.concatenate([driving_points / half - 1, anchors])  # [n, 2]
    source = np.concatenate([support_points / half - 1, np.broadcast_to(anchors, (C, 16, 2))], 1)  # [C, n, 2]
    n = len(target)
    system = np.zeros((n + 3, n + 3))
    system[:n, :n] = _kernel(np.square(target[:, None] - target).sum(-1)) / 2 + SMOOTHING * np.eye(n)
    system[:n, n : n + 2], system[:n, n + 2] = target, 1
    system[n:, :n] = system[:n, n:].T
    right = np.zeros((n + 3, 2 * C))
    right[:n] = (source - target).transpose(1, 0, 2).reshape(n, 2 * C)
    weights = np.linalg.solve(system, right).astype(np.float32)  # [n + 3, 2C]

    line = np.linspace(-1, 1, math.ceil((side - 1) / STRIDE) + 1, dtype=np.float32)
    nodes = np.stack(np.meshgrid(line, line), -1)  # [rows, rows, 2]
    near = target.astype(np.float32)
    squares = np.square(line[:, None, None] - near[:, 1]) + np.square(line[:, None] - near[:, 0])  # [rows, rows, n]
    bent = _kernel(squares) @ (weights[:n] / 2) + nodes @ weights[n : n + 2] + weights[n + 2]
    moved: Values = bent.reshape(*bent.shape[:2], C, 2) + nodes[:, :, None]
    return moved.transpose(2, 3, 0, 1)


def _kernel(squares: NDArray[Any]) -> NDArray[Any]:
    """2 r^2 log r of squared distances; 0 at 0."""
    squares = squares + squares.dtype.type(1e-30)
    bent: NDArray[Any] = np.log(squares) * squares
    return bent
