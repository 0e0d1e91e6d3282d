"""theval import: a public benchmark as it lies on the disk to a manifest."""

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from thead_eval.cli.options import parts, refuse

if TYPE_CHECKING:
    from thead_eval.layouts import Imported

NAMES = ("voxceleb", "faceforensics", "celeb-df", "deepfakebench", "talkingheadbench")


@click.command("import", short_help="A public benchmark as it lies on the disk to a manifest.")
@click.argument("layout", type=click.Choice(NAMES))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="The manifest, a CSV file.")
@click.option(
    "--split",
    type=click.Choice(["official", "people"]),
    help="The benchmark's own, or one by people. Default: its own where there is one.",
)
@click.option(
    "--ratios",
    default="0.7,0.15,0.15",
    show_default=True,
    callback=parts,
    help="Train, val, test of a split by people.",
)
@click.option("--compression", default="c23", show_default=True, help="faceforensics, deepfakebench: raw, c23 or c40.")
@click.option("--index", type=click.Path(path_type=Path), help="deepfakebench: the JSON that lists the frames.")
@click.option("--reals", type=click.Path(path_type=Path), help="talkingheadbench: the folder of its real videos.")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
def command(
    layout: str,
    folder: Path,
    out: Path,
    split: str | None,
    ratios: tuple[float, float, float],
    compression: str,
    index: Path | None,
    reals: Path | None,
    as_json: bool,
) -> None:
    """Write which videos of a benchmark in FOLDER are real, what made the others, who is in them, and their splits.

    'theval prepare --manifest' makes a dataset of the videos; the pictures of deepfakebench are written as clips beside
    the manifest, which 'theval detect --fakes' reads as they are. A fake shows one person and is made of another: both
    count. Where a benchmark's own split has somebody in two splits, as that of Celeb-DF, videos of the earlier one are
    left out and counted.

    \b
    Layouts:
      voxceleb          VoxCeleb 1 and 2: [dev|test/]IDENTITY/VIDEO/CLIP.mp4
      faceforensics     FaceForensics++, with splits/{train,val,test}.json of its repository
      celeb-df          Celeb-DF and Celeb-DF++, with List_of_testing_videos.txt
      deepfakebench     frames and JSON of DeepfakeBench and DF40
      talkingheadbench  fake/GENERATOR/SPLIT/, real videos with --reals

    \b
    Examples:
      theval import voxceleb VoxCeleb2/ -o vox2.csv
      theval import faceforensics FaceForensics++/ -o ff.csv --compression c40
      theval prepare FaceForensics++/ ff/ --manifest ff.csv
      theval import deepfakebench rgb/ --index simswap_ff.json -o simswap/manifest.csv
      theval detect eval --fakes simswap/ --detector runs/mine
    """
    from thead_eval.cli.progress import progress_bars
    from thead_eval.layouts import Asked, import_layout, write_manifest
    from thead_eval.sources import Ratios

    for option, owners in (("index", ("deepfakebench",)), ("reals", ("talkingheadbench",)),
                           ("compression", ("faceforensics", "deepfakebench"))):  # fmt: skip
        if layout not in owners:
            refuse(click.get_current_context(), (option,), f"layout {' or '.join(owners)}")
    official = None if split is None else split == "official"
    imported = import_layout(layout, folder, Asked(compression, index, reals), official, Ratios(*ratios))
    with progress_bars() as progress:
        write_manifest(imported, folder, out, progress)
    if as_json:
        click.echo(json.dumps(_counts(imported), indent=1))
    else:
        _print(imported, folder, out)


def _counts(imported: "Imported") -> dict[str, object]:
    return {
        "videos": len(imported.rows),
        "people": len({person for row in imported.rows for person in row.people}),
        "labels": dict(Counter(row.label for row in imported.rows)),
        "splits": dict(Counter(imported.splits.values())),
        "split": imported.how,
        "left_out_as_people_cross": imported.crossing,
        "left_out_as_not_of_the_layout": imported.unread,
    }


def _print(imported: "Imported", folder: Path, out: Path) -> None:
    labels = Counter(row.label for row in imported.rows)
    made = len(labels) - ("real" in labels)
    people = len({person for row in imported.rows for person in row.people})
    fakes = len(imported.rows) - labels["real"]
    click.echo(f"{out}: {labels['real']} real videos and {fakes} fakes of {made} generators, {people} people")
    splits = Counter(imported.splits.values())
    click.echo(f"Split ({imported.how}): " + ", ".join(f"{splits[name]} {name}" for name in ("train", "val", "test")))
    if imported.crossing:
        click.echo(f"Left out: {imported.crossing} videos that show people of two splits")
    if imported.unread:
        click.echo(f"Left out: {imported.unread} videos of no split, or not where the layout has them")
    if any(row.frames for row in imported.rows):
        click.echo(f"Next: theval detect eval --fakes {out.parent} --detector DETECTOR")
    else:
        click.echo(f"Next: theval prepare {folder} DATASET --manifest {out}")
