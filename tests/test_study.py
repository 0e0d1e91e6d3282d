"""theval study: what is drawn and shown, that no answer is lost, and that known answers give the known rate."""

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import torch
from click.testing import CliRunner

from benchmarks.study.answers import Answers, plan
from benchmarks.study.folder import LETTERS, Settings, Study, by_condition, read_study, video_path
from benchmarks.study.triplets import CHECK, SHORTEST, make_study, windows
from tests.chromium import chromium, needs_chromium
from thead_eval.cli import theval
from thead_eval.errors import ConfigError, RunError
from thead_eval.judging import Pair, PairSet, RealClip, write_pairs
from thead_eval.manifest import read_manifest
from thead_eval.marks import read_marks
from thead_eval.media import read_clip, write_clip
from thead_eval.results import RunRecord, read_measurements, write_run
from thead_eval.run import RunFolder
from thead_eval.statistics import share_interval
from thead_eval.testing import make_dataset
from thead_eval.types import Clip

FRAMES = 32
SIZE = 32
PEOPLE = ("ada", "bo", "cy", "di")
CONDITIONS = (("sharp", "1"), ("sharp", "8"), ("dull", "1"), ("dull", "8"))


def quiet(what: str, done: int, total: int) -> None:
    """No progress."""


def grey(first: int, frames: int, red: int = 0) -> Clip:
    """A clip whose every frame says by its brightness which one it is, and by red that it is fake."""
    levels = 20 + 4 * torch.arange(first, first + frames)
    pixels = levels.view(-1, 1, 1, 1).expand(-1, 3, SIZE, SIZE).clone()
    pixels[:, 0] += red
    return Clip("grey", pixels.to(torch.uint8), 25.0)


def numbers_of(path: Path) -> list[int]:
    """Which frames a video shows, by their brightness."""
    return [round((float(frame[1:].float().mean()) - 20) / 4) for frame in read_clip(path).frames]


def is_red(path: Path) -> bool:
    frame = read_clip(path).frames[0].float().mean(dim=(1, 2))
    return bool(frame[0] > frame[1] + 30)


def theval_run(*arguments: str | Path) -> str:
    ran = CliRunner().invoke(theval, [str(argument) for argument in arguments])
    assert ran.exit_code == 0, ran.output
    return ran.stdout


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 'theval score' on clips of four people, each remade by two generators at two numbers of shots."""
    folder = tmp_path_factory.mktemp("judged")
    for place in (folder / "reals", *(folder / "fakes" / generator / shots for generator, shots in CONDITIONS)):
        place.mkdir(parents=True)
    for person in PEOPLE:
        write_clip(folder / "reals" / f"{person}.mkv", grey(0, FRAMES), lossless=True)
        for generator, shots in CONDITIONS:
            fake = folder / "fakes" / generator / shots / f"{person}.mkv"
            write_clip(fake, grey(0, FRAMES, red=60), lossless=True, synthetic=generator)
    clips = ("--fakes", folder / "fakes", "--reals", folder / "reals")
    theval_run("score", *clips, "--metrics", "l1", "--workers", "1", "--out", folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def made(run: Path) -> Path:
    """A study of it: eight questions and two checks."""
    folder = run.parent / "study"
    theval_run("study", "make", run, "-o", folder, "--questions", "8", "--checks", "2")
    return folder


@pytest.fixture
def study(made: Path) -> Iterator[Path]:
    """The same, asked of nobody yet."""
    yield made
    (made / "answers.sqlite").unlink(missing_ok=True)


# What is drawn.


def test_a_triplet_is_two_real_videos_and_a_fake_of_one_person_at_three_times(made: Path) -> None:
    study = read_study(made)
    assert Counter(tuple(t.labels.values()) for t in study.triplets) == dict.fromkeys(CONDITIONS, 4) | {(): 2}
    for triplet in study.triplets:
        paths = {letter: video_path(made, triplet.id, letter) for letter in LETTERS}
        shown = [set(numbers_of(path)) for path in paths.values()]
        if triplet.is_check:
            continue
        assert {letter for letter, path in paths.items() if is_red(path)} == {triplet.fake}
        assert [len(numbers) for numbers in shown] == [FRAMES // 3] * 3 == [triplet.frames] * 3
        assert not shown[0] & shown[1] and not shown[1] & shown[2] and not shown[0] & shown[2]
    assert {triplet.fake for triplet in study.triplets} == set(LETTERS)


def test_files_say_nothing_and_the_manifest_says_all(made: Path) -> None:
    rows = {row.file: row for row in read_manifest(made)}
    for triplet in read_study(made).triplets:
        paths = [video_path(made, triplet.id, letter) for letter in LETTERS]
        assert len({(path.stat().st_size, path.stat().st_mtime) for path in paths}) == 1
        assert [read_marks(path) for path in paths] == [[]] * 3
        marked = [path for path in paths if read_marks(path, rows[f"videos/{path.name}"].sha256)]
        assert marked == [video_path(made, triplet.id, triplet.fake)]
        assert rows[f"videos/{marked[0].name}"].label == triplet.labels.get("generator", CHECK)
    assert len(rows) == 3 * 18


def test_an_attention_check_is_plain_to_see(tmp_path: Path, run: Path) -> None:
    photo = torch.arange(SIZE * SIZE).view(SIZE, SIZE).remainder(251).to(torch.uint8)
    clip = Clip("photo", photo.expand(FRAMES, 3, -1, -1).clone(), 25.0)
    hand_made_run(tmp_path / "run", [clip])
    study = make_study(tmp_path / "run", tmp_path / "study", Settings(checks=1), quiet)
    check = study.triplets[-1]
    colours = {
        x: len(read_clip(video_path(tmp_path / "study", check.id, x)).frames[0].flatten().bincount().nonzero())
        for x in LETTERS
    }
    assert check.is_check and min(colours, key=lambda letter: colours[letter]) == check.fake
    assert sorted(colours.values())[0] * 2 < sorted(colours.values())[1]


def hand_made_run(folder: Path, reals: list[Clip], dataset: dict[str, str] | None = None, **config: Any) -> None:
    """A run of one person with several real clips, the first of which is remade in red."""
    folder.mkdir(parents=True)
    paths = [folder / f"{number}.mkv" for number in range(len(reals))]
    for path, clip in zip(paths, reals, strict=True):
        write_clip(path, clip, lossless=True)
    red = reals[0].frames.clone()
    red[:, 0] += 60
    made_fake = RunFolder(folder, "", 0.0).clip("g", "1", "ada")
    made_fake.parent.mkdir(parents=True)
    write_clip(made_fake, Clip("fake", red, 25.0), lossless=True)
    clips = [RealClip("real", path.stem, "ada", path) for path in paths]
    pairs = [Pair("g-1", {"generator": "g", "shots": "1"}, "ada", "ada", made_fake, clip) for clip in clips]
    write_pairs(folder, PairSet(pairs[:1] if dataset else pairs, [], [], [], {}))
    fields: dict[str, Any]  # as pydantic takes them
    fields = {"command": [], "config": config, "status": "complete", "started": "now", "seconds": 1}
    fields |= {"commit": None, "dirty": None, "packages": {}, "python": "", "device": "cpu", "seed": 0, "weights": {}}
    write_run(folder, RunRecord(**fields, dataset=dataset or {}))


def test_who_was_recorded_three_times_is_shown_in_three_recordings(tmp_path: Path) -> None:
    hand_made_run(tmp_path / "run", [grey(0, 16), grey(16, 16), grey(32, 16)])
    study = make_study(tmp_path / "run", tmp_path / "study", Settings(checks=0), quiet)
    triplet = study.triplets[0]
    firsts = {letter: numbers_of(video_path(tmp_path / "study", triplet.id, letter))[0] for letter in LETTERS}
    assert sorted(firsts.values()) == [0, 16, 32] and firsts[triplet.fake] == 0 and triplet.frames == 16


def test_real_videos_come_from_the_dataset_where_it_is_there(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", identities=1, frames=96, size=SIZE)
    config: dict[str, Any]  # JSON
    config = {"data": str(tmp_path / "data"), "split": "test", "generators": ["g"], "shots": [1], "identities": None}
    config |= {"min_frames": 0, "cross_clip": False, "seed": 0, "device": "cpu"}
    target = Clip("target", data.read("head0000-0", range(64, 96))[0].frames, 25.0)
    described = {"path": str(tmp_path / "data"), "sha256": data.sha256}
    hand_made_run(tmp_path / "run", [target], described, **config)
    pairs = json.loads((tmp_path / "run" / "pairs.json").read_text())
    pairs["pairs"][0]["identity"] = "head0000"
    (tmp_path / "run" / "pairs.json").write_text(json.dumps(pairs))
    real = RunFolder(tmp_path / "run", "", 0.0).real("0")
    real.parent.mkdir()
    (tmp_path / "run" / "0.mkv").rename(real)
    study = make_study(tmp_path / "run", tmp_path / "study", Settings(checks=0), quiet)
    assert (
        study.from_dataset and study.triplets[0].frames == 32
    )  # all of the fake: 64 other frames are enough for two real videos
    (tmp_path / "data" / "dataset.json").unlink()
    study = make_study(tmp_path / "run", tmp_path / "again", Settings(checks=0), quiet)
    assert not study.from_dataset and study.triplets[0].frames == 32 // 3


def test_windows_do_not_overlap_and_hold_no_gap() -> None:
    usable = np.array([1, 1, 1, 0, 1, 1, 1, 1, 1], bool)
    assert windows(usable, 2) == [0, 4, 6]
    assert windows(usable, 5) == [4] and windows(usable, 6) == []


def test_the_same_seed_makes_the_same_study(run: Path, tmp_path: Path) -> None:
    settings = Settings(generators=("dull",), shots=(8,), identities=2, questions=2, checks=1, seed=3)
    studies = [make_study(run, tmp_path / name, settings, quiet) for name in ("one", "two")]
    assert studies[0] == studies[1]
    assert {tuple(t.labels.values()) for t in studies[0].triplets} == {("dull", "8"), ()}
    for path in sorted((tmp_path / "one" / "videos").iterdir()):
        assert path.read_bytes() == (tmp_path / "two" / "videos" / path.name).read_bytes()


def test_what_cannot_be_drawn_is_said(run: Path, made: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds a study already"):
        make_study(run, made, Settings(), quiet)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with pytest.raises(RunError, match="not empty and not a study"):
        make_study(run, tmp_path / "full", Settings(), quiet)
    with pytest.raises(ConfigError, match="no fake of 'best'; there are: dull, sharp"):
        make_study(run, tmp_path / "a", Settings(generators=("best",)), quiet)
    with pytest.raises(ConfigError, match="no fake at 32 shots"):
        make_study(run, tmp_path / "b", Settings(shots=(32,)), quiet)
    hand_made_run(tmp_path / "short", [grey(0, 3 * SHORTEST - 1)])
    with pytest.raises(ConfigError, match=r"too little for a study.*too few real frames"):
        make_study(tmp_path / "short", tmp_path / "c", Settings(), quiet)
    with pytest.raises(RunError, match="holds no study; make one with 'theval study make"):
        read_study(tmp_path / "short")


# Who is asked what.


def test_questions_are_balanced(made: Path) -> None:
    study = read_study(made)
    triplets = {triplet.id: triplet for triplet in study.triplets}
    places: Counter[int] = Counter()
    first_people = set()
    for number in range(6):
        questions = plan(study, number)
        shown = [triplets[question.triplet] for question in questions]
        assert Counter(tuple(t.labels.values()) for t in shown) == dict.fromkeys(CONDITIONS, 2) | {(): 2}
        assert not shown[0].is_check and len({question.triplet for question in questions}) == 10
        people_in_turn = [triplet.identity for triplet in shown if not triplet.is_check]
        assert set(people_in_turn[:4]) == set(PEOPLE)
        places.update(q.videos.index(triplets[q.triplet].fake) for q in questions)
        first_people.add(people_in_turn[0])
        assert all(set(question.videos) == set(LETTERS) for question in questions)
    assert max(places.values()) - min(places.values()) <= 6
    assert len(first_people) > 1 and plan(study, 0) == plan(study, 0) != plan(study, 1)


def test_too_few_questions_for_all_conditions_are_shared_out(made: Path) -> None:
    study = read_study(made)
    short = Study(**{**vars(study), "settings": Settings(questions=3, checks=2)})
    triplets = {triplet.id: triplet for triplet in study.triplets}
    asked = Counter(tuple(triplets[q.triplet].labels.values()) for n in range(4) for q in plan(short, n))
    assert asked == dict.fromkeys(CONDITIONS, 3) | {(): 8}


# Serving.


class Served:
    """A running 'theval study serve'."""

    def __init__(self, study: Path, participants: int) -> None:
        """Start it, on any free port."""
        code = "from thead_eval.cli import main; main()"
        arguments = ["study", "serve", str(study), "--port", "0", "--participants", str(participants)]
        heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell's background processes ignore it
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments], stdout=-1, stderr=-1, text=True, preexec_fn=heard
        )
        assert self.process.stdout
        self.links = [self.process.stdout.readline().split(" ")[0] for _ in range(participants)]
        assert all(link.startswith("http://127.0.0.1:") for link in self.links), self.process.communicate()

    def end(self, sign: int) -> str:
        """What it still said on its standard error."""
        self.process.send_signal(sign)
        told: str = self.process.communicate(timeout=60)[1]
        return told


@contextmanager
def serving(study: Path, participants: int) -> Iterator[Served]:
    served = Served(study, participants)
    try:
        yield served
    finally:
        if served.process.poll() is None:
            served.end(signal.SIGKILL)


def answer(link: str, question: int, choice: int) -> requests.Response:
    body: dict[str, Any] = {"question": question, "choice": choice, "milliseconds": 1000 + question}
    return requests.post(f"{link}/answers", json=body, timeout=60)


def choices(study: Path) -> list[list[int]]:
    """What was chosen by each participant, in the order of their links."""
    store = Answers(study / "answers.sqlite")
    plans = [{q.triplet: q.videos for q in plan(read_study(study), n)} for n in range(len(store.participants()))]
    told: dict[str, list[int]] = {one.id: [] for one in store.participants()}
    for videos, (id, own) in zip(plans, told.items(), strict=True):
        own += [videos[a.triplet].index(a.chosen) + 1 for a in store.all() if a.participant == id]
    return list(told.values())


def test_replies_tell_nothing_of_the_answer(study: Path) -> None:
    with serving(study, 1) as served:
        (link,) = served.links
        assert requests.get(f"{link}/state", timeout=60).json() == {"questions": 10, "answered": 0}
        for question in range(10):
            replies = [requests.get(f"{link}/videos/{question}/{place}", timeout=60) for place in (1, 2, 3)]
            headers = [{k: v for k, v in r.headers.items() if k not in ("date", "etag")} for r in replies]
            assert headers[0] == headers[1] == headers[2] and headers[0]["content-type"] == "video/mp4"
            assert [reply.headers["etag"] for reply in replies] == [f'"{question}-{place}"' for place in (1, 2, 3)]
        part = requests.get(f"{link}/videos/0/1", headers={"range": "bytes=4-7"}, timeout=60)
        assert (part.status_code, part.content) == (206, b"ftyp")  # as phones ask for videos
        page = requests.get(link, timeout=60)
        assert "One is synthetic" in page.text and "set-cookie" not in page.headers
        assert page.headers["referrer-policy"] == "no-referrer" and "server" not in page.headers
        base = link.rsplit("/", 1)[0]
        wrong = [f"{base}/nobody", f"{base}/nobody/state", f"{link}/videos/10/1", f"{link}/videos/0/4"]
        wrong += [f"{link}/videos/0/../../../study.json", base.removesuffix("/p")]
        assert [requests.get(url, timeout=60).status_code for url in wrong] == [404] * 6
        bodies: list[dict[str, Any]]  # JSON
        bodies = [
            {},
            {"question": 0, "choice": 4, "milliseconds": 1},
            {"question": 0, "choice": "1", "milliseconds": 1},
        ]
        assert [requests.post(f"{link}/answers", json=b, timeout=60).status_code for b in bodies] == [422] * 3
        assert answer(link, 1, 1).status_code == 409  # not the next one
        assert answer(link, 0, 2).json() == {"questions": 10, "answered": 1}
        assert answer(link, 0, 3).status_code == 409  # final
        told = served.end(signal.SIGINT)
        assert "Stopped. Next: theval study score" in told and "127.0.0.1" not in told
    assert choices(study) == [[2]]


@pytest.mark.slow
def test_killed_at_any_moment_it_loses_no_answer_that_it_confirmed(study: Path) -> None:
    confirmed: list[list[int]] = [[], []]

    def take_part(link: str, own: list[int]) -> None:
        try:
            while len(own) < 10:
                choice = len(own) % 3 + 1
                if answer(link, len(own), choice).ok:
                    own.append(choice)
        except requests.RequestException:  # killed before or amid an answer
            return

    links: list[str] = []
    for life in range(4):
        with serving(study, 2) as served:
            assert not links or [link.rsplit("/")[-1] for link in links] == [x.rsplit("/")[-1] for x in served.links]
            links = served.links
            for link, own in zip(links, confirmed, strict=True):
                kept = requests.get(f"{link}/state", timeout=60).json()["answered"]
                assert kept - len(own) in (0, 1)  # one may have been kept whose confirmation never arrived
                own += [len(own) % 3 + 1] * (kept - len(own))
            people = [threading.Thread(target=take_part, args=pair) for pair in zip(links, confirmed, strict=True)]
            for person in people:
                person.start()
            if life < 3:
                goal = sum(map(len, confirmed)) + 4
                while sum(map(len, confirmed)) < goal and any(person.is_alive() for person in people):
                    time.sleep(0.002)
                served.end(signal.SIGKILL)
            for person in people:
                person.join()
    assert choices(study) == confirmed == [[1, 2, 3, 1, 2, 3, 1, 2, 3, 1]] * 2


def test_people_at_the_same_time_are_not_mixed(study: Path) -> None:
    accepted: Counter[tuple[int, int]] = Counter()
    lock = threading.Lock()

    def take_part(who: int, link: str) -> None:
        for question in range(10):
            if answer(link, question, (who + question) % 3 + 1).ok:
                with lock:
                    accepted[who, question] += 1

    with serving(study, 4) as served:
        # Each link twice at once, as in two windows.
        people = [threading.Thread(target=take_part, args=pair) for pair in [*enumerate(served.links)] * 2]
        for person in people:
            person.start()
        for person in people:
            person.join()
        states = [requests.get(f"{link}/state", timeout=60).json()["answered"] for link in served.links]
    assert states == [10] * 4
    assert accepted == dict.fromkeys([(who, question) for who in range(4) for question in range(10)], 1)
    assert choices(study) == [[(who + question) % 3 + 1 for question in range(10)] for who in range(4)]


def test_a_port_that_is_taken_is_said(study: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        ran = CliRunner().invoke(theval, ["study", "serve", str(study), "--port", port])
        assert isinstance(ran.exception, ConfigError) and f"port {port} (" in str(ran.exception)


# Scoring.


def fill(study: Path, right: list[dict[tuple[str, ...], int]], attentive: list[bool]) -> None:
    """Answers of participants who are right so many times of each condition, and in the checks or not."""
    made = read_study(study)
    triplets = {triplet.id: triplet for triplet in made.triplets}
    store = Answers(study / "answers.sqlite")
    store.invite(made, len(right))
    for number, (who, times, looks) in enumerate(zip(store.participants(), right, attentive, strict=True)):
        left = dict(times)
        for question in plan(made, number):
            triplet = triplets[question.triplet]
            key = tuple(triplet.labels.values())
            found = looks if triplet.is_check else left.get(key, 0) > 0
            left[key] = left.get(key, 0) - 1
            place = question.videos.index(triplet.fake)
            assert store.add(who, question.number, (place if found else (place + 1) % 3) + 1, 1200)


def test_known_answers_give_the_known_rate(study: Path, run: Path) -> None:
    # Of two questions a condition: right in 2, 1 and 1 of "sharp, 1", and in none of "dull, 8".
    right: list[dict[tuple[str, ...], int]]
    right = [{("sharp", "1"): 2, ("dull", "1"): 1}, {("sharp", "1"): 1, ("dull", "1"): 1}, {("sharp", "1"): 1}]
    fill(study, [*right, {}], [True, True, True, False])
    told = json.loads(theval_run("study", "score", study, "--json"))
    assert told["participants"] == {
        "counted": 3,
        "failed_attention_check": 1,
        "left_before_attention_check": 0,
        "finished": 4,
    }
    rows = {tuple(row["labels"].values()): row for row in told["measurements"]}
    assert {key: row["value"] for key, row in rows.items()} == {
        ("sharp", "1"): pytest.approx(4 / 6),
        ("sharp", "8"): 0,
        ("dull", "1"): pytest.approx(2 / 6),
        ("dull", "8"): 0,
    }
    row = rows["sharp", "1"]
    assert (row["n_frames"], row["n_identities"], row["n_failed"]) == (6, 3, 2)
    assert row["low"] < 4 / 6 < row["high"] and row["higher_is_better"] is False
    assert sorted(row["per_identity"].values()) == [0.5, 0.5, 1.0]
    assert row["note"] == "not counted, as they failed an attention check: 1 of 4 participants"

    in_run = {tuple(m.labels.values()): m.value for m in read_measurements(run) if m.metric == "user"}
    assert in_run == {key: row["value"] for key, row in rows.items()}
    # The run judged again keeps what people said; the study scored again adds nothing.
    theval_run("score", "--out", run, "--metrics", "psnr", "--workers", "1")
    theval_run("study", "score", study)
    kept = Counter(m.metric for m in read_measurements(run))
    assert kept == {"l1": 4, "psnr": 4, "user": 4}
    theval_run("report", run, "-o", run.parent / "report.html")
    page = (run.parent / "report.html").read_text()
    assert "To people" in page and "Each row: 3 participants, 6 answers" in page
    assert "0.667" in page and "judged on 4 people" in page  # those who are shown, not those who looked
    assert "failed an attention check: 1 of 4 participants" in page


def test_who_left_before_a_check_is_not_counted(study: Path, run: Path) -> None:
    made = read_study(study)
    store = Answers(study / "answers.sqlite")
    store.invite(made, 1)
    assert store.add(store.participants()[0], 0, 1, 900)
    told = json.loads(theval_run("study", "score", study, "--json"))
    assert told["participants"]["left_before_attention_check"] == 1
    assert [row["value"] for row in told["measurements"]] == [None] * 4
    assert sum(row["n_failed"] for row in told["measurements"]) == 1


def test_a_study_without_answers_or_of_another_run_is_refused(study: Path, tmp_path: Path) -> None:
    ran = CliRunner().invoke(theval, ["study", "score", str(study)])
    assert isinstance(ran.exception, RunError) and "has no answers" in str(ran.exception)
    Answers(study / "answers.sqlite").invite(read_study(study), 1)
    ran = CliRunner().invoke(theval, ["study", "score", str(study)])
    assert isinstance(ran.exception, RunError) and "nobody has answered" in str(ran.exception)
    hand_made_run(tmp_path / "other", [grey(0, 30)])
    ran = CliRunner().invoke(theval, ["study", "score", str(study), "--run", str(tmp_path / "other")])
    assert isinstance(ran.exception, RunError) and "another run than" in str(ran.exception)


def test_an_interval_of_shares_has_a_width_where_all_are_right() -> None:
    all_right = share_interval({"a": np.ones(5), "b": np.ones(5)})
    # Clopper and Pearson of 10 right of 10 have 0.025 ** (1 / 10) = 0.69; two people are worth less than that.
    assert all_right.value == all_right.high == 1 and all_right.low is not None and all_right.low < 0.69
    assert share_interval({"a": np.ones(5)}) == (1, None, None) and share_interval({}) == (None, None, None)
    apart = share_interval({str(n): np.full(5, n % 2.0) for n in range(8)})
    together = share_interval({str(n): np.array([0, 1, 0, 1.0]) for n in range(8)})
    assert apart.value == together.value == 0.5
    assert apart.high is not None and together.high is not None and apart.high > together.high + 0.1


def test_an_interval_of_shares_covers_the_truth() -> None:
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        rates = random.beta(0.9 * 8, 0.1 * 8, size=6)
        told = share_interval({str(n): random.binomial(1, rate, 5).astype(float) for n, rate in enumerate(rates)})
        assert told.low is not None and told.high is not None
        covered += told.low <= 0.9 <= told.high
    assert covered >= 0.93 * 200


# In a browser.


@needs_chromium
def test_three_people_in_a_browser(study: Path, run: Path, tmp_path: Path) -> None:
    made = read_study(study)
    triplets = {triplet.id: triplet for triplet in made.triplets}
    sharp = {triplet.id for key, own in by_condition(made.triplets).items() if key[0] == "sharp" for triplet in own}
    with serving(study, 3) as served, chromium(tmp_path) as browser:
        pages = [browser.new_page() for _ in served.links]
        for number, (page, link) in enumerate(zip(pages, served.links, strict=True)):
            page.size(*((1400, 900), (400, 800), (800, 400))[number])
            page.open(link)
            page.wait_for("location.pathname.startsWith('/p/') && document.querySelector('#extent')?.textContent")
            assert "One is synthetic" in page.evaluate("document.body.innerText")
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            page.click("#start")
        for step in range(10):  # all three at the same time, question by question
            for number, page in enumerate(pages):
                question = plan(made, number)[step]
                place = question.videos.index(triplets[question.triplet].fake)
                # The first is always right, the second only of the generator "sharp", the third never but in checks.
                finds = (
                    number == 0 or triplets[question.triplet].is_check or (number == 1 and question.triplet in sharp)
                )
                chosen = place if finds else (place + 1) % 3
                page.wait_for(f"state.answered === {step} && seen !== null && performance.now() - seen > 260")
                shown = page.evaluate(
                    "videos.map(v => v.videoWidth * !v.paused * (v.getBoundingClientRect().width > 90))"
                )
                assert shown == [SIZE] * 3
                assert page.evaluate("document.documentElement.scrollHeight <= innerHeight")
                if number == 1:
                    page.click(f".videos button:nth-child({chosen + 1})")
                else:
                    page.press(str(chosen + 1))
                if number == 2 and step == 4:  # loads the page again in the middle
                    page.wait_for("state.answered === 5")
                    page.open(served.links[number])
                    page.wait_for("typeof state !== 'undefined' && at('start').textContent === 'Go on'")
                    assert "5 of 10 questions are left" in page.evaluate("document.body.innerText")
                    page.click("#start")
        for page in pages:
            page.wait_for("!at('end').hidden")
            assert "Thank you" in page.evaluate("document.body.innerText")
            assert page.problems == []
    rows = json.loads(theval_run("study", "score", study, "--json"))["measurements"]
    values = {tuple(row["labels"].values()): row["value"] for row in rows}
    assert values["sharp", "1"] == values["sharp", "8"] == pytest.approx(2 / 3)
    assert values["dull", "1"] == values["dull", "8"] == pytest.approx(1 / 3)
    assert {row["n_frames"] for row in rows} == {6}
