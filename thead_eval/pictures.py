"""Video files to pictures and pictures to JPEG, as numpy arrays.

Without torch, which takes ten times the memory: many worker processes decode.
"""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray
from PIL import Image

from thead_eval.errors import MediaError

Picture = NDArray[np.uint8]  # [H, W, 3] RGB

FASTEST = 240.0  # frames a second of a camera
COUNTED = 60  # frames, of a file that states more
UNSTATED_FPS = 25.0  # of a file that states no frame rate; the rate of the field's data sets
# x264's macroblock tree reads memory that nobody wrote: in 26 of 1500 runs the same frames gave other bytes.
MBTREE_OFF = "mbtree=0"
ENDED_EARLY = 0.9  # fewer frames than this part of what the header states: the file was cut off


@dataclass(frozen=True)
class VideoInfo:
    """What a video's header states, and of a rate that no camera has, what its first frames show."""

    fps: float  # the mean, where the rate varies; 25 where none is stated
    width: int  # as stored: before rotation
    height: int
    frames: int | None  # None where the container does not say


def probe_video(path: Path) -> VideoInfo:
    """Read a video's header.

    Raises:
        MediaError: the file cannot be opened, or holds no video.
    """
    with open_video(path) as (container, stream):
        info = _info(path, stream)
        # A browser's recording states its clock's ticks.
        return info if info.fps <= FASTEST else replace(info, fps=_counted_rate(container, stream))


def decode_frames(path: Path, threads: int = 0) -> Iterator[av.VideoFrame]:
    """Each frame as decoded, not rotated; a variable frame rate gives each stored frame once.

    Args:
        path: The video.
        threads: Of the decoder; 0 = one a core.

    Raises:
        MediaError: the file cannot be opened, holds no video, is damaged, or ends before what its header states: a
            number of frames, or as Matroska has it a time. A transport stream states neither.
    """
    with open_video(path) as (container, stream):
        stated = _info(path, stream).frames
        lasting = None if stated else _stated_seconds(container, stream)
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = threads
        decoded, ended = 0, 0.0
        try:
            for frame in container.decode(stream):
                decoded += 1
                ended = max(ended, (frame.time or 0.0) + float((frame.duration or 0) * (frame.time_base or 0)))
                yield frame
        except av.FFmpegError as error:
            raise MediaError(
                f"'{path}' is damaged after frame {decoded} ({reason(error)}); download or export it again"
            ) from error
    if stated is not None and decoded < ENDED_EARLY * stated:
        raise MediaError(f"'{path}' ends after {decoded} of {stated} frames; download or export it again")
    if lasting is not None and ended < ENDED_EARLY * lasting - 0.5:  # a last frame may stand for longer than it says
        raise MediaError(f"'{path}' ends after {ended:.1f} of {lasting:.1f} seconds; download or export it again")


def shown_at(times: Sequence[float | None], fps: float) -> NDArray[np.float64]:
    """[T + 1] seconds after the first frame at which each is shown, and at which the last has been.

    Args:
        times: [T] by the file's clock, as `av.VideoFrame.time` has it; at least one.
        fps: The mean rate, by which frames are counted where that clock is missing, stands or runs back.
    """
    counted: NDArray[np.float64] = np.arange(len(times) + 1) / fps
    if any(time is None for time in times):
        return counted
    clock = np.array(times, np.float64)
    if (np.diff(clock) <= 0).any():
        return counted
    clock -= clock[0]
    ends: NDArray[np.float64] = np.append(clock, clock[-1] + 1 / fps)
    return ends


def to_rgb(
    frame: av.VideoFrame,
    width: int | None = None,
    height: int | None = None,
    reformatter: VideoReformatter | None = None,
) -> Picture:
    """A decoded frame as [H, W, 3] uint8 RGB, resized (area-averaged) where a size is given, then rotated upright.

    Width and height are those before rotation. Colours follow the matrix and range that the frame states. A reformatter
    that is passed again keeps its tables, which take longer to build than a small frame to convert.
    """
    reformatter = reformatter or VideoReformatter()
    rgb = reformatter.reformat(frame, width, height, "rgb24", interpolation="AREA").to_ndarray()
    return np.rot90(rgb, frame.rotation // 90)  # both count counter-clockwise


def encode_jpeg(picture: Picture, quality: int) -> bytes:
    """A picture as JPEG, with chroma at full resolution (a 4:2:0 crop would lose it a second time)."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def through_h264(pictures: Sequence[Picture], crf: int, preset: str = "veryfast") -> list[Picture]:
    """Pictures of one size, encoded and decoded as one short video; the same ones come out the same.

    4:2:0, which has no odd sides: the edge is repeated for it.
    """
    height, width = pictures[0].shape[:2]
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as container:
        options = {"crf": str(crf), "preset": preset, "x264-params": MBTREE_OFF}
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.height, stream.width = height + height % 2, width + width % 2
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for picture in pictures:
            even = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            container.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
        container.mux(stream.encode(None))
    buffer.seek(0)
    with av.open(buffer, "r") as decoded:
        frames = [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in decoded.decode(video=0)]
    return [np.ascontiguousarray(frame[:height, :width]) for frame in frames]


@contextmanager
def open_video(path: Path) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """An open file and its video stream, which is not the cover picture of an audio file."""
    try:
        container = av.open(str(path), "r", metadata_errors="replace")
    except av.FFmpegError as error:
        raise MediaError(f"cannot open '{path}' as a video ({reason(error)}); check the path and the file") from error
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


def _counted_rate(container: av.container.InputContainer, stream: av.VideoStream) -> float:
    """Frames a second at the beginning of a file, by when they are to be shown."""
    packets = islice((packet for packet in container.demux(stream) if packet.pts is not None), COUNTED)
    ticks = [packet.pts for packet in packets if packet.pts is not None]
    if len(ticks) < 2 or max(ticks) == min(ticks) or stream.time_base is None:
        return UNSTATED_FPS
    return (len(ticks) - 1) / float((max(ticks) - min(ticks)) * stream.time_base)


def _stated_seconds(container: av.container.InputContainer, stream: av.VideoStream) -> float | None:
    """How long the pictures of a Matroska file last by its header; None where it says nothing of them alone."""
    if "matroska" not in container.format.name:  # of other formats FFmpeg looks at what is there
        return None
    if clock := stream.metadata.get("DURATION"):  # 00:01:02.500000000
        try:
            hours, minutes, seconds = map(float, clock.split(":"))
        except ValueError:
            return None
        return 3600 * hours + 60 * minutes + seconds
    alone = len(container.streams) == 1  # else it may be its sound that lasts so long
    return container.duration / av.time_base if alone and container.duration else None


def reason(error: BaseException) -> str:
    """FFmpeg's or the system's words, without the path that the message already names."""
    if isinstance(error, OSError | av.FFmpegError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
