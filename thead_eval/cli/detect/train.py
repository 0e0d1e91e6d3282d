"""theval detect train: a detector that learns from real clips and fakes."""

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from thead_eval.evidence import Evidence


@click.command("train")
@click.option(
    "--data",
    help="A dataset of 'theval prepare': its real clips, and who is in which split. Default: those beside the fakes.",
)
@click.option(
    "--fakes",
    type=click.Path(path_type=Path),
    multiple=True,
    help="A folder of 'theval generate --data', a prepared dataset of fakes, or videos of head crops. Repeatable.",
)
@click.option(
    "--detector",
    default="efflite0",
    show_default=True,
    help="efflite0, sbi, srm, freq, temporal, xception, timm:NAME, spectrum, landmarks, grain, probe, seam, stack or "
    "ensemble: see docs/detect.md",
)
@click.option("--without", multiple=True, help="A generator whose fakes are left out. Repeatable.")
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="The run folder.")
@click.option(
    "--config", type=click.Path(path_type=Path), help="TOML of settings that differ: [network] [train] [augmentation]."
)
@click.option("--steps", type=click.IntRange(1), help="Updates in all.")
@click.option("--hours", type=click.FloatRange(0, min_open=True), help="Stop after so many, of all sittings together.")
@click.option("--batch", type=click.IntRange(2), help="Samples a step, half of them fake, of all processes together.")
@click.option("--seed", type=click.IntRange(0), help="Default: 0.")
@click.option("--device", help="cpu, cuda, cuda:1 or mps. Default: cuda where there is one, else cpu.")
@click.option("--precision", type=click.Choice(["32-true", "bf16-mixed"]), help="Default: bf16-mixed.")
@click.option(
    "--member", type=click.Path(path_type=Path), multiple=True, help="ensemble: a trained detector. Repeatable."
)
@click.option("--leaky", is_flag=True, help="Train although two splits share people, recordings or files.")
@click.option("--no-faces", is_flag=True, help="Compare names only, not faces, of the people of two splits.")
@click.option("--resume", is_flag=True, help="Continue what is in OUT, or begin where it is empty.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    data: str | None,
    fakes: tuple[Path, ...],
    detector: str,
    without: tuple[str, ...],
    out: Path,
    config: Path | None,
    steps: int | None,
    hours: float | None,
    batch: int | None,
    seed: int | None,
    device: str | None,
    precision: str | None,
    member: tuple[Path, ...],
    leaky: bool,
    no_faces: bool,
    resume: bool,
    as_json: bool,
) -> None:
    """Teach a detector on the split 'train'; people of the split 'val' choose its best state and calibrate it.

    Real and fake come the same way: decoded, brought to one size, through one JPEG. A fake belongs to the split of the
    person whom it shows. OUT holds best.safetensors (to use) and, of networks, last.safetensors (to continue) and
    metrics.csv. Ctrl-C or SIGTERM saves and ends (exit code 130 or 143); the same command with --resume makes the run
    that would have been. A training that diverges ends with exit code 1.

    Before it, the clips are audited as by 'theval detect audit --fair': what two splits share is an error; faces that
    may be one person's, and what the files tell without a picture, are said.

    \b
    Examples:
      theval detect train --data dataset/ --fakes fakes/ -o detectors/mine --hours 0.5
      theval detect train --data dataset/ --fakes fakes/ -o detectors/mine --hours 1 --resume
      theval detect train --data dataset/ --fakes fakes/ --without warp -o detectors/no-warp
      theval detect train --data dataset/ --detector sbi -o detectors/sbi
      theval detect train --data dataset/ --fakes fakes/ --detector spectrum -o detectors/spectrum
    """
    import torch

    from detectors.checkpoint import find_class, read_detector
    from detectors.ensemble import assemble
    from detectors.fit import fit
    from detectors.recipe import read_recipe
    from detectors.train import check_resumable, check_vacant, train
    from thead_eval.cli.detect.leaks import check_leaks
    from thead_eval.cli.options import refuse, without_generators
    from thead_eval.cli.progress import training_bars
    from thead_eval.data import open_dataset
    from thead_eval.errors import DatasetError, TrainingFailed
    from thead_eval.evidence import read_evidence
    from thead_eval.results import duration
    from thead_eval.training import open_fabric

    asked = {"steps": steps, "batch": batch, "seed": seed, "precision": precision}
    recipe = read_recipe(detector, config, {key: value for key, value in asked.items() if value is not None})
    fabric = open_fabric(device or ("cuda" if torch.cuda.is_available() else "cpu"), recipe.train.precision)
    leads = fabric.global_rank == 0
    fits_on = getattr(find_class(recipe.detector), "fits_on", None)
    fitted = fits_on is not None
    if fitted:
        refuse(click.get_current_context(), ("steps", "hours", "batch", "precision", "resume"), "a network")
        check_vacant(out)
    else:
        check_resumable(out, resume)
    if recipe.detector != "ensemble":
        refuse(click.get_current_context(), ("member",), "--detector ensemble")
    assembled = assemble(member) if recipe.detector == "ensemble" else None
    dataset = open_dataset(data) if data else None
    with training_bars(leads) as bars:
        evidence = without_generators(read_evidence(dataset, fakes, progress=bars.read), without)
        if leads:
            for own, purpose, spare in (
                (evidence.of("train"), "learn from", ("val", "both")),
                (evidence.of("val"), "validate on", ("both",)),
            ):
                bars.say(f"to {purpose}: {describe(own)}")
                if fits_on not in spare and all(item.label == "fake" for item in own.items):
                    raise DatasetError(f"there are no real clips to {purpose}; name a prepared dataset with --data")
            check_leaks(
                evidence,
                recipe.train.seed,
                bars.read,
                bars.say,
                faces=not no_faces,
                kept=out / "faces.safetensors",
                leaky=leaky,
            )
        try:
            if fitted:
                ending = fit(recipe, evidence, out, fabric.device, assembled=assembled, read=bars.read, say=bars.say)
            else:
                ending = train(
                    recipe,
                    evidence,
                    out,
                    fabric,
                    resume=resume,
                    hours=hours,
                    tell=bars.tell,
                    read=bars.read,
                    say=bars.say,
                )
        except TrainingFailed as error:
            raise click.ClickException(str(error)) from None
    best_file = out / "best.safetensors"
    if leads and best_file.exists() and not read_detector(best_file, torch.device("cpu")).operating_points:
        click.echo(
            "too few clips to validate on: 5 real ones and 5 fakes show a false positive rate of 20 %, 20 and 20 one "
            "of 5 %; with fewer, 'theval detect scan' gives probabilities, and every verdict is inconclusive",
            err=True,
        )
    if leads and as_json:
        click.echo(json.dumps(ending._asdict(), indent=1))
    elif leads:
        made = f"step {ending.step}, " if ending.step else ""
        best = f"; best at step {ending.best_step}" if ending.best_step else ""
        loss = f", validation log-loss {ending.best:.4f}" if math.isfinite(ending.best) else ""
        click.echo(f"{made}{duration(ending.seconds)}{best}{loss}: '{out}'")
    if ending.signal is not None:
        if leads:
            click.echo("stopped and saved; the same command with --resume continues", err=True)
        sys.exit(128 + ending.signal)


def describe(evidence: "Evidence") -> str:
    """How many clips there are, those apart that are parts of others."""
    reals = [item for item in evidence.items if item.label == "real"]
    whole = {(item.identity, item.source) for item in reals if item.clip}
    parts = sum(not item.clip and (item.identity, item.source) in whole for item in reals)
    people = len({item.identity for item in evidence.items})
    texts = [f"{people} people", f"{len(reals) - parts} real clips"]
    texts += [f"{parts} parts of these that fakes reproduce"] if parts else []
    of = f" of {', '.join(evidence.generators)}" if evidence.generators else ""
    return f"{', '.join(texts)}, {len(evidence.items) - len(reals)} fakes{of}"
