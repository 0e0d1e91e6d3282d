"""What scripts/check_wheel asks of a built wheel; run with `python -P`, so that the repository is not importable.

wheel_check.py contents WHEEL   the five packages with every file of theirs, and nothing else at the top
wheel_check.py use ENVIRONMENT  doctor, score and report, as installed there, in the current folder
"""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = ["benchmarks", "detectors", "generator", "reports", "thead_eval"]


def check_contents(wheel: Path) -> None:
    """Every file of the five packages that git knows, tests and the rest not."""
    with zipfile.ZipFile(wheel) as archive:
        files = {name for name in archive.namelist() if not name.endswith("/")}
    info = f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"
    tops = {name.split("/")[0] for name in files}
    assert tops == {*PACKAGES, info}, f"top level of the wheel: {sorted(tops)}"

    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *PACKAGES]
    tracked = set(subprocess.run(listed, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.split("\n"))
    expected = {name for name in tracked if (REPOSITORY / name).is_file()}
    packed = {name for name in files if not name.startswith(info)}
    assert packed == expected, f"missing: {sorted(expected - packed)}; not expected: {sorted(packed - expected)}"

    assert "thead_eval/py.typed" in files
    assert f"{info}/licenses/LICENSE" in files
    data = sorted(name for name in packed if not name.endswith(".py"))
    print(f"{wheel.name}: {len(packed)} files, beside modules: {', '.join(data)}")


def check_use(environment: Path) -> None:
    """The README's commands on procedural heads, with the installed package."""
    import thead_eval
    from thead_eval.testing import make_dataset

    installed = Path(thead_eval.__file__).resolve()
    assert installed.is_relative_to(environment.resolve()), f"thead_eval was imported from '{installed}'"
    assert not Path.cwd().resolve().is_relative_to(REPOSITORY)

    theval = environment / "bin" / "theval"
    here = Path.cwd()
    os.environ["THEVAL_WEIGHTS"] = str(here / "weights")  # empty: what follows works with what PyPI carries

    _run(theval, "doctor")
    _run(theval, "list")
    make_dataset(here / "dataset", identities=2)
    _run(
        *(theval, "score", "--data", here / "dataset", "--generator", "copy", "--generator", "warp"),
        *("--shots", "1,8", "--metrics", "ssim,l1,nme_dlib68,fd_efflite0", "--workers", "1", "--out", here / "run"),
    )
    rows = json.loads((here / "run" / "measurements.json").read_text())["measurements"]
    scored = {
        (row["metric"], row["labels"]["generator"], row["labels"]["shots"]) for row in rows if row["value"] is not None
    }
    for metric in ("ssim", "l1", "fd_efflite0"):
        for generator in ("copy", "warp"):
            for shots in ("1", "8"):
                assert (metric, generator, shots) in scored, f"no {metric} of {generator} at {shots} shots"

    _run(theval, "report", here / "run", "-o", here / "report.html")
    assert "</html>" in (here / "report.html").read_text()
    print(f"{installed.parent}: doctor, list, score and report work; {len(scored)} values")


def _run(*command: str | Path) -> None:
    print("+", *command, flush=True)
    subprocess.run(command, check=True)


if __name__ == "__main__":
    verb, target = sys.argv[1:]
    {"contents": check_contents, "use": check_use}[verb](Path(target))
