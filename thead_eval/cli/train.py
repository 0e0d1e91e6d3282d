"""theval train: meta-learning of the few-shot generator on a prepared dataset."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from generator.meta import Plan


def _shots(ctx: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    try:
        numbers = [int(part) for part in value.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2):
        raise click.BadParameter(f"'{value}' is not a number such as 8, or two such as 1,32")
    return numbers[0], numbers[-1]


@click.command()
@click.option("--data", required=True, help="A dataset of 'theval prepare': a folder, or a URL that fsspec reads.")
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="The run folder.")
@click.option(
    "--recipe",
    type=click.Choice(["compact", "paper256"]),
    default="compact",
    show_default=True,
    help="compact: what two CPU cores can train. paper256: the networks of the paper.",
)
@click.option(
    "--config", type=click.Path(path_type=Path), help="TOML of settings that differ: [network] [meta] [augmentation]."
)
@click.option("--steps", type=click.IntRange(1), help="Updates of E and G in all. Default: the recipe's.")
@click.option("--hours", type=click.FloatRange(0, min_open=True), help="Stop after so many, of all sittings together.")
@click.option("--K", "shots", callback=_shots, help="Support frames of a sample: one number, or least,most.")
@click.option("--batch", type=click.IntRange(1), help="Samples a step, of all processes together.")
@click.option("--seed", type=click.IntRange(0), help="Default: 0.")
@click.option("--device", help="cpu, cuda, cuda:1 or mps. Default: cuda where there is one, else cpu.")
@click.option("--precision", type=click.Choice(["32-true", "bf16-mixed"]), help="Default: bf16-mixed.")
@click.option("--resume", is_flag=True, help="Continue what is in OUT, or begin where it is empty.")
@click.option("--init", type=click.Path(path_type=Path), help="A checkpoint whose networks to start from.")
@click.option("--dry-run", is_flag=True, help="Make two steps, print what the training would take, keep nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the result, or the plan, as JSON.")
def command(
    data: str,
    out: Path,
    recipe: str,
    config: Path | None,
    steps: int | None,
    hours: float | None,
    shots: tuple[int, int] | None,
    batch: int | None,
    seed: int | None,
    device: str | None,
    precision: str | None,
    resume: bool,
    init: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Teach E, G and D on the split 'train' of a dataset; people of its split 'val' choose the best checkpoint.

    OUT holds last.safetensors (to continue), best.safetensors (to use), metrics.csv, pictures of samples, and
    TensorBoard's files where that is installed. Ctrl-C or SIGTERM saves and ends (exit code 130 or 143); the same
    command with --resume makes the run that would have been. A training that diverges or collapses ends with exit
    code 1.

    \b
    Examples:
      theval train --data dataset/ -o runs/compact --hours 6
      theval train --data dataset/ -o runs/compact --hours 6 --resume
      theval train --data dataset/ -o runs/paper --recipe paper256 --dry-run
      theval train --data dataset/ -o runs/mine --config mine.toml --K 1,32
      torchrun --nproc-per-node 8 --no-python theval train --data vox/ -o runs/vox --recipe paper256
    """
    import torch

    from generator import meta
    from generator.recipe import read_recipe
    from thead_eval.cli.progress import training_bars
    from thead_eval.data import open_dataset
    from thead_eval.errors import TrainingFailed
    from thead_eval.results import duration
    from thead_eval.training import open_fabric

    asked = {"steps": steps, "shots": shots, "batch": batch, "seed": seed, "precision": precision}
    settings = read_recipe(recipe, config, {key: value for key, value in asked.items() if value is not None})
    dataset = open_dataset(data)
    fabric = open_fabric(device or ("cuda" if torch.cuda.is_available() else "cpu"), settings.meta.precision)
    leads = fabric.global_rank == 0
    if dry_run:
        plan = meta.plan(settings, dataset, fabric, hours)
        if leads:
            click.echo(json.dumps(plan._asdict(), indent=1) if as_json else _describe(plan))
        return
    with training_bars(leads) as bars:
        try:
            ending = meta.train(
                settings, dataset, out, fabric, resume=resume, hours=hours, start=init, tell=bars.tell, say=bars.say
            )
        except TrainingFailed as error:
            raise click.ClickException(str(error)) from None
    if leads and as_json:
        click.echo(json.dumps(ending._asdict(), indent=1))
    elif leads:
        best = f"; best at step {ending.best_step}, score {ending.best:.4f}" if ending.best_step else ""
        click.echo(f"step {ending.step}, {duration(ending.seconds)}{best}: '{out}'")
    if ending.signal is not None:
        if leads:
            click.echo("stopped and saved; the same command with --resume continues", err=True)
        sys.exit(128 + ending.signal)


def _describe(plan: "Plan") -> str:
    size = ", ".join(f"{name} {count / 1e6:.2f} M" for name, count in plan.parameters.items())
    return "\n".join(
        [
            f"people      {plan.people} to learn from, {plan.clips} clips; {plan.validation_people} to validate on",
            f"parameters  {size}",
            f"steps       {plan.steps}",
            f"samples     {plan.samples}, {plan.epochs:.1f} of each person",
            f"a step      {plan.seconds_per_step:.2f} s, measured on two",
            f"hours       {plan.hours:.1f}, and validation",
            f"memory      {plan.memory_gb:.1f} GB",
        ]
    )
