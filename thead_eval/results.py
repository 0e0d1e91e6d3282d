"""What a run writes down: measurements.json and run.json, versioned, and how they are read back."""

import json
import os
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from thead_eval.errors import RunError

USER = "user"  # the metric that people answer, the paper's USER: its rows count those who look, not those shown

SCHEMA = 1


class LeftOut(BaseModel):
    """What a number would be without some people."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    identities: tuple[str, ...]
    value: float


class Measurement(BaseModel):
    """One reported number. A metric's name fixes all its settings; docs/measurements.md describes every field."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    metric: str
    value: float | None  # None: could not be computed; `note` says why
    low: float | None = None  # 95 % interval from resampling identities; None with fewer than two of them
    high: float | None = None
    sd: float | None = None  # calibration rows only: standard deviation of the pairs' values
    unit: str = ""
    higher_is_better: bool | None  # None: the nearer to 0 the better
    n_frames: int  # judged
    n_identities: int  # judged
    n_failed: int  # frames that could not be judged, and are not in `value`
    n_real: int | None = None  # of detectors: real clips or frames judged; n_fake: fakes
    n_fake: int | None = None
    n_effective: float | None = None  # independent frames that these are worth: n_frames / (1 + (K - 1) rho)
    noise_floor: float | None = None  # set metrics: the distance of two disjoint halves (by identity) of the real set
    labels: dict[str, str]  # generator, shots; more where a protocol has more
    per_identity: dict[str, float | None] = {}  # the identity's own value; None where it could not be judged
    left_out: tuple[LeftOut, ...] = ()  # where people have no value of their own: by what runs are compared in pairs
    note: str = ""  # a warning, or why there is no value and the command that cures it

    @property
    def merit(self) -> float:
        """The value turned so that more is better, to rank by; there must be a value."""
        assert self.value is not None
        if self.higher_is_better is None:
            return -abs(self.value)
        return self.value if self.higher_is_better else -self.value


def direction(higher_is_better: bool | None) -> str:
    """Which way is better, in words."""
    return {True: "higher", False: "lower", None: "nearer to 0"}[higher_is_better]


def duration(seconds: float) -> str:
    """'42 s', '3 min 20 s', '2 h 5 min'."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class Failure(BaseModel):
    """Something that could not be made or judged, and why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    item: str  # identity, clip or file
    labels: dict[str, str] = {}  # generator, shots
    reason: str


class RunRecord(BaseModel):
    """run.json: everything needed to make the same numbers again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    command: list[str]  # as typed
    config: dict[str, Any]  # as resolved; Any: JSON
    status: Literal["predicting", "scoring", "complete"]
    started: str  # ISO 8601, UTC
    seconds: float
    commit: str | None  # of the repository that the code lies in, None outside one
    dirty: bool | None
    packages: dict[str, str]  # name to version
    python: str
    device: str
    seed: int
    dataset: dict[str, str]  # what was judged: path, sha256 of its index, backends
    weights: dict[str, str]  # name to sha256, for each pretrained file that was read
    failures: list[Failure] = []


def write_json(path: Path, value: Any) -> None:  # Any: JSON
    """Write a file whole or not at all, so that a killed process leaves the old one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    temporary.replace(path)


def write_measurements(run: Path, measurements: list[Measurement]) -> None:
    """Write RUN/measurements.json."""
    rows = [measurement.model_dump(mode="json") for measurement in measurements]
    write_json(run / "measurements.json", {"schema": SCHEMA, "measurements": rows})


def read_measurements(run: Path) -> list[Measurement]:
    """The rows of RUN/measurements.json.

    Raises:
        RunError: the file is missing, not JSON, or of another schema.
    """
    path = run / "measurements.json"
    content = _read_json(path)
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        found = content.get("schema") if isinstance(content, dict) else None
        raise RunError(f"'{path}' has schema {found}, this theval reads {SCHEMA}; update theval or score the run again")
    try:
        return [Measurement.model_validate(row) for row in content["measurements"]]
    except (KeyError, TypeError, ValidationError) as error:
        raise RunError(f"'{path}' is damaged ({_first_line(error)}); score the run again") from error


def write_run(run: Path, record: RunRecord) -> None:
    """Write RUN/run.json."""
    write_json(run / "run.json", record.model_dump(mode="json"))


def read_run(run: Path) -> RunRecord:
    """RUN/run.json.

    Raises:
        RunError: the file is missing, damaged or of another schema.
    """
    path = run / "run.json"
    try:
        return RunRecord.model_validate(_read_json(path))
    except ValidationError as error:
        raise RunError(f"'{path}' is damaged or of another version ({_first_line(error)}); score again") from error


def _read_json(path: Path) -> Any:  # Any: JSON
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise RunError(
            f"'{path}' does not exist; name the run folder of a 'theval score' or 'theval detect eval' that ended"
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RunError(f"'{path}' is not JSON ({error}); score the run again") from error


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
