"""The marks on what theval generates: the visible label, and the words and XMP that media.py puts into files."""

from xml.sax.saxutils import escape

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from thead_eval.types import Clip

LABEL = "SYNTHETIC"
SYNTHETIC_SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"


def label_synthetic(clip: Clip) -> Clip:
    """The clip with a label in its lower left corner, a sixteenth of its height."""
    return Clip(clip.id, label_frames(clip.frames), clip.fps)


def label_frames(frames: Tensor) -> Tensor:
    """Frames [T, 3, H, W] uint8 RGB with the label; those passed in stay as they were."""
    height = frames.shape[2]
    font = ImageFont.load_default(size=max(8, height / 20))
    left, top, right, bottom = font.getbbox(LABEL)
    margin = max(2, height // 64)
    plate = Image.new("RGB", (round(right - left) + 2 * margin, round(bottom - top) + 2 * margin), (0, 0, 0))
    ImageDraw.Draw(plate).text((margin - left, margin - top), LABEL, (255, 255, 255), font)
    pixels = torch.from_numpy(np.array(plate)).permute(2, 0, 1)  # [3, h, w]
    frames = frames.clone()
    region = frames[:, :, height - pixels.shape[1] :, : pixels.shape[2]]  # a clip may be smaller than its label
    region.copy_(pixels[:, -region.shape[2] :, : region.shape[3]].expand_as(region))
    return frames


def describe_synthetic(generator: str) -> str:
    """What a file's comment says."""
    return f"Synthetic media made by theval generator {generator}"


def xmp_packet(generator: str) -> str:
    """XMP with IPTC's digital source type, which agencies, search engines and social networks read."""
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about=""'
        ' xmlns:dc="http://purl.org/dc/elements/1.1/"'
        ' xmlns:xmp="http://ns.adobe.com/xap/1.0/"'
        ' xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
        f' xmp:CreatorTool="theval" Iptc4xmpExt:DigitalSourceType="{SYNTHETIC_SOURCE}">'
        f'<dc:description><rdf:Alt><rdf:li xml:lang="x-default">{escape(describe_synthetic(generator))}</rdf:li>'
        "</rdf:Alt></dc:description></rdf:Description></rdf:RDF></x:xmpmeta>"
        '<?xpacket end="r"?>'
    )
