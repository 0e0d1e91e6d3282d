"""How two measurements of one metric differ, paired over the people whom both judged."""

from collections.abc import Mapping

import numpy as np

from thead_eval.results import Measurement
from thead_eval.statistics import PairedDifference, jackknife_difference, mean_difference


def difference(one: Measurement, other: Measurement) -> PairedDifference | None:
    """One minus the other; None where there are no people to pair by.

    Where people have values of their own, the mean over those whom both judged. Else the difference of the two values,
    with a jackknife that leaves the same people out of both at once: then both must have judged the same people.
    """
    return _difference(one, other, 1)


def gain(one: Measurement, other: Measurement) -> PairedDifference | None:
    """As `difference`, turned so that more is better; of what should be near 0, by how much nearer one is.

    |one| < |other| is (other - one) (other + one) > 0, and both factors must be sure: told is the less sure one.
    """
    apart = _difference(one, other, 1)
    if apart is None or one.higher_is_better:
        return apart
    if one.higher_is_better is None:
        together = _difference(one, other, -1)
        assert together is not None
        nearer, farther = apart.value * together.value < 0, max(apart, together, key=lambda factor: factor.p)
        return farther if (farther.value > 0) == nearer else _turned(farther)
    return _turned(apart)


def _turned(found: PairedDifference) -> PairedDifference:
    return PairedDifference(-found.value, -found.high, -found.low, found.p)


def _difference(one: Measurement, other: Measurement, sign: int) -> PairedDifference | None:
    assert one.value is not None and other.value is not None
    if one.per_identity and other.per_identity:
        signed = {name: None if value is None else sign * value for name, value in other.per_identity.items()}
        return mean_difference(one.per_identity, signed)
    left, other_left = _by_group(one), _by_group(other)
    if len(left) < 2 or left.keys() != other_left.keys():
        return None
    differences = np.array([left[group] - sign * other_left[group] for group in sorted(left)])
    return jackknife_difference(one.value - sign * other.value, differences)


def _by_group(measurement: Measurement) -> Mapping[tuple[str, ...], float]:
    return {part.identities: part.value for part in measurement.left_out}
