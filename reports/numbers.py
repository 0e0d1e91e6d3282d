"""How numbers are written in the report: digits that fit the metric, a true minus sign, a thin thousands space."""

import math
from collections.abc import Iterable
from typing import NamedTuple

from thead_eval.results import Measurement

DASH = "—"  # an em dash: there is no number


class Digits(NamedTuple):
    """How many decimals a metric's numbers get, and whether they are small enough for powers of ten."""

    decimals: int
    scientific: bool = False


def digits(values: Iterable[float | None]) -> Digits:
    """Three significant digits for the largest of these, so that a column lines up."""
    largest = max((abs(value) for value in values if value is not None), default=0.0)
    if largest == 0.0:
        return Digits(3)
    if largest < 1e-3:
        return Digits(1, scientific=True)
    return Digits(max(0, 2 - math.floor(math.log10(largest))))


def write_number(value: float | None, style: Digits) -> str:
    """The number in that style; an em dash for None."""
    if value is None:
        return DASH
    text = f"{value:.{style.decimals}e}" if style.scientific else f"{value:,.{style.decimals}f}".replace(",", "\u202f")
    if not style.scientific and float(f"{value:.{style.decimals}f}") == 0.0:
        text = text.removeprefix("-")  # no minus zero
    return text.replace("-", "\u2212")


def write_interval(measurement: Measurement, style: Digits) -> str:
    """'[0.58, 0.64]', or nothing where there is no interval."""
    if measurement.low is None or measurement.high is None:
        return ""
    return f"[{write_number(measurement.low, style)}, {write_number(measurement.high, style)}]"


def write_count(count: int) -> str:
    """1234567 as 1 234 567, with thin spaces."""
    return f"{count:,}".replace(",", "\u202f")


def count_words(count: int, noun: str, plural: str = "") -> str:
    """'1 person', '73 people'."""
    return f"{write_count(count)} {noun if count == 1 else plural or noun + 's'}"


def and_words(words: Iterable[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    *rest, last = list(words)
    return f"{', '.join(rest)} and {last}" if rest else last
