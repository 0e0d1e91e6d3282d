"""theval detect scan: videos and pictures to verdicts."""

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from detectors.scan import Scanner, ScanSettings
    from thead_eval.verdicts import FileScan

FAKE, OPEN = 3, 4  # exit codes; 1 is a crash's, 2 a user's error


@click.command("scan", short_help="A video or image: fake, real or inconclusive, with the frames that decide.")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE|FOLDER...")
@click.option("--detector", default="trio", show_default=True, help="A name, a .safetensors, or a training's folder.")
@click.option(
    "--fpr",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="False positive rate of verdicts. Default: 0.05, or the lowest known.",
)
@click.option(
    "--report", type=click.Path(path_type=Path, dir_okay=False), help="Also write a case report, one HTML file."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also write the rows of --json, a line a file, each at once; the same command continues.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a list, a row a file.")
@click.option(
    "--per-second",
    type=click.FloatRange(0, min_open=True),
    default=5.0,
    show_default=True,
    help="Frames scored of each face.",
)
@click.option(
    "--min-frames", type=click.IntRange(2), default=12, show_default=True, help="Faces seen for less are not judged."
)
@click.option(
    "--searched",
    type=click.IntRange(160),
    default=640,
    show_default=True,
    help="Pixels across in which faces are sought; more finds smaller ones.",
)
@click.option("--device", default="cpu", show_default=True)
def command(
    paths: tuple[Path, ...],
    detector: str,
    fpr: float | None,
    report: Path | None,
    out: Path | None,
    as_json: bool,
    per_second: float,
    min_frames: int,
    searched: int,
    device: str,
) -> None:
    """Is this video or picture a fake? Each face is followed, cropped as a dataset's faces are, and scored.

    Of each file: an outcome (scored, unreadable, no_face, too_short, failed), and where it was scored a verdict of its
    most suspicious face: fake, real or inconclusive, with the probability of a fake, 95 % of what it could be, and the
    marks that the file carries. A verdict holds at a false positive rate that the detector's validation showed; with
    several faces, each has that chance of a false alarm. A detector of several frames in a row says inconclusive where
    fewer than 18 frames a second are new. The default detector judges sixteen frames in a row, so that a
    picture is too_short for it: for pictures, name one of single frames.

    \b
    Exit code:
      0  every file was scored, and each is real
      3  at least one is fake
      4  none is fake, and at least one is inconclusive or was not scored
      2  the command was wrong (1: a fault of theval's)

    \b
    Examples:
      theval detect scan video.mp4
      theval detect scan clips/ video.mp4 --json > scan.json
      theval detect scan thousands/ --out scan.jsonl
      theval detect scan video.mp4 --report case.html
      theval detect scan clips/ --detector detectors/mine --fpr 0.05
    """
    from dataclasses import asdict
    from datetime import UTC, datetime

    import torch

    from detectors.scan import ScanSettings, find_media, open_scanner, scan_files
    from thead_eval.cli.options import check_device, check_page
    from thead_eval.cli.progress import progress_bars
    from thead_eval.errors import ConfigError
    from thead_eval.scanned import append_row, read_rows, write_rows
    from thead_eval.verdicts import file_of, file_row

    if report and out:
        raise ConfigError("a report shows frames, which --out does not keep; give --report or --out, not both")
    started, begin = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", time.monotonic()
    check_device(device)
    files, passed_over = find_media(paths)
    ours = {path.resolve() for path in (report, out) if path}  # of an earlier scan
    passed_over = [file for file in passed_over if file.resolve() not in ours]
    if report:
        check_page(report, files)
    scanner = open_scanner(detector, torch.device(device), fpr)
    settings = ScanSettings(per_second=per_second, min_frames=min_frames, searched=searched)
    stated = scanner.stated() | {"settings": asdict(settings)}
    earlier = read_rows(out, stated) if out else {}
    if out:
        write_rows(out, earlier.values())  # a line that was cut off is none of them

    def keep(scan: "FileScan") -> None:
        if out:
            append_row(out, file_row(scan) | stated)

    with progress_bars() as progress:
        scans = scan_files(
            files,
            scanner,
            settings,
            explain=report is not None,
            known={path: file_of(row) for path, row in earlier.items()},
            keep=keep,
            progress=progress,
        )
    rows = [file_row(scan) | stated for scan in scans]
    if out:
        mine = {row["path"] for row in rows}
        others = [row for path, row in earlier.items() if path not in mine]
        write_rows(out, [*rows, *others])  # in the order of the files, none that turned out to be always the same
    if as_json:
        click.echo(json.dumps(rows, indent=1, allow_nan=False))
    else:
        _print(scans, scanner)
    if passed_over:
        click.echo(_passed_over(passed_over), err=True)
    if report is not None:
        _write_report(report, scans, passed_over, scanner, settings, started, time.monotonic() - begin, device)
        click.echo(f"{report} ({report.stat().st_size / 1e6:.1f} MB)", err=as_json)
    sys.exit(_exit_code(scans))


def _passed_over(files: Sequence[Path]) -> str:
    """A line that says which files in the folders nobody looked at."""
    endings = ", ".join(sorted({file.suffix or "no ending" for file in files}))
    many = f"{len(files)} files were" if len(files) > 1 else f"'{files[0]}' was"
    return f"{many} passed over, called neither as a video nor as a picture ({endings}); name what is to be scanned"


def _one_line(words: str) -> str:
    """A file's name may hold a line's end, and a stranger's error several."""
    return " ".join(words.splitlines())


def _exit_code(scans: "Sequence[FileScan]") -> int:
    verdicts = {scan.verdict for scan in scans}  # None: not scored
    if "fake" in verdicts:
        return FAKE
    return 0 if verdicts == {"real"} else OPEN


def _write_report(
    path: Path,
    scans: "Sequence[FileScan]",
    passed_over: Sequence[Path],
    scanner: "Scanner",
    settings: "ScanSettings",
    started: str,
    seconds: float,
    device: str,
) -> None:
    import platform
    from dataclasses import asdict

    from reports.case import write_case
    from thead_eval.manifest import typed_command
    from thead_eval.run import PACKAGES, current_commit, package_versions
    from thead_eval.verdicts import CaseRecord

    point = scanner.point
    commit, dirty = current_commit()
    write_case(
        CaseRecord(
            files=tuple(scans),
            passed_over=tuple(map(str, passed_over)),
            detector=scanner.note,
            point=point,
            fake_from=scanner.calibrate(point.fake) if point else None,
            real_below=scanner.calibrate(point.real) if point else None,
            settings=asdict(settings) | {"min_frames": max(settings.min_frames, scanner.window)},
            command=typed_command(),
            started=started,
            seconds=seconds,
            packages=package_versions(PACKAGES),
            python=platform.python_version(),
            commit=commit,
            dirty=dirty,
            device=device,
        ),
        path,
    )


def _slow(scan: "FileScan", scanner: "Scanner") -> str:
    rates = [track.new_fps for track in scan.tracks if track.slow]
    if not rates or not scanner.point:
        return ""
    who = "the face is" if len(scan.tracks) == 1 else f"{len(rates)} of {len(scan.tracks)} tracks of faces are"
    return f"{who} shown in {min(rates):.4g} new frames a second, too few for a verdict"


def _print(scans: "Sequence[FileScan]", scanner: "Scanner") -> None:
    from rich.markup import escape
    from rich.table import Table

    from thead_eval.cli.console import results_console
    from thead_eval.verdicts import count_outcomes, count_verdicts

    console = results_console(highlight=False)
    table = Table("file", "verdict", "p(fake)", "95 %", "tracks", "marks")
    table.columns[0].overflow = "fold"
    for column in table.columns[2:5]:
        column.justify = "right"
    colours = {"fake": "red", "inconclusive": "yellow", "real": "green"}
    shared = os.path.commonpath([os.path.dirname(os.path.abspath(scan.path)) for scan in scans])
    for scan in scans:
        track, name = scan.deciding, escape(_one_line(os.path.relpath(scan.path, shared)))
        marks = " ".join(dict.fromkeys(mark.kind for mark in scan.marks))
        if track is None or scan.verdict is None:
            table.add_row(name, f"[dim]{scan.outcome}[/]", "", "", "", marks)
            continue
        between = "" if track.low is None else f"{track.low:.3f}-{track.high:.3f}"
        verdict = f"[{colours[scan.verdict]}]{scan.verdict}[/]"
        table.add_row(name, verdict, f"{track.probability:.3f}", between, str(len(scan.tracks)), marks)
    console.print(table)
    for scan in scans:
        for words in [*filter(None, [scan.reason, _slow(scan, scanner)]), *(mark.text for mark in scan.marks)]:
            console.print(escape(_one_line(f"{os.path.relpath(scan.path, shared)}: {words}")), soft_wrap=True)
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in count_outcomes(scans).items() if count)
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in count_verdicts(scans).items() if count)
    point = scanner.point
    held = f"at a false positive rate of {100 * point.rate:g} %" if point else "without an operating point"
    console.print(f"{len(scans)} file{'s' * (len(scans) != 1)}: {outcomes}.", soft_wrap=True)
    console.print(f"Verdicts of {scanner.note.name} {held}: {verdicts or 'none'}.", soft_wrap=True)
