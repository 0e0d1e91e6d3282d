"""One photograph or painting to a support frame: the face, its landmarks, and the head crop that clips have."""

import torch
import torch.nn.functional as F
import torchvision.transforms.v2.functional as tvf
from torch import Tensor

from thead_eval.errors import NoFaceFound
from thead_eval.faces import find_landmarks, load_detector, load_landmarker
from thead_eval.tracking import Track, head_crop
from thead_eval.types import Clip, Landmarks


def crop_portrait(photo: Tensor, name: str, size: int) -> tuple[Clip, Landmarks]:
    """The head of the largest face as a clip of one frame, framed as `theval prepare` frames a video.

    Args:
        photo: [3, H, W] uint8 RGB.
        name: The clip's id, and the photo's name in the error.
        size: Pixels a side of the crop.

    Raises:
        NoFaceFound: there is no face.
    """
    device = torch.device("cpu")
    _, height, width = photo.shape
    landmarks = find_landmarks(photo[None], load_detector("dlib", device), load_landmarker("dlib", device))
    if not landmarks.found[0]:
        raise NoFaceFound(f"no face in '{name}' ({width}x{height}); give a larger or more frontal picture")
    crop = head_crop(Track(0, landmarks.points.numpy()), width, height)
    # Beyond the picture its border is repeated.
    before = (max(-crop.x, 0), max(-crop.y, 0))
    after = (max(crop.x + crop.side - width, 0), max(crop.y + crop.side - height, 0))
    padded = F.pad(photo[None].float(), (before[0], after[0], before[1], after[1]), mode="replicate").to(torch.uint8)
    x, y = crop.x + before[0], crop.y + before[1]
    square = padded[:, :, y : y + crop.side, x : x + crop.side]
    frame = tvf.resize(square, [size, size], tvf.InterpolationMode.BILINEAR, antialias=True)
    corner = torch.tensor([crop.x, crop.y])
    points = (landmarks.points + 0.5 - corner) * (size / crop.side) - 0.5
    return Clip(name, frame, 25.0), Landmarks(points, landmarks.found)
