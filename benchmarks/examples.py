"""What to look at of a detector: the fakes that it is surest of, those that it misses, and the reals that it flags."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from benchmarks.detection import Judge
from thead_eval.detection import Scores, clip_scores, score_clip
from thead_eval.errors import DatasetError, MediaError
from thead_eval.evidence import Evidence, Item
from thead_eval.examples import FOLDER, Example, Kind, read_examples, write_examples
from thead_eval.judging import Progress
from thead_eval.media import write_image
from thead_eval.pictures import Picture
from thead_eval.run import RunFolder, file_name
from thead_eval.types import Clip

EVEN = 0.5  # p: a fake below is missed, a real one from here on is flagged

Score = Callable[[Tensor], Tensor]  # of frames [T, 3, H, W]: [T]
Explain = Callable[[Score, Tensor, int], Picture]  # (score, frames, number of one of them) to that one under its map


class _Chosen(NamedTuple):
    kind: Kind
    rank: int
    clip: Mapping[str, Any]  # a row of `clip_scores`; Any: of several types


def make_examples(
    run: RunFolder,
    judges: Sequence[Judge],
    scores: Scores,
    evidence: Evidence,
    count: int,
    explain: Explain,
    progress: Progress,
) -> None:
    """Write RUN/examples.json and its pictures: `count` clips of each kind for each detector, of as many people.

    Of a detector that judges several frames in a row only the first of each kind gets a map: one takes as long as
    fifty windows.
    """
    known = {
        (example.model, example.kind, example.item): example
        for example in read_examples(run.path)
        if (run.path / FOLDER / example.picture).is_file()
    }
    clips = clip_scores(scores)
    clips = clips[(clips["perturbation"] == "") & clips["p"].notna()]
    asked = [
        (judge, chosen)
        for judge in judges
        if judge.detector is not None
        for chosen in _choose(clips[clips["model"] == judge.model.key], count)
    ]
    (run.path / FOLDER).mkdir(exist_ok=True)
    made = []
    for done, (judge, chosen) in enumerate(asked):
        progress("examples", done, len(asked))
        item = next(item for item in judge.items if item.id == chosen.clip["item"])
        example = known.get((judge.model.key, chosen.kind, item.id))
        try:
            if example is None or example.p != chosen.clip["p"]:  # it was trained anew since
                example = _show(run, judge, item, chosen, scores.frames, evidence, explain)
            made.append(example)
        except (DatasetError, MediaError):
            continue  # it was there when it was scored: the numbers stand, and there is nothing to look at
        write_examples(run.path, made)
    progress("examples", len(asked), len(asked))
    write_examples(run.path, made)


def _choose(clips: pd.DataFrame, count: int) -> Iterator[_Chosen]:
    fake = clips["label"] == "fake"
    kinds: list[tuple[Kind, pd.DataFrame, bool]] = [
        ("caught", clips[fake & (clips["p"] >= EVEN)], False),
        ("missed", clips[fake & (clips["p"] < EVEN)], True),
        ("flagged", clips[~fake & (clips["p"] >= EVEN)], False),
    ]
    for kind, own, ascending in kinds:
        ordered = own.sort_values(["p", "item"], ascending=[ascending, True]).drop_duplicates("identity")
        for rank, clip in enumerate(ordered.head(count).to_dict("records")):
            yield _Chosen(kind, rank, {str(name): value for name, value in clip.items()})


def _show(
    run: RunFolder,
    judge: Judge,
    item: Item,
    chosen: _Chosen,
    frames: pd.DataFrame,
    evidence: Evidence,
    explain: Explain,
) -> Example:
    detector = judge.detector
    assert detector is not None
    own = frames[(frames["model"] == judge.model.key) & (frames["item"] == item.id) & (frames["perturbation"] == "")]
    own = own.sort_values("frame")
    far = np.abs(own["logit"].to_numpy() - own["logit"].mean())
    place = int(np.argmin(np.where(np.isfinite(far), far, np.inf)))
    first = place - place % judge.window  # runs follow one another
    numbers = [int(number) for number in own["frame"].iloc[first : first + judge.window]]
    heads = replace(evidence, size=judge.shown_at(evidence.size)).read(item, numbers).frames

    def score(frames: Tensor) -> Tensor:
        return torch.from_numpy(score_clip(detector, Clip(item.id, frames, item.fps)).logits)

    name = f"{file_name(judge.model.key)}-{chosen.kind}-{hashlib.sha256(item.id.encode()).hexdigest()[:12]}"
    synthetic = item.generator if item.label == "fake" else None
    picture, heat = f"{name}.png", ""
    write_image(run.path / FOLDER / picture, heads[place - first], synthetic=synthetic)
    # Some score a whole clip, and nothing of a single frame.
    if (judge.window == 1 or chosen.rank == 0) and bool(score(heads)[place - first].isfinite()):
        heat = f"{name}-map.png"
        seen = torch.from_numpy(explain(score, heads, place - first)).permute(2, 0, 1)
        write_image(run.path / FOLDER / heat, seen, synthetic=synthetic)
    return Example(
        model=judge.model.key,
        kind=chosen.kind,
        item=item.id,
        generator=item.generator,
        identity=item.identity,
        p=float(chosen.clip["p"]),
        frame=numbers[place - first],
        picture=picture,
        heat=heat,
    )
