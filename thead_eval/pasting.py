"""A made head back into the picture that it was cut from, without a visible seam and with the picture's colours."""

from dataclasses import dataclass

import torch
import torchvision.transforms.v2.functional as tvf
from torch import Tensor

from thead_eval.portraits import Portrait, cut_out
from thead_eval.tracking import Crop

SEAM = 0.12  # of the crop's side: how far the seam is spread


@dataclass(frozen=True)
class Place:
    """Where a made head goes."""

    photo: Tensor  # [3, H, W] uint8 RGB
    crop: Crop
    weight: Tensor  # [1, side, side] float32: 1 = the made head, 0 = the picture
    shift: Tensor  # [3, 1, 1] float32: added to the made head's colours


def find_place(portrait: Portrait, first: Tensor) -> Place:
    """The place of frames [3, S, S] that were made from a portrait, of which this is the first.

    A generator may change the colours of everything a little. The shift that the seam shows in the first frame is taken
    from all of them: taken from each by itself it would flicker with what moves through the seam.
    """
    _, height, width = portrait.photo.shape
    crop = portrait.crop
    before = cut_out(portrait.photo, crop, first.shape[1]).float()
    weight = _weight(crop, height, width)
    seam = tvf.resize(weight, [first.shape[1]] * 2, antialias=True)[0] < 0.5  # [S, S]
    shift = torch.zeros(3)
    if seam.any():
        shift = (before - first.float())[:, seam].median(dim=1).values
    return Place(portrait.photo, crop, weight, shift[:, None, None])


def paste(place: Place, frame: Tensor) -> Tensor:
    """The picture [3, H, W] uint8 RGB with a made head [3, S, S]. Outside the crop its pixels stay as they were."""
    _, height, width = place.photo.shape
    x, y, side = place.crop
    head = tvf.resize(frame.float(), [side, side], tvf.InterpolationMode.BICUBIC, antialias=True) + place.shift
    left, top, right, bottom = max(x, 0), max(y, 0), min(x + side, width), min(y + side, height)
    inside = (slice(None), slice(top - y, bottom - y), slice(left - x, right - x))
    picture = place.photo.clone()
    region = picture[:, top:bottom, left:right]
    mixed = torch.lerp(region.float(), head[inside], place.weight[inside])
    region.copy_(mixed.round().clamp(0, 255))
    return picture


def _weight(crop: Crop, height: int, width: int) -> Tensor:
    """[1, side, side]: rises from 0 at the crop's edges, but not where the picture itself ends."""
    place = (torch.arange(crop.side) + 0.5) / (SEAM * crop.side)  # 1 where the seam ends
    rise = place.clamp(max=1)
    rise = rise * rise * (3 - 2 * rise)
    fall, one = rise.flip(0), torch.ones(crop.side)
    across = (rise if crop.x > 0 else one) * (fall if crop.x + crop.side < width else one)
    down = (rise if crop.y > 0 else one) * (fall if crop.y + crop.side < height else one)
    return (down[:, None] * across)[None]
