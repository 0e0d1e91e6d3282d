"""What fitted detectors measure in the windows of clips: measured once, and kept in a file a clip.

So trainings that learn from the same clips, as those of the protocols do, share the work, and one that was killed goes
on where it was.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from detectors.augment import Augmentation, change, draw_change
from detectors.exam import BLENDED
from detectors.recipe import Recipe
from detectors.samples import READERS, long_enough, planes, read_windows, spread_windows
from detectors.sbi import self_blend
from thead_eval import __version__
from thead_eval.evidence import SIDE, Evidence, Item, window_span
from thead_eval.pictures import Picture
from thead_eval.tensors import read_tensors, write_tensors
from thead_eval.types import Tell

# [N, D] a window each, or [N, n, D] of n frames that are looked at singly; NaN in the rows that could not be measured.
Numbers = NDArray[np.float64]

PLAIN, CHANGED = "plain", "changed"  # how a window was shown, or BLENDED


@dataclass(frozen=True)
class Measured:
    """The windows of some clips, each as it is and, where asked for, changed at random or blended with itself."""

    items: tuple[Item, ...]  # those that are long enough
    owner: NDArray[np.int64]  # [N] whose window it is: a place in `items`
    shown: NDArray[np.str_]  # [N] PLAIN, CHANGED or BLENDED
    numbers: Numbers

    @property
    def fake(self) -> NDArray[np.bool_]:
        """[N]"""
        fakes = np.array([item.label == "fake" for item in self.items], np.bool_)[self.owner]
        marked: NDArray[np.bool_] = fakes | (self.shown == BLENDED)
        return marked

    @property
    def makers(self) -> NDArray[np.str_]:
        """[N] the generator's name, or BLENDED; '' of a real window."""
        makers = np.array([item.generator for item in self.items])[self.owner]
        return np.where(self.shown == BLENDED, BLENDED, makers)


def measure(
    kind: Any,  # Any: what checkpoint.NETWORKS says of fitted detectors
    recipe: Recipe,
    evidence: Evidence,
    count: int,
    folder: Path,
    device: torch.device,
    *,
    changes: Augmentation | None = None,
    blends: bool = False,
    tell: Tell = lambda done, of: None,
) -> Measured:
    """At most `count` windows of each clip, spread over it, and no more than would go into it side by side, as more
    would be near copies; what `folder` holds is not measured again.

    Args:
        kind: Measures.
        recipe: Its own.
        evidence: All of its clips are measured.
        count: Windows of a clip.
        folder: Of a file a clip.
        device: Where `kind` is.
        changes: Each window is measured once more, changed like this.
        blends: Each window of a real clip that has landmarks is measured once more, blended with itself; where there
            are changes, every second one of these is changed too.
        tell: Is told of each clip.

    Raises:
        DatasetError: no clip is long enough, or one is missing or damaged.
        MediaError: a file cannot be read.
        CheckpointError: the disk is full.
    """
    items = long_enough(evidence, kind.window, kind.stride)
    folder.mkdir(parents=True, exist_ok=True)
    seed = recipe.train.seed
    how = [__version__, recipe.detector, dict(recipe.network), _digest_weights(kind), evidence.size]
    how += [changes and asdict(changes), blends, seed]

    def measure_once(item: Item) -> dict[str, Tensor]:
        apart = max(item.frames // window_span(kind.window, kind.stride), 1)
        starts = spread_windows(item, min(count, apart), kind.window, kind.stride)
        what = asdict(replace(item, path="", split="train"))  # the same in whatever split a fold puts it
        path = folder / f"{_digest(how, starts, what)}.safetensors"
        if not path.exists():
            windows = _show(kind, evidence, item, starts, changes, blends, seed)
            with torch.no_grad():  # of this thread
                numbers = {
                    shown: kind.measure(planes(np.stack(some)).to(device)).double().cpu()
                    for shown, some in windows.items()
                }
            write_tensors(path, numbers, {})
        return read_tensors(path, "theval detect train").tensors

    parts: list[tuple[int, str, Tensor]] = []
    with ThreadPoolExecutor(READERS, "clips") as pool:
        for place, numbers in enumerate(pool.map(measure_once, items)):
            parts += [(place, shown, numbers[shown]) for shown in (PLAIN, CHANGED, BLENDED) if shown in numbers]
            tell(place + 1, len(items))
    rows = [len(numbers) for _, _, numbers in parts]
    return Measured(
        items,
        np.repeat([place for place, _, _ in parts], rows),
        np.repeat([shown for _, shown, _ in parts], rows),
        torch.cat([numbers for _, _, numbers in parts]).numpy(),
    )


def share(generators: Iterable[str], blends: float) -> dict[str, float]:
    """The part of the fakes that each generator's are to be: of each as many, beside so many that are blended."""
    names = sorted(set(generators) - {BLENDED})
    if not names or blends == 1:
        return {BLENDED: 1.0} if blends else {}
    return {name: (1 - blends) / len(names) for name in names} | ({BLENDED: blends} if blends else {})


def balance(fake: NDArray[np.bool_], makers: NDArray[np.str_], parts: Mapping[str, float]) -> NDArray[np.float64]:
    """Weights of windows, 1 in the mean, by which reals count as much as fakes, and of these each generator its part.

    Fakes of others have weight 0; where a generator has none, the parts of the rest are as they are to one another.
    """
    weights = np.zeros(len(fake))
    weights[~fake] = 0.5 / max((~fake).sum(), 1)
    there = {name: part for name, part in parts.items() if (fake & (makers == name)).any()}
    for name, part in there.items():
        own = fake & (makers == name)
        weights[own] = 0.5 * part / sum(there.values()) / own.sum()
    return weights * len(fake)


def _show(
    kind: Any,  # Any: as in `measure`
    evidence: Evidence,
    item: Item,
    starts: Sequence[int],
    changes: Augmentation | None,
    blends: bool,
    seed: int,
) -> dict[str, list[NDArray[np.uint8]]]:
    """The windows [W, 224, 224, 3] of a clip, by how they are shown."""
    plain = list(read_windows(evidence, item, starts, kind.window, kind.stride))
    windows = {PLAIN: plain}
    # What is drawn hangs on the clip, not on which others stand beside it.
    draws = [np.random.default_rng([seed, 3, int(_digest(item.id)[:8], 16), start]) for start in starts]
    if changes is not None:
        windows[CHANGED] = [
            np.stack(change(list(window), draw_change(draw, changes), SIDE))
            for window, draw in zip(plain, draws, strict=True)
        ]
    landmarks = evidence.landmarks(item, starts) if blends and item.label == "real" else None
    if landmarks is not None:
        blended: list[NDArray[np.uint8]] = []
        for window, points, draw in zip(plain, landmarks.points.numpy(), draws, strict=True):
            if np.isfinite(points).all():
                blend = _blend(window, points, int(draw.integers(2**31)))
                if changes is not None and len(blended) % 2:  # not all, nor none: a blend is not known by that
                    blend = np.stack(change(list(blend), draw_change(draw, changes), SIDE))
                blended.append(blend)
        windows |= {BLENDED: blended} if blended else {}
    return windows


def _blend(window: NDArray[np.uint8], points: NDArray[np.float32], seed: int) -> NDArray[np.uint8]:
    frames: list[Picture] = [self_blend(frame, points, seed) for frame in window]
    return np.stack(frames)


def _digest_weights(network: nn.Module) -> str:
    """An ensemble measures by its members."""
    digest = hashlib.sha256()
    for tensor in network.state_dict().values():
        digest.update(tensor.cpu().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
