"""The demo's page: one self-contained HTML file, for light and dark screens of any width."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bridle_fairseq.report import figures
from bridle_fairseq.report.charts import Band
from bridle_fairseq.report.examples import Example
from bridle_fairseq.report.images import code_colours
from bridle_fairseq.report.sections import clip_figure, codebooks, curves, document, header
from bridle_fairseq.training.log import Record


@dataclass
class ResultRow:
    """A row of the result table."""

    name: str
    accuracy: float
    chosen: str = ""  # settings that were chosen on the validation split
    best: bool = False


@dataclass
class Page:
    """The contents of the page."""

    headline: str
    summary: str
    facts: list[tuple[str, str]]  # value, description
    records: Sequence[Record]
    bands: list[Band]  # the stages
    rows: list[ResultRow]  # empty without labels
    table_note: str
    differences: list[str]  # sentences below the table
    clips: list[Example]
    shown: tuple[str, str]  # title and text above the clips
    codebooks: list[np.ndarray]  # K arrays, C x D
    codebook_size: int
    mask_ratio: float  # fraction of masked patches
    files: list[tuple[str, str]]  # description, path
    commands: list[tuple[str, str]]  # description, command
    footer: str = ""


def render(page: Page) -> str:
    """The page as HTML text."""
    body = [
        header("bridle demo", page.headline, page.summary, page.facts),
        _result(page),
        curves(page.records, page.bands),
        codebooks(page.records, page.bands, page.codebook_size),
        _clips(page),
        _next(page),
        f"<footer>{html.escape(page.footer)}</footer>",
    ]
    return document(page.headline, body)


def _result(page: Page) -> str:
    title = "<h2>Linear probes of the frozen encoder</h2>"
    if not page.rows:
        return f'{title}<p class="soft">{html.escape(page.table_note)}</p>'
    rows = "".join(
        f"<tr{' class=best' if row.best else ''}><th>{html.escape(row.name)}</th>"
        f'<td class="value">{_meter(row.accuracy)}</td><td class="note">{html.escape(row.chosen)}</td></tr>'
        for row in page.rows
    )
    differences = "".join(f"<p>{html.escape(sentence)}</p>" for sentence in page.differences)
    return (
        f'{title}<p class="soft">{html.escape(page.table_note)}</p><div class="card scroll"><table><thead><tr>'
        f"<th>Features</th><th>Accuracy</th><th>Chosen</th></tr></thead><tbody>{rows}</tbody></table></div>{differences}"
    )


def _meter(accuracy: float) -> str:
    return f'<b>{accuracy:.3f}</b><span class="meter"><i style="width:{100 * accuracy:.1f}%"></i></span>'


def _clips(page: Page) -> str:
    if not page.clips:
        return ""
    colours = [code_colours(codebook) for codebook in page.codebooks]
    clips = "".join(clip_figure(e.clip, colours, figures.prediction_rows(e.predicted)) for e in page.clips)
    title, text = page.shown
    text += f" Below, {100 * page.mask_ratio:.0f} % of the patches are masked, and their codes predicted:"
    return (
        f"<h2>{html.escape(title)}</h2><p class=soft>{html.escape(text)}</p>"
        f'{figures.prediction_legend()}<div class="grid2">{clips}</div>'
    )


def _next(page: Page) -> str:
    files = "".join(f"<dt>{html.escape(k)}</dt><dd><code>{html.escape(v)}</code></dd>" for k, v in page.files)
    commands = "".join(f"<p>{html.escape(k)}</p><pre>{html.escape(v)}</pre>" for k, v in page.commands)
    return f"<h2>Files</h2><dl>{files}</dl><h2>What to run next</h2>{commands}"
