"""Every clip that a detector judged as a point: how surely it calls it a fake, who it is, and where it lies."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from markupsafe import Markup
from scipy.special import expit

from reports.clips import relative_url
from reports.plots import MOST_NAMED, WIDTH, Figure, jitter, shorten, write_dot, write_svg, write_text
from reports.runs import Run
from thead_eval.detection import SCORES, Model, clip_scores, read_items, read_scores

STATED = "5"  # percent of the validation reals that the line in a figure lets pass as fakes


def clip_figures(run: Run, out: Path) -> list[Figure]:
    """A figure for each detector as it was named, or as it was trained on all generators; for a report in `out`.

    Raises:
        RunError: the run's scores are damaged.
    """
    if not (run.folder / SCORES).is_file():
        return []
    scores = read_scores(run.folder / SCORES)
    clips = clip_scores(scores)
    clips = clips[(clips["perturbation"] == "") & clips["p"].notna()]
    files = {item: path for item, path in read_items(run.folder).items() if path.is_file()}
    links = {item: relative_url(path, out) for item, path in files.items()}
    made = []
    for model in scores.models.values():
        own = clips[clips["model"] == model.key]
        if model.held_out or model.known_fakes is not None or own.empty:
            continue
        name = model.detector + (f", {model.training}" if model.training else "")
        name += "" if model.fold is None else f", fold {model.fold + 1}"
        caption = "p(fake) of each clip, by who made it"
        caption += "; too many to say which" if len(own) > MOST_NAMED else ""
        caption += f"; dotted: the threshold for {STATED} % of validation's reals" if STATED in model.thresholds else ""
        made.append(Figure(f"Clip by clip: {name}", caption, _points(model, own, links), ()))
    return made


def _points(model: Model, clips: pd.DataFrame, links: Mapping[str, str]) -> Markup:
    left, right, top, bottom, lane = 112, 12, 6, 36, 24
    makers = clips.groupby(clips["generator"].where(clips["label"] == "fake", ""))["p"].mean().sort_values()
    rows = [maker for maker in ("", *(name for name in makers.index if name)) if maker in makers.index]
    lowest = top + lane * len(rows)

    def x(p: float) -> float:
        return left + p * (WIDTH - right - left)

    parts = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(f'<line class="grid" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{top}" y2="{lowest}"/>')
        parts.append(write_text(x(tick), lowest + 14, f"{tick:g}", "tick", "middle"))
    parts.append(write_text(x(0.5), lowest + 30, "p(fake)", "axis", "middle"))
    threshold = model.thresholds.get(STATED)
    if threshold is not None:
        at = x(float(expit(model.scale * threshold + model.shift)))
        parts.append(f'<line class="floor" x1="{at:.1f}" x2="{at:.1f}" y1="{top}" y2="{lowest}"/>')
    told = []
    for place, maker in enumerate(rows):
        centre = top + lane * (place + 0.5)
        own = clips[clips["label"].eq("real") if not maker else clips["generator"].eq(maker)].sort_values("item")
        name = maker or "real"
        parts.append(
            write_text(left - 8, centre + 4, shorten(name, 17), "row", "end", title=f"{name}: {len(own)} clips")
        )
        parts.append(f'<g class="dots {"c1" if maker else "c0"}">')
        told.append(f"{name}: {len(own)} clips, mean {own['p'].mean():.2f}")
        spots = [f"M{x(p):.1f} {centre + jitter(i) * lane * 0.58:.1f}h0" for i, p in enumerate(own["p"])]
        if len(clips) > MOST_NAMED:
            parts.append(f'<path d="{"".join(spots)}"/>')
        else:
            named = zip(spots, own["item"], own["p"], strict=True)
            parts += [write_dot(spot, f"{item}: {p:.3f}", links.get(item, "")) for spot, item, p in named]
        parts.append("</g>")
    return write_svg(lowest + bottom, f"p(fake) of each clip by {model.detector}. {'; '.join(told)}.", parts)
