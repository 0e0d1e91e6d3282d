"""`theval regress`: what fails, what does not, what cannot be compared, and how it is told."""

import json
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner, Result
from scipy import stats

from benchmarks.regress_power import add_noise
from benchmarks.robustness import jpeg
from benchmarks.suite import read_suite
from reports.regression import annotations, write_junit, write_markdown
from tests.test_detection import crowd, scores_of
from tests.test_report import record_of
from thead_eval.baseline import Baseline, conditions_of, differing, make_baseline, read_baseline, write_baseline
from thead_eval.cli import theval
from thead_eval.data import CLIP_SCHEMA
from thead_eval.detection import measure_scores
from thead_eval.errors import ConfigError, RunError
from thead_eval.media import write_clip
from thead_eval.regression import Finding, Judgement, Rules, adjust, judge, read_rules
from thead_eval.results import LeftOut, Measurement, write_measurements, write_run
from thead_eval.synthetic import head_clip
from thead_eval.testing import make_dataset
from thead_eval.types import Clip

ROOT = Path(__file__).parent.parent
CHECKPOINT = ROOT / "generator" / "checkpoints" / "compact.safetensors"
PEOPLE = 12
METRICS = ["ssim", "fid", "psnr", "jitter_dlib68"]
DEFAULTS: dict[str, Any] = {"config": {"metrics": METRICS, "split": "test", "shots": [1], "seed": 0}}


def number(values: Sequence[float | None], metric: str = "ssim", by_group: bool = False, **changes: Any) -> Measurement:
    """A measurement of these people's values; `by_group` as a set metric has it, which has none of a person's own."""
    names = [f"person {index}" for index in range(len(values))]
    known = [value for value in values if value is not None]
    margin = 2 * float(np.std(known, ddof=1)) / len(known) ** 0.5
    left = [LeftOut(identities=(name,), value=(sum(known) - value) / (len(known) - 1))
            for name, value in zip(names, values, strict=True) if by_group and value is not None]  # fmt: skip
    fields: dict[str, Any] = {
        "metric": metric,
        "value": float(np.mean(known)),
        "low": float(np.mean(known)) - margin,
        "high": float(np.mean(known)) + margin,
        "higher_is_better": metric != "fid",
        "n_frames": 32 * len(known),
        "n_identities": len(known),
        "n_failed": 0,
        "labels": {"generator": "warp", "shots": "1"},
        "per_identity": {} if by_group else dict(zip(names, values, strict=True)),
        "left_out": tuple(left),
    }
    return Measurement.model_validate(fields | changes)


def baseline_of(*rows: Measurement, **record: Any) -> Baseline:
    return make_baseline([(record_of(**DEFAULTS | record), rows)])


def judged(baseline: Baseline, *rows: Measurement, rules: Rules | None = None, **record: Any) -> Judgement:
    return judge(baseline, record_of(**DEFAULTS | record), rows, rules)


def only(judgement: Judgement) -> Finding:
    [found] = judgement.findings
    return found


SPREAD = np.linspace(0.5, 0.9, PEOPLE)  # people differ by far more than any change below
WAVER = np.resize([0.01, -0.01], PEOPLE)  # what a person's value changes by chance


def rules_of(folder: Path, text: str) -> Rules:
    path = folder / "gate.toml"
    path.write_text(text)
    return read_rules(path, ["ssim", "fid"])


# What fails.


@pytest.mark.parametrize("by_group", [False, True])
@pytest.mark.parametrize("metric", ["ssim", "fid"])
def test_a_drop_that_is_the_same_for_everyone_fails_though_the_intervals_overlap(metric: str, by_group: bool) -> None:
    before = number(SPREAD.tolist(), metric, by_group)
    worse = 0.04 if metric == "fid" else -0.04
    now = number((SPREAD + worse + WAVER).tolist(), metric, by_group)
    assert before.low is not None and before.high is not None and now.value is not None
    assert before.low < now.value < before.high
    found = only(judged(baseline_of(before), now))
    assert found.outcome == "worse" and judged(baseline_of(before), now).exit_code == 1
    assert found.change is not None and found.change.value == pytest.approx(worse)
    assert only(judged(baseline_of(now), before)).outcome == "better"


def test_values_of_people_and_values_without_them_say_the_same_of_a_mean() -> None:
    """The jackknife of a mean is Student's interval."""
    before, now = SPREAD.tolist(), (SPREAD - 0.03 + WAVER).tolist()
    one = only(judged(baseline_of(number(before)), number(now))).change
    other = only(judged(baseline_of(number(before, by_group=True)), number(now, by_group=True))).change
    assert one == pytest.approx(other, rel=1e-4)  # both have seven digits


def test_a_drop_that_may_be_chance_or_is_within_the_tolerance_passes() -> None:
    before = number(SPREAD.tolist())
    by_chance = number((SPREAD - 0.04 + 10 * WAVER).tolist())
    assert only(judged(baseline_of(before), by_chance)).why == "may be chance"
    small = number((SPREAD - 0.01 + 0.1 * WAVER).tolist())
    assert only(judged(baseline_of(before), small)).why == "within the tolerance"
    assert only(judged(baseline_of(before), small, rules=Rules(share=0.01))).outcome == "worse"


def test_what_should_be_near_zero_is_judged_by_its_distance_to_it() -> None:
    settings: dict[str, Any] = {"metric": "jitter_dlib68", "higher_is_better": None}
    trembling, still, far = (number((SPREAD - 0.7 + level).tolist(), **settings) for level in (0.5, 0.2, -0.8))
    assert only(judged(baseline_of(still), trembling)).outcome == "worse"
    assert only(judged(baseline_of(trembling), still)).outcome == "better"
    assert only(judged(baseline_of(trembling), far)).outcome == "worse"


def test_what_is_no_longer_judged_fails_and_is_named() -> None:
    before = number(SPREAD.tolist())
    nothing = before.model_copy(update={"value": None, "note": "weights are not there; run 'theval weights fetch x'"})
    without: list[float | None] = [None, *SPREAD[1:].tolist()]
    cases = {
        "weights are not there": nothing,
        "no longer judged: person 0": number(without),
        "20.0% of the frames": before.model_copy(update={"n_failed": 96}),
    }
    for why, now in cases.items():
        judgement = judged(baseline_of(before), now)
        assert only(judgement).outcome == "missing" and why in only(judgement).why and judgement.exit_code == 1
    assert only(judged(baseline_of(before))).why == "the run does not have it"
    groups = number(SPREAD.tolist(), "fid", by_group=True)
    fewer = number(SPREAD[:-1].tolist(), "fid", by_group=True)
    assert only(judged(baseline_of(groups), fewer)).why == "no longer judged: person 11"


def test_a_number_of_more_people_that_has_no_value_of_each_is_not_comparable() -> None:
    fewer, more = (number(SPREAD[:count].tolist(), "fid", by_group=True) for count in (PEOPLE - 1, PEOPLE))
    judgement = judged(baseline_of(fewer), more)
    assert only(judgement).outcome == "other people" and judgement.exit_code == 2
    # Where each person has a value, those of both are compared.
    assert judged(baseline_of(number([None, *SPREAD[1:].tolist()])), number(SPREAD.tolist())).exit_code == 0


def test_one_person_says_nothing_and_is_no_success() -> None:
    alone = number([0.5, 0.6]).model_copy(update={"per_identity": {"person 0": 0.5}, "low": None, "high": None})
    judgement = judged(baseline_of(alone), alone)
    assert only(judgement).outcome == "not compared" and judgement.exit_code == 2


def test_a_floor_holds_whatever_the_baseline_says(tmp_path: Path) -> None:
    before = number(SPREAD.tolist())
    rules = rules_of(tmp_path, "[ssim]\nfloor = 0.75\n")
    assert only(judged(baseline_of(before), before, rules=rules)).why == "worse than the floor of 0.75"
    assert (
        only(judged(baseline_of(before), before, rules=rules_of(tmp_path, "[ssim]\nfloor = 0.65\n"))).outcome == "same"
    )
    ceiling, distance = rules_of(tmp_path, "[fid]\nfloor = 0.6\n"), number(SPREAD.tolist(), "fid")
    assert only(judged(baseline_of(distance), distance, rules=ceiling)).outcome == "below floor"


# Chance.


def test_p_is_adjusted_as_scipy_does() -> None:
    p = np.random.default_rng(0).uniform(size=50) ** 3
    assert adjust(p.tolist()) == pytest.approx(stats.false_discovery_control(p))
    assert adjust([]) == []


def reruns(random: np.random.Generator, base: np.ndarray[Any, np.dtype[np.float64]]) -> list[Measurement]:
    """Many numbers of one run: a person's frames were drawn anew, which moves all of theirs a little, and together."""
    together = random.normal(0, 0.01, base.shape[1])
    noise = together + random.normal(0, 0.01, base.shape)
    return [
        number(row.tolist(), by_group=index % 3 == 0, labels={"generator": f"g{index}"})
        for index, row in enumerate(base + noise)
    ]


def test_twenty_reruns_raise_no_alarm_that_a_real_drop_does() -> None:
    """Sixty numbers a run, no tolerance: by their own intervals alone, most runs would fail."""
    random = np.random.default_rng(0)
    base = random.normal(0.7, 0.1, (60, PEOPLE))
    baseline = baseline_of(*reruns(random, base))
    judgements = [judged(baseline, *reruns(random, base), rules=Rules(share=0.0)) for _ in range(20)]
    alarms = sum(judgement.exit_code for judgement in judgements)
    by_themselves = sum(any(f.change.high < 0 for f in j.findings if f.change) for j in judgements)
    assert alarms <= 1 < 5 <= by_themselves
    worse = base.copy()
    worse[:6] -= 0.05
    caught = judged(baseline, *reruns(random, worse), rules=Rules(share=0.0)).failing
    assert {found.labels["generator"] for found in caught} >= {f"g{index}" for index in range(6)}


def test_a_baseline_of_several_runs_allows_what_they_differ_by() -> None:
    """A detector trained anew is better or worse for everyone, which no number of people tells from a change."""
    trainings = [[number((SPREAD + shift).tolist())] for shift in (0.0, 0.02, -0.02)]
    retrained = number((SPREAD - 0.035 + 0.1 * WAVER).tolist())
    record = record_of(**DEFAULTS)
    assert judged(make_baseline([(record, trainings[0])]), retrained).exit_code == 1
    several = make_baseline([(record, rows) for rows in trainings])
    assert several.numbers[0].spread == pytest.approx(0.02)
    assert judged(several, retrained).exit_code == 0
    assert judged(several, number((SPREAD - 0.12 + WAVER).tolist())).exit_code == 1


def test_rounding_is_no_change() -> None:
    """Every head alike, so that no interval is left: sums in another order must not be taken for a drop."""
    before = number([0.7] * PEOPLE)
    assert judged(baseline_of(before), number([0.7 - 1e-7] * PEOPLE)).exit_code == 0
    assert judged(baseline_of(before), number([0.69] * PEOPLE)).exit_code == 1


# Runs that cannot be compared.


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"dataset": {"sha256": "e" * 64}}, "data: the baseline's has sha256 dddddddddddd, the run's eeeeeeeeeeee"),
        ({"config": {**DEFAULTS["config"], "shots": [1, 8]}}, "shots: 1 in the baseline, 1,8 in the run"),
        ({"config": {**DEFAULTS["config"], "metrics": ["ssim"]}}, "metrics: the run was not asked for fid"),
        ({"weights": {"dlib_68": "0" * 64}}, "weights of dlib_68: sha256 ffffffffffff in the baseline"),
        ({"config": {"detection": True}}, "the run of 'theval detect eval'"),
    ],
)  # fmt: skip
def test_other_data_settings_metrics_and_weights_are_refused(changes: dict[str, Any], reason: str) -> None:
    judgement = judged(baseline_of(number(SPREAD.tolist())), number(SPREAD.tolist()), **changes)
    assert judgement.exit_code == 2 and not judgement.findings
    assert any(reason in each for each in judgement.differing)


def test_seeds_versions_and_more_metrics_do_no_harm() -> None:
    config = {**DEFAULTS["config"], "metrics": [*METRICS, "kid"]}
    more = number(SPREAD.tolist(), "kid", by_group=True)
    changed: dict[str, Any] = {"seed": 9, "packages": {"theval": "0.1.0", "torch": "2.15.0"}, "config": config}
    judgement = judged(baseline_of(number(SPREAD.tolist())), number(SPREAD.tolist()), more, **changed)
    assert judgement.exit_code == 0 and [found.outcome for found in judgement.findings] == ["same", "new"]
    assert judgement.also == ("seed 7 → 9", "torch 2.14.1 → 2.15.0")


def test_a_generators_checkpoint_is_what_is_judged_and_is_named() -> None:
    def config(**checkpoints: str) -> dict[str, Any]:
        return {"config": {**DEFAULTS["config"], "checkpoints": {name: c * 64 for name, c in checkpoints.items()}}}

    row = number(SPREAD.tolist())
    judgement = judged(baseline_of(row, **config(warp="a", fewshot="a")), row, **config(fewshot="b", added="b"))
    assert judgement.exit_code == 0 and judgement.also == (f"checkpoint of fewshot {'a' * 12} → {'b' * 12}",)
    several = make_baseline([(record_of(**DEFAULTS | config(fewshot=c, fixed="f")), [row]) for c in "ab"])
    assert several.origin.checkpoints == {"fixed": "f" * 64}  # what they share


def test_what_may_differ_all_the_same_is_named() -> None:
    one, other = (conditions_of(record_of(**DEFAULTS, dataset={"sha256": letter * 64})) for letter in "de")
    assert differing(one, other) and not differing(one, other, ["data"])


def test_detectors_are_the_thing_judged_and_not_an_instrument() -> None:
    asked = {"detection": True, "perturbations": ["jpeg"], "frames": 8}
    before = record_of(config=asked, dataset={"evidence": "a" * 64}, weights={"efflite0": "1" * 64})
    now = record_of(
        config={**asked, "perturbations": []}, dataset={"evidence": "a" * 64}, weights={"efflite0": "2" * 64}
    )
    assert differing(conditions_of(before), conditions_of(now)) == ["perturbations: the run was not asked for jpeg"]
    assert not differing(conditions_of(now), conditions_of(before))


# The file, and the rules.


def test_a_baseline_is_one_small_file_that_comes_back(tmp_path: Path) -> None:
    rows = [
        number(SPREAD.tolist(), labels={"generator": f"g{index}", "shots": "1"}, by_group=index % 2 == 0)
        for index in range(40)
    ]
    rows.append(number([None, *SPREAD[1:].tolist()], "psnr"))
    path = tmp_path / "gate" / "baseline.json"
    write_baseline(path, baseline_of(*rows))
    again = read_baseline(path)
    judgement = judge(again, record_of(**DEFAULTS), rows)
    assert judgement.exit_code == 0
    changes = [found.change.value for found in judgement.findings if found.change]
    assert changes == [0] * len(rows)  # and not 1e-8, as the file has fewer digits
    assert [n.measurement.per_identity.keys() for n in again.numbers] == [row.per_identity.keys() for row in rows]
    assert [n.measurement.value for n in again.numbers] == pytest.approx([row.value for row in rows], rel=1e-6)
    text = path.read_text()
    assert len(text) < 300 * len(rows) + 3000 and text.count("\n") > len(rows)  # a line a number, to read in a diff
    assert "dataset" not in json.loads(text)  # no path of this machine


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "is no baseline"), ("[]", "is no baseline"), ('{"schema": 9}', "has schema 9"), (None, "does not exist")],
)
def test_what_is_no_baseline_is_one_sentence(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "baseline.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(RunError, match=message):
        read_baseline(path)


def test_nothing_and_unlike_runs_make_no_baseline() -> None:
    rows = [number(SPREAD.tolist())]
    with pytest.raises(RunError, match="no number to compare with"):
        baseline_of()
    with pytest.raises(RunError, match="runs cannot make one baseline: data"):
        make_baseline([(record_of(**DEFAULTS), rows), (record_of(**DEFAULTS, dataset={"sha256": "e" * 64}), rows)])


def test_rules_say_what_is_compared_and_allowed(tmp_path: Path) -> None:
    rules = rules_of(tmp_path, "[gate]\nmetrics = ['ssim']\nshare = 0.5\nfailed = 0.1\n[ssim]\ntolerance = 0.05\n")
    before, now = number(SPREAD.tolist()), number((SPREAD - 0.04 + WAVER).tolist(), n_failed=20)
    judgement = judged(baseline_of(before, number(SPREAD.tolist(), "fid")), now, rules=rules)
    assert only(judgement).tolerance == 0.05 and judgement.exit_code == 0
    asked = {**DEFAULTS["config"], "metrics": ["ssim"]}  # what is not compared need not be there
    assert judged(baseline_of(before), before, rules=rules, config=asked).exit_code == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[sim]\nfloor = 1\n", "unknown section 'sim'; did you mean 'ssim'"),
        ("[ssim]\nflor = 1\n", "did you mean 'floor'"),
        ("[ssim]\ntolerance = -1\n", "tolerance in .ssim. must be a number from 0, not -1"),
        ("[gate]\nshare = 'all'\n", "share in .gate. must be a number"),
        ("[gate]\nmetrics = ['psnr']\n", "no number of the baseline or the run is named 'psnr'"),
        ("[gate]\nmetrics = 'ssim'\n", "must be a list of names"),
        ("floor", "is not TOML"),
    ],
)
def test_wrong_rules_are_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        rules_of(tmp_path, text)


# How it is told.

HOSTILE = "<img src=x onerror=alert(1)>|`x`%0A::error::,\x1b[31m"


@pytest.fixture
def failing() -> Judgement:
    """A number that is worse, one better, ten that are gone, one that is new; of a generator with a bad name."""
    before = [number(SPREAD.tolist(), labels={"generator": HOSTILE, "shots": "1"}), number(SPREAD.tolist(), "fid")]
    gone = [number(SPREAD.tolist(), labels={"generator": f"gone{index}"}) for index in range(10)]
    now = [
        number((SPREAD - 0.04 + WAVER).tolist(), labels={"generator": HOSTILE, "shots": "1"}),
        number((SPREAD - 0.04 + WAVER).tolist(), "fid"),
        number(SPREAD.tolist(), labels={"generator": "new"}),
    ]
    return judged(baseline_of(*before, *gone), *now)


def test_markdown_has_the_failures_first_and_names_stay_text(failing: Judgement) -> None:
    text = write_markdown(failing)
    assert text.startswith("### \u274c theval regress") and "11 numbers fail; 2 numbers compared" in text
    first = next(line for line in text.splitlines() if line.startswith("| worse"))
    assert "&lt;img src=x onerror=alert(1)&gt;" in first and "<img" not in text
    assert first.count("|") == 8 and "`" not in first
    assert "<details><summary>1 worse, 10 missing, 1 better, 1 new</summary>" in text


def test_junit_counts_and_is_xml_whatever_the_names(failing: Judgement) -> None:
    suite = ET.fromstring(write_junit(failing).encode())
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "13", "failures": "11", "errors": "0", "skipped": "1"
    }  # fmt: skip
    assert next(case.get("classname") for case in suite.findall("testcase[failure]")) == "theval.ssim"


def test_annotations_are_ten_at_most_and_each_one_line(failing: Judgement) -> None:
    lines = annotations(failing, "gate,1.json")
    assert len(lines) == 10 and lines[-1].endswith("::2 more numbers fail")
    assert all(line.startswith("::error file=gate%2C1.json,title=theval ") and "\n" not in line for line in lines)
    assert "%250A%3A%3Aerror" in lines[0] or "%250A::error" in lines[0]  # its own percent is escaped


# The command.


def regress(*arguments: object, **environment: str) -> Result:
    return CliRunner(env={"GITHUB_ACTIONS": "", **environment}).invoke(theval, ["regress", *map(str, arguments)])


def run_of(path: Path, *rows: Measurement, **record: Any) -> Path:
    path.mkdir(parents=True)
    write_measurements(path, list(rows))
    write_run(path, record_of(**DEFAULTS | record))
    return path


def test_the_command_from_baseline_to_exit_code(tmp_path: Path) -> None:
    file = tmp_path / "baseline.json"
    before = run_of(tmp_path / "before", number(SPREAD.tolist()))
    made = regress(before, "--baseline", file, "--update-baseline")
    assert made.exit_code == 0 and "1 numbers" in made.stdout and "commit it" in made.stdout
    same = regress(before, "--baseline", file)
    assert same.exit_code == 0 and "Nothing is worse; 1 number compared" in same.stdout
    after = run_of(tmp_path / "after", number((SPREAD - 0.04 + WAVER).tolist()))
    outputs = ("--markdown", tmp_path / "to" / "gate.md", "--junit", tmp_path / "to" / "gate.xml")
    worse = regress(after, "--baseline", file, *outputs, GITHUB_ACTIONS="true")
    assert worse.exit_code == 1 and "::error file=" in worse.stdout and "worse" in worse.stdout
    assert "| worse |" in outputs[1].read_text() and "<failure" in outputs[3].read_text()
    told = regress(after, "--baseline", file, "--json", GITHUB_ACTIONS="true")
    assert json.loads(told.stdout)["findings"][0]["outcome"] == "worse" and "::error" in told.stderr
    data = {"sha256": "e" * 64, "detector": "dlib", "landmarks": "dlib"}
    other = run_of(tmp_path / "other", number(SPREAD.tolist()), dataset=data)
    refused = regress(other, "--baseline", file)
    assert refused.exit_code == 2 and "Not comparable: data: " in refused.stdout
    assert regress(other, "--baseline", file, "--despite", "data").exit_code == 0
    assert regress(before, after, "--baseline", file, "--update-baseline").exit_code == 0


def test_what_the_command_refuses(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", number(SPREAD.tolist()))
    half = run_of(tmp_path / "half", number(SPREAD.tolist()), status="scoring")
    file = tmp_path / "baseline.json"
    for arguments, message in (
        ((tmp_path / "none",), "does not exist"),
        ((half,), "is not complete"),
        ((run,), "--update-baseline'"),
        ((run, run), "compare one"),
        ((run, "--update-baseline", "--junit", "x.xml"), "compares nothing"),
        ((run, "--junit", "x.mp4"), "must end in .xml"),
    ):
        refused = regress(*arguments, "--baseline", file)
        assert isinstance(refused.exception, ConfigError | RunError) and message in str(refused.exception)


def test_the_committed_baselines_are_of_the_suite_that_ci_runs() -> None:
    suite = read_suite("quick")
    asked, trained = suite.commands["score"], suite.evals["numbers"]
    score, detectors = (read_baseline(ROOT / "benchmarks" / f"{name}.json") for name in ("gate", "gate-detectors"))
    assert (score.conditions.kind, detectors.conditions.kind) == ("score", "detect eval")
    assert set(score.conditions.metrics) == set(asked["metrics"])
    assert score.conditions.settings["shots"] == asked["shots"]
    assert {n.measurement.labels["generator"] for n in score.numbers} == set(asked["generator"])
    assert {n.measurement.labels["detector"] for n in detectors.numbers} == set(trained["detector"])
    assert {n.measurement.labels["protocol"] for n in detectors.numbers} == set(trained["protocol"])
    assert detectors.conditions.settings["frames"] == trained["frames"]


# The real thing, small; benchmarks/regress_power.py measures more of it.


def test_a_detector_that_learnt_less_is_caught_and_reruns_pass(tmp_path: Path) -> None:
    clips = crowd(people=40, gap=2.5)
    random = np.random.default_rng(3)
    record = record_of(config={"detection": True}, dataset={"evidence": "a" * 64})

    def asked(part: float, noise: float) -> list[Measurement]:
        """Of a detector that sees so much of what tells fakes apart, on frames that were drawn anew."""
        means = {item: part * mean + noise * random.normal() for item, mean in clips.items()}
        return measure_scores(scores_of(tmp_path, means), 0, lambda *_: None)

    baseline = make_baseline([(record, asked(1, 0.2))])
    assert {n.measurement.metric for n in baseline.numbers} >= {"auc", "tpr_at_5", "ece"}
    assert all(n.measurement.left_out for n in baseline.numbers)
    assert sum(judge(baseline, record, asked(1, 0.2)).exit_code for _ in range(4)) <= 1
    assert "auc" in {found.metric for found in judge(baseline, record, asked(0.1, 1.0)).failing}


@pytest.mark.slow
def test_jpeg_on_the_fakes_is_caught_and_another_machine_is_not(tmp_path: Path) -> None:
    """Fakes of eight heads through `theval score`: again with other seed and threads, through a JPEG, and one gone."""
    for index in range(8):
        real, _ = head_clip(index, 3, 64)
        noise = torch.randn(real.frames.shape, generator=torch.Generator().manual_seed(index))
        fake = (real.frames + 4 * noise).clamp(0, 255).byte()
        for folder, frames in (("real", real.frames), ("fakes/warp/1", fake), ("worse/warp/1", jpeg(fake, 5, 0))):
            path = tmp_path / folder / f"head{index}.mkv"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_clip(path, Clip(path.stem, frames, 25.0), lossless=True)

    def scored(fakes: str, out: str, seed: int, metrics: str = "ssim,l1,fd_efflite0") -> Path:
        command = ["score", "--fakes", tmp_path / fakes, "--reals", tmp_path / "real", "--out", tmp_path / out]
        settings = ["--metrics", metrics, "--workers", 1, "--seed", seed]
        CliRunner().invoke(theval, list(map(str, [*command, *settings])), catch_exceptions=False)
        return tmp_path / out

    file = tmp_path / "baseline.json"
    threads = torch.get_num_threads()
    assert regress(scored("fakes", "before", 0), "--baseline", file, "--update-baseline").exit_code == 0
    torch.set_num_threads(2 if threads == 1 else 1)
    try:
        again = scored("fakes", "again", 5)
    finally:
        torch.set_num_threads(threads)
    assert regress(again, "--baseline", file).exit_code == 0
    caught = json.loads(regress(scored("worse", "after", 0), "--baseline", file, "--json").stdout)
    assert caught["exit_code"] == 1 and caught["compared"] == 3
    assert {found["metric"] for found in caught["findings"] if found["outcome"] == "worse"} >= {"ssim", "l1"}
    (tmp_path / "fakes" / "warp" / "1" / "head3.mkv").unlink()
    rules = tmp_path / "gate.toml"
    rules.write_text("[gate]\nmetrics = ['ssim']\n")
    told = regress(scored("fakes", "gone", 0, "ssim"), "--baseline", file, "--config", rules, "--json")
    assert [found["why"] for found in json.loads(told.stdout)["findings"]] == ["no longer judged: head3"]


def ran(*arguments: object) -> None:
    """A command of theval that goes well."""
    CliRunner().invoke(theval, list(map(str, arguments)), catch_exceptions=False)


@pytest.mark.slow
def test_noise_in_a_generators_checkpoint_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bundled checkpoint on procedural heads, and the same with noise of twice the spread of its weights."""
    make_dataset(tmp_path / "heads", identities=6, frames=80, size=64)
    add_noise(CHECKPOINT, tmp_path / "noised.safetensors", 2.0)

    def scored(checkpoint: Path) -> Path:
        monkeypatch.setenv("THEVAL_CHECKPOINT", str(checkpoint))
        told = ("--generator", "fewshot_ff", "--shots", 1, "--metrics", "ssim,l1,perc_efflite0", "--workers", 1)
        ran("score", "--data", tmp_path / "heads", *told, "--out", tmp_path / checkpoint.stem)
        return tmp_path / checkpoint.stem

    file = tmp_path / "baseline.json"
    assert regress(scored(CHECKPOINT), "--baseline", file, "--update-baseline").exit_code == 0
    caught = regress(scored(tmp_path / "noised.safetensors"), "--baseline", file, "--json")
    assert caught.exit_code == 1
    told = json.loads(caught.stdout)
    assert {found["metric"]: found["outcome"] for found in told["findings"]} == dict.fromkeys(
        ("ssim", "l1", "perc_efflite0"), "worse"
    )
    assert any("checkpoint of fewshot_ff" in line for line in told["also_differs"])


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_detector_of_a_tenth_of_the_steps_is_caught_and_another_seed_is_not(tmp_path: Path) -> None:
    """Trained and judged by the commands: a baseline of four seeds, as docs/regress.md advises."""
    data, fakes = tmp_path / "heads", tmp_path / "fakes"
    make_dataset(data, identities=40, frames=80, size=64)
    rows = pq.read_table(data / "clips.parquet").to_pylist()
    splits = ["train", "test", "train", "test", "val"]
    rows = [row | {"split": splits[index % len(splits)]} for index, row in enumerate(rows)]
    pq.write_table(pa.Table.from_pylist(rows, CLIP_SCHEMA), data / "clips.parquet")
    ran("generate", "--data", data, "--split", "all", "--generator", "warp", "--shots", 1, "-o", fakes)
    recipe = tmp_path / "small.toml"
    recipe.write_text("[network]\nsize = 64\n[train]\nbatch = 16\nframes = 8\nvalidate_every = 20\nwarmup = 5\n")

    def judged(seed: int, steps: int) -> Path:
        told = ("--data", data, "--fakes", fakes)
        trained, run = tmp_path / f"trained-{seed}-{steps}", tmp_path / f"judged-{seed}-{steps}"
        settings = ("--config", recipe, "--seed", seed, "--steps", steps, "--precision", "32-true", "--device", "cpu")
        ran("detect", "train", *told, "--detector", "efflite0", *settings, "--out", trained)
        ran("detect", "eval", *told, "--detector", trained, "--frames", 8, "--out", run)
        return run

    file = tmp_path / "baseline.json"
    assert regress(*(judged(seed, 60) for seed in range(4)), "--baseline", file, "--update-baseline").exit_code == 0
    assert regress(judged(4, 60), "--baseline", file).exit_code == 0
    caught = regress(judged(4, 6), "--baseline", file, "--json")
    assert caught.exit_code == 1
    worse = {found["metric"] for found in json.loads(caught.stdout)["findings"] if found["outcome"] == "worse"}
    assert "auc" in worse
