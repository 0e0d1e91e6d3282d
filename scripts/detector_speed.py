"""How fast every kind of detector is, and how much memory it takes: frames a second of head crops, one process each.

    python scripts/detector_speed.py
    python scripts/detector_speed.py --json speed.json --frames 256

Weights are untrained, as they change neither; `trio` is the one that theval carries. Finding faces, which a scan does
first, is not in it.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from benchmarks.speed import machine
from detectors.calibration import Calibration
from detectors.checkpoint import NETWORKS, TrainedDetector, build, load_detector, save_detector
from thead_eval.evidence import SIDE
from thead_eval.synthetic import head_clip

# What `build` needs beside the defaults: a backbone of which the field's is one, and members that differ.
CONFIGS: dict[str, dict[str, Any]] = {  # Any: JSON
    "timm": {"backbone": "resnet50"},
    "ensemble": {"members": [{"detector": "spectrum", "network": {}}, {"detector": "efflite0", "network": {}}]},
}
KINDS = (*NETWORKS, "trio")


@dataclass(frozen=True)
class Row:
    """What one detector took."""

    detector: str
    window: int  # consecutive frames that a score needs
    parameters: int
    frames_per_second: float  # the median of the turns
    memory: int | None  # bytes: the most that the process held, Python and torch included; None: not known here


def open_detector(name: str, folder: Path) -> TrainedDetector:
    """The kind of that name, untrained; or the one that theval carries."""
    if name not in NETWORKS:
        carried = load_detector(name)
        assert isinstance(carried, TrainedDetector)
        return carried
    config = CONFIGS.get(name, {})
    path = folder / f"{name}.safetensors"
    calibration = Calibration(1.0, 0.0, np.array([[1.0, 0.0]]))
    save_detector(path, name, config, build(name, config), calibration, [], {"generators": "[]", "identities": "[]"})
    detector = load_detector(path)
    assert isinstance(detector, TrainedDetector)
    return detector


def measure(name: str, frames: int, turns: int) -> Row:
    """In this process, of which the memory is told: one detector a process."""
    clip = head_clip(0, frames, SIDE)[0]
    with tempfile.TemporaryDirectory() as folder:
        detector = open_detector(name, Path(folder))
        taken = []
        for turn in range(turns + 1):
            start = time.perf_counter()
            detector.score(clip)
            if turn:  # the first fills caches
                taken.append(time.perf_counter() - start)
    weights = sum(parameter.numel() for parameter in detector.network.parameters())
    return Row(name, detector.window, weights, frames / statistics.median(taken), _peak_memory())


def _peak_memory() -> int | None:
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


@click.command()
@click.option("--only", multiple=True, type=click.Choice(KINDS), help="Repeatable. Default: every kind.")
@click.option("--frames", type=click.IntRange(16), default=128, show_default=True, help="Of the clip that is scored.")
@click.option("--turns", type=click.IntRange(1), default=3, show_default=True, help="Of which the median counts.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Also write the rows to this file.")
@click.option("--row", hidden=True, is_flag=True, help="Measure --only in this process and print it as JSON.")
def command(only: tuple[str, ...], frames: int, turns: int, path: Path | None, row: bool) -> None:
    """Score one clip by each detector, each in a process of its own."""
    if row:
        click.echo(json.dumps(asdict(measure(only[0], frames, turns))))
        return
    about = machine()
    rows = []
    for name in only or KINDS:
        told = ["--only", name, "--frames", str(frames), "--turns", str(turns), "--row"]
        ran = subprocess.run([sys.executable, __file__, *told], stdout=subprocess.PIPE, check=True, text=True)
        rows.append(Row(**json.loads(ran.stdout)))
        print_row(rows[-1])
    where = f"{about['cpu']}, {about['cores']} cores, {torch.get_num_threads()} threads"
    click.echo(f"{where}, load {about['load']:.1f} at the start")
    if path:
        path.write_text(json.dumps({"schema": 1, "machine": about, "rows": [asdict(row) for row in rows]}, indent=1))


def print_row(row: Row) -> None:
    """A line, as soon as it is known."""
    memory = "n/a" if row.memory is None else f"{row.memory / 2**20:.0f} MB"
    together = f", {row.window} frames together" if row.window > 1 else ""
    click.echo(
        f"{row.detector:10} {row.frames_per_second:8.1f} frames a second  {memory:>8} at most  "
        f"{row.parameters / 1e6:5.1f} M weights{together}"
    )


if __name__ == "__main__":
    command()
