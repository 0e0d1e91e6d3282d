"""A talker: the folded network makes the frames of the unfolded one, from any number of landmarks, and can be kept."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from generator import checkpoint
from generator.networks import Embedder, Generator, NetworkConfig
from generator.talker import BATCH, FewShotTalker, Folded, Origin, Precision, Unfolded, fold, load_talker, save_talker
from thead_eval.drawing import draw_landmarks
from thead_eval.errors import CheckpointError, NoFaceFound
from thead_eval.synthetic import head_clip
from thead_eval.types import Landmarks

CPU = torch.device("cpu")
SMALL = {"size": 32, "channels": 8, "max_channels": 16, "embedding": 16, "down": 3, "residual": 1}
HYBRID = NetworkConfig(output="hybrid", output_size=64, **SMALL)  # type: ignore[arg-type]  # of mixed types
CONFIGS = {
    "hybrid, twice the size": HYBRID,
    "hybrid, attention": replace(HYBRID, size=64, attention=True, down=4, residual=2),
    "hybrid, skips and reach": replace(HYBRID, skips=True, reach=4),
    "rgb, skips": NetworkConfig(output_size=64, skips=True, **SMALL),  # type: ignore[arg-type]
    "hybrid, one candidate": replace(HYBRID, output_size=32, candidates=1),
    "rgb": NetworkConfig(output_size=32, **SMALL),  # type: ignore[arg-type]
    "rgb, twice the size": NetworkConfig(output_size=64, **SMALL),  # type: ignore[arg-type]
}


def make_talker(config: NetworkConfig, side: int | None = None, shots: int = 3) -> FewShotTalker:
    """A person as random networks see it: unfolded."""
    torch.manual_seed(0)
    G = Generator(config).eval().requires_grad_(False)
    for name, parameter in G.named_parameters():  # what starts as nothing must count, too
        if parameter.ndim < 2:
            parameter.add_(0.2 * torch.randn_like(parameter))
        elif name in ("to_flow.weight", "to_masks.weight"):
            parameter.normal_(std=0.03)
    clip, landmarks = head_clip(3, shots, config.output_size, fps=2)
    network = Unfolded(G, G.P(torch.randn(1, config.embedding)), clip.frames, landmarks.points)
    return FewShotTalker(clip.id, network, side or config.output_size, Origin("fewshot", "0" * 64, 7, 1.5))


def driving(config: NetworkConfig, frames: int = 6) -> Landmarks:
    return head_clip(3, frames, config.output_size, fps=4, seed=1)[1]


@pytest.fixture(scope="module")
def talker() -> FewShotTalker:
    return fold(make_talker(HYBRID), "32-true")


# Folding


@pytest.mark.parametrize("name", CONFIGS)
def test_folded_frames_are_those_of_the_unfolded_network(name: str) -> None:
    config = CONFIGS[name]
    unfolded = make_talker(config)
    folded = fold(unfolded, "32-true")
    track = driving(config, 2)
    size = config.size
    y = torch.stack([draw_landmarks(p, size, size) for p in (track.points + 0.5) * size / config.output_size - 0.5])
    y = y.float() / 127.5 - 1
    with torch.inference_mode():
        a, b = unfolded.network(y, track.points), folded.network(y, track.points)
    assert a.shape == (2, 3, config.output_size, config.output_size) and a.std() > 0.1
    torch.testing.assert_close(b, a, rtol=0, atol=1e-3)
    frames, same = unfolded.animate(track, 25.0).frames.int(), folded.animate(track, 25.0).frames.int()
    assert (frames - same).abs().max() <= 1 and (frames != same).float().mean() < 0.01


@pytest.mark.parametrize("name", CONFIGS)
def test_bfloat16_is_off_by_rounding(name: str) -> None:
    unfolded = make_talker(CONFIGS[name])
    track = driving(CONFIGS[name], 2)
    a, b = (t.animate(track, 25.0).frames.float() for t in (unfolded, fold(unfolded, "bf16-true")))
    assert (a - b).abs().mean() < 0.06 * (a - a.mean()).abs().mean()


def test_folding_leaves_the_network_as_it_was() -> None:
    unfolded = make_talker(CONFIGS["hybrid, attention"])
    before = {name: tensor.clone() for name, tensor in unfolded.network.state_dict().items()}
    fold(unfolded, "bf16-true").animate(driving(HYBRID, 1), 25.0)
    after = unfolded.network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_nothing_is_left_to_compute_for_the_person(talker: FewShotTalker) -> None:
    assert isinstance(talker.network, Folded)
    names = {type(module).__name__ for module in talker.network.modules()}
    assert not {"AdaptiveNorm", "InstanceNorm", "ParametrizedConv2d", "ParametrizedLinear", "Linear"} & names
    assert all(not parameter.requires_grad for parameter in talker.network.parameters())


# Animating


def test_a_track_streams_in_parts(talker: FewShotTalker) -> None:
    track = driving(HYBRID, 2 * BATCH + 3)
    whole = talker.animate(track, 30.0)
    parts = list(talker.stream(track))
    assert [len(part) for part in parts] == [BATCH, BATCH, 3]
    assert torch.equal(torch.cat(parts), whole.frames)
    assert whole.id == "head0003-0" and whole.fps == 30.0 and whole.size == (64, 64)
    # Of an endless track, a part comes after a part.
    first = next(talker.stream(Landmarks(track.points.repeat(1000, 1, 1), track.found.repeat(1000))))
    assert torch.equal(first, parts[0])


def test_landmarks_are_in_pixels_of_the_frames_that_were_given(talker: FewShotTalker) -> None:
    track = driving(HYBRID)
    larger = Landmarks((track.points + 0.5) * 4 - 0.5, track.found)
    made = replace(talker, side=256).animate(larger, 25.0)
    assert (made.frames.int() - talker.animate(track, 25.0).frames.int()).abs().max() <= 1


def test_a_row_without_a_face_holds_the_one_before(talker: FewShotTalker) -> None:
    track = driving(HYBRID)
    points, found = track.points.clone(), track.found.clone()
    for t in (0, 3, 4):
        points[t], found[t] = torch.nan, False
    made = talker.animate(Landmarks(points, found), 25.0).frames
    assert torch.equal(made[3], made[2]) and torch.equal(made[4], made[2]) and torch.equal(made[0], made[1])


def test_a_track_without_a_face_says_so(talker: FewShotTalker) -> None:
    nothing = Landmarks(torch.full((4, 68, 2), torch.nan), torch.zeros(4, dtype=torch.bool))
    with pytest.raises(NoFaceFound, match="none of 4 driving frames has landmarks; check the driving video"):
        talker.animate(nothing, 25.0)
    with pytest.raises(NoFaceFound, match="none of 0 driving frames has landmarks"):
        talker.animate(nothing.take([]), 25.0)


# Compiling


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no compiler is here")
def test_a_compiled_talker_makes_the_same_frames() -> None:
    plain, compiled = (fold(make_talker(CONFIGS["rgb"]), "32-true") for _ in range(2))
    assert isinstance(compiled.network, Folded)
    compiled.network.compile_trunk()
    track = driving(CONFIGS["rgb"], 2)
    difference = compiled.animate(track, 25.0).frames.int() - plain.animate(track, 25.0).frames.int()
    assert difference.abs().max() <= 1


@pytest.mark.slow
def test_without_a_compiler_it_says_so(tmp_path: Path) -> None:
    save_talker(tmp_path / "me.safetensors", fold(make_talker(CONFIGS["rgb"]), "32-true"))
    code = (
        "import sys, torch\n"
        "from pathlib import Path\n"
        "from generator.talker import load_talker\n"
        "from thead_eval.errors import ConfigError\n"
        "talker = load_talker(Path(sys.argv[1]), torch.device('cpu'))\n"
        "talker.network.compile_trunk()\n"
        "try:\n"
        "    talker.make_frames(talker.network.points)\n"
        "except ConfigError as error:\n"
        "    print(error)\n"
    )
    environment = {**os.environ, "CXX": str(tmp_path / "none"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    made = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "me.safetensors")], capture_output=True, text=True, env=environment
    )
    (said,) = made.stdout.splitlines()
    assert said.startswith("torch.compile does not work here (") and "leave --compile out" in said, made.stderr


# Keeping


@pytest.mark.parametrize("precision", ["32-true", "bf16-true"])
@pytest.mark.parametrize("name", ["hybrid, twice the size", "rgb"])
def test_a_kept_talker_makes_the_same_frames(name: str, precision: Precision, tmp_path: Path) -> None:
    config = CONFIGS[name]
    talker = fold(make_talker(config, side=100), precision)
    save_talker(tmp_path / "me.safetensors", talker)
    loaded = load_talker(tmp_path / "me.safetensors", CPU)
    assert loaded.origin == talker.origin == Origin("fewshot", "0" * 64, 7, 1.5)
    assert (loaded.id, loaded.side, loaded.size) == (talker.id, 100, config.output_size)
    track = driving(config)
    assert torch.equal(loaded.animate(track, 25.0).frames, talker.animate(track, 25.0).frames)


def test_what_is_no_talker_is_refused(talker: FewShotTalker, tmp_path: Path) -> None:
    file = tmp_path / "me.safetensors"
    with pytest.raises(CheckpointError, match=r"'.*me.safetensors' cannot be read \(No such file"):
        load_talker(file, CPU)
    save_talker(file, talker)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="is damaged or cut short"):
        load_talker(file, CPU)
    torch.save({"weight": torch.zeros(3)}, file)
    with pytest.raises(CheckpointError, match="is a pickle, which could run code"):
        load_talker(file, CPU)
    networks: dict[str, nn.Module] = {"E": Embedder(HYBRID), "G": Generator(HYBRID)}
    checkpoint.save(file, networks, HYBRID, {})
    with pytest.raises(CheckpointError, match="is a checkpoint, not a talker, which is one person; 'theval generate"):
        load_talker(file, CPU)
