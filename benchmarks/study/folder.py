"""A study's folder: what it shows, where the files lie, and which video of a triplet is fake.

STUDY/study.json        the triplets, and what they were drawn from
STUDY/manifest.csv      a row a video: who, real or of which generator, sha256
STUDY/videos/*.mp4      <triplet>-<letter>.mp4; the letters say nothing
STUDY/answers.sqlite    see answers.py
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from thead_eval.errors import RunError
from thead_eval.results import Failure, write_json

SCHEMA = 1
LETTERS = "abc"


@dataclass(frozen=True)
class Settings:
    """How a study is drawn."""

    generators: tuple[str, ...] = ()  # none named: all of the run
    shots: tuple[int, ...] = ()  # likewise
    identities: int = 50  # so many people of the run are shown, drawn at random
    questions: int = 30  # of each participant, without the checks
    checks: int = 3  # of each participant
    seconds: float = 5.0  # a video's longest; most runs have 32 frames, 1.3 s
    seed: int = 0


@dataclass(frozen=True)
class Triplet:
    """Three videos of one person: STUDY/videos/<id>-a.mp4, -b.mp4 and -c.mp4."""

    id: str
    identity: str
    labels: dict[str, str]  # generator, shots; empty of an attention check
    fake: str  # its letter; of an attention check the letter of the mosaic
    frames: int
    fps: float

    @property
    def is_check(self) -> bool:
        """Whether it only shows that somebody is looking."""
        return not self.labels


@dataclass(frozen=True)
class Study:
    """study.json."""

    schema_version: int
    run: str  # the run folder, absolute
    run_started: str  # tells it from another run at the same place
    settings: Settings
    triplets: tuple[Triplet, ...]
    failures: tuple[Failure, ...]  # fakes of which no triplet could be made
    from_dataset: bool = False  # whether real videos come from the run's dataset; else from the run's own clips


def read_study(folder: Path) -> Study:
    """STUDY/study.json.

    Raises:
        RunError: it is missing, damaged or of another version.
    """
    path = folder / "study.json"
    try:
        study = TypeAdapter(Study).validate_json(path.read_bytes())
    except FileNotFoundError:
        raise RunError(f"'{folder}' holds no study; make one with 'theval study make RUN -o {folder}'") from None
    except ValidationError as error:
        raise RunError(f"'{path}' is damaged ({error.error_count()} errors); make the study again") from error
    if study.schema_version != SCHEMA:
        raise RunError(f"'{path}' has schema {study.schema_version}, this theval reads {SCHEMA}; update theval")
    return study


def write_study(folder: Path, study: Study) -> None:
    """Write STUDY/study.json, last of all files: a folder that has it is whole."""
    write_json(folder / "study.json", TypeAdapter(Study).dump_python(study, mode="json"))


def video_path(folder: Path, triplet: str, letter: str) -> Path:
    """STUDY/videos/<triplet>-<letter>.mp4."""
    return folder / "videos" / f"{triplet}-{letter}.mp4"


def by_condition(triplets: Sequence[Triplet]) -> Mapping[tuple[str, ...], list[Triplet]]:
    """The triplets of each generator and number of shots, without the attention checks."""
    found: dict[tuple[str, ...], list[Triplet]] = {}
    for triplet in triplets:
        if not triplet.is_check:
            found.setdefault(tuple(triplet.labels.values()), []).append(triplet)
    return found
