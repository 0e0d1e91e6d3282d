"""Video and image files to frames and back."""

import io
import os
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from thead_eval.errors import MediaError
from thead_eval.pictures import Picture, VideoInfo, decode_frames, open_video, probe_video, reason, to_rgb
from thead_eval.types import Clip

__all__ = [
    "SYNTHETIC_SOURCE",
    "VideoInfo",
    "iter_frames",
    "probe_video",
    "read_clip",
    "read_image",
    "read_metadata",
    "write_clip",
]

SYNTHETIC_SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"


def iter_frames(path: Path, batch: int = 32) -> Iterator[Tensor]:
    """[B, 3, H, W] uint8 RGB, upright, at most `batch` frames at a time; the last may hold fewer.

    Where the picture changes size within the file, all frames take the first one's.

    Raises:
        MediaError: as `decode_frames`; frames before the damage have been given out by then.
    """
    frames: list[Picture] = []
    size: tuple[int, int] | None = None
    reformatter = VideoReformatter()
    for frame in decode_frames(path):
        size = size or (frame.width, frame.height)
        frames.append(to_rgb(frame, *size, reformatter))
        if len(frames) == batch:
            yield _stack(frames)
            frames.clear()
    if frames:
        yield _stack(frames)


def read_clip(path: Path, id: str | None = None, max_frames: int | None = None) -> Clip:
    """A video as one Clip in memory, its id the file's stem unless given.

    Raises:
        MediaError: the file cannot be opened, holds no video or no frame, is damaged or cut off.
    """
    batches = []
    left = max_frames
    for frames in iter_frames(path):
        batches.append(frames if left is None else frames[:left])
        if left is not None:
            left -= len(batches[-1])
            if left <= 0:
                break
    if not batches:
        raise MediaError(f"'{path}' holds no frames; download or export it again")
    return Clip(path.stem if id is None else id, torch.cat(batches), probe_video(path).fps)


def read_metadata(path: Path) -> dict[str, str]:
    """The container's tags by lower-case name: `comment` says whether theval marked the file as synthetic.

    Raises:
        MediaError: the file cannot be opened, or holds no video.
    """
    with open_video(path) as (container, _):
        return {name.lower(): value for name, value in container.metadata.items()}


def read_image(path: Path) -> Tensor:
    """[3, H, W] uint8 RGB: EXIF orientation applied, transparency composed on white, grey in three channels.

    Raises:
        MediaError: the file cannot be read, or is not an image.
    """
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            if image.mode.startswith("I"):  # 16 bits a pixel: Pillow's own conversion clips instead of scaling
                grey = np.asarray(image).astype(np.float64) / 257
                image = Image.fromarray(grey.round().clip(0, 255).astype(np.uint8))
            if image.has_transparency_data:
                image = image.convert("RGBA")
                white = Image.new("RGBA", image.size, "white")
                image = Image.alpha_composite(white, image)
            pixels = np.array(image.convert("RGB"))  # [H, W, 3]
    except UnidentifiedImageError as error:
        raise MediaError(f"'{path}' is not an image that can be read; give a PNG, JPEG or WebP file") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise MediaError(f"cannot read image '{path}' ({reason(error)}); check the path and the file") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def write_clip(
    path: Path,
    clip: Clip,
    *,
    lossless: bool = False,
    synthetic: str | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a video file whole or not at all: H.264 (visually lossless, CRF 16), or FFV1 in RGB.

    The same clip and arguments give the same bytes.

    Args:
        path: Its suffix names the container; lossless needs '.mkv'.
        clip: At least one frame.
        lossless: Reading the file again gives these very pixels.
        synthetic: The generator's name; marks the file as synthetic in its metadata.
        metadata: More tags; MP4 and Matroska keep any name.

    Raises:
        MediaError: the clip is empty, the suffix names no suitable container, or the file cannot be written.
    """
    if len(clip) == 0:
        raise MediaError(f"clip '{clip.id}' has no frames, so '{path}' was not written")
    if lossless and path.suffix != ".mkv":
        raise MediaError(f"a lossless clip is written as Matroska; name '{path}' with the suffix .mkv")
    tags = dict(metadata or {})
    if synthetic is not None:
        tags["comment"] = f"Synthetic media made by theval generator {synthetic}"
        tags["DigitalSourceType"] = SYNTHETIC_SOURCE
    try:
        _write_whole(path, _encode(path, clip, lossless, tags))
    except (av.FFmpegError, OSError, ValueError) as error:
        raise MediaError(
            f"cannot write '{path}' ({reason(error)}); check the folder, the free space and the suffix"
        ) from error


def _encode(path: Path, clip: Clip, lossless: bool, tags: dict[str, str]) -> bytes:
    """The whole file in memory, so that a full disk shows as an error of one plain write."""
    height, width = clip.size
    container_format = {".mkv": "matroska", ".mp4": "mp4", ".mov": "mov"}.get(path.suffix)
    if container_format is None:
        raise ValueError(f"the suffix '{path.suffix}' is not .mp4, .mov or .mkv")
    options = {"fflags": "+bitexact"}  # no random ids and dates: the same clip gives the same bytes
    if container_format != "matroska":
        options["movflags"] = "+use_metadata_tags"
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container_format, options=options) as container:
        container.metadata.update(tags)
        rate = Fraction(clip.fps).limit_denominator(1001)
        if lossless:
            stream = container.add_stream("ffv1", rate=rate, options={"level": "3", "slicecrc": "1"})
            stream.pix_fmt = "bgr0"
        else:
            stream = container.add_stream("libx264", rate=rate, options={"crf": "16", "preset": "medium"})
            stream.pix_fmt = "yuv420p" if width % 2 == height % 2 == 0 else "yuv444p"  # 4:2:0 needs even sizes
        stream.width, stream.height = width, height
        stream.codec_context.thread_count = 1  # the number of threads shows in the bytes
        for pixels in clip.frames:  # [3, H, W]
            rgb = pixels.permute(1, 2, 0).contiguous().cpu().numpy()
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def _write_whole(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _stack(frames: list[Picture]) -> Tensor:
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).contiguous()  # [B, 3, H, W]
