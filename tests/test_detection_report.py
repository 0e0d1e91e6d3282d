"""The report of detectors: every number of the run is there, and nothing else is needed to read it."""

import csv
import html
import json
import re
import shutil
from pathlib import Path
from urllib.parse import unquote

import pytest
from click.testing import CliRunner

from benchmarks.detection import gather, judge_trainings, plan_trainings, score
from reports.detection import Table, answers, caught_tables, heatmaps, is_detection, matrices, write_report
from reports.numbers import DASH
from reports.runs import Run
from tests.test_detect_eval import Sharpness, evidence, folder, quiet
from tests.test_report import record_of
from thead_eval.cli import theval
from thead_eval.curves import make_curves, read_curves, write_curves
from thead_eval.detection import SCORES, failures_of, measure_scores, read_scores
from thead_eval.errors import RunError
from thead_eval.evidence import Evidence
from thead_eval.results import Measurement, read_measurements, write_measurements
from thead_eval.run import open_run
from thead_eval.types import Detector

__all__ = ["evidence", "folder"]  # fixtures


@pytest.fixture(scope="module")
def run(evidence: Evidence, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All protocols and a perturbation."""

    def fit(kind: str, learn: Evidence, out: Path, seed: int) -> Detector:
        return Sharpness(name=kind)

    path = tmp_path_factory.mktemp("reported") / "run"
    opened = open_run(path, {}, ())
    opened.record("predicting", {}, {}, {}, [])
    trainings = plan_trainings(evidence, ("P1", "P2", "P3", "k-shot"), 0, (1,), 1)
    judges = list(judge_trainings(trainings, ("<sharp>",), fit, path / "trainings", 0, quiet))
    names = {item.path: "here" for item in evidence.items}
    score(opened, evidence, judges, names, 2, ("jpeg",), quiet)
    gather(opened, judges, ("jpeg",), path / SCORES)
    scores = read_scores(path / SCORES)
    write_measurements(path, measure_scores(scores, 0, quiet))
    write_curves(path, make_curves(scores))
    opened.record("complete", {"detection": True, "seed": 0}, {}, {}, failures_of(scores))
    return path


def test_the_page_says_it_all_and_needs_nothing(run: Path, tmp_path: Path) -> None:
    written = write_report([run], tmp_path / "report.html")
    page = written.html.read_text()
    for text in (
        "P1: people it has not seen",
        "P2: people it has seen",
        "P3: people and generators",
        "Leave one generator out",
        "A few fakes of an unseen generator",
        "AUC on the way of a video",
        "Fakes caught on the way of a video, at 1 % of the reals",
        "Robustness: P1, ",
        "ROC: P3",
        "Reliability: P1, all fakes",
        "metadata has no number on P3: the detector says",
        "reals are too few",
    ):
        assert text in page, text
    assert "&lt;sharp&gt;" in page and "<sharp>" not in page
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    assert written.identities is None
    with written.measurements.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert {row["protocol"] for row in rows} == {"P1", "P2", "P3"} and rows[0]["n_real"]
    assert write_report([run], tmp_path / "again.html").html.read_text() == page.replace("report.csv", "again.csv")


def test_every_clip_is_a_point_that_leads_to_its_file(run: Path, tmp_path: Path) -> None:
    moved, clips = tmp_path / "run", tmp_path / "my fakes"
    shutil.copytree(run, moved)
    frames = read_scores(run / SCORES).frames
    items = [item for item in frames["item"].unique() if frames[frames["item"] == item]["label"].iloc[0] == "fake"]
    for item in items:
        (clips / item).parent.mkdir(parents=True, exist_ok=True)
        (clips / item).touch()
    gone = {"gone": str(tmp_path / "gone.mkv")}
    (moved / "items.json").write_text(json.dumps({item: str(clips / item) for item in items} | gone))
    page = write_report([moved], tmp_path / "out" / "report.html").html.read_text()
    figures = re.findall(r'<svg [^>]*aria-label="p\(fake\) of each clip.*?</svg>', page, re.DOTALL)
    assert figures
    for figure in figures:
        links = {unquote(link).removeprefix("../my fakes/") for link in re.findall(r'<a href="([^"]*)"', figure)}
        told = {html.unescape(text).rpartition(": ")[0] for text in re.findall(r"h0\"><title>([^<]*)</title>", figure)}
        assert links and links <= set(items) and links == told & set(items)
        assert told - set(items)  # real ones, which are no files here


def test_answers_are_one_a_detector_and_protocol(run: Path) -> None:
    told = answers(read_measurements(run))
    assert [text.split(" ", 2)[0] for text in told] == ["<sharp>"] * 3 + ["metadata"] * 3
    assert "(fakes of copy) to" in told[2] and "AUC" in told[0]


def judged(detector: str, generator: str, value: float, **labels: str) -> Measurement:
    """An AUC over clips."""
    return Measurement(
        metric="auc",
        value=value,
        higher_is_better=True,
        n_frames=64,
        n_identities=8,
        n_failed=0,
        n_real=32,
        n_fake=32,
        labels={"detector": detector, "generator": generator, "protocol": "P1", "unit": "clip"} | labels,
    )


def run_of(key: str, *rows: Measurement, evidence: str = "e") -> Run:
    return Run(key, f"run-{key}", Path(key), record_of(dataset={"evidence": evidence * 64}), rows)


def texts(table: Table) -> dict[str, dict[str, list[str]]]:
    """What its cells say, by heading and row."""
    return {heading: {name: [cell.text for cell in cells] for name, cells in rows} for heading, rows in table.blocks}


def test_whose_fakes_are_caught_by_whom() -> None:
    rows = [
        judged("grain", "all", 0.8),
        judged("grain", "warp", 0.9),
        judged("grain", "warp", 0.95, shots="8"),
        judged("grain", "warp", 0.6, perturbation="jpeg", level="1"),
        judged("srm", "warp", 0.5),
        judged("srm", "fom", 0.7, protocol="P3"),
    ]
    (table,) = caught_tables([run_of("", *rows)])
    assert table.columns == ("grain", "srm")
    (p1, seen), (p3, unseen) = table.blocks
    assert p1.startswith("P1: ") and p3.startswith("P3: ")
    assert [name for name, _ in seen] == ["warp", "warp, 8 shots"]
    assert [cell.text for cell in seen[0][1]] == ["0.900", "0.500"]
    assert [cell.heat for cell in seen[0][1]] == pytest.approx([0.8, 0.0])
    assert [(name, [cell.text for cell in cells]) for name, cells in unseen] == [("fom", [DASH, "0.700"])]
    assert caught_tables([run_of("", *(row for row in rows if row.labels["detector"] == "grain"))]) == []


def test_runs_of_the_same_clips_share_their_heatmaps() -> None:
    one = run_of("A", judged("grain", "warp", 0.9), judged("metadata", "warp", 0.7))
    other = run_of("B", judged("srm", "warp", 0.8), judged("metadata", "warp", 0.6))
    (table,) = heatmaps([one, other])
    assert table.columns == ("grain", "A · metadata", "srm", "B · metadata")
    (rows,) = texts(table).values()
    assert rows == {"warp": ["0.900", "0.700", "0.800", "0.600"]}
    # AUCs of other clips do not stand beside these.
    elsewhere = run_of("C", judged("grain", "warp", 0.5), judged("srm", "warp", 0.5), evidence="f")
    assert [(table.title.rpartition(": ")[2], table.columns) for table in heatmaps([one, elsewhere, other])] == [
        ("A and B", ("grain", "A · metadata", "srm", "B · metadata")),
        ("C", ("grain", "srm")),
    ]


def test_leaving_one_generator_out_is_one_heatmap_of_all_runs() -> None:
    def trained(detector: str, *values: float) -> list[Measurement]:
        return [
            judged(detector, "warp", values[0], training="all"),
            judged(detector, "fom", values[1], training="without fom", held_out="fom", protocol="P3"),
        ]

    given = judged("given", "warp", 0.9)
    blind = [m.model_copy(update={"value": None, "note": "says 0.5 of everything"}) for m in trained("metadata", 0, 0)]
    table = heatmaps([run_of("A", *trained("srm", 0.9, 0.6), given, *blind), run_of("B", *trained("srm", 0.8, 0.5))])[
        -1
    ]
    assert table.title == "Leave one generator out" and table.columns == ("fom", "warp")
    assert texts(table) == {
        "A · srm": {"all": [DASH, "0.900"], "without fom": ["0.600", DASH]},
        "B · srm": {"all": [DASH, "0.800"], "without fom": ["0.500", DASH]},
    }
    assert matrices([run_of("", given)]) == []


def test_curves_rise_from_nothing_to_everything(run: Path) -> None:
    curves = read_curves(run)
    assert {curve.labels["unit"] for curve in curves} == {"clip", "frame"}
    for curve in curves:
        assert curve.roc[0] == (0, 0) and curve.roc[-1] == (1, 1)
        assert curve.roc == sorted(curve.roc)
        assert sum(each.count for each in curve.reliability) == curve.n_real + curve.n_fake
    with pytest.raises(RunError, match=r"curves\.json' cannot be read"):
        read_curves(run / "nowhere")


def test_theval_report_knows_what_it_is_about(run: Path, tmp_path: Path) -> None:
    assert is_detection([run])
    ran = CliRunner().invoke(theval, ["report", str(run), "-o", str(tmp_path / "page.html")])
    assert ran.exit_code == 0, ran.output
    assert "page.csv" in ran.stdout and "identities" not in ran.stdout
