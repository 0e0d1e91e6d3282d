"""theval bench: what a suite becomes; that a stage is run once, again where something changed, and on after a kill."""

import fcntl
import inspect
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from benchmarks.stages import (
    CODE,
    Stage,
    StageFailed,
    Step,
    code_digest,
    inputs_of,
    look,
    path_digest,
    read_made,
    run_stages,
)
from benchmarks.suite import FOLDER, names, read_suite
from thead_eval.cli import theval
from thead_eval.cli.bench import plan
from thead_eval.errors import ConfigError, RunError
from thead_eval.results import read_measurements
from thead_eval.testing import make_dataset


def called(*arguments: object) -> Result:
    return CliRunner().invoke(theval, ["bench", *map(str, arguments)])


def suite_of(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text)
    return path


HEADS = "[heads]\npeople = 1\n"

# Suites.


def test_our_suites_can_be_planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "catalogue.csv").touch()
    monkeypatch.setenv("THEVAL_DATA", str(tmp_path))
    monkeypatch.setenv("VOXCELEB", str(tmp_path))
    stages = {name: [stage.name for stage in plan(read_suite(name), [0], "cpu", 1, False)] for name in names()}
    assert stages == {
        "clips": ["dataset", "score", "report.html", "fakes", "trained", "bundled", "detectors.html"],
        "paper": ["manifest.csv", "dataset", "train", "score", "report.html"],
        "quick": ["videos", "dataset", "score", "report.html", "fakes", "numbers", "network", "detectors.html"],
    }


def test_a_plan_is_commands_with_hours(tmp_path: Path) -> None:
    text = (FOLDER / "quick.toml").read_text().partition("[hours]")[0]
    suite = suite_of(tmp_path, text + '[hours]\nmachine = "an abacus"\nscore = 2.5\n')
    ran = called(suite, "--dry-run", "--out", tmp_path / "run", "--launch", "score=srun -n 1")
    assert ran.exit_code == 0, ran.output
    assert "Left to do: 2.50 hours" in ran.stdout and "an abacus" in ran.stdout
    assert f"srun -n 1 theval score --data {tmp_path}/run/dataset --out {tmp_path}/run/score --seed 0" in ran.stdout
    assert not (tmp_path / "run").exists()
    rows = json.loads(called("quick", "--dry-run", "--json", "--seed", 3, "--seed", 5).stdout)
    assert [row["stage"] for row in rows if row["stage"].startswith("score")] == ["score-3", "score-5"]
    assert next(row for row in rows if row["stage"] == "network-5")["needs"] == ["dataset", "fakes-5"]


def test_the_hours_of_a_stage_are_those_of_each_seed(tmp_path: Path) -> None:
    text = f"{HEADS}[score]\n[generate]\n[hours]\nscore = 2.5\nfakes = 1\nfakes-5 = 4\n"
    rows = json.loads(called(suite_of(tmp_path, text), "--dry-run", "--json", "--seed", 3, "--seed", 5).stdout)
    hours = {row["stage"]: row["hours"] for row in rows}
    assert [hours[name] for name in ("score-3", "score-5", "fakes-3", "fakes-5")] == [2.5, 2.5, 1, 4]


def test_a_detector_beside_the_suite_is_read_from_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("suite/mine", "elsewhere/theirs", "elsewhere/spectrum", "elsewhere/trio"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "best.safetensors").touch()
    monkeypatch.chdir(tmp_path / "elsewhere")
    text = f"{HEADS}[score]\ndetector = 'mine'\n[eval.two]\ndetector = ['mine/best.safetensors', 'theirs', 'trio']\n"
    text += "[eval.fitted]\ndetector = ['spectrum']\nprotocol = ['P1']\n"
    stages = plan(read_suite(str(suite_of(tmp_path / "suite", text))), [0], "cpu", 1, False)
    score, two, fitted = (next(s for s in stages if s.name == name) for name in ("score", "two", "fitted"))
    mine, theirs = tmp_path / "suite" / "mine", tmp_path / "elsewhere" / "theirs"
    assert score.inputs == (mine,) and score.arguments[-1] == str(mine)
    assert two.inputs == (mine / "best.safetensors", theirs)
    assert two.arguments[-6:][1::2] == (*map(str, two.inputs), "trio")
    assert fitted.inputs == () and "spectrum" in fitted.arguments  # a kind, whatever lies about


def test_other_data_take_the_place_of_the_suites(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", identities=1, frames=2, size=32)
    own = plan(read_suite("quick").on(Path(dataset.path)), [0], "cpu", 1, False)
    assert own[0].name == "score" and own[0].inputs == (Path(dataset.path).resolve(),) and not own[0].needs
    (tmp_path / "videos").mkdir()
    videos = plan(read_suite("clips").on(tmp_path / "videos"), [0], "cpu", 1, True)
    assert videos[0].arguments == ("prepare", str(tmp_path / "videos"), "{run}/dataset")
    assert videos[0].free == ("--workers", "1", "--engine", "ray")
    with pytest.raises(ConfigError, match=r"'.*absent' is not a folder"):
        read_suite("quick").on(tmp_path / "absent")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[sutie]", r"unknown section 'sutie'; did you mean 'suite'\?"),
        ("[suite]\nseed = 1", r"unknown key in \[suite\] 'seed'; did you mean 'seeds'\?"),
        ("[suite]\nseeds = 1", "seeds 1 is not a list of numbers"),
        ("about = 1", "unknown section 'about'"),
        ("[suite", "is not TOML"),
        ("[eval]\ndetector = 'x'", r"\[eval\] has 'detector'; name what is judged"),
        ("[score]", r"has no data; give \[heads\], \[import\] or \[prepare\] src"),
        ("[prepare]\nsrc = '$THEVAL_NOT_SET/real'", r"\$THEVAL_NOT_SET/real', and that is not set; export it"),
        ("[prepare]\nsrc = 'absent'", "there is no '.*absent'; correct it"),
        (f"{HEADS}[score]\nmetrcis = 'ssim'", r"\[score\] has an unknown key 'metrcis'; did you mean 'metrics'\?"),
        (f"{HEADS}[score]\nout = 'x'", r"\[score\] has an unknown key 'out'"),
        (f"{HEADS}[score]\nsplit = 'dev'", "stage 'score': Invalid value for '--split': 'dev' is not one of"),
        (f"{HEADS}[eval.score]\ndetector = 'x'\n[score]", r"\[eval.score\] has the name of another stage"),
        ("[import]\nlayout = 'voxceleb'", r"\[import\] folder of suite 'mine': there is no"),
    ],
)
def test_a_wrong_suite_says_where(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan(read_suite(str(suite_of(tmp_path, text))), [0], "cpu", 1, False)


def test_wrong_names_are_refused(tmp_path: Path) -> None:
    for arguments, message in (
        (("quikc",), "no suite is named 'quikc', and there is no such file; there are: clips, paper, quick"),
        (("quick", "--stage", "training"), "--stage: there is no stage 'training'; this suite has videos, dataset"),
        (("quick", "--launch", "x=srun"), "--launch: there is no stage 'x'"),
    ):
        ran = called(*arguments, "--dry-run")
        assert isinstance(ran.exception, ConfigError) and message in str(ran.exception)


# Stages, of a command that is quick.


def stages_of(folder: Path) -> list[Stage]:
    """Manifests: `second` needs `first`, and `third` needs nobody."""

    def stage(name: str, of: str, needs: tuple[str, ...]) -> Stage:
        words = ("import", "celeb-df", str(folder / of), "-o", f"{{run}}/{name}/list.csv")
        return Stage(name, words, name, (f"{name}/*.csv",), needs, (folder / of,))

    return [stage("first", "a", ()), stage("second", "b", ("first",)), stage("third", "c", ())]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in "abc":
        (tmp_path / name / "YouTube-real").mkdir(parents=True)
        (tmp_path / name / "YouTube-real" / "1.mp4").touch()
    return tmp_path


def run_all(folder: Path) -> list[str]:
    """The stages that were run."""
    told: list[Step] = []
    path_digest.cache_clear()
    run_stages(stages_of(folder), folder / "run", {"suite": "mine"}, tell=told.append)
    return [step.stage.name for step in told if step.status != "done"]


def test_a_stage_is_run_again_only_where_something_changed(folder: Path) -> None:
    assert [step.status for step in look(stages_of(folder), folder / "run")] == ["to do", "waits", "to do"]
    assert run_all(folder) == ["first", "second", "third"]
    assert run_all(folder) == []
    (folder / "b" / "YouTube-real" / "2.mp4").touch()
    assert run_all(folder) == ["second"]
    assert "2.mp4" in (folder / "run" / "second" / "list.csv").read_text()
    # What 'first' reads has changed, but not what comes out: nobody after it is run again.
    (folder / "a" / "notes.txt").touch()
    assert run_all(folder) == ["first"]
    (folder / "a" / "YouTube-real" / "2.mp4").touch()
    assert run_all(folder) == ["first", "second"]
    # A result that was edited or removed is made anew.
    (folder / "run" / "third" / "list.csv").write_text("file,identity\n")
    (step,) = [step for step in look(stages_of(folder), folder / "run") if step.status != "done"]
    assert (step.stage.name, step.status, step.why) == ("third", "changed", "its files in 'third'")
    assert run_all(folder) == ["third"]
    made = read_made(folder / "run")["third"]
    assert made.seconds > 0 and made.cpu_seconds > 0 and made.peak_mb > 10


def test_pretrained_files_add_to_what_is_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THEVAL_WEIGHTS", str(folder / "weights"))
    (folder / "weights").mkdir()
    stages = [Stage(**{**vars(stages_of(folder)[0]), "code": ("thead_eval", "reports")})]
    run_stages(stages, folder / "run", {})
    (folder / "run" / "first" / "kept").touch()
    (folder / "weights" / "inception.pth").touch()
    (step,) = look(stages, folder / "run")
    assert (step.status, step.why) == ("changed", "pretrained files")
    run_stages(stages, folder / "run", {})
    assert (folder / "run" / "first" / "kept").exists()


def test_the_code_is_part_of_what_a_stage_is_made_of(folder: Path) -> None:
    stage = stages_of(folder)[0]
    with_code = inputs_of(Stage(**{**vars(stage), "code": ("reports",)}), {})
    assert with_code == inputs_of(stage, {}) | {"code of reports": code_digest("reports")}
    assert code_digest("reports") != code_digest("benchmarks")
    page = Path(__file__).parent.parent / "reports"
    assert {file.suffix for file in page.iterdir() if file.is_file()} <= CODE


def test_the_checkpoint_that_the_environment_names_is_an_input_of_what_generates(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judges, makes = (Stage(**{**vars(stages_of(folder)[0]), "code": (name,)}) for name in ("reports", "generator"))
    trains_its_own = Stage(**{**vars(makes), "environment": {"THEVAL_CHECKPOINT": "{run}/train/best.safetensors"}})
    monkeypatch.delenv("THEVAL_CHECKPOINT", raising=False)
    without = [inputs_of(stage, {}) for stage in (judges, makes, trains_its_own)]
    for content in ("one", "other"):
        (folder / content).write_text(content)
        monkeypatch.setenv("THEVAL_CHECKPOINT", str(folder / content))
        with_it = [inputs_of(stage, {}) for stage in (judges, makes, trains_its_own)]
        assert with_it == [without[0], without[1] | {"checkpoint": path_digest(folder / content)}, without[2]]


def test_packages_with_plug_ins_are_part_of_what_a_stage_is_made_of(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(**{**vars(stages_of(folder)[0]), "code": ("thead_eval", "reports")})
    digests = [inputs_of(stage, {}).get("plug-ins")]
    for version in ("1.0", "1.1"):
        info = folder / version / "still_life-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: still-life\nVersion: {version}\n")
        (info / "entry_points.txt").write_text("[theval.generator]\nstill = still_life.still:still\n")
        with monkeypatch.context() as patched:
            patched.syspath_prepend(folder / version)
            digests.append(inputs_of(stage, {}).get("plug-ins"))
    assert len(set(digests)) == 3


def test_a_failing_stage_does_not_stop_what_does_not_need_it(folder: Path) -> None:
    shutil.rmtree(folder / "a" / "YouTube-real")
    with pytest.raises(StageFailed, match=r"stage 'first' ended with exit code 2; see '.*first.log'") as failed:
        run_all(folder)
    assert failed.value.code == 2
    assert (folder / "run" / "third" / "list.csv").exists() and not (folder / "run" / "second").exists()
    with pytest.raises(RunError, match="stage 'second' needs 'first', which is not done"):
        run_stages(stages_of(folder), folder / "run", {}, only="second")
    (folder / "a" / "YouTube-real").mkdir()
    (folder / "a" / "YouTube-real" / "1.mp4").touch()
    assert run_all(folder) == ["first", "second"]


def test_one_at_a_time_in_a_folder_of_its_own(folder: Path) -> None:
    (folder / "run").mkdir()
    with (folder / "run" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RunError, match="another 'theval bench' works in"):
            run_all(folder)
    (folder / "run" / "diary.txt").touch()
    with pytest.raises(RunError, match="is not empty and not a benchmark's"):
        run_all(folder)
    (folder / "run" / "bench.json").write_text('{"stages": {"first": 3}}')
    with pytest.raises(RunError, match="is damaged"):
        run_all(folder)


def has_ended(process: str) -> bool:
    """Gone, or dead and not asked for: who was below a bench that was killed falls to these tests, which do not ask."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def eventually(true: Callable[[], object], seconds: float = 200) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


SCRIPT = f"""
import sys
from pathlib import Path
from benchmarks.stages import Stage, run_stages
{inspect.getsource(stages_of)}
folder = Path(sys.argv[1])
slow = ("sh", "-c", f"touch {{folder}}/began; exec sleep 600")
run_stages(stages_of(folder), folder / "run", {{}}, prefixes={{"second": slow}})
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_killed_it_takes_its_command_with_it_and_goes_on(folder: Path, number: signal.Signals) -> None:
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell's background processes ignore it
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(folder)], stderr=subprocess.PIPE, preexec_fn=heard)
    eventually(lambda: (folder / "began").exists())
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.send_signal(number)
    _, told = process.communicate()
    eventually(lambda: has_ended(child))
    if number != signal.SIGKILL:
        assert f"stage 'second' was ended by signal {number.value}" in told.decode()
    statuses = [step.status for step in look(stages_of(folder), folder / "run")]
    assert statuses == ["done", "to continue", "to do"]
    assert run_all(folder) == ["second", "third"]


def test_heads_are_drawn_once(tmp_path: Path) -> None:
    told = ("heads", str(tmp_path / "heads"), "--people", "2", "--frames", "2", "--size", "64", "--json")
    assert json.loads(CliRunner().invoke(theval, told).stdout)["made"] == 2
    first = {path.name: path.read_bytes() for path in (tmp_path / "heads").iterdir()}
    (tmp_path / "heads" / "head0001.mp4").unlink()
    assert json.loads(CliRunner().invoke(theval, told).stdout)["made"] == 1
    assert {path.name: path.read_bytes() for path in (tmp_path / "heads").iterdir()} == first


def test_a_suite_from_data_to_reports(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", identities=2, frames=60, size=64)
    text = "[suite]\nabout = 'two heads'\n[score]\ngenerator = ['copy']\nshots = [1]\nmetrics = ['ssim']\n"
    suite = suite_of(tmp_path, text)
    told = (suite, "--data", dataset.path, "--out", tmp_path / "run", "--workers", 1)
    ran = called(*told)
    assert ran.exit_code == 0, ran.output
    assert [m.n_identities for m in read_measurements(tmp_path / "run" / "score")] == [2]
    index = (tmp_path / "run" / "index.html").read_text()
    assert 'href="report.html"' in index and "two heads" in index and "theval score --data" in index
    begin = time.monotonic()
    again = called(*told, "--json")
    assert again.exit_code == 0 and json.loads(again.stdout)["stages"]["score"]["results"]
    assert time.monotonic() - begin < 20
