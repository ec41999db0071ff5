"""The page that compares several runs."""

from __future__ import annotations

import html
from collections.abc import Sequence

from bridle_fairseq.report import figures
from bridle_fairseq.report.charts import Line
from bridle_fairseq.report.finetuning import ERROR_RATES
from bridle_fairseq.report.run import Run, configuration
from bridle_fairseq.report.sections import chart_card, document, header
from bridle_fairseq.training.log import series

LAST = (  # metric and its title; {k} stands for the level
    ("loss", "loss"),
    ("acc_{k}", "accuracy, level {k}"),
    ("cosine", "cosine"),
    ("knn_accuracy", "k-NN accuracy"),
    ("ridge_accuracy", "ridge accuracy"),
    ("accuracy", "accuracy"),
    ("precision_at_1", "precision at 1"),
    ("mAP", "mAP"),
    ("wer", "word error rate"),
    ("uer", "symbol error rate"),
)
# metrics of which validation is drawn, too
VALIDATED = (
    "loss",
    "knn_accuracy",
    "ridge_accuracy",
    "acc_1",
    "cosine",
    "accuracy",
    "precision_at_1",
    "mAP",
    "wer",
    "uer",
)


def comparison(runs: Sequence[Run]) -> str:
    """The page as HTML: final metrics, differences in configuration, and curves on common axes."""
    names = _names(runs)
    body = [
        header("bridle runs compared", " and ".join(names), "Each run has its own colour on this page.", []),
        _key(names),
        "<h2>Final metrics</h2>",
        figures.table(("", *names), _results(runs)),
        "<h2>Differences in configuration</h2>",
        _differences(runs, names),
        "<h2>Curves</h2>",
        '<p class="soft">Dashed lines are validation. Stages are drawn only if all runs have the same ones.</p>',
        f'<div class="grid2">{"".join(_curves(runs, names))}</div>',
    ]
    return document(f"{' and '.join(names)}: bridle runs", body)


def _names(runs: Sequence[Run]) -> list[str]:
    """Unique names of the runs: the shortest tails of their paths that differ."""
    for depth in range(1, 9):
        names = ["/".join(run.folder.parts[-depth:]) for run in runs]
        if len(set(names)) == len(names):
            return names
    return [f"run {number}" for number in range(1, len(runs) + 1)]


def _key(names: Sequence[str]) -> str:
    items = "".join(
        f'<li><i style="border-color:var(--line-{number % 8})"></i>{html.escape(name)}</li>'
        for number, name in enumerate(names)
    )
    return f'<ul class="legend">{items}</ul>'


def _results(runs: Sequence[Run]) -> list[list[str]]:
    rows = [["updates", *[str(run.updates) for run in runs]]]
    levels = max(run.num_levels for run in runs)
    for metric, text in LAST:
        for level in range(1, levels + 1) if "{k}" in metric else (0,):
            values = [series(run.records, metric.format(k=level), "valid") for run in runs]
            if any(values):
                cells = [f"{v[-1][1]:.4g} (update {v[-1][0]})" if v else "" for v in values]
                rows.append([f"{text.format(k=level)} (valid)", *cells])
    for level in range(1, levels + 1):
        cells = []
        for run in runs:
            points = series(run.records, f"perplexity_{level}")
            cells.append(f"{points[-1][1]:.1f} of {run.model.settings.codebook_size}" if points else "")
        rows.append([f"perplexity, level {level}", *cells])
    return rows


def _differences(runs: Sequence[Run], names: Sequence[str]) -> str:
    tables = [dict(configuration(run.cfg)) for run in runs]
    keys = list(dict.fromkeys(key for table in tables for key in table))
    rows = [[key, *[table.get(key, "") for table in tables]] for key in keys if len({t.get(key) for t in tables}) > 1]
    if not rows:
        return '<p class="soft">None.</p>'
    return figures.table(("setting", *names), rows)


def _curves(runs: Sequence[Run], names: Sequence[str]) -> list[str]:
    bands = runs[0].bands if all(run.bands == runs[0].bands for run in runs) else []
    levels = max(run.num_levels for run in runs)
    wanted = [("loss", "Loss", "of what each stage trains", None), ("knn_accuracy", "Probe accuracy", "k-NN", 1.0)]
    wanted += [("ridge_accuracy", "Probe accuracy", "ridge", 1.0)]
    wanted += [(f"acc_{k}", f"Accuracy, level {k}", "on masked patches", None) for k in range(1, levels + 1)]
    wanted += [("accuracy", "Accuracy", "of classes", 1.0), ("mAP", "mAP", "of classes", 1.0)]
    wanted += [(name, title, text, None) for name, title, text in ERROR_RATES]
    wanted += [("cosine", "Tokenizer: cosine similarity", "tokenizer stages", 1.0)]
    for k in range(1, levels + 1):
        wanted.append((f"perplexity_{k}", f"Perplexity, level {k}", "number of codes in even use", None))
        wanted.append((f"residual_energy_{k}", f"Residual energy after level {k}", "share that is left", None))
    wanted += [("clips_per_second", "Speed", "clips a second while training", None)]
    wanted += [("memory_gb", "Memory", "GB of the training process, peak so far", None)]
    last = max([run.updates for run in runs] + [band.end for run in runs for band in run.bands])
    cards = []
    for metric, title, text, top in wanted:
        lines = [
            Line(name + more, series(run.records, metric, split), number % 8, bool(more), _cuts(run))
            for more, split in (("", "train"), (", validation", "valid"))
            for number, (name, run) in enumerate(zip(names, runs, strict=True))
            if not more or metric in VALIDATED
        ]
        if any(line.points for line in lines):
            cards.append(chart_card(title, text, lines, bands, top=top, last=last))
    return cards


def _cuts(run: Run) -> tuple[int, ...]:
    return tuple(band.end for band in run.bands[:-1])
