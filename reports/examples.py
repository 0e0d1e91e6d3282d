"""The clips of a detection run that show what a detector goes by, as pictures in the page."""

from collections.abc import Iterator
from dataclasses import dataclass

from reports.runs import Run
from reports.strips import Tile, tile
from thead_eval.errors import MediaError
from thead_eval.examples import FOLDER, Example, read_examples
from thead_eval.media import read_image

KINDS = {"caught": "Fakes it is surest of", "missed": "Fakes it takes for real", "flagged": "Reals it takes for fakes"}


@dataclass(frozen=True)
class Shown:
    """An example and its pictures."""

    example: Example
    head: Tile
    heat: Tile | None


@dataclass(frozen=True)
class Group:
    """The examples of a detector."""

    detector: str
    kinds: tuple[tuple[str, tuple[Shown, ...]], ...]  # heading, examples


def groups(run: Run) -> Iterator[Group]:
    """Detector by detector; none of a run that made no examples, or whose pictures are gone.

    Raises:
        RunError: the run's list of examples is damaged.
    """
    shown = [made for example in read_examples(run.folder) if (made := _show(run, example))]
    for model in dict.fromkeys(each.example.model for each in shown):
        own = [each for each in shown if each.example.model == model]
        kinds = {title: tuple(each for each in own if each.example.kind == kind) for kind, title in KINDS.items()}
        yield Group(model, tuple((title, some) for title, some in kinds.items() if some))


def _show(run: Run, example: Example) -> Shown | None:
    folder, kind = run.folder / FOLDER, "fake" if example.generator else "real"
    what = f"frame {example.frame} of {example.item}"
    try:
        head = tile(kind, read_image(folder / example.picture), what)
        heat = tile(kind, read_image(folder / example.heat), f"map of {what}") if example.heat else None
    except MediaError:
        return None
    return Shown(example, head, heat)
