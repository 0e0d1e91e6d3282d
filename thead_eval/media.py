"""Video and image files to frames and back."""

import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from thead_eval.errors import MediaError
from thead_eval.types import Clip

UNSTATED_FPS = 25.0  # of a file that states no frame rate; the rate of the field's data sets
ENDED_EARLY = 0.9  # fewer frames than this part of what the header states: the file was cut off
SYNTHETIC_SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"


@dataclass(frozen=True)
class VideoInfo:
    """What a video's header states."""

    fps: float  # the mean, where the rate varies; 25 where none is stated
    width: int  # as stored: before rotation
    height: int
    frames: int | None  # None where the container does not say


def probe_video(path: Path) -> VideoInfo:
    """Read a video's header.

    Raises:
        MediaError: the file cannot be opened, or holds no video.
    """
    with _open(path) as (_, stream):
        return _info(path, stream)


def decode_frames(path: Path, threads: int = 0) -> Iterator[av.VideoFrame]:
    """Each frame as decoded, not rotated; a variable frame rate gives each stored frame once.

    Args:
        path: The video.
        threads: Of the decoder; 0 = one a core.

    Raises:
        MediaError: the file cannot be opened, holds no video, is damaged, or ends before what its header states.
    """
    with _open(path) as (container, stream):
        stated = _info(path, stream).frames
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = threads
        decoded = 0
        try:
            for frame in container.decode(stream):
                decoded += 1
                yield frame
        except av.FFmpegError as error:
            raise MediaError(
                f"'{path}' is damaged after frame {decoded} ({_reason(error)}); download or export it again"
            ) from error
    if stated is not None and decoded < ENDED_EARLY * stated:
        raise MediaError(f"'{path}' ends after {decoded} of {stated} frames; download or export it again")


def to_rgb(
    frame: av.VideoFrame,
    width: int | None = None,
    height: int | None = None,
    reformatter: VideoReformatter | None = None,
) -> NDArray[np.uint8]:
    """A decoded frame as [H, W, 3] uint8 RGB, resized (area-averaged) where a size is given, then rotated upright.

    Width and height are those before rotation. Colours follow the matrix and range that the frame states. A reformatter
    that is passed again keeps its tables, which take longer to build than a small frame to convert.
    """
    reformatter = reformatter or VideoReformatter()
    rgb = reformatter.reformat(frame, width, height, "rgb24", interpolation="AREA").to_ndarray()
    return np.rot90(rgb, frame.rotation // 90)  # both count counter-clockwise


def iter_frames(path: Path, batch: int = 32) -> Iterator[Tensor]:
    """[B, 3, H, W] uint8 RGB, upright, at most `batch` frames at a time; the last may hold fewer.

    Where the picture changes size within the file, all frames take the first one's.

    Raises:
        MediaError: as `decode_frames`; frames before the damage have been given out by then.
    """
    frames: list[NDArray[np.uint8]] = []
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
    with _open(path) as (container, _):
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
        raise MediaError(f"cannot read image '{path}' ({_reason(error)}); check the path and the file") from error
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
            f"cannot write '{path}' ({_reason(error)}); check the folder, the free space and the suffix"
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


@contextmanager
def _open(path: Path) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """An open file and its video stream, which is not the cover picture of an audio file."""
    try:
        container = av.open(str(path), "r", metadata_errors="replace")
    except av.FFmpegError as error:
        raise MediaError(f"cannot open '{path}' as a video ({_reason(error)}); check the path and the file") from error
    with container:
        streams = [
            stream
            for stream in container.streams.video
            if not stream.disposition & av.stream.Disposition.attached_pic and stream.codec_context is not None
        ]
        if not streams:
            raise MediaError(f"'{path}' holds no video; give a file with a video stream that FFmpeg can decode")
        yield container, streams[0]


def _info(path: Path, stream: av.VideoStream) -> VideoInfo:
    if stream.width < 1 or stream.height < 1:
        raise MediaError(f"'{path}' states no picture size; download or export it again")
    rate = stream.average_rate or stream.guessed_rate
    fps = float(rate) if rate else UNSTATED_FPS
    return VideoInfo(fps, stream.width, stream.height, stream.frames or None)


def _stack(frames: list[NDArray[np.uint8]]) -> Tensor:
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).contiguous()  # [B, 3, H, W]


def _reason(error: BaseException) -> str:
    """FFmpeg's or the system's words, without the path that the message already names."""
    if isinstance(error, OSError | av.FFmpegError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
