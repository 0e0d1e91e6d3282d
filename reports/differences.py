"""How two measurements of one metric stand to each other: person by person where both judged the same people."""

from dataclasses import dataclass
from typing import Literal

from reports.numbers import Digits, write_number
from thead_eval.differences import difference, gain
from thead_eval.results import Measurement
from thead_eval.statistics import PairedDifference

Change = Literal["better", "worse", "tie", ""]


@dataclass(frozen=True)
class Difference:
    """How one measurement stands to another."""

    change: Change  # 'tie': it may be chance; "": nothing is known
    paired: PairedDifference | None  # one minus the other, over people; None where the two intervals had to be compared

    def write(self, style: Digits) -> str:
        """'+0.021 [0.013, 0.029]', or nothing where people could not be paired."""
        if self.paired is None:
            return ""
        value, low, high = (write_number(number, style) for number in self.paired[:3])
        return f"{'+' if self.paired.value > 0 else ''}{value} [{low}, {high}]"


def compare(one: Measurement, other: Measurement) -> Difference:
    """How one stands to the other; both must have a value.

    Where there are no people to pair by, the two intervals must not overlap, which is stricter.
    """
    paired, gained = difference(one, other), gain(one, other)
    if paired is None or gained is None:
        return Difference(_compare_intervals(one, other), None)
    sign = 1 if gained.low > 0 else -1 if gained.high < 0 else 0
    # People whom only one side could judge are in the values, and not in the difference: the two may disagree.
    if sign * (one.merit - other.merit) <= 0:
        return Difference("tie", paired)
    return Difference("better" if sign > 0 else "worse", paired)


def _compare_intervals(one: Measurement, other: Measurement) -> Change:
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return ""
    if one.low <= other.high and other.low <= one.high:
        return "tie"
    return "better" if one.merit > other.merit else "worse"
