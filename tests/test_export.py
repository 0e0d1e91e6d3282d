"""An avatar: the talker's frames from an ONNX file, from landmarks alone and without torch."""

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from generator import candidates, warp
from generator.avatar import Avatar, choose, growth, load_avatar, rescale, spline_nodes
from generator.export import AvatarGraph, describe
from generator.networks import Generator, NetworkConfig, to_network, to_picture
from generator.talker import FewShotTalker, Folded, Origin, Unfolded, fold, save_talker
from thead_eval.cli.export import command
from thead_eval.drawing import paint_landmarks
from thead_eval.errors import CheckpointError, ConfigError
from thead_eval.media import read_clip
from thead_eval.synthetic import head_clip

ROOT = Path(__file__).parent.parent
HOPPER = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"  # in the public domain
CONFIG = NetworkConfig(
    size=32,
    output="hybrid",
    output_size=64,
    channels=8,
    max_channels=16,
    embedding=16,
    down=3,
    residual=0,
    skips=True,
    reach=4,
)
SIDE = 100  # of the frames that the person was learnt from


def make_talker(config: NetworkConfig) -> FewShotTalker:
    torch.manual_seed(0)
    G = Generator(config).eval().requires_grad_(False)
    for name, parameter in G.named_parameters():
        if name in ("to_flow.weight", "to_masks.weight"):
            parameter.normal_(std=0.03)
    clip, landmarks = head_clip(3, 3, config.output_size, fps=2)
    network = Unfolded(G, G.P(torch.randn(1, config.embedding)), clip.frames, landmarks.points)
    origin = Origin("fewshot", "ab" * 32, 7, 1.5)
    return fold(FewShotTalker(clip.id, network, SIDE, origin), "32-true")


@pytest.fixture(scope="module")
def talker() -> FewShotTalker:
    return make_talker(CONFIG)


@pytest.fixture(scope="module")
def folder(talker: FewShotTalker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kept talker and what `theval export` makes of it."""
    folder = tmp_path_factory.mktemp("avatar")
    save_talker(folder / "me.safetensors", talker)
    ran = CliRunner().invoke(command, [str(folder / "me.safetensors"), "-o", str(folder / "me.onnx"), "--json"])
    assert ran.exit_code == 0, ran.output
    (folder / "printed.json").write_text(ran.stdout)
    return folder


@pytest.fixture(scope="module")
def avatar(folder: Path) -> Avatar:
    return load_avatar(folder / "me.onnx", threads=1)


def test_the_command_says_what_it_wrote(folder: Path) -> None:
    written = json.loads((folder / "printed.json").read_text())
    assert written["bytes"] == (folder / "me.onnx").stat().st_size
    assert (written["id"], written["size"], written["landmarks_in_pixels_of"]) == ("head0003-0", 64, SIDE)
    assert written["mean_difference"] < 0.05
    assert sorted(path.name for path in folder.iterdir()) == ["me.onnx", "me.safetensors", "printed.json"]


def test_the_avatars_frames_are_the_talkers(avatar: Avatar, talker: FewShotTalker) -> None:
    driving = head_clip(3, 5, SIDE, fps=4, seed=1)[1]
    made = torch.from_numpy(avatar.animate(driving.points.numpy())).permute(0, 3, 1, 2)
    expected = talker.animate(driving, 25.0).frames
    assert made.shape == expected.shape and made.dtype == torch.uint8
    difference = (made.int() - expected.int()).abs()
    assert difference.max() <= 1 and difference.float().mean() < 0.255  # of 255: a thousandth


def test_the_graph_of_an_avatar_that_paints_all() -> None:
    talker = make_talker(replace(CONFIG, output="rgb", output_size=32))
    assert isinstance(talker.network, Folded)
    points = head_clip(3, 1, 32, fps=4, seed=1)[1].points
    graph = AvatarGraph(talker.network)
    assert graph.example.shape == (1, 3, 32, 32)
    y = torch.from_numpy(paint_landmarks(points[0].numpy(), 32, 32)).permute(2, 0, 1)[None]
    (rgb,) = graph(to_network(y))
    assert (to_picture(rgb).int() - talker.make_frames(points).int()).abs().max() <= 1
    about = describe(talker)
    assert (about.candidates, about.points, about.support) == (0, [], [])


def test_it_runs_without_torch(folder: Path) -> None:
    code = (
        "import sys, numpy as np\n"
        "from generator.avatar import load_avatar\n"
        f"avatar = load_avatar({str(folder / 'me.onnx')!r})\n"
        f"points = np.random.default_rng(0).uniform(20, 80, (9, 68, 2))\n"
        "parts = list(avatar.stream(points))\n"
        "assert [part.shape for part in parts] == [(64, 64, 3)] * 9, parts\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr or "torch was imported"


def test_it_is_marked_as_synthetic(avatar: Avatar) -> None:
    assert avatar.about.comment == "Synthetic media made by theval generator fewshot"
    assert (avatar.about.generator, avatar.about.checkpoint) == ("fewshot", "ab" * 32)


@pytest.mark.slow
def test_the_way_that_the_page_shows_leads_to_the_same_frames(tmp_path: Path) -> None:
    """From a photo to a video that another program makes of an avatar: docs/generate.md, line by line."""
    page = (ROOT / "docs" / "generate.md").read_text().split("## An avatar without torch")[1]
    commands = re.findall(r"^    (theval .+)$", page, re.MULTILINE)[:2]
    snippet = re.search(r"```python\n(.+?)```", page, re.DOTALL)
    assert snippet and [line.split()[1] for line in commands] == ["generate", "export"]
    with Image.open(HOPPER) as photo:
        photo.save(tmp_path / "me.jpg")
    for line in [*commands, shlex.join(["python", "-c", snippet[1] + "import sys; assert 'torch' not in sys.modules"])]:
        program, *words = shlex.split(line)
        ran = subprocess.run(
            [Path(sys.executable).with_name(program), *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert ran.returncode == 0, ran.stderr
    ours, theirs = (read_clip(tmp_path / name).frames.float() for name in ("me.mp4", "avatar.mp4"))
    assert ours.shape == theirs.shape and len(ours) == len(np.load(tmp_path / "nod.npy"))
    difference = (ours - theirs)[:, :, :230].abs()  # above the labels
    assert difference.mean() < 4, "two codings of the same frames"
    assert (ours[0] - ours)[:, :, :230].abs().mean() > 0.5


# What it does beside the graph


def test_splines_in_numpy_are_those_in_torch() -> None:
    support = head_clip(3, 3, 64, fps=2)[1].points
    driving = head_clip(4, 5, 64, fps=2)[1].points
    expected = warp.spline_nodes(support.expand(5, -1, -1, -1), driving, (64, 64)).numpy()
    for row, nodes in zip(driving.numpy(), expected, strict=True):
        np.testing.assert_allclose(spline_nodes(support.numpy(), row, 64), nodes, atol=1e-5)


@pytest.mark.parametrize(("shots", "count"), [(1, 3), (2, 3), (6, 3), (3, 1), (6, 5)])
def test_support_frames_in_numpy_are_those_in_torch(shots: int, count: int) -> None:
    support, driving = head_clip(3, shots, 64, fps=2)[1].points, head_clip(4, 7, 64, fps=2)[1].points
    expected = candidates.choose(support, driving, replace(CONFIG, candidates=count))
    for row, chosen in zip(driving.numpy(), expected.numpy(), strict=True):
        assert np.array_equal(choose(support.numpy(), row, count), chosen)


@pytest.mark.parametrize("align_corners", [True, False])
def test_growth_in_numpy_is_that_in_torch(align_corners: bool) -> None:
    row = torch.rand(1, 1, 9)
    expected = torch.nn.functional.interpolate(row, size=32, mode="linear", align_corners=align_corners)
    made = growth(9, 32, align_corners=align_corners) @ row[0, 0].numpy()
    np.testing.assert_allclose(made, expected[0, 0].numpy(), atol=1e-6)


def test_a_pixels_centre_stays_one() -> None:
    points = np.array([[[-0.5, 0], [99.5, 49.5]]], np.float32)
    np.testing.assert_allclose(rescale(points, 100, 50), [[[-0.5, -0.25], [49.5, 24.5]]])


# Refused


def test_what_cannot_drive_it(avatar: Avatar) -> None:
    for points in (np.zeros((4, 68)), np.zeros((4, 5, 2)), np.full((1, 68, 2), np.nan)):
        with pytest.raises(ValueError, match=r"driven by landmarks \[T, 68, 2\] without NaN, not"):
            avatar.animate(points.astype(np.float32))


def test_what_is_no_avatar(tmp_path: Path) -> None:
    file = tmp_path / "me.onnx"
    with pytest.raises(CheckpointError, match="cannot be read as an avatar"):
        load_avatar(file)
    file.write_text("nothing")
    with pytest.raises(CheckpointError, match="cannot be read as an avatar"):
        load_avatar(file)


def test_a_wrong_command_says_what_is_wrong(tmp_path: Path) -> None:
    nothing = str(tmp_path / "none.safetensors")
    with pytest.raises(CheckpointError, match=r"none.safetensors' cannot be read \(No such file"):
        command.main([nothing, "-o", str(tmp_path / "me.onnx")], standalone_mode=False)
    with pytest.raises(ConfigError, match="is not named as an ONNX file; name it with"):
        command.main([nothing, "-o", "me.mp4"], standalone_mode=False)
