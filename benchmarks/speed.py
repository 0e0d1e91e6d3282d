"""How fast the parts of scoring are, beside the packages that do the same, in one process and one run.

    python -m benchmarks.speed
    python -m benchmarks.speed --json speed.json

Contenders of a task take turns, so that a busy minute slows them alike, and the median of their turns counts. Two
machines, or two runs, do not compare; the ratios within a task do.
"""

import json
import os
import platform
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor, nn

from thead_eval import features, media, plugins
from thead_eval.errors import ThevalError
from thead_eval.metrics.distances import FrechetDistance, KernelDistance, frechet_distance, frechet_from_features
from thead_eval.synthetic import head_clip
from thead_eval.types import FeatureSet, Landmarks

PACKAGES = ("numpy", "scipy", "torch", "torchmetrics", "pytorch-fid", "torch-fidelity", "scikit-image", "av")
CPU = torch.device("cpu")

Work = Callable[[], object]


@dataclass(frozen=True)
class Sizes:
    """How much each task gets to do."""

    folder: Path  # for files that a task needs
    rows: int = 1600  # of features in each set: 50 identities x 32 frames
    dimensions: int = 2048
    subsets: int = 100  # of torch-fidelity's KID
    subset_size: int = 1000
    side: int = 256  # pixels
    batch: int = 16  # frames for networks and pixel metrics
    video_frames: int = 250
    turns: int = 5
    slow_turns: int = 3  # of tasks in which a contender takes more than ten seconds


def quick_sizes(folder: Path) -> Sizes:
    """Enough to see that every task runs."""
    return Sizes(folder, 64, 96, subsets=2, subset_size=50, side=128, batch=2, video_frames=8, turns=1, slow_turns=1)


@dataclass(frozen=True)
class Contender:
    """One way to do a task. `prepare` reads files and packages, and gives the work that is timed."""

    name: str
    prepare: Callable[[], Work]  # raises ThevalError or ImportError where it cannot run here


@dataclass(frozen=True)
class Task:
    """What contenders are compared on. The first is the one that theval runs."""

    name: str
    unit: str
    count: int  # units in one call
    turns: int
    contenders: tuple[Contender, ...]


@dataclass(frozen=True)
class Row:
    """What one contender took."""

    task: str
    contender: str
    unit: str
    seconds: float | None  # a call, the median of `turns`; None: not run
    per_second: float | None  # units
    slower: float | None  # how many times as long as the first contender
    turns: int
    not_run: str = ""  # why


# Distances of feature sets.


def frechet_task(sizes: Sizes) -> Task:
    """From two sets of features to the distance; from their statistics in the last row."""
    random = np.random.default_rng(0)
    mixing = random.standard_normal((sizes.dimensions, sizes.dimensions)) / np.sqrt(sizes.dimensions)
    a, b = (random.standard_normal((sizes.rows, sizes.dimensions)) @ mixing for _ in range(2))

    def pytorch_fid() -> Work:
        from pytorch_fid.fid_score import calculate_frechet_distance

        def work() -> object:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of SciPy, about sqrtm's `disp`
                first, second = ((x.mean(axis=0), np.cov(x, rowvar=False)) for x in (a, b))
                return calculate_frechet_distance(*first, *second)

        return work

    def torchmetrics() -> Work:
        from torchmetrics.image.fid import _compute_fid

        def work() -> object:
            first, second = ((torch.from_numpy(x.mean(axis=0)), torch.from_numpy(x).T.cov()) for x in (a, b))
            return _compute_fid(*first, *second)

        return work

    def from_statistics() -> Work:
        first, second = ((x.mean(axis=0), np.cov(x, rowvar=False)) for x in (a, b))
        return lambda: frechet_distance(*first, *second)

    return Task(
        f"Frechet distance, {sizes.rows} rows, D = {sizes.dimensions}",
        "distances",
        1,
        sizes.slow_turns,
        (
            Contender("theval, from features", lambda: lambda: frechet_from_features(a, b)),
            Contender("pytorch-fid (scipy sqrtm)", pytorch_fid),
            Contender("torchmetrics (eigvals)", torchmetrics),
            Contender("theval, from statistics", from_statistics),
        ),
    )


def clustered_sets(sizes: Sizes) -> tuple[FeatureSet, FeatureSet]:
    """Fake and real features of identities with up to 32 frames each."""
    random = np.random.default_rng(0)
    identities = np.arange(sizes.rows) // 32
    fake, real = (random.standard_normal((sizes.rows, sizes.dimensions), dtype=np.float32) for _ in range(2))
    return FeatureSet(fake, identities), FeatureSet(real, identities)


def kernel_task(sizes: Sizes) -> Task:
    """The kernel distance of all pairs, beside that of many subsets."""
    fake, real = clustered_sets(sizes)

    def torch_fidelity() -> Work:
        from torch_fidelity.metric_kid import kid_features_to_metric

        tensors = [torch.from_numpy(x.features).double() for x in (fake, real)]
        settings = {"kid_subsets": sizes.subsets, "kid_subset_size": sizes.subset_size, "verbose": False}
        return lambda: kid_features_to_metric(*tensors, **settings)

    return Task(
        f"Kernel distance, {sizes.rows} rows, D = {sizes.dimensions}",
        "distances",
        1,
        sizes.slow_turns,
        (
            Contender("theval, all pairs of identities", lambda: lambda: KernelDistance()(fake, real)),
            Contender(f"torch-fidelity, {sizes.subsets} subsets of {sizes.subset_size}", torch_fidelity),
        ),
    )


def jackknife_task(sizes: Sizes) -> Task:
    """The 20 distances of a jackknife, at once and one after another."""
    from thead_eval.statistics import jackknife

    fake, real = clustered_sets(sizes)
    distance = FrechetDistance()
    return Task(
        f"Jackknife of 20 Frechet distances, {sizes.rows} rows, D = {sizes.dimensions}",
        "intervals",
        1,
        1,
        (
            Contender("theval", lambda: lambda: jackknife(distance, fake, real)),
            Contender(
                "theval, each distance anew",
                lambda: lambda: jackknife(lambda x, y: distance(x, y), fake, real),
            ),
        ),
    )


# Frames.


def pictures(sizes: Sizes, seed: int = 0) -> tuple[Tensor, Landmarks]:
    """A batch of procedural heads [B, 3, side, side] uint8 with their landmarks."""
    clip, landmarks = head_clip(seed, sizes.batch, sizes.side)
    return clip.frames, landmarks


def ssim_task(sizes: Sizes) -> Task:
    """SSIM of pairs of frames."""
    (fake, _), (real, _) = pictures(sizes, 0), pictures(sizes, 1)
    compare = plugins.load("metric", "ssim").load(CPU)

    def torchmetrics() -> Work:
        from torchmetrics.functional.image import structural_similarity_index_measure

        return lambda: structural_similarity_index_measure(
            fake.float(), real.float(), data_range=255.0, reduction="none"
        )

    def skimage() -> Work:
        from skimage.metrics import structural_similarity

        settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
        pairs = [(a.permute(1, 2, 0).numpy(), b.permute(1, 2, 0).numpy()) for a, b in zip(fake, real, strict=True)]
        return lambda: [
            structural_similarity(a, b, channel_axis=2, **settings)  # type: ignore[no-untyped-call]  # skimage has no types
            for a, b in pairs
        ]

    return Task(
        f"SSIM, {sizes.side} px RGB",
        "frames",
        sizes.batch,
        sizes.turns,
        (
            Contender("theval", lambda: lambda: compare(fake, real)),
            Contender("torchmetrics", torchmetrics),
            Contender("skimage", skimage),
        ),
    )


def network_task(name: str, build: Callable[[], nn.Module], side: int, sizes: Sizes) -> Task:
    """A convolutional feature network in float32, in both layouts of memory."""
    frames, _ = pictures(sizes)

    def as_metrics_run_it() -> Work:
        extract = plugins.load("features", name).load(CPU)
        return lambda: extract(frames, None)

    def in_layout(layout: torch.memory_format) -> Callable[[], Work]:
        def prepare() -> Work:
            network = build().to(memory_format=layout)
            x = torch.rand(sizes.batch, 3, side, side).contiguous(memory_format=layout)
            return lambda: network(x)

        return prepare

    return Task(
        f"{name}, {side} px, float32",
        "frames",
        sizes.batch,
        sizes.turns,
        (
            Contender("theval, resize included", as_metrics_run_it),
            Contender("network alone, channels last", in_layout(torch.channels_last)),
            Contender("network alone, contiguous", in_layout(torch.contiguous_format)),
        ),
    )


def efflite0_task(sizes: Sizes) -> Task:
    """EfficientNet-Lite0."""
    return network_task("efflite0", lambda: features.efflite_network(0), 224, sizes)


def inception_task(sizes: Sizes) -> Task:
    """FID's Inception."""

    def build() -> nn.Module:
        return features.inception_network(features.read_state("fid_inception"))

    return network_task("inception_fid", build, 299, sizes)


def face_task(name: str, sizes: Sizes) -> Task:
    """A feature network that reads faces, given landmarks."""
    frames, landmarks = pictures(sizes)

    def prepare() -> Work:
        extract = plugins.load("features", name).load(CPU)
        return lambda: extract(frames, landmarks.points)

    return Task(f"{name}, {sizes.side} px", "frames", sizes.batch, sizes.turns, (Contender("theval", prepare),))


def warp_task(sizes: Sizes) -> Task:
    """The control generator, from landmarks to frames."""
    clip, landmarks = head_clip(0, sizes.batch + 8, sizes.side)
    support, driving = range(8), range(8, 8 + sizes.batch)

    def prepare() -> Work:
        generator = plugins.load("generator", "warp")(CPU)
        talker = generator.adapt(clip.take(support), landmarks.take(support))
        return lambda: talker.animate(landmarks.take(driving), clip.fps)

    contenders = (Contender("theval", prepare),)
    return Task(f"Generator 'warp', {sizes.side} px", "frames", sizes.batch, sizes.turns, contenders)


def decode_task(sizes: Sizes) -> Task:
    """An H.264 video of a head, to RGB frames."""
    path = sizes.folder / "head.mp4"
    media.write_clip(path, head_clip(0, sizes.video_frames, sizes.side)[0])

    def plain_pyav() -> Work:
        import av

        def work() -> object:
            with av.open(str(path), "r") as container:
                return sum(len(frame.to_ndarray(format="rgb24")) > 0 for frame in container.decode(video=0))

        return work

    return Task(
        f"Decode H.264, {sizes.side} px",
        "frames",
        sizes.video_frames,
        sizes.turns,
        (
            Contender("theval, to tensors", lambda: lambda: sum(len(frames) for frames in media.iter_frames(path))),
            Contender("plain PyAV, to arrays", plain_pyav),
        ),
    )


TASKS: dict[str, Callable[[Sizes], Task]] = {
    "frechet": frechet_task,
    "kernel": kernel_task,
    "jackknife": jackknife_task,
    "ssim": ssim_task,
    "efflite0": efflite0_task,
    "inception": inception_task,
    "dlib68": lambda sizes: face_task("dlib68", sizes),
    "mobilefacenet": lambda sizes: face_task("mobilefacenet", sizes),
    "decode": decode_task,
    "warp": warp_task,
}


def measure(task: Task) -> Iterator[Row]:
    """A row for each contender, after all have had their turns."""
    works: dict[str, Work] = {}
    reasons: dict[str, str] = {}
    for contender in task.contenders:
        try:
            works[contender.name] = contender.prepare()
        except ThevalError as error:
            reasons[contender.name] = str(error)
        except ImportError as error:
            reasons[contender.name] = f"{error}; pip install 'theval[dev]'"
    seconds: dict[str, list[float]] = {name: [] for name in works}
    with torch.inference_mode():
        for turn in range(task.turns + (task.turns > 1)):
            for name, work in works.items():
                start = time.perf_counter()
                work()
                if turn > 0 or task.turns == 1:  # the first of several fills caches
                    seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    first = medians.get(task.contenders[0].name)
    for name in (contender.name for contender in task.contenders):
        if name in medians:
            slower = medians[name] / first if first else None
            yield Row(task.name, name, task.unit, medians[name], task.count / medians[name], slower, task.turns)
        else:
            yield Row(task.name, name, task.unit, None, None, None, 0, reasons[name])


def machine() -> dict[str, Any]:  # Any: JSON
    """What the numbers were taken on."""
    names = [line.partition(":")[2].strip() for line in _cpu_info() if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        "load": os.getloadavg()[0],  # of other work, when the run began
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _cpu_info() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def _version(package: str) -> str | None:
    try:
        return version(package)
    except ImportError:
        return None


def print_table(rows: list[Row], about: dict[str, Any]) -> None:  # Any: JSON
    """The rows, a section a task."""
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title="Speed beside peers",
        caption=f"{about['cpu']}, {about['cores']} cores, {about['torch_threads']} threads, "
        f"load {about['load']:.1f} at the start",
    )
    table.add_column("")
    for heading in ("time", "a second", "times as long"):
        table.add_column(heading, justify="right")
    for task in dict.fromkeys(row.task for row in rows):
        table.add_section()
        table.add_row(f"[bold]{task}[/bold]")
        for row in rows:
            if row.task != task:
                continue
            if row.seconds is None or row.per_second is None:
                cells = ["not run", "", ""]
            else:
                took = f"{row.seconds:.2f} s" if row.seconds >= 1 else f"{1000 * row.seconds:.1f} ms"
                rate = f"{row.per_second:.0f}" if row.per_second >= 10 else f"{row.per_second:.2f}"
                cells = [took, f"{rate} {row.unit}", f"{row.slower:.2f}" if row.slower else ""]
            table.add_row(f"  {row.contender}", *cells)
    console = Console()
    console.print(table)
    for task, reason in dict.fromkeys((row.task, row.not_run) for row in rows if row.not_run):
        console.print(f"Not run: {task}: {reason}", markup=False)


def tell(rows: list[Row], about: dict[str, Any], quick: bool, json_path: Path | None) -> None:  # Any: JSON
    """The table, and where it was asked for the same as JSON."""
    print_table(rows, about)
    if quick:
        click.echo("--quick: these numbers say nothing about speed.")
    if json_path is not None:
        content = {"schema": 1, "quick": quick, "machine": about, "rows": [asdict(row) for row in rows]}
        json_path.write_text(json.dumps(content, indent=1) + "\n")


@click.command()
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write the rows here too.")
@click.option("--quick", is_flag=True, help="Tiny sizes, once each: shows that all of it runs, not how fast.")
@click.option("--only", multiple=True, type=click.Choice(list(TASKS)), help="A task; may be repeated. Default: all.")
def command(json_path: Path | None, quick: bool, only: tuple[str, ...]) -> None:
    """Time the parts of scoring beside the packages that do the same.

    \b
    Examples:
      python -m benchmarks.speed
      python -m benchmarks.speed --only ssim --only frechet
      OMP_NUM_THREADS=1 python -m benchmarks.speed --json one-thread.json
    """
    from rich.console import Console
    from rich.progress import Progress

    about = machine()
    rows: list[Row] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        Progress(console=Console(file=sys.stderr), transient=True) as progress,
    ):
        sizes = quick_sizes(Path(folder)) if quick else Sizes(Path(folder))
        bar = progress.add_task("", total=len(only or TASKS))
        for name in only or TASKS:
            progress.update(bar, description=name)
            rows.extend(measure(TASKS[name](sizes)))
            progress.advance(bar)
    tell(rows, about, quick, json_path)


if __name__ == "__main__":
    command()
