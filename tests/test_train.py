"""The command `theval train`: runs, plans, ends by a signal, fails with a sentence, shares work between processes."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file

from generator import checkpoint
from generator.meta import new_state
from generator.recipe import read_recipe
from tests.test_fewshot import write_checkpoint
from tests.test_meta import dataset  # noqa: F401  # a fixture
from thead_eval.cli.train import command
from thead_eval.data import Dataset
from thead_eval.errors import CheckpointError, ConfigError
from thead_eval.training import open_fabric

THEVAL = Path(sys.executable).with_name("theval")
TINY = """
[network]
size = 32
output_size = 64
crop = 32
channels = 8
max_channels = 16
embedding = 16
down = 3
residual = 1
[meta]
batch = 4
shots = [1, 4]
precision = "32-true"
content_crop = 32
d_start = 2
d_ramp = 0
log_every = 2
save_every = 3
validate_every = 100
validation_people = 2
validation_shots = [1]
validation_frames = 1
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    file = tmp_path / "tiny.toml"
    file.write_text(TINY)
    return file


def theval_train(*arguments: str | Path) -> Result:
    return CliRunner().invoke(command, [str(a) for a in arguments])


def test_a_training_from_the_command_line(dataset: Dataset, tiny: Path, tmp_path: Path) -> None:  # noqa: F811
    out = tmp_path / "run"
    common = ("--data", dataset.path, "-o", out, "--config", tiny, "--device", "cpu", "--json")
    made = theval_train(*common, "--steps", "3", "--K", "1,2", "--seed", "4")
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout)["step"] == 3
    training = json.loads((out / "training.json").read_text())
    assert training["recipe"]["meta"]["shots"] == [1, 2] and training["recipe"]["meta"]["seed"] == 4
    assert training["dataset"]["sha256"] == dataset.sha256 and "torch" in training["packages"]
    assert "score" in made.stderr and "content" in made.stderr
    made = theval_train(*common, "--steps", "4", "--K", "1,2", "--seed", "4", "--resume")
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout)["step"] == 4
    assert "continuing at step 3" in made.stderr


def test_a_dry_run_prints_the_plan_and_keeps_nothing(dataset: Dataset, tiny: Path, tmp_path: Path) -> None:  # noqa: F811
    out = tmp_path / "run"
    made = theval_train("--data", dataset.path, "-o", out, "--config", tiny, "--steps", "50", "--dry-run")
    assert made.exit_code == 0, made.output
    assert [line.split()[0] for line in made.stdout.splitlines()] == (
        ["people", "parameters", "steps", "samples", "a", "hours", "memory"]
    )
    assert "4 to learn from, 4 clips; 2 to validate on" in made.stdout
    assert "200, 50.0 of each person" in made.stdout
    assert not out.exists()


def test_a_training_that_diverges_exits_1(dataset: Dataset, tiny: Path, tmp_path: Path) -> None:  # noqa: F811
    tiny.write_text(TINY + "lr = 1e30\n")
    made = theval_train("--data", dataset.path, "-o", tmp_path / "run", "--config", tiny, "--steps", "9")
    assert made.exit_code == 1
    assert "Error: step" in made.stderr and "start again with a smaller lr" in made.stderr


@pytest.mark.parametrize(
    ("option", "says"),
    [
        (("--K", "many"), "'many' is not a number such as 8, or two such as 1,32"),
        (("--K", "1,2,3"), "'1,2,3' is not a number"),
        (("--hours", "0"), "0 is not in the range"),
        (("--recipe", "tiny"), "'tiny' is not one of 'compact', 'paper256'"),
    ],
)
def test_a_wrong_option_is_named(tmp_path: Path, option: tuple[str, str], says: str) -> None:
    made = theval_train("--data", tmp_path, "-o", tmp_path / "run", *option)
    assert made.exit_code == 2 and says in " ".join(made.output.split())


def test_a_device_that_is_not_here_is_named(dataset: Dataset, tmp_path: Path) -> None:  # noqa: F811
    made = theval_train("--data", dataset.path, "-o", tmp_path / "run", "--device", "tpu")
    assert isinstance(made.exception, ConfigError)
    assert str(made.exception) == "device 'tpu' is not here; pass --device cpu, or see 'theval doctor'"


def test_checkpoints_that_are_no_start_are_named(dataset: Dataset, tiny: Path, tmp_path: Path) -> None:  # noqa: F811
    file, out = tmp_path / "other.safetensors", tmp_path / "run"
    write_checkpoint(file)  # of networks like TINY's
    tiny.write_text(TINY.replace("\nchannels = 8", "\nchannels = 4"))
    options = ("--data", dataset.path, "-o", out, "--config", tiny, "--device", "cpu", "--init", file)
    other = theval_train(*options)
    file.write_bytes(file.read_bytes()[:-1000])
    cut = theval_train(*options)
    torch.save({"weight": torch.zeros(3)}, file)
    pickled = theval_train(*options)
    reasons = (
        "holds other networks of recipe 'tiny': channels 8, not 4",
        "damaged or cut short",
        "is a pickle, which could",
    )
    for made, reason in zip((other, cut, pickled), reasons, strict=True):
        assert isinstance(made.exception, CheckpointError) and reason in str(made.exception)
    assert not out.exists()


def test_srun_without_torchrun_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "8")
    with pytest.raises(ConfigError, match=r"srun has started 8 tasks, and each would train alone .*: srun .* torchrun"):
        open_fabric("cpu", "32-true")


def test_where_slurm_is_installed_nobody_is_sent_to_srun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "srun").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("SLURM_NTASKS", raising=False)
    open_fabric("cpu", "32-true")  # a warning would be an error here


def test_help_imports_no_torch() -> None:
    code = "import sys; from thead_eval.cli.train import command; command(['--help'], standalone_mode=False); "
    code += "sys.exit('torch' in sys.modules)"
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    assert "--resume" in made.stdout


def test_a_signal_saves_and_ends(dataset: Dataset, tiny: Path, tmp_path: Path) -> None:  # noqa: F811
    out = tmp_path / "run"

    def terminate() -> None:
        while not (out / "last.safetensors").exists():  # the save of step 3
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=terminate, daemon=True).start()
    made = theval_train("--data", dataset.path, "-o", out, "--config", tiny, "--device", "cpu")
    assert made.exit_code == 143, made.output
    assert "stopped and saved; the same command with --resume continues" in made.stderr
    assert made.stdout.startswith("step ")


@pytest.mark.slow
def test_a_training_that_was_killed_is_the_one_that_would_have_been(
    dataset: Dataset,  # noqa: F811
    tiny: Path,
    tmp_path: Path,
) -> None:
    """20 steps are 10, kill -9, and 10 more, to the last bit."""
    tiny.write_text(TINY.replace("save_every = 3", "save_every = 10"))
    arguments = ["--data", dataset.path, "--config", str(tiny), "--device", "cpu", "--steps", "20"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = subprocess.Popen([str(THEVAL), "train", *arguments, "-o", str(killed)], stderr=subprocess.DEVNULL)
    while process.poll() is None and not (killed / "last.safetensors").exists():
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert checkpoint.load(killed / "last.safetensors").metadata["steps"] == "10"
    resumed = theval_train(*arguments, "-o", killed, "--resume")
    assert resumed.exit_code == 0 and "continuing at step 10" in resumed.stderr, resumed.output
    assert theval_train(*arguments, "-o", whole).exit_code == 0
    for name in ("last.safetensors", "best.safetensors"):
        one, two = load_file(whole / name), load_file(killed / name)
        assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one), name


@pytest.mark.slow
def test_two_processes_make_the_steps_of_one(dataset: Dataset, tiny: Path, tmp_path: Path) -> None:  # noqa: F811
    arguments = ["--data", dataset.path, "--config", str(tiny), "--device", "cpu", "--steps", "3"]
    command_line = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"),
        *(str(THEVAL), "train", *arguments, "-o", str(tmp_path / "two")),
    ]
    made = subprocess.run(
        command_line, capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert made.returncode == 0, made.stderr
    one = theval_train(*arguments, "-o", tmp_path / "one")
    assert one.exit_code == 0, one.output
    alone, shared = (load_file(tmp_path / name / "last.safetensors") for name in ("one", "two"))
    assert alone.keys() == shared.keys()
    # The same samples and, but for the order of sums, the same mean gradients. Adam enlarges the difference where a
    # gradient is almost 0, so that what is compared is how far the networks went.
    start = new_state(read_recipe("compact", tiny), 4, torch.device("cpu"))
    for name, network in {"E": start.EG.E, "G": start.EG.G, "D": start.D, "W": start.W}.items():
        first = {f"{name}.{key}": value.detach() for key, value in network.named_parameters()}
        moved = sum((alone[key] - value).abs().sum() for key, value in first.items())
        apart = sum((alone[key] - shared[key]).abs().sum() for key in first)
        assert apart < 0.02 * moved, name
