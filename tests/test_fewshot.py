"""The plug-ins 'fewshot' and 'fewshot_ff': from a checkpoint's file to a talker, and what is refused on the way."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from generator import checkpoint
from generator.adapt import AdaptConfig, LossWeights
from generator.fewshot import BUNDLED, FewShot, fewshot_ff, load_networks
from generator.networks import Discriminator, Embedder, Generator, NetworkConfig
from generator.recipe import MetaConfig
from generator.samples import UNCHANGED
from generator.talker import Folded, Unfolded
from thead_eval import plugins
from thead_eval.errors import CheckpointError
from thead_eval.synthetic import head_clip
from thead_eval.types import Clip, Landmarks

CPU = torch.device("cpu")
CONFIG = NetworkConfig(
    size=32, output="hybrid", output_size=64, channels=8, max_channels=16, embedding=16, down=3, residual=1, crop=32
)
QUICK = AdaptConfig(steps=2, check_every=1, lr=1e-3, augmentation=UNCHANGED)


def write_checkpoint(
    path: Path, *, seed: int = 0, discriminator: bool = True, config: NetworkConfig = CONFIG, steps: int = 10
) -> Path:
    torch.manual_seed(seed)
    modules: dict[str, nn.Module | Mapping[str, Tensor]] = {"E": Embedder(CONFIG), "G": Generator(CONFIG)}
    if discriminator:
        modules["D"] = Discriminator(CONFIG)
    meta = MetaConfig(content_networks=("efflite0",), content_crop=48, adversarial=0.1)
    checkpoint.save(path, modules, config, {"recipe": "tiny", "steps": str(steps), "meta": json.dumps(asdict(meta))})
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny.safetensors")


@pytest.fixture(scope="module")
def take() -> tuple[Clip, Landmarks]:
    return head_clip(6, 12, 64, fps=4)


def shots(take: tuple[Clip, Landmarks], count: int) -> tuple[Clip, Landmarks]:
    return take[0].take(range(count)), take[1].take(range(count))


def feed_forward(path: Path) -> FewShot:
    return FewShot("fewshot_ff", CPU, path, None)


@pytest.mark.parametrize("name", ["fewshot", "fewshot_ff"])
def test_the_plug_in_reads_the_checkpoint_that_is_named(
    name: str, file: Path, take: tuple[Clip, Landmarks], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THEVAL_CHECKPOINT", str(file))
    generator = plugins.load("generator", name)(CPU)
    assert generator.name == name and (generator.config is None) == (name == "fewshot_ff")
    if name == "fewshot":
        generator = replace(generator, config=QUICK)
    talker = generator.adapt(*shots(take, 2))
    made = talker.animate(take[1].take([4, 5, 6]), 12.5)
    assert made.frames.shape == (3, 3, 64, 64) and made.fps == 12.5 and made.id == "head0006-0"
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    assert talker.origin.checkpoint == generator.checkpoint_sha256 == sha256
    assert talker.origin.generator == name and talker.origin.seconds > 0


def test_shots_do_not_contaminate_each_other(file: Path, take: tuple[Clip, Landmarks]) -> None:
    told: list[tuple[int, int]] = []
    generator = FewShot("fewshot", CPU, file, QUICK).telling(lambda step, of: told.append((step, of)))
    before = generator.adapt(*shots(take, 1)).animate(take[1], 25.0).frames
    assert told == [(step, QUICK.steps) for step in range(1, len(told) + 1)] and told
    generator.adapt(*shots(take, 8))
    assert torch.equal(generator.adapt(*shots(take, 1)).animate(take[1], 25.0).frames, before)


def test_folded_or_not(file: Path, take: tuple[Clip, Landmarks]) -> None:
    folded = replace(feed_forward(file), precision="32-true")
    fast, plain = folded.adapt(*shots(take, 2)), replace(folded, folded=False).adapt(*shots(take, 2))
    assert isinstance(fast.network, Folded) and isinstance(plain.network, Unfolded)
    difference = fast.animate(take[1], 25.0).frames.int() - plain.animate(take[1], 25.0).frames.int()
    assert difference.abs().max() <= 1


def test_fine_tuning_weighs_losses_as_meta_learning_did(file: Path) -> None:
    weights = load_networks(file, CPU).networks.weights
    assert weights == LossWeights(content_crop=48, adversarial=0.1, l1=0.0, rgb=0.0)


def test_a_discriminator_that_has_learnt_nothing_judges_nothing(tmp_path: Path, take: tuple[Clip, Landmarks]) -> None:
    path = write_checkpoint(tmp_path / "young.safetensors", steps=0)
    assert load_networks(path, CPU).networks.weights == LossWeights(
        content_crop=48, adversarial=0.0, feature_matching=0.0, l1=0.0, rgb=0.0
    )
    talker = FewShot("fewshot", CPU, path, QUICK).adapt(*shots(take, 2))
    assert talker.animate(take[1].take([4]), 12.5).frames.shape == (1, 3, 64, 64)


def test_what_a_training_continues_from_gives_its_averages(tmp_path: Path) -> None:
    torch.manual_seed(1)
    E, G = Embedder(CONFIG), Generator(CONFIG)
    average_E, average_G = Embedder(CONFIG), Generator(CONFIG)
    path = tmp_path / "last.safetensors"
    checkpoint.save(path, {"E": E, "G": G, "average_E": average_E, "average_G": average_G}, CONFIG, {})
    networks = load_networks(path, CPU).networks
    assert torch.equal(networks.G.to_rgb.bias, average_G.to_rgb.bias)  # type: ignore[arg-type]  # a convolution's


def test_a_new_file_of_the_same_name_is_read_again(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "tiny.safetensors")
    first = feed_forward(path).checkpoint_sha256
    write_checkpoint(path, seed=1)
    assert feed_forward(path).checkpoint_sha256 != first


# Refused


def refusal(path: Path, take: tuple[Clip, Landmarks], generator: FewShot | None = None) -> str:
    with pytest.raises(CheckpointError) as caught:
        (generator or feed_forward(path)).adapt(*shots(take, 1))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_without_a_checkpoint_it_says_how_to_make_one(
    take: tuple[Clip, Landmarks], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "cannot be read (No such file" in refusal(tmp_path / "none.safetensors", take)
    monkeypatch.delenv("THEVAL_CHECKPOINT", raising=False)
    monkeypatch.setattr("generator.fewshot.BUNDLED", tmp_path / "compact.safetensors")
    message = refusal(tmp_path, take, plugins.load("generator", "fewshot")(CPU))
    assert message.startswith("there is no bundled checkpoint") and "make one with 'theval train'" in message


def test_a_file_that_is_no_checkpoint(file: Path, take: tuple[Clip, Landmarks], tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    torch.save({"weight": torch.zeros(3)}, path)
    assert "is a pickle, which could run code" in refusal(path, take)
    path.write_bytes(file.read_bytes()[:-1000])
    assert "is damaged or cut short" in refusal(path, take)
    path.write_text("not a checkpoint")
    assert "is damaged or cut short" in refusal(path, take)


def test_a_checkpoint_of_other_networks(take: tuple[Clip, Landmarks], tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "other.safetensors", config=replace(CONFIG, channels=4))
    assert "does not hold E as its config says" in refusal(path, take)


def test_fine_tuning_needs_the_discriminator(take: tuple[Clip, Landmarks], tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "small.safetensors", discriminator=False)
    message = refusal(path, take, FewShot("fewshot", CPU, path, QUICK))
    assert "has no discriminator, which fine-tuning needs; take the generator 'fewshot_ff'" in message
    assert feed_forward(path).adapt(*shots(take, 1)).origin.steps == 0


def test_the_bundled_checkpoint_is_the_one_of_its_card_and_works() -> None:
    """On a head that it has never seen the like of, at its own 256 pixels."""
    assert BUNDLED.stat().st_size < 25e6
    generator = fewshot_ff(CPU)
    assert f"| sha256 | `{generator.checkpoint_sha256}` |" in BUNDLED.with_suffix(".md").read_text()
    assert load_networks(BUNDLED, CPU).networks.D is not None  # fine-tuning asks for it
    clip, landmarks = head_clip(6, 6, 256, fps=4)
    made = generator.adapt(*shots((clip, landmarks), 2)).animate(landmarks, 4.0)
    assert made.frames.shape == clip.frames.shape
    away = [(made.frames[t].float() - clip.frames[t].float()).abs().mean() for t in range(2, 6)]
    still = [(clip.frames[0].float() - clip.frames[t].float()).abs().mean() for t in range(2, 6)]
    assert sum(away) < sum(still)
