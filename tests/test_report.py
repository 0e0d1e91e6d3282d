"""`theval report`: what the page and the CSV hold, for runs of every kind, and what it refuses."""

import base64
import csv
import json
import re
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray

from reports.clips import clip_links
from reports.differences import Difference, compare
from reports.leaderboard import of_generators
from reports.numbers import digits, write_number
from reports.page import write_report
from reports.plots import fooled, trend_runs, trends
from reports.runs import Condition, open_runs
from reports.tables import marks
from thead_eval.cli import theval
from thead_eval.errors import RunError
from thead_eval.judging import Pair, PairSet, RealClip, write_pairs
from thead_eval.media import write_clip
from thead_eval.results import Failure, LeftOut, Measurement, RunRecord, write_measurements, write_run
from thead_eval.run import RunFolder
from thead_eval.synthetic import head_clip
from thead_eval.types import Clip

DOCS = Path(__file__).parent.parent / "docs"
TARGETS = 4  # frames of a target clip
SIZE = 64

# name: higher is better, unit, copy's value, warp's, spread between people
METRICS: dict[str, tuple[bool, str, float, float, float]] = {
    "ssim": (True, "", 0.62, 0.71, 0.05),
    "psnr": (True, "dB", 19.4, 21.6, 1.6),
    "csim_mobilefacenet": (True, "cosine", 0.78, 0.74, 0.06),
    "nme_dlib68": (False, "inter-ocular", 0.081, 0.034, 0.012),
}
SET_METRICS: dict[str, tuple[bool, str, float, float]] = {"fd_efflite0": (False, "", 14.2, 19.8)}
UNSCORED = {"fid": "'pt_inception.pth' is not at <weights>; run 'theval weights fetch fid_inception'"}


def measurements_of(
    people: Sequence[str],
    generators: Sequence[str] = ("copy", "warp"),
    shots: Sequence[str | None] = ("1", "8", "32"),
    seed: int = 0,
) -> list[Measurement]:
    """What a run would measure: plausible numbers, not computed from any frame."""
    rng = np.random.default_rng(seed)
    n_frames = TARGETS * len(people)
    rows = []
    for place, count in enumerate(shots):
        for index, generator in enumerate(generators):
            labels = {"generator": generator} | ({"shots": count} if count else {})
            common: dict[str, Any] = {"labels": labels, "n_identities": len(people), "n_failed": 0}
            for name, (higher, unit, *means, spread) in METRICS.items():
                mean = means[index % 2] + (0.4 if higher else -0.4) * spread * place
                own = rng.normal(mean, spread, len(people))
                error = 1.96 * spread / len(people) ** 0.5
                rows.append(
                    Measurement(
                        metric=name,
                        value=float(own.mean()),
                        low=float(own.mean() - error) if len(people) > 1 else None,
                        high=float(own.mean() + error) if len(people) > 1 else None,
                        unit=unit,
                        higher_is_better=higher,
                        n_frames=n_frames,
                        n_effective=n_frames / 3.7,
                        per_identity=dict(zip(people, own.tolist(), strict=True)),
                        note="" if len(people) > 1 else "no interval: one identity",
                        **common,
                    )
                )
            for name, (higher, unit, *distances) in SET_METRICS.items():
                value = distances[index % 2] - 1.3 * place
                rows.append(
                    Measurement(
                        metric=name,
                        value=value,
                        low=value - 2.5 if len(people) > 1 else None,
                        high=value + 2.5 if len(people) > 1 else None,
                        unit=unit,
                        higher_is_better=higher,
                        n_frames=n_frames,
                        noise_floor=9.7,
                        note="small sample: below 2048 frames the value depends on how many there are",
                        **common,
                    )
                )
            for name, why in UNSCORED.items():
                none = {**common, "n_identities": 0}
                rows.append(Measurement(metric=name, value=None, higher_is_better=False, n_frames=0, note=why, **none))
    for pair, value, sd in (("same person", 0.84, 0.07), ("different people", 0.06, 0.1)):
        rows.append(
            Measurement(
                metric="csim_mobilefacenet",
                value=value,
                sd=sd,
                higher_is_better=True,
                n_frames=600,
                n_identities=len(people),
                n_failed=0,
                labels={"generator": "real", "pair": pair},
                note="600 pairs of real frames; the two are told apart with AUC 0.998",
            )
        )
    return rows


def record_of(**changes: Any) -> RunRecord:
    """A finished run's record."""
    fields: dict[str, Any] = {
        "command": ["theval", "score", "--data", "dataset", "--out", "run"],
        "config": {"data": "dataset", "shots": [1, 8, 32], "generators": ["copy", "warp"]},
        "status": "complete",
        "started": "2026-11-22T03:14:15Z",
        "seconds": 1234.5,
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "dirty": False,
        "packages": {"theval": "0.1.0", "torch": "2.14.1"},
        "python": "3.11.7",
        "device": "cpu",
        "seed": 7,
        "dataset": {"path": "dataset", "sha256": "d" * 64, "detector": "dlib", "landmarks": "dlib"},
        "weights": {"dlib_68": "f" * 64},
        "failures": [],
    }
    return RunRecord.model_validate(fields | changes)


def make_run(path: Path, measurements: Sequence[Measurement], record: RunRecord, heads: int = 0) -> Path:
    """A run folder; its first `heads` people have clips, landmarks and frame values."""
    path.mkdir(parents=True)
    folder = RunFolder(path, record.started, 0.0)
    conditions = {(m.labels["generator"], m.labels["shots"]): m.labels for m in measurements if "shots" in m.labels}
    people = list(dict.fromkeys(name for m in measurements for name in m.per_identity))[:heads]
    rows: dict[str, list[Any]] = {name: [] for name in ("generator", "shots", "identity", "clip", "index", *METRICS)}
    for seed, person in enumerate(people):
        clip, landmarks = head_clip(seed, TARGETS + 1, SIZE)
        target, points = clip.take(range(1, TARGETS + 1)), landmarks.take(range(1, TARGETS + 1))
        for file in (folder.real(person), folder.support(person), folder.landmarks(person)):
            file.parent.mkdir(parents=True, exist_ok=True)
        write_clip(folder.real(person), target, lossless=True)
        write_clip(folder.support(person), clip.take([0]), lossless=True)
        np.save(folder.landmarks(person), points.points.numpy())
        for generator, shots in conditions:
            fake = folder.clip(generator, shots, person)
            fake.parent.mkdir(parents=True, exist_ok=True)
            frames = clip.frames[:1].expand(TARGETS, -1, -1, -1) if generator == "copy" else target.frames.roll(1, 3)
            write_clip(fake, Clip(person, frames, 25.0), lossless=True, synthetic=generator)
            for index in range(TARGETS):
                values = {
                    "generator": generator,
                    "shots": int(shots),
                    "identity": person,
                    "clip": person,
                    "index": index,
                }
                for name in METRICS:
                    found = [m for m in measurements if m.metric == name and m.labels.get("shots") == shots]
                    own = next(m.per_identity[person] for m in found if m.labels["generator"] == generator)
                    values[name] = (own or 0.0) + 0.01 * (index - 2)
                for name, value in values.items():
                    rows[name].append(value)
    if people:
        pq.write_table(pa.table(rows), path / "frames.parquet")
    write_measurements(path, list(measurements))
    write_run(path, record)
    return path


PEOPLE = [f"person{number:03d}" for number in range(12)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two generators at three numbers of shots, with clips of four of its people."""
    failures = [
        Failure(item="person100", labels={"generator": "warp", "shots": "1"}, reason="NoFaceFound: no landmarks"),
        Failure(item="person101", labels={"generator": "warp", "shots": "1"}, reason="NoFaceFound: no landmarks"),
        Failure(item="person102", reason="too short: 40 frames, 80 are needed"),
    ]
    path = tmp_path_factory.mktemp("runs") / "first"
    # Every person has a value, four have clips: the strips of the others say so.
    return make_run(path, measurements_of(PEOPLE), record_of(failures=failures), heads=4)


@pytest.fixture(scope="module")
def page(run: Path) -> str:
    written = write_report([run], run.parent / "out" / "report.html")
    return written.html.read_text(encoding="utf-8")


def report(*arguments: object) -> Result:
    return CliRunner().invoke(theval, ["report", *map(str, arguments)])


def test_of_a_run_that_is_not_there_nothing_is_written(tmp_path: Path) -> None:
    for more in ([], ["-o", tmp_path / "pages" / "report.html"]):
        assert isinstance(report(tmp_path / "nowhere", *more).exception, RunError)
    assert list(tmp_path.iterdir()) == []


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


class Elements(HTMLParser):
    """Every start tag with its attributes, and all text that a reader sees."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def of(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_loads_nothing_from_outside(page: str) -> None:
    for tag, attributes in Elements(page).tags:
        for name in ("src", "srcset", "poster", "data", "action", "xlink:href"):
            assert attributes.get(name, "data:").startswith("data:"), (tag, attributes)
        if tag != "a":
            assert "href" not in attributes, (tag, attributes)
    assert Elements(page).of("script") == [{}] and not Elements(page).of("link")  # our own, in the page
    assert "@import" not in page and not re.search(r"url\(\s*['\"]?(?!data:)", page)


def test_is_small(page: str) -> None:
    assert len(page.encode()) < 4_000_000


def test_same_runs_give_same_bytes(run: Path, page: str) -> None:
    again = write_report([run], run.parent / "out" / "report.html")
    assert again.html.read_text(encoding="utf-8") == page


def test_points_lead_to_clips(run: Path, page: str) -> None:
    links = {unquote(a["href"]) for a in Elements(page).of("a") if a["href"].endswith(".mkv")}
    found = {(run.parent / "out" / link).resolve() for link in links}
    fakes = {path.resolve() for path in (run / "clips").rglob("*.mkv") if path.parent.name.isdecimal()}
    assert found == fakes and len(found) == 4 * 2 * 3  # people with clips, generators, numbers of shots
    assert "person000 0" in page  # who it is, and the value


def test_points_of_clips_elsewhere_lead_there(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", measurements_of(["anna", "b/ö #1"]), record_of())
    fake = tmp_path / "mine" / "b ö #1.mp4"
    fake.parent.mkdir()
    fake.touch()
    labels = {"generator": "warp", "shots": "8"}
    real = RealClip("real", "b/ö #1", "b/ö #1", tmp_path / "gone.mp4")
    pair = Pair("warp-8", labels, "b/ö #1", "b/ö #1", fake, real)
    write_pairs(path, PairSet([pair], [], [], [], {}))
    links = clip_links(open_runs([path]), tmp_path / "out" / "report.html")
    assert links == {Condition("", "warp", "8"): {"b/ö #1": "../mine/b%20%C3%B6%20%231.mp4"}}


def test_holds_every_metric_and_value(page: str) -> None:
    rows = measurements_of(PEOPLE)
    text = Elements(page).text
    for name in [*METRICS, *SET_METRICS, *UNSCORED]:
        own = [m for m in rows if m.metric == name]
        assert name in text
        style = digits(m.value for m in own if "pair" not in m.labels)
        for measurement in own:
            for value in (measurement.value, measurement.low, measurement.high, measurement.noise_floor):
                assert value is None or write_number(value, style) in text, (name, value)


def test_csv_equals_json(run: Path, page: str) -> None:
    folder = run.parent / "out"
    stored = json.loads((run / "measurements.json").read_text())["measurements"]
    rows = read_csv(folder / "report.csv")
    assert len(rows) == len(stored)
    as_json = {(m["metric"], *sorted(m["labels"].values())): m for m in stored}
    for row in rows:
        labels = [row[name] for name in ("generator", "shots", "pair") if row[name]]
        measurement = as_json[row["metric"], *sorted(labels)]
        for name in ("value", "low", "high", "sd", "n_effective", "noise_floor"):
            assert (float(row[name]) if row[name] else None) == measurement[name], name
        for name in ("n_frames", "n_identities", "n_failed"):
            assert int(row[name]) == measurement[name]
        assert (row["note"], row["unit"]) == (measurement["note"], measurement["unit"])
        assert row["higher_is_better"] == str(measurement["higher_is_better"]).lower()


def test_csv_of_people_equals_json(run: Path, page: str) -> None:
    stored = json.loads((run / "measurements.json").read_text())["measurements"]
    rows = read_csv(run.parent / "out" / "report-identities.csv")
    assert len(rows) == len(PEOPLE) * 6
    values = {(r["generator"], r["shots"], r["identity"]): r for r in rows}
    for measurement in stored:
        for person, value in measurement["per_identity"].items():
            row = values[measurement["labels"]["generator"], measurement["labels"]["shots"], person]
            assert float(row[measurement["metric"]]) == value


def test_page_carries_the_same_csv(run: Path, page: str) -> None:
    links = {a["download"]: a["href"] for a in Elements(page).of("a") if "download" in a}
    for name in ("report.csv", "report-identities.csv"):
        inside = base64.b64decode(links[name].partition("base64,")[2]).decode()
        assert inside == (run.parent / "out" / name).read_text(encoding="utf-8")


def test_strips_show_fakes_as_synthetic(page: str) -> None:
    pictures = Elements(page).of("img")
    fakes = [picture for picture in pictures if picture["alt"].startswith("synthetic frame")]
    assert fakes and len(pictures) == 5 * len(fakes)
    assert all(picture["alt"] for picture in pictures)
    for fake in fakes:
        assert b"trainedAlgorithmicMedia" in base64.b64decode(fake["src"].partition("base64,")[2])


def test_accessible_tables_and_plots(page: str) -> None:
    elements = Elements(page)
    assert all("scope" in attributes for attributes in elements.of("th"))
    for svg in elements.of("svg"):
        assert svg.get("aria-hidden") == "true" or (svg["role"] == "img" and "is better" in svg["aria-label"])
    assert elements.of("html") == [{"lang": "en"}]


def test_answer_tells_people_frames_and_headlines(page: str) -> None:
    answer = re.search(r'<p class="answer">(.*?)</p>', page, re.DOTALL)
    assert answer
    assert "2 generators (copy and warp) were judged on 12 people and 48 frames" in answer[1]
    assert "1, 8 or 32 frames of a person" in answer[1]
    assert "warp is better in" in answer[1] and "movement (nme_dlib68" in answer[1]
    assert "0.840 of one person and 0.060 of different people" in answer[1]
    assert "a learned generator has to beat them" in answer[1]


def test_lists_what_is_unscored_with_the_command(page: str) -> None:
    section = page[page.index('id="unscored"') :]
    assert "<code>theval weights fetch fid_inception</code>" in section
    assert "small sample: below 2048 frames" in Elements(page).text.lower()


def test_counts_failures_by_reason(page: str) -> None:
    text = Elements(page).text
    assert "2 \u00d7 NoFaceFound: no landmarks" in text and "1 \u00d7 too short: 40 frames, 80 are needed" in text
    assert "person101 (warp, 1)" in text


def test_tells_how_it_was_made(page: str) -> None:
    text = Elements(page).text
    for told in ("theval score --data dataset --out run", "20 min 34 s", "0123456789ab", "f" * 64, "2.14.1", "seed 7"):
        assert told in text, told


def test_quotes_only_checked_cells_of_the_paper(page: str) -> None:
    section = page[page.index('id="published"') : page.index('id="failed"')]
    numbers = re.findall(r"<td>(\d+\.\d+)</td>", section.split("yours:")[0])
    assert numbers == ["43.0", "38.0", "29.5", "48.5", "42.2", "30.6"]
    assert section.count("not quoted, see reference 1") == 5 * 12 - 6
    assert "Not the same test" in section and 'href="https://arxiv.org/abs/1905.08233"' in section


def test_a_noise_floor_far_above_is_told_and_does_not_flatten_the_curve(tmp_path: Path) -> None:
    rows = [m.model_copy(update={"noise_floor": 89.5}) if m.noise_floor else m for m in measurements_of(PEOPLE)]
    page = render(tmp_path / "run", rows)
    assert "noise floor 89.5, above" in page and 'class="floor"' not in page
    assert "compare them with each other, on the same people and frames, not with the floor" in page


# Marks.


def value_of(value: float, half: float | None, higher: bool = True) -> Measurement:
    return Measurement(
        metric="m",
        value=value,
        low=None if half is None else value - half,
        high=None if half is None else value + half,
        higher_is_better=higher,
        n_frames=8,
        n_identities=2,
        n_failed=0,
        labels={},
    )


@pytest.mark.parametrize(
    ("values", "higher", "expected"),
    [
        ([(1.0, 0.1), (2.0, 0.1), (0.5, 0.1)], True, ["", "best", ""]),
        ([(1.0, 0.1), (2.0, 0.1), (0.5, 0.1)], False, ["", "", "best"]),
        ([(1.0, 0.6), (2.0, 0.6), (0.0, 0.1)], True, ["tie", "tie", ""]),
        ([(1.0, None), (2.0, 0.1)], True, ["", ""]),
        ([(1.0, 0.1)], True, [""]),
    ],
)
def test_marks_of_set_metrics_need_intervals_that_are_apart(
    values: Sequence[tuple[float, float | None]], higher: bool, expected: Sequence[str]
) -> None:
    assert marks([value_of(value, half, higher) for value, half in values]) == expected


def person_by_person(values: Sequence[float | None], higher: bool | None = True) -> Measurement:
    """A measurement whose interval is that of its people."""
    known = np.array([value for value in values if value is not None])
    half = 2 * known.std() / len(known) ** 0.5
    own = dict(zip(PEOPLE, values, strict=False))
    update = {"per_identity": own, "higher_is_better": higher, "n_identities": len(known)}
    return value_of(float(known.mean()), float(half)).model_copy(update=update)


SPREAD = np.linspace(0.4, 0.9, 12)  # how people differ, whoever makes them
WAVER = 0.01 * np.array([1, -1, 2, -2, 1, -1, 0, 1, 0, -1, 2, -2])


@pytest.mark.parametrize(
    ("first", "second", "higher", "expected"),
    [
        (SPREAD, SPREAD + 0.05 + WAVER, True, "worse"),
        (SPREAD, SPREAD + 0.05 + WAVER, False, "better"),
        (SPREAD, SPREAD + WAVER, True, "tie"),
        (SPREAD, SPREAD, True, "tie"),
        (-SPREAD, SPREAD - 0.1, None, "worse"),  # nearer to 0 the better: -0.65 against 0.55
        (-SPREAD, SPREAD + WAVER, None, "tie"),  # they differ, but lie equally far from 0
        (SPREAD - 0.65, SPREAD, None, "better"),
    ],
)
def test_people_are_compared_with_themselves(
    first: NDArray[np.float64], second: NDArray[np.float64], higher: bool | None, expected: str
) -> None:
    one, other = person_by_person(first.tolist(), higher), person_by_person(second.tolist(), higher)
    assert compare(one, other).change == expected
    assert compare(other, one).change == {"better": "worse", "worse": "better"}.get(expected, expected)


def test_a_difference_hides_in_intervals_that_overlap(tmp_path: Path) -> None:
    """Most of an interval's width is how people differ, which both rows share."""
    worse, better = person_by_person(SPREAD.tolist()), person_by_person((SPREAD + 0.05 + WAVER).tolist())
    assert worse.high is not None and better.low is not None and worse.high > better.low
    assert marks([worse, better]) == ["", "best"]
    rows = [
        m.model_copy(update={"metric": "ssim", "labels": {"generator": name, "shots": "1"}})
        for m, name in ((worse, "old"), (better, "new"))
    ]
    text = Elements(render(tmp_path / "run", rows)).text
    assert "new is better: new \u2212 old is +0.050 [0.041, 0.059]" in text
    assert "new is better in likeness (ssim 0.700 against 0.650)" in text


def test_values_of_other_people_do_not_decide() -> None:
    """`one` looks better only because the hardest people are missing from it."""
    one = person_by_person([None] * 6 + (SPREAD[6:] - 0.05).tolist())
    other = person_by_person(SPREAD.tolist())
    assert one.merit > other.merit and compare(one, other).change == "tie"
    assert marks([one, other]) == ["tie", "tie"]


def test_one_person_of_both_is_compared_by_the_intervals() -> None:
    one, other = person_by_person([0.5, 0.6, *[None] * 10]), person_by_person([None, 0.1, 0.2, *[None] * 9])
    assert compare(one, other) == Difference("better", None)


@pytest.mark.parametrize(
    ("values", "written"),
    [
        ([0.71234, 0.5], "0.712"),
        ([43.04, 1.0], "43.0"),
        ([0.0034], "0.00340"),
        ([-0.25, 0.1], "\u22120.250"),
        ([2e-5], "2.0e\u221205"),
        ([1234.5], "1\u202f234"),
        ([-0.0001, 5.0], "0.00"),
        ([None], "—"),
    ],
)
def test_writes_three_digits(values: Sequence[float | None], written: str) -> None:
    assert write_number(values[0], digits(values)) == written


# Other kinds of run.


def render(path: Path, measurements: Sequence[Measurement], record: RunRecord | None = None) -> str:
    make_run(path, measurements, record or record_of())
    return write_report([path], path / "report.html").html.read_text(encoding="utf-8")


def test_names_are_escaped(tmp_path: Path) -> None:
    evil = '<script>alert("x")</script>'
    rows = measurements_of([evil, f"{evil}2"], generators=[evil, "a&b"])
    record = record_of(
        config={"data": evil}, dataset={"path": evil}, failures=[Failure(item=evil, reason=f"'{evil}' is '{evil}'")]
    )
    page = render(tmp_path / "<script>alert(1)", rows, record)
    assert page.count("<script") == 1  # our own
    assert "&lt;script&gt;" in page
    assert Elements(page).of("script") == [{}]


@pytest.mark.slow
def test_folders_without_shots(tmp_path: Path) -> None:
    rows = measurements_of(PEOPLE, generators=["deepfakes"], shots=[None])
    page = render(tmp_path / "run", rows, record_of(dataset={"fakes": "fakes", "reals": "reals"}))
    text = Elements(page).text
    assert "The fakes of deepfakes were judged against the real clips that they reproduce, 12 people" in text
    assert "Over shots" not in text and "Person by person" in text
    assert "None" not in text and "1 shot " not in text.partition("Beside the paper")[0]


def test_strips_of_folders_read_the_users_clips(tmp_path: Path) -> None:
    clip, _ = head_clip(3, TARGETS, SIZE)
    for name in ("fakes", "reals"):
        (tmp_path / name).mkdir()
        write_clip(tmp_path / name / "anna.mkv", clip, lossless=True)
    rows = measurements_of(["anna"], generators=["fakes"], shots=[None])
    path = make_run(tmp_path / "run", rows, record_of(dataset={"reals": str(tmp_path / "reals")}))
    frames = {"generator": ["fakes"], "identity": ["anna"], "clip": [str(tmp_path / "fakes" / "anna")], "index": [2]}
    pq.write_table(pa.table(frames | {"csim_mobilefacenet": [0.5]}), path / "frames.parquet")
    page = write_report([path], tmp_path / "report.html").html.read_text(encoding="utf-8")
    told = [picture["alt"] for picture in Elements(page).of("img")]
    assert told == [
        "real frame 2 of anna",
        "synthetic frame 2 of anna, made by fakes",
        "difference of the synthetic and the real frame 2 of anna",
    ]


def test_one_person_has_no_interval_and_says_why(tmp_path: Path) -> None:
    page = render(tmp_path / "run", measurements_of(["anna"]))
    text = Elements(page).text
    assert "One person was judged, so there are no intervals" in text
    assert "No interval: one identity." in text
    assert '<span class="tag best">' not in page and '<span class="interval">—</span>' in page
    assert "without intervals it is not known which is better" in text and "Person by person" not in text.replace(
        "Person by person (CSV)", ""
    )


def test_no_metric_has_a_value(tmp_path: Path) -> None:
    rows = [m.model_copy(update={"value": None, "low": None, "high": None, "n_frames": 0, "per_identity": {},
                                 "note": "no frame could be judged"})
            for m in measurements_of(PEOPLE) if "pair" not in m.labels]  # fmt: skip
    text = Elements(render(tmp_path / "run", rows)).text
    assert "No metric has a value; the reasons are listed under “Not scored”" in text
    assert text.count("No frame could be judged.") >= len(METRICS)


def test_no_measurements_at_all(tmp_path: Path) -> None:
    assert "Nothing was judged" in render(tmp_path / "run", [])


def test_metric_of_a_plug_in_that_is_not_here(tmp_path: Path) -> None:
    rows = [m.model_copy(update={"metric": "smile"}) for m in measurements_of(PEOPLE) if m.metric == "ssim"]
    text = Elements(render(tmp_path / "run", rows)).text
    assert "Other metrics" in text and "smile over shots" not in text
    assert "the plug-in is not installed, or broken, where this report was made" in text


def test_metric_missing_in_one_condition(tmp_path: Path) -> None:
    rows = [m for m in measurements_of(PEOPLE) if not (m.metric == "psnr" and m.labels.get("shots") == "8")]
    assert "Not asked in this run." in render(tmp_path / "run", rows)


# Several runs.


def test_runs_side_by_side(run: Path, tmp_path: Path) -> None:
    better = [
        m.model_copy(
            update={
                "value": m.value + 1,
                "low": m.low + 1,
                "high": m.high + 1,
                "per_identity": {name: value + 1 for name, value in m.per_identity.items() if value is not None},
            }
        )
        if m.metric == "ssim" and m.value is not None and m.low is not None and m.high is not None
        else m
        for m in measurements_of(PEOPLE)
    ]
    second = make_run(tmp_path / "second", better, record_of())
    page = write_report([run, second], tmp_path / "two.html").html.read_text(encoding="utf-8")
    text = Elements(page).text
    assert "Run against run" in text and "A first" in text and "B second" in text
    section = page[page.index('id="runs"') : page.index('id="shots"')]
    assert section.count("Δ +1.00 [1.00, 1.00]") == 6
    assert section.count('<span class="tag better">') == 6 and '<span class="tag worse">' not in section
    assert section.count('<span class="tag tie">') == 6 * (len(METRICS) + len(SET_METRICS) - 1)
    assert "Of 30 numbers that B shares with an earlier run, 6 are better, 0 worse and 24 ties." in text


def test_runs_of_different_data_are_not_compared(run: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", measurements_of(PEOPLE), record_of(dataset={"sha256": "e" * 64}))
    page = write_report([run, other], tmp_path / "two.html").html.read_text(encoding="utf-8")
    assert "The runs judged different data" in page and 'id="runs"' not in page
    # Each run has an answer of its own, and marks are given among its own rows.
    answers = re.findall(r'<p class="answer">(.*?)</p>', page, re.DOTALL)
    assert len(answers) == 2
    assert "A · warp is better" in answers[0] and "B · warp is better" in answers[1]
    assert '<span class="tag best">' in page


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / name / "run", measurements_of(PEOPLE), record_of()) for name in ("before", "after")]
    text = Elements(write_report(folders, tmp_path / "two.html").html.read_text(encoding="utf-8")).text
    assert "A before/run" in text and "B after/run" in text


def test_run_named_twice(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="named twice"):
        write_report([run, run.parent / "." / run.name], tmp_path / "report.html")


# The command.


def test_command_writes_beside_the_run(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", measurements_of(PEOPLE), record_of())
    done = report(path)
    assert done.exit_code == 0, done.output
    assert {file.name for file in path.glob("report*")} == {"report.html", "report.csv", "report-identities.csv"}
    assert "report.html (0." in done.stdout and " MB)" in done.stdout


def test_command_wants_a_name_for_several_runs(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"name one with -o report\.html"):
        CliRunner().invoke(theval, ["report", "a", "b"], standalone_mode=False, catch_exceptions=False)


def test_incomplete_run_is_one_sentence(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", measurements_of(PEOPLE), record_of(status="scoring"))
    with pytest.raises(RunError, match=r"is not complete \(it stopped while scoring\); give the same command again"):
        write_report([path], tmp_path / "report.html")


def test_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="name the run folder of a 'theval score' or 'theval detect eval' that ended"):
        write_report([tmp_path], tmp_path / "report.html")


def test_unwritable_output(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"cannot be written .*; name another file with -o"):
        write_report([run], tmp_path / "file" / "report.html")


def test_damaged_clip_leaves_a_sentence(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", measurements_of(["anna"], shots=["1"]), record_of(), heads=1)
    (path / "clips" / "copy" / "1" / "anna.mkv").write_bytes(b"not a video")
    page = write_report([path], tmp_path / "report.html").html.read_text(encoding="utf-8")
    assert "No pictures:" in page and "anna.mkv" in page
    assert len(Elements(page).of("img")) == 5  # of warp


# The documents.


@pytest.mark.parametrize("model", [Measurement, RunRecord, Failure])
def test_every_field_is_documented(model: type[Measurement] | type[RunRecord] | type[Failure]) -> None:
    text = (DOCS / "measurements.md").read_text(encoding="utf-8")
    assert [name for name in model.model_fields if f"`{name}`" not in text] == []


def test_example_in_the_document_is_valid() -> None:
    text = (DOCS / "measurements.md").read_text(encoding="utf-8")
    blocks: list[Mapping[str, Any]] = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL)]
    measurements, record = blocks
    assert [Measurement.model_validate(row) for row in measurements["measurements"]]
    assert RunRecord.model_validate(record)


# Several runs: ranks, trends, and tables for papers.


def two_commits(folder: Path, drop: float = 0.0) -> list[Path]:
    """The same people judged at two commits; the later one's values are lower by `drop`, of everyone."""
    rows = measurements_of(PEOPLE)
    later = [
        m.model_copy(
            update={
                "per_identity": {name: (value or 0.0) - drop for name, value in m.per_identity.items()},
                "value": None if m.value is None else m.value - drop,
            }
        )
        if m.metric == "ssim"
        else m
        for m in rows
    ]
    records = [record_of(commit=letter * 40, started=f"2026-11-2{day}T03:14:15Z") for letter, day in ("b2", "a1")]
    return [make_run(folder / "new", later, records[0]), make_run(folder / "old", rows, records[1])]


def test_ranks_count_only_what_is_sure(tmp_path: Path) -> None:
    board = of_generators(open_runs(two_commits(tmp_path, drop=0.01)))
    assert board is not None and board.settings == ("1", "8", "32")
    column = [heading.metric for heading in board.headings].index("ssim")
    ranks = {row.name: place.rank for row in board.rows if row.setting == "8" and (place := row.places[column])}
    assert ranks == {"B · warp": "1", "A · warp": "2", "B · copy": "3", "A · copy": "4"}
    alike = of_generators(open_runs(two_commits(tmp_path / "alike")))
    assert alike is not None
    ranks = {row.name: place.rank for row in alike.rows if row.setting == "8" and (place := row.places[column])}
    assert ranks == {"B · warp": "1 to 2", "A · warp": "1 to 2", "B · copy": "3 to 4", "A · copy": "3 to 4"}


def test_nobody_is_ranked_alone_or_on_other_data(run: Path, tmp_path: Path) -> None:
    alone = make_run(tmp_path / "alone", measurements_of(PEOPLE, ("copy",)), record_of())
    assert of_generators(open_runs([alone])) is None
    other = make_run(tmp_path / "other", measurements_of(PEOPLE), record_of(dataset={"sha256": "e" * 64}))
    assert of_generators(open_runs([run, other])) is None


def test_trends_are_in_the_order_of_the_commits(tmp_path: Path) -> None:
    runs = open_runs(two_commits(tmp_path))
    assert trend_runs(runs) == [
        "B aaaaaaaaa, theval 0.1.0, 2026-11-21",
        "A bbbbbbbbb, theval 0.1.0, 2026-11-22",
    ]
    ssim = next(plot for plot in trends(runs) if plot.metric == "ssim")
    assert re.search(r"copy: [\d.]+ \[[^]]+\] at B, [\d.]+ \[[^]]+\] at A", ssim.svg)
    assert trends(runs[:1]) == []


def test_distances_of_sets_are_compared_in_pairs() -> None:
    """Two distances whose intervals overlap, and whose difference is the same whoever is left out."""

    def distance(level: float) -> Measurement:
        left = [LeftOut(identities=(name,), value=level + 0.1 * index) for index, name in enumerate(PEOPLE)]
        return person_by_person([0.0]).model_copy(
            update={
                "metric": "fid",
                "higher_is_better": False,
                "value": level,
                "low": level - 5,
                "high": level + 5,
                "per_identity": {},
                "left_out": tuple(left),
            }
        )

    assert marks([distance(14.0), distance(13.0)]) == ["", "best"]
    assert compare(distance(14.0), distance(13.0)).paired == pytest.approx((1.0, 1.0, 1.0, 0.0), abs=1e-9)
    bare = [distance(level).model_copy(update={"left_out": ()}) for level in (14.0, 13.0)]
    assert compare(*bare) == Difference("tie", None)


def test_tables_for_papers(tmp_path: Path) -> None:
    evil = r"a|b_c & 50% \input{x} <b>`"
    rows = measurements_of(PEOPLE, ("copy", evil))
    run = make_run(tmp_path / "run", rows, record_of())
    made = report(run, "-o", tmp_path / "r.html", "--markdown", tmp_path / "t.md", "--latex", tmp_path / "to" / "t.tex")
    assert made.exit_code == 0 and "t.md, t.tex" in made.stdout
    markdown, latex = (tmp_path / "t.md").read_text(), (tmp_path / "to" / "t.tex").read_text()
    assert "### As pictures" in markdown and "ssim ↑" in markdown and "<b>" not in markdown
    lines = [line for line in markdown.splitlines() if line.startswith("| a")]
    assert lines and all(len(re.findall(r"(?<!\\)\|", line)) == line.count(" | ") + 2 for line in lines)
    assert re.search(r"\*\*0\.7\d\d\*\* \\\[", markdown)  # bold: surely the best
    assert r"a\textbar{}b\_c \& 50\% \textbackslash{}input\{x\} \textless{}b\textgreater{}" in latex
    assert re.search(r"\\textbf\{0\.7\d\d\} \{\\scriptsize \[", latex)
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == latex.count(r"\toprule") > 2


def spotted(generator: str, shots: str, value: float) -> Measurement:
    """A detector's answer about a generator's fakes."""
    return Measurement(
        metric="spot_rate",
        value=value,
        low=value - 0.1,
        high=value + 0.1,
        higher_is_better=False,
        n_frames=48,
        n_identities=12,
        n_failed=0,
        labels={"generator": generator, "shots": shots},
    )


def test_who_is_fooled_stands_beside_the_distance(tmp_path: Path) -> None:
    rows = measurements_of(PEOPLE)
    distances = [m for m in rows if m.metric == "fd_efflite0"]
    rows += [spotted(m.labels["generator"], m.labels["shots"], 0.4 + 0.1 * n) for n, m in enumerate(distances)]
    runs = [make_run(tmp_path / name, rows, record_of()) for name in ("one", "other")]
    (found,) = fooled(open_runs(runs[:1]))
    assert (found.distance, found.spotted, found.run) == ("fd_efflite0", "spot_rate", "")
    assert found.svg.count('class="marker') == 6 and "chance" in found.svg
    assert [each.run for each in fooled(open_runs(runs))] == ["A one", "B other"]
    page = write_report([runs[0]], tmp_path / "report.html").html.read_text(encoding="utf-8")
    assert "Do distance and viewers agree?" in page


def test_two_points_are_no_picture(tmp_path: Path) -> None:
    rows = measurements_of(PEOPLE, shots=("1",))
    rows += [spotted(generator, "1", 0.5) for generator in ("copy", "warp")]
    assert fooled(open_runs([make_run(tmp_path / "run", rows, record_of())])) == []
