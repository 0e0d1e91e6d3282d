"""`theval card`: every number in it stands in a file, and nothing else does."""

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner, Result

from reports.datacard import write_data_card
from tests.test_report import PEOPLE, make_run, measurements_of, record_of
from thead_eval.cli import theval
from thead_eval.data import CLIP_SCHEMA
from thead_eval.tensors import write_tensors
from thead_eval.testing import make_dataset
from thead_eval.weights import sha256_of


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("card") / "small.safetensors"
    tensors = {"E.conv.weight": torch.zeros(300, 1000), "G.P.weight": torch.zeros(1000, 1200)}
    metadata = {"format": "theval generator 1", "steps": "1500", "seconds": "5400.0", "meta": json.dumps({"lr": 7e-4})}
    write_tensors(path, tensors, metadata, half=True)
    return path


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("training")
    told = {"command": ["theval", "train", "--data", "/home/me/dataset"], "device": "cpu", "processes": 1}
    (folder / "training.json").write_text(json.dumps({**told, "packages": {"torch": "2.14.1", "absent": None}}))
    with (folder / "metrics.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["step", "name", "value"])
        rows.writerow([0, "warp/l1/8", 14.0])
        rows.writerows([step, "l1/8", 14.2 - step / 1000] for step in (500, 1000, 1500))
    return folder


def card(*arguments: object) -> Result:
    return CliRunner().invoke(theval, ["card", *map(str, arguments)])


def test_the_file_and_its_training_are_told(checkpoint: Path, training: Path, tmp_path: Path) -> None:
    about = tmp_path / "about.md"
    about.write_text("## What it is for\n\nTests.")
    ran = card(checkpoint, "-o", tmp_path / "card.md", "--training", training, "--about", about)
    assert ran.exit_code == 0, ran.output
    text = (tmp_path / "card.md").read_text()
    assert text.index("What it is for") < text.index("The file")
    for told in (sha256_of(checkpoint), "E 0.30 M, G 1.20 M", "1500 steps in 1.50 hours", "lr 0.0007", "torch 2.14.1"):
        assert told in text
    assert "`theval train --data dataset`" in text and "/home/me" not in text and "absent" not in text
    curves = (tmp_path / "card-curves.svg").read_text()
    assert "8 shots" in curves and "](card-curves.svg)" in text
    assert card(checkpoint, "-o", tmp_path / "card.md", "--training", training).exit_code == 0
    assert (tmp_path / "card-curves.svg").read_text() == curves  # the same run, the same bytes


def test_a_detectors_curves_are_drawn_too(checkpoint: Path, training: Path, tmp_path: Path) -> None:
    (tmp_path / "training.json").write_text((training / "training.json").read_text())
    (tmp_path / "metrics.csv").write_text("step,name,value\n100,val/log_loss,0.6\n200,val/log_loss,0.5\n")
    assert card(checkpoint, "-o", tmp_path / "card.md", "--training", tmp_path).exit_code == 0
    assert "log_loss" in (tmp_path / "card-curves.svg").read_text()


def test_a_run_is_a_table(checkpoint: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", measurements_of(PEOPLE), record_of())
    assert card(checkpoint, "-o", tmp_path / "card.md", "--run", run).exit_code == 0
    text = (tmp_path / "card.md").read_text()
    rows = [
        line.split(" | ")[0] for line in text.splitlines() if line.startswith("| copy") or line.startswith("| warp")
    ]
    assert rows == [f"| {name}, {shots}" for name in ("copy", "warp") for shots in ("1 shot", "8 shots", "32 shots")]
    assert "ssim (higher is better)" in text and "fid" not in text.replace("`", "")  # which was not scored


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--training", "nothing"], "'nothing' holds no training"),
        (["--about", "nothing.md"], "'nothing.md' cannot be read"),
    ],
)
def test_what_is_missing_is_named(checkpoint: Path, tmp_path: Path, arguments: list[str], said: str) -> None:
    ran = card(checkpoint, "-o", tmp_path / "card.md", *arguments)
    assert ran.exit_code != 0 and said in str(ran.exception) and not (tmp_path / "card.md").exists()


def test_a_checkpoint_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"\x80\x02pickled!")
    ran = card(tmp_path / "x.safetensors", "-o", tmp_path / "card.md")
    assert ran.exit_code != 0 and "is a pickle" in str(ran.exception)


def test_a_dataset_has_a_card(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "heads", 3, 60, 64, clips=2, split="train")
    about = tmp_path / "consent.md"
    about.write_text("Nobody: these heads are drawn.")
    ran = card(dataset.path, "-o", tmp_path / "data.md", "--about", about)
    assert ran.exit_code == 0, ran.output
    text = (tmp_path / "data.md").read_text()
    assert text.startswith("# Data card: heads\n\nNobody: these heads are drawn.")
    for told in (
        "| real | train | 3 | 6 | 360 | 0.2 |",
        "| real | test | 0 | 0 | 0 | 0.0 |",
        "Nobody is in two splits.",
        "| clips of a person | 2 to 2, median 2 |",
        "| seconds of a clip | 2.4 to 2.4 s, median 2.4 s |",
        "25 (6 clips)",
        "| people with frames enough for shots and 32 targets | 3 for 1, 3 for 8, 0 for 32 |",  # 60 - 32 - 16 = 12
        "Landmarks were found in every frame.",
        "Nothing: every source gave a clip.",
        dataset.sha256,
    ):
        assert told in text, told


def test_a_dataset_of_fakes_alone_has_a_card(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "heads", 2, 60, 64)
    rows = [row | {"label": "warp"} for row in pq.read_table(tmp_path / "heads" / "clips.parquet").to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows, CLIP_SCHEMA), tmp_path / "heads" / "clips.parquet")
    ran = card(dataset.path, "-o", tmp_path / "data.md")
    assert ran.exit_code == 0, ran.output
    assert "0 for 1, 0 for 8, 0 for 32" in (tmp_path / "data.md").read_text()


def test_what_a_data_card_is_not_made_of(checkpoint: Path, training: Path, tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "heads", 1, 40, 64)
    ran = card(dataset.path, "-o", tmp_path / "data.md", "--training", training)
    assert ran.exit_code == 2 and "belong to a checkpoint, and this is a folder" in ran.output
    ran = card(tmp_path, "-o", tmp_path / "data.md")
    assert ran.exit_code == 2 and "holds no dataset.json; name a prepared dataset, or a checkpoint" in ran.output
    ran = card(dataset.path, "-o", tmp_path / "nowhere" / "data.md")
    assert ran.exit_code == 1 and "cannot be written (No such file or directory)" in str(ran.exception)


def test_second_people_of_a_recording_are_not_counted_as_known(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "heads", 2, 40, 64)
    dataset.clips.loc[1, "identity"] = "head0000~2"
    dataset.clips["crop_box"] = [(0.0, 0.0, 1080.0, 1080.0)] * 2
    text = write_data_card(dataset, tmp_path / "data.md").read_text()
    assert "| real | test | 1 | 2 | 80 | 0.1 |" in text and "1 clip of a second person in a recording" in text
    assert "1,080 to 1,080 px, median 1,080 px" in text
