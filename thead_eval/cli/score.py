"""theval score: fakes to numbers."""

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from thead_eval.cli.options import check_device, numbers, refuse
from thead_eval.errors import ConfigError

if TYPE_CHECKING:
    from thead_eval.results import Failure, Measurement


@click.command(short_help="Fakes against real frames: FID, SSIM, CSIM, landmarks.")
@click.option("--data", type=click.Path(path_type=str), help="A prepared dataset (see 'theval prepare').")
@click.option("--generator", "generators", multiple=True, help="By name; again for each more. Default: copy and warp.")
@click.option("--shots", default="1,8,32", show_default=True, callback=numbers, help="Support frames to adapt on.")
@click.option("--split", type=click.Choice(["train", "val", "test", "all"]), default="test", show_default=True)
@click.option("--identities", type=click.IntRange(1), help="Only the first so many people. Default: all of the split.")
@click.option("--min-frames", type=click.IntRange(0), default=0, help="Leave out shorter clips.")
@click.option("--cross-clip", is_flag=True, help="Support frames from another clip of the person than the targets.")
@click.option("--fakes", type=click.Path(path_type=Path), help="Clips that others made: [GENERATOR/[SHOTS/]]NAME.mp4.")
@click.option("--reals", type=click.Path(path_type=Path), help="The real clips that they reproduce: NAME.mp4.")
@click.option(
    "--pairs", type=click.Path(path_type=Path), help="CSV that pairs them: fake,real[,identity,generator,shots]."
)
@click.option("--out", type=click.Path(path_type=Path), help="Run folder. Default: runs/<time>-score-<id>.")
@click.option("--metrics", default="all", show_default=True, help="By name, with commas (see 'theval list metric').")
@click.option("--detector", help="Also ask this detector which of three frames is fake: a name, file or folder.")
@click.option("--device", default="cpu", show_default=True, help="Of the networks: cpu, cuda, cuda:1 ...")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the support frames and the intervals.")
@click.option("--workers", type=click.IntRange(0), default=0, help="Processes. Default: one a core on a CPU.")
@click.option("--json", "as_json", is_flag=True, help="Print measurements.json instead of a table.")
@click.pass_context
def command(
    ctx: click.Context,
    data: str | None,
    generators: tuple[str, ...],
    shots: tuple[int, ...],
    split: str,
    identities: int | None,
    min_frames: int,
    cross_clip: bool,
    fakes: Path | None,
    reals: Path | None,
    pairs: Path | None,
    out: Path | None,
    metrics: str,
    detector: str | None,
    device: str,
    seed: int,
    workers: int,
    as_json: bool,
) -> None:
    """Judge fakes against the real frames that they reproduce.

    With --data, each generator adapts to every person of the split on 1, 8 and 32 frames and reproduces 32 frames that
    it has not seen from their landmarks. With --fakes and --reals, clips that others made are judged. With --out alone,
    a run that is there is judged again, with other --metrics if you like. With --detector, spot_rate says how often
    that finds the fake among two real frames of the same person. An interrupted command, run again, continues.

    \b
    Examples:
      theval score --data dataset/ --generator copy --generator warp --shots 1,8,32 --out runs/controls
      theval score --fakes made/ --reals originals/ --out runs/theirs
      theval score --out runs/controls --metrics lpips_alex,fid
      theval score --out runs/controls --detector detectors/mine
      theval report runs/controls -o report.html
    """
    from benchmarks.pairs import fingerprint, pair_by_name, pair_by_table
    from benchmarks.shots import ShotsConfig, checkpoints_of, plan_sets, predict
    from thead_eval import __version__, plugins
    from thead_eval.cli.progress import progress_bars
    from thead_eval.data import open_dataset
    from thead_eval.judging import PairSet, read_pairs
    from thead_eval.results import read_run
    from thead_eval.run import RunFolder, default_path
    from thead_eval.scoring import score_run

    if (fakes is None) != (reals is None) or (pairs and not fakes):
        raise ConfigError("--fakes and --reals go together; name both folders, and --pairs only with them")
    if data and fakes:
        raise ConfigError("--data makes fakes and --fakes reads them; name one of the two")
    if not data:
        refuse(ctx, ("generators", "shots", "split", "identities", "min_frames", "cross_clip"), "--data")
    if not data and not fakes:
        refuse(ctx, ("seed",), "--data or --fakes")
    names = tuple(plugins.available("metric")) if metrics == "all" else tuple(metrics.split(","))
    for name in names:
        plugins.load("metric", name)
    check_device(device)
    workers = workers or _workers(device)
    earlier: dict[str, Any] = {}  # the settings of a run that is continued, to which this command adds
    if out and (out / "run.json").exists():
        click.echo(f"Continuing '{out}': what is there is kept; another --out starts anew.", err=True)
        earlier = read_run(out).config
    names = tuple(dict.fromkeys([*earlier.get("metrics", ()), *names]))
    detector = detector or earlier.get("detector")
    examiner = None
    if detector:
        from detectors.checkpoint import load_detector

        if detector not in plugins.available("detector") and Path(detector).exists():
            detector = str(Path(detector).resolve())
        examiner = load_detector(detector, device)

    with progress_bars() as progress:
        config: dict[str, Any]  # as JSON gives it back
        make_pairs: Callable[[RunFolder, ProcessPoolExecutor | None], PairSet]
        if data:
            shots_config = ShotsConfig(
                data,
                split,  # type: ignore[arg-type]  # one of click's choices
                tuple(dict.fromkeys([*earlier.get("generators", ()), *(generators or ("copy", "warp"))])),
                shots,
                identities,
                min_frames,
                cross_clip,
                seed,
                device,
            )
            config = vars(shots_config) | {"generators": list(shots_config.generators), "shots": list(shots)}
            dataset = open_dataset(data)
            config["dataset"] = dataset.sha256
            config["checkpoints"] = checkpoints_of(shots_config.generators, device)
            if not earlier:
                plan_sets(replace(shots_config, identities=1), dataset)  # where nobody can be judged, nothing is begun
            make_pairs = partial(predict, shots_config, progress=progress)
        elif fakes and reals:
            found = pair_by_table(pairs, fakes, reals) if pairs else pair_by_name(fakes, reals)
            config = {"fakes": str(fakes.resolve()), "reals": str(reals.resolve())}
            config["pairs"] = str(pairs.resolve()) if pairs else None
            config |= {"clips": fingerprint(found), "seed": seed, "device": device}
            make_pairs = lambda *_: found  # noqa: E731  # beside its two siblings
        elif out and earlier:
            config = earlier | {"device": device}
            if "clips" in config:
                config["clips"] = fingerprint(read_pairs(out))
            make_pairs = lambda run, _: read_pairs(run.path)  # noqa: E731
        elif out:
            raise ConfigError(
                f"there is no run '{out}' to judge again; check the path, or name a dataset with --data, or clips with "
                "--fakes and --reals"
            )
        else:
            raise ConfigError(
                "nothing to judge; name a dataset with --data, clips with --fakes and --reals, or an old run with --out"
            )
        config |= {"metrics": list(names), "detector": detector, "theval": __version__}
        out = out or default_path("score")
        outcome = score_run(out, config, make_pairs, workers, progress, examiner)
    if as_json:
        click.echo((out / "measurements.json").read_text(), nl=False)
    else:
        _print_table(outcome.measurements, outcome.failures, out)


def _workers(device: str) -> int:
    """A process per core; one where the networks are on an accelerator, which does not share well."""
    return len(os.sched_getaffinity(0)) if device == "cpu" else 1


def _print_table(measurements: list["Measurement"], failures: list["Failure"], run: Path) -> None:
    """Metrics down, shots across; a row per generator."""
    from rich.table import Table

    from thead_eval.cli.console import results_console
    from thead_eval.results import direction

    console = results_console()
    judged = [m for m in measurements if "pair" not in m.labels]
    computed = [m for m in judged if m.value is not None]
    columns = sorted({m.labels.get("shots", "") for m in judged}, key=lambda shots: int(shots or 0))
    table = Table(caption=f"value [95 % interval over people]; full record in {run}")
    for heading in ("metric", "better", "generator"):
        table.add_column(heading, no_wrap=True)
    for shots in columns:
        table.add_column(f"{shots}-shot" if shots else "value", justify="right")
    cells = {(m.metric, m.labels["generator"], m.labels.get("shots", "")): m for m in computed}
    for metric in dict.fromkeys(m.metric for m in computed):
        for generator in dict.fromkeys(m.labels["generator"] for m in computed if m.metric == metric):
            row = [cells.get((metric, generator, shots)) for shots in columns]
            better = direction(next(m for m in row if m).higher_is_better)
            table.add_row(metric, better, generator, *(_cell(m) for m in row))
        table.add_section()
    console.print(table)
    for calibration in (m for m in measurements if "pair" in m.labels and m.value is not None):
        console.print(f"{calibration.metric} of real frames: {calibration.labels['pair']} {calibration.value:.3f}")
    notes: dict[str, list[str]] = {}
    for m in judged:
        if m.note:
            notes.setdefault(m.note, []).append(m.metric)
    for note, metrics in notes.items():
        console.print(f"{', '.join(dict.fromkeys(metrics))}: {note}", style="yellow", highlight=False, markup=False)
    worst = max(judged, key=lambda m: m.n_failed, default=None)
    if worst and worst.n_failed:
        console.print(f"frames that could not be judged: up to {worst.n_failed} ({worst.metric})", style="yellow")
    if failures:
        console.print(
            f"not made or not judged: {len(failures)}; the first: {failures[0].item}: {failures[0].reason}",
            markup=False,
        )
    console.print(f"Next: theval report {run} -o report.html", highlight=False)


def _cell(measurement: "Measurement | None") -> str:
    if measurement is None or measurement.value is None:
        return "-"
    text = f"{measurement.value:.4g}"
    if measurement.low is not None and measurement.high is not None:
        text += f" [{measurement.low:.3g}, {measurement.high:.3g}]"
    return text
