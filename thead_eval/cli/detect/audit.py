"""theval detect audit: whether training and judgement are apart, and whether the files alone give fakes away."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from thead_eval.audit import Audit


@click.command(short_help="Whether train and test are apart, and whether the files alone give fakes away.")
@click.option(
    "--data",
    type=click.Path(path_type=str),
    help="A prepared dataset, for its real clips. Default: those beside the fakes.",
)
@click.option("--fakes", multiple=True, type=click.Path(path_type=Path), help="A folder of fakes; again for each more.")
@click.option("--fair", is_flag=True, help="Of people with fakes, only the real frames that these reproduce.")
@click.option("--no-faces", is_flag=True, help="Compare names only, not faces.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the folds and the interval.")
@click.option("--json", "as_json", is_flag=True, help="Print everything that was found as JSON.")
def command(data: str | None, fakes: tuple[Path, ...], fair: bool, no_faces: bool, seed: int, as_json: bool) -> None:
    """Look for what makes a detector's numbers worthless before it is trained.

    People in two splits, by name and by their faces (dlib's embeddings nearer than 0.20, as those of one recording are;
    up to 0.40 it may be one person, which is named and is no leak); recordings and files in two splits; and how far
    fakes are told from reals by codec, size, bitrate and length alone, over people held out. That must not be more than
    AUC 0.55: else a network can learn it too, and the properties that give the answer away are named, each with what is
    left of it in the frames that detectors are given.

    Exit code 0 where no leak was found, 1 where one was, 2 where the question could not be asked.

    \b
    Examples:
      theval detect audit --data dataset/ --fakes fakes/
      theval detect audit --data dataset/ --fakes fakes/ --fakes others/ --no-faces --json
    """
    from thead_eval.audit import audit
    from thead_eval.cli.progress import progress_bars
    from thead_eval.data import open_dataset
    from thead_eval.evidence import read_evidence

    dataset = open_dataset(data) if data else None
    with progress_bars() as progress:
        evidence = read_evidence(dataset, fakes, whole=not fair, progress=progress)
        found = audit(evidence, seed, progress, faces=None if no_faces else evidence)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(found) | {"metadata": found.metadata._asdict()}, indent=1))
    else:
        _print(found, fair)
    sys.exit(1 if found.leaks else 0)


def _print(found: "Audit", fair: bool) -> None:
    from rich.table import Table

    from thead_eval.cli.console import results_console

    console = results_console()
    compared = f"; the faces of {found.faces} were compared" if found.faces else "; faces were not compared"
    console.print(f"{found.clips} clips of {found.identities} people{compared}.", highlight=False)
    if found.tells:
        table = Table(title="What the files tell without a picture")
        for heading in ("property", "AUC alone", "what is left of it for a detector"):
            table.add_column(heading)
        for tell in found.tells:
            table.add_row(tell.name, f"{tell.auc:.2f}", tell.remains)
        console.print(table)
    if found.metadata.value is None:
        console.print("Real and fake files of other people are needed to say what files give away.")
    else:
        interval = ""
        if found.metadata.low is not None and found.metadata.high is not None:
            interval = f" [{found.metadata.low:.2f}, {found.metadata.high:.2f}]"
        console.print(f"All of them together: AUC {found.metadata.value:.2f}{interval}.", highlight=False, markup=False)
    for leak in found.leaks:
        console.print(f"{leak.check}: {leak.what}.", style="yellow", highlight=False, markup=False)
    for doubt in found.doubts:
        console.print(f"{doubt.check}: {doubt.what}.", highlight=False, markup=False)
    for reason in found.unreadable:
        console.print(f"unreadable: {reason}", style="yellow", highlight=False, markup=False)
    if found.faceless:
        console.print(f"no face found, so not compared: {', '.join(found.faceless)}", highlight=False, markup=False)
    if not fair and any(leak.check == "metadata" for leak in found.leaks):
        console.print(
            "Whole real clips stand beside fakes here. With --fair, only the real frames that the fakes reproduce do, "
            "as files like theirs: what detectors learn from and are judged on.",
            highlight=False,
        )
    count, doubts = len(found.leaks), len(found.doubts)
    pairs = f"; {doubts} pair{'s' if doubts > 1 else ''} of people to look at" if doubts else ""
    console.print(f"{count or 'No'} leak{'s' if count > 1 else ''} found{pairs}.", highlight=False)
