"""theval export: a talker or a detector as one ONNX file."""

import json
from pathlib import Path
from typing import Any

import click

CHECKED_FRAMES = 8


@click.command(short_help="A talker or a detector as an ONNX file that runs without torch.")
@click.argument("source", metavar="TALKER|DETECTOR")
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="The file to write, such as me.onnx.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
def command(source: str, out: Path, as_json: bool) -> None:
    """Write what theval has learnt as one ONNX file.

    A TALKER, which 'theval generate --save-talker' left, becomes an avatar with the person in it: it makes frames from
    landmarks alone, with numpy, OpenCV and onnxruntime. Whoever sends 68 points a frame sends a talking head; so the
    file is as private as the photos. Its metadata marks it as synthetic.

    A DETECTOR, by its file or its training's folder, takes frames [T, 3, 224, 224] uint8 and gives their
    logits and calibrated probabilities. The file is kept only if its logits are the detector's within 0.0001. What is
    no network, such as grain, and so trio, cannot be written.

    \b
    Examples:
      theval export me.safetensors -o me.onnx
      python -c "from generator.avatar import load_avatar; help(load_avatar('me.onnx').stream)"
      theval export detectors/mine -o detector.onnx
    """
    from thead_eval.errors import ConfigError

    if out.suffix != ".onnx":
        raise ConfigError(f"'{out}' is not named as an ONNX file; name it with the suffix .onnx")
    written, lines = _export_detector(source, out) if _is_detector(source) else _export_talker(Path(source), out)
    click.echo(json.dumps(written, indent=1) if as_json else lines)


def _is_detector(source: str) -> bool:
    """Whether it is a detector's file, a folder, or no file at all but a name."""
    from safetensors import SafetensorError, safe_open

    path = Path(source)
    if not path.is_file():
        return path.is_dir() or not path.suffix
    try:
        with safe_open(path, framework="np") as file:
            return str((file.metadata() or {}).get("format", "")).startswith("theval detector")
    except (OSError, SafetensorError):
        return False  # what reads talkers says what is wrong with it


def _export_talker(path: Path, out: Path) -> tuple[dict[str, Any], str]:  # Any: JSON
    import torch

    from generator.avatar import load_avatar
    from generator.export import export_avatar
    from generator.talker import load_talker

    person = load_talker(path, torch.device("cpu"))
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
    return written, (
        f"'{out}': {out.stat().st_size / 1e6:.1f} MB, {avatar.about.id} at {avatar.about.output_size} pixels\n"
        f"driven by landmarks in pixels of a frame of {avatar.about.side}\n"
        f"frames differ from the talker's by {difference:.3f} of 255 in the mean"
    )


def _export_detector(name: str, out: Path) -> tuple[dict[str, Any], str]:  # Any: JSON
    from detectors.checkpoint import TrainedDetector, load_detector
    from detectors.export import describe, export_detector
    from thead_eval.errors import ConfigError

    detector = load_detector(name)
    if not isinstance(detector, TrainedDetector):
        raise ConfigError(f"detector '{name}' is a plug-in's, of which only its package knows how to export it")
    exported = export_detector(detector, out)
    written = {"file": str(out), "bytes": exported.bytes, "max_difference": exported.difference, **describe(detector)}
    return written, (
        f"'{out}': {exported.bytes / 1e6:.1f} MB, detector {detector.name}\n"
        f"its logits differ from the detector's by {exported.difference:.1g} at most"
    )
