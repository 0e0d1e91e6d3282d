"""Face detectors and landmark networks by name, on pictures: numpy in, numpy out.

Every detector's boxes mean the same: a square from the brows to just below the chin, as dlib's are. A landmarker
therefore takes the boxes of any detector, or those that `face_box` makes from landmarks.

The dlib backends work without torch, which would take most of a worker process's memory.
"""

import threading
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from thead_eval import weights
from thead_eval.pictures import Picture

DetectorName = Literal["dlib", "mtcnn"]
LandmarkerName = Literal["dlib", "fan"]

Boxes = NDArray[np.float32]  # [n, 5] x0, y0, x1, y1, score; or [n, 4] without the score
Points = NDArray[np.float32]  # [n, 68, 2]
PictureDetector = Callable[[Sequence[Picture]], list[Boxes]]  # of pictures of one size: an array of boxes for each
PictureLandmarker = Callable[[Sequence[Picture], Boxes], Points]  # a picture and its box, a row for each


class FivePoints(NamedTuple):
    """What MTCNN finds in one picture."""

    boxes: Boxes  # [n, 5], as dlib's are
    points: NDArray[np.float32]  # [n, 5, 2] the eyes, the nose, the corners of the mouth; left in the picture first


CONFIDENT: dict[DetectorName, float] = {"dlib": 0.0, "mtcnn": 0.9}  # a box with this score is a face
DOUBTFUL: dict[DetectorName, float] = {"dlib": -0.6, "mtcnn": 0.6}  # one with this score confirms a face known there

MTCNN_SMALLEST = 0.1  # of the picture's shorter side; MTCNN's time goes with the square of what this leaves out
MTCNN_BATCH = 16

# dlib's box of a face in terms of its 68 points: medians of HOG detections over 250 frames of 40 people.
POINTS_CENTRE = (0.504, 0.540)  # the points' mean, in boxes from the box's corner
POINTS_SPREAD = 0.3616  # their root mean square distance from it, in boxes
# and in terms of MTCNN's box, over 79 people: that one reaches up to the forehead and is narrower.
MTCNN_SIDE = 0.80  # dlib's side, in heights of MTCNN's box
MTCNN_DROP = 0.06  # how much lower dlib's centre lies, in the same


@cache
def load_picture_detector(name: DetectorName, device: str = "cpu", *, doubtful: bool = False) -> PictureDetector:
    """A face detector, once a process.

    Args:
        name: 'dlib' (HOG, on the CPU; finds faces of 80 pixels, and in pictures without any looks for 40) or 'mtcnn'.
        device: Where MTCNN runs.
        doubtful: Also give the boxes that score between DOUBTFUL and CONFIDENT: profiles, and much that is no face.

    Raises:
        WeightsMissing: a network's file is not on this machine.
        WeightsCorrupt: it is another file.
    """
    threshold = DOUBTFUL[name] if doubtful else CONFIDENT[name]
    return _load_dlib_detector(threshold) if name == "dlib" else _load_mtcnn(threshold, device)


@cache
def load_picture_landmarker(name: LandmarkerName, device: str = "cpu") -> PictureLandmarker:
    """A landmark network, once a process: 'dlib' (on the CPU), or 'fan', whose weights are fetched.

    Raises:
        WeightsMissing: its file is not on this machine.
        WeightsCorrupt: it is another file.
    """
    return _load_dlib_landmarker() if name == "dlib" else _load_fan(device)


def load_backends(
    detector: DetectorName = "dlib", landmarks: LandmarkerName = "dlib"
) -> tuple[PictureDetector, PictureLandmarker]:
    """What follows faces through a video, doubtful boxes too; on the CPU.

    Raises:
        WeightsMissing, WeightsCorrupt: as the two above.
    """
    return load_picture_detector(detector, doubtful=True), load_picture_landmarker(landmarks)


def face_box(points: Points) -> Boxes:
    """[n, 4] boxes where a detector would see the faces with these points."""
    centre = points.mean(axis=1)  # [n, 2]
    spread = np.sqrt(np.square(points - centre[:, None]).sum(axis=2).mean(axis=1))  # [n]
    side = (spread / POINTS_SPREAD)[:, None]  # [n, 1]
    corner = centre - side * np.array(POINTS_CENTRE)
    return np.concatenate([corner, corner + side], axis=1).astype(np.float32)


def overlap(a: Boxes, b: Boxes) -> NDArray[np.float32]:
    """[n, m] intersection over union of n and m boxes."""
    corner = np.maximum(a[:, None, :2], b[None, :, :2])
    size = (np.minimum(a[:, None, 2:4], b[None, :, 2:4]) - corner).clip(min=0)
    shared = size[..., 0] * size[..., 1]
    area_a = (a[:, 2] - a[:, 0]) * (a[:, 3] - a[:, 1])
    area_b = (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])
    result: NDArray[np.float32] = shared / (area_a[:, None] + area_b[None] - shared).clip(min=1e-6)
    return result


def _load_dlib_detector(threshold: float) -> PictureDetector:
    import dlib

    # Its detector keeps what it searches, and two threads in one end the process.
    own = threading.local()

    def detect(pictures: Sequence[Picture]) -> list[Boxes]:
        return [boxes_of(picture) for picture in pictures]

    def boxes_of(picture: Picture) -> Boxes:
        if not hasattr(own, "detector"):
            own.detector = dlib.get_frontal_face_detector()
        find = own.detector
        rectangles, scores, _ = find.run(picture, 0, threshold)
        if not any(score >= CONFIDENT["dlib"] for score in scores):
            # In a picture of twice the size, which takes four times as long, faces half as large are found.
            rectangles, scores, _ = find.run(picture, 1, threshold)
        rows = [
            (box.left(), box.top(), box.right() + 1, box.bottom() + 1, score)
            for box, score in zip(rectangles, scores, strict=True)
        ]
        return np.array(rows, np.float32).reshape(-1, 5)

    return detect


def _load_mtcnn(threshold: float, device: str) -> PictureDetector:
    find = load_five_points(threshold, device)

    def detect(pictures: Sequence[Picture]) -> list[Boxes]:
        batches = [pictures[n : n + MTCNN_BATCH] for n in range(0, len(pictures), MTCNN_BATCH)]
        return [faces.boxes for batch in batches for faces in find(batch)]

    return detect


def load_five_points(threshold: float, device: str = "cpu") -> Callable[[Sequence[Picture]], list[FivePoints]]:
    """MTCNN with all that it gives, of pictures of one size: boxes, and five points that hold in profile too.

    Raises:
        WeightsMissing: a network's file is not on this machine.
        WeightsCorrupt: it is another file.
    """
    import torch
    from facenet_pytorch import MTCNN
    from facenet_pytorch.models.utils.detect_face import detect_face

    for name in ("mtcnn_pnet", "mtcnn_rnet", "mtcnn_onet"):
        weights.path(name)  # the package reads its own files; here they are verified
    network = MTCNN(device=torch.device(device))

    def find(pictures: Sequence[Picture]) -> list[FivePoints]:
        smallest = max(20, round(MTCNN_SMALLEST * min(pictures[0].shape[:2])))
        # `MTCNN.forward` fails on a batch in which one picture has no face; what it calls inside does not.
        with torch.no_grad():
            found, points = detect_face(
                np.stack(pictures),
                smallest,
                network.pnet,
                network.rnet,
                network.onet,
                [0.6, 0.7, threshold],
                network.factor,
                network.device,
            )
        return [
            FivePoints(as_dlib(np.array(rows, np.float32).reshape(-1, 5)), np.array(own, np.float32).reshape(-1, 5, 2))
            for rows, own in zip(found, points, strict=True)
        ]

    def as_dlib(boxes: Boxes) -> Boxes:
        height = boxes[:, 3] - boxes[:, 1]
        half = MTCNN_SIDE * height / 2
        x = (boxes[:, 0] + boxes[:, 2]) / 2
        y = (boxes[:, 1] + boxes[:, 3]) / 2 + MTCNN_DROP * height
        return np.stack([x - half, y - half, x + half, y + half, boxes[:, 4]], axis=1).astype(np.float32)

    return find


def _load_dlib_landmarker() -> PictureLandmarker:
    import dlib

    predict = dlib.shape_predictor(str(weights.path("dlib_68")))

    def landmarks(pictures: Sequence[Picture], boxes: Boxes) -> Points:
        rows = []
        for picture, (x0, y0, x1, y1) in zip(pictures, boxes.round().astype(int).tolist(), strict=True):
            shape = predict(picture, dlib.rectangle(x0, y0, x1 - 1, y1 - 1))
            rows.append([(point.x, point.y) for point in shape.parts()])
        return np.array(rows, np.float32).reshape(-1, 68, 2)

    return landmarks


def _load_fan(device: str) -> PictureLandmarker:
    import torch

    benchmark = torch.backends.cudnn.benchmark
    with torch.no_grad(), weights.torch_hub("fan_2dfan4"):
        from face_alignment import FaceAlignment, LandmarksType

        # 'folder' is the package's name for boxes that come from elsewhere; compiling takes longer than a clip.
        network = FaceAlignment(LandmarksType.TWO_D, device=device, face_detector="folder", compile=False)
    torch.backends.cudnn.benchmark = benchmark  # the package turns it on for all that the process computes
    return fan_landmarker(network)


def fan_landmarker(network: Any) -> PictureLandmarker:  # Any: a FaceAlignment, whose package has no types
    """The landmarks of a network of face_alignment's, a picture at a time.

    That package has turned autograd off for the whole process, which a training in it would not survive; so the mode is
    put back after each call, whatever happens in it.
    """
    import torch

    def landmarks(pictures: Sequence[Picture], boxes: Boxes) -> Points:
        rows = []
        for picture, box in zip(pictures, boxes.tolist(), strict=True):
            with torch.no_grad():
                (found,) = network.get_landmarks_from_image(picture, detected_faces=[box])
            rows.append(found)
        return np.array(rows, np.float32).reshape(-1, 68, 2)

    return landmarks
