"""Small real things for tests, ours and a plug-in author's: datasets of procedural heads, generators of known quality.

Nothing here needs a download, and everything is the same on every run.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import torch
import torchvision.transforms.v2.functional as TF
from torch import Tensor

from thead_eval.data import Dataset, DatasetInfo, PreparedClip, Split, encode_jpeg, open_dataset, write_dataset
from thead_eval.synthetic import head_clip
from thead_eval.types import Clip, FewShotGenerator, Landmarks, Talker

JPEG_QUALITY = 95


def make_dataset(
    path: Path,
    identities: int = 4,
    frames: int = 80,
    size: int = 128,
    *,
    clips: int = 1,
    split: Split = "test",
    fps: float = 25.0,
) -> Dataset:
    """A prepared dataset of procedural heads with exact landmarks, `clips` takes each, all in one split.

    80 frames are as many as 32 shots need. Identities are named head0000, head0001, ...; clips head0000-0, ...
    """
    info = DatasetInfo(size=size, jpeg_quality=JPEG_QUALITY, detector="procedural", landmarks="procedural")
    write_dataset(path, _prepare_heads(identities, clips, frames, size, split, fps), info)
    return open_dataset(path)


def _prepare_heads(
    identities: int, clips: int, frames: int, size: int, split: Split, fps: float
) -> Iterator[PreparedClip]:
    for identity in range(identities):
        for take in range(clips):
            clip, landmarks = head_clip(identity, frames, size, fps, take)
            yield PreparedClip(
                id=clip.id,
                identity=f"head{identity:04d}",
                source=f"{clip.id}.procedural",
                source_sha256=hashlib.sha256(clip.frames.numpy().tobytes()).hexdigest(),
                label="real",
                split=split,
                fps=fps,
                first_frame=0,
                crop_box=(0.0, 0.0, float(size), float(size)),
                jpegs=[encode_jpeg(frame, JPEG_QUALITY) for frame in clip.frames],
                landmarks=landmarks,
            )


def write_video(
    path: Path,
    frames: Tensor,
    fps: float = 25.0,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    milliseconds: Sequence[int] | None = None,
) -> None:
    """Frames [T, 3, H, W] uint8 RGB as a video in any codec and pixel format that PyAV has, to read back in tests.

    Of a variable rate, where `milliseconds` [T] say when each is shown.
    """
    with av.open(str(path), "w") as container:
        rate = Fraction(fps).limit_denominator(1001) if milliseconds is None else Fraction(1000)
        stream = container.add_stream(codec, rate=rate)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = frames.shape[2:]
        stream.pix_fmt = pixels
        times = [None] * len(frames) if milliseconds is None else milliseconds
        for picture, time in zip(frames.permute(0, 2, 3, 1).contiguous().numpy(), times, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = time
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@dataclass(frozen=True)
class FirstFrameTalker:
    """One frame, shown whatever the driving landmarks."""

    clip: Clip  # of one frame

    def animate(self, driving: Landmarks, fps: float) -> Clip:
        return Clip(self.clip.id, self.clip.frames.expand(len(driving), -1, -1, -1).clone(), fps)


@dataclass(frozen=True)
class FirstFrameGenerator:
    """The simplest generator there is: it repeats the first support frame, and so is worse than `copy`."""

    name: str = "first-frame"

    def adapt(self, support: Clip, landmarks: Landmarks) -> FirstFrameTalker:
        return FirstFrameTalker(support.take([0]))


@dataclass(frozen=True)
class BlurTalker:
    """Another talker's frames, blurred."""

    inner: Talker
    sigma: float  # pixels

    def animate(self, driving: Landmarks, fps: float) -> Clip:
        clip = self.inner.animate(driving, fps)
        radius = max(1, round(3 * self.sigma))
        blurred = TF.gaussian_blur(clip.frames, [2 * radius + 1, 2 * radius + 1], [self.sigma, self.sigma])
        return Clip(clip.id, blurred, clip.fps)


@dataclass(frozen=True)
class BlurGenerator:
    """Another generator made worse by a Gaussian blur: every metric must rank it below the one it wraps."""

    inner: FewShotGenerator
    sigma: float = 2.0  # pixels

    @property
    def name(self) -> str:
        return f"{self.inner.name}-blur{self.sigma:g}"

    def adapt(self, support: Clip, landmarks: Landmarks) -> BlurTalker:
        return BlurTalker(self.inner.adapt(support, landmarks), self.sigma)


def blurred_first_frame(device: torch.device) -> BlurGenerator:
    """A factory, as a plug-in's entry point names one."""
    return BlurGenerator(FirstFrameGenerator())
