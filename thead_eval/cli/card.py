"""`theval card`: a checkpoint, its training and its runs to a model card."""

from pathlib import Path

import click


@click.command("card")
@click.argument("checkpoint", type=click.Path(path_type=Path, dir_okay=False))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="The Markdown file.")
@click.option("--training", type=click.Path(path_type=Path), help="The folder of the training that made it.")
@click.option(
    "--run",
    "runs",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A run of 'theval score' whose numbers it shows. More than one: give it again.",
)
@click.option(
    "--about",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Markdown that is put first: what the model is for, what it cannot do, whose data it was.",
)
def command(checkpoint: Path, out: Path, training: Path | None, runs: tuple[Path, ...], about: Path | None) -> None:
    """A model card in Markdown: every number in it is read from the files.

    \b
    Examples:
      theval card runs/compact/best.safetensors -o card.md --training runs/compact
      theval card model.safetensors -o model.md --training runs/compact --run runs/validation --about about.md
    """
    from reports.card import write_card
    from reports.runs import open_runs

    card = write_card(checkpoint, out, training=training, runs=open_runs(runs) if runs else (), about=about)
    click.echo(", ".join(str(path) for path in (card.markdown, card.curves) if path))
