"""Checkpoints: what is saved comes back, and what is not one is refused with a sentence."""

import dataclasses
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from generator import checkpoint
from generator.networks import Discriminator, Embedder, Generator, NetworkConfig
from thead_eval.errors import CheckpointError

CONFIG = NetworkConfig(
    size=32, output="hybrid", output_size=64, channels=8, max_channels=16, embedding=16, down=3, residual=1, crop=32
)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "small.safetensors"
    networks = {"E": Embedder(CONFIG), "G": Generator(CONFIG), "D": Discriminator(CONFIG)}
    checkpoint.save(path, networks, CONFIG, {"recipe": "small", "steps": "7"})
    return path


def test_networks_come_back_as_they_were(tmp_path: Path) -> None:
    G = Generator(CONFIG).to(memory_format=torch.channels_last)
    moments = {"0.exp_avg": torch.randn(3, 2), "0.step": torch.tensor(5.0)}
    path = tmp_path / "a.safetensors"
    checkpoint.save(path, {"G": G, "optimizer": moments}, CONFIG, {"recipe": "small", "steps": "7"})

    loaded = checkpoint.load(path, CONFIG)
    other = Generator(loaded.config)
    loaded.restore("G", other)
    assert loaded.config == CONFIG and loaded.metadata == {"recipe": "small", "steps": "7"} and loaded.path == path
    assert all(torch.equal(a, b) for a, b in zip(G.state_dict().values(), other.state_dict().values(), strict=True))
    assert {key: value.tolist() for key, value in loaded.part("optimizer").items()} == {
        key: value.tolist() for key, value in moments.items()
    }
    assert loaded.part("E") == {}


def test_half_is_half_the_size_and_gives_nearly_the_same_frames(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = dataclasses.replace(CONFIG, output="rgb", output_size=32, channels=16, max_channels=64, embedding=64)
    G = Generator(config).eval()
    sizes = []
    for half in (False, True):
        path = tmp_path / f"{half}.safetensors"
        checkpoint.save(path, {"G": G}, config, {}, half=half)
        sizes.append(path.stat().st_size)
    assert sizes[1] < 0.55 * sizes[0]

    smaller = Generator(config).eval()
    checkpoint.load(path).restore("G", smaller)
    y, psi_hat = torch.rand(2, 3, 32, 32), torch.randn(2, G.affine_size)
    with torch.no_grad():
        assert torch.allclose(G(y, psi_hat).frame, smaller(y, psi_hat).frame, atol=0.02)


def test_a_config_inside_rebuilds_the_networks(saved: Path) -> None:
    loaded = checkpoint.load(saved)
    for name, kind in {"E": Embedder, "G": Generator, "D": Discriminator}.items():
        loaded.restore(name, kind(loaded.config))


def test_a_failed_write_leaves_the_old_file_and_no_other(saved: Path) -> None:
    before = saved.read_bytes()
    unwritable = {"E": {"weight": torch.zeros(2, device="meta")}}
    with pytest.raises(NotImplementedError):
        checkpoint.save(saved, unwritable, CONFIG, {})
    assert saved.read_bytes() == before and list(saved.parent.iterdir()) == [saved]
    missing = saved.parent / "nowhere" / "a.safetensors"
    with pytest.raises(CheckpointError, match=r"nowhere/a.safetensors' could not be written .*choose another folder"):
        checkpoint.save(missing, {}, CONFIG, {})


class Bomb:
    """Runs when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:  # Any: as pickle has it
        return print, ("a stranger's code ran",)


@pytest.mark.parametrize("modern", [True, False], ids=["zip", "legacy"])
def test_pickles_are_refused_unopened(tmp_path: Path, modern: bool, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.safetensors"
    torch.save({"bomb": Bomb()}, path, _use_new_zipfile_serialization=modern)
    with pytest.raises(CheckpointError, match=r"model.safetensors' is a pickle, which could run code"):
        checkpoint.load(path)
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(CheckpointError, match="is a pickle"):
        checkpoint.load(path)
    assert capsys.readouterr().out == ""


def test_a_header_whose_length_looks_like_a_pickle_is_none(tmp_path: Path) -> None:
    """One file in 256 begins with the byte that pickles begin with."""
    path = tmp_path / "unlucky.safetensors"
    for steps in range(300):
        checkpoint.save(path, {"E": {"w": torch.zeros(1)}}, CONFIG, {"padding": " " * steps})
        if path.read_bytes()[0] == 0x80:
            break
    assert path.read_bytes()[0] == 0x80 and checkpoint.load(path).config == CONFIG


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_a_truncated_file_is_refused(saved: Path, kept: int) -> None:
    content = saved.read_bytes()
    saved.write_bytes(content[:kept])
    with pytest.raises(CheckpointError, match=r"small.safetensors' is damaged or cut short .*copy or train it again"):
        checkpoint.load(saved)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"a.safetensors' cannot be read \(No such file or directory\); check"):
        checkpoint.load(tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=r"cannot be read \(Is a directory\)"):
        checkpoint.load(tmp_path)


def test_other_networks_are_refused_by_what_differs(saved: Path) -> None:
    paper = NetworkConfig()
    with pytest.raises(
        CheckpointError,
        match=r"holds other networks of recipe 'small': size 32, not 256; output hybrid, not rgb; .*of the same recipe",
    ):
        checkpoint.load(saved, paper)


def test_a_strangers_safetensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match=r"other.safetensors' is not a checkpoint of theval's"):
        checkpoint.load(path)
    save_file({"a": torch.zeros(1)}, path, {"format": "theval generator 9", "network": "{}"})
    with pytest.raises(
        CheckpointError, match="has format 'theval generator 9', this theval reads 'theval generator 1'"
    ):
        checkpoint.load(path)


@pytest.mark.parametrize("network", [{"wings": 2}, {"size": 99}, {"size": "big"}, None], ids=str)
def test_networks_that_cannot_be_built_are_refused(tmp_path: Path, network: object) -> None:
    path = tmp_path / "future.safetensors"
    save_file({"a": torch.zeros(1)}, path, {"format": checkpoint.FORMAT, "network": json.dumps(network)})
    with pytest.raises(CheckpointError, match=r"has networks that this theval cannot build .*update theval"):
        checkpoint.load(path)


def test_a_module_that_does_not_fit_is_named(saved: Path) -> None:
    larger = Generator(dataclasses.replace(CONFIG, channels=16))
    with pytest.raises(CheckpointError, match=r"does not hold G as its config says \(.*size mismatch"):
        checkpoint.load(saved).restore("G", larger)
    with pytest.raises(CheckpointError, match="does not hold W as its config says"):
        checkpoint.load(saved).restore("W", torch.nn.Embedding(2, 2))
