"""What every test shares: fixed threads, weights of its own, and the real clips where this machine has them."""

import os
from collections.abc import Iterator
from pathlib import Path

# Before torch and the BLAS libraries are imported: with the number of threads, sums change in their last digits.
os.environ.setdefault("OMP_NUM_THREADS", "2")

import pytest

from thead_eval.weights import import_file

NOT_RUN = "real-data tests NOT RUN"


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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the tests that wanted real clips and had none, so that a green run without them cannot mislead."""
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if NOT_RUN in str(report.longrepr)]
    if skipped:
        terminalreporter.section(NOT_RUN)
        for report in skipped:
            terminalreporter.line(report.nodeid)
