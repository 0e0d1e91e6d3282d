"""Photographs and paintings to support frames: the faces in a picture, and the head crop that clips have."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
import torch
import torchvision.transforms.v2.functional as tvf
from numpy.typing import NDArray
from torch import Tensor

from thead_eval import tracking
from thead_eval.backends import (
    CONFIDENT,
    Boxes,
    FivePoints,
    load_five_points,
    load_picture_detector,
    load_picture_landmarker,
    overlap,
)
from thead_eval.drawing import draw_landmarks
from thead_eval.errors import NoFaceFound, SeveralFaces
from thead_eval.pictures import Picture
from thead_eval.tracking import SEARCHED, Crop, Track, head_crop
from thead_eval.types import Clip, Landmarks

CERTAIN = 1.0  # dlib's score of a box that counts although MTCNN sees nothing there
SAME = 0.3  # the boxes of two detectors that overlap by this much are of one face
RIVAL = 4.0  # a face that is less than so many times smaller than the largest may be the one that is meant
ENLARGED = 1.5  # by which a crop may be enlarged: beyond, a support frame shows pixels rather than a face
PROFILE = 0.62  # of `eyes_apart`: of 156 portraits, three-quarter views among them, none is below 0.75


@dataclass(frozen=True)
class Face:
    """A face in a picture."""

    box: tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels of the picture, as `backends` frames faces
    points: Tensor  # [68, 2] float32, pixels of the picture
    eyes_apart: float | None = None  # across the face, in distances of eyes and mouth down it; None: MTCNN saw no face

    @property
    def side(self) -> float:
        """Of the box, in pixels."""
        return self.box[2] - self.box[0]


@dataclass(frozen=True)
class Portrait:
    """A picture, one face of it, and its head crop as a support frame."""

    name: str
    photo: Tensor  # [3, H, W] uint8 RGB
    faces: Sequence[Face]  # all, from left to right
    face: Face
    crop: Crop  # in pixels of the picture; may reach beyond it, where its border is repeated
    support: Clip  # of one frame
    landmarks: Landmarks


def crop_portrait(photo: Tensor, name: str, size: int, *, number: int | None = None) -> Portrait:
    """The head of a face, framed as `theval prepare` frames a video.

    Args:
        photo: [3, H, W] uint8 RGB.
        name: The clip's id, and the photo's name in errors.
        size: Pixels a side of the crop.
        number: Of the face, counted from 1 and from left to right; None: the only one that is not much smaller than
            the largest.

    Raises:
        NoFaceFound: there is no face, there are several, or it is too small or turned too far away.
    """
    faces = find_faces(photo)
    return crop_face(photo, name, size, faces, choose_face(photo, name, faces, number))


def find_faces(photo: Tensor) -> list[Face]:
    """The faces of a picture [3, H, W] uint8 RGB, from left to right.

    Two detectors look, as either alone sees faces in badges or misses small ones: what counts is what MTCNN sees, and
    what dlib is certain of, or, where MTCNN sees nothing, sees. Landmarks are measured in the picture's own pixels.
    """
    picture = np.ascontiguousarray(photo.permute(1, 2, 0).numpy())
    height, width = picture.shape[:2]
    shrink = max(1.0, max(height, width) / SEARCHED)
    searched = picture
    if shrink > 1:
        searched = cv2.resize(picture, (round(width / shrink), round(height / shrink)), interpolation=cv2.INTER_AREA)
    boxes, apart = _join(load_picture_detector("dlib", doubtful=True)([searched])[0], _five_points()([searched])[0])
    if not len(boxes):
        return []
    across, down = width / searched.shape[1], height / searched.shape[0]
    boxes = (boxes * np.array([across, down, across, down])).astype(np.float32)
    points = torch.from_numpy(load_picture_landmarker("dlib")([picture] * len(boxes), boxes))
    faces = [Face(tuple(box), own, eyes) for box, own, eyes in zip(boxes.tolist(), points, apart, strict=True)]
    return sorted(faces, key=lambda face: face.box[0])


def _join(dlib: Boxes, mtcnn: FivePoints) -> tuple[Boxes, list[float | None]]:
    """[n, 4]: the boxes of faces, dlib's where both have one, as the landmarks were learnt on its; and `eyes_apart`."""
    seen = mtcnn.boxes[:, :4]
    sure = dlib[dlib[:, 4] >= (CERTAIN if len(seen) else CONFIDENT["dlib"])][:, :4]
    shared = overlap(seen, dlib[:, :4])  # [seen, dlib]
    own = [dlib[row.argmax(), :4] if row.max(initial=0) > SAME else box for row, box in zip(shared, seen, strict=True)]
    others = [box for box in sure if overlap(box[None], np.stack(own)).max() <= SAME] if own else list(sure)
    apart: list[float | None] = [_eyes_apart(points) for points in mtcnn.points]
    return np.array([*own, *others], np.float32).reshape(-1, 4), apart + [None] * len(others)


def _eyes_apart(points: NDArray[np.float32]) -> float:
    """How far the eyes are apart across the face: the cosine of its turn, nearly. Five points [5, 2]."""
    left, right, _, corner, other = points
    down = (corner + other) / 2 - (left + right) / 2
    across = np.array([down[1], -down[0]])
    return float(np.dot(right - left, across) / np.dot(down, down).clip(1e-6))


def choose_face(photo: Tensor, name: str, faces: Sequence[Face], number: int | None = None) -> Face:
    """The face of that number, or the only one that is not much smaller than the largest.

    Raises:
        NoFaceFound: there is no such face.
        SeveralFaces: there are several to choose from.
    """
    _, height, width = photo.shape
    if not faces:
        raise NoFaceFound(f"no face in '{name}' ({width}x{height}); give a larger or more frontal picture")
    if number is not None:
        if not 1 <= number <= len(faces):
            shown = f"{len(faces)} face{'s'[: len(faces) > 1]}"
            raise NoFaceFound(f"'{name}' shows {shown}, and --face asks for number {number}; choose another")
        return faces[number - 1]
    largest = max(face.side for face in faces)
    rivals = [n for n, face in enumerate(faces, 1) if face.side * RIVAL > largest]
    if len(rivals) > 1:
        places = ", ".join(f"{n} at x {sum(faces[n - 1].box[::2]) / 2:.0f}" for n in rivals)
        raise SeveralFaces(
            f"'{name}' shows {len(rivals)} faces ({places}); choose one with --face, or look at them with --show-crop"
        )
    return faces[rivals[0] - 1]


def crop_face(photo: Tensor, name: str, size: int, faces: Sequence[Face], face: Face) -> Portrait:
    """The head crop around one of the faces of a picture.

    Raises:
        NoFaceFound: it is too small for this size, or turned too far away.
    """
    _, height, width = photo.shape
    crop = head_crop(Track(0, face.points[None].numpy()), width, height)
    if face.eyes_apart is not None and face.eyes_apart < PROFILE:
        raise NoFaceFound(f"the face in '{name}' is turned away too far; give a picture that shows both eyes")
    if size > ENLARGED * crop.side:
        raise NoFaceFound(
            f"the face in '{name}' is {face.side:.0f} pixels wide, too small for a head of {size} pixels; give a "
            f"larger picture, or --size {int(ENLARGED * crop.side) // 16 * 16}"
        )
    frame = cut_out(photo, crop, size)
    points = torch.from_numpy(tracking.points_in(crop, face.points[None].numpy(), size))
    landmarks = Landmarks(points, torch.tensor([True]))
    return Portrait(name, photo, faces, face, crop, Clip(name, frame[None], 25.0), landmarks)


def cut_out(photo: Tensor, crop: Crop, size: int) -> Tensor:
    """[3, size, size]: the crop of a picture, resized; beyond the picture its border is repeated."""
    _, height, width = photo.shape
    head = tracking.cut_out(photo.permute(1, 2, 0).numpy(), crop, width, height, size)
    return torch.from_numpy(head.copy()).permute(2, 0, 1)


def draw_faces(portrait_faces: Sequence[Face], photo: Tensor, portrait: Portrait | None) -> Tensor:
    """The picture with its faces numbered, and where a portrait is given its crop, and the crop with its landmarks.

    [3, H, W] uint8 RGB.
    """
    picture = np.ascontiguousarray(photo.permute(1, 2, 0).numpy())
    unit = max(photo.shape[1:]) / 512
    thick = max(1, round(2 * unit))
    for number, face in enumerate(portrait_faces, 1):
        x0, y0, x1, y1 = (round(v) for v in face.box)
        cv2.rectangle(picture, (x0, y0), (x1, y1), (255, 220, 0), thick)
        place = (x0 + 2 * thick, y0 + round(24 * unit))
        cv2.putText(picture, str(number), place, cv2.FONT_HERSHEY_SIMPLEX, 0.8 * unit, (255, 220, 0), thick)
    if portrait is None:
        return torch.from_numpy(picture).permute(2, 0, 1)
    crop = portrait.crop
    corners = (crop.x, crop.y), (crop.x + crop.side - 1, crop.y + crop.side - 1)
    cv2.rectangle(picture, *corners, (0, 220, 255), thick)
    shown = torch.from_numpy(picture).permute(2, 0, 1)
    head = portrait.support.frames[0]
    lines = draw_landmarks(portrait.landmarks.points[0], *portrait.support.size)
    head = torch.where(lines.amax(0) > 0, lines, head)
    height = shown.shape[1]
    beside = tvf.resize(head, [height, height], antialias=True)
    return torch.cat([shown, beside], 2)


@cache
def _five_points() -> Callable[[Sequence[Picture]], list[FivePoints]]:
    return load_five_points(CONFIDENT["mtcnn"])
