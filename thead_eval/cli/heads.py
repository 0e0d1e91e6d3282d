"""theval heads: procedural talking heads as videos."""

import json
from pathlib import Path

import click


@click.command(short_help="Procedural talking heads as videos: data of nobody.")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--people", type=click.IntRange(1), default=24, show_default=True)
@click.option("--frames", type=click.IntRange(1), default=96, show_default=True, help="Of each video, 25 a second.")
@click.option("--size", type=click.IntRange(64, 1024), default=256, show_default=True, help="Pixels a side.")
@click.option("--first", type=click.IntRange(0), default=0, help="Number of the first person.")
@click.option("--json", "as_json", is_flag=True, help="Print what was made as JSON.")
def command(out: Path, people: int, frames: int, size: int, first: int, as_json: bool) -> None:
    """Write a video of each of so many drawn people who talk, blink and turn, into the folder OUT.

    They are nobody, so that everything can be tried without data, consent or download: theval finds their faces as it
    finds those of people. A person's number says all of it: the same command makes the same videos, and what is there
    is kept.

    \b
    Examples:
      theval heads heads/
      theval heads heads/ --people 40 --frames 160
    """
    from thead_eval.cli.progress import progress_bars
    from thead_eval.media import write_clip
    from thead_eval.synthetic import head_clip

    out.mkdir(parents=True, exist_ok=True)
    made = 0
    with progress_bars() as progress:
        for done, person in enumerate(range(first, first + people)):
            progress("drawing", done, people)
            path = out / f"head{person:04d}.mp4"
            if not path.exists():
                clip, _ = head_clip(person, frames, size)
                write_clip(path, clip, synthetic="theval heads")
                made += 1
        progress("drawing", people, people)
    if as_json:
        click.echo(json.dumps({"folder": str(out), "videos": people, "made": made}))
        return
    click.echo(f"{people} videos of {frames} frames in '{out}' ({people - made} were there)")
    click.echo(f"Next: theval prepare {out} dataset/")
