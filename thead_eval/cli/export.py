"""theval export: a talker as one ONNX file."""

import json
from pathlib import Path

import click

CHECKED_FRAMES = 8


@click.command(short_help="A talker as an ONNX file that runs without torch.")
@click.argument("talker", type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="The file to write, such as me.onnx.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
def command(talker: Path, out: Path, as_json: bool) -> None:
    """Write TALKER, which 'theval generate --save-talker' left, as an avatar: one ONNX file with the person in it.

    It makes frames from landmarks alone, with numpy, OpenCV and onnxruntime. Whoever sends 68 points a frame sends a
    talking head; so the file is as private as the photos. Its metadata marks it as synthetic.

    \b
    Examples:
      theval export me.safetensors -o me.onnx
      python -c "from generator.avatar import load_avatar; help(load_avatar('me.onnx').stream)"
    """
    from thead_eval.errors import ConfigError

    if out.suffix != ".onnx":
        raise ConfigError(f"'{out}' is not named as an ONNX file; name it with the suffix .onnx")

    import torch

    from generator.avatar import load_avatar
    from generator.export import export_avatar
    from generator.talker import load_talker

    person = load_talker(talker, torch.device("cpu"))
    export_avatar(person, out)
    # The same frames from both, on the person's own landmarks.
    points = person.network.points[:CHECKED_FRAMES]
    expected = person.make_frames(points).permute(0, 2, 3, 1)
    avatar = load_avatar(out)
    made = avatar.animate(((points + 0.5) * (person.side / person.size) - 0.5).numpy())
    difference = (torch.from_numpy(made).float() - expected.float()).abs().mean().item()
    written = {
        "file": str(out),
        "bytes": out.stat().st_size,
        "id": avatar.about.id,
        "size": avatar.about.output_size,
        "landmarks_in_pixels_of": avatar.about.side,
        "generator": avatar.about.generator,
        "checkpoint_sha256": avatar.about.checkpoint,
        "mean_difference": round(difference, 4),
    }
    if as_json:
        click.echo(json.dumps(written, indent=1))
        return
    click.echo(f"'{out}': {out.stat().st_size / 1e6:.1f} MB, {avatar.about.id} at {avatar.about.output_size} pixels")
    click.echo(f"driven by landmarks in pixels of a frame of {avatar.about.side}")
    click.echo(f"frames differ from the talker's by {difference:.3f} of 255 in the mean")
