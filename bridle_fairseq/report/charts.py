"""Line charts as SVG and pictures as PNG, both as text that goes into a page; colours follow the page's theme."""

from __future__ import annotations

import base64
import html
import json
import math
import struct
import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

# a chart is drawn about as wide as a phone, so that its text stays readable there, and scales up from that
WIDTH, HEIGHT = 420, 236
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 24, 26

Points = Sequence[tuple[int, float]]


class Line(NamedTuple):
    """A line of a chart; ``colour`` is the number of a ``--line-N`` variable of the page."""

    name: str
    points: Points
    colour: int
    dashed: bool = False
    cuts: tuple[int, ...] = ()  # updates after which the line begins anew, besides the ends of the chart's bands


class Band(NamedTuple):
    """A stretch of updates with a caption, drawn behind the lines; lines are not drawn across its ends."""

    name: str
    short_name: str
    start: int  # the last update before it
    end: int  # its last update


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round values, about ``count`` of them, within a range."""
    span = high - low
    if span <= 0:
        return [low]
    raw = span / count
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 10) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def thin(points: Points, most: int = 160) -> list[tuple[int, float]]:
    """Finite points, averaged in groups where there are more than can be seen."""
    kept = [(x, y) for x, y in points if math.isfinite(y)]
    group = math.ceil(len(kept) / most) or 1
    chunks = [kept[i : i + group] for i in range(0, len(kept), group)]
    return [(chunk[len(chunk) // 2][0], sum(y for _, y in chunk) / len(chunk)) for chunk in chunks]


def _number(value: float) -> str:
    if abs(value) >= 10000 and value % 1000 == 0:
        return f"{value / 1000:g}k"
    return f"{value:.4g}"


def line_chart(
    lines: Sequence[Line], bands: Sequence[Band] = (), *, label: str, top: float | None = None, last: int = 0
) -> str:
    """An SVG chart over updates, from 0 (or the lowest value below it) up.

    Args:
        lines: the lines; those without points are left out.
        bands: captions behind them, such as the stages of a run.
        label: what the chart shows, for those who hear the page instead of seeing it.
        top: upper end of the axis, if it is known.
        last: the update up to which the chart reaches at least.
    """
    drawn = [piece for line in lines for piece in _pieces(line, bands)]
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

    parts = _bands(bands, at_x)
    for value in ticks(low, high):
        y = at_y(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{_number(value)}</text>')
    for value in ticks(0, last):
        anchor = "end" if at_x(value) > WIDTH - 40 else "middle"
        text = "update 0" if value == 0 else _number(value)
        parts.append(f'<text x="{at_x(value)}" y="{HEIGHT - 8}" text-anchor="{anchor}">{text}</text>')
    for line in drawn:
        if len(line.points) == 1:  # a line of one point would not be seen
            ((x, y),) = line.points
            parts.append(f'<circle r="2.5" style="fill:var(--line-{line.colour})" cx="{at_x(x)}" cy="{at_y(y)}"/>')
            continue
        path = " ".join(f"{at_x(x)},{at_y(y)}" for x, y in line.points)
        dash = ' stroke-dasharray="5 4"' if line.dashed else ""
        parts.append(f'<polyline style="stroke:var(--line-{line.colour})"{dash} points="{path}"/>')
    data = {
        "last": last,
        "lines": [{"name": n, "colour": c, "points": [[x, float(f"{y:.4g}")] for x, y in p]} for n, p, c, *_ in drawn],
    }
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(label, quote=True)}" '
        f"data-chart='{html.escape(json.dumps(data), quote=True)}'>{''.join(parts)}</svg>"
    )


def _pieces(line: Line, bands: Sequence[Band]) -> list[Line]:
    """A line cut at the ends of the bands, thinned; pieces without points are left out."""
    ends = sorted({*(band.end for band in bands[:-1]), *line.cuts})
    cuts = zip([-1, *ends], [*ends, math.inf], strict=True)
    pieces = [line._replace(points=thin([p for p in line.points if start < p[0] <= end])) for start, end in cuts]
    return [piece for piece in pieces if piece.points]


def _bands(bands: Sequence[Band], at_x: Callable[[float], float]) -> list[str]:
    parts = []
    for number, band in enumerate(bands):
        start, end = at_x(band.start), at_x(band.end)
        shade = "band odd" if number % 2 else "band"
        parts.append(
            f'<rect class="{shade}" x="{start}" y="4" width="{end - start:.1f}" height="{HEIGHT - BOTTOM - 4}"/>'
        )
        fits = [name for name in (band.name, band.short_name) if 6.6 * len(name) + 8 < end - start]
        if fits:
            parts.append(f'<text class="stage" x="{start + 5}" y="17">{html.escape(fits[0])}</text>')
    return parts


def legend(lines: Sequence[Line]) -> str:
    """The names of a chart's lines beside their colours, as HTML."""
    items = "".join(
        f'<li{" class=dashed" if line.dashed else ""}><i style="border-color:var(--line-{line.colour})"></i>'
        f"{html.escape(line.name)}</li>"
        for line in lines
        if line.points
    )
    return f'<ul class="legend">{items}</ul>'


def png(pixels: np.ndarray) -> bytes:
    """A picture, height x width x 3 uint8, as a PNG file."""
    height, width, _ = pixels.shape
    rows = np.zeros((height, 1 + width * 3), np.uint8)  # the first byte of a row names its filter: none
    rows[:, 1:] = pixels.reshape(height, -1)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows.tobytes(), 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def data_uri(kind: str, data: bytes) -> str:
    """Bytes as an address that a page can hold."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


_HEAT = np.array(
    [(6, 5, 20), (59, 20, 104), (136, 34, 106), (203, 65, 84), (245, 125, 62), (252, 196, 95), (252, 253, 200)]
)


def heat(values: np.ndarray) -> np.ndarray:
    """Values (height x width) as colours from dark to light, height x width x 3 uint8; extremes are clipped."""
    low, high = np.percentile(values, [2, 99.8])
    place = np.clip((values - low) / max(high - low, 1e-9), 0, 1) * (len(_HEAT) - 1)
    channels = [np.interp(place, np.arange(len(_HEAT)), _HEAT[:, c]) for c in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def code_colours(codebook: np.ndarray) -> np.ndarray:
    """A colour for each code (C x 3 uint8) of a codebook (C x D): like codes get like colours.

    The codes' three principal components, by rank, become the lightness and the two colour axes of OKLab.
    """
    centred = codebook - codebook.mean(axis=0)
    _, _, axes = np.linalg.svd(centred.astype(np.float64), full_matrices=False)
    scores = centred @ axes[:3].T
    scores = np.pad(scores, ((0, 0), (0, 3 - scores.shape[1])))
    rank = scores.argsort(axis=0).argsort(axis=0) / max(len(codebook) - 1, 1)
    a, b, light = (rank[:, 0] - 0.5) * 0.32, (rank[:, 1] - 0.5) * 0.32, 0.45 + 0.4 * rank[:, 2]
    # OKLab to linear sRGB (Ottosson 2020), then sRGB's gamma
    cones = np.stack(
        [light + 0.3963 * a + 0.2158 * b, light - 0.1056 * a - 0.0639 * b, light - 0.0895 * a - 1.2915 * b], axis=-1
    )
    to_rgb = np.array([[4.0767, -3.3077, 0.2310], [-1.2684, 2.6098, -0.3413], [-0.0042, -0.7034, 1.7076]])
    linear = np.clip(cones**3 @ to_rgb.T, 0, 1)
    gamma = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return (gamma * 255).round().astype(np.uint8)
