"""Where the clip behind a point lies: a link that works as long as report and run keep their places."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from reports.runs import Condition, Run, by_condition
from thead_eval.judging import read_pairs
from thead_eval.run import RunFolder

Links = Mapping[Condition, Mapping[str, str]]  # identity to the URL of a fake of theirs, relative to the report


def clip_links(runs: Sequence[Run], out: Path) -> Links:
    """For a report that is written to `out`: the first fake of each person, where it is still there.

    Raises:
        RunError: a run's list of pairs is damaged.
    """
    return {condition: links for run in runs for condition, links in _links_of(run, out).items() if links}


def _links_of(run: Run, out: Path) -> dict[Condition, dict[str, str]]:
    folder = RunFolder(run.folder, run.record.started, 0.0)
    pairs = read_pairs(run.folder).pairs if (run.folder / "pairs.json").is_file() else []
    stored: dict[tuple[str, str | None], dict[str, tuple[str, Path]]] = {}
    for pair in pairs:
        own = stored.setdefault((pair.labels.get("generator", "fakes"), pair.labels.get("shots")), {})
        own.setdefault(pair.identity, (pair.item, pair.fake))
    links: dict[Condition, dict[str, str]] = {}
    for condition, measured in by_condition([run]).items():
        known = stored.get((condition.generator, condition.shots), {})
        links[condition] = {}
        for identity in dict.fromkeys(name for m in measured.values() for name in m.per_identity):
            item, elsewhere = known.get(identity, (identity, None))
            # In the run folder, which may have moved since; else where the user's own clips were.
            for path in (folder.clip(condition.generator, condition.shots or "", item), elsewhere):
                if path is not None and path.is_file():
                    links[condition][identity] = relative_url(path, out)
                    break
    return links


def relative_url(path: Path, out: Path) -> str:
    """Of a file, as a page at `out` names it."""
    return quote(Path(os.path.relpath(path, out.parent)).as_posix())
