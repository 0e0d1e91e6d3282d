"""theval detect eval: detectors to numbers."""

import glob
import shutil
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from thead_eval.cli.options import check_device, numbers, refuse, without_generators
from thead_eval.errors import ConfigError, DatasetError, MediaError, RunError

if TYPE_CHECKING:
    from torch import Tensor

    from benchmarks.detection import Fit
    from benchmarks.examples import Score
    from thead_eval.data import Dataset
    from thead_eval.detection import Scores
    from thead_eval.evidence import Evidence
    from thead_eval.judging import Progress
    from thead_eval.pictures import Picture
    from thead_eval.results import Measurement
    from thead_eval.run import RunFolder
    from thead_eval.types import Detector

BASELINE = "spectrum"  # which every table shows, beside 'metadata'
COLUMNS = ("auc", "tpr_at_5", "tpr_at_1", "ece")  # that fit into a terminal
FRAMES = "frames"  # in RUN/trainings: no kind of detector is called so
# A run is continued with the same.
SETTINGS = "evidence protocols folds frames known_fakes draws seed split recipe".split()
# What says something of the asking, and nothing of scores that are there.
ASKING = (
    *("without", "folds", "recipe", "split", "frames", "perturb", "known_fakes", "draws", "examples", "no_baseline"),
    *("leaky", "no_faces", "device"),
)


@click.command(short_help="Judge detectors: seen and unseen generators, strength, calibration.")
@click.option(
    "--data",
    type=click.Path(path_type=str),
    help="A prepared dataset, for its real clips. Default: those beside the fakes.",
)
@click.option("--fakes", multiple=True, type=click.Path(path_type=Path), help="A folder of fakes; again for each more.")
@click.option("--without", multiple=True, help="A generator whose fakes are left out; again for each more.")
@click.option("--detector", "detectors", multiple=True, help="A name, file or training folder; again for each more.")
@click.option("--protocol", "protocols", multiple=True, help="Train for it: P1, P2, P3, k-shot; again for each more.")
@click.option(
    "--folds", type=click.IntRange(3), help="Of a --protocol: judge everyone, a part at a time, not the split 'test'."
)
@click.option("--config", "recipe", type=click.Path(path_type=Path), help="Of these trainings, as of 'detect train'.")
@click.option("--split", type=click.Choice(["train", "val", "test"]), help="Default: people the detector has not seen.")
@click.option("--frames", type=click.IntRange(1), default=32, show_default=True, help="Of each clip, over all of it.")
@click.option("--perturb", default="", help="By name, with commas, or 'all': jpeg, h264, blur, resize, noise, ...")
@click.option("--known-fakes", default="1,8,32", show_default=True, callback=numbers, help="Of k-shot.")
@click.option("--draws", type=click.IntRange(1), default=5, show_default=True, help="Of the fakes of k-shot.")
@click.option(
    "--examples",
    type=click.IntRange(0),
    default=2,
    show_default=True,
    help="Clips of each kind to show of each detector.",
)
@click.option("--no-baseline", is_flag=True, help="Without 'spectrum', which is fitted in a few minutes.")
@click.option("--leaky", is_flag=True, help="Train although two splits share people, recordings or files.")
@click.option("--no-faces", is_flag=True, help="Before trainings, compare people by name only, not by their faces.")
@click.option("--scores", type=click.Path(path_type=Path), help="Judge the scores of another run; no detector is run.")
@click.option("--out", type=click.Path(path_type=Path), help="Run folder. Default: runs/<time>-detect-<id>.")
@click.option("--device", default="cpu", show_default=True, help="Of the networks: cpu, cuda, cuda:1 ...")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the trainings, draws and intervals.")
@click.option("--json", "as_json", is_flag=True, help="Print measurements.json instead of a table.")
def command(
    data: str | None,
    fakes: tuple[Path, ...],
    without: tuple[str, ...],
    detectors: tuple[str, ...],
    protocols: tuple[str, ...],
    folds: int | None,
    recipe: Path | None,
    split: str | None,
    frames: int,
    perturb: str,
    known_fakes: tuple[int, ...],
    draws: int,
    examples: int,
    no_baseline: bool,
    leaky: bool,
    no_faces: bool,
    scores: Path | None,
    out: Path | None,
    device: str,
    seed: int,
    as_json: bool,
) -> None:
    """Judge detectors on people, and fakes, that they have not seen.

    Detectors that are trained are asked about everyone they have not seen: P1 where they know the fakes' generator, P3
    where they do not. With --protocol, --detector names kinds that are trained for it: P1 (new people), P2 (a new
    generator), P3 (both; with the leave-one-generator-out matrix), k-shot (P3, but for 1, 8 and 32 fakes of it); first
    the clips are audited as before 'theval detect train'. With --folds, each is trained so many times, and everyone is
    judged once, by a detector that has not seen them.
    --without leaves out a generator's fakes everywhere.
    Beside them stand 'metadata', which sees no picture, and 'spectrum', a line through the frames' power spectrum that
    is fitted to the same training people: what these tell apart is cheap to see.

    RUN/examples shows what each detector is surest of and most wrong about, with maps; not with --protocol or --scores.

    RUN/scores.parquet holds what was said of each frame. All numbers are made of it, with 95 % intervals over people;
    with --scores, or --out of a run that is there, they are made anew without a detector. An interrupted command, run
    again, continues.

    \b
    Examples:
      theval detect eval --data dataset/ --fakes fakes/ --detector grain --out runs/grain
      theval detect eval --data dataset/ --fakes fakes/ --fakes others/ --detector runs/mine --perturb jpeg,h264
      theval detect eval --data dataset/ --fakes fakes/ --detector spectrum --protocol P1 --protocol P3
      theval detect eval --data dataset/ --fakes fakes/ --detector grain --protocol P1 --folds 5
      theval detect eval --scores runs/grain/scores.parquet --out runs/again
    """
    from thead_eval.detection import SCORES, read_scores, write_items
    from thead_eval.run import default_path, open_run

    out = out or default_path("detect")
    if not (data or fakes):
        if detectors or protocols or not (scores or out / SCORES).exists():
            raise ConfigError(
                "nothing to judge; name clips with --data and --fakes and a --detector, or scores with --scores"
            )
        refuse(click.get_current_context(), ASKING, "--data and --fakes")
        _tell(_judge_again(scores or out / SCORES, out, seed), out, as_json)
        return
    from benchmarks.detection import (
        PROTOCOLS,
        gather,
        judge_as_given,
        judge_trainings,
        known_to,
        plan_folds,
        plan_trainings,
        score,
        split_folds,
        teaches,
    )
    from benchmarks.examples import make_examples
    from benchmarks.robustness import PERTURBATIONS
    from detectors.recipe import read_recipe
    from thead_eval import __version__
    from thead_eval.cli.detect.leaks import check_leaks
    from thead_eval.cli.progress import progress_bars
    from thead_eval.data import open_dataset
    from thead_eval.evidence import read_evidence
    from thead_eval.recipes import check_name

    if scores:
        raise ConfigError("--scores judges what was said already, and --data and --fakes ask; name one of the two")
    if not detectors:
        raise ConfigError("name what to judge with --detector; 'theval list detector' shows names")
    check_device(device)
    perturbations = tuple(PERTURBATIONS) if perturb == "all" else tuple(name for name in perturb.split(",") if name)
    for name in perturbations:
        if name not in PERTURBATIONS:
            raise ConfigError(f"no perturbation is named '{name}'; there are: {', '.join(PERTURBATIONS)}")
    if protocols:
        refuse(click.get_current_context(), ("split", "examples"), "detectors as they come, without --protocol")
    else:
        refuse(click.get_current_context(), ("recipe", "folds", "leaky", "no_faces"), "a --protocol")
    if "k-shot" not in protocols:
        refuse(click.get_current_context(), ("known_fakes", "draws"), "--protocol k-shot")
    if protocols:
        for kind in detectors:  # what is wrong with one is told before another has been trained
            read_recipe(kind, recipe, beside=detectors)
    for protocol in protocols:
        check_name(protocol, PROTOCOLS, "no protocol is named")
    loaded = {} if protocols else _load(detectors, device)
    dataset = open_dataset(data) if data else None
    with progress_bars() as progress:
        evidence = without_generators(read_evidence(dataset, fakes, progress=progress), without)
    collections = _collections(evidence, dataset, fakes)
    config: dict[str, Any] = {  # Any: JSON
        "evidence": evidence.sha256,
        "without": list(without),
        "detectors": list(detectors),
        "protocols": list(protocols),
        "folds": folds,
        "recipe": recipe.read_text() if recipe else None,
        "split": split,
        "frames": frames,
        "perturbations": list(perturbations),
        "known_fakes": list(known_fakes),
        "draws": draws,
        "device": device,
        "seed": seed,
        "theval": __version__,
        "detection": True,
    }
    described = {"evidence": evidence.sha256, "clips": str(len(evidence.items)), "fakes": " ".join(map(str, fakes))}
    if dataset:
        described |= {"path": dataset.path, "sha256": dataset.sha256}
    run = open_run(out, config, SETTINGS)
    _check_kept(out, config)
    run.record("predicting", config, described, {}, [])
    with progress_bars() as progress:
        fit, trainings = _fit(device, recipe, detectors if protocols else (), progress), out / "trainings"
        if protocols:
            split_as = split_folds(evidence, folds, seed) if folds else [evidence]
            if folds:
                planned = plan_folds(split_as, protocols, seed)
            else:
                planned = plan_trainings(evidence, protocols, seed, known_fakes, draws)
            for whole in split_as:
                check_leaks(
                    whole,
                    seed,
                    progress,
                    partial(click.echo, err=True),
                    faces=not no_faces,
                    kept=trainings / "faces.safetensors",
                    leaky=leaky,
                )
            added = _added(detectors, no_baseline, all(teaches(training.learn) for training in planned))
            judges = []
            for judge in judge_trainings(planned, (*detectors, *added), fit, trainings, seed, progress):
                bent = () if judge.model.detector in added else perturbations
                score(run, evidence, [judge], collections, frames, bent, progress)
                judges.append(judge.forgotten())
            shutil.rmtree(trainings / FRAMES, ignore_errors=True)
        else:
            names = [detector.name for detector in loaded.values()]
            learnable = split in (None, "test") and teaches(evidence, ("train", "val", "test"))
            added = _added(names, no_baseline, learnable)
            try:
                cheap = {name: fit(name, known_to(evidence), trainings / name / "as given", seed) for name in added}
            except (DatasetError, MediaError) as error:  # what a detector as it comes is judged by needs no such clip
                click.echo(f"'{BASELINE}' is not in the table: {error}", err=True)
                cheap = {}
            judges = judge_as_given(loaded | cheap, evidence, split)  # type: ignore[arg-type]  # click's choice
            asked = [judge for judge in judges if judge.model.key not in cheap]
            score(run, evidence, asked, collections, frames, perturbations, progress)
            beside = [judge for judge in judges if judge.model.key in cheap]
            if beside:
                score(run, evidence, beside, collections, frames, (), progress)
        gather(run, judges, perturbations, out / SCORES)
        run.record("scoring", config, described, {}, [])
        table = read_scores(out / SCORES)
        write_items(out, (item for judge in judges for item in judge.items))
        if not protocols and examples:
            make_examples(run, asked, table, evidence, examples, _explain, progress)
        weights = {judge.model.key: judge.model.sha256 for judge in judges if judge.model.sha256}
        measurements = _measure(run, table, config, described, weights, progress)
    _tell(measurements, out, as_json)


def _check_kept(out: Path, config: dict[str, Any]) -> None:  # Any: JSON
    """Whether all that a run's scores hold is asked for again, as they are gathered anew.

    Raises:
        RunError: what other detectors said, or of other perturbations, would be lost.
    """
    from thead_eval.detection import SCORES
    from thead_eval.results import read_run

    if not (out / SCORES).exists():
        return
    earlier = read_run(out).config
    for key, option in (("detectors", "--detector"), ("perturbations", "--perturb")):
        for name in earlier.get(key, []):
            if name not in config[key]:
                raise RunError(
                    f"'{out}' holds scores of {option} {name}, which would be lost; name it too, or another folder "
                    "with --out"
                )


def _added(asked: Sequence[str], no_baseline: bool, learnable: bool) -> tuple[str, ...]:
    """What is judged beside those that were asked for."""
    if no_baseline or BASELINE in asked:
        return ()
    if not learnable:
        click.echo(
            f"'{BASELINE}' is not in the table: it needs people to learn from, to be calibrated on and to be asked "
            "about, each with real clips and fakes in a split of their own",
            err=True,
        )
        return ()
    return (BASELINE,)


def _explain(score: "Score", frames: "Tensor", place: int) -> "Picture":
    """A frame of some [T, 3, H, W] under its map."""
    from detectors.explain import heat_map, lay_over

    return lay_over(frames[place].permute(1, 2, 0).contiguous().numpy(), heat_map(score, frames)[place])


def _judge_again(scores: Path, out: Path, seed: int) -> list["Measurement"]:
    """Numbers of scores that are there, in the run folder `out`."""
    from thead_eval import __version__
    from thead_eval.cli.progress import progress_bars
    from thead_eval.detection import SCORES, read_scores
    from thead_eval.results import RunRecord, read_run
    from thead_eval.run import open_run

    table = read_scores(scores)
    earlier: RunRecord | None = read_run(scores.parent) if (scores.parent / "run.json").exists() else None
    config = (earlier.config if earlier else {}) | {"seed": seed, "theval": __version__, "detection": True}
    elsewhere = scores.resolve() != (out / SCORES).resolve()
    if elsewhere:
        config["scores"] = str(scores)
    run = open_run(out, config, ("scores",))  # a run that judged other scores, or none, keeps its own
    if elsewhere:
        _copy(scores, out / SCORES)
    described, weights = (earlier.dataset, earlier.weights) if earlier else ({}, {})
    with progress_bars() as progress:
        return _measure(run, table, config, described, weights, progress)


def _copy(source: Path, target: Path) -> None:
    """Whole or not at all.

    Raises:
        RunError: there is no room.
    """
    temporary = target.with_name(f".{target.name}")
    try:
        shutil.copyfile(source, temporary)
        temporary.replace(target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RunError(
            f"'{target}' cannot be written ({error.strerror}); make room, or name another folder with --out"
        ) from error


def _measure(
    run: "RunFolder",
    table: "Scores",
    config: dict[str, Any],  # Any: JSON
    described: dict[str, str],
    weights: dict[str, str],
    progress: "Progress",
) -> list["Measurement"]:
    """The numbers and curves of a run's scores, kept there, and its record as complete."""
    from thead_eval.curves import make_curves, write_curves
    from thead_eval.detection import failures_of, measure_scores
    from thead_eval.results import write_measurements

    measurements = measure_scores(table, config["seed"], progress)
    write_measurements(run.path, measurements)
    write_curves(run.path, make_curves(table))
    run.record("complete", config, described, weights, failures_of(table))
    return measurements


def _tell(measurements: Sequence["Measurement"], out: Path, as_json: bool) -> None:
    if as_json:
        click.echo((out / "measurements.json").read_text(), nl=False)
    else:
        _print_table(measurements, out)


def _collections(evidence: "Evidence", dataset: "Dataset | None", fakes: Sequence[Path]) -> dict[str, str]:
    """The name of the dataset or folder that clips were named with, by where they lie."""
    owners = {
        item.path: [folder for folder in fakes if Path(item.path).is_relative_to(folder)] for item in evidence.items
    }
    rest = Path(dataset.path).name if dataset else ""
    return {path: folders[0].resolve().name if folders else rest for path, folders in owners.items()}


def _fit(device: str, recipe: Path | None, asked: Sequence[str], progress: "Progress") -> "Fit":
    """Trains as 'theval detect train' does, or continues where that stopped, and gives the best state.

    The recipe is of those that were asked for. An ensemble is of those that were trained before it in the same folder,
    on the same evidence. What a fitted detector measures in a clip is kept beside its trainings, and shared by all of
    them; the frames that networks learn from are shared by those of one training, and gone with the next: they are
    gigabytes, and a protocol has many trainings.
    """
    import torch

    from detectors.checkpoint import find_class, load_detector
    from detectors.ensemble import assemble
    from detectors.fit import fit as fit_at_once
    from detectors.recipe import read_recipe
    from detectors.train import train
    from thead_eval.training import open_fabric

    def fit(kind: str, evidence: "Evidence", out: Path, seed: int) -> "Detector":
        settings = read_recipe(kind, recipe if kind in asked else None, {"seed": seed}, asked)
        if hasattr(find_class(settings.detector), "fits_on"):
            if not (out / "best.safetensors").exists():
                others = sorted(out.parent.parent.glob(f"*/{glob.escape(out.name)}/best.safetensors"))
                assembled = assemble(others) if settings.detector == "ensemble" else None
                fit_at_once(
                    settings,
                    evidence,
                    out,
                    torch.device(device),
                    measured=out.parent / "measured",
                    assembled=assembled,
                    read=progress,
                )
            return load_detector(out, device)
        what = f"{kind}, {out.name}"
        shared = out.parent.parent / FRAMES
        if not (out / "last.safetensors").exists():  # one that is over, or goes on, makes no room
            for former in shared.glob("*"):
                if former.name != out.name:
                    shutil.rmtree(former, ignore_errors=True)
        ending = train(
            settings,
            evidence,
            out,
            open_fabric(device, settings.train.precision),
            resume=True,
            frames=shared / out.name,
            tell=lambda status: progress(what, status.step, status.steps),
            read=progress,
        )
        if ending.signal is not None:
            click.echo("stopped and saved; the same command continues", err=True)
            sys.exit(128 + ending.signal)
        return load_detector(out, device)

    return fit


def _load(names: Sequence[str], device: str) -> dict[str, "Detector"]:
    """Each by what tells it from the others: its own name, or what it was called by where two share one.

    Raises:
        CheckpointError, PluginError: there is no such detector.
    """
    from detectors.checkpoint import load_detector

    loaded = {name: load_detector(name, device) for name in names}
    own = [detector.name for detector in loaded.values()]
    return {detector.name if own.count(detector.name) == 1 else name: detector for name, detector in loaded.items()}


def _print_table(measurements: Sequence["Measurement"], run: Path) -> None:
    """Clips, as they are: a row a detector, training, protocol and generator."""
    from rich.table import Table

    from thead_eval.cli.console import results_console

    console = results_console()
    hidden = {"perturbation", "reals", "shots"}
    shown = [m for m in measurements if m.labels["unit"] == "clip" and not m.labels.keys() & hidden]
    metrics = [name for name in COLUMNS if any(m.metric == name and m.value is not None for m in shown)]
    rows: dict[tuple[str, ...], dict[str, Measurement]] = {}
    for m in shown:
        known = m.labels.get("known_fakes")
        parts = (m.labels["detector"], m.labels.get("training"), f"{known} of it" if known else None)
        of = (", ".join(part for part in parts if part), m.labels["protocol"], m.labels["generator"])
        rows.setdefault(of, {})[m.metric] = m
    table = Table(caption=f"Clips, 95 % intervals over people. Frames, shots and the rest: {run}/measurements.json")
    for heading in ("detector", "protocol", "fakes of"):
        table.add_column(heading)
    for heading in ("real+fake", *metrics):
        table.add_column(heading, justify="right")
    notes: dict[tuple[str, str], set[str]] = {}  # of which detectors it is said of a metric
    for place, row in rows.items():
        any_of_it = next(iter(row.values()))
        table.add_row(*place, f"{any_of_it.n_real}+{any_of_it.n_fake}", *(_cell(row.get(name)) for name in metrics))
        for m in row.values():
            if m.note and m.metric in COLUMNS:
                notes.setdefault((m.note, m.metric), set()).add(m.labels["detector"])
    console.print(table)
    everyone = {m.labels["detector"] for row in rows.values() for m in row.values()}
    together: dict[tuple[str, frozenset[str]], set[str]] = {}  # metrics of which the same is said of the same
    for (note, metric), some in notes.items():
        together.setdefault((note, frozenset(some)), set()).add(metric)
    for (note, those), named in together.items():
        whose = "" if those == everyone else f" of {', '.join(sorted(those))}"
        console.print(f"{', '.join(sorted(named))}{whose}: {note}", style="yellow", highlight=False, markup=False)
    if not rows:
        console.print("No fakes of which a detector has not learnt; name others with --fakes.", style="yellow")
    console.print(f"Next: theval report {run} -o report.html", highlight=False)


def _cell(measurement: "Measurement | None") -> str:
    """The value; of AUC with its interval."""
    if measurement is None or measurement.value is None:
        return "n/a"
    text = f"{measurement.value:.3f}"
    if measurement.metric == "auc" and measurement.low is not None and measurement.high is not None:
        text += f" [{measurement.low:.2f}, {measurement.high:.2f}]"
    return text
