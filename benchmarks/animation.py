"""How fast a talker is, how long learning a person takes, and what its landmarks cost beside video of equal quality.

    python -m benchmarks.animation
    python -m benchmarks.animation --data dataset/ --split val --json animation.json

The checkpoint is the bundled one, or that of $THEVAL_CHECKPOINT. A frame is everything from 68 points to uint8 pixels.
Contenders take turns and medians count, as in benchmarks/speed.py. People are those of a prepared dataset, judged as
few-shot sets; without one, procedural heads, whose quality says nothing but whose speed is the same.
"""

import copy
import io
import json
import statistics
import sys
import tempfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import click
import numpy as np
import torch
from torch import Tensor

from benchmarks.speed import Contender, Row, Task, machine, measure, print_table
from thead_eval import plugins
from thead_eval.data import open_dataset, plan_few_shot_sets
from thead_eval.testing import make_dataset
from thead_eval.types import CompareFunction, FewShotSet, Landmarks, PixelMetric

CPU = torch.device("cpu")
SHOTS = 8  # of the talkers that are timed and streamed
EIGHTHS = 8  # of a pixel: the landmarks' unit on the wire
HIGHEST_CRF = 51  # H.264's worst quality
METRICS = ("ssim", "perc_efflite0")  # by which video is of equal quality


@dataclass(frozen=True)
class Sizes:
    """How much is done."""

    people: int = 4
    frames: int = 64  # animated in one turn
    turns: int = 5
    shots: tuple[int, ...] = (1, 8, 32)  # whose learning is timed
    adapt_turns: int = 2
    side: int = 256  # of procedural heads
    streamed: str = "fewshot"  # the generator whose quality H.264 is to equal


QUICK = Sizes(people=1, frames=4, turns=1, shots=(1,), adapt_turns=1, side=64, streamed="fewshot_ff")


@dataclass(frozen=True)
class StreamRow:
    """What one person's landmarks cost, and H.264 that is as near to the real frames by a metric."""

    person: str
    metric: str
    talker: float  # its value
    landmarks: float  # bytes a second
    video: float  # bytes a second
    video_value: float
    crf: int  # HIGHEST_CRF: this video is better still, and a worse one cannot be made


# Speed


def animation_task(people: Sequence[FewShotSet], sizes: Sizes, compiled: bool) -> Task:
    """Frames from landmarks, by the same feed-forward talker in several forms."""
    person = people[0]
    driving = repeated(person.target_landmarks, sizes.frames)

    def contender(name: str, memory_format: torch.memory_format | None = None, **changes: object) -> Contender:
        def prepare() -> Callable[[], object]:
            generator = replace(plugins.load("generator", "fewshot_ff")(CPU), **changes)
            talker = generator.adapt(person.support, person.support_landmarks)
            if memory_format is not None:  # not of the generator's own network, which others use
                talker = replace(talker, network=copy.deepcopy(talker.network).to(memory_format=memory_format))
            return lambda: [None for _ in talker.stream(driving)]

        return Contender(name, prepare)

    contenders = [
        contender("talker: folded, in the machine's precision"),
        contender("folded, float32", precision="32-true"),
        contender("unfolded, float32, channels last", folded=False),
        contender("unfolded, float32, as torch has it by default", torch.contiguous_format, folded=False),
    ]
    if compiled:
        contenders.append(contender("folded, torch.compile", compiled=True))
    size = person.support.size[0]
    return Task(
        f"Animation, {sizes.frames} frames, {SHOTS} shots of {size} px",
        "frames",
        sizes.frames,
        sizes.turns,
        tuple(contenders),
    )


def learning_task(person: FewShotSet, shots: int, sizes: Sizes) -> Task:
    """From support frames to a talker. The checkpoint is in memory."""
    few = person.take(shots)

    def contender(name: str) -> Contender:
        def prepare() -> Callable[[], object]:
            generator = plugins.load("generator", name)(CPU)
            return lambda: generator.adapt(few.support, few.support_landmarks)

        return Contender(name, prepare)

    named = (contender("fewshot_ff"), contender("fewshot"))
    return Task(f"Learning a person from {shots}", "people", 1, sizes.adapt_turns, named)


def repeated(landmarks: Landmarks, frames: int) -> Landmarks:
    """A track of so many rows, back and forth."""
    there = [*range(len(landmarks)), *range(len(landmarks) - 2, 0, -1)]
    return landmarks.take([there[i % len(there)] for i in range(frames)])


# Streams


def compare_streams(person: FewShotSet, sizes: Sizes) -> list[StreamRow]:
    """The targets as landmarks for a talker that the receiver has, and as video."""
    talker = plugins.load("generator", sizes.streamed)(CPU).adapt(person.support, person.support_landmarks)
    real, fps = person.target.frames, person.target.fps
    packets = landmark_packets(person.target_landmarks.points)
    received = read_packets(packets)
    fake = talker.animate(Landmarks(received, person.target_landmarks.found), fps).frames
    if fake.shape != real.shape:  # the dataset's crops are of another size than the talker's frames
        size = fake.shape[2:]
        real = torch.nn.functional.interpolate(real.float(), size=size, mode="bilinear", antialias=True)
        real = real.round().clamp(0, 255).to(torch.uint8)
    rows = []
    for name in METRICS:
        metric: PixelMetric = plugins.load("metric", name)
        compare = metric.load(CPU)
        value = compare(fake, real).mean().item()
        crf, video, video_value = equal_video(real, fps, compare, value, higher=metric.higher_is_better is True)
        seconds = len(real) / fps
        rows.append(
            StreamRow(person.identity, name, value, sum(map(len, packets)) / seconds, video / seconds, video_value, crf)
        )
    return rows


def landmark_packets(points: Tensor) -> list[bytes]:
    """A packet a frame, each readable when it arrives: eighths of a pixel, less the frame before, deflated."""
    deflate = zlib.compressobj(9)
    places = (points.numpy() * EIGHTHS).round().astype(np.int16)  # [T, 68, 2]
    packets = []
    before = np.zeros_like(places[0])
    for place in places:
        step = (place - before).astype("<i2").reshape(-1)
        planes = step.view(np.uint8).reshape(-1, 2).T  # low bytes, then high bytes
        packets.append(deflate.compress(planes.tobytes()) + deflate.flush(zlib.Z_SYNC_FLUSH))
        before = place
    return packets


def read_packets(packets: Sequence[bytes]) -> Tensor:
    """The points [T, 68, 2] of `landmark_packets`, to a sixteenth of a pixel."""
    inflate = zlib.decompressobj()
    places = []
    before = np.zeros((68, 2), np.int16)
    for packet in packets:
        planes = np.frombuffer(inflate.decompress(packet), np.uint8).reshape(2, -1)
        before = before + np.ascontiguousarray(planes.T).reshape(-1).view("<i2").reshape(68, 2)
        places.append(before)
    return torch.from_numpy(np.stack(places).astype(np.float32) / EIGHTHS)


def equal_video(
    real: Tensor, fps: float, compare: CompareFunction, value: float, *, higher: bool
) -> tuple[int, int, float]:
    """The H.264 of fewest bytes that is no worse than `value`: its CRF, bytes and value."""
    low, high = 0, HIGHEST_CRF  # the answer's bounds
    tried: dict[int, tuple[int, float]] = {}

    def no_worse(crf: int) -> bool:
        if crf not in tried:
            size, decoded = code_video(real, fps, crf)
            tried[crf] = size, compare(decoded, real).mean().item()
        return tried[crf][1] >= value if higher else tried[crf][1] <= value

    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if no_worse(middle) else (low, middle - 1)
    no_worse(low)
    return low, *tried[low]


def code_video(frames: Tensor, fps: float, crf: int) -> tuple[int, Tensor]:
    """Bytes of the H.264 stream without a container (libx264, preset medium), and its frames [T, 3, H, W]."""
    stream = io.BytesIO()
    with av.open(stream, "w", format="h264") as container:
        video = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        assert isinstance(video, av.VideoStream)
        video.options = {"crf": str(crf), "preset": "medium"}
        video.height, video.width = frames.shape[2:]
        video.pix_fmt = "yuv420p"
        for frame in frames.permute(0, 2, 3, 1).contiguous().numpy():
            container.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(video.encode())
    size = stream.tell()
    stream.seek(0)
    with av.open(stream, "r", format="h264") as written:
        decoded = [frame.to_ndarray(format="rgb24") for frame in written.decode(video=0)]
    return size, torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).contiguous()


def print_streams(rows: Sequence[StreamRow]) -> None:
    """Means over people, a line a metric."""
    for name in METRICS:
        own = [row for row in rows if row.metric == name]
        landmarks, video = (statistics.mean(getattr(row, field) for row in own) for field in ("landmarks", "video"))
        beyond = sum(row.crf == HIGHEST_CRF for row in own)
        line = f"Streams of equal {name} ({len(own)} people): landmarks {landmarks:.0f} bytes/s, "
        line += f"H.264 {video:.0f} bytes/s, {video / landmarks:.1f} times as much"
        if beyond:
            line += f"; of {beyond}, the smallest H.264 is still nearer to the real frames"
        click.echo(line)


@click.command()
@click.option("--data", type=click.Path(path_type=Path), help="A prepared dataset. Default: procedural heads.")
@click.option("--split", type=click.Choice(["train", "val", "test", "all"]), default="val", show_default=True)
@click.option("--compile", "compiled", is_flag=True, help="Time torch.compile, too, which takes a minute to begin.")
@click.option("--no-learning", is_flag=True, help="Leave out how long learning takes.")
@click.option("--quick", is_flag=True, help="One person, few frames: shows that all of it runs, not how fast.")
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write the rows here too.")
def command(
    data: Path | None, split: str, compiled: bool, no_learning: bool, quick: bool, json_path: Path | None
) -> None:
    """Time a talker beside its network as it was trained, and weigh landmarks against video.

    \b
    Examples:
      python -m benchmarks.animation
      THEVAL_CHECKPOINT=runs/first/best.safetensors python -m benchmarks.animation --data dataset/
    """
    from rich.console import Console
    from rich.progress import Progress

    sizes = QUICK if quick else Sizes()
    about = machine()
    rows: list[Row] = []
    streams: list[StreamRow] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        Progress(console=Console(file=sys.stderr), transient=True) as progress,
    ):
        dataset = open_dataset(data) if data else make_dataset(Path(folder), sizes.people, 80, sizes.side, split="val")
        plans, _ = plan_few_shot_sets(dataset, split, max(SHOTS, *sizes.shots), 0, sizes.people)  # type: ignore[arg-type]  # click checked it
        people = [plan.read(dataset) for plan in plans]
        eight = [person.take(SHOTS) for person in people]
        learning = () if no_learning else sizes.shots
        bar = progress.add_task("animation", total=1 + len(learning) + len(people))
        rows += measure(animation_task(eight, sizes, compiled))
        progress.advance(bar)
        for shots in learning:
            progress.update(bar, description=f"learning from {shots}")
            rows += measure(learning_task(people[0], shots, sizes))
            progress.advance(bar)
        for person in eight:
            progress.update(bar, description="streams")
            streams += compare_streams(person, sizes)
            progress.advance(bar)
    print_table(rows, about)
    print_streams(streams)
    if quick:
        click.echo("--quick: these numbers say nothing about speed.")
    if json_path is not None:
        content: dict[str, Any] = {"schema": 1, "quick": quick, "machine": about}  # Any: JSON
        content |= {"rows": [asdict(row) for row in rows], "streams": [asdict(row) for row in streams]}
        json_path.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    command()
