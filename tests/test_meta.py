"""Meta-learning: whose weights a step moves, that a stopped run is the run that would have been, and what stops one."""

import json
import math
import os
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from generator import checkpoint, losses
from generator.exam import (
    Exam,
    Probes,
    check_health,
    judge,
    prepare_exam,
    probe,
    render_control,
    renderer,
    score,
    warn_of_embedder,
)
from generator.meta import (
    Ending,
    State,
    _warn_of_shares,
    draw_corners,
    load_networks,
    new_state,
    plan,
    save_best,
    save_state,
    train,
    update,
    wrap,
)
from generator.networks import NetworkConfig
from generator.recipe import MetaConfig, Recipe, read_recipe
from generator.samples import Augmentation, draw_episode, read_batch, read_footage
from tests.conftest import SharedFolder
from thead_eval.data import Dataset, DatasetInfo, PreparedClip, encode_jpeg, open_dataset, write_dataset
from thead_eval.errors import ConfigError, DatasetError, RunError, TrainingFailed, WeightsMissing
from thead_eval.synthetic import head_clip
from thead_eval.training import Status, open_fabric
from thead_eval.weights import sha256_of

NETWORK = NetworkConfig(
    size=32,
    output="hybrid",
    output_size=64,
    channels=8,
    max_channels=16,
    embedding=16,
    down=3,
    residual=1,
    crop=32,
)
META = MetaConfig(
    batch=2,
    shots=(1, 4),
    embed=2,
    steps=12,
    lr=1e-3,
    d_lr=1e-3,
    d_steps=1,
    d_start=3,
    d_ramp=4,
    content_networks=("efflite0",),
    feature_matching=1.0,
    match=0.1,
    l1=1.0,
    content_crop=32,
    rgb=0.2,
    mask=0.02,
    flow=1.0,
    precision="32-true",
    log_every=5,
    save_every=4,
    validate_every=8,
    validation_people=3,
    validation_shots=(2,),
    validation_frames=1,
    probe_from=0,
)
RECIPE = Recipe("tiny", NETWORK, META, Augmentation(stretch=0))
FABRIC = open_fabric("cpu", "32-true")


@pytest.fixture(scope="module")
def dataset(shared_folder: SharedFolder) -> Dataset:
    """Four people to learn from, three to validate on."""
    return open_dataset(shared_folder("learnt", make_learnt))


def make_learnt(path: Path) -> None:
    clips = []
    for identity in range(7):
        clip, landmarks = head_clip(identity, 52, 64, 25.0, 0)
        clips.append(
            PreparedClip(
                id=clip.id,
                identity=f"head{identity}",
                source=f"{clip.id}.procedural",
                source_sha256="0",
                label="real",
                split="train" if identity < 4 else "val",
                fps=25.0,
                first_frame=0,
                crop_box=(0.0, 0.0, 64.0, 64.0),
                jpegs=[encode_jpeg(frame, 95) for frame in clip.frames],
                landmarks=landmarks,
            )
        )
    write_dataset(path, clips, DatasetInfo(size=64, jpeg_quality=95, detector="none", landmarks="none"))


@pytest.fixture(scope="module")
def exam(dataset: Dataset) -> Exam:
    return prepare_exam(dataset, RECIPE, torch.device("cpu"))


def test_one_frame_of_one_person_is_no_validation(dataset: Dataset) -> None:
    few = replace(RECIPE, meta=replace(META, validation_people=1))
    with pytest.raises(DatasetError, match="one frame of one person"):
        prepare_exam(dataset, few, torch.device("cpu"))
    assert prepare_exam(dataset, replace(few, meta=replace(few.meta, validation_frames=2)), torch.device("cpu"))


def make_step(state: State, dataset: Dataset, recipe: Recipe, content: losses.ContentLoss) -> dict[str, float]:
    footage = read_footage(dataset, "train")
    numbers = range(state.step * recipe.meta.batch, (state.step + 1) * recipe.meta.batch)
    episodes = [draw_episode(footage, 0, number, recipe.meta.shots, recipe.augmentation) for number in numbers]
    batch = read_batch(footage, episodes, recipe.network, recipe.meta.embed)
    corners = draw_corners(recipe, state.step, FABRIC)
    return update(state, batch, corners, recipe, content, FABRIC, wrap(state, FABRIC))


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in network.named_parameters()}


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[name].equal(b[name]) for name in a)


@pytest.fixture(scope="module")
def content() -> losses.ContentLoss:
    return losses.load_content(["efflite0"], torch.device("cpu"))


# A step.


def test_the_discriminator_waits_for_its_start(dataset: Dataset, content: losses.ContentLoss) -> None:
    state = new_state(RECIPE, 4, torch.device("cpu"))
    D, W, EG = weights_of(state.D), weights_of(state.W), weights_of(state.EG)
    parts = make_step(state, dataset, RECIPE, content)
    assert parts.keys() == {"content", "l1", "rgb", "mask", "flow"}
    assert same(D, weights_of(state.D)) and same(W, weights_of(state.W)) and not same(EG, weights_of(state.EG))
    state.step = META.d_start
    parts = make_step(state, dataset, RECIPE, content)
    assert {"adversarial", "feature_matching", "match", "discriminator"} <= parts.keys()
    assert not same(D, weights_of(state.D)) and not same(W, weights_of(state.W))


def test_the_generator_waits_for_its_start(dataset: Dataset, content: losses.ContentLoss) -> None:
    recipe = replace(RECIPE, meta=replace(META, d_start=0, g_start=1, d_ramp=4))
    state = new_state(recipe, 4, torch.device("cpu"))
    D, W, average = weights_of(state.D), weights_of(state.W), weights_of(state.average)
    learnt = [parameter.detach().clone() for parameter in state.EG.parameters()]
    parts = make_step(state, dataset, recipe, content)
    assert parts.keys() == {"discriminator", "r_real", "r_fake"}
    assert same(average, weights_of(state.average))
    assert all(torch.equal(a, b) for a, b in zip(learnt, state.EG.parameters(), strict=True))
    assert not same(D, weights_of(state.D)) and not same(W, weights_of(state.W))
    footage = read_footage(dataset, "train")
    episodes = [draw_episode(footage, 0, number, META.shots, recipe.augmentation) for number in range(META.batch)]
    batch = read_batch(footage, episodes, recipe.network, META.embed)
    with torch.no_grad():
        e_hat, _ = state.average(batch)
    torch.testing.assert_close(state.W.weight[batch.clips], e_hat, atol=1e-2, rtol=1e-2)
    parts = make_step(state, dataset, recipe, content)
    assert {"content", "adversarial", "discriminator"} <= parts.keys()
    assert not same(average, weights_of(state.average))


def test_somebody_learns_from_the_beginning() -> None:
    with pytest.raises(ConfigError, match="d_start 3 and g_start 2 leave nothing to learn at first; one must be 0"):
        replace(META, g_start=2)


def test_each_loss_moves_its_own_networks(dataset: Dataset, content: losses.ContentLoss) -> None:
    def moved(**changes: float) -> tuple[State, set[str]]:
        recipe = replace(RECIPE, meta=replace(META, d_start=0, **changes))  # type: ignore[arg-type]  # ints too
        state = new_state(recipe, 4, torch.device("cpu"))
        before = {name: weights_of(getattr(state, name)) for name in ("EG", "D", "W")}
        make_step(state, dataset, recipe, content)
        after = {name: weights_of(getattr(state, name)) for name in before}
        return state, {
            n for n in before if any((after[n][key] - before[n][key]).abs().max() > 1e-9 for key in after[n])
        }

    assert moved(lr=1e-12)[1] == {"D", "W"}
    assert moved(d_lr=1e-12)[1] == {"EG"}
    one, three = moved()[0], moved(d_steps=3)[0]
    assert same(weights_of(one.EG), weights_of(three.EG)) and not same(weights_of(one.D), weights_of(three.D))


def test_a_person_is_the_mean_of_their_own_frames_in_any_batch() -> None:
    EG = new_state(RECIPE, 4, torch.device("cpu")).average
    torch.manual_seed(0)
    x, y = torch.rand(5, 3, 32, 32), torch.rand(5, 3, 32, 32)
    together = EG.embed(x, y, torch.tensor([0, 2, 0, 1, 2]), 3)
    for person, frames in enumerate(([0, 2], [3], [1, 4])):
        alone = EG.embed(x[frames], y[frames], torch.zeros(len(frames), dtype=torch.long), 1)
        torch.testing.assert_close(together[person : person + 1], alone)


def test_only_the_rows_of_a_batch_move(dataset: Dataset, content: losses.ContentLoss) -> None:
    recipe = replace(RECIPE, meta=replace(META, d_start=0))
    state = new_state(recipe, 4, torch.device("cpu"))
    before = state.W.weight.detach().clone()
    make_step(state, dataset, recipe, content)
    assert state.W.weight.grad is not None and state.W.weight.grad.is_sparse
    assert (state.W.weight != before).any(1).sum() == 2  # an epoch has four people, a batch two of them


def test_averages_follow(dataset: Dataset, content: losses.ContentLoss) -> None:
    state = new_state(RECIPE, 4, torch.device("cpu"))
    start = weights_of(state.average)
    make_step(state, dataset, RECIPE, content)
    now, average = weights_of(state.EG), weights_of(state.average)
    for name in now:  # after one step a tenth of the old
        torch.testing.assert_close(average[name], 0.1 * start[name] + 0.9 * now[name])
    assert not any(parameter.requires_grad for parameter in state.average.parameters())


def test_a_seed_is_a_start() -> None:
    device = torch.device("cpu")
    torch.manual_seed(9)
    one = new_state(RECIPE, 4, device)
    before = torch.rand(1)
    torch.manual_seed(9)
    two, other = new_state(RECIPE, 4, device), new_state(replace(RECIPE, meta=replace(META, seed=1)), 4, device)
    assert before.equal(torch.rand(1))  # and nobody else's random numbers change
    assert same(weights_of(one.EG), weights_of(two.EG)) and same(weights_of(one.W), weights_of(two.W))
    assert not same(weights_of(one.EG), weights_of(other.EG))


@pytest.mark.slow
def test_one_face_is_learnt(dataset: Dataset, content: losses.ContentLoss) -> None:
    # The paper's output, which starts grey.
    network = replace(NETWORK, output="rgb", output_size=32, crop=None)
    meta = replace(META, batch=4, shots=(2, 2), lr=4e-3, d_start=20, ema=0.5)
    recipe = Recipe("tiny", network, meta, Augmentation(flip=0, crop=0, colour=0, stretch=0, noise=0))
    state = new_state(recipe, 4, torch.device("cpu"))
    l1 = [make_step(state, dataset, recipe, content)["l1"] for _ in range(40)]
    assert np.mean(l1[-5:]) < 0.6 * np.mean(l1[:2])


# A run.


def run(dataset: Dataset, out: Path, *, recipe: Recipe = RECIPE, kill: tuple[int, int] | None = None) -> Ending:
    """Train, and at a step send a signal to ourselves."""

    def tell(status: Status) -> None:
        if kill is not None and status.step == kill[0]:
            os.kill(os.getpid(), kill[1])

    return train(recipe, dataset, out, FABRIC, resume=True, tell=tell)


@pytest.fixture(scope="module")
def whole(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    ending = run(dataset, out)
    assert ending.step == 12 and ending.signal is None and ending.best_step in (8, 12)
    return out


def test_a_run_that_was_stopped_is_the_run_that_would_have_been(dataset: Dataset, whole: Path, tmp_path: Path) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    ending = run(dataset, tmp_path, kill=(5, signal.SIGTERM))
    assert ending.signal == signal.SIGTERM and ending.step == 6
    assert signal.getsignal(signal.SIGTERM) is handler
    assert run(dataset, tmp_path).step == 12
    for name in ("last.safetensors", "best.safetensors"):
        assert same(load_file(whole / name), load_file(tmp_path / name))
    one, two = (pd.read_csv(out / "metrics.csv") for out in (whole, tmp_path))
    # The stop wrote one more line of losses, means of fewer steps; scores of validation are the same.
    one, two = (m[~m["name"].str.startswith(("loss/", "seconds"))].reset_index(drop=True) for m in (one, two))
    pd.testing.assert_frame_equal(one, two)


@pytest.mark.slow
def test_a_run_that_was_killed_continues_at_its_last_save(dataset: Dataset, whole: Path, tmp_path: Path) -> None:
    def die(status: Status) -> None:
        if status.step == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(RECIPE, dataset, tmp_path, FABRIC, tell=die)
    assert run(dataset, tmp_path).step == 12
    assert same(load_file(whole / "last.safetensors"), load_file(tmp_path / "last.safetensors"))
    steps = pd.read_csv(tmp_path / "metrics.csv")
    assert not steps.duplicated(["step", "name"]).any()


def test_what_a_run_leaves(whole: Path) -> None:
    assert {path.name for path in whole.iterdir()} >= {"training.json", "metrics.csv", "samples"}
    assert sorted(path.name for path in (whole / "samples").iterdir()) == ["0000008.png", "0000012.png"]
    with Image.open(whole / "samples" / "0000012.png") as picture:
        assert picture.size == (6 * 66 + 2, 2 * 66 + 2)  # as many rows as a batch has people
    names = set(pd.read_csv(whole / "metrics.csv")["name"])
    assert {"loss/content", "loss/discriminator", "l1/2", "warp/perc/2", "fd/2", "score", "probe/person_swap"} <= names
    best = load_file(whole / "best.safetensors")
    assert {name.split(".")[0] for name in best} == {"E", "G", "D"}


def test_hours_end_a_run(dataset: Dataset, tmp_path: Path) -> None:
    ending = train(RECIPE, dataset, tmp_path, FABRIC, hours=1e-9)
    assert ending.step == 1 and ending.signal is None
    assert train(RECIPE, dataset, tmp_path, FABRIC, hours=1e-9, resume=True).step == 1


def test_a_finished_run_says_so_and_asks_for_nothing(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor for the file of a network that it would need to go on."""
    monkeypatch.setenv("THEVAL_WEIGHTS", str(tmp_path / "weights"))
    recipe = replace(RECIPE, meta=replace(META, content_networks=("vgg19",)))
    state = new_state(recipe, 4, torch.device("cpu"))
    state.step, state.seconds = 12, 7.0
    save_state(tmp_path / "last.safetensors", state, recipe, dataset)
    said: list[str] = []
    ending = train(recipe, dataset, tmp_path, FABRIC, resume=True, say=said.append)
    assert (ending.step, ending.seconds, ending.signal) == (12, 7.0, None)
    assert said == ["this training is finished, all 12 steps of it; ask for more to go on"]
    more = replace(recipe, meta=replace(recipe.meta, steps=13))
    train(more, dataset, tmp_path, FABRIC, resume=True, hours=0.001, say=said.append)
    assert said[1] == "this training is finished, all 0.001 hours of it; ask for more to go on"
    with pytest.raises(WeightsMissing, match="vgg19"):
        train(more, dataset, tmp_path, FABRIC, resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["last.safetensors"]


def test_a_run_is_not_overwritten_nor_continued_otherwise(dataset: Dataset, whole: Path) -> None:
    with pytest.raises(RunError, match="already holds a training; pass --resume"):
        train(RECIPE, dataset, whole, FABRIC)
    other = replace(RECIPE, meta=replace(META, lr=2e-3))
    with pytest.raises(RunError, match=r"trained with meta lr = 0\.001, not 0\.002"):
        run(dataset, whole, recipe=other)
    with pytest.raises(RunError, match="another dataset"):
        run(replace(dataset, sha256="0"), whole)


def test_networks_of_a_checkpoint_are_a_start(dataset: Dataset, tmp_path: Path) -> None:
    given = new_state(replace(RECIPE, meta=replace(META, seed=3)), 4, torch.device("cpu"))
    save_best(tmp_path / "best.safetensors", given, RECIPE, dataset)
    state = new_state(RECIPE, 9, torch.device("cpu"))
    load_networks(tmp_path / "best.safetensors", state)
    assert same(weights_of(state.EG), weights_of(given.average)) and same(weights_of(state.D), weights_of(given.D))
    assert same(weights_of(state.average), weights_of(given.average))
    state.step = 7
    save_best(tmp_path / "second.safetensors", state, RECIPE, dataset)
    started = json.loads(checkpoint.load(tmp_path / "second.safetensors").metadata["init"])
    assert started == {"sha256": sha256_of(tmp_path / "best.safetensors"), "steps": 0}
    assert "init" not in checkpoint.load(tmp_path / "best.safetensors").metadata


def test_nan_stops_a_run(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(TrainingFailed, match=r"step \d+: the loss '\w+' is (nan|inf); start again with a smaller lr"):
        run(dataset, tmp_path, recipe=replace(RECIPE, meta=replace(META, lr=1e30)))


# Validation and probes.


def test_the_real_frames_are_a_perfect_score(exam: Exam) -> None:
    values = judge(exam, lambda batch: batch.x)
    assert values == pytest.approx({"l1/2": 0, "perc/2": 0, "fd/2": 0}, abs=1e-4)


def test_a_hybrid_starts_near_the_control(exam: Exam) -> None:
    control = judge(exam, render_control)
    state = new_state(RECIPE, 4, torch.device("cpu"))
    start = score(judge(exam, renderer(state.average, FABRIC)), control)
    assert score(control, control) == 1
    assert 0.9 < start < 1.3


def test_swaps_tell_whether_the_embedder_is_used(exam: Exam) -> None:
    network = replace(NETWORK, output="rgb", output_size=32, crop=None)
    small = replace(exam, recipe=replace(RECIPE, network=network))
    EG = new_state(small.recipe, 4, torch.device("cpu")).average
    used = probe(EG, small, FABRIC)
    assert used.embedding_swap > 0 and used.embedding_swap == used.person_swap
    deaf = nn.Linear(16, EG.G.affine_size).requires_grad_(False)
    deaf.weight.zero_()
    EG.G.register_module("P", deaf)
    ignored = probe(EG, small, FABRIC)
    assert ignored.embedding_swap == pytest.approx(0, abs=1e-6)
    with pytest.raises(TrainingFailed, match="embedder is ignored"):
        check_health(ignored._replace(contrast=1.0, brightness=1.0), small.recipe, 7)


def test_swaps_tell_whether_the_landmarks_are_used(exam: Exam) -> None:
    network = replace(NETWORK, output="rgb", output_size=32, crop=None)
    small = replace(exam, recipe=replace(RECIPE, network=network))
    EG = new_state(small.recipe, 4, torch.device("cpu")).average
    assert probe(EG, small, FABRIC).pose_swap > META.swap_floor
    for block in EG.G.down:
        block.register_forward_hook(lambda module, inputs, out: torch.zeros_like(out))
    blind = probe(EG, small, FABRIC)
    assert blind.pose_swap == pytest.approx(0, abs=1e-6) and blind.embedding_swap > 0
    with pytest.raises(TrainingFailed, match="landmarks are ignored"):
        check_health(blind._replace(contrast=1.0, brightness=1.0, embedding_swap=1.0), small.recipe, 7)


def test_a_hybrid_that_does_without_the_embedder_says_so() -> None:
    probes = HEALTHY._replace(embedding_swap=0.026, person_swap=0.96)
    check_health(probes, RECIPE, 7)  # the support frames say who it is, and no hours are wasted
    [line] = warn_of_embedder(probes, RECIPE)
    assert "another person's changes the output by 2.6% of what their real frames differ" in line
    assert not list(warn_of_embedder(probes._replace(embedding_swap=0.3), RECIPE))


def test_a_loss_that_drowns_the_others_is_named() -> None:
    means = {"loss/match": 2.86, "loss/feature_matching": 0.21, "loss/adversarial": -0.05, "loss/discriminator": 90.0}
    assert list(_warn_of_shares(means)) == [
        "warning: the loss 'match' is more than 10 times all others together; lower its weight"
    ]
    assert not list(_warn_of_shares(means | {"loss/adversarial": -0.59}))
    assert not list(_warn_of_shares({"loss/content": 1.0}))


HEALTHY = Probes(brightness=1.0, contrast=0.9, embedding_swap=0.0, person_swap=0.5, pose_swap=0.5)


@pytest.mark.parametrize(
    ("probes", "says"),
    [
        (HEALTHY._replace(brightness=0.01), "step 7: the output is black"),
        (HEALTHY._replace(contrast=0.01), "step 7: the output is one flat colour"),
        (HEALTHY._replace(person_swap=0.001), "step 7: the embedder is ignored"),
        (HEALTHY._replace(pose_swap=0.001), "step 7: the landmarks are ignored"),
        (HEALTHY._replace(contrast=math.nan), "step 7: the output holds NaN"),
    ],
)
def test_a_collapse_is_named(probes: Probes, says: str) -> None:
    check_health(HEALTHY, RECIPE, 7)  # a hybrid may have the person from the support frames alone
    with pytest.raises(TrainingFailed, match=says):
        check_health(probes, RECIPE, 7)


def test_a_black_output_stops_a_run(dataset: Dataset, tmp_path: Path) -> None:
    network = replace(NETWORK, output="rgb", output_size=32, crop=None)
    recipe = Recipe("tiny", network, replace(META, steps=1), RECIPE.augmentation)
    black = new_state(recipe, 4, torch.device("cpu"))
    with torch.no_grad():
        bias = black.average.G.to_rgb.bias
        assert isinstance(bias, Tensor)
        bias.fill_(-20.0)
    save_best(tmp_path / "black.safetensors", black, recipe, dataset)
    with pytest.raises(TrainingFailed, match="the output is black"):
        train(recipe, dataset, tmp_path / "run", FABRIC, start=tmp_path / "black.safetensors")


def test_a_plan_measures_and_keeps_nothing(dataset: Dataset) -> None:
    made = plan(RECIPE, dataset, FABRIC)
    assert (made.steps, made.samples, made.epochs) == (12, 24, 6.0)
    assert (made.people, made.clips, made.validation_people) == (4, 4, 3)
    assert made.hours == pytest.approx(12 * made.seconds_per_step / 3600)
    assert made.parameters["W"] == 4 * 16
    assert 0.1 < made.memory_gb < 20


# Recipes.


def test_recipes_are_read_and_changed_in_order(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[network]\nresidual = 1\n[meta]\nbatch = 2\nlr = 1e-3\n[augmentation]\nflip = 0.0\n")
    recipe = read_recipe("compact", file, {"batch": 6})
    assert (recipe.network.residual, recipe.meta.batch, recipe.meta.lr, recipe.augmentation.flip) == (1, 6, 1e-3, 0.0)
    assert recipe.network.output == "hybrid" and recipe.meta.content_networks[0] == "efflite0"


def test_the_papers_recipe_is_the_default() -> None:
    assert read_recipe("paper256") == Recipe("paper256", NetworkConfig(), MetaConfig(), Augmentation())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[meta]\nleraning_rate = 1", r"mine.toml: unknown key in \[meta\] 'leraning_rate'"),
        ("[meta]\nbatchs = 1", "did you mean 'batch'?"),
        ("[network]\nouput = 'rgb'", "did you mean 'output'?"),
        ("[mata]\nlr = 1", "unknown section 'mata'; did you mean 'meta'?"),
        ("lr = 1", "unknown section 'lr'"),
        ("[meta", "is not TOML"),
        ("[meta]\nbatch = 0", "meta batch is 0; it must be at least 1"),
        ("[meta]\nbatch = 'many'", "wrong type"),
        ("[meta]\nshots = [8, 1]", "meta shots are 8 to 1"),
        ("[meta]\nprecision = 'fp8'", "precision 'fp8' is not known"),
        ("[meta]\nvalidation_shots = []", "validation_shots"),
        ("[meta]\nema = 1.0", "ema is 1.0"),
        ("[meta]\nd_lr = 0.0", "meta d_lr is 0.0; it must be above 0"),
    ],
)
def test_a_wrong_config_is_named(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=says.replace("?", r"\?")):
        read_recipe("compact", file)


def test_missing_configs_and_recipes_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'.*none.toml' does not exist; check --config"):
        read_recipe("compact", tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="no recipe is named 'tiny'; there are: paper256, compact"):
        read_recipe("tiny")
