"""Clips that show what a detector goes by: RUN/examples.json, and the pictures of them in RUN/examples."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from thead_eval.errors import RunError
from thead_eval.results import write_json

NAME, FOLDER = "examples.json", "examples"

# Fakes that it is surest of, fakes that it takes for real, reals that it takes for fakes.
Kind = Literal["caught", "missed", "flagged"]


class Example(BaseModel):
    """A frame of a clip, as the detector was given it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str  # a key of the run's scores
    kind: Kind
    item: str
    generator: str  # '' of a real clip
    identity: str
    p: float  # of the clip
    frame: int  # its number in the clip: one that scores as the clip does
    picture: str  # a PNG in RUN/examples
    heat: str  # the same under a map of what speaks for (red) and against a fake (blue); '' where none was made


def write_examples(run: Path, examples: Sequence[Example]) -> None:
    """Write RUN/examples.json."""
    write_json(run / NAME, [example.model_dump(mode="json") for example in examples])


def read_examples(run: Path) -> list[Example]:
    """Those of a run; none of one that made none.

    Raises:
        RunError: the file is damaged.
    """
    path = run / NAME
    if not path.is_file():
        return []
    try:
        return TypeAdapter(list[Example]).validate_json(path.read_bytes())
    except ValidationError as error:
        raise RunError(f"'{path}' is damaged ({error.error_count()} errors); judge again") from error
