"""Video and image files to frames and back."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import av
import numpy as np
import torch
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, VideoReformatter
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from thead_eval.errors import MediaError
from thead_eval.marking import SYNTHETIC_SOURCE, describe_synthetic, xmp_packet
from thead_eval.pictures import MBTREE_OFF, Picture, VideoInfo, decode_frames, open_video, probe_video, reason, to_rgb
from thead_eval.types import Clip

__all__ = [
    "SYNTHETIC_SOURCE",
    "VideoInfo",
    "iter_frames",
    "open_writer",
    "probe_video",
    "read_clip",
    "read_image",
    "read_metadata",
    "write_clip",
    "write_image",
    "write_images",
]


LARGE = 2560 * 1440  # pixels of a picture from which on the encoder looks ahead less: at 8K it would hold 3 GB


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
    """Write a video file whole or not at all: see `open_writer`, which this is for a clip in memory.

    Raises:
        MediaError: the clip is empty, the suffix names no suitable container, or the file cannot be written.
    """
    if len(clip) == 0:
        raise MediaError(f"clip '{clip.id}' has no frames, so '{path}' was not written")
    with open_writer(path, clip.size, clip.fps, lossless=lossless, synthetic=synthetic, metadata=metadata) as write:
        write(clip.frames)


@contextmanager
def open_writer(
    path: Path,
    size: tuple[int, int],
    fps: float,
    *,
    lossless: bool = False,
    synthetic: str | None = None,
    metadata: Mapping[str, str] | None = None,
    sound: Path | None = None,
) -> Iterator[Callable[[Tensor], None]]:
    """A function that adds frames [T, 3, H, W] uint8 RGB to a video file, which gets its name when all is written.

    H.264 (visually lossless, CRF 16), or FFV1 in RGB. Memory does not grow with the number of frames. The same frames
    and arguments give the same bytes.

    Args:
        path: Its suffix names the container; lossless needs '.mkv'.
        size: Height and width.
        fps: Frames a second.
        lossless: Reading the file again gives these very pixels.
        synthetic: The generator's name; marks the file as synthetic in its metadata: tags, and XMP in MP4 and MOV.
        metadata: More tags; MP4 and Matroska keep any name.
        sound: A video whose sound is taken over, as far as the frames go; copied where the container allows, else AAC.

    Raises:
        MediaError: there was no frame, the suffix names no suitable container, the file cannot be written, or the
            sound's file has none.
    """
    container_format = {".mkv": "matroska", ".mp4": "mp4", ".mov": "mov"}.get(path.suffix)
    if container_format is None:
        raise MediaError(
            f"cannot write '{path}': the suffix '{path.suffix}' is not .mp4, .mov or .mkv; choose one of them"
        )
    if lossless and path.suffix != ".mkv":
        raise MediaError(f"a lossless clip is written as Matroska; name '{path}' with the suffix .mkv")
    tags = dict(metadata or {})
    if synthetic is not None:
        tags |= {"comment": describe_synthetic(synthetic), "DigitalSourceType": SYNTHETIC_SOURCE}
    rate = Fraction(fps).limit_denominator(1001)
    with _whole(path) as file, ExitStack() as stack:
        with _writing(path):
            container = stack.enter_context(_open_container(file, container_format, tags))
            stream = _add_video(container, size, rate, lossless)
        sounds = stack.enter_context(_read_sound(sound, container)) if sound else iter(())
        heard = next(sounds, None)
        reformatter = VideoReformatter()
        frames = 0

        def write(pictures: Tensor) -> None:
            nonlocal frames, heard
            for pixels in pictures:  # [3, H, W]
                frame = av.VideoFrame.from_ndarray(pixels.permute(1, 2, 0).contiguous().cpu().numpy(), format="rgb24")
                if not lossless:  # converted as the file states its colours, so that players agree on them
                    frame = reformatter.reformat(
                        frame, format=stream.pix_fmt, dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
                    )
                frame.pts, frame.time_base = frames, 1 / rate
                with _writing(path):
                    container.mux(stream.encode(frame))
                    frames += 1
                    while heard is not None and heard.seconds < frames / rate:
                        container.mux(heard.packet)
                        heard = next(sounds, None)

        yield write
        if not frames:
            raise MediaError(f"there were no frames, so '{path}' was not written; give a longer track")
        with _writing(path):
            container.mux(stream.encode(None))
            container.close()
            if synthetic is not None and container_format != "matroska":
                file.seek(0, os.SEEK_END)
                file.write(_xmp_box(xmp_packet(synthetic)))


def write_image(path: Path, frame: Tensor, *, synthetic: str | None = None) -> None:
    """Write a picture [3, H, W] uint8 RGB as PNG or JPEG, whole or not at all.

    Raises:
        MediaError: the suffix is another, or the file cannot be written.
    """
    write_images(path, frame[None], synthetic=synthetic)


def write_images(path: Path, frames: Tensor, *, seconds: float = 0.1, synthetic: str | None = None) -> None:
    """Write one picture, as `write_image`, or pictures [T, 3, H, W] that a GIF shows one after the other.

    Raises:
        MediaError: the suffix is none of .png, .jpg and .gif, or the file cannot be written.
    """
    images = [Image.fromarray(frame.permute(1, 2, 0).contiguous().cpu().numpy()) for frame in frames]
    options: dict[str, Any] = {}  # Any: what each of Pillow's encoders takes
    match path.suffix.lower():
        case ".png":
            kind = "PNG"
            if synthetic is not None:
                options["pnginfo"] = text = PngInfo()
                text.add_text("Comment", describe_synthetic(synthetic))
                text.add_itxt("XML:com.adobe.xmp", xmp_packet(synthetic))
        case ".jpg" | ".jpeg":
            kind = "JPEG"
            options = {"quality": 92, "subsampling": 0}
            if synthetic is not None:
                options |= {"xmp": xmp_packet(synthetic).encode(), "comment": describe_synthetic(synthetic)}
        case ".gif":
            kind = "GIF"
            options = {"save_all": True, "append_images": images[1:], "duration": round(1000 * seconds), "loop": 0}
            if synthetic is not None:
                options["comment"] = f"{describe_synthetic(synthetic)} {SYNTHETIC_SOURCE}"
        case other:
            raise MediaError(
                f"cannot write '{path}': the suffix '{other}' is not .png, .jpg or .gif; choose one of them"
            )
    with _whole(path) as file, _writing(path):
        images[0].save(file, kind, **options)


@contextmanager
def _whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which gets its name when all of it is there."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with _writing(path):
        file = temporary.open("w+b")
    try:
        yield file
        with _writing(path):
            file.close()
            temporary.replace(path)
    except BaseException:
        with suppress(OSError):  # of a full disk: what is left in the buffer is refused once more
            file.close()
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """What fails inside is the writing of this file."""
    try:
        yield
    except (av.FFmpegError, OSError, ValueError) as error:
        raise MediaError(f"cannot write '{path}' ({reason(error)}); check the folder and the free space") from error


@contextmanager
def _open_container(
    file: BinaryIO, container_format: str, tags: dict[str, str]
) -> Iterator[av.container.OutputContainer]:
    options = {"fflags": "+bitexact"}  # no random ids and dates: the same clip gives the same bytes
    if container_format != "matroska":
        options["movflags"] = "+use_metadata_tags"
    container = av.open(file, "w", format=container_format, options=options)
    container.metadata.update(tags)
    try:
        yield container
    finally:
        # Whole files are closed by then. Closing another writes its end, which fails where the disk is full, and would
        # hide why it is not whole.
        with suppress(av.FFmpegError, OSError):
            container.close()


def _add_video(
    container: av.container.OutputContainer, size: tuple[int, int], rate: Fraction, lossless: bool
) -> av.VideoStream:
    height, width = size
    if lossless:
        stream = container.add_stream("ffv1", rate=rate, options={"level": "3", "slicecrc": "1"})
        stream.pix_fmt = "bgr0"
    else:
        options = {"crf": "16", "preset": "medium", "x264-params": MBTREE_OFF}
        if height * width > LARGE:
            options |= {"preset": "veryfast", "x264-params": f"{MBTREE_OFF}:rc-lookahead=5:bframes=0"}
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.pix_fmt = "yuv420p" if width % 2 == height % 2 == 0 else "yuv444p"  # 4:2:0 needs even sizes
        stream.codec_context.colorspace = Colorspace.ITU709
        stream.codec_context.color_primaries = ColorPrimaries.BT709
        stream.codec_context.color_trc = ColorTrc.BT709
        stream.codec_context.color_range = ColorRange.MPEG
    stream.width, stream.height = width, height
    stream.codec_context.thread_count = 1  # the number of threads shows in the bytes
    return stream


class _Heard(NamedTuple):
    """A packet of sound, and when it begins; the pictures begin at 0."""

    seconds: Fraction
    packet: "av.Packet[av.AudioStream]"


@contextmanager
def _read_sound(path: Path, output: av.container.OutputContainer) -> Iterator[Iterator[_Heard]]:
    """A file's sound for a new stream of `output`, in its order."""
    with open_video(path) as (container, video):
        if not container.streams.audio:
            raise MediaError(f"'{path}' has no sound to take over; leave the sound out, or give a video that has some")
        source = container.streams.audio[0]
        begin = Fraction(0)
        if video.start_time and video.time_base:
            begin = video.start_time * video.time_base
        if source.codec_context.codec.canonical_name in output.supported_codecs:
            yield _copy_sound(container, source, output.add_stream_from_template(source), begin)
        else:
            aac = output.add_stream("aac", rate=source.codec_context.sample_rate)
            layout = source.codec_context.layout  # of some files it states no more than a number
            aac.codec_context.layout = {1: "mono", 2: "stereo"}.get(layout.nb_channels, layout.name)
            yield _encode_sound(container, source, aac, begin)


def _copy_sound(
    container: av.container.InputContainer, source: av.AudioStream, stream: av.AudioStream, begin: Fraction
) -> Iterator[_Heard]:
    for packet in container.demux(source):
        if packet.pts is None or packet.dts is None or packet.time_base is None:  # the demuxer's last, which is empty
            continue
        offset = round(begin / packet.time_base)
        packet.pts, packet.dts = packet.pts - offset, packet.dts - offset
        if packet.pts + (packet.duration or 0) >= 0:  # a packet before the first sound, which fills the decoder, stays
            packet.stream = stream
            yield _Heard(packet.pts * packet.time_base, packet)


def _encode_sound(
    container: av.container.InputContainer, source: av.AudioStream, stream: av.AudioStream, begin: Fraction
) -> Iterator[_Heard]:
    def frames() -> Iterator[av.AudioFrame | None]:
        for frame in container.decode(source):
            if frame.pts is not None and frame.time_base is not None:
                frame.pts -= round(begin / frame.time_base)
                if frame.pts < 0:
                    continue
            yield frame
        yield None  # the encoder gives out what it holds

    for frame in frames():
        for packet in stream.encode(frame):
            if packet.pts is not None and packet.time_base is not None:
                yield _Heard(packet.pts * packet.time_base, packet)


XMP_UUID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")  # of the box that holds XMP in MP4 (XMP part 3)


def _xmp_box(packet: str) -> bytes:
    """A box that follows all others, so that no offset in the file changes."""
    content = XMP_UUID + packet.encode()
    return (8 + len(content)).to_bytes(4, "big") + b"uuid" + content


def _stack(frames: list[Picture]) -> Tensor:
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).contiguous()  # [B, 3, H, W]
