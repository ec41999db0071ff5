"""The page about a fine-tuning run."""

from __future__ import annotations

import html
import os
import re
from pathlib import Path

import numpy as np

from bridle_fairseq.nn.ctc import Transcriber
from bridle_fairseq.report import figures
from bridle_fairseq.report.charts import Line
from bridle_fairseq.report.run import Run, group_of
from bridle_fairseq.report.sections import chart_card, configuration_table, document, duration, header, memory_cards
from bridle_fairseq.training.log import series
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.spreadsheet import read_cells

METRICS = (  # of validation, in the order of the page: name, title, description
    ("accuracy", "Accuracy", "share of clips whose highest score is their class"),
    ("top5_accuracy", "Top-5 accuracy", "share of clips with their class among the five highest scores"),
    ("precision_at_1", "Precision at 1", "share of clips whose highest score is one of their classes"),
    ("mAP", "mAP", "mean over classes of the average precision"),
    ("mAUC", "mAUC", "mean over classes of the area under the ROC curve"),
)
ERROR_RATES = (  # of the validation of transcripts; insertions can make them exceed 1
    ("wer", "Word error rate", "errors per word of greedy transcripts"),
    ("uer", "Symbol error rate", "errors per letter, or per piece, of greedy transcripts"),
)
COLUMNS = ("display_name", "positives", "average_precision", "recall", "f1")  # of the table of classes
HARDEST = 20  # classes that are not collapsed
MATRIX_CLASSES = 24  # a larger confusion matrix is not readable; only its largest entries are shown
CONFUSIONS = 12
_COUNT, _NUMBER = re.compile("[0-9]{1,15}"), re.compile(r"[0-9]{1,20}(\.[0-9]{1,20})?(e[+-][0-9]{1,2})?")


def finetuning_page(run: Run) -> str:
    """The page of a run of ``bridle_classification`` or ``bridle_ctc`` as HTML."""
    body = [
        header("bridle fine-tuning run", run.name, _lead(run), _facts(run)),
        _curves(run),
        _classes(run),
        _confusion(run),
        configuration_table(run.cfg),
        f"<footer>{html.escape(str(run.checkpoint))}</footer>",
    ]
    return document(f"{run.name}: bridle fine-tuning run", body)


def _lead(run: Run) -> str:
    model = run.model
    trained = "a linear probe on the frozen encoder" if model.freeze_encoder else "encoder and head learn"
    if isinstance(model, Transcriber):
        outputs = f"Transcripts of {model.num_symbols} symbols by CTC, a frame every {model.frame_ms:g} ms"
    else:
        outputs = f"{model.head.out_features} classes"
    return f"{outputs}, {model.pooling} pooling, {trained}. Pretrained: {run.cfg['model'].get('checkpoint')}."


def _facts(run: Run) -> list[tuple[str, str]]:
    facts = [(f"{run.updates}", "updates"), *duration(run.records)]
    saved = group_of(run.cfg, "checkpoint")
    metric = str(saved.get("best_checkpoint_metric", ""))
    values = series(run.records, metric, "valid")
    if values:
        choose = max if saved.get("maximize_best_checkpoint_metric") else min
        update, best = choose(values, key=lambda point: point[1])
        facts += [(f"{best:.3f}", f"best {metric}, after {update}"), (f"{values[-1][1]:.3f}", f"{metric} at the end")]
    return facts


def _curves(run: Run) -> str:
    loss = [
        Line("training", series(run.records, "loss"), 0),
        Line("validation", series(run.records, "loss", "valid"), 1, dashed=True),
    ]
    cards = [chart_card("Loss", "training may see mixed and masked clips, validation does not", loss, [])]
    tops = [(*metric, 1.0) for metric in METRICS] + [(*metric, None) for metric in ERROR_RATES]
    for name, title, text, top in tops:
        lines = [
            Line("training", series(run.records, name), 0),
            Line("validation", series(run.records, name, "valid"), 1, dashed=True),
        ]
        if lines[1].points:
            cards.append(chart_card(title, text, lines, [], top=top))
    rate = [Line("learning rate", series(run.records, "lr"), 2)]
    speed = [Line("clips a second", series(run.records, "clips_per_second"), 3)]
    for title, text, lines in (("Learning rate", "of the head", rate), ("Speed", "clips a second in training", speed)):
        if lines[0].points:
            cards.append(chart_card(title, text, lines, []))
    cards += memory_cards(run.records, [])
    return f'<h2>Training</h2><div class="grid2">{"".join(cards)}</div>'


def _table(run: Run, name: str) -> Path | None:
    """The path of a table of the last validation; None if it wrote none."""
    results = run.cfg["task"].get("results")
    folder = run.folder / results if isinstance(results, str) and results else run.checkpoint.parent
    path = Path(folder, f"valid.{name}.csv")
    return path if os.path.isfile(path) else None


def _classes(run: Run) -> str:
    path = _table(run, "classes")
    if path is None:
        return ""
    head, *rows = list(read_cells(path)) or [[]]
    if not set(COLUMNS) <= set(head):
        absent = ", ".join(column for column in COLUMNS if column not in head)
        raise _damaged(path, f"line 1 has no column {absent}")
    name, *numbers = (head.index(column) for column in COLUMNS)
    for row in rows:
        for column in numbers:
            if row[column] and not _NUMBER.fullmatch(row[column]):
                raise _damaged(path, f"{head[column]} of {row[name]!r:.60} is {row[column]!r:.60}; expected a number")
    positives, *scores = numbers
    rows.sort(key=lambda row: float(row[scores[0]] or "inf"))
    cells = [
        [row[name], row[positives], *(f"{float(row[score]):.3f}" if row[score] else "" for score in scores)]
        for row in rows
    ]
    if not cells:
        return ""
    names = ("class", "clips", "average precision", "recall", "F1")
    shown = figures.table(names, cells[:HARDEST])
    if cells[HARDEST:]:
        rest = figures.table(names, cells[HARDEST:])
        shown += f"<details><summary>{len(cells) - HARDEST} more classes</summary>{rest}</details>"
    return f'<h2>Class by class</h2><p class="soft">The last validation, the hardest class first.</p>{shown}'


def _damaged(path: Path, problem: str) -> InputError:
    return InputError(f"{path}: {problem}. A validation wrote this table; remove it for a page without it")


def _counts(path: Path) -> tuple[list[str], np.ndarray]:
    """Classes and counts (C x C) of a confusion matrix."""
    rows = read_cells(path)
    names, counts = next(rows, [])[1:], []
    for row in rows:
        for cell in row[1:]:
            if not _COUNT.fullmatch(cell):
                raise _damaged(path, f"row {row[0]!r:.60} has {cell!r:.60}; expected a number of clips")
        counts.append(np.array([int(cell) for cell in row[1:]]))
        if len(counts) > len(names):
            break
    if len(counts) != len(names):
        raise _damaged(path, f"{len(names)} columns of counts and another number of rows; expected the same")
    return names, np.array(counts)


def _confusion(run: Run) -> str:
    path = _table(run, "confusion")
    names, counts = _counts(path) if path else ([], np.zeros(0))
    if not names:
        return ""
    wrong = counts * (1 - np.eye(len(names), dtype=int))
    order = np.argsort(-wrong, axis=None, kind="stable")[:CONFUSIONS]
    pairs = [divmod(int(place), len(names)) for place in order if wrong.flat[place]]
    listed = [[names[a], names[b], f"{counts[a, b]} of {counts[a].sum()}"] for a, b in pairs]
    most = figures.table(("true", "predicted", "clips"), listed) if listed else '<p class="soft">No errors.</p>'
    matrix = _matrix(names, counts) if len(names) <= MATRIX_CLASSES else ""
    return f'<h2>Confusion matrix</h2><p class="soft">The last validation.</p>{most}{matrix}'


def _matrix(names: list[str], counts: np.ndarray) -> str:
    """The confusion matrix as a table; cells are shaded by their share of the row."""
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    top = "".join(f"<th><span>{html.escape(name)}</span></th>" for name in names)
    lines = []
    for name, row, row_shares in zip(names, counts.tolist(), shares.tolist(), strict=True):
        cells = "".join(
            f'<td style="--share:{share:.2f}">{count or ""}</td>' for count, share in zip(row, row_shares, strict=True)
        )
        lines.append(f"<tr><th>{html.escape(name)}</th>{cells}</tr>")
    return (
        '<div class="card scroll"><table class="confusion"><caption>rows: the true class; columns: the highest score'
        f"</caption><thead><tr><th></th>{top}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )
