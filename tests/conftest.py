"""What every test shares: fixed threads, weights of its own, and the real clips where this machine has them."""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

# Before torch and the BLAS libraries are imported: with the number of threads, sums change in their last digits.
os.environ.setdefault("OMP_NUM_THREADS", "2")

import pytest

from thead_eval.weights import import_file

# The files that take longest, which are handed out first, so that no core waits at the end for one of them.
LONGEST = (
    *("test_score", "test_prepare", "test_generate", "test_train", "test_meta", "test_study", "test_detect_eval"),
    *("test_adapt", "test_bench", "test_scan", "test_zoo", "test_detector_training", "test_detector_export"),
    *("test_regress", "test_audit", "test_talker", "test_export"),
)
NOT_RUN = "real-data tests NOT RUN"
SharedFolder = Callable[[str, Callable[[Path], None]], Path]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real clips that $THEVAL_DATA names; a test that asks for it is skipped, by name, without one."""
    named = os.environ.get("THEVAL_DATA")
    if not named:
        pytest.skip(f"{NOT_RUN}: THEVAL_DATA is not set; set it to a folder with catalogue.csv and real/")
    folder = Path(named).resolve()
    if not (folder / "catalogue.csv").is_file():
        pytest.skip(f"{NOT_RUN}: THEVAL_DATA is '{named}', which has no catalogue.csv; point it to the real clips")
    return folder


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> SharedFolder:
    """Names a folder and what fills it: filled once for all processes of a test run, and from then on only read."""
    own = tmp_path_factory.getbasetemp()
    common = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own

    def share(name: str, fill: Callable[[Path], None]) -> Path:
        folder, filled = common / name, common / f"{name}.filled"
        with (common / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # let go of where the file is closed
            if not filled.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                fill(folder)
                filled.touch()
        return folder

    return share


@pytest.fixture(scope="session", autouse=True)
def weights_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder that THEVAL_WEIGHTS names: an empty one, unless the user chose one, never the user's own cache."""
    with pytest.MonkeyPatch.context() as environment:
        if "THEVAL_WEIGHTS" not in os.environ:
            environment.setenv("THEVAL_WEIGHTS", str(tmp_path_factory.mktemp("weights")))
        yield Path(os.environ["THEVAL_WEIGHTS"])


@pytest.fixture(scope="session")
def mobilefacenet_weights(weights_folder: Path, real_data: Path) -> Path:
    """The ArcFace network, imported into `weights_folder` from where it lies beside the real clips."""
    source = real_data.parent / "weights" / "mobilefacenet_arcface.onnx"
    if not source.is_file():
        pytest.skip(f"{NOT_RUN}: '{source.name}' is not in a folder 'weights' beside THEVAL_DATA")
    return weights_folder / import_file(source).file


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first."""
    rank = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the tests that wanted real clips and had none, so that a green run without them cannot mislead."""
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if NOT_RUN in str(report.longrepr)]
    if skipped:
        terminalreporter.section(NOT_RUN)
        for report in skipped:
            terminalreporter.line(report.nodeid)
