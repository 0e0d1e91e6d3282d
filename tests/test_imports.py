"""Who may import whom: the contract in pyproject.toml, tried with an import that breaks it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGES = ["thead_eval", "generator", "detectors", "benchmarks", "reports"]


@pytest.mark.parametrize(
    ("module", "line", "kept"),
    [
        ("generator/probe.py", "from thead_eval.errors import ThevalError", True),
        ("thead_eval/cli/probe.py", "import generator, detectors, benchmarks, reports", True),
        ("generator/probe.py", "import benchmarks", False),
        ("reports/probe.py", "from benchmarks import probe", False),
        ("thead_eval/probe.py", "import generator", False),
        ("thead_eval/metrics/probe.py", "import detectors", False),
        ("benchmarks/probe.py", "from thead_eval.cli import theval", False),
    ],
)
def test_the_import_contract(tmp_path: Path, module: str, line: str, kept: bool) -> None:
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    for package in PACKAGES:
        shutil.copytree(REPOSITORY / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / module).write_text(line + "\n")
    ran = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (ran.returncode == 0) == kept, ran.stdout + ran.stderr
