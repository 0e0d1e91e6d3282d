"""Scores of detectors, kept and judged: who is told apart from whom, and what is no number."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from thead_eval.detection import (
    FrameScores,
    Model,
    Scores,
    clip_scores,
    measure_scores,
    read_scores,
    score_clip,
    score_rows,
    write_scores,
)
from thead_eval.errors import RunError
from thead_eval.evidence import Item
from thead_eval.metrics.detection import auc, expected_calibration_error
from thead_eval.results import Measurement
from thead_eval.statistics import Draws, bootstrap_bounds
from thead_eval.types import Clip

FRAMES = 8


def item(name: str, generator: str = "", identity: str = "", shots: str = "") -> Item:
    """A clip that is never read."""
    return Item(
        id=name,
        label="fake" if generator else "real",
        generator=generator,
        shots=shots,
        identity=identity or name,
        source=f"recording of {identity or name}",
        split="test",
        frames=FRAMES,
        fps=25.0,
        size=64,
        path=f"{name}.mkv",
        clip="",
        sha256="",
    )


def scores_of(
    path: Path,
    means: Mapping[Item, float],
    model: Model | None = None,
    seen: Mapping[str, bool] | None = None,
    noise: float = 0.0,
) -> Scores:
    """A written and read table: logits of these means; of a generator the model saw, `seen` says so."""
    model = model or Model(key="d", detector="d")
    random = np.random.default_rng(0)
    tables = []
    for clip, mean in means.items():
        logits = (mean + noise * random.normal(size=FRAMES)).astype(np.float32)
        knows: tuple[bool | None, bool | None] = (None, None) if seen is None else (False, seen.get(clip.generator))
        tables.append(score_rows(model, clip, "here", knows, range(FRAMES), FrameScores(logits, "scored", None)))
    write_scores(path / "scores.parquet", tables, [model])
    return read_scores(path / "scores.parquet")


def measured(scores: Scores, **labels: str) -> dict[str, Measurement]:
    """The numbers with these labels, and no others but the detector's name and the protocol."""
    fakes = scores.frames.loc[scores.frames["label"] == "fake", "generator"]
    quiet = {"generator": "all" if fakes.nunique() > 1 else fakes.iloc[0], "unit": "clip"} | labels
    rows = measure_scores(scores, 0, lambda *_: None)
    asked = [m for m in rows if quiet.items() <= m.labels.items()]
    return {m.metric: m for m in asked if m.labels.keys() <= {*quiet, "detector", "protocol"}}


def crowd(people: int = 30, gap: float = 2.0) -> dict[Item, float]:
    """A real clip and a fake of each person, the fakes higher by `gap` beside a spread of 1."""
    random = np.random.default_rng(1)
    reals = {item(f"real{n}", identity=f"p{n}"): random.normal() for n in range(people)}
    fakes = {item(f"fake{n}", "g", f"p{n}"): gap + random.normal() for n in range(people)}
    return reals | fakes


def test_manipulations_of_one_file_name_stay_apart(tmp_path: Path) -> None:
    # A benchmark that keys clips by the last folder of their path averages these four into one, and finds AUC 1.
    reals = {item(f"real/{n:03d}"): -1.0 for n in range(10)}
    higher = {"deepfakes": 4.0, "face2face": 4.0, "faceswap": 4.0, "neuraltextures": -2.0}
    fakes = {item(f"{g}/{n:03d}", g, f"p{n}"): mean for g, mean in higher.items() for n in range(10)}
    scores = scores_of(tmp_path, reals | fakes)
    assert len(clip_scores(scores)) == 50
    assert measured(scores)["auc"].value == pytest.approx(0.75)
    assert measured(scores, generator="neuraltextures")["auc"].value == 0
    assert measured(scores, generator="deepfakes")["auc"].value == 1


def test_no_number_is_made_of_a_calibration_that_says_the_same_of_everything(tmp_path: Path) -> None:
    numbers = measured(scores_of(tmp_path, crowd(), Model(key="d", detector="d", scale=0.0, shift=0.0)))
    assert numbers["auc"].value is not None
    for name in ("ece", "brier", "log_loss"):
        assert numbers[name].value is None and numbers[name].note == "its calibration says 0.5 of everything"


def test_a_clip_is_the_mean_logit_of_the_frames_that_were_scored(tmp_path: Path) -> None:
    model = Model(key="d", detector="d", scale=2.0, shift=1.0)
    logits = np.array([1, np.nan, 2, np.nan, np.nan, np.nan, np.nan, 0], dtype=np.float32)
    table = score_rows(model, item("a"), "", (None, None), range(FRAMES), FrameScores(logits, "scored", None))
    write_scores(tmp_path / "scores.parquet", [table], [model])
    (row,) = clip_scores(read_scores(tmp_path / "scores.parquet")).to_dict("records")
    assert (row["frames"], row["failed"]) == (3, 5)
    assert row["logit"] == pytest.approx(1.0)
    assert row["p"] == pytest.approx(1 / (1 + np.exp(-3)))


def test_intervals_are_over_people_and_hold_the_value(tmp_path: Path) -> None:
    found = measured(scores_of(tmp_path, crowd()))
    for m in found.values():
        if m.value is not None and m.low is not None and m.high is not None:
            assert m.low <= m.value <= m.high
            assert 0 < m.high - m.low < 1
    assert (found["auc"].n_real, found["auc"].n_fake, found["auc"].n_identities) == (30, 30, 30)
    assert found["tpr_at_5"].value is not None
    assert found["tpr_at_1"].value is None and found["tpr_at_1"].note == "30 reals are too few, 100 are needed"


def test_no_fault_among_few_people_is_no_proof(tmp_path: Path) -> None:
    found = measured(scores_of(tmp_path, crowd(gap=99.0)))
    assert (found["auc"].value, found["auc"].high) == (1, 1)
    assert found["auc"].low == pytest.approx(0.025 ** (1 / 30))
    assert (found["eer"].value, found["eer"].low) == (0, 0)
    assert found["eer"].high == pytest.approx(1 - 0.025 ** (1 / 30))


def test_reals_and_fakes_weigh_alike_in_what_is_said_of_probabilities(tmp_path: Path) -> None:
    once = crowd(gap=1.0)
    more = {item(f"{clip.id}, again {n}", clip.generator, clip.identity): mean
            for n in range(3) for clip, mean in once.items() if clip.generator}  # fmt: skip
    first, second = measured(scores_of(tmp_path, once)), measured(scores_of(tmp_path, once | more))
    for name in ("ece", "brier", "log_loss", "auc"):
        assert first[name].value == pytest.approx(second[name].value)
    assert first["ap"].value != pytest.approx(second["ap"].value)


def test_protocols_follow_from_what_the_model_has_seen(tmp_path: Path) -> None:
    means = crowd() | {item(f"other{n}", "h", f"p{n}"): 5.0 for n in range(30)}
    scores = scores_of(tmp_path, means, seen={"g": True, "h": False})
    rows = measure_scores(scores, 0, lambda *_: None)
    aucs = {m.labels["protocol"]: m for m in rows if m.metric == "auc" and m.labels["unit"] == "clip"}
    assert aucs.keys() == {"P1", "P3"}
    assert aucs["P1"].n_fake == aucs["P3"].n_fake == 30 and aucs["P1"].n_real == aucs["P3"].n_real == 30
    assert aucs["P3"].value == 1 and aucs["P1"].value != 1


def test_shots_are_told_apart(tmp_path: Path) -> None:
    reals = {item(f"real{n}"): float(n) for n in range(4)}
    fakes = {item(f"{shots}/{n}", "g", f"real{n}", shots): n + float(shots) for n in range(4) for shots in ("1", "8")}
    found = measured(scores_of(tmp_path, reals | fakes), generator="g", shots="8")
    assert found["auc"].value == 1 and found["auc"].n_fake == 4


@dataclass(frozen=True)
class Odd:
    """A detector that does one thing."""

    answer: Tensor | None  # None: it raises
    name: str = "odd"

    def score(self, clip: Clip) -> Tensor:
        if self.answer is None:
            raise IndexError("no such frame")
        return self.answer


@pytest.mark.parametrize(
    ("answer", "outcome", "reason"),
    [
        (None, "raised", "IndexError: no such frame"),
        (torch.full((FRAMES,), torch.nan), "nothing", "gave NaN for every frame"),
        (torch.full((FRAMES,), 17.0), "not probabilities", "gave scores of 17 to 17, which are no probabilities"),
        (torch.rand(3), "not probabilities", r"gave [3] scores for 8 frames"),
        (torch.rand(FRAMES), "scored", None),
    ],
)
def test_what_is_no_score_is_said(answer: Tensor | None, outcome: str, reason: str | None, tmp_path: Path) -> None:
    clip = Clip("a", torch.zeros(FRAMES, 3, 8, 8, dtype=torch.uint8), 25.0)
    said = score_clip(Odd(answer), clip)
    assert (said.outcome, said.reason) == (outcome, reason)
    assert np.isnan(said.logits).all() == (outcome != "scored")
    model = Model(key="odd", detector="odd")
    clips = [item("a"), item("b", "g", "a")]
    tables = [score_rows(model, each, "", (None, None), range(FRAMES), said) for each in clips]
    write_scores(tmp_path / "scores.parquet", tables, [model])
    rows = measure_scores(read_scores(tmp_path / "scores.parquet"), 0, lambda *_: None)
    assert rows
    for m in rows:
        if outcome != "scored":
            assert m.value is None and reason is not None and reason in m.note
        elif m.labels["unit"] == "clip":  # the same is said of both clips
            assert m.value is None and "of everything" in m.note


def test_an_infinite_logit_is_no_score() -> None:
    """As of a network that ran over in half precision."""
    answer = torch.tensor([0.0] * (FRAMES - 1) + [torch.inf])
    given = type("Raw", (), {"name": "raw", "logits": lambda self, frames: answer})()
    said = score_clip(given, Clip("a", torch.zeros(FRAMES, 3, 8, 8, dtype=torch.uint8), 25.0))
    assert (said.outcome, said.reason) == ("not probabilities", "gave an infinite logit")
    assert np.isnan(said.logits).all()


def test_one_clip_in_many_that_fails_is_counted(tmp_path: Path) -> None:
    clips, model = list(crowd()), Model(key="d", detector="d")
    random = np.random.default_rng(0)
    tables = []
    for number, clip in enumerate(clips):
        said = FrameScores(random.normal(size=FRAMES).astype(np.float32), "scored", None)
        if number == 3:
            said = FrameScores(np.zeros(0, np.float32), "unreadable", "'x.mkv' is damaged")
        tables.append(score_rows(model, clip, "", (None, None), range(len(said.logits)), said))
    write_scores(tmp_path / "scores.parquet", tables, [model])
    auc = measured(read_scores(tmp_path / "scores.parquet"))["auc"]
    assert auc.value is not None and (auc.n_real, auc.n_fake, auc.n_failed) == (29, 30, 1)


def test_verdicts_at_the_thresholds_of_validation_and_reals_that_flip(tmp_path: Path) -> None:
    model = Model(key="d", detector="d", thresholds={"5": 0.0})
    clips = crowd(people=4, gap=0)
    tables = []
    for number, clip in enumerate(clips):
        for perturbation, level, logit in (("", 0, -1.0), ("jpeg", 5, 1.0 if number == 0 else -1.0)):
            said = FrameScores(np.full(FRAMES, logit + (3 if clip.generator else 0), np.float32), "scored", None)
            tables.append(score_rows(model, clip, "", (None, None), range(FRAMES), said, perturbation, level))
    write_scores(tmp_path / "scores.parquet", tables, [model])
    scores = read_scores(tmp_path / "scores.parquet")
    as_is, perturbed = measured(scores), measured(scores, perturbation="jpeg", level="5")
    assert as_is["fakes_flagged_at_5"].value == 1 and as_is["reals_flagged_at_5"].value == 0
    assert as_is["reals_flagged_at_5"].high == pytest.approx(1 - 0.025 ** (1 / 4))
    assert perturbed["reals_flipped_at_5"].value == perturbed["reals_flagged_at_5"].value == pytest.approx(0.25)
    assert perturbed.keys() == {"auc", "tpr_at_5", "tpr_at_1", *(f"{n}_at_5" for n in
        ("fakes_flagged", "reals_flagged", "reals_flipped"))}  # fmt: skip


def test_draws_of_one_training_are_meaned(tmp_path: Path) -> None:
    models = [Model(key=f"d{n}", detector="d", training="1 of g", known_fakes=1, draw=n) for n in range(2)]
    tables = []
    for model in models:
        for number in range(5):
            for generator, mean in (("", 0.0), ("g", 1.0 if model.draw == 0 else -1.0)):
                said = FrameScores(np.full(FRAMES, mean, np.float32), "scored", None)
                clip = item(f"{number}{generator}", generator, f"p{number}")
                tables.append(score_rows(model, clip, "", (False, False), range(FRAMES), said))
    write_scores(tmp_path / "scores.parquet", tables, models)
    rows = measure_scores(read_scores(tmp_path / "scores.parquet"), 0, lambda *_: None)
    (auc,) = (m for m in rows if m.metric == "auc" and m.labels["unit"] == "clip")
    assert auc.value == pytest.approx(0.5) and auc.labels["known_fakes"] == "1"


def test_two_detectors_of_one_name_stay_apart(tmp_path: Path) -> None:
    """Each tells all apart, on a scale of its own: together they would not."""
    models = [Model(key=f"runs/{name}", detector="d") for name in "ab"]
    tables = []
    for model, logits in zip(models, ((0.0, 1.0), (10.0, 20.0)), strict=True):
        for number in range(3):
            for generator, value in zip(("", "g"), logits, strict=True):
                said = FrameScores(np.full(FRAMES, value, np.float32), "scored", None)
                clip = item(f"{number}{generator}", generator, f"p{number}")
                tables.append(score_rows(model, clip, "", (False, True), range(FRAMES), said))
    write_scores(tmp_path / "scores.parquet", tables, models)
    rows = measure_scores(read_scores(tmp_path / "scores.parquet"), 0, lambda *_: None)
    found = {m.labels["detector"]: m for m in rows if m.metric == "auc" and m.labels["unit"] == "clip"}
    assert set(found) == {"runs/a", "runs/b"} and all(m.value == 1 and m.n_fake == 3 for m in found.values())
    write_scores(tmp_path / "empty.parquet", [], models)
    assert clip_scores(read_scores(tmp_path / "empty.parquet")).empty


def test_folds_are_laid_side_by_side_by_their_calibrations(tmp_path: Path) -> None:
    """Of one fold the logits are ten times as large, and its calibration says so."""
    models = [
        Model(key="d0", detector="d", training="all", fold=0, scale=1.0, shift=0.0, thresholds={"5": 0.5}),
        Model(key="d1", detector="d", training="all", fold=1, scale=0.1, shift=-1.0, thresholds={"5": 15.0}),
    ]
    tables = []
    for model, logits in zip(models, ((0.0, 1.0), (10.0, 20.0)), strict=True):
        for number in range(3):
            for generator, value in zip(("", "g"), logits, strict=True):
                clip = item(f"{model.key}{number}{generator}", generator, f"{model.key}p{number}")
                said = FrameScores(np.full(FRAMES, value, np.float32), "scored", None)
                tables.append(score_rows(model, clip, "", (False, True), range(FRAMES), said))
    write_scores(tmp_path / "scores.parquet", tables, models)
    found = measured(read_scores(tmp_path / "scores.parquet"), training="all")
    assert found["auc"].value == 1 and found["auc"].n_real == found["auc"].n_fake == 6
    assert found["fakes_flagged_at_5"].value == 1 and found["reals_flagged_at_5"].value == 0


def test_a_table_that_cannot_be_trusted_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "scores.parquet"
    with pytest.raises(RunError, match="does not exist"):
        read_scores(path)
    path.write_text("no parquet")
    with pytest.raises(RunError, match="is no table of scores"):
        read_scores(path)
    model = Model(key="d", detector="d")
    table = score_rows(model, item("a"), "", (None, None), [0], FrameScores(np.zeros(1, np.float32), "scored", None))
    write_scores(path, [table, table], [model])
    with pytest.raises(RunError, match="says two things of frame"):
        read_scores(path)
    write_scores(path, [table], [])
    with pytest.raises(RunError, match="holds scores of 'd' and does not say what that is"):
        read_scores(path)


@pytest.mark.parametrize(
    ("own", "fakes_own", "noise", "gap"),
    [(1.0, 0.2, 0.2, 0.6), (0.5, 0.5, 1.0, 2.5), (0.5, 0.5, 0.7, 3.0)],
)
def test_the_bootstrap_covers_the_truth_where_frames_would_not(
    own: float, fakes_own: float, noise: float, gap: float
) -> None:
    random = np.random.default_rng(0)
    truth = NormalDist().cdf(gap / np.sqrt(2 * own**2 + fakes_own**2 + 2 * noise**2))  # of a fake and another's real
    clips = np.concatenate([np.arange(18), np.repeat(np.arange(18), 6)])  # a real one and six fakes of each person
    people, fake = np.repeat(clips, 8), np.repeat(np.arange(len(clips)) >= 18, 8)  # of eight frames, all alike

    def covered(by_identity: bool) -> float:
        hits = 0
        for trial in range(100):
            theirs, of_fakes = random.normal(0, own, 18), random.normal(gap, fakes_own, 18)
            of_clips = random.normal(0, noise, len(clips)).repeat(8)
            logits = theirs[people] + np.where(fake, of_fakes[people], 0) + of_clips
            measure = lambda draws, x=logits: auc(fake, x, draws)  # noqa: E731
            rows = people if by_identity else np.arange(len(people))
            bounds = bootstrap_bounds(measure, rows, trial, "odds", 17 if by_identity else None, draws=200)
            assert bounds is not None
            hits += bounds[0] <= truth <= bounds[1]
        return hits / 100

    assert 0.88 <= covered(True) <= 0.99
    assert covered(False) <= 0.8


def test_a_share_that_jumps_from_draw_to_draw_is_covered_too() -> None:
    random = np.random.default_rng(0)
    people, hits = np.repeat(np.arange(25), 6), 0
    for trial in range(200):
        flagged = random.random(150) < random.beta(9, 1, 25)[people]
        measure = lambda draws, x=flagged: draws.weights @ x / draws.weights.sum(axis=1)  # noqa: E731
        bounds = bootstrap_bounds(measure, people, trial, "share", draws=200)
        assert bounds is not None and 0.5 < bounds[0] < bounds[1] <= 1
        hits += bounds[0] <= 0.9 <= bounds[1]
    assert 0.9 <= hits / 200 <= 0.99


def test_an_error_of_few_people_is_no_smaller_for_being_drawn() -> None:
    random = np.random.default_rng(0)
    people = np.arange(30)
    fake, p = people % 2 == 0, random.uniform(0, 1, 30)

    def measure(draws: Draws) -> NDArray[np.float64]:
        return expected_calibration_error(fake, p, draws)

    value = float(measure(Draws(np.ones((1, 30)), people))[0])
    bounds = bootstrap_bounds(measure, people, 0, "distance")
    assert bounds is not None and bounds[0] < value < bounds[1] and value - bounds[0] > bounds[1] - value


@pytest.mark.parametrize("scale", ["error", "distance"])
def test_no_bound_of_an_error_is_above_one(scale: Literal["error", "distance"]) -> None:
    errors = np.array([0.02, 0.7])

    def measure(draws: Draws) -> NDArray[np.float64]:
        means: NDArray[np.float64] = (draws.counts * errors).sum(axis=1) / draws.counts.sum(axis=1)
        return means

    assert bootstrap_bounds(measure, np.arange(2), 0, "positive", draws=200)[1] > 2  # type: ignore[index]
    assert bootstrap_bounds(measure, np.arange(2), 0, scale, draws=200)[1] == 1.0  # type: ignore[index]


def test_where_a_scale_ends_the_bounds_are_those_of_the_draws() -> None:
    for scale, value in (("odds", 1.0), ("odds", 1 - 1e-15), ("share", 0.0), ("positive", 0.0)):
        found = bootstrap_bounds(lambda draws, x=value: np.full(len(draws.counts), x), np.arange(5), 0, scale)  # type: ignore[arg-type,misc]
        assert found == (value, value)


def test_no_bounds_of_one_person_or_where_most_draws_have_no_value() -> None:
    def measure(draws: Draws) -> NDArray[np.float64]:
        return np.full(len(draws.counts), np.nan)

    assert bootstrap_bounds(measure, np.zeros(5, np.int64), 0, "share") is None
    assert bootstrap_bounds(measure, np.arange(5), 0, "share") is None
    assert bootstrap_bounds(lambda draws: np.full(len(draws.counts), 0.5), np.arange(5), 0, "share", freedom=0) is None
