"""What in a frame a detector goes by: the change of its score when a part of the frame is blurred away (occlusion).

Needs nothing of a detector but its score, so that a network, a spectrum and an ensemble are explained alike. The first
form of it is by Zeiler and Fergus (2014), with grey squares; a grey square is itself something that no face has, and a
detector of fakes reacts to it.
"""

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thead_eval.pictures import Picture

PLACES = 7  # of the window along a side
REACH = 0.22  # of the frame's side: the window's standard deviation is half of it
BLUR = 0.06  # of the frame's side: the standard deviation of what stands in
PART = 0.1  # of the picture that is blurred to see whether a map is right
ELSEWHERE = ((0.5, 0.0), (0.0, 0.5), (0.5, 0.5), (0.25, 0.25))  # where else as much is: down and across, in sides
STRONGEST = 0.62  # opacity where the map is at its greatest

# Score of [K, 3, H, W] uint8 heads: [K], NaN where a frame could not be scored
Score = Callable[[Tensor], Tensor]


def heat_map(score: Score, heads: Tensor) -> NDArray[np.float32]:
    """[K, H, W] of heads [K, 3, H, W] uint8: above 0 where a part speaks for a fake, below where against.

    The same part is blurred in all K at once, as a detector may judge them together.

    In units of the score: by how much it falls without that part. A frame's map is 0 where it could not be scored.
    """
    frames, _, height, width = heads.shape
    blurred = torch.stack([_blur(head) for head in heads]).float()
    whole = score(heads)  # [K]
    centres = (torch.arange(PLACES) + 0.5) / PLACES
    y, x = (torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width
    falls = torch.zeros(frames, PLACES, PLACES)
    for i, down in enumerate(centres):
        for j, across in enumerate(centres):
            distance = (y[:, None] - down).square() + (x[None] - across).square()  # [H, W]
            window = torch.exp(-distance / (2 * (REACH / 2) ** 2))
            mixed = torch.lerp(heads.float(), blurred, window).round().to(torch.uint8)
            falls[:, i, j] = whole - score(mixed)
    maps = torch.nn.functional.interpolate(
        falls.nan_to_num()[:, None], (height, width), mode="bicubic", align_corners=False
    )
    return maps[:, 0].numpy()


class Falls(NamedTuple):
    """By how much scores fall [K], in units of the score; NaN where a frame could not be scored."""

    reddest: Tensor  # without the tenth of the picture that a map has highest
    elsewhere: Tensor  # without as much at other places, the mean of four


def check_maps(score: Score, heads: Tensor, maps: NDArray[np.float32]) -> Falls:
    """Whether heads [K, 3, H, W] hang on what their maps [K, H, W] say, or one map [1, H, W] of all of them: the
    deletion of Petsiuk et al. (RISE, 2018) at one tenth.
    """
    height, width = heads.shape[2:]
    reddest = torch.zeros(len(maps), height * width, dtype=torch.bool)
    reddest.scatter_(1, torch.from_numpy(maps).flatten(1).topk(round(PART * height * width)).indices, True)
    reddest = reddest.view(-1, 1, height, width)
    blurred, whole = torch.stack([_blur(head) for head in heads]), score(heads)

    def fall(part: Tensor) -> Tensor:
        return whole - score(torch.where(part, blurred, heads))

    others = [fall(reddest.roll((int(down * height), int(across * width)), (2, 3))) for down, across in ELSEWHERE]
    return Falls(fall(reddest), torch.stack(others).mean(dim=0))


def _blur(head: Tensor) -> Tensor:
    """[3, H, W] uint8."""
    picture = cv2.GaussianBlur(head.permute(1, 2, 0).contiguous().numpy(), (0, 0), BLUR * head.shape[1])
    return torch.from_numpy(picture).permute(2, 0, 1)


def lay_over(picture: Picture, own: NDArray[np.float32]) -> Picture:
    """The picture in grey under its map [H, W]: red speaks for a fake, blue against, as strong as in this frame."""
    strength = np.abs(own) / max(float(np.abs(own).max()), 1e-6)
    opacity = (STRONGEST * strength)[..., None]
    colour = np.where(own[..., None] > 0, np.array([214, 39, 24], np.float32), np.array([20, 96, 200], np.float32))
    grey = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    mixed: Picture = (grey * (1 - opacity) + colour * opacity).round().astype(np.uint8)
    return mixed
