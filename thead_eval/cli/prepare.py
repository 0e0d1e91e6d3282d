"""theval prepare: videos to a dataset of head crops with landmarks."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from thead_eval.cli.options import parts

if TYPE_CHECKING:
    from thead_eval.data import Dataset
    from thead_eval.prepare import PrepareReport
    from thead_eval.sources import Source, Survey

LISTED = 20  # videos that gave no clip, with the reason

# What each layout takes for a person, for the line that tells which was taken.
TAKEN = {
    "voxceleb": "IDENTITY/VIDEO/CLIP",
    "faceforensics": "FaceForensics++'s numbers",
    "folders": "each folder is a person",
    "flat": "each file is its own person",
    "manifest": "its column 'identity'",
}


@click.command()
@click.argument("src", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--layout",
    type=click.Choice(["auto", "voxceleb", "faceforensics", "folders", "flat"]),
    default="auto",
    show_default=True,
    help="How paths say who is in a video; auto looks.",
)
@click.option("--manifest", type=click.Path(path_type=Path), help="CSV: file,identity[,label,split].")
@click.option(
    "--split", default="0.7,0.15,0.15", show_default=True, callback=parts, help="Parts train, val, test of the people."
)
@click.option("--size", type=int, default=256, show_default=True, help="Pixels a side of a crop.")
@click.option("--quality", type=int, default=95, show_default=True, help="Of the JPEGs, 1 to 100.")
@click.option("--detector", type=click.Choice(["dlib", "mtcnn"]), default="dlib", show_default=True)
@click.option(
    "--landmarks",
    type=click.Choice(["dlib", "fan"]),
    default="dlib",
    show_default=True,
    help="fan needs 'theval weights fetch fan_2dfan4'.",
)
@click.option("--detect-every", type=int, default=8, show_default=True, help="Frames; between them faces are tracked.")
@click.option("--min-frames", type=int, default=48, show_default=True, help="Shorter clips are left out.")
@click.option("--workers", type=click.IntRange(1), help="Processes. Default: one a core.")
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="ray: many machines that share SRC and OUT.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
def command(
    src: Path,
    out: Path,
    layout: str,
    manifest: Path | None,
    split: tuple[float, float, float],
    size: int,
    quality: int,
    detector: str,
    landmarks: str,
    detect_every: int,
    min_frames: int,
    workers: int | None,
    engine: str,
    as_json: bool,
) -> None:
    """Make a dataset in OUT from the folder of videos SRC.

    Faces are found, followed and cropped, one clip a face and shot, with 68 landmarks on every frame. A video that
    gives no clip stays in OUT/clips.parquet with its reason. Interrupted, the same command continues.

    \b
    Layouts (who is in a video):
      voxceleb       IDENTITY/VIDEO/CLIP.mp4
      faceforensics  original_sequences/..., manipulated_sequences/METHOD/c23/videos/TARGET_SOURCE.mp4
      folders        PERSON/CLIP.mp4
      flat           each file its own person

    A --manifest says more: the columns file and identity, and perhaps label (real, or what made it) and split (train,
    val, test), a row per video. Which layout was taken, and how many people that makes, is told before the work begins:
    where it is wrong, one person can be in two splits, and the numbers do not hold.

    Where several people are in view, the file's identity goes to the face that is much the largest; every other clip
    gets an identity of its own, such as 'anna~2'. All clips of a file are in one split.

    \b
    Examples:
      theval prepare videos/ dataset/
      theval prepare VoxCeleb2/dev/mp4 vox/ --workers 8
      theval prepare people/ dataset/ --layout folders
      theval prepare clips/ dataset/ --manifest clips.csv --split 0.6,0.2,0.2
      RAY_ADDRESS=auto theval prepare /shared/videos /shared/dataset --engine ray
    """
    from thead_eval import prepare
    from thead_eval.data import open_dataset
    from thead_eval.sources import Ratios, survey

    settings = prepare.PrepareSettings(size, quality, detector, landmarks, detect_every, min_frames)  # type: ignore[arg-type]  # click checked the names
    found = survey(src, layout, Ratios(*split), manifest, exclude=out)  # type: ignore[arg-type]
    click.echo(_told(found), err=True)
    sources = found.sources
    with _progress(src, sources) as report:
        result = prepare.prepare(src, out, sources, settings, workers=workers, engine=engine, report=report)  # type: ignore[arg-type]
    if as_json:
        read = {"layout": found.layout, "people": len(found.people), "left_out": found.left_out}
        counts = {**read, "inputs": len(sources), **result._asdict()}
        click.echo(json.dumps(counts, indent=1))
    else:
        _print(result, len(sources), open_dataset(out) if result.clips else None)
    if not result.clips:
        raise click.ClickException(
            f"none of {len(sources)} videos gave a clip; the reasons are in '{out / 'clips.parquet'}'"
        )


def _told(found: "Survey") -> str:
    """'Layout folders (each folder is a person): 5 videos of 2 people: anna, ben.'"""
    people, videos = found.people, len(found.sources)
    named = ", ".join(people[:3]) + (f" and {len(people) - 3} more" if len(people) > 3 else "")
    left = f" Not taken: {found.left_out} videos that do not lie where this layout has them." if found.left_out else ""
    how = "Manifest" if found.layout == "manifest" else f"Layout {found.layout}"
    return (
        f"{how} ({TAKEN[found.layout]}): {videos} video{'s' * (videos != 1)} of "
        f"{len(people)} {'person' if len(people) == 1 else 'people'}: {named}.{left}"
    )


@contextmanager
def _progress(src: Path, sources: "list[Source]") -> "Iterator[Callable[[Source], None]]":
    """A bar on stderr that counts bytes, since videos differ much in length."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    bytes_of = {source.file: (src / source.file).stat().st_size for source in sources if (src / source.file).is_file()}
    columns = (
        TextColumn("preparing"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}% · {task.fields[done]}/{task.fields[videos]} videos"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task("", total=sum(bytes_of.values()) or None, done=0, videos=len(sources))
        done = 0

        def report(source: "Source") -> None:
            nonlocal done
            done += 1
            bars.update(task, advance=bytes_of.get(source.file, 0), done=done)

        yield report


def _print(result: "PrepareReport", inputs: int, dataset: "Dataset | None") -> None:
    from rich.table import Table

    from thead_eval.cli.console import results_console
    from thead_eval.data import named_clips
    from thead_eval.sources import SPLITS

    table = Table("outcome", "videos", show_footer=True)
    table.columns[0].footer, table.columns[1].footer = "all", str(inputs)
    table.columns[1].justify = "right"
    for outcome, count in result.outcomes.items():
        table.add_row(outcome, str(count))
    console = results_console()
    console.print(table)
    console.print(f"{result.clips} clips, {result.frames} frames")
    if dataset is None:
        return
    people = named_clips(dataset.clips).groupby("split")["identity"].nunique()
    told = ", ".join(f"{split} {people.get(split, 0)}" for split in SPLITS)
    console.print(f"people: {told}", highlight=False)
    for row in dataset.rejected.head(LISTED).to_dict("records"):
        console.print(
            f"{row['source']}: {row['reason']}: {row['detail']}", highlight=False, markup=False, soft_wrap=True
        )
    if len(dataset.rejected) > LISTED:
        console.print(
            f"and {len(dataset.rejected) - LISTED} more; all are in {dataset.path}/clips.parquet", markup=False
        )
