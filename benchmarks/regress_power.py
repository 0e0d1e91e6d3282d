"""How often `theval regress` raises a false alarm, and whether it catches what is really worse, on procedural heads.

Re-runs with other seeds and numbers of threads must pass. JPEG on the fakes, noise in the generator's checkpoint and a
detector of fewer steps must not. Everything goes through the commands, as a user's CI would.

    python -m benchmarks.regress_power FOLDER --reruns 20
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import click
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks.robustness import jpeg
from thead_eval.data import CLIP_SCHEMA
from thead_eval.media import read_clip, write_clip
from thead_eval.tensors import read_tensors, write_tensors
from thead_eval.testing import make_dataset
from thead_eval.types import Clip

METRICS = "ssim,ms_ssim,psnr,l1,fd_efflite0,kid_efflite0"
THREADS = (1, 2, 4)  # of the machines that re-run


class Gate(NamedTuple):
    """What the gate said."""

    what: str
    exit_code: int
    compared: int
    failing: int
    unadjusted: int  # changes whose own interval leaves out 0, either way and whatever their size


def theval(*arguments: object, threads: int = 1, **environment: str) -> str:
    """A command as a process of its own, with so many threads."""
    command = [sys.executable, "-c", "from thead_eval.cli import main; main()", *map(str, arguments)]
    settings = os.environ | {"OMP_NUM_THREADS": str(threads)} | environment
    ran = subprocess.run(command, env=settings, capture_output=True, text=True)
    if ran.returncode not in (0, 1):
        raise click.ClickException(f"{' '.join(command[3:])}: {ran.stderr.strip() or ran.stdout.strip()}")
    return ran.stdout


def gate(what: str, run: Path, baseline: Path) -> Gate:
    """`theval regress`, counted."""
    told: dict[str, Any] = json.loads(theval("regress", run, "--baseline", baseline, "--json"))  # Any: JSON
    failing = [found for found in told["findings"] if found["outcome"] in ("worse", "below floor", "missing")]
    changes = [found["change"] for found in told["findings"] if found["change"]]
    return Gate(what, told["exit_code"], told["compared"], len(failing), sum(c["p"] < 0.05 for c in changes))


def controls(folder: Path, reruns: int) -> list[Gate]:
    """`copy` and `warp` again with other seeds and threads, then the last one's fakes through a JPEG."""
    data, baseline = folder / "heads", folder / "score.json"
    score = ("score", "--data", data, "--shots", 1, "--metrics", METRICS, "--workers", 1)
    theval(*score, "--seed", 0, "--out", folder / "runs" / "0")
    theval("regress", folder / "runs" / "0", "--baseline", baseline, "--update-baseline")
    gates = []
    for seed in range(1, reruns + 1):
        run, threads = folder / "runs" / str(seed), THREADS[seed % len(THREADS)]
        theval(*score, "--seed", seed, "--out", run, threads=threads)
        gates.append(tell(gate(f"seed {seed}, {threads} threads", run, baseline)))
    for path in run.glob("clips/warp/*/*.mkv"):
        clip = read_clip(path)
        write_clip(path, Clip(clip.id, jpeg(clip.frames, 3, 0), clip.fps), lossless=True, synthetic="warp")
    for stored in [*run.glob("scores/warp-*"), *run.glob("features/*/warp-*")]:
        shutil.rmtree(stored)
    theval("score", "--out", run, "--metrics", METRICS, "--workers", 1)
    return [*gates, tell(gate("JPEG on the fakes of warp", run, baseline))]


def checkpoints(folder: Path, checkpoint: Path) -> list[Gate]:
    """The neural generator again, with noise in its weights."""
    baseline = folder / "checkpoint.json"
    score = ("score", "--data", folder / "heads", "--generator", "fewshot_ff", "--shots", 1, "--workers", 1)
    gates = []
    for part in (0.0, 0.1):
        noised = folder / f"noise-{part}.safetensors"
        add_noise(checkpoint, noised, part)
        theval(*score, "--metrics", METRICS, "--out", folder / noised.stem, THEVAL_CHECKPOINT=str(noised))
        if not part:
            theval("regress", folder / noised.stem, "--baseline", baseline, "--update-baseline")
        gates.append(tell(gate(f"noise of {part:g} in the checkpoint", folder / noised.stem, baseline)))
    return gates


def add_noise(checkpoint: Path, out: Path, part: float) -> None:
    """Gaussian noise on each kernel and matrix, of `part` of its own standard deviation."""
    tensors, words = read_tensors(checkpoint, "theval train")
    random = torch.Generator().manual_seed(0)
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.ndim > 1:
            noise = torch.randn(tensor.shape, generator=random) * (part * tensor.float().std())
            tensors[name] = (tensor.float() + noise).to(tensor.dtype)
    write_tensors(out, tensors, words)


def detectors(folder: Path, reruns: int, people: int, steps: int) -> list[Gate]:
    """Trainings with other seeds beside a baseline of three, and one of a tenth of the steps."""
    data, fakes = folder / "faces", folder / "fakes"
    make_dataset(data, people, frames=80, size=96)
    rows = pq.read_table(data / "clips.parquet").to_pylist()
    splits = ["train", "test", "train", "test", "val"]
    rows = [row | {"split": splits[index % len(splits)]} for index, row in enumerate(rows)]
    pq.write_table(pa.Table.from_pylist(rows, CLIP_SCHEMA), data / "clips.parquet")
    theval("generate", "--data", data, "--split", "all", "--shots", "1", "--generator", "warp", "-o", fakes)
    recipe = folder / "small.toml"
    recipe.write_text("[network]\nsize = 64\n[train]\nbatch = 16\nframes = 8\nvalidate_every = 20\nwarmup = 5\n")

    def judged(seed: int, count: int) -> Path:
        told = ("--data", data, "--fakes", fakes)
        trained, run = folder / "detectors" / f"{seed}-{count}", folder / "judged" / f"{seed}-{count}"
        settings = ("--config", recipe, "--seed", seed, "--steps", count, "--precision", "32-true", "--device", "cpu")
        theval("detect", "train", *told, "--detector", "efflite0", *settings, "--out", trained)
        theval("detect", "eval", *told, "--detector", trained, "--frames", 8, "--out", run)
        return run

    baseline = folder / "detect.json"
    first = [judged(seed, steps) for seed in range(3)]
    theval("regress", *first, "--baseline", baseline, "--update-baseline")
    gates = [
        tell(gate(f"detector trained with seed {seed}", judged(seed, steps), baseline)) for seed in range(3, 3 + reruns)
    ]
    return [*gates, tell(gate("detector of a tenth of the steps", judged(0, steps // 10), baseline))]


def tell(found: Gate) -> Gate:
    """As it comes."""
    click.echo(
        f"{found.what:<36} exit {found.exit_code}: {found.failing} of {found.compared} fail, "
        f"{found.unadjusted} leave out 0 by themselves"
    )
    return found


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--checkpoint", type=click.Path(path_type=Path), default=Path("generator/checkpoints/compact.safetensors")
)
@click.option("--people", default=8, show_default=True, help="Whom the generators reproduce.")
@click.option("--reruns", default=20, show_default=True, help="Of the controls.")
@click.option("--trainings", default=4, show_default=True, help="Of detectors, beside the baseline's three.")
@click.option("--steps", default=80, show_default=True, help="Of each.")
def main(folder: Path, checkpoint: Path, people: int, reruns: int, trainings: int, steps: int) -> None:
    """Measure it in a new FOLDER."""
    make_dataset(folder / "heads", people, frames=80, size=96)
    found = controls(folder, reruns)
    found += detectors(folder, trainings, 20, steps)
    found += checkpoints(folder, checkpoint)
    (folder / "gates.json").write_text(json.dumps([row._asdict() for row in found], indent=1))


if __name__ == "__main__":
    main()
