"""What a user gets by installing theval: the public names, the five packages, the console script."""

import subprocess
import sys
import tomllib
from importlib.metadata import entry_points, metadata
from pathlib import Path

import pytest

import thead_eval

REPOSITORY = Path(__file__).parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]

# The packages that this suite is built around; each does real work, so none is an extra.
CHOSEN = [
    "torch",
    "torchmetrics",
    "pytorch-fid",
    "facenet-pytorch",
    "scikit-learn",
    "pandas",
    "face-alignment",
    "click",
]


@pytest.mark.parametrize("name", thead_eval.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(thead_eval, name) is not None
    assert name in dir(thead_eval)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'thead_eval' has no attribute 'Clips'"):
        thead_eval.Clips  # type: ignore[attr-defined]  # noqa: B018  # the point of the test


def test_all_is_sorted_and_complete() -> None:
    lazy = [name for names in thead_eval._LAZY.values() for name in names]
    errors = [name for name, value in vars(thead_eval).items() if isinstance(value, type)]
    assert thead_eval.__all__ == sorted({*lazy, *errors, "__version__"})


def test_import_is_light() -> None:
    code = "import sys, thead_eval; print([m for m in ('torch', 'numpy', 'pydantic') if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_one_version() -> None:
    assert thead_eval.__version__ == PROJECT["version"] == metadata("theval")["Version"]
    assert f"## [{PROJECT['version']}]" in (REPOSITORY / "CHANGELOG.md").read_text()


def test_the_console_script_is_main() -> None:
    (script,) = entry_points(group="console_scripts", name="theval")
    assert script.value == "thead_eval.cli:main"


@pytest.mark.parametrize("package", CHOSEN)
def test_the_chosen_packages_are_core_dependencies(package: str) -> None:
    assert any(dependency.startswith(package) for dependency in PROJECT["dependencies"])


@pytest.mark.parametrize("module", sorted(path.name for path in (REPOSITORY / "thead_eval").glob("[!_]*.py")))
def test_the_architecture_page_names_every_module(module: str) -> None:
    assert f"`{module}`" in (REPOSITORY / "docs" / "architecture.md").read_text()
