"""The visible label on what theval generates; media.write_clip puts the same into a file's metadata."""

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from thead_eval.types import Clip

LABEL = "SYNTHETIC"


def label_synthetic(clip: Clip) -> Clip:
    """The clip with a label in its lower left corner, a sixteenth of its height."""
    height, _ = clip.size
    font = ImageFont.load_default(size=max(8, height / 20))
    left, top, right, bottom = font.getbbox(LABEL)
    margin = max(2, height // 64)
    plate = Image.new("RGB", (round(right - left) + 2 * margin, round(bottom - top) + 2 * margin), (0, 0, 0))
    ImageDraw.Draw(plate).text((margin - left, margin - top), LABEL, (255, 255, 255), font)
    pixels = torch.from_numpy(np.array(plate)).permute(2, 0, 1)  # [3, h, w]
    frames = clip.frames.clone()
    region = frames[:, :, height - pixels.shape[1] :, : pixels.shape[2]]  # a clip may be smaller than its label
    region.copy_(pixels[:, -region.shape[2] :, : region.shape[3]].expand_as(region))
    return Clip(clip.id, frames, clip.fps)
