"""The demo's page: one HTML file that needs nothing else, for light and dark screens of any width."""

from __future__ import annotations

import html
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bridle_fairseq.demo import charts
from bridle_fairseq.demo.charts import Band, Line
from bridle_fairseq.demo.log import Record, count_levels, series
from bridle_fairseq.demo.style import CSS, SCRIPT

FRAMES_A_SECOND = 100


@dataclass
class Clip:
    """A clip with its codes."""

    name: str
    label: str
    fbank: np.ndarray  # M x mel, log-mel
    codes: np.ndarray  # T x F x K
    patch_frames: int
    waveform: np.ndarray  # S, in [-1, 1]
    sample_rate: int


@dataclass
class Row:
    """A line of the result table."""

    name: str
    accuracy: float
    chosen: str = ""  # what validation chose
    best: bool = False


@dataclass
class Page:
    """All that the page shows."""

    headline: str
    summary: str
    facts: list[tuple[str, str]]  # value, what it is
    records: Sequence[Record]
    bands: list[Band]  # the stages
    rows: list[Row]  # empty without labels
    table_note: str
    clips: list[Clip]
    codebooks: list[np.ndarray]  # K arrays, C x D
    codebook_size: int
    places: list[tuple[str, str]]  # what, path
    commands: list[tuple[str, str]]  # what it does, command
    footer: str = ""


def render(page: Page) -> str:
    """The page as HTML."""
    escape = html.escape
    facts = "".join(f"<li><b>{escape(value)}</b><span>{escape(name)}</span></li>" for value, name in page.facts)
    body = [
        f'<header><p class="eyebrow">bridle demo</p><h1>{escape(page.headline)}</h1>'
        f'<p class="lead">{escape(page.summary)}</p><ul class="facts">{facts}</ul></header>',
        _result(page),
        _curves(page),
        _codebooks(page),
        _clips(page),
        _next(page),
        f"<footer>{escape(page.footer)}</footer>",
    ]
    script = SCRIPT % {
        "left": charts.LEFT,
        "width": charts.WIDTH - charts.LEFT - charts.RIGHT,
        "top": charts.TOP,
        "bottom": charts.HEIGHT - charts.BOTTOM,
        "full": charts.WIDTH,
    }
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(page.headline)}</title><style>{CSS}</style></head>"
        f"<body><main>{''.join(body)}</main><script>{script}</script></body></html>\n"
    )


def _result(page: Page) -> str:
    title = "<h2>What the frozen encoder knows</h2>"
    if not page.rows:
        return f'{title}<p class="soft">{html.escape(page.table_note)}</p>'
    rows = "".join(
        f"<tr{' class=best' if row.best else ''}><th>{html.escape(row.name)}</th>"
        f'<td class="value">{_meter(row.accuracy)}</td><td class="note">{html.escape(row.chosen)}</td></tr>'
        for row in page.rows
    )
    return (
        f'{title}<p class="soft">{html.escape(page.table_note)}</p><div class="card scroll"><table><thead><tr>'
        f"<th>Features</th><th>Accuracy</th><th>Chosen</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _meter(accuracy: float) -> str:
    return f'<b>{accuracy:.3f}</b><span class="meter"><i style="width:{100 * accuracy:.1f}%"></i></span>'


def _chart(title: str, text: str, lines: list[Line], bands: list[Band], top: float | None = None) -> str:
    return (
        f'<div class="card"><h3>{html.escape(title)}</h3><div class="note">{html.escape(text)}</div>'
        f"{charts.legend(lines)}{charts.line_chart(lines, bands, label=f'{title}: {text}', top=top)}"
        '<p class="readout" aria-live="off"></p></div>'
    )


def _by_level(page: Page, metric: str) -> list[Line]:
    levels = range(1, count_levels(page.records) + 1)
    return [Line(f"level {k}", series(page.records, f"{metric}_{k}"), (k - 1) % 8) for k in levels]


def _curves(page: Page) -> str:
    bands, records = page.bands, page.records
    loss = [
        Line("training", series(records, "loss"), 0),
        Line("validation", series(records, "loss", "valid"), 1, dashed=True),
    ]
    parts = [
        _chart("Loss", "of what the stage trains; stages differ in what is summed", loss, bands),
        _chart("Accuracy of each level's codes", "on masked patches, encoder stages", _by_level(page, "acc"), bands),
    ]
    cosine = [
        Line("training", series(records, "cosine"), 0),
        Line("validation", series(records, "cosine", "valid"), 1, True),
    ]
    if any(line.points for line in cosine):
        text = "between the encoder's features and what is rebuilt from codes, tokenizer stages"
        parts.append(_chart("Tokenizer: cosine similarity", text, cosine, bands, top=1.0))
    speed = [Line("clips a second", series(records, "clips_per_second"), 3)]
    if speed[0].points:
        parts.append(_chart("Speed", "clips a second while training", speed, bands))
    return f'<h2>Training, stage by stage</h2><div class="grid2">{"".join(parts)}</div>'


def _codebooks(page: Page) -> str:
    bands, size = page.bands, page.codebook_size
    parts = [
        _chart(
            "Perplexity of each level", f"{size} would be even use of all codes", _by_level(page, "perplexity"), bands
        ),
        _chart("Codes in use", f"of {size} a level, moving average", _by_level(page, "used"), bands, top=size * 1.04),
    ]
    energy = _by_level(page, "residual_energy")
    if any(line.points for line in energy):
        text = "share of a vector's energy that is left after each level"
        parts.append(_chart("Residual energy", text, energy, bands))
    return f'<h2>How the codebooks are used</h2><div class="grid2">{"".join(parts)}</div>'


def _clips(page: Page) -> str:
    if not page.clips:
        return ""
    colours = [charts.code_colours(codebook) for codebook in page.codebooks]
    figures = "".join(_clip(clip, colours) for clip in page.clips)
    return (
        "<h2>Sound and its codes</h2><p class=soft>Each clip's spectrogram above the codes of its patches, one map a "
        "level. Codes that lie close together in a level's codebook have similar colours.</p>"
        f'<div class="grid2">{figures}</div>'
    )


def _clip(clip: Clip, colours: list[np.ndarray]) -> str:
    steps, _, levels = clip.codes.shape
    frames = steps * clip.patch_frames  # the maps are as wide as the spectrogram: the last patch may reach past the end
    fbank = np.full((frames, clip.fbank.shape[1]), clip.fbank.min(), np.float32)
    fbank[: len(clip.fbank)] = clip.fbank[:frames]
    picture = charts.data_uri("image/png", charts.png(charts.heat(fbank.T[::-1])))
    seconds = frames / FRAMES_A_SECOND
    name = html.escape(clip.label or clip.name)
    parts = [f'<span>log-mel</span><img class="sound" src="{picture}" alt="spectrogram of {name}">']
    for level in range(levels):
        pixels = colours[level][clip.codes[:, ::-1, level].T]
        source = charts.data_uri("image/png", charts.png(pixels))
        parts.append(
            f'<span>level {level + 1}</span><img class="codes" src="{source}" alt="codes of level {level + 1}">'
        )
    parts.append(f'<div class="axis"><span>0</span><span>{seconds / 2:.2g} s</span><span>{seconds:.2g} s</span></div>')
    audio = charts.data_uri("audio/wav", _wav(clip.waveform, clip.sample_rate))
    caption = f"<span><b>{name}</b><br>{html.escape(clip.name)}</span>" if clip.label else f"<b>{name}</b>"
    return (
        f'<figure class="clip card"><figcaption>{caption}<audio controls preload="none" src="{audio}"></audio>'
        f'</figcaption><div class="maps">{"".join(parts)}</div></figure>'
    )


def _wav(waveform: np.ndarray, sample_rate: int) -> bytes:
    import soundfile

    with io.BytesIO() as file:
        soundfile.write(file, waveform, sample_rate, format="WAV", subtype="PCM_16")
        return file.getvalue()


def _next(page: Page) -> str:
    places = "".join(f"<dt>{html.escape(k)}</dt><dd><code>{html.escape(v)}</code></dd>" for k, v in page.places)
    commands = "".join(f"<p>{html.escape(k)}</p><pre>{html.escape(v)}</pre>" for k, v in page.commands)
    return f"<h2>Where everything is</h2><dl>{places}</dl><h2>What to run next</h2>{commands}"
