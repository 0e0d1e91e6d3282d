"""The plain answer at the top of a report: what was judged, what the numbers say, and what to beware of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reports.differences import compare
from reports.numbers import and_words, count_words, write_interval, write_number
from reports.plots import Look, looks
from reports.runs import (
    Condition,
    Run,
    by_condition,
    calibrations,
    is_calibration,
    same_data,
    shots_order,
    shots_words,
)
from reports.tables import Column, Mark, columns_of, comparisons, marks, unscored
from thead_eval.results import USER, Measurement

CONTROLS = {"copy", "warp"}  # generators that learn nothing: what a learned one must beat
PAIRS = {"same person": "one person", "different people": "different people"}  # the label in a sentence
MOST_ON_A_CARD = 5


@dataclass(frozen=True)
class Question:
    """What a reader wants to know, and the metrics that answer it, the most telling first."""

    text: str
    about: str  # "better in ..."
    metrics: tuple[str, ...]


QUESTIONS = (
    Question("The same picture?", "likeness", ("ssim", "lpips_alex", "ms_ssim", "psnr", "l1", "perc_efflite0")),
    Question("The same person?", "identity", ("csim_mobilefacenet", "csim_facenet", "csim_dlib")),
    Question("The same movement?", "movement", ("nme_dlib68", "nme_fan68", "akd_dlib68")),
    Question("Real, as a set?", "realism as a set", ("fid", "fd_efflite0", "kid", "kid_efflite0")),
)


@dataclass(frozen=True)
class CardRow:
    """A series on a card."""

    name: str
    look: Look
    value: str
    interval: str
    mark: Mark


@dataclass(frozen=True)
class Card:
    """A question with the numbers that answer it, at the most shots."""

    question: Question
    column: Column
    at: str  # "at 32 shots"
    rows: tuple[CardRow, ...]
    more: int  # series that are only in the tables
    verdict: str
    scale: str  # what real frames give


@dataclass(frozen=True)
class Answer:
    """What some runs say, in a paragraph and cards."""

    heading: str  # the run's name, where each run has an answer of its own
    paragraph: str
    cards: tuple[Card, ...]


def answers(runs: Sequence[Run]) -> list[Answer]:
    """One answer where all runs judged the same data, else one a run."""
    series_looks = looks(runs)
    if same_data(runs):
        return [Answer("", paragraph(runs), tuple(cards(runs, series_looks)))]
    return [Answer(f"{run.key} · {run.label}", paragraph([run]), tuple(cards([run], series_looks))) for run in runs]


def cards(runs: Sequence[Run], series_looks: Mapping[Condition, Look]) -> list[Card]:
    """A card for each question that some metric answers, from runs of the same data."""
    conditions = by_condition(runs)
    columns = columns_of(runs)
    top = _most_shots(list(conditions))
    made = []
    for question in QUESTIONS:
        name = next((name for name in question.metrics if name in columns), None)
        if name is None:
            continue
        column = columns[name]
        at_top = [c for c in conditions if c.shots == top]
        found = [(c, m) for c in at_top if (m := conditions[c].get(name)) is not None and m.value is not None]
        if not found:
            continue
        marked = marks([m for _, m in found])
        rows = [
            CardRow(
                c.name,
                series_looks[c.series],
                write_number(m.value, column.style),
                write_interval(m, column.style),
                mark,
            )
            for (c, m), mark in zip(found, marked, strict=True)
        ]
        shown = tuple(rows[:MOST_ON_A_CARD])
        at = f"at {shots_words(top)}" if top else ""
        verdict, scale = _verdict(found, marked, column), _scale(runs, column)
        made.append(Card(question, column, at, shown, len(rows) - len(shown), verdict, scale))
    return made


def _verdict(found: Sequence[tuple[Condition, Measurement]], marked: Sequence[Mark], column: Column) -> str:
    best = [condition.name for (condition, _), mark in zip(found, marked, strict=True) if mark == "best"]
    tied = [condition.name for (condition, _), mark in zip(found, marked, strict=True) if mark == "tie"]
    if len(found) == 1:
        return ""
    if not best and not tied:
        return "not compared: no intervals"
    if len(found) > 2:
        return f"{best[0]} is best" if best else f"tie of {and_words(tied)}"
    (one, measured), (other, other_measured) = sorted(found, key=lambda pair: -pair[1].merit)
    outcome = f"{one.name} is better" if best else "tie"
    difference = compare(measured, other_measured).write(column.style)
    if difference:
        return f"{outcome}: {one.name} \u2212 {other.name} is {difference}"
    return outcome if best else "tie: the intervals overlap"


def paragraph(runs: Sequence[Run]) -> str:
    """What runs of the same data say, in plain sentences."""
    conditions = by_condition(runs)
    if not conditions:
        return "Nothing was judged: the run holds no measurement of a generator."
    columns = columns_of(runs)
    sentences = [_what(runs, list(conditions))]
    if not columns:
        return f"{sentences[0]} No metric has a value; the reasons are listed under “Not scored”."
    sentences += _headlines(runs) + _identity_scale(runs) + _shots_effect(runs)
    generators = sorted({condition.generator for condition in conditions})
    if set(generators) <= CONTROLS:
        one = len(generators) == 1
        are, them = ("is a control that learns", "it") if one else ("are controls that learn", "them")
        sentences.append(f"{and_words(generators).capitalize()} {are} nothing: a learned generator has to beat {them}.")
    return " ".join(sentences)


def _what(runs: Sequence[Run], conditions: Sequence[Condition]) -> str:
    generators = list(dict.fromkeys(condition.generator for condition in conditions))
    shots = sorted({c.shots for c in conditions if c.shots is not None}, key=shots_order)
    judged = [m for run in runs for m in _judged(run)]
    people = max((m.n_identities for m in judged), default=0)
    frames = max((m.n_frames for m in judged), default=0)
    number = count_words(len(generators), "generator")
    named = and_words(generators[:6]) + ("" if len(generators) <= 6 else f" and {len(generators) - 6} more")
    extent = f"{count_words(people, 'person', 'people')} and {count_words(frames, 'frame')}"
    several = f" in {count_words(len(runs), 'run')}," if len(runs) > 1 else ""
    if not shots:
        return f"The fakes of {named} were judged against the real clips that they reproduce,{several} {extent}."
    counts = f"{', '.join(shots[:-1])} or {shots[-1]} frames"
    if len(shots) == 1:
        counts = "1 frame" if shots[0] == "1" else f"{shots[0]} frames"
    return (
        f"{number} ({named}) {'were' if len(generators) > 1 else 'was'} judged{several} on {extent} at each setting. "
        f"{'Each' if len(generators) > 1 else 'It'} was given {counts} of a person, and remade other frames of that "
        "person from their landmarks."
    )


def _headlines(runs: Sequence[Run]) -> list[str]:
    """Who is better at what, at the most shots; the plain numbers where there is nobody to compare with."""
    if len(runs) > 1:
        return _changes(runs)
    top = _most_shots(list(by_condition(runs)))
    where = f"With {shots_words(top)}, " if top else ""
    made = cards(runs, looks(runs))
    if not made:
        return []
    if all(len(card.rows) + card.more == 1 for card in made):
        parts = [f"{card.column.metric} is {card.rows[0].value} {card.rows[0].interval}".rstrip() for card in made]
        return [_sentence(f"{where}{and_words(parts)}")]
    wins: dict[str, list[str]] = {}
    ties: dict[str, list[str]] = {}
    unknown = []
    for card in made:
        subject = f"{card.question.about} ({card.column.metric}"
        best = next((row for row in card.rows if row.mark == "best"), None)
        if best is not None:
            others = [row.value for row in card.rows if row is not best]
            against = f" against {others[0]}" if len(others) == 1 else ""
            wins.setdefault(best.name, []).append(f"{subject} {best.value}{against})")
        elif any(row.mark == "tie" for row in card.rows):
            tied = and_words(row.name for row in card.rows if row.mark == "tie")
            ties.setdefault(tied, []).append(f"{subject})")
        else:
            values = and_words(f"{row.value} for {row.name}" for row in card.rows)
            unknown.append(f"{card.column.metric} is {values}")
    parts = [f"{name} is better in {and_words(subjects)}" for name, subjects in wins.items()]
    parts += [f"{names} tie in {and_words(subjects)}" for names, subjects in ties.items()]
    sentences = [_sentence(where + "; ".join(parts))] if parts else []
    if unknown:
        sentences.append(_sentence(f"{where}{'; '.join(unknown)}; without intervals it is not known which is better"))
    return sentences


def _changes(runs: Sequence[Run]) -> list[str]:
    """How each later run stands to the first, by count."""
    rows = [row for group in comparisons(runs) for row in group]
    sentences = []
    for place, run in enumerate(runs):
        changes = [row.cells[place].change for row in rows if row.cells[place].change]
        if changes:
            sentences.append(
                f"Of {count_words(len(changes), 'number')} that {run.key} shares with an earlier run, "
                f"{changes.count('better')} are better, {changes.count('worse')} worse and {changes.count('tie')} ties."
            )
    return sentences


def _shots_effect(runs: Sequence[Run]) -> list[str]:
    """What more shots change in likeness, for at most three series."""
    conditions = by_condition(runs)
    columns = columns_of(runs)
    metric = next((name for name in QUESTIONS[0].metrics if name in columns), None)
    if metric is None:
        return []
    clauses = []
    for series in list(looks(runs))[:3]:
        points = [(c, m) for c in conditions if c.series == series and (m := conditions[c].get(metric)) is not None]
        known = [(c, m) for c, m in points if m.value is not None]
        if len(known) < 2:
            continue
        (first, start), (last, end) = known[0], known[-1]
        assert start.value is not None and end.value is not None and first.shots and last.shots
        style = columns[metric].style
        before, after = write_number(start.value, style), write_number(end.value, style)
        moved = f"stays at {before}" if before == after else f"goes from {before} to {after}"
        unsure = ", which may be chance" if before != after and compare(end, start).change == "tie" else ""
        clauses.append((first.shots, last.shots, f"{moved} for {series.name}{unsure}"))
    if not clauses:
        return []
    first_shots, last_shots, _ = clauses[0]
    same = [text for a, b, text in clauses if (a, b) == (first_shots, last_shots)]
    return [f"From {first_shots} to {shots_words(last_shots)}, {metric} {'; it '.join(same)}."]


def _identity_scale(runs: Sequence[Run]) -> list[str]:
    """What a cosine means on these real frames."""
    for name, column in columns_of(runs).items():
        lines = _calibration(runs, name)
        if lines and name in QUESTIONS[1].metrics:
            parts = [f"{write_number(value, column.style)} of {PAIRS.get(pair, pair)}" for pair, value in lines.items()]
            return [f"For scale: {name} between two real frames is {and_words(parts)}."]
    return []


def _scale(runs: Sequence[Run], column: Column) -> str:
    """What real frames give, for the foot of a card."""
    lines = _calibration(runs, column.metric)
    if lines:
        return "real: " + ", ".join(f"{write_number(value, column.style)} {pair}" for pair, value in lines.items())
    floors = [m.noise_floor for run in runs for m in run.measurements if m.metric == column.metric]
    known = [floor for floor in floors if floor is not None]
    return f"noise floor, of other real people: {write_number(max(known), column.style)}" if known else ""


def _calibration(runs: Sequence[Run], metric: str) -> dict[str, float]:
    """Kind of pair to cosine, of the first run that has them."""
    for run in runs:
        lines = {m.labels["pair"]: m.value for _, m in calibrations([run], metric) if m.value is not None}
        if lines:
            return lines
    return {}


def warnings(runs: Sequence[Run]) -> list[str]:
    """What a reader must know before quoting a number."""
    found = []
    if len(runs) > 1 and not same_data(runs):
        found.append("The runs judged different data. Their rows stand side by side, but are not compared.")
    by_text: dict[str, list[str]] = {}
    for run in runs:
        for text in _run_warnings(run):
            by_text.setdefault(text, []).append(run.key)
    found += [f"{and_words(keys)}: {text}" if len(runs) > 1 else text for text, keys in by_text.items()]
    missing = unscored(runs)
    if missing:
        names = and_words(item.metric for item in missing)
        found.append(f"Not scored: {names}. The reasons, and the commands that cure them, are under “Not scored”.")
    return found


def _run_warnings(run: Run) -> list[str]:
    found = []
    judged = _judged(run)
    people = max((m.n_identities for m in judged), default=0)
    if judged and people < 2:
        found.append("One person was judged, so there are no intervals, and nothing is said about other people.")
    elif judged and people < 10:
        found.append(f"Only {people} people were judged: the intervals are rough.")
    notes: dict[str, list[str]] = {}
    for m in judged:
        if m.note and not m.note.startswith("no interval"):
            notes.setdefault(m.note, []).append(m.metric)
    found += [f"{note} ({and_words(dict.fromkeys(metrics))})" for note, metrics in notes.items()]
    lost: dict[str, list[float]] = {}
    for m in judged:
        if m.n_failed:
            lost.setdefault(m.metric, []).append(m.n_failed / (m.n_failed + m.n_frames))
    if lost:
        worst = max(lost, key=lambda name: max(lost[name]))
        found.append(
            f"Some frames could not be judged and are not in the means: up to {100 * max(lost[worst]):.1f} % ({worst})."
        )
    if run.record.failures:
        found.append(
            f"{count_words(len(run.record.failures), 'thing')} could not be made or judged; see “What failed”."
        )
    if run.record.dirty:
        found.append(
            "The code had changes that no commit holds, so these numbers cannot be made again from the commit."
        )
    return found


def _judged(run: Run) -> list[Measurement]:
    """What counts people who are shown and their frames; USER counts people who look."""
    return [m for m in run.measurements if not is_calibration(m) and m.value is not None and m.metric != USER]


def _most_shots(conditions: Sequence[Condition]) -> str | None:
    return max((c.shots for c in conditions), key=shots_order, default=None)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
