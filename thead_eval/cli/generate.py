"""theval generate: photos to a talking head, or a dataset to fakes of everyone in it."""

import json
import os
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from thead_eval.cli.options import check_device, numbers, refuse
from thead_eval.errors import ConfigError, SeveralFaces

if TYPE_CHECKING:
    from thead_eval.credentials import SigningKey
    from thead_eval.types import Talker

PORTRAIT_OPTIONS = (
    *("photos", "drive", "size", "face", "motion", "same_person", "smooth", "hold", "paste_back", "no_label", "sound"),
    *("preview", "show_crop", "save_talker", "save_points", "certificate", "key", "compiled"),
)
# What --tune makes of 'fewshot': a generator's name fixes its settings, wherever it is compared.
TUNED = {
    "all": "fewshot_all",
    "adain": "fewshot_adain",
    "adain+last_up": "fewshot_last_up",
    "heads": "fewshot_heads",
}
DATASET_OPTIONS = ("split", "shots", "identities", "min_frames", "cross_clip", "seed", "workers")


@click.command(short_help="Photos to a talking head; a dataset to fakes of everyone in it.")
@click.option("--photos", multiple=True, type=click.Path(path_type=Path), help="Photos or paintings of one person.")
@click.argument("more_photos", nargs=-1, type=click.Path(path_type=Path), metavar="[PHOTO]...")
@click.option("--drive", help="What moves them: a video, a track of 'theval track', or nod, smile, talk.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="The video, or with --data a folder.")
@click.option("--generator", "generators", multiple=True, help="By name; with --data again for each more.")
@click.option(
    "--checkpoint", type=click.Path(path_type=Path), help="Of the neural generator. Default: the bundled one."
)
@click.option("--tune", type=click.Choice(list(TUNED)), help="What fine-tuning changes: 'fewshot' by another name.")
@click.option("--compile", "compiled", is_flag=True, help="Animate by torch.compile: for long tracks on a GPU.")
@click.option("--size", type=click.IntRange(32, 1024), default=256, show_default=True, help="Pixels of the head crops.")
@click.option("--face", type=click.IntRange(1), help="Of several in a photo, counted from the left.")
@click.option(
    "--motion",
    type=click.Choice(["all", "expression", "head"]),
    default="all",
    show_default=True,
    help="What to take from the driver.",
)
@click.option("--same-person", is_flag=True, help="The driver is who the photos show: take poses as they are.")
@click.option("--smooth/--no-smooth", default=True, show_default=True, help="Take out the trembling of landmarks.")
@click.option("--hold", is_flag=True, help="Where the driver loses its face for long, keep the pose.")
@click.option("--paste-back", is_flag=True, help="Put the head back into the first photo, at its own size.")
@click.option("--sound", is_flag=True, help="Keep the driver's sound.")
@click.option("--no-label", is_flag=True, help="Leave out the visible label; the metadata stays.")
@click.option("--preview", type=click.Path(path_type=Path), help="Also a .gif, or a strip of frames as .png.")
@click.option("--show-crop", type=click.Path(path_type=Path), help="Also a picture of the faces found and the crop.")
@click.option("--save-talker", type=click.Path(path_type=Path), help="Also the person as learnt, for 'theval export'.")
@click.option("--save-points", type=click.Path(path_type=Path), help="Also what drives it, for an avatar, as .npy.")
@click.option("--certificate", type=click.Path(path_type=Path), help="PEM chain: sign Content Credentials (C2PA).")
@click.option("--key", type=click.Path(path_type=Path), help="Its private key.")
@click.option("--data", help="A prepared dataset: make fakes of its people instead.")
@click.option("--shots", default="1,8,32", show_default=True, callback=numbers, help="Support frames to adapt on.")
@click.option("--split", type=click.Choice(["train", "val", "test", "all"]), default="test", show_default=True)
@click.option("--identities", type=click.IntRange(1), help="Only the first so many people. Default: all of the split.")
@click.option("--min-frames", type=click.IntRange(0), default=0, help="Leave out shorter clips.")
@click.option("--cross-clip", is_flag=True, help="Support frames from another clip of the person than the targets.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the support frames.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1 ...")
@click.option("--json", "as_json", is_flag=True, help="Print what was made as JSON.")
@click.pass_context
def command(
    ctx: click.Context,
    photos: tuple[Path, ...],
    more_photos: tuple[Path, ...],
    drive: str | None,
    out: Path | None,
    generators: tuple[str, ...],
    checkpoint: Path | None,
    tune: str | None,
    compiled: bool,
    size: int,
    face: int | None,
    motion: str,
    same_person: bool,
    smooth: bool,
    hold: bool,
    paste_back: bool,
    sound: bool,
    no_label: bool,
    preview: Path | None,
    show_crop: Path | None,
    save_talker: Path | None,
    save_points: Path | None,
    certificate: Path | None,
    key: Path | None,
    data: str | None,
    shots: tuple[int, ...],
    split: str,
    identities: int | None,
    min_frames: int,
    cross_clip: bool,
    seed: int,
    workers: int,
    device: str,
    as_json: bool,
) -> None:
    """Make a person in photos move, or fakes of everyone in a dataset.

    With --photos and --drive: a video of the person, moved by another (only the movement is taken over: shape, place
    and tilt stay the photo's). With --data: of every person of a split, the frames that 'theval score --data' asks for,
    at 1, 8 and 32 shots, beside the real ones that they reproduce. An interrupted command, run again, continues.

    The generator is the bundled one where none is named: fine-tuned to several photos or frames, `fewshot`; as it is to
    a single photo, `fewshot_ff`, as fine-tuning would take half a minute and change nothing that shows. With --tune it
    is fine-tuned from one photo too, and has the name of what that changes, as in `fewshot_heads`.

    What is made says so: a label in the picture (--no-label leaves it out; fakes of a dataset have none), metadata in
    the file, and a row in manifest.csv beside it.

    \b
    Examples:
      theval generate --photos me.jpg --drive talk -o me.mp4
      theval generate --photos me.jpg more.jpg --drive clip.mp4 --sound -o fake.mp4
      theval generate --photos group.jpg --show-crop faces.png
      theval generate --photos group.jpg --face 2 --drive nod --paste-back --preview nod.gif -o nod.mp4
      theval generate --photos me.jpg more.jpg --drive talk --tune heads -o me.mp4
      theval generate --photos me.jpg --drive talk --save-talker me.safetensors -o me.mp4
      theval generate --data dataset/ --shots 1,8,32 --generator copy --generator warp -o fakes/
    """
    if checkpoint:
        if not checkpoint.is_file():
            raise ConfigError(f"there is no checkpoint '{checkpoint}'; check the path")
        os.environ["THEVAL_CHECKPOINT"] = str(checkpoint.resolve())  # for worker processes too
    check_device(device)
    if tune:
        generators = _tuned(generators, tune)
    if data:
        refuse(ctx, PORTRAIT_OPTIONS, "--photos")
        if out is None:
            raise ConfigError("name the folder for the fakes with -o")
        _make_fakes(
            data, out, generators, shots, split, identities, min_frames, cross_clip, seed, device, workers, as_json
        )
        return
    refuse(ctx, DATASET_OPTIONS, "--data")
    photos = (*photos, *more_photos)
    if not photos:
        raise ConfigError("name what to make: --photos and --drive for a person, or --data for everyone in a dataset")
    if len(generators) > 1:
        raise ConfigError("photos are animated by one --generator; run the command again for each other")
    if drive is None or out is None:
        if show_crop and drive is None and out is None:
            _show_crop(photos, size, face, show_crop)
            return
        raise ConfigError("photos need something that moves them and a file: --drive talk -o fake.mp4")
    from thead_eval.cli.progress import progress_bars
    from thead_eval.puppets import PuppetConfig, animate_photos

    config = PuppetConfig(
        photos=photos,
        drive=drive,
        out=out,
        generator=generators[0] if generators else _default_generator(len(photos) == 1),
        size=size,
        face=face,
        motion=motion,  # type: ignore[arg-type]  # one of click's choices
        same_person=same_person,
        smooth=smooth,
        hold=hold,
        paste_back=paste_back,
        label=not no_label,
        sound=sound,
        preview=preview,
        show_crop=show_crop,
        save_points=save_points,
        signing_key=_signing_key(certificate, key),
        device=device,
        compiled=compiled,
    )
    with progress_bars() as progress:
        keep = partial(_keep, save_talker) if save_talker else lambda _: None
        made = animate_photos(config, progress, keep, partial(click.echo, err=True))
    if as_json:
        click.echo(json.dumps(asdict(made), indent=1))
        return
    click.echo(
        f"{made.file}: {made.frames} frames of {made.width}x{made.height} at {made.fps:g} a second, made by "
        f"'{made.generator}' from {made.shots} photo{'s'[: made.shots > 1]}, marked as synthetic"
    )
    click.echo(f"Adapted in {made.adapt_seconds:.1f} s, animated in {made.animate_seconds:.1f} s")
    if made.driver_frames_without_face:
        click.echo(f"{made.driver_frames_without_face} driving frames showed no face; they were filled in", err=True)


def _default_generator(one_photo: bool) -> str:
    """Of one photo the bundled network learns next to nothing by fine-tuning (its card), and takes half a minute."""
    from generator.fewshot import BUNDLED

    if os.environ.get("THEVAL_CHECKPOINT"):
        return "fewshot"
    if BUNDLED.is_file():
        return "fewshot_ff" if one_photo else "fewshot"
    click.echo(
        "No checkpoint of 'fewshot' comes with this version: 'warp' bends the photo instead. Make one with "
        "'theval train', and give it as --checkpoint.",
        err=True,
    )
    return "warp"


def _tuned(generators: tuple[str, ...], tune: str) -> tuple[str, ...]:
    """The same names, with what is tuned in that of 'fewshot'."""
    if generators and "fewshot" not in generators:
        raise ConfigError(f"--tune is for --generator fewshot, not {', '.join(generators)}; leave one of them out")
    return tuple(TUNED[tune] if name == "fewshot" else name for name in generators or ("fewshot",))


def _signing_key(certificate: Path | None, key: Path | None) -> "SigningKey | None":
    from thead_eval.credentials import read_signing_key

    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise ConfigError("--certificate and --key go together; name both files")
    return read_signing_key(certificate, key)


def _keep(path: Path, talker: "Talker") -> None:
    from generator.talker import FewShotTalker, save_talker

    if not isinstance(talker, FewShotTalker):
        raise ConfigError("--save-talker keeps what 'fewshot' has learnt; another generator's talker cannot be saved")
    save_talker(path, talker)


def _show_crop(photos: tuple[Path, ...], size: int, face: int | None, show_crop: Path) -> None:
    from thead_eval.puppets import read_portraits

    try:
        portrait = read_portraits(photos, size, face, show_crop)[0]
    except SeveralFaces:  # which is why one looks
        click.echo(f"{show_crop}: the faces with their numbers; choose one with --face")
        return
    count = len(portrait.faces)
    click.echo(f"{show_crop}: {count} face{'s'[: count > 1]} in '{portrait.name}', crop of {portrait.crop.side} pixels")


def _make_fakes(
    data: str,
    out: Path,
    generators: tuple[str, ...],
    shots: tuple[int, ...],
    split: str,
    identities: int | None,
    min_frames: int,
    cross_clip: bool,
    seed: int,
    device: str,
    workers: int,
    as_json: bool,
) -> None:
    from benchmarks.fakes import make_fakes
    from benchmarks.shots import ShotsConfig
    from thead_eval.cli.progress import progress_bars

    names = tuple(dict.fromkeys(generators)) or (_default_generator(one_photo=False),)
    config = ShotsConfig(data, split, names, shots, identities, min_frames, cross_clip, seed, device)  # type: ignore[arg-type]  # one of click's choices
    with progress_bars() as progress:
        made = make_fakes(config, out, workers, progress)
    if as_json:
        click.echo(
            json.dumps(made._asdict() | {"failures": [failure.model_dump() for failure in made.failures]}, indent=1)
        )
        return
    click.echo(
        f"{made.fakes} fakes of {made.identities} people in '{out}' ({made.kept} were there), marked as synthetic"
    )
    if made.failures:
        first = made.failures[0]
        click.echo(f"not made: {len(made.failures)}; the first: {first.item}: {first.reason}", err=True)
    click.echo(f"Next: theval score --fakes {out} --reals {out / 'real'}")
