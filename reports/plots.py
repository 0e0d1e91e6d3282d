"""Plots as inline SVG: coloured by the page's style sheet, so that they follow light, dark and print."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup, escape
from matplotlib.ticker import MaxNLocator

from reports.clips import Links
from reports.numbers import Digits, count_words, digits, write_interval, write_number
from reports.runs import Condition, Run, by_condition, calibrations, same_data, shots_order, shots_words
from reports.tables import Column, calibration_band, columns_of, family_of
from thead_eval import spotting
from thead_eval.results import USER, Measurement

WIDTH = 340  # user units: a phone's width, so that text keeps its size where one plot fills the screen
COLOURS = 6  # .c0 to .c5 in report.css; more series repeat them with another shape
MOST_NAMED = 3000  # points of a plot that say who they are, at up to 300 bytes each; of more, none does
CHANCE = 1 / 3  # of who spots one fake among three
SHAPES = ("circle", "square", "diamond", "up", "down")


@dataclass(frozen=True)
class Look:
    """A series' colour and shape; the same in every plot and table of a report."""

    colour: str  # class of the style sheet
    shape: str
    dashed: bool  # a later run's generator of the same name


@dataclass(frozen=True)
class Plot:
    """An SVG and what stands above it."""

    metric: str
    better: str
    arrow: str
    unit: str
    svg: Markup


@dataclass(frozen=True)
class Figure:
    """A plot of the detectors' report, with its caption and legend."""

    title: str
    caption: str
    svg: Markup
    legend: tuple[tuple[str, str], ...]  # colour class, name


@dataclass(frozen=True)
class Axis:
    """Where the points of a curve lie, and how they are called."""

    title: str
    places: Mapping[str, float]  # 0..1, from left to right
    words: Mapping[str, str]  # '8 shots', to be read aloud


@dataclass(frozen=True)
class Legend:
    """A series' name beside its sign."""

    name: str
    colour: str
    svg: Markup


def looks(runs: Sequence[Run]) -> dict[Condition, Look]:
    """Series to look: colour and shape by generator, dashes for the same generator in a later run."""
    generators: dict[tuple[str, tuple[tuple[str, str], ...]], int] = {}
    result: dict[Condition, Look] = {}
    for condition in by_condition(runs):
        series = condition.series
        if series not in result:
            key = (series.generator, series.extra)
            again = key in generators
            index = generators.setdefault(key, len(generators))
            shape = SHAPES[(index + index // COLOURS) % len(SHAPES)]
            result[series] = Look(f"c{index % COLOURS}", shape, dashed=again)
    return result


def legend(runs: Sequence[Run]) -> list[Legend]:
    """Each series once."""
    entries = []
    for series, look in looks(runs).items():
        dash = ' stroke-dasharray="4 3"' if look.dashed else ""
        svg = Markup(
            f'<svg class="sign {look.colour}" viewBox="0 0 28 12" width="28" height="12" aria-hidden="true">'
            f'<line class="curve" x1="0" y1="6" x2="28" y2="6"{dash}/>{_marker(look, 14, 6)}</svg>'
        )
        entries.append(Legend(series.name, look.colour, svg))
    return entries


def curves(runs: Sequence[Run]) -> list[Plot]:
    """Each metric over shots, where some series has two or more numbers of shots."""
    conditions = by_condition(runs)
    series_looks = looks(runs)
    plots = []
    for name, column in columns_of(runs).items():
        series: dict[Condition, dict[str, Measurement]] = {}
        for condition, measurements in conditions.items():
            measurement = measurements.get(name)
            if condition.shots is not None and measurement is not None and measurement.value is not None:
                series.setdefault(condition.series, {})[condition.shots] = measurement
        if any(len(points) > 1 for points in series.values()):
            shots = sorted({count for points in series.values() for count in points}, key=shots_order)
            axis = Axis("shots", _places(shots), {count: shots_words(count) for count in shots})
            svg = _curve(column, series, series_looks, calibrations(runs, name), axis)
            plots.append(Plot(name, column.better, column.arrow, column.unit, svg))
    return plots


def trends(runs: Sequence[Run]) -> list[Plot]:
    """Each metric run after run, for generators that two or more runs judged on the same data at the most shots."""
    if len(runs) < 2 or not same_data(runs):
        return []
    conditions = by_condition(runs)
    top = max((c.shots for c in conditions if c.shots is not None), key=shots_order, default=None)
    keys = [run.key for run in by_start(runs)]
    axis = Axis("runs", {key: index / (len(keys) - 1) for index, key in enumerate(keys)}, {key: key for key in keys})
    series_looks: dict[Condition, Look] = {}
    for condition, look in looks(runs).items():
        series_looks.setdefault(replace(condition, run=""), replace(look, dashed=False))
    made = []
    for name, column in columns_of(runs).items():
        series: dict[Condition, dict[str, Measurement]] = {}
        for condition, measured in conditions.items():
            if condition.shots == top and name in measured and measured[name].value is not None:
                series.setdefault(replace(condition.series, run=""), {})[condition.run] = measured[name]
        shared = {condition: points for condition, points in series.items() if len(points) > 1}
        if shared:
            svg = _curve(column, shared, series_looks, [], axis)
            made.append(Plot(name, column.better, column.arrow, column.unit, svg))
    return made


def trend_runs(runs: Sequence[Run]) -> list[str]:
    """'A 98b9a01, theval 0.1.0, 2026-11-22', in the order of the trends."""
    told = []
    for run in by_start(runs):
        commit = f"{(run.record.commit or 'no commit')[:9]}{' with changes' if run.record.dirty else ''}"
        told.append(f"{run.key} {commit}, theval {run.record.packages.get('theval', '?')}, {run.record.started[:10]}")
    return told


def by_start(runs: Sequence[Run]) -> list[Run]:
    """In the order in which they were started."""
    return sorted(runs, key=lambda run: (run.record.started, run.key))


@dataclass(frozen=True)
class Fooled:
    """A set distance beside how often the fake is spotted, a point a generator and number of shots of one run."""

    distance: str
    spotted: str
    run: str  # "" where there is one alone
    svg: Markup


def fooled(runs: Sequence[Run]) -> list[Fooled]:
    """Does what fools the detector, or people, fool a set distance? Run by run: each may have another detector.

    No correlation is told: rows of one generator at several shots, on the same people, are not so many answers.
    """
    columns, series_looks = columns_of(runs), looks(runs)
    distances = [name for name in columns if family_of(name).key == "set"]
    made = []
    for run in runs:
        conditions = by_condition([run])
        for spotted in (name for name in (spotting.METRIC, USER) if name in columns):
            for distance in distances:
                both = {
                    condition: (measured[distance], measured[spotted])
                    for condition, measured in conditions.items()
                    if all(name in measured and measured[name].value is not None for name in (distance, spotted))
                }
                if len(both) > 2:
                    svg = _beside(columns[distance], columns[spotted], both, series_looks)
                    made.append(Fooled(distance, spotted, f"{run.key} {run.label}" if run.key else "", svg))
    return made


def _beside(
    across: Column,
    up: Column,
    both: Mapping[Condition, tuple[Measurement, Measurement]],
    series_looks: Mapping[Condition, Look],
) -> Markup:
    height, left, right, top, bottom = 230, 46, 18, 12, 34
    x_ticks, x_style, x_low, x_high = _axis(_reach([x for x, _ in both.values()]), count=5)
    y_ticks, y_style, y_low, y_high = _axis([*_reach([y for _, y in both.values()]), CHANCE], count=6)

    def x(value: float) -> float:
        return left + (value - x_low) / (x_high - x_low) * (WIDTH - right - left)

    def y(value: float) -> float:
        return top + (y_high - value) / (y_high - y_low) * (height - top - bottom)

    floor = height - bottom
    parts = []
    for tick in x_ticks:
        parts.append(f'<line class="grid" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{top}" y2="{floor}"/>')
        parts.append(write_text(x(tick), floor + 14, write_number(tick, x_style), "tick", "middle"))
    for tick in y_ticks:
        parts.append(f'<line class="grid" x1="{left}" x2="{WIDTH - right}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(write_text(left - 6, y(tick) + 4, write_number(tick, y_style), "tick", "end"))
    parts.append(
        f'<line class="floor" x1="{left}" x2="{WIDTH - right}" y1="{y(CHANCE):.1f}" y2="{y(CHANCE):.1f}"/>'
        + write_text(WIDTH - right, y(CHANCE) - 4, "chance", "level", "end")
    )
    parts.append(write_text((left + WIDTH - right) / 2, height - 2, across.metric, "axis", "middle"))
    for condition, (distance, spotted) in both.items():
        look = series_looks[condition.series]
        px, py = x(distance.value or 0.0), y(spotted.value or 0.0)
        parts.append(f'<g class="{look.colour}"><title>{escape(condition.full_name)}</title>')
        if spotted.low is not None and spotted.high is not None:
            ends = f'x1="{px:.1f}" x2="{px:.1f}" y1="{y(spotted.low):.1f}" y2="{y(spotted.high):.1f}"'
            parts.append(f'<line class="whisker" {ends}/>')
        if distance.low is not None and distance.high is not None:
            ends = f'x1="{x(distance.low):.1f}" x2="{x(distance.high):.1f}" y1="{py:.1f}" y2="{py:.1f}"'
            parts.append(f'<line class="whisker" {ends}/>')
        parts.append(f"{_marker(look, px, py)}</g>")
        if condition.shots is not None:
            parts.append(write_text(px + 6, py - 6, condition.shots, "tick", "start"))
    told = "; ".join(
        f"{condition.full_name}: {_told(distance, across.style)}, {_told(spotted, up.style)}"
        for condition, (distance, spotted) in both.items()
    )
    return write_svg(height, f"{up.metric} over {across.metric}. {told}.", parts)


def spreads(runs: Sequence[Run], links: Links) -> list[Plot]:
    """Each metric's value for every person, a row a condition that judged two or more; a point leads to its clip."""
    conditions = by_condition(runs)
    series_looks = looks(runs)
    plots = []
    for name, column in columns_of(runs).items():
        if name == USER:  # whose values one by one are those of people who look, not of people who are shown
            continue
        rows = {
            condition: measurements[name]
            for condition, measurements in conditions.items()
            if name in measurements and sum(v is not None for v in measurements[name].per_identity.values()) > 1
        }
        if rows:
            svg = _spread(column, rows, series_looks, calibrations(runs, name), links)
            plots.append(Plot(name, column.better, column.arrow, column.unit, svg))
    return plots


def _curve(
    column: Column,
    series: Mapping[Condition, Mapping[str, Measurement]],
    series_looks: Mapping[Condition, Look],
    lines: Sequence[tuple[Run, Measurement]],
    axis: Axis,
) -> Markup:
    height, left, right, top, bottom = 210, 46, 14, 12, 32
    stops = list(axis.places)
    measurements = [m for points in series.values() for m in points.values()]
    floors = sorted({m.noise_floor for m in measurements if m.noise_floor is not None})
    # A floor far above the values, as it is where fakes show the people of the real set, would press the curves flat.
    far = [floor for floor in floors if floor > 2 * max(_reach(measurements))]
    near = floors[: len(floors) - len(far)]
    ticks, style, low, high = _axis([*_reach(measurements), *near, *_reach([m for _, m in lines])], count=6)

    def y(value: float) -> float:
        return top + (high - value) / (high - low) * (height - top - bottom)

    dodge = 7.0
    inner_left, inner_right = left + 8 + dodge * len(series) / 2, WIDTH - right - 8 - dodge * len(series) / 2
    x = {stop: inner_left + axis.places[stop] * (inner_right - inner_left) for stop in stops}

    parts = []
    for tick in ticks:
        parts.append(f'<line class="grid" x1="{left}" x2="{WIDTH - right}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(write_text(left - 6, y(tick) + 4, write_number(tick, style), "tick", "end"))
    for stop in stops[:: math.ceil(len(stops) / 12)]:
        parts.append(write_text(x[stop], height - 14, stop, "tick", "middle"))
    parts.append(write_text((left + WIDTH - right) / 2, height - 1, axis.title, "axis", "middle"))

    for run, line in lines:
        parts += _level(run, line, left, WIDTH - right, y)
    for floor in near:
        parts.append(f'<line class="floor" x1="{left}" x2="{WIDTH - right}" y1="{y(floor):.1f}" y2="{y(floor):.1f}"/>')
    if near:
        parts.append(write_text(WIDTH - right, y(near[-1]) - 4, "noise floor", "level", "end"))
    elif far:
        parts.append(
            write_text(WIDTH - right, top, f"noise floor {write_number(far[0], column.style)}, above", "level", "end")
        )

    for index, (name, points) in enumerate(series.items()):
        look = series_looks[name]
        shift = (index - (len(series) - 1) / 2) * dodge
        known = [(x[stop] + shift, points[stop]) for stop in stops if stop in points]
        path = " ".join(f"{'L' if i else 'M'}{px:.1f} {y(m.value or 0.0):.1f}" for i, (px, m) in enumerate(known))
        dash = ' stroke-dasharray="5 4"' if look.dashed else ""
        parts.append(f'<g class="{look.colour}"><path class="curve" d="{path}"{dash}/>')
        for px, m in known:
            assert m.value is not None
            if m.low is not None and m.high is not None:
                parts.append(
                    f'<line class="whisker" x1="{px:.1f}" x2="{px:.1f}" y1="{y(m.low):.1f}" y2="{y(m.high):.1f}"/>'
                )
            parts.append(_marker(look, px, y(m.value)))
        parts.append("</g>")
    told = "; ".join(
        f"{name.name}: "
        + ", ".join(f"{_told(points[stop], column.style)} at {axis.words[stop]}" for stop in stops if stop in points)
        for name, points in series.items()
    )
    return write_svg(height, f"{column.metric} over {axis.title}, {column.better}. {told}.", parts)


def _spread(
    column: Column,
    rows: Mapping[Condition, Measurement],
    series_looks: Mapping[Condition, Look],
    lines: Sequence[tuple[Run, Measurement]],
    links: Links,
) -> Markup:
    left, right, top, bottom, lane, gap = 92, 12, 6, 22, 24, 8
    values = {c: {name: v for name, v in m.per_identity.items() if v is not None} for c, m in rows.items()}
    everything = [v for own in values.values() for v in own.values()]
    ticks, style, low, high = _axis(
        [*everything, *_reach(list(rows.values())), *_reach([m for _, m in lines])], count=4
    )

    def x(value: float) -> float:
        return left + (value - low) / (high - low) * (WIDTH - right - left)

    centres: list[float] = []
    position, previous = float(top), next(iter(rows)).shots
    for condition in rows:
        if condition.shots != previous:
            position, previous = position + gap, condition.shots
        centres.append(position + lane / 2)
        position += lane
    lowest = position
    marked = [(x(line.value), run, line) for run, line in lines if line.value is not None]
    middles = [min(max(place, left + 40), WIDTH - right - 40) for place, _, _ in marked]
    levels = _levels(middles, apart=92)
    height = lowest + bottom + 13 * (max(levels, default=-1) + 1)

    parts = []
    for tick in ticks:
        parts.append(f'<line class="grid" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{top}" y2="{lowest:.1f}"/>')
        parts.append(write_text(x(tick), lowest + 15, write_number(tick, style), "tick", "middle"))
    for (place, run, line), middle, level in zip(marked, middles, levels, strict=True):
        if band := calibration_band(line):
            start, end = (min(max(x(edge), left), WIDTH - right) for edge in band)
            parts.append(
                f'<rect class="band" x="{start:.1f}" width="{end - start:.1f}" y="{top}" height="{lowest - top:.1f}"/>'
            )
        ends = f'x1="{place:.1f}" x2="{place:.1f}" y1="{top}" y2="{lowest:.1f}"'
        parts.append(f'<line class="calibration" {ends}/>')
        name = f"{run.key} {line.labels['pair']}".strip()
        parts.append(write_text(middle, lowest + 29 + 13 * level, name, "level", "middle"))

    for condition, centre in zip(rows, centres, strict=True):
        measurement, look = rows[condition], series_looks[condition.series]
        name = condition.name if condition.shots is None else f"{condition.name} · {condition.shots}"
        parts.append(write_text(left - 8, centre + 4, shorten(name, 15), "row", "end", title=condition.full_name))
        parts.append(f'<g class="dots {look.colour}">')
        own = values[condition]
        spots = [f"M{x(v):.1f} {centre + jitter(i) * lane * 0.58:.1f}h0" for i, v in enumerate(own.values())]
        if len(everything) > MOST_NAMED:
            parts.append(f'<path d="{"".join(spots)}"/>')
        else:
            linked = links.get(condition, {})
            for spot, (identity, v) in zip(spots, own.items(), strict=True):
                said = f"{identity} {write_number(v, column.style)}"
                parts.append(write_dot(spot, said, linked.get(identity, "")))
        parts.append("</g>")
        if measurement.value is not None:
            if measurement.low is not None and measurement.high is not None:
                parts.append(
                    f'<line class="mean-interval" x1="{x(measurement.low):.1f}" x2="{x(measurement.high):.1f}" '
                    f'y1="{centre:.1f}" y2="{centre:.1f}"/>'
                )
            middle = x(measurement.value)
            parts.append(
                f'<line class="mean" x1="{middle:.1f}" x2="{middle:.1f}" y1="{centre - 8:.1f}" y2="{centre + 8:.1f}"/>'
            )
    told = "; ".join(
        f"{condition.full_name}: {count_words(len(own), 'person', 'people')} from "
        f"{write_number(min(own.values()), column.style)} to {write_number(max(own.values()), column.style)}, "
        f"mean {_told(rows[condition], column.style)}"
        for condition, own in values.items()
    )
    return write_svg(height, f"{column.metric} of each person, {column.better}. {told}.", parts)


def _level(run: Run, line: Measurement, left: float, right: float, y: Callable[[float], float]) -> list[str]:
    """A calibration line with its interval, across the plot."""
    if line.value is None:
        return []
    parts = []
    if band := calibration_band(line):
        bottom, top = y(band[0]), y(band[1])
        parts.append(
            f'<rect class="band" x="{left}" width="{right - left}" y="{top:.1f}" height="{bottom - top:.1f}"/>'
        )
    parts.append(
        f'<line class="calibration" x1="{left}" x2="{right}" y1="{y(line.value):.1f}" y2="{y(line.value):.1f}"/>'
    )
    parts.append(write_text(right, y(line.value) - 4, f"{run.key} {line.labels['pair']}".strip(), "level", "end"))
    return parts


def _levels(middles: Sequence[float], apart: float) -> list[int]:
    """The line on which each label goes, so that no two on a line are nearer than `apart`."""
    levels: list[int] = []
    for index, middle in enumerate(middles):
        near = {levels[other] for other in range(index) if abs(middles[other] - middle) < apart}
        levels.append(next(level for level in range(index + 1) if level not in near))
    return levels


def _axis(values: Sequence[float], count: int) -> tuple[list[float], Digits, float, float]:
    """Round ticks within the values' reach, how to write them, and the axis' ends: the reach and a little more."""
    low, high = min(values), max(values)
    if low == high:
        spread = abs(low) * 0.05 or 0.5
        low, high = low - spread, high + spread
    margin = 0.05 * (high - low)
    low, high = low - margin, high + margin
    ticks = [float(tick) for tick in MaxNLocator(nbins=count, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)]
    step = ticks[1] - ticks[0]
    inside = [tick for tick in ticks if low <= tick <= high]
    if max(abs(tick) for tick in ticks) < 1e-3:
        return inside, digits(ticks), low, high
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    whole = math.isclose(step * 10**decimals, round(step * 10**decimals))
    return inside, Digits(decimals if whole else decimals + 1), low, high


def _places(shots: Sequence[str]) -> dict[str, float]:
    """0..1 along the axis, logarithmic where all are numbers, else evenly."""
    if len(shots) == 1:
        return {shots[0]: 0.5}
    if all(count.isdecimal() and int(count) > 0 for count in shots):
        logs = [math.log2(int(count)) for count in shots]
        return {count: (log - logs[0]) / (logs[-1] - logs[0]) for count, log in zip(shots, logs, strict=True)}
    return {count: index / (len(shots) - 1) for index, count in enumerate(shots)}


def _reach(measurements: Sequence[Measurement]) -> list[float]:
    """Every number that a plot of these must hold."""
    bounds = [(m.value, m.low, m.high, *(calibration_band(m) or ())) for m in measurements if m.value is not None]
    return [v for own in bounds for v in own if v is not None]


def _told(measurement: Measurement, style: Digits) -> str:
    """Value and interval in words."""
    return f"{write_number(measurement.value, style)} {write_interval(measurement, style)}".strip()


def jitter(index: int) -> float:
    """-0.5..0.5, spread evenly by the golden ratio: the same place for the same person in every row."""
    return (0.5 + index * 0.6180339887) % 1.0 - 0.5


def _marker(look: Look, x: float, y: float) -> str:
    """A point's sign; open for a later run."""
    kind = "marker open" if look.dashed else "marker"
    match look.shape:
        case "square":
            return f'<rect class="{kind}" x="{x - 3.6:.1f}" y="{y - 3.6:.1f}" width="7.2" height="7.2"/>'
        case "diamond":
            shape = f"M{x:.1f} {y - 5.2:.1f}l5.2 5.2l-5.2 5.2l-5.2-5.2z"
        case "up":
            shape = f"M{x:.1f} {y - 4.8:.1f}l4.8 8.6h-9.6z"
        case "down":
            shape = f"M{x:.1f} {y + 4.8:.1f}l4.8-8.6h-9.6z"
        case _:
            return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
    return f'<path class="{kind}" d="{shape}"/>'


def write_text(x: float, y: float, text: str, kind: str, anchor: str, title: str = "") -> str:
    hover = f"<title>{escape(title)}</title>" if title else ""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{hover}{escape(text)}</text>'


def write_dot(spot: str, said: str, link: str) -> str:
    """A point that says who it is where it is pointed at, and leads to a clip."""
    dot = f'<path d="{spot}"><title>{escape(said)}</title></path>'
    # Not a stop of the tab key: there are thousands, and the tables beside the page name the same people.
    return f'<a href="{escape(link)}" tabindex="-1">{dot}</a>' if link else dot


def shorten(text: str, length: int) -> str:
    """The end stays, where the number of shots is."""
    return text if len(text) <= length else f"{text[: length - 8]}…{text[-7:]}"


def write_svg(height: float, description: str, parts: Sequence[str]) -> Markup:
    body = "".join(parts)
    label = escape(description)
    return Markup(f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{label}">{body}</svg>')
