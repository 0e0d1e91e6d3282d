"""Face boxes and 68 landmarks, by backends with names: whatever depends on one carries its name.

Every detector's boxes mean the same: a square from the brows to just below the chin, as dlib's are. A landmarker
therefore takes the boxes of any detector, or those that `face_box` makes from landmarks.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thead_eval import weights
from thead_eval.types import NUM_POINTS, Landmarks

DetectorName = Literal["dlib", "mtcnn"]
LandmarkerName = Literal["dlib", "fan"]

# [B, 3, H, W] uint8 RGB -> a tensor per frame, [n, 5] float32: x0, y0, x1, y1, score
Detector = Callable[[Tensor], list[Tensor]]
# ([B, 3, H, W] uint8 RGB, [B, 4] float32 boxes) -> [B, 68, 2] float32
Landmarker = Callable[[Tensor, Tensor], Tensor]

CONFIDENT: dict[DetectorName, float] = {"dlib": 0.0, "mtcnn": 0.9}  # a box with this score is a face
DOUBTFUL: dict[DetectorName, float] = {"dlib": -0.6, "mtcnn": 0.6}  # one with this score confirms a face known there

MTCNN_SMALLEST = 0.1  # of the frame's shorter side; MTCNN's time goes with the square of what this leaves out
MTCNN_BATCH = 16

# dlib's box of a face in terms of its 68 points: medians of HOG detections over 250 frames of 40 people.
POINTS_CENTRE = (0.504, 0.540)  # the points' mean, in boxes from the box's corner
POINTS_SPREAD = 0.3616  # their root mean square distance from it, in boxes
# and in terms of MTCNN's box, over 79 people: that one reaches up to the forehead and is narrower.
MTCNN_SIDE = 0.80  # dlib's side, in heights of MTCNN's box
MTCNN_DROP = 0.06  # how much lower dlib's centre lies, in the same


def load_detector(name: DetectorName, device: torch.device, *, doubtful: bool = False) -> Detector:
    """A face detector.

    Args:
        name: 'dlib' (HOG, on the CPU; finds faces of 80 pixels, and in frames without any looks for 40) or 'mtcnn'.
        device: Where MTCNN runs.
        doubtful: Also give the boxes that score between DOUBTFUL and CONFIDENT: profiles, and much that is no face.

    Raises:
        WeightsMissing: a network's file is not on this machine.
        WeightsCorrupt: it is another file.
    """
    threshold = DOUBTFUL[name] if doubtful else CONFIDENT[name]
    return _load_dlib_detector(threshold) if name == "dlib" else _load_mtcnn(threshold, device)


def load_landmarker(name: LandmarkerName, device: torch.device) -> Landmarker:
    """A landmark network: 'dlib' (on the CPU), or 'fan', whose weights are fetched.

    Raises:
        WeightsMissing: its file is not on this machine.
        WeightsCorrupt: it is another file.
    """
    return _load_dlib_landmarker() if name == "dlib" else _load_fan(device)


def find_landmarks(frames: Tensor, detector: Detector, landmarker: Landmarker) -> Landmarks:
    """68 points of the largest face in each of [T, 3, H, W] uint8 frames, each frame by itself; NaN where none is."""
    points = torch.full((len(frames), NUM_POINTS, 2), torch.nan)
    boxes = [largest(boxes) for boxes in detector(frames)] if len(frames) else []
    found = torch.tensor([box is not None for box in boxes], dtype=torch.bool)
    if found.any():
        points[found] = landmarker(frames[found], torch.stack([box for box in boxes if box is not None]))
    return Landmarks(points, found)


def largest(boxes: Tensor) -> Tensor | None:
    """[4]: the largest of [n, 5] boxes, without its score; None where there is none."""
    if not len(boxes):
        return None
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return boxes[areas.argmax(), :4]


def face_box(points: Tensor) -> Tensor:
    """[B, 4] boxes where a detector would see the faces with these [B, 68, 2] points."""
    centre = points.mean(dim=1)  # [B, 2]
    spread = (points - centre[:, None]).square().sum(dim=2).mean(dim=1).sqrt()  # [B]
    side = (spread / POINTS_SPREAD)[:, None]  # [B, 1]
    corner = centre - side * torch.tensor(POINTS_CENTRE)
    return torch.cat([corner, corner + side], dim=1)


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """[n, m] intersection over union of [n, 4] and [m, 4] boxes."""
    corner = torch.maximum(a[:, None, :2], b[None, :, :2])
    size = (torch.minimum(a[:, None, 2:4], b[None, :, 2:4]) - corner).clamp(min=0)
    shared = size[..., 0] * size[..., 1]
    area_a = (a[:, 2] - a[:, 0]) * (a[:, 3] - a[:, 1])
    area_b = (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])
    return shared / (area_a[:, None] + area_b[None] - shared).clamp(min=1e-6)


def _picture(frame: Tensor) -> NDArray[np.uint8]:
    """[H, W, 3], contiguous, as dlib and face-alignment take it."""
    picture: NDArray[np.uint8] = np.ascontiguousarray(frame.permute(1, 2, 0).cpu().numpy())
    return picture


def _load_dlib_detector(threshold: float) -> Detector:
    import dlib

    find = dlib.get_frontal_face_detector()

    def detect(frames: Tensor) -> list[Tensor]:
        return [boxes_of(_picture(frame)) for frame in frames]

    def boxes_of(picture: NDArray[np.uint8]) -> Tensor:
        rectangles, scores, _ = find.run(picture, 0, threshold)
        if not any(score >= CONFIDENT["dlib"] for score in scores):
            # In a picture of twice the size, which takes four times as long, faces half as large are found.
            rectangles, scores, _ = find.run(picture, 1, threshold)
        rows = [
            (box.left(), box.top(), box.right() + 1, box.bottom() + 1, score)
            for box, score in zip(rectangles, scores, strict=True)
        ]
        return torch.tensor(rows, dtype=torch.float32).reshape(-1, 5)

    return detect


def _load_mtcnn(threshold: float, device: torch.device) -> Detector:
    from facenet_pytorch import MTCNN
    from facenet_pytorch.models.utils.detect_face import detect_face

    for name in ("mtcnn_pnet", "mtcnn_rnet", "mtcnn_onet"):
        weights.path(name)  # the package reads its own files; here they are verified
    network = MTCNN(device=device)

    def detect(frames: Tensor) -> list[Tensor]:
        smallest = max(20, round(MTCNN_SMALLEST * min(frames.shape[2:])))
        found: list[Tensor] = []
        for batch in torch.split(frames, MTCNN_BATCH):
            # `MTCNN.forward` fails on a batch in which one frame has no face; what it calls inside does not.
            pictures = np.stack([_picture(frame) for frame in batch])
            with torch.no_grad():
                boxes, _ = detect_face(
                    pictures,
                    smallest,
                    network.pnet,
                    network.rnet,
                    network.onet,
                    [0.6, 0.7, threshold],
                    network.factor,
                    network.device,
                )
            found += [as_dlib(torch.from_numpy(np.array(rows, np.float32).reshape(-1, 5))) for rows in boxes]
        return found

    def as_dlib(boxes: Tensor) -> Tensor:
        height = boxes[:, 3] - boxes[:, 1]
        half = MTCNN_SIDE * height / 2
        x = (boxes[:, 0] + boxes[:, 2]) / 2
        y = (boxes[:, 1] + boxes[:, 3]) / 2 + MTCNN_DROP * height
        return torch.stack([x - half, y - half, x + half, y + half, boxes[:, 4]], dim=1)

    return detect


def _load_dlib_landmarker() -> Landmarker:
    import dlib

    predict = dlib.shape_predictor(str(weights.path("dlib_68")))

    def landmarks(frames: Tensor, boxes: Tensor) -> Tensor:
        points = torch.empty(len(frames), NUM_POINTS, 2)
        for number, (frame, box) in enumerate(zip(frames, boxes.round().int().tolist(), strict=True)):
            x0, y0, x1, y1 = box
            shape = predict(_picture(frame), dlib.rectangle(x0, y0, x1 - 1, y1 - 1))
            points[number] = torch.tensor([(point.x, point.y) for point in shape.parts()])
        return points

    return landmarks


def _load_fan(device: torch.device) -> Landmarker:
    from face_alignment import FaceAlignment, LandmarksType

    with weights.torch_hub("fan_2dfan4"):
        # 'folder' is the package's name for boxes that come from elsewhere; compiling takes longer than a clip.
        network = FaceAlignment(LandmarksType.TWO_D, device=str(device), face_detector="folder", compile=False)

    def landmarks(frames: Tensor, boxes: Tensor) -> Tensor:
        points = torch.empty(len(frames), NUM_POINTS, 2)
        for number, (frame, box) in enumerate(zip(frames, boxes.tolist(), strict=True)):
            (found,) = network.get_landmarks_from_image(_picture(frame), detected_faces=[box])
            points[number] = torch.from_numpy(found)
        return points

    return landmarks
