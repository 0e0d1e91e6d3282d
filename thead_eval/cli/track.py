"""theval track: a video to a landmark track."""

import json
from pathlib import Path

import click


@click.command(short_help="The landmarks of a video, as a small file to drive with.")
@click.argument("video", type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="The track, a .parquet file.")
@click.option("--face", type=click.IntRange(1), help="Of several in view, counted from the left.")
@click.option("--detector", type=click.Choice(["dlib", "mtcnn"]), default="dlib", show_default=True)
@click.option(
    "--landmarks",
    type=click.Choice(["dlib", "fan"]),
    default="dlib",
    show_default=True,
    help="fan needs 'theval weights fetch fan_2dfan4'.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def command(video: Path, out: Path, face: int | None, detector: str, landmarks: str, as_json: bool) -> None:
    """Follow one face through VIDEO and write its 68 points in each frame.

    A track drives 'theval generate' like the video itself, is a few kilobytes a second, and shows nobody's picture.

    \b
    Examples:
      theval track clip.mp4 -o track.parquet
      theval track interview.mp4 --face 2 -o guest.parquet
      theval generate --photos me.jpg --drive track.parquet -o fake.mp4
    """
    from thead_eval.cli.progress import progress_bars
    from thead_eval.errors import ConfigError
    from thead_eval.tracks import track_video, write_track

    if out.suffix != ".parquet":
        raise ConfigError(f"-o '{out}' must end in .parquet")
    if not out.parent.is_dir():
        raise ConfigError(f"there is no folder '{out.parent}' for '{out.name}'; make it, or name another")
    with progress_bars() as progress:
        track = track_video(
            video,
            face=face,
            detector=detector,  # type: ignore[arg-type]  # click checked the names
            landmarks=landmarks,  # type: ignore[arg-type]
            progress=progress,
        )
    write_track(out, track)
    missing = int((~track.landmarks.found).sum())
    if as_json:
        counts = {"file": str(out), "frames": len(track), "frames_without_face": missing, "bytes": out.stat().st_size}
        click.echo(json.dumps(counts | track.info.model_dump(), indent=1))
        return
    click.echo(f"{out}: {len(track)} frames at {track.info.fps:g} a second, {missing} without a face")
