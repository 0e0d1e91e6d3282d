"""`theval prepare` against the plain loop that it replaces: frames a second in one run, and peak memory.

The plain loop decodes with PyAV, runs dlib's detector on every frame and its 68 points on the largest face, and writes
the frame as a JPEG; in one process.

    python -m benchmarks.prepare_speed VIDEOS --manifest videos.csv --workers 2
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

import click
from av.video.reformatter import VideoReformatter

from thead_eval import weights
from thead_eval.errors import MediaError
from thead_eval.pictures import decode_frames, encode_jpeg, to_rgb
from thead_eval.sources import Ratios, find_sources

QUALITY = 95


class Timing(NamedTuple):
    """The plain loop's decoded frames or the command's written ones, and how long that took."""

    frames: int
    seconds: float
    peak_bytes: int = 0  # of all processes together, shared memory counted once


def plain_loop(files: list[Path], out: Path) -> Timing:
    """What a script would do."""
    import dlib

    begin = time.perf_counter()
    detect = dlib.get_frontal_face_detector()
    predict = dlib.shape_predictor(str(weights.path("dlib_68")))
    reformatter = VideoReformatter()
    frames = 0
    for number, file in enumerate(files):
        with (out / f"{number}.jpegs").open("wb") as jpegs:
            try:
                for frame in decode_frames(file):
                    picture = to_rgb(frame, reformatter=reformatter)
                    boxes = detect(picture, 0)
                    if boxes:
                        predict(picture, max(boxes, key=lambda box: box.area()))
                    jpegs.write(encode_jpeg(picture, QUALITY))
                    frames += 1
            except MediaError:
                continue
    return Timing(frames, time.perf_counter() - begin)


def theval_prepare(arguments: list[str]) -> Timing:
    """The command, from its start to its end, with all its processes."""
    command = [sys.executable, "-c", "from thead_eval.cli import main; main()", "prepare", *arguments, "--json"]
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    peak = 0

    def watch() -> None:
        nonlocal peak
        while process.poll() is None:
            peak = max(peak, memory_of_session(process.pid))
            time.sleep(0.2)

    watcher = threading.Thread(target=watch)
    watcher.start()
    printed, _ = process.communicate()
    seconds = time.perf_counter() - begin
    watcher.join()
    if process.returncode:
        raise click.ClickException(f"'theval prepare' ended with {process.returncode}")
    return Timing(json.loads(printed)["frames"], seconds, peak)


def memory_of_session(session: int) -> int:
    """Bytes in use by a session's processes, a page that several share counted once: Linux's proportional set size."""
    total = 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if int((entry / "stat").read_text().rpartition(")")[2].split()[3]) != session:
                continue
            lines = (entry / "smaps_rollup").read_text().splitlines()
        except OSError:  # it has ended
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


@click.command()
@click.argument("src", type=click.Path(path_type=Path, exists=True))
@click.option("--manifest", type=click.Path(path_type=Path), help="As of 'theval prepare'.")
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True)
@click.option("--limit", type=click.IntRange(1), help="Only the first so many videos.")
@click.option("--json", "as_json", is_flag=True)
def main(src: Path, manifest: Path | None, workers: int, limit: int | None, as_json: bool) -> None:
    """Time both on the videos of SRC."""
    files = [src / source.file for source in find_sources(src, "auto", Ratios(0.7, 0.15, 0.15), manifest)][:limit]
    with tempfile.TemporaryDirectory() as folder:
        links = Path(folder) / "videos"
        for file in files:
            link = links / file.relative_to(src)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file.resolve())
        plain_out = Path(folder) / "plain"
        plain_out.mkdir()
        for file in files:
            file.read_bytes()
        videos = [str(links)] if limit else [str(src), *(["--manifest", str(manifest)] if manifest else [])]
        fast = theval_prepare([*videos, str(Path(folder) / "out"), "--workers", str(workers)])
        plain = plain_loop(files, plain_out)
    # Both worked through the same files, so that one count of frames, the decoded ones, serves both.
    rows = {
        "plain loop": plain.frames / plain.seconds,
        f"theval prepare --workers {workers}": plain.frames / fast.seconds,
    }
    ratio = plain.seconds / fast.seconds
    if as_json:
        report = {"frames_per_second": rows, "ratio": ratio, "peak_bytes": fast.peak_bytes, "cores": os.cpu_count()}
        click.echo(json.dumps(report, indent=1))
        return
    for name, speed in rows.items():
        click.echo(f"{name:<28} {speed:8.1f} frames/s")
    click.echo(f"{'ratio':<28} {ratio:8.2f}")
    click.echo(f"{'peak memory':<28} {fast.peak_bytes / 1e9:8.2f} GB, all processes")


if __name__ == "__main__":
    main()
