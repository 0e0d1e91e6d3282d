"""How training frames are changed, real and fake alike: what happens to video on its way to a viewer.

A change is drawn once and made to all frames of a sample. Made by Pillow, OpenCV and FFmpeg, which let other threads
work, and from a generator of its own: torchvision's transforms draw from torch's, which all threads would share.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from thead_eval.errors import ConfigError
from thead_eval.pictures import Picture, through_h264


@dataclass(frozen=True)
class Augmentation:
    """Parts of the samples that each change is made to, and how far it goes.

    Raises:
        ConfigError: a value is out of range.
    """

    flip: float = 0.5
    crop: float = 0.7  # see less than the whole picture
    smallest: float = 0.8  # side of that part
    colour: float = 0.5
    colour_by: float = 0.2  # brightness, contrast, gamma and the balance of channels: at most so much up or down
    blur: float = 0.2
    blur_to: float = 1.5  # standard deviation in pixels of 224, at most
    noise: float = 0.2
    noise_to: float = 8.0  # standard deviation in levels, at most
    noise_late: float = 0.0  # the part of the noisy ones whose noise comes after all coding, as of a player
    resize: float = 0.3  # made smaller, and large again
    resize_to: float = 0.4  # of the side, at least
    h264: float = 0.1
    crf: tuple[int, int] = (20, 38)
    jpeg: float = 0.5
    quality: tuple[int, int] = (40, 95)

    def __post_init__(self) -> None:
        for name in ("flip", "crop", "colour", "blur", "noise", "noise_late", "resize", "h264", "jpeg"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"augmentation {name} = {getattr(self, name)} is not a part, 0 to 1")
        for name in ("smallest", "resize_to"):
            if not 0.25 <= getattr(self, name) <= 1:
                raise ConfigError(f"augmentation {name} = {getattr(self, name)} is out of range; choose 0.25 to 1")
        if not 0 <= self.colour_by <= 0.5:
            raise ConfigError(f"augmentation colour_by = {self.colour_by} is out of range; choose 0 to 0.5")
        for name, lowest, highest in (("crf", 0, 51), ("quality", 1, 100)):
            least, most = getattr(self, name)
            if not lowest <= least <= most <= highest:
                raise ConfigError(
                    f"augmentation {name} = {[least, most]} is out of range; choose two numbers from {lowest} to "
                    f"{highest}, the smaller first"
                )


# What may have happened to a video before a detector sees it, and must not be what a fake is known by: it was filmed in
# another light, cut out elsewhere, sent on, and played by what adds noise.
SENT_ON = Augmentation(
    crop=0.5,
    colour=0.4,
    colour_by=0.4,
    blur=0.25,
    blur_to=4.0,
    noise=0.4,
    noise_to=12.0,
    noise_late=0.75,
    resize=0.3,
    resize_to=0.25,
    h264=1.0,
    crf=(18, 40),
    jpeg=0.3,
    quality=(20, 95),
)


class Change(NamedTuple):
    """What was drawn for one sample; None is not done."""

    flip: bool
    box: tuple[float, float, float, float] | None  # the part that is seen: x0, y0, x1, y1, parts of the side
    colours: NDArray[np.uint8] | None  # [256, 1, 3] what each value of each channel becomes
    blur: float | None  # pixels
    noise: tuple[float, int, bool] | None  # levels, seed, whether after all coding
    resize: float | None  # part of the side
    crf: int | None
    quality: int | None


UNCHANGED = Change(False, None, None, None, None, None, None, None)


def draw_change(draw: np.random.Generator, by: Augmentation) -> Change:
    """One sample's change."""
    flip = bool(draw.random() < by.flip)
    box = colours = blur = noise = resize = crf = quality = None
    if draw.random() < by.crop:
        side = draw.uniform(by.smallest, 1)
        x, y = draw.uniform(0, 1 - side, 2)
        box = (float(x), float(y), float(x + side), float(y + side))
    if draw.random() < by.colour:
        gamma, contrast, brightness = draw.uniform(-by.colour_by, by.colour_by, 3)
        balance = 1 + draw.uniform(-by.colour_by, by.colour_by, 3) / 3
        curve = (np.arange(256)[:, None] / 255) ** np.exp(gamma) * balance  # [256, 3]
        curve = (curve - 0.5) * (1 + contrast) + 0.5 + brightness / 2
        colours = (curve * 255).round().clip(0, 255).astype(np.uint8)[:, None]
    if draw.random() < by.blur:
        blur = float(draw.uniform(0.3, max(by.blur_to, 0.3)))
    if draw.random() < by.noise:
        noise = (float(draw.uniform(0, by.noise_to)), int(draw.integers(2**31)), False)
    if draw.random() < by.resize:
        resize = float(draw.uniform(by.resize_to, 1))
    if draw.random() < by.h264:
        crf = int(draw.integers(by.crf[0], by.crf[1] + 1))
    if draw.random() < by.jpeg:
        quality = int(draw.integers(by.quality[0], by.quality[1] + 1))
    # Drawn last, and only where it is asked for: without, samples are what they were before there was late noise.
    late = by.noise_late > 0 and draw.random() < by.noise_late
    if noise is not None and late:
        noise = (*noise[:2], True)
    return Change(flip, box, colours, blur, noise, resize, crf, quality)


def change(frames: Sequence[Picture], by: Change, size: int) -> list[Picture]:
    """The frames [S, S, 3] as changed, [size, size, 3], in the order of camera, network and player."""
    levels, seed, late = by.noise or (0.0, 0, False)
    noise = np.random.default_rng(seed)
    changed = []
    for frame in frames:
        picture = frame
        side = len(picture)
        if by.box is not None:
            box = tuple(part * side for part in by.box)
            seen = Image.fromarray(picture).resize((side, side), Image.Resampling.BILINEAR, box=box)  # type: ignore[arg-type]  # four of them
            picture = np.asarray(seen)
        if by.flip:
            picture = np.ascontiguousarray(picture[:, ::-1])
        if by.colours is not None:
            picture = cv2.LUT(picture, by.colours)  # type: ignore[assignment]  # the stubs know any array
        if by.blur is not None:
            picture = cv2.GaussianBlur(picture, (0, 0), by.blur * side / 224)  # type: ignore[assignment]
        if levels and not late:
            picture = _noisy(picture, levels, noise)
        if by.resize is not None:
            small = round(by.resize * side)
            shrunk = Image.fromarray(picture).resize((small, small), Image.Resampling.BILINEAR)
            picture = np.asarray(shrunk.resize((side, side), Image.Resampling.BICUBIC))
        changed.append(picture)
    if by.crf is not None:
        changed = through_h264(changed, by.crf)
    if by.quality is not None:
        changed = [through_jpeg(picture, by.quality) for picture in changed]
    if late:
        changed = [_noisy(picture, levels, noise) for picture in changed]
    return [shrink(picture, size) for picture in changed]


def _noisy(picture: Picture, levels: float, noise: np.random.Generator) -> Picture:
    grain = noise.standard_normal(picture.shape, np.float32) * np.float32(levels)
    return (picture + grain).round().clip(0, 255).astype(np.uint8)


def shrink(picture: Picture, size: int) -> Picture:
    """[size, size, 3], antialiased."""
    if len(picture) == size:
        return picture
    return np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.BILINEAR))


def through_jpeg(picture: Picture, quality: int) -> Picture:
    """Encoded as most cameras and sites do, with chroma at half resolution, and decoded."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as image:
        return np.asarray(image.convert("RGB"))
