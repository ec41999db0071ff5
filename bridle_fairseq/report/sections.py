"""Sections that pages share, as HTML: the document, charts of a log, and clips above their codes."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bridle_fairseq.report import charts, figures
from bridle_fairseq.report.charts import Band, Line
from bridle_fairseq.report.images import png_uri
from bridle_fairseq.report.pictures import Clip
from bridle_fairseq.report.run import configuration
from bridle_fairseq.report.style import CSS, SCRIPT
from bridle_fairseq.training.log import Record, count_levels, series

# content security policy: the page may use nothing outside itself
POLICY = "default-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'none'"


def document(title: str, body: Sequence[str]) -> str:
    """A complete page with this body; it makes no request."""
    script = SCRIPT % {
        "left": charts.LEFT,
        "width": charts.WIDTH - charts.LEFT - charts.RIGHT,
        "top": charts.TOP,
        "bottom": charts.HEIGHT - charts.BOTTOM,
        "full": charts.WIDTH,
    }
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{html.escape(title)}</title><style>{CSS}</style></head>"
        f"<body><main>{''.join(body)}</main><script>{script}</script></body></html>\n"
    )


def header(eyebrow: str, title: str, lead: str, facts: Sequence[tuple[str, str]]) -> str:
    """The top of a page; facts are (value, description)."""
    escape = html.escape
    items = "".join(f"<li><b>{escape(value)}</b><span>{escape(name)}</span></li>" for value, name in facts)
    return (
        f'<header><p class="eyebrow">{escape(eyebrow)}</p><h1>{escape(title)}</h1>'
        f'<p class="lead">{escape(lead)}</p><ul class="facts">{items}</ul></header>'
    )


def chart_card(
    title: str, text: str, lines: Sequence[Line], bands: Sequence[Band], top: float | None = None, last: int = 0
) -> str:
    """A chart with title, description and legend; see :func:`charts.line_chart`."""
    return (
        f'<div class="card"><h3>{html.escape(title)}</h3><div class="note">{html.escape(text)}</div>'
        f"{charts.legend(lines)}{charts.line_chart(lines, bands, label=f'{title}: {text}', top=top, last=last)}"
        '<p class="readout" aria-live="off"></p></div>'
    )


def duration(records: Sequence[Record]) -> list[tuple[str, str]]:
    """Duration, speed and memory of a run as facts."""
    facts = []
    wall = [value for _, value in series(records, "wall")]
    if wall:
        facts.append((f"{max(wall) / 60:.0f} min" if max(wall) >= 90 else f"{max(wall):.0f} s", "of training"))
    speed = [value for _, value in series(records, "clips_per_second")]
    if speed:
        facts.append((f"{float(np.median(speed)):.3g}", "clips a second, median"))
    memory = [value for _, value in series(records, "memory_gb")]
    if memory:
        facts.append((f"{max(memory):.3g} GB", "of memory"))
    return facts


def memory_cards(records: Sequence[Record], bands: Sequence[Band]) -> list[str]:
    """Charts of the memory metrics that were logged."""
    cards = []
    for metric, title, text in (
        ("gb_free", "Free GPU memory", "GB that an update left, at least"),
        ("memory_gb", "Memory", "GB of the training process, peak so far; without GPU and data loaders"),
    ):
        line = Line("GB", series(records, metric), 3)
        if line.points:
            cards.append(chart_card(title, text, [line], bands))
    return cards


def configuration_table(cfg: Mapping[str, Any]) -> str:
    """The settings of a run, collapsed."""
    return (
        "<h2>Configuration</h2><details><summary>All settings of the model and some of the rest</summary>"
        f"{figures.table(('setting', 'value'), configuration(cfg))}</details>"
    )


def by_level(records: Sequence[Record], metric: str) -> list[Line]:
    """One line for each level of a metric that is numbered by level."""
    levels = range(1, count_levels(records) + 1)
    return [Line(f"level {k}", series(records, f"{metric}_{k}"), (k - 1) % 8) for k in levels]


def curves(records: Sequence[Record], bands: Sequence[Band], more: Sequence[str] = ()) -> str:
    """Charts of loss, accuracy of each level, cosine and speed, and ``more`` cards."""
    loss = [
        Line("training", series(records, "loss"), 0),
        Line("validation", series(records, "loss", "valid"), 1, dashed=True),
    ]
    cards = [
        chart_card("Loss", "of what the stage trains; stages differ in what is summed", loss, bands),
        chart_card(
            "Accuracy of each level's codes", "on masked patches, encoder stages", by_level(records, "acc"), bands
        ),
    ]
    cosine = [
        Line("training", series(records, "cosine"), 0),
        Line("validation", series(records, "cosine", "valid"), 1, True),
    ]
    if any(line.points for line in cosine):
        text = "between the encoder's features and what is rebuilt from codes, tokenizer stages"
        cards.append(chart_card("Tokenizer: cosine similarity", text, cosine, bands, top=1.0))
    speed = [Line("clips a second", series(records, "clips_per_second"), 3)]
    if speed[0].points:
        cards.append(chart_card("Speed", "clips a second while training", speed, bands))
    return f'<h2>Training, stage by stage</h2><div class="grid2">{"".join([*cards, *more])}</div>'


def used_codes(records: Sequence[Record], size: int) -> list[Line]:
    """Used codes of each level: those that are not dead. Logs of earlier versions counted ``used`` in another way."""
    dead = by_level(records, "dead")
    if not any(line.points for line in dead):
        return by_level(records, "used")
    return [line._replace(points=[(update, size - count) for update, count in line.points]) for line in dead]


def codebooks(records: Sequence[Record], bands: Sequence[Band], size: int, more: Sequence[str] = ()) -> str:
    """Charts of the use of codes, and ``more`` cards; each level has ``size`` codes."""
    cards = [
        chart_card(
            "Perplexity of each level", f"{size} would be even use of all codes", by_level(records, "perplexity"), bands
        ),
        chart_card(
            "Codes in use", f"of {size} a level, moving average", used_codes(records, size), bands, top=size * 1.04
        ),
    ]
    energy = by_level(records, "residual_energy")
    if any(line.points for line in energy):
        text = "share of a vector's energy that is left after each level"
        cards.append(chart_card("Residual energy", text, energy, bands))
    return f'<h2>How the codebooks are used</h2><div class="grid2">{"".join([*cards, *more])}</div>'


def section(title: str, text: str, body: str) -> str:
    """A heading, a paragraph about what follows, and that as HTML."""
    return f'<h2>{html.escape(title)}</h2><p class="soft">{html.escape(text)}</p>{body}'


def clip_figure(clip: Clip, colours: Sequence[np.ndarray], more: str = "") -> str:
    """The picture of a clip above its codes, one map for each level that has ``colours``, and ``more`` rows."""
    name = html.escape(clip.label or clip.name)
    rows = [
        f'<span>{clip.kind}</span><img class="{clip.style}" src="{png_uri(clip.picture)}" alt="{clip.kind} of {name}">'
    ]
    for level, of_codes in enumerate(colours):
        source = png_uri(of_codes[clip.codes[..., level]])
        rows.append(
            f'<span>level {level + 1}</span><img class="codes" src="{source}" alt="codes of level {level + 1}">'
        )
    rows.append(more)
    if clip.ticks:
        rows.append(f'<div class="axis">{"".join(f"<span>{tick}</span>" for tick in clip.ticks)}</div>')
    caption = f"<span><b>{name}</b><br>{html.escape(clip.name)}</span>" if clip.label else f"<b>{name}</b>"
    return (
        f'<figure class="clip card"><figcaption>{caption}{clip.player}</figcaption>'
        f'<div class="maps of-{clip.style}">{"".join(rows)}</div></figure>'
    )
