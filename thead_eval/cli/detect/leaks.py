"""The audit that goes before trainings: what it finds is said, and what makes them worthless refused."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from thead_eval.errors import ConfigError

if TYPE_CHECKING:
    from thead_eval.evidence import Evidence
    from thead_eval.judging import Progress

DOUBTS = 5  # pairs of faces that are alike, of which some are always found among many people


def check_leaks(
    evidence: "Evidence",
    seed: int,
    read: "Progress",
    say: Callable[[str], None],
    *,
    faces: bool,
    kept: Path,
    leaky: bool,
) -> None:
    """Audit what is to be learnt from and judged.

    Args:
        evidence: All splits together.
        seed: Of the audit.
        read: Is told of the clips that are read.
        say: Is told what was found, in a line.
        faces: Compare faces too.
        kept: A file for what was measured of them.
        leaky: Refuse nothing.

    Raises:
        ConfigError: two splits share people, recordings or files.
    """
    from thead_eval.audit import audit

    found = audit(evidence.judged(), seed, read, faces=evidence if faces else None, kept=kept)
    for leak in (*found.leaks, *found.doubts[:DOUBTS]):
        say(f"{leak.check}: {leak.what}")
    if more := len(found.doubts[DOUBTS:]):
        say(f"face: {more} more pairs of people may be one person each; 'theval detect audit' names them")
    shared = [leak for leak in found.leaks if leak.check != "metadata"]
    if shared and not leaky:
        way_out = "--leaky, or --no-faces if they are two" if shared[0].check == "face" else "--leaky"
        raise ConfigError(f"{shared[0].what}; put each in one split, see 'theval detect audit', or pass {way_out}")
