"""How two measurements of one metric differ: person by person where both judged the same people."""

from dataclasses import dataclass
from typing import Literal

from reports.numbers import Digits, write_number
from thead_eval.results import Measurement
from thead_eval.statistics import Interval, paired_difference_interval

Change = Literal["better", "worse", "tie", ""]


@dataclass(frozen=True)
class Difference:
    """How one measurement stands to another."""

    change: Change  # 'tie': it may be chance; "": nothing is known
    paired: Interval | None  # one minus the other, over people; None where the two intervals had to be compared

    def write(self, style: Digits) -> str:
        """'+0.021 [0.013, 0.029]', or nothing where people could not be paired."""
        if self.paired is None:
            return ""
        value, low, high = (write_number(number, style) for number in self.paired)
        return f"{'+' if self.paired.value and self.paired.value > 0 else ''}{value} [{low}, {high}]"


def compare(one: Measurement, other: Measurement) -> Difference:
    """How one stands to the other; both must have a value.

    Set metrics have no value of a person's own: theirs must have intervals that do not overlap, which is stricter.
    """
    paired = paired_difference_interval(one.per_identity, other.per_identity)
    if paired.low is None:
        return Difference(_compare_intervals(one, other), None)
    if one.higher_is_better is None:
        # |one| < |other| is (other - one) (other + one) > 0, and both factors must be sure.
        mirrored = {name: None if value is None else -value for name, value in other.per_identity.items()}
        gain = -_sign(paired) * _sign(paired_difference_interval(one.per_identity, mirrored))
    else:
        gain = _sign(paired) if one.higher_is_better else -_sign(paired)
    # People whom only one side could judge are in the values, and not in the difference: the two may disagree.
    if gain * (one.merit - other.merit) <= 0:
        return Difference("tie", paired)
    return Difference("better" if gain > 0 else "worse", paired)


def _compare_intervals(one: Measurement, other: Measurement) -> Change:
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return ""
    if one.low <= other.high and other.low <= one.high:
        return "tie"
    return "better" if one.merit > other.merit else "worse"


def _sign(interval: Interval) -> int:
    """1 or -1 where the whole interval lies to that side of 0, else 0."""
    assert interval.low is not None and interval.high is not None
    return 1 if interval.low > 0 else -1 if interval.high < 0 else 0
