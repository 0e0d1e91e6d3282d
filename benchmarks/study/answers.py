"""Who is asked what, and what they answered: one SQLite file, in which an answer is as soon as it is given.

A participant is a random id and a token, the secret part of a link. Nothing else is kept of a person: no name, no
address, no time of day. Of an answer its place, what was chosen and how long it took.
"""

import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.study.folder import LETTERS, Study, Triplet, by_condition

TABLES = """
CREATE TABLE IF NOT EXISTS participants (
  number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, token TEXT NOT NULL UNIQUE
);
CREATE TABLE IF NOT EXISTS questions (
  participant TEXT NOT NULL REFERENCES participants (id), number INTEGER NOT NULL,
  triplet TEXT NOT NULL, videos TEXT NOT NULL, PRIMARY KEY (participant, number)
);
CREATE TABLE IF NOT EXISTS answers (
  participant TEXT NOT NULL, question INTEGER NOT NULL, choice INTEGER NOT NULL CHECK (choice BETWEEN 1 AND 3),
  milliseconds INTEGER NOT NULL, PRIMARY KEY (participant, question),
  FOREIGN KEY (participant, question) REFERENCES questions (participant, number)
);
"""


@dataclass(frozen=True)
class Participant:
    """Somebody who has, or will get, a link."""

    id: str
    token: str
    questions: int
    answered: int


@dataclass(frozen=True)
class Question:
    """A triplet as one participant sees it."""

    number: int  # from 0
    triplet: str
    videos: str  # its letters in the order on the screen


@dataclass(frozen=True)
class Answer:
    """What one participant chose."""

    participant: str
    triplet: str
    chosen: str  # letter
    milliseconds: int  # from the moment the videos were seen


def plan(study: Study, number: int) -> list[Question]:
    """The questions of the participant of this number, attention checks among them.

    Generators and shots come equally often, in one participant's as far as that goes, and over all of them; each time
    with somebody whom this participant saw least; the fake stands in each place equally often.
    """
    random = np.random.default_rng([study.settings.seed, number])
    pools = {key: list(pool) for key, pool in sorted(by_condition(study.triplets).items())}
    count = min(study.settings.questions, sum(map(len, pools.values())))
    chosen: list[Triplet] = []
    begin = number * count
    while len(chosen) < count:
        left = [key for key in pools if pools[key]]
        turn = [left[(begin + place) % len(left)] for place in range(min(len(left), count - len(chosen)))]
        begin += len(turn)
        for place in random.permutation(len(turn)):
            pool = pools[turn[place]]
            seen = [sum(triplet.identity == other.identity for other in chosen) for triplet in pool]
            fresh = [index for index, times in enumerate(seen) if times == min(seen)]
            chosen.append(pool.pop(int(random.choice(fresh))))
    checks = [triplet for triplet in study.triplets if triplet.is_check]
    for part, place in reversed(list(enumerate(random.permutation(len(checks))))):
        # One in each part of the way, never the first: a participant first has to see what a question is.
        first, last = (1 + round(edge * (count - 1) / len(checks)) for edge in (part, part + 1))
        chosen.insert(int(random.integers(first, max(first + 1, last))), checks[place])
    places = random.permutation([place % 3 for place in range(len(chosen))])
    questions = []
    for index, (triplet, place) in enumerate(zip(chosen, places, strict=True)):
        videos = list(random.permutation([letter for letter in LETTERS if letter != triplet.fake]))
        videos.insert(place, triplet.fake)
        questions.append(Question(index, triplet.id, "".join(videos)))
    return questions


class Answers:
    """The answers of a study; safe to use from several threads and processes at once."""

    def __init__(self, path: Path) -> None:
        """For the file at `path`, which is made by the first use."""
        self.path = path

    def invite(self, study: Study, count: int) -> None:
        """Make links until there are so many; those that are there stay."""
        with self._open() as database:
            database.executescript(TABLES)
            database.execute("BEGIN IMMEDIATE")
            (known,) = database.execute("SELECT count(*) FROM participants").fetchone()
            for number in range(known, count):
                id, token = secrets.token_hex(4), secrets.token_urlsafe(16)
                database.execute("INSERT INTO participants VALUES (?, ?, ?)", (number, id, token))
                rows = [(id, q.number, q.triplet, q.videos) for q in plan(study, number)]
                database.executemany("INSERT INTO questions VALUES (?, ?, ?, ?)", rows)

    def participants(self) -> list[Participant]:
        """Everybody, in the order in which links were made."""
        return self._participants("")

    def find(self, token: str) -> Participant | None:
        """Whose link it is; None: nobody's."""
        return next(iter(self._participants("WHERE token = ?", token)), None)

    def _participants(self, where: str, *values: str) -> list[Participant]:
        with self._open() as database:
            rows = database.execute(
                "SELECT id, token, (SELECT count(*) FROM questions WHERE participant = id), "
                f"(SELECT count(*) FROM answers WHERE participant = id) FROM participants {where} ORDER BY number",
                values,
            ).fetchall()
        return [Participant(*row) for row in rows]

    def question(self, participant: Participant, number: int) -> Question | None:
        """One of this participant's questions; None: there is none of this number."""
        with self._open() as database:
            row = database.execute(
                "SELECT number, triplet, videos FROM questions WHERE participant = ? AND number = ?",
                (participant.id, number),
            ).fetchone()
        return None if row is None else Question(*row)

    def add(self, participant: Participant, number: int, choice: int, milliseconds: int) -> bool:
        """Keep an answer, on the disk when this returns. False, and nothing kept, unless it is to the next question.

        So a second click, or a second window with the same link, changes nothing.
        """
        with self._open() as database:
            cursor = database.execute(
                "INSERT INTO answers SELECT participant, number, ?, ? FROM questions WHERE participant = ? "
                "AND number = ? AND number = (SELECT count(*) FROM answers WHERE participant = ?)",
                (choice, milliseconds, participant.id, number, participant.id),
            )
            return cursor.rowcount == 1

    def all(self) -> Sequence[Answer]:
        """Every answer, by participant in the order given."""
        with self._open() as database:
            rows = database.execute(
                "SELECT answers.participant, triplet, substr(videos, choice, 1), milliseconds FROM answers "
                "JOIN questions ON questions.participant = answers.participant AND questions.number = question "
                "JOIN participants ON participants.id = answers.participant ORDER BY participants.number, question"
            ).fetchall()
        return [Answer(*row) for row in rows]

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """One transaction. The default journal, synchronised in full: what was committed survives a loss of power."""
        with closing(sqlite3.connect(self.path, timeout=30)) as database:
            database.execute("PRAGMA synchronous = FULL")
            database.execute("PRAGMA foreign_keys = ON")
            with database:
                yield database
