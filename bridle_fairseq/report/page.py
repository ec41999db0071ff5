"""The page about one pretraining run."""

from __future__ import annotations

import html

from bridle_fairseq.quantization.statistics import level_statistics
from bridle_fairseq.report import figures
from bridle_fairseq.report.charts import Line
from bridle_fairseq.report.examples import Items, embedding_map, examples, items_of
from bridle_fairseq.report.images import code_colours
from bridle_fairseq.report.run import Run
from bridle_fairseq.report.sections import (
    by_level,
    chart_card,
    clip_figure,
    codebooks,
    configuration_table,
    curves,
    document,
    duration,
    header,
    memory_cards,
)
from bridle_fairseq.training.log import series

PROBES = {"knn_accuracy": "k-NN", "ridge_accuracy": "ridge"}  # metrics while pretraining, and their names


def run_page(run: Run, manifest: str | None, clips: int, points: int) -> str:
    """The page of a run as HTML.

    Args:
        run: the run.
        manifest: manifest of the clips to show; None: the run's validation split, if it still exists.
        clips: number of clips shown with codes and predictions.
        points: maximum number of clips on the map of embeddings.

    Raises:
        InputError: the manifest or its files cannot be used.
    """
    items = items_of(run, manifest)
    size = run.model.settings.codebook_size
    body = [
        header("bridle run", run.name, _lead(run), facts(run)),
        curves(run.records, run.bands, _probe_and_memory(run)),
        codebooks(run.records, run.bands, size, _changes(run)),
        _usage(run),
        _examples(run, items, clips),
        _map(run, items, points),
        configuration_table(run.cfg),
        f"<footer>{html.escape(str(run.checkpoint))}</footer>",
    ]
    return document(f"{run.name}: bridle run", body)


def facts(run: Run) -> list[tuple[str, str]]:
    """The most important facts: (value, description)."""
    encoder = sum(p.numel() for p in run.model.encoder.parameters())
    shown = [
        (f"{run.updates}", "updates"),
        (f"{len(run.bands)}", "stages begun"),
        (f"{encoder / 1e6:.3g} M", "encoder"),
    ]
    shown += duration(run.records)
    for metric, name in PROBES.items():
        probe = series(run.records, metric, "valid")
        if probe:
            shown.append((f"{probe[-1][1]:.3f}", f"{name} accuracy at the end"))
    return shown


def _lead(run: Run) -> str:
    s = run.model.settings
    stages = ", ".join(f"{band.name} to {band.end}" for band in run.bands)
    codes = f"{s.num_codebooks} x {s.codebook_size} codes" if s.num_codebooks > 1 else f"{s.codebook_size} codes (VQ)"
    return f"{codes}, encoder of {s.encoder_depth} blocks of width {s.encoder_width}. Stages: {stages}."


def _probe_and_memory(run: Run) -> list[str]:
    cards = []
    logged = {name: series(run.records, metric, "valid") for metric, name in PROBES.items()}
    lines = [Line(f"{name} on the labelled manifest", points, 2 + i) for i, (name, points) in enumerate(logged.items())]
    probes = [line for line in lines if line.points]
    if probes:
        cards.append(
            chart_card("Probe accuracy", "frozen encoder, while it is being pretrained", probes, run.bands, top=1.0)
        )
    return [*cards, *memory_cards(run.records, run.bands)]


def _changes(run: Run) -> list[str]:
    """Charts of dead and of restarted codes, if the run logged them."""
    share = run.model.quantizer.codebooks.restart_threshold
    cards = []
    for metric, title, text in (
        ("dead", "Dead codes", f"codes used less than {share:g} times as often as even use would have it"),
        ("revived", "Revived codes", "dead codes that restarted in an update, mean over the log's interval"),
    ):
        lines = by_level(run.records, metric)
        if any(line.points for line in lines):
            cards.append(chart_card(title, text, lines, run.bands))
    return cards


def _usage(run: Run) -> str:
    quantizer = run.model.quantizer
    share = quantizer.codebooks.restart_threshold
    usage = quantizer.usage.cpu().numpy()
    if not usage.sum():
        return ""
    rows, cards = [], []
    for use in level_statistics(quantizer.usage, share):
        last = [series(run.records, f"{name}_{use.level}", "valid") for name in ("acc", "residual_energy")]
        cells = [f"{values[-1][1]:.3f}" if values else "" for values in last]
        rows.append((f"level {use.level}", f"{use.used_codes}", f"{use.perplexity:.1f}", f"{use.dead_codes}", *cells))
        note = f"{use.dead_codes} of {use.codebook_size} codes dead, perplexity {use.perplexity:.1f}"
        bars = figures.usage_histogram(usage[use.level - 1], use.level, share)
        cards.append(f'<div class="card"><h3>Level {use.level}</h3><div class="note">{note}</div>{bars}</div>')
    key = (
        '<ul class="legend"><li><i class="alive"></i>in use</li><li><i class="dead"></i>dead '
        f"(under {share:g}x)</li><li class=dashed><i></i>even use, 1x</li></ul>"
    )
    head = ("at the end", "used codes", "perplexity", "dead codes", "accuracy (valid)", "residual energy (valid)")
    return (
        '<h2>Use of each code</h2><p class="soft">A running average when the run ended, the most used code first, as '
        f"multiples of even use.</p>{figures.table(head, rows)}{key}<div class=grid2>{''.join(cards)}</div>"
    )


def _examples(run: Run, items: Items | None, count: int) -> str:
    title = "<h2>Inputs, codes and predictions</h2>"
    if items is None:
        text = "The run's manifests are not where they were. Show clips with --manifest."
        return f'{title}<p class="soft">{text}</p>'
    shown = examples(run.model, items, count)
    if not shown:
        return ""
    colours = [code_colours(codebook) for codebook in run.model.quantizer.codebooks.codes.cpu().numpy()]
    similar = "Codes that lie close together in a level's codebook have similar colours."
    if run.bands[-1].name.startswith("tokenizer"):  # its codes are new to the decoder
        clips = "".join(clip_figure(e.clip, colours) for e in shown)
        text = f"{similar} The decoder learns to predict these codes in the next encoder stage."
        return f'{title}<p class="soft">{text}</p><div class="grid2">{clips}</div>'
    clips = "".join(clip_figure(e.clip, colours, figures.prediction_rows(e.predicted)) for e in shown)
    settings = run.model.settings
    return (
        f'{title}<p class="soft">{similar} Below, {100 * settings.mask_ratio:.0f} % of the patches are masked and the '
        f"decoder predicts their codes. Guessing would be right in {100 / settings.codebook_size:.1g} %.</p>"
        f'{figures.prediction_legend()}<div class="grid2">{clips}</div>'
    )


def _map(run: Run, items: Items | None, points: int) -> str:
    embeddings = embedding_map(run.model, items, points) if items is not None and points else None
    if embeddings is None:
        return ""
    text = f"{embeddings.method} of the mean-pooled features of {len(embeddings.labels)} clips"
    return (
        f'<h2>Map of embeddings</h2><p class="soft">{text}, each with its label\'s colour and shape.</p>'
        f'<div class="card">{figures.scatter(embeddings)}</div>'
    )
