"""A data card: what a prepared dataset holds, counted from its files, as Markdown.

What a person has to say (whose faces they are, who agreed to what, what the data must not be used for) comes from a
Markdown file that is put in front.
"""

from pathlib import Path

import pandas as pd

from reports.card import put_table, read_about, write_markdown
from reports.numbers import count_words
from thead_eval.data import TARGET_FRAMES, Dataset, named_clips, plan_few_shot_sets
from thead_eval.errors import NobodyFits
from thead_eval.sources import SPLITS

SHOTS = (1, 8, 32)


def write_data_card(dataset: Dataset, out: Path, *, about: Path | None = None) -> Path:
    """Write the card of a prepared dataset.

    Raises:
        RunError: `about` cannot be read, or `out` not written.
    """
    clips = dataset.clips
    parts = [f"# Data card: {Path(dataset.path).resolve().name}\n"]
    if about is not None:
        parts.append(read_about(about))
    parts += [_contents(clips), _clips(dataset), _faces(dataset), _rejected(dataset), _made(dataset)]
    write_markdown(out, parts)
    return out


def _contents(clips: pd.DataFrame) -> str:
    rows = []
    for label, labelled in clips.groupby("label"):
        for split in [*SPLITS, "all"]:
            own = labelled if split == "all" else labelled[labelled["split"] == split]
            seconds = (own["frames"] / own["fps"]).sum()
            counts = named_clips(own)["identity"].nunique(), len(own), int(own["frames"].sum())
            rows.append([str(label), split, *(f"{count:,}" for count in counts), f"{seconds / 60:.1f}"])
    table = put_table(["", "split", "people", "clips", "frames", "minutes"], rows)
    named = named_clips(clips)
    parted = named.groupby("identity")["split"].nunique().max()
    told = "Nobody is in two splits." if parted == 1 else "**Some people are in two splits.**"
    if unnamed := len(clips) - len(named):
        told += (
            f" {count_words(unnamed, 'clip')} of a second person in a recording: who that is, and where else, nobody"
        )
        told += " knows."
    return f"## What is in it\n\n{table}\n{told}\n"


def _clips(dataset: Dataset) -> str:
    clips, size = dataset.clips, dataset.info.size
    seconds, sides = clips["frames"] / clips["fps"], clips["crop_box"].map(lambda box: box[2] - box[0])
    rates = clips["fps"].round(2).value_counts()
    per_person = named_clips(clips).groupby("identity").size()
    enough = ", ".join(f"{_count_sets(dataset, shots)} for {shots}" for shots in SHOTS)
    rows = [
        ["clips of a person", _spread(per_person, "")],
        ["seconds of a clip", _spread(seconds, " s")],
        ["frames a second", ", ".join(f"{rate:g} ({count_words(n, 'clip')})" for rate, n in rates.items())],
        ["pixels a side of the crop in the source", _spread(sides, " px")],
        [f"crops smaller than the {size} px they were made", f"{(sides < size).mean():.0%}"],
        [f"people with frames enough for shots and {TARGET_FRAMES} targets", enough],
    ]
    return "## The clips\n\n" + put_table(["", ""], rows)


def _count_sets(dataset: Dataset, shots: int) -> int:
    """People whom `theval score` could judge at so many shots."""
    try:
        return len(plan_few_shot_sets(dataset, "all", shots, 0)[0])
    except NobodyFits:
        return 0


def _spread(values: pd.Series, unit: str) -> str:
    low, middle, high = (
        f"{value:,.0f}" if value >= 100 else f"{value:.3g}" for value in (values.min(), values.median(), values.max())
    )
    return f"{low} to {high}{unit}, median {middle}{unit}"


def _faces(dataset: Dataset) -> str:
    shares = dataset.found_shares()
    told = "Landmarks were found in every frame."
    if shares.min() < 1:
        told = f"Landmarks were found in {shares.mean():.2%} of a clip's frames, in the mean over clips; in the worst, "
        told += f"`{shares.idxmin()}`, in {shares.min():.1%}."
    return f"## Faces\n\n{told}\n"


def _rejected(dataset: Dataset) -> str:
    reasons = dataset.rejected["reason"].value_counts()
    if not len(reasons):
        return "## What was left out\n\nNothing: every source gave a clip.\n"
    table = put_table(["reason", "sources"], [[str(reason), str(count)] for reason, count in reasons.items()])
    return f"## What was left out\n\n{table}"


def _made(dataset: Dataset) -> str:
    info = dataset.info
    packages = ", ".join(f"{name} {version}" for name, version in info.packages.items())
    settings = ", ".join(f"{name} {value}" for name, value in info.settings.items())
    rows = [
        ["sha256 of its tables", f"`{dataset.sha256}`"],
        ["head crops", f"{info.size} px, JPEG quality {info.jpeg_quality}"],
        ["face detector, landmarks", f"{info.detector}, {info.landmarks}"],
        ["settings", settings or "none"],
        ["packages", packages or "not recorded"],
    ]
    return "## How it was made\n\n" + put_table(["", ""], rows)
