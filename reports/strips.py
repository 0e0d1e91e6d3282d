"""Film strips: a person's source frame, driving landmarks, real frame, fake frame and their difference."""

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from reports.numbers import write_number
from reports.runs import Condition, Run, condition_of, shots_order
from reports.tables import columns_of
from thead_eval.drawing import draw_landmarks
from thead_eval.errors import MediaError
from thead_eval.judging import resize
from thead_eval.media import SYNTHETIC_SOURCE, read_clip
from thead_eval.results import USER, Measurement
from thead_eval.run import RunFolder
from thead_eval.sources import VIDEO_SUFFIXES
from thead_eval.types import NUM_POINTS

TILE = 160  # pixels a side
QUALITY = 80
DIFFERENCE_GAIN = 3  # a difference of 85 of 255 is black
MOST_CONDITIONS = 18  # with three strips each, what keeps the file below 4 MB
RANKED_BY = ("csim_mobilefacenet", "csim_facenet", "ssim")
TILES = ("source", "driving", "real", "fake", "difference")

_SYNTHETIC_XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    f'Iptc4xmpExt:DigitalSourceType="{SYNTHETIC_SOURCE}"/></rdf:RDF></x:xmpmeta>'
).encode()


@dataclass(frozen=True)
class Plan:
    """A strip to make."""

    run: Run
    condition: Condition
    rank: str  # "best", "median", "worst", or "only"
    identity: str
    metric: str
    value: float
    written: str  # the value as the tables write it


@dataclass(frozen=True)
class Tile:
    """A picture of a strip; no URI where the run holds none."""

    kind: str
    uri: str | None
    alt: str


@dataclass(frozen=True)
class Strip:
    """A strip that was made, or the sentence that says why not."""

    plan: Plan
    frame: int | None  # its number in the target clip
    tiles: tuple[Tile, ...]
    reason: str = ""

    @property
    def kinds(self) -> list[str]:
        """The kinds of tile that it has a picture of."""
        return [tile.kind for tile in self.tiles if tile.uri]


def plan_strips(runs: Sequence[Run]) -> list[Plan]:
    """Best, median and worst person of each condition; only of the most shots where that would be too many."""
    plans: dict[Condition, list[Plan]] = {}
    for run in runs:
        metric = _ranking_metric(run)
        if metric is None:
            continue
        style = columns_of(runs)[metric].style
        for measurement in run.measurements:
            condition = condition_of(run, measurement)
            if condition is not None and measurement.metric == metric:
                plans[condition] = [
                    Plan(run, condition, rank, identity, metric, value, write_number(value, style))
                    for rank, identity, value in ranked(measurement)
                ]
    plans = {condition: own for condition, own in plans.items() if own}
    if len(plans) > MOST_CONDITIONS:
        most = {c.series: max((o.shots for o in plans if o.series == c.series), key=shots_order) for c in plans}
        plans = {c: own for c, own in plans.items() if c.shots == most[c.series]}
    shown = sorted(plans, key=lambda c: shots_order(c.shots))[-MOST_CONDITIONS:]
    return [plan for condition in shown for plan in plans[condition]]


def ranked(measurement: Measurement) -> list[tuple[str, str, float]]:
    """Rank, identity and value of the best, the median and the worst person; ties go by name."""
    known = [(value, identity) for identity, value in measurement.per_identity.items() if value is not None]
    sign = -1 if measurement.higher_is_better else 1
    order = sorted(known, key=lambda pair: (sign * pair[0], pair[1]))
    match len(order):
        case 0:
            places: list[tuple[str, int]] = []
        case 1:
            places = [("only", 0)]
        case 2:
            places = [("best", 0), ("worst", 1)]
        case count:
            places = [("best", 0), ("median", count // 2), ("worst", count - 1)]
    return [(rank, order[place][1], order[place][0]) for rank, place in places]


def make_strip(plan: Plan) -> Strip:
    """The strip of the frame whose own value lies nearest to the person's: typical, not chosen by eye."""
    item, index = _typical_frame(plan)
    folder = RunFolder(plan.run.folder, plan.run.record.started, 0.0)
    clips = _find_clips(plan, folder, item)
    if clips is None:
        return Strip(plan, index, (), "the clips of this person are not where the run read them")
    try:
        fakes, reals = read_clip(clips.fake).frames, read_clip(clips.real).frames
        if index is None:
            index = len(fakes) // 2
        if index >= min(len(fakes), len(reals)):
            return Strip(plan, index, (), f"frame {index} is past the end of the stored clip")
        fake, real = fakes[index], reals[index]
        support = folder.support(item)
        source = read_clip(support, max_frames=1).frames[0] if support.is_file() else None
    except MediaError as error:
        return Strip(plan, index, (), str(error))
    landmarks = _read_landmarks(folder.landmarks(item), index, real)

    who, name = plan.identity, plan.condition.full_name
    tiles = [
        tile("source", source, f"source frame of {who}"),
        tile("driving", landmarks, f"landmarks that drove frame {index} of {who}"),
        tile("real", real, f"real frame {index} of {who}"),
        tile("fake", fake, f"synthetic frame {index} of {who}, made by {name}"),
        tile("difference", _difference(fake, real), f"difference of the synthetic and the real frame {index} of {who}"),
    ]
    return Strip(plan, index, tuple(tiles))


class _Clips(NamedTuple):
    fake: Path
    real: Path


def _find_clips(plan: Plan, folder: RunFolder, item: str) -> _Clips | None:
    """The clips in the run folder; of a run that judged folders, the user's own, where they are still there."""
    fake = folder.clip(plan.condition.generator, plan.condition.shots or "", item)
    if fake.is_file() and folder.real(item).is_file():
        return _Clips(fake, folder.real(item))
    reals = plan.run.record.dataset.get("reals")
    if reals is None:
        return None
    # The item is the path of the fake without its suffix, and a pair made by name has the real clip's name.
    fakes = _videos(Path(item).parent, Path(item).name)
    real = _videos(Path(reals), plan.identity)
    return _Clips(fakes[0], real[0]) if len(fakes) == len(real) == 1 else None


def _videos(folder: Path, stem: str) -> list[Path]:
    if not folder.is_dir():
        return []
    return [path for path in folder.rglob("*") if path.stem == stem and path.suffix.lower() in VIDEO_SUFFIXES]


def _ranking_metric(run: Run) -> str | None:
    """The metric that orders people: identity where it was judged, else likeness, else any that has people."""
    known = [m for m in run.measurements if any(v is not None for v in m.per_identity.values())]
    ranked_metrics = [m.metric for m in known if m.metric != USER]
    candidates = [metric for metric in ranked_metrics if condition_metric(run, metric)]
    return next((metric for metric in (*RANKED_BY, *candidates) if metric in candidates), None)


def condition_metric(run: Run, metric: str) -> bool:
    """Whether the metric has a value in a condition, not only as a calibration line."""
    return any(
        m.metric == metric and m.value is not None and condition_of(run, m) is not None for m in run.measurements
    )


def _typical_frame(plan: Plan) -> tuple[str, int | None]:
    """The item and the frame nearest to the person's value; the middle of the clip where no frames were stored."""
    path = plan.run.folder / "frames.parquet"
    if not path.is_file():
        return plan.identity, None
    names = pq.read_schema(path).names
    columns = [name for name in ("generator", "shots", "identity", "clip", "index", plan.metric) if name in names]
    filters = [("identity", "==", plan.identity), ("generator", "==", plan.condition.generator)]
    if "shots" in names and plan.condition.shots is not None and plan.condition.shots.isdecimal():
        filters.append(("shots", "==", int(plan.condition.shots)))  # type: ignore[arg-type]  # a filter takes any scalar
    rows = pq.read_table(path, columns=columns, filters=filters).to_pandas()
    if plan.metric in rows:
        rows = rows[rows[plan.metric].notna()]
    if rows.empty:
        return plan.identity, None
    if plan.metric in rows:
        row = rows.loc[(rows[plan.metric] - plan.value).abs().idxmin()]
    else:
        row = rows.iloc[len(rows) // 2]
    return str(row["clip"]), int(row["index"])


def _read_landmarks(path: Path, index: int, real: Tensor) -> Tensor | None:
    """The driving landmarks drawn at the frame's size, or None where there are none."""
    if not path.is_file():
        return None
    points = np.load(path)  # [T, 68, 2]
    if points.shape[1:] != (NUM_POINTS, 2) or index >= len(points) or not np.isfinite(points[index]).all():
        return None
    return draw_landmarks(torch.from_numpy(points[index].astype(np.float32)), real.shape[1], real.shape[2])


def _difference(fake: Tensor, real: Tensor) -> Tensor:
    """White where equal, darker with the distance: a picture to look at, not a number. At the size that was judged."""
    fake = resize(fake[None], real.shape[1], real.shape[2])[0]
    distance = (fake.float() - real.float()).abs().mean(dim=0, keepdim=True)  # [1, H, W]
    return (255 - DIFFERENCE_GAIN * distance).clamp(0, 255).to(torch.uint8).expand(3, -1, -1)


def tile(kind: str, frame: Tensor | None, alt: str) -> Tile:
    """A frame [3, H, W] uint8 within TILE pixels; of the kind 'fake', with SYNTHETIC in its pixels and metadata."""
    if frame is None:
        return Tile(kind, None, f"no picture: {alt}")
    image = Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy())
    image.thumbnail((TILE, TILE), Image.Resampling.LANCZOS)
    square = Image.new("RGB", (TILE, TILE), "white")
    square.paste(image, ((TILE - image.width) // 2, (TILE - image.height) // 2))
    synthetic = kind == "fake"
    if synthetic:
        _label(square)
    buffer = io.BytesIO()
    square.save(buffer, "WEBP", quality=QUALITY, method=6, xmp=_SYNTHETIC_XMP if synthetic else b"")
    return Tile(kind, f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}", alt)


def _label(image: Image.Image) -> None:
    """Write SYNTHETIC into the pixels, so that the word stays with a picture that someone copies out."""
    band = 24
    shade = Image.new("RGB", (image.width, band), "black")
    below = image.crop((0, image.height - band, image.width, image.height))
    image.paste(Image.blend(below, shade, 0.62), (0, image.height - band))
    ImageDraw.Draw(image).text(
        (image.width / 2, image.height - band / 2), "SYNTHETIC", "white", ImageFont.load_default(19), anchor="mm"
    )


def strips_by_condition(strips: Sequence[Strip]) -> Iterator[tuple[Condition, list[Strip]]]:
    """Neighbouring strips of one condition together."""
    groups: dict[Condition, list[Strip]] = {}
    for strip in strips:
        groups.setdefault(strip.plan.condition, []).append(strip)
    yield from groups.items()
