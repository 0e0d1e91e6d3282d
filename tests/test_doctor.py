"""theval doctor: what works here, what waits for weights, and what is wrong with an installation."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from click.testing import CliRunner

from thead_eval import weights
from thead_eval.cli import doctor
from thead_eval.faces import DetectorName, LandmarkerName
from thead_eval.weights import TABLE


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of weights with nothing in it."""
    monkeypatch.setenv("THEVAL_WEIGHTS", str(tmp_path))
    return tmp_path


def test_a_healthy_machine_without_fetched_weights(empty: Path) -> None:
    ran = CliRunner().invoke(doctor.command, ["--json"])
    found = json.loads(ran.output)
    assert (ran.exit_code, found["problems"]) == (0, [])
    assert found["packages"]["torch"] and None not in found["packages"].values()
    assert all(found["codecs"].values())
    assert {Path(folder).name for folder in found["names"].values()} == set(doctor.OUR_NAMES)
    parts = {(part["kind"], part["name"]): part for part in found["parts"]}
    assert parts["metric", "ssim"]["works"] and parts["generator", "warp"]["works"]
    fid = parts["metric", "fid"]
    assert (fid["works"], fid["needs"]) == (False, ["fid_inception"])
    assert fid["command"] == "theval weights fetch fid_inception"
    assert parts["face backend", "dlib landmarks"]["works"]
    assert not parts["face backend", "fan landmarks"]["works"]


def test_a_damaged_file_is_a_problem_and_a_thorough_look_finds_more(empty: Path) -> None:
    weight = TABLE["mobilefacenet_arcface"]
    file = empty / weight.file
    file.write_bytes(bytes(weight.size))
    assert weights.state(weight, thorough=False) == "present"
    ran = CliRunner().invoke(doctor.command, ["--verify"])
    assert ran.exit_code == 1
    assert f"Problem: mobilefacenet_arcface ('{file}') is corrupt; run 'theval weights fetch mobil" in ran.output
    assert "csim_mobilefacenet, mobilefacenet\n    theval weights fetch mobilefacenet_arcface  # 4.0 MB" in ran.output


def test_every_face_backend_is_examined() -> None:
    backends = {f"{name} faces" for name in get_args(DetectorName)}
    backends |= {f"{name} landmarks" for name in get_args(LandmarkerName)}
    assert set(doctor.BACKENDS) == backends
    assert {name for needs in doctor.BACKENDS.values() for name in needs} <= set(TABLE)


@pytest.mark.slow
def test_a_shadowed_name_and_a_package_that_is_too_new(tmp_path: Path) -> None:
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "__init__.py").touch()
    info = tmp_path / "scipy-1.18.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: scipy\nVersion: 1.18.0\n")
    theval = Path(sys.executable).with_name("theval")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    ran = subprocess.run([theval, "doctor"], env=environment, capture_output=True, text=True)
    assert ran.returncode == 1, ran.stderr
    assert re.search(
        r"scipy 1\.18\.0 is installed, theval needs .*<1\.18.* \(pytorch-fid calls sqrtm\(disp", ran.stdout
    )
    assert f"the name 'reports' leads to '{tmp_path / 'reports'}', not to theval's '" in ran.stdout
    assert "The core works" not in ran.stdout


def test_another_package_that_installs_a_name_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "quarterly-2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: quarterly\nVersion: 2.0\n")
    (info / "top_level.txt").write_text("reports\n")
    monkeypatch.syspath_prepend(tmp_path)
    problems: list[str] = []
    doctor.our_names(problems)
    (problem,) = problems
    assert problem.startswith("the package quarterly also installs a package named 'reports', into theval's; uninstall")


def test_two_plug_ins_of_one_name_are_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "greedy-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: greedy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[theval.generator]\ncopy = greedy:copy\n")
    monkeypatch.syspath_prepend(tmp_path)
    problems: list[str] = []
    parts = doctor.all_parts({}, problems)
    assert [part for part in parts if part.kind == "generator"] == []
    (problem,) = problems
    assert problem.startswith("generator 'copy' of package 'greedy' is already taken by 'theval'; rename")
