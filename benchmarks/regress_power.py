"""How often `theval regress` raises a false alarm, and whether it catches what is really worse, on procedural heads.

Re-runs with other seeds and numbers of threads must pass. JPEG on the fakes, noise in the generator's checkpoint and a
detector of fewer steps must not.

    python -m benchmarks.regress_power FOLDER --reruns 20
"""

import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from benchmarks.fakes import make_fakes
from benchmarks.robustness import jpeg
from benchmarks.shots import ShotsConfig, checkpoints_of, predict
from thead_eval.baseline import Baseline, make_baseline
from thead_eval.data import CLIP_SCHEMA, open_dataset
from thead_eval.media import read_clip, write_clip
from thead_eval.regression import ALPHA, Rules, judge
from thead_eval.results import LeftOut, Measurement, RunRecord, read_measurements, read_run
from thead_eval.scoring import score_run
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


def gate(what: str, run: Path, baseline: Baseline) -> Gate:
    """As `theval regress` says it, counted and told."""
    judgement = judge(baseline, *read(run))
    sure = sum(found.change.p < ALPHA for found in judgement.findings if found.change)
    found = Gate(what, judgement.exit_code, judgement.compared, len(judgement.failing), sure)
    click.echo(
        f"{found.what:<36} exit {found.exit_code}: {found.failing} of {found.compared} fail, "
        f"{found.unadjusted} leave out 0 by themselves"
    )
    return found


def read(run: Path) -> tuple[RunRecord, list[Measurement]]:
    """What of a run is compared."""
    return read_run(run), read_measurements(run)


def score(data: Path, generators: tuple[str, ...], out: Path, seed: int = 0) -> Path:
    """`theval score` in this process, which has loaded the networks already."""
    config = ShotsConfig(str(data), generators=generators, shots=(1,), seed=seed)
    settings = vars(config) | {"generators": list(generators), "shots": [1], "metrics": METRICS.split(",")}
    settings |= {"dataset": open_dataset(data).sha256, "checkpoints": checkpoints_of(generators, config.device)}
    score_run(out, settings, partial(predict, config, progress=quiet), 1, quiet)
    return out


def quiet(what: str, done: int, total: int) -> None:
    """No bar."""


def chance(gates: int = 60) -> None:
    """The share of gates that alarm where nothing changed, without any tolerance; and without adjusting p.

    Numbers of one run move together by half, as they are of the same people; a quarter have no value of each person.
    """
    random = np.random.default_rng(0)
    nothing: dict[str, str] = {}
    record = RunRecord(
        command=[],
        config={},
        status="complete",
        started="",
        seconds=0,
        commit=None,
        dirty=None,
        packages=nothing,
        python="",
        device="cpu",
        seed=0,
        dataset={"sha256": "none"},
        weights=nothing,
    )
    for people, numbers in ((6, 20), (6, 100), (12, 20), (12, 100), (30, 20), (30, 100)):
        alarms = unadjusted = 0
        for _ in range(gates):
            base = random.normal(0.7, 0.05, (numbers, people))
            baseline = make_baseline([(record, draw(random, base))])
            judgement = judge(baseline, record, draw(random, base), Rules(share=0.0))
            alarms += judgement.exit_code
            unadjusted += any(found.change.high < 0 for found in judgement.findings if found.change)
        told = f"{alarms / gates:.1%} of gates alarm, {unadjusted / gates:.1%} without adjusting p"
        click.echo(f"{people} people, {numbers} numbers: {told}")


def draw(random: np.random.Generator, base: NDArray[np.float64]) -> list[Measurement]:
    """A run whose values differ from the base [numbers, people] by chance."""
    together = random.normal(0, 0.01, base.shape[1])
    rows = []
    for index, values in enumerate(base + (together + random.normal(0, 0.01, base.shape)) / 2**0.5):
        names = [f"person {place}" for place in range(len(values))]
        left = [(name, float(np.delete(values, place).mean())) for place, name in enumerate(names)]
        by_group = index % 4 == 0
        rows.append(
            Measurement(
                metric="number",
                value=float(values.mean()),
                higher_is_better=True,
                n_frames=len(values),
                n_identities=len(values),
                n_failed=0,
                labels={"number": str(index)},
                per_identity={} if by_group else dict(zip(names, values.tolist(), strict=True)),
                left_out=tuple(LeftOut(identities=(name,), value=value) for name, value in left if by_group),
            )
        )
    return rows


def controls(folder: Path, people: int, reruns: int) -> list[Gate]:
    """`copy` and `warp` again with other seeds and threads, then the last one's fakes through a JPEG."""
    data, runs, named = folder / "heads", folder / "runs", ("copy", "warp")
    make_dataset(data, people, frames=80, size=96)
    baseline = make_baseline([read(score(data, named, runs / "0"))])
    gates = []
    for seed in range(1, reruns + 1):
        threads = THREADS[seed % len(THREADS)]
        torch.set_num_threads(threads)
        gates.append(gate(f"seed {seed}, {threads} threads", score(data, named, runs / str(seed), seed), baseline))
    last = runs / str(reruns)
    for path in last.glob("clips/warp/*/*.mkv"):
        clip = read_clip(path)
        write_clip(path, Clip(clip.id, jpeg(clip.frames, 3, 0), clip.fps), lossless=True, synthetic="warp")
    for stored in [*last.glob("scores/warp-*"), *last.glob("features/*/warp-*")]:
        shutil.rmtree(stored)
    return [*gates, gate("JPEG on the fakes of warp", score(data, named, last, reruns), baseline)]


def checkpoints(folder: Path, people: int, checkpoint: Path) -> list[Gate]:
    """The neural generator again, and with noise in its weights."""
    data = folder / "heads"
    make_dataset(data, people, frames=80, size=96)
    baseline, gates = None, []
    for part in (0.0, 0.5, 2.0):
        noised = folder / f"noise-{part}.safetensors"
        add_noise(checkpoint, noised, part)
        os.environ["THEVAL_CHECKPOINT"] = str(noised)
        run = score(data, ("fewshot_ff",), folder / noised.stem)
        baseline = baseline or make_baseline([read(run)])
        gates.append(gate(f"noise of {part:g} in the checkpoint", run, baseline))
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


def detectors(folder: Path, people: int, trainings: int, steps: int) -> list[Gate]:
    """Trainings with other seeds beside a baseline of three, and one of a tenth of the steps."""
    data, fakes = folder / "faces", folder / "fakes"
    make_dataset(data, people, frames=80, size=96)
    rows = pq.read_table(data / "clips.parquet").to_pylist()
    splits = ["train", "test", "train", "test", "val"]
    rows = [row | {"split": splits[index % len(splits)]} for index, row in enumerate(rows)]
    pq.write_table(pa.Table.from_pylist(rows, CLIP_SCHEMA), data / "clips.parquet")
    make_fakes(ShotsConfig(str(data), split="all", generators=("warp",), shots=(1,)), fakes, 0, quiet)
    recipe = folder / "small.toml"
    recipe.write_text("[network]\nsize = 64\n[train]\nbatch = 16\nframes = 8\nvalidate_every = 20\nwarmup = 5\n")

    def judged(seed: int, count: int) -> Path:
        told = ("--data", data, "--fakes", fakes)
        trained, run = folder / "detectors" / f"{seed}-{count}", folder / "judged" / f"{seed}-{count}"
        settings = ("--config", recipe, "--seed", seed, "--steps", count, "--precision", "32-true", "--device", "cpu")
        theval("detect", "train", *told, "--detector", "efflite0", *settings, "--out", trained)
        theval("detect", "eval", *told, "--no-baseline", "--detector", trained, "--frames", 8, "--out", run)
        return run

    baseline = make_baseline([read(judged(seed, steps)) for seed in range(3)])
    gates = [gate(f"trained with seed {seed}", judged(seed, steps), baseline) for seed in range(3, 3 + trainings)]
    return [*gates, gate("a tenth of the steps", judged(0, steps // 10), baseline)]


def theval(*arguments: object) -> None:
    """A command as a process of its own, as detectors are trained by packages that this one may not import."""
    command = [sys.executable, "-c", "from thead_eval.cli import main; main()", *map(str, arguments)]
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode:
        raise click.ClickException(f"{' '.join(command[3:])}: {ran.stderr.strip() or ran.stdout.strip()}")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--part", type=click.Choice(["chance", "controls", "checkpoints", "detectors"]), help="Default: all.")
@click.option(
    "--checkpoint", type=click.Path(path_type=Path), default=Path("generator/checkpoints/compact.safetensors")
)
@click.option("--people", default=6, show_default=True, help="Whom the generators reproduce.")
@click.option("--reruns", default=20, show_default=True, help="Of the controls.")
@click.option("--trainings", default=4, show_default=True, help="Of detectors, beside the baseline's three.")
@click.option("--steps", default=60, show_default=True, help="Of each.")
def main(
    folder: Path, part: str | None, checkpoint: Path, people: int, reruns: int, trainings: int, steps: int
) -> None:
    """Measure it in a new FOLDER."""
    found: list[Gate] = []
    if part in (None, "chance"):
        chance()
    if part in (None, "controls"):
        found += controls(folder / "controls", people, reruns)
    if part in (None, "checkpoints"):
        found += checkpoints(folder / "checkpoints", people, checkpoint)
    if part in (None, "detectors"):
        found += detectors(folder / "detectors", 20, trainings, steps)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{part or 'all'}.json").write_text(json.dumps([row._asdict() for row in found], indent=1))


if __name__ == "__main__":
    main()
