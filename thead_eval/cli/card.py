"""`theval card`: a checkpoint with its training and its runs to a model card, or a dataset to a data card."""

from pathlib import Path

import click


@click.command("card")
@click.argument("subject", metavar="CHECKPOINT|DATASET", type=click.Path(path_type=Path))
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
    help="Markdown that is put first: what it is for, what it cannot do, whose faces or data these are.",
)
def command(subject: Path, out: Path, training: Path | None, runs: tuple[Path, ...], about: Path | None) -> None:
    """A model card, or of a prepared dataset a data card, in Markdown: every number in it is read from the files.

    \b
    Examples:
      theval card runs/compact/best.safetensors -o card.md --training runs/compact
      theval card model.safetensors -o model.md --training runs/compact --run runs/validation --about about.md
      theval card dataset/ -o datacard.md --about consent.md
    """
    from reports.card import write_card
    from reports.datacard import write_data_card
    from reports.runs import open_runs
    from thead_eval.data import open_dataset

    if subject.is_dir():
        if not (subject / "dataset.json").exists():
            raise click.UsageError(
                f"'{subject}' holds no dataset.json; name a prepared dataset, or a checkpoint such as best.safetensors"
            )
        if training or runs:
            raise click.UsageError("--training and --run belong to a checkpoint, and this is a folder")
        click.echo(str(write_data_card(open_dataset(subject), out, about=about)))
        return
    card = write_card(subject, out, training=training, runs=open_runs(runs) if runs else (), about=about)
    click.echo(", ".join(str(path) for path in (card.markdown, card.curves) if path))
