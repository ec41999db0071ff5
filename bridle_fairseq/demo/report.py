"""The demo's page: one self-contained HTML file, for light and dark screens of any width."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bridle_fairseq.report import figures
from bridle_fairseq.report.charts import Band
from bridle_fairseq.report.examples import Example, Map
from bridle_fairseq.report.images import code_colours, data_uri, png_uri
from bridle_fairseq.report.sections import clip_figure, codebooks, curves, document, header, section
from bridle_fairseq.training.log import Record


@dataclass
class ResultRow:
    """A row of the result table."""

    name: str
    accuracy: float
    chosen: str = ""  # settings that were chosen on the validation split
    best: bool = False


class Bar(NamedTuple):
    """An accuracy that the page compares with others."""

    name: str
    value: float
    interval: tuple[float, float] | None


class ShownClip(NamedTuple):
    """A clip on the page."""

    label: str
    name: str
    html: str  # to hear or see it


class SimilarClips(NamedTuple):
    """A clip, and those whose scores are most like its own, the most similar first."""

    query: ShownClip
    nearest: list[ShownClip]


@dataclass
class Page:
    """The contents of the page."""

    headline: str
    summary: str
    facts: list[tuple[str, str]]  # value, description
    records: Sequence[Record]
    bands: list[Band]  # the stages
    bars: list[Bar]  # the first one is the pretrained encoder; empty without labels
    rows: list[ResultRow]  # empty without labels
    table_note: str
    differences: list[str]  # sentences below the bars
    maps: list[tuple[str, float, Map]]  # whose scores, their accuracy, the clips
    neighbours: list[SimilarClips]
    clips: list[Example]
    shown: tuple[str, str]  # title and text above the clips
    codebooks: list[np.ndarray]  # K arrays, C x D
    codebook_size: int
    predictions: list[Example]  # at the end of the encoder stage; empty if its checkpoint is gone
    mask_ratio: float  # fraction of masked patches
    one: str  # name of an item, such as "clip"
    method: str  # SVG
    files: list[tuple[str, str]]  # description, path
    commands: list[tuple[str, str]]  # description, command
    footer: str = ""


def render(page: Page) -> str:
    """The page as HTML text."""
    body = [
        header("bridle demo", page.headline, page.summary, page.facts),
        _result(page),
        _method(page),
        _maps(page),
        _neighbours(page),
        _predictions(page),
        _clips(page),
        curves(page.records, page.bands),
        codebooks(page.records, page.bands, page.codebook_size),
        _next(page),
        f"<footer>{html.escape(page.footer)}</footer>",
    ]
    return document(page.headline, body)


def _result(page: Page) -> str:
    title = "What the encoder learned"
    if not page.rows:
        return section(title, page.table_note, "")
    bars = "".join(_bar(bar, "best" if number == 0 else "") for number, bar in enumerate(page.bars))
    rows = "".join(
        f"<tr{' class=best' if row.best else ''}><th>{html.escape(row.name)}</th>"
        f'<td class="value">{row.accuracy:.3f}</td><td class="note">{html.escape(row.chosen)}</td></tr>'
        for row in page.rows
    )
    differences = "".join(f"<p>{html.escape(sentence)}</p>" for sentence in page.differences)
    return section(
        title,
        f"Share of the test {page.one}s whose class is named right. {page.table_note}",
        f'<div class="card bars-of">{bars}</div>{differences}<details><summary>All features that were probed</summary>'
        '<div class="card scroll"><table><thead><tr><th>Features</th><th>Accuracy</th><th>Chosen</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div></details>",
    )


def _bar(bar: Bar, kind: str) -> str:
    whisker = ""
    if bar.interval:
        low, high = bar.interval
        whisker = f'<u style="left:{100 * low:.1f}%;width:{100 * (high - low):.1f}%"></u>'
    return (
        f'<div class="bar {kind}"><span>{html.escape(bar.name)}</span><b>{100 * bar.value:.0f} %</b>'
        f'<span class="meter"><i style="width:{100 * bar.value:.1f}%"></i>{whisker}</span></div>'
    )


def _method(page: Page) -> str:
    if not page.method:
        return ""
    source = data_uri("image/svg+xml", page.method.encode())
    return section(
        "How it learned",
        "The encoder sees a part of the patches, and a decoder predicts the codes of the others. The codes come from a "
        "random projection at first, later from a tokenizer that learns from the encoder.",
        f'<img class="method" src="{source}" alt="The data flow of both stages">',
    )


def _maps(page: Page) -> str:
    if not page.maps:
        return ""
    cards = "".join(
        f'<div class="card"><h3>{html.escape(name)}</h3><div class="note">{100 * accuracy:.0f} % right</div>'
        f"{figures.scatter(embeddings)}</div>"
        for name, accuracy, embeddings in page.maps
    )
    _, _, first = page.maps[0]
    if first.places:
        where = "the nearer to a class on the circle the surer the linear classifier is of it"
    else:
        where = f"near to others to which the linear classifier gives similar scores ({first.method})"
    text = f"Each mark is a test {page.one}, in the colour of its class, {where}. The pointer shows which one it is."
    return section(f"Maps of the test {page.one}s", text, f'<div class="grid2">{cards}</div>')


def _neighbours(page: Page) -> str:
    if not page.neighbours:
        return ""
    cards = []
    for query, nearest in page.neighbours:
        kinds = ["same" if clip.label == query.label else "other" for clip in nearest]
        items = "".join(
            f'<li class="{kind}"><b>{html.escape(clip.label)}</b>{clip.html}</li>'
            for kind, clip in zip(kinds, nearest, strict=True)
        )
        cards.append(
            f'<div class="card"><div class="query"><b>{html.escape(query.label)}</b>{query.html}</div>'
            f'<div class="note">most similar</div><ol class="nearest">{items}</ol></div>'
        )
    text = f"Test {page.one}s drawn at random, and those of most similar scores. Another class is struck out."
    return section("Neighbours", text, f'<div class="grid3">{"".join(cards)}</div>')


def _predictions(page: Page) -> str:
    if not page.predictions:
        return ""
    cards = []
    for clip, predicted in page.predictions:
        seen = png_uri(figures.hide(clip.picture, predicted))
        rows = f'<span>what it saw</span><img class="{clip.style}" src="{seen}" alt="what the encoder saw">'
        cards.append(clip_figure(clip, (), rows + figures.prediction_rows(predicted)))
    text = (
        f"At the end of the encoder's stage. {100 * page.mask_ratio:.0f} % of the patches are hidden, and the decoder "
        f"predicts their codes from the rest. Guessing among {page.codebook_size} codes would be right in "
        f"{100 / page.codebook_size:.1g} %. Later levels are finer, and harder."
    )
    body = f'{figures.prediction_legend()}<div class="grid2">{"".join(cards)}</div>'
    return section("What it predicts of hidden patches", text, body)


def _clips(page: Page) -> str:
    if not page.clips:
        return ""
    colours = [code_colours(codebook) for codebook in page.codebooks]
    clips = "".join(clip_figure(example.clip, colours) for example in page.clips)
    title, text = page.shown
    return section(title, text, f'<div class="grid2">{clips}</div>')


def _next(page: Page) -> str:
    files = "".join(f"<dt>{html.escape(k)}</dt><dd><code>{html.escape(v)}</code></dd>" for k, v in page.files)
    commands = "".join(f"<p>{html.escape(k)}</p><pre>{html.escape(v)}</pre>" for k, v in page.commands)
    return f"<h2>Files</h2><dl>{files}</dl><h2>What to run next</h2>{commands}"
