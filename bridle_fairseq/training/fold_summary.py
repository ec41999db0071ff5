"""The folds of a cross-validation as one table: test scores by fold, their mean and deviation."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from bridle_fairseq.evaluation.probe_table import aligned
from bridle_fairseq.training.fold_outcomes import FoldScore, best_of
from bridle_fairseq.utils.files import atomic_text
from bridle_fairseq.utils.spreadsheet import write_table

CHOSEN = "what validates best"


def write_summary(
    scores: Mapping[str, Sequence[FoldScore]],
    out: Path,
    settings: Mapping[str, Any],
    metric: str = "accuracy",
    against: Mapping[str, Any] | None = None,
) -> str:
    """Write ``crossval.json`` and ``crossval.csv``; the table of the folds' test scores, mean and deviation, as text.

    Args:
        scores: by fold.
        out: folder of the files.
        settings: of the cross-validation, for the json.
        metric: name of the scores.
        against: the difference to another cross-validation, for the json.
    """
    by_name: dict[str, list[float]] = {}
    for fold_scores in scores.values():
        for score in fold_scores:
            by_name.setdefault(score.name, []).append(score.test)
    if len(by_name) > 1:
        by_name[CHOSEN] = [fold_scores[best_of(fold_scores)].test for fold_scores in scores.values()]
    lines: list[dict[str, Any]] = [
        {"name": name, "folds": values, "mean": mean(values), "std": _deviation(values)}
        for name, values in by_name.items()
    ]
    with atomic_text(out / "crossval.json") as file:
        about = {"settings": dict(settings), "metric": metric, "folds": list(scores), "rows": lines}
        json.dump(about | ({"against": dict(against)} if against else {}), file, indent=2)
        file.write("\n")
    rows = ([line["name"], *line["folds"], line["mean"], line["std"]] for line in lines)
    write_table(out / "crossval.csv", [["name", *(f"fold {name}" for name in scores), "mean", "std"], *rows])
    cells = [[f"test {metric}", *(f"fold {name}" for name in scores), "mean", "std"]]
    for line in lines:
        cells.append([line["name"], *(f"{value:.3f}" for value in (*line["folds"], line["mean"], line["std"]))])
    return aligned(cells)


def _deviation(values: Sequence[float]) -> float:
    if any(map(math.isnan, values)):  # a metric that no clip of a fold defines; stdev fails
        return math.nan
    return stdev(values) if len(values) > 1 else 0.0
