"""Figures other than charts over updates: use of codes, right and wrong predictions, a map of embeddings, tables."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from bridle_fairseq.quantization.statistics import dead_codes
from bridle_fairseq.report import charts
from bridle_fairseq.report.examples import RIGHT, VISIBLE, WRONG, Map
from bridle_fairseq.report.images import png_uri

COLOURS, SHAPES = 8, 3
MAP, MAP_EDGE, RADIUS = (charts.WIDTH * 1.6, charts.HEIGHT * 1.6), 10, 162
PREDICTION = {VISIBLE: (150, 145, 139), RIGHT: (22, 148, 168), WRONG: (228, 203, 184)}
HIDDEN = (198, 193, 187)
_PREDICTION_NAMES = ((RIGHT, "right"), (WRONG, "wrong"), (VISIBLE, "visible"))


def usage_histogram(usage: np.ndarray, level: int, dead_share: float) -> str:
    """Bar chart of the use of a level's codes, sorted, as multiples of even use; dead codes are marked.

    Args:
        usage: frequency of each code, C.
        level: number of the level, from 1.
        dead_share: codes below this multiple of even use are dead.
    """
    share = np.sort(usage)[::-1] / max(usage.sum(), 1e-12) * len(usage)
    top = max(float(share[0]) * 1.06, 1.2)
    wide = (charts.WIDTH - charts.LEFT - charts.RIGHT) / len(share)
    high = charts.HEIGHT - charts.TOP - charts.BOTTOM

    def at_y(value: float) -> float:
        return round(charts.HEIGHT - charts.BOTTOM - high * value / top, 1)

    elements = []
    for value in charts.ticks(0, top):
        elements.append(f'<line class="grid" x1="{charts.LEFT}" x2="{charts.WIDTH - charts.RIGHT}" ')
        elements.append(f'y1="{at_y(value)}" y2="{at_y(value)}"/>')
        elements.append(f'<text x="{charts.LEFT - 6}" y="{at_y(value) + 4}" text-anchor="end">{value:g}x</text>')
    alive = len(share) - int(dead_codes(torch.from_numpy(usage)[None], dead_share).sum())
    for first, last, kind in ((0, alive, "alive"), (alive, len(share), "dead")):
        if first < last:
            steps = " ".join(f"V{at_y(share[i])} H{charts.LEFT + wide * (i + 1):.1f}" for i in range(first, last))
            start = f"{charts.LEFT + wide * first:.1f},{at_y(0)}"
            elements.append(f'<path class="bars {kind}" d="M{start} {steps} V{at_y(0)} Z"/>')
    even = at_y(1)
    elements.append(
        f'<line class="even" x1="{charts.LEFT}" x2="{charts.WIDTH - charts.RIGHT}" y1="{even}" y2="{even}"/>'
    )
    for place, anchor in ((1, "start"), (len(share), "end")):
        x = charts.LEFT if place == 1 else charts.WIDTH - charts.RIGHT
        elements.append(f'<text x="{x}" y="{charts.HEIGHT - 8}" text-anchor="{anchor}">code {place} by use</text>')
    label = f"use of the codes of level {level}, sorted; {len(share) - alive} of {len(share)} are dead"
    return (
        f'<svg class="bars" viewBox="0 0 {charts.WIDTH} {charts.HEIGHT}" role="img" aria-label="{label}">'
        f"{''.join(elements)}</svg>"
    )


def prediction_rows(predicted: np.ndarray) -> str:
    """HTML that shows for each level where masked codes were predicted right and wrong: rows x columns x K -> text."""
    rows = []
    for level in range(predicted.shape[2]):
        pixels = np.zeros((*predicted.shape[:2], 3), np.uint8)
        for kind, colour in PREDICTION.items():
            pixels[predicted[..., level] == kind] = colour
        masked = predicted[..., level] != VISIBLE
        right = float((predicted[..., level] == RIGHT).sum() / max(masked.sum(), 1))
        source = png_uri(pixels)
        rows.append(
            f"<span>predicted {level + 1}<br>{100 * right:.0f} % right</span>"
            f'<img class="codes" src="{source}" alt="predictions of level {level + 1}: {100 * right:.0f} % right">'
        )
    return "".join(rows)


def hide(picture: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """A picture, height x width x 3, with the masked patches of rows x columns x K predictions blank."""
    masked = predicted[..., 0] != VISIBLE
    sides = (np.array(picture.shape[:2]) // masked.shape).tolist()
    return np.where(np.kron(masked, np.ones(sides, bool))[..., None], np.array(HIDDEN, np.uint8), picture)


def prediction_legend() -> str:
    """The legend of :func:`prediction_rows` as HTML."""
    items = "".join(
        f'<li><i style="border-color:rgb{PREDICTION[kind]}"></i>{name}</li>' for kind, name in _PREDICTION_NAMES
    )
    return f'<ul class="legend">{items}</ul>'


def scatter(embeddings: Map) -> str:
    """A map of embeddings with a colour and a shape for each label, and its legend or the classes on a circle."""
    counts = Counter(embeddings.labels)
    names = list(embeddings.places) or sorted(name for name, _ in counts.most_common(COLOURS * SHAPES - 1))
    rest = len(counts) - len(set(counts) & set(names))
    width, height = MAP
    if embeddings.places:
        place = width / 2 + embeddings.points * [RADIUS, -RADIUS]
        place[:, 1] += (height - width) / 2
    else:
        low, high = embeddings.points.min(0), embeddings.points.max(0)
        share = (embeddings.points - low) / np.maximum(high - low, 1e-9)
        place = MAP_EDGE + np.stack([share[:, 0], 1 - share[:, 1]], 1) * (np.array(MAP) - 2 * MAP_EDGE)
    titles = [f"{label}: {name}" for label, name in zip(embeddings.labels, embeddings.names, strict=False)]
    marks = [_circle(embeddings.places)] if embeddings.places else []
    for (x, y), name, title in zip(place, embeddings.labels, titles or embeddings.labels, strict=True):
        number = names.index(name) if name in names else COLOURS * SHAPES - 1
        marks.append(_mark(number, x, y, html.escape(title)))
    entries = [] if embeddings.places else [(number, name) for number, name in enumerate(names)]
    if rest:
        entries.append((COLOURS * SHAPES - 1, f"{rest} more"))
    legend = "".join(
        f'<li><svg class="key" viewBox="0 0 12 12">{_mark(number, 6, 6)}</svg>{html.escape(name)}</li>'
        for number, name in entries
    )
    label = f"{embeddings.method} of {len(embeddings.labels)} clips of {len(counts)} classes"
    return (
        f'<ul class="legend">{legend}</ul><svg class="map" viewBox="0 0 {width:g} {height:g}" role="img" '
        f'aria-label="{label}">{"".join(marks)}</svg>'
    )


def _circle(places: Mapping[str, tuple[float, float]]) -> str:
    """The circle, and the names of the classes around it with their marks."""
    width, height = MAP
    elements = [f'<circle class="rim" cx="{width / 2:g}" cy="{height / 2:g}" r="{RADIUS:g}"/>']
    for number, (name, (x, y)) in enumerate(places.items()):
        anchor = "middle" if abs(x) < 0.2 else "start" if x > 0 else "end"
        at = [(width / 2 + x * r, height / 2 - y * r) for r in (RADIUS, RADIUS + 16)]
        elements.append(f'{_mark(number, *at[0])}<text x="{at[1][0]:.1f}" y="{at[1][1] + 4:.1f}" ')
        elements.append(f'text-anchor="{anchor}">{html.escape(name)}</text>')
    return "".join(elements)


def _mark(number: int, x: float, y: float, title: str = "") -> str:
    style = f'style="fill:var(--line-{number % COLOURS})"'
    text = f"<title>{title}</title>" if title else ""
    if number // COLOURS == 0:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" {style}>{text}</circle>'
    if number // COLOURS == 1:
        return f'<rect x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8" {style}>{text}</rect>'
    return f'<path d="M{x:.1f},{y - 5:.1f} l5,9 h-10 Z" {style}>{text}</path>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as HTML; the first column has the names of the rows."""
    top = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = "".join(
        f"<tr><th>{html.escape(row[0])}</th>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row[1:])}</tr>"
        for row in rows
    )
    return f'<div class="card scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
