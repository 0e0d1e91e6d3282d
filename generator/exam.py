"""Validation of a training: always the same frames of people that nobody trains on, beside the control `warp`."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from lightning_fabric import Fabric
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

from generator.networks import to_network, to_picture
from generator.recipe import Recipe
from generator.samples import Batch, Episode, Footage, read_batch, read_footage, unchanged
from generator.warp import base_flow, warp_frames
from thead_eval import plugins
from thead_eval.data import Dataset, plan_few_shot_sets
from thead_eval.errors import DatasetError, TrainingFailed
from thead_eval.metrics.distances import frechet_from_features
from thead_eval.training import read_ahead
from thead_eval.types import CompareFunction, ExtractFunction

if TYPE_CHECKING:
    from generator.meta import EmbedAndGenerate

CONTROL = "warp"
HEARD = 0.05  # of what people differ: a hybrid that psi' changes by less does without the embedder
ROWS_OF_SAMPLES = 6  # people in the picture of samples


@dataclass(frozen=True)
class Exam:
    """Frames of validation people, and who judges them."""

    footage: Footage
    episodes: dict[int, tuple[Episode, ...]]  # by shots; neighbours are different people
    perc: CompareFunction  # the metric perc_efflite0
    features: ExtractFunction  # those of the metric fd_efflite0
    recipe: Recipe
    device: torch.device

    def batches(self, shots: int) -> Iterator[Batch]:
        """All frames at so many shots. With candidates whatever the recipe's output: the control needs one."""
        config = replace(self.recipe.network, output="hybrid")
        chosen, size = self.episodes[shots], self.recipe.meta.batch

        def make(i: int) -> Batch:
            return read_batch(self.footage, chosen[i * size : (i + 1) * size], config, self.recipe.meta.embed)

        for batch in read_ahead(make, 0, math.ceil(len(chosen) / size), self.recipe.meta.workers):
            yield batch.to(self.device)


def prepare_exam(dataset: Dataset, recipe: Recipe, device: torch.device) -> Exam:
    """Choose people and frames as `theval score` does: support from a clip's beginning, targets from its end.

    Raises:
        DatasetError: no person of the split 'val' has enough frames, or there is a single frame to judge.
    """
    meta = recipe.meta
    plans, _ = plan_few_shot_sets(dataset, "val", max(meta.validation_shots), meta.seed, meta.validation_people)
    if len(plans) * meta.validation_frames < 2:
        raise DatasetError(
            "validation has one frame of one person, and how frames differ takes two; prepare more people of the split "
            "'val', or set validation_frames to 2 under [meta]"
        )
    footage = read_footage(dataset, "val")
    places = {clip.id: place for place, clip in enumerate(footage.clips)}
    whole = unchanged(footage.size)
    episodes: dict[int, tuple[Episode, ...]] = {}
    for shots in meta.validation_shots:
        episodes[shots] = tuple(
            Episode(
                places[plan.target_clip],
                plan.target_indices[i * len(plan.target_indices) // meta.validation_frames],
                plan.support_indices[:shots],
                whole,
            )
            for i in range(meta.validation_frames)
            for plan in plans
        )
    perc = plugins.load("metric", "perc_efflite0").load(device)
    features = plugins.load("features", "efflite0").load(device)
    return Exam(footage, episodes, perc, features, recipe, device)


@torch.no_grad()
def judge(exam: Exam, render: Callable[[Batch], Tensor]) -> dict[str, float]:
    """`l1/K` (0..255), `perc/K` and `fd/K` of the frames [B, 3, O, O] uint8 that `render` makes at each K.

    fd is the Frechet distance of features of few frames: to compare with the control's on the same, with nothing else.
    """
    values = {}
    for shots in exam.recipe.meta.validation_shots:
        l1, perc, fake_features, real_features = [], [], [], []
        for batch in exam.batches(shots):
            fake = render(batch)
            l1.append((fake.float() - batch.x.float()).abs().mean((1, 2, 3)))
            perc.append(exam.perc(fake, batch.x))
            fake_features.append(exam.features(fake, None))
            real_features.append(exam.features(batch.x, None))
        values[f"l1/{shots}"] = torch.cat(l1).mean().item()
        values[f"perc/{shots}"] = torch.cat(perc).mean().item()
        values[f"fd/{shots}"] = frechet_from_features(
            torch.cat(fake_features).double().cpu().numpy(), torch.cat(real_features).double().cpu().numpy()
        )
    return values


def score(values: Mapping[str, float], control: Mapping[str, float]) -> float:
    """What `best` is chosen by: L1 and perc as parts of the control's, mean over both and all K. Below 1 beats it."""
    ratios = [values[name] / control[name] for name in values if name.startswith(("l1/", "perc/"))]
    return sum(ratios) / len(ratios)


def render_control(batch: Batch) -> Tensor:
    """The control `warp`: the nearest support frame, bent."""
    grid = base_flow(batch.source_points[:, 0], batch.points, (batch.x.shape[-2], batch.x.shape[-1]))
    return warp_frames(batch.sources[:, 0], grid)


class Probes(NamedTuple):
    """Signs of health on a batch of different people, as parts of what real frames show."""

    brightness: float  # mean value
    contrast: float  # standard deviation within a frame
    embedding_swap: float  # change of the output with another person's e_hat alone
    person_swap: float  # with another person's e_hat and support frames
    pose_swap: float  # with another person's landmarks alone


@torch.no_grad()
def probe(network: "EmbedAndGenerate", exam: Exam, fabric: Fabric) -> Probes:
    """Look at the network's output for the exam's first batch, and at what changes it."""
    batch = next(exam.batches(max(exam.recipe.meta.validation_shots)))
    other = batch._replace(sources=batch.sources.roll(1, 0), source_points=batch.source_points.roll(1, 0))
    with fabric.autocast():
        e_hat, own = network(batch)
        swapped = network(batch, e_hat.roll(1, 0))[1]
        replaced = network(other, e_hat.roll(1, 0))[1]
        posed = network(batch._replace(y=batch.y.roll(1, 0), points=batch.points.roll(1, 0)), e_hat)[1]
    x, frame = to_network(batch.x), own.frame.float()
    between = (x - x.roll(1, 0)).abs().mean().item() or math.nan  # one person alone has nobody to swap with
    return Probes(
        (frame + 1).mean().item() / (x + 1).mean().item(),
        (frame.std((2, 3)).mean() / x.std((2, 3)).mean()).item(),
        (swapped.frame - frame).abs().mean().item() / between,
        (replaced.frame - frame).abs().mean().item() / between,
        (posed.frame - frame).abs().mean().item() / between,
    )


def check_health(probes: Probes, recipe: Recipe, step: int) -> None:
    """Stop a training that can only waste hours.

    Raises:
        TrainingFailed: the output is black or flat, or the same for everyone or in each pose.
    """
    if not all(math.isfinite(value) or name.endswith("swap") for name, value in probes._asdict().items()):
        raise TrainingFailed(f"step {step}: the output holds NaN; start again with a smaller lr")
    if probes.brightness < 0.05:
        raise TrainingFailed(
            f"step {step}: the output is black ({probes.brightness:.1%} of the brightness of real frames); "
            "start again with a smaller adversarial weight or d_lr"
        )
    if probes.contrast < 0.1:
        raise TrainingFailed(
            f"step {step}: the output is one flat colour ({probes.contrast:.1%} of the contrast of real frames); "
            "start again with a smaller lr or adversarial weight"
        )
    # In the hybrid, the support frames say who it is, too.
    swap = probes.embedding_swap if recipe.network.output == "rgb" else probes.person_swap
    if swap < recipe.meta.swap_floor:
        raise TrainingFailed(
            f"step {step}: the embedder is ignored: another person's frames change the output by {swap:.1%} of what "
            f"their real frames differ, below swap_floor = {recipe.meta.swap_floor:.1%}; start again with more people, "
            "more stretch of the landmarks, or a larger match weight"
        )
    if probes.pose_swap < recipe.meta.swap_floor:
        raise TrainingFailed(
            f"step {step}: the landmarks are ignored: another pose changes the output by {probes.pose_swap:.1%} of "
            f"what real frames differ, below swap_floor = {recipe.meta.swap_floor:.1%}; check the landmarks of the "
            "dataset, and start again with a smaller lr"
        )


def warn_of_embedder(probes: Probes, recipe: Recipe) -> Iterator[str]:
    """Where a hybrid does without the embedder: the support frames alone say who it is."""
    if recipe.network.output != "rgb" and probes.embedding_swap < HEARD:
        yield (
            f"warning: psi' says next to nothing of who it is: another person's changes the output by "
            f"{probes.embedding_swap:.1%} of what their real frames differ"
        )


@torch.no_grad()
def picture_samples(network: "EmbedAndGenerate", exam: Exam, fabric: Fabric) -> Image.Image:
    """Validation people in rows: nearest support frame, landmarks, `warp`, ours, what is painted, real."""
    batch = next(exam.batches(min(exam.recipe.meta.validation_shots)))
    with fabric.autocast():
        output = network(batch)[1]
    side = batch.x.shape[-1]
    y = torch.nn.functional.interpolate(batch.y.float(), (side, side)).to(torch.uint8)
    columns = [batch.sources[:, 0], y, render_control(batch), to_picture(output.frame), to_picture(output.rgb), batch.x]
    rows = torch.stack(columns, 1)[:ROWS_OF_SAMPLES].flatten(0, 1)  # [rows * columns, 3, O, O]
    return Image.fromarray(make_grid(rows, len(columns), padding=2).permute(1, 2, 0).cpu().numpy())


def renderer(network: "EmbedAndGenerate", fabric: Fabric) -> Callable[[Batch], Tensor]:
    """A batch to frames [B, 3, O, O] uint8."""

    def render(batch: Batch) -> Tensor:
        with fabric.autocast():
            return to_picture(network(batch)[1].frame)

    return render
