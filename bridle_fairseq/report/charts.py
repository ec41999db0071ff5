"""Line charts over updates, as SVG text; colours follow the theme of the page."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

# A chart is as wide as a phone, so that its text is readable there, and is scaled up elsewhere.
WIDTH, HEIGHT = 420, 236
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 24, 26

Points = Sequence[tuple[int, float]]  # (update, value)


class Line(NamedTuple):
    """A line of a chart; ``colour`` is the number of a ``--line-N`` variable of the page."""

    name: str
    points: Points
    colour: int
    dashed: bool = False
    cuts: tuple[int, ...] = ()  # further updates after which the line is interrupted, besides the ends of bands


class Band(NamedTuple):
    """A range of updates with a caption, drawn behind the lines. Lines are interrupted at its ends."""

    name: str
    short_name: str
    start: int  # exclusive
    end: int  # inclusive


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About ``count`` round values within a range."""
    span = high - low
    if span <= 0:
        return [low]
    raw = span / count
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 10) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def thin(points: Points, most: int = 160) -> list[tuple[int, float]]:
    """At most ``most`` points: the finite ones, averaged in groups where there are more."""
    finite = [(x, y) for x, y in points if math.isfinite(y)]
    size = math.ceil(len(finite) / most) or 1
    groups = [finite[i : i + size] for i in range(0, len(finite), size)]
    return [(group[len(group) // 2][0], sum(y for _, y in group) / len(group)) for group in groups]


def _number(value: float) -> str:
    if abs(value) >= 10000 and value % 1000 == 0:
        return f"{value / 1000:g}k"
    return f"{value:.4g}"


def line_chart(
    lines: Sequence[Line], bands: Sequence[Band] = (), *, label: str, top: float | None = None, last: int = 0
) -> str:
    """An SVG chart over updates. Its vertical axis starts at 0, or at the lowest negative value.

    Args:
        lines: the lines; those without points are left out.
        bands: drawn behind the lines, such as the stages of a run.
        label: description of the chart for screen readers.
        top: upper end of the vertical axis; None: from the values.
        last: the update up to which the horizontal axis reaches at least.
    """
    drawn = [section for line in lines for section in _sections(line, bands)]
    if not drawn:
        return f'<p class="none">{html.escape(label)}: nothing was logged.</p>'
    values = [y for line in drawn for _, y in line.points]
    low = min(0.0, min(values))
    high = top if top is not None else max(values) * 1.06 or 1.0
    last = max([last, *(x for line in drawn for x, _ in line.points), *(band.end for band in bands)]) or 1

    def at_x(update: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * update / last, 1)

    def at_y(value: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - low) / (high - low), 1)

    elements = _bands(bands, at_x)
    for value in ticks(low, high):
        y = at_y(value)
        elements.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        elements.append(f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{_number(value)}</text>')
    for value in ticks(0, last):
        anchor = "end" if at_x(value) > WIDTH - 40 else "middle"
        text = "update 0" if value == 0 else _number(value)
        elements.append(f'<text x="{at_x(value)}" y="{HEIGHT - 8}" text-anchor="{anchor}">{text}</text>')
    for line in drawn:
        if len(line.points) == 1:  # a line of one point is invisible
            ((x, y),) = line.points
            elements.append(f'<circle r="2.5" style="fill:var(--line-{line.colour})" cx="{at_x(x)}" cy="{at_y(y)}"/>')
            continue
        path = " ".join(f"{at_x(x)},{at_y(y)}" for x, y in line.points)
        dash = ' stroke-dasharray="5 4"' if line.dashed else ""
        elements.append(f'<polyline style="stroke:var(--line-{line.colour})"{dash} points="{path}"/>')
    data = {
        "last": last,
        "lines": [{"name": n, "colour": c, "points": [[x, float(f"{y:.4g}")] for x, y in p]} for n, p, c, *_ in drawn],
    }
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(label, quote=True)}" '
        f"data-chart='{html.escape(json.dumps(data), quote=True)}'>{''.join(elements)}</svg>"
    )


def _sections(line: Line, bands: Sequence[Band]) -> list[Line]:
    """A line split at the ends of the bands and at its cuts, thinned; sections without points are left out."""
    ends = sorted({*(band.end for band in bands[:-1]), *line.cuts})
    ranges = zip([-1, *ends], [*ends, math.inf], strict=True)
    sections = [line._replace(points=thin([p for p in line.points if start < p[0] <= end])) for start, end in ranges]
    return [section for section in sections if section.points]


def _bands(bands: Sequence[Band], at_x: Callable[[float], float]) -> list[str]:
    elements = []
    for number, band in enumerate(bands):
        start, end = at_x(band.start), at_x(band.end)
        shade = "band odd" if number % 2 else "band"
        elements.append(
            f'<rect class="{shade}" x="{start}" y="4" width="{end - start:.1f}" height="{HEIGHT - BOTTOM - 4}"/>'
        )
        fits = [name for name in (band.name, band.short_name) if 6.6 * len(name) + 8 < end - start]
        if fits:
            elements.append(f'<text class="stage" x="{start + 5}" y="17">{html.escape(fits[0])}</text>')
    return elements


def legend(lines: Sequence[Line]) -> str:
    """The legend of a chart as HTML: colour and name of each line with points."""
    items = "".join(
        f'<li{" class=dashed" if line.dashed else ""}><i style="border-color:var(--line-{line.colour})"></i>'
        f"{html.escape(line.name)}</li>"
        for line in lines
        if line.points
    )
    return f'<ul class="legend">{items}</ul>'
