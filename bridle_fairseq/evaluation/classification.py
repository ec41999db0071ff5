"""Metrics of class scores over a set of clips, by scikit-learn, and the tables that are written to files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from bridle_fairseq.data.manifests.labels import Classes, Labels
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.spreadsheet import write_table

# The metrics by which the best checkpoint can be chosen.
SINGLE_LABEL = ("accuracy", "top5_accuracy", "mAP", "mAUC", "d_prime")
MULTI_LABEL = ("mAP", "mAUC", "d_prime", "precision_at_1")
THRESHOLD = 0.5  # multi-label: classes with at least this score are predicted


class ClassMetrics(NamedTuple):
    """A number for each of C classes, one against the rest; NaN where it is not defined."""

    positives: np.ndarray  # clips of the class
    average_precision: np.ndarray  # NaN without a positive
    auc: np.ndarray  # area under the ROC curve; NaN without a positive or without a negative
    precision: np.ndarray  # 0 if the class is never predicted
    recall: np.ndarray  # NaN without a positive
    f1: np.ndarray  # NaN without a positive


class Evaluation(NamedTuple):
    """All metrics of a set of clips."""

    values: dict[str, float]  # by name; those that are defined
    clips: int
    classes: ClassMetrics
    confusion: np.ndarray | None  # C x C numbers of clips, rows true, columns predicted; None if multi-label

    @property
    def absent(self) -> int:
        """Number of classes without a clip; mAP, mAUC and d_prime leave them out."""
        return int((self.classes.positives == 0).sum())


def evaluate(scores: np.ndarray, targets: np.ndarray) -> Evaluation:
    """Metrics of n clips.

    Args:
        scores: n x C, higher is more likely; the threshold of 0.5 is meant for probabilities.
        targets: n class numbers, or n x C of 0 and 1 (multi-label).

    ``mAP`` and ``mAUC`` are means over the classes that have a positive (mAUC: and a negative) among the clips.
    ``d_prime`` is sqrt(2) times the normal quantile of mAUC (Gemmeke et al. 2017, AudioSet). ``accuracy``: the class
    with the highest score is predicted, the first one at ties.

    Raises:
        InputError: scores that are not finite.
    """
    from sklearn import metrics

    bad = int((~np.isfinite(scores)).any(1).sum())
    if bad:
        raise InputError(f"the scores of {bad} of {len(scores)} clips are not finite; expected a model that converged")
    numbers = np.arange(scores.shape[1])
    best = scores.argmax(1)
    values: dict[str, float] = {}
    confusion = None
    if targets.ndim == 1:
        truth, predicted = targets[:, None] == numbers, best[:, None] == numbers  # n x C each
        values["accuracy"] = metrics.accuracy_score(targets, best)
        if len(numbers) > 5:
            values["top5_accuracy"] = metrics.top_k_accuracy_score(targets, scores, k=5, labels=numbers)
        confusion = metrics.confusion_matrix(targets, best, labels=numbers)
    else:
        truth, predicted = targets > 0.5, scores >= THRESHOLD
        values["precision_at_1"] = truth[np.arange(len(best)), best].mean()
    classes = _class_metrics(scores, truth, predicted)
    if (classes.positives > 0).any():
        values["mAP"] = np.nanmean(classes.average_precision)
    if not np.isnan(classes.auc).all():
        values["mAUC"] = np.nanmean(classes.auc)
        values["d_prime"] = d_prime(values["mAUC"])
    return Evaluation({name: float(value) for name, value in values.items()}, len(scores), classes, confusion)


def d_prime(auc: float) -> float:
    """Distance between two normal distributions of deviation 1 that gives this area under the ROC curve."""
    if not 0 < auc < 1:
        return float("inf") if auc >= 1 else float("-inf")
    return 2**0.5 * NormalDist().inv_cdf(auc)


def _class_metrics(scores: np.ndarray, truth: np.ndarray, predicted: np.ndarray) -> ClassMetrics:
    """Metrics of each class, from n x C arrays."""
    from sklearn import metrics

    positives = truth.sum(0)
    present, mixed = positives > 0, (positives > 0) & (positives < len(truth))
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(
        truth.astype(int), predicted.astype(int), average=None, zero_division=0, labels=np.arange(scores.shape[1])
    )
    average_precision, auc = np.full((2, scores.shape[1]), np.nan)
    for number in np.flatnonzero(present):
        average_precision[number] = metrics.average_precision_score(truth[:, number], scores[:, number])
    for number in np.flatnonzero(mixed):
        auc[number] = metrics.roc_auc_score(truth[:, number], scores[:, number])
    recall, f1 = np.where(present, recall, np.nan), np.where(present, f1, np.nan)
    return ClassMetrics(positives, average_precision, auc, precision, recall, f1)


def write_tables(folder: str | os.PathLike[str], name: str, evaluation: Evaluation, classes: Classes) -> list[str]:
    """Write ``{name}.classes.csv`` and, unless multi-label, ``{name}.confusion.csv``; their paths.

    A cell is empty where a number is not defined.
    """
    header = ["index", "mid", "display_name", *ClassMetrics._fields]
    rows = [
        [number, classes.ids[number], classes.names[number], *map(_cell, numbers)]
        for number, numbers in enumerate(zip(*evaluation.classes, strict=True))
    ]
    paths = [_write_csv(folder, f"{name}.classes.csv", [header, *rows])]
    if evaluation.confusion is not None:
        table = [[class_id, *row.tolist()] for class_id, row in zip(classes.ids, evaluation.confusion, strict=True)]
        paths.append(_write_csv(folder, f"{name}.confusion.csv", [["true\\predicted", *classes.ids], *table]))
    return paths


def write_predictions(
    folder: str | os.PathLike[str],
    name: str,
    manifest: Manifest,
    labels: Labels,
    rows: np.ndarray,
    scores: np.ndarray,
    multi_label: bool,
) -> str:
    """Write ``{name}.predictions.csv``: true and predicted classes and the class scores of each clip; its path.

    Args:
        folder, name: folder and name of the file.
        manifest, labels: manifest and labels of the clips.
        rows: n rows of the manifest that were scored.
        scores: n x C.
        multi_label: predict all classes above the threshold, not the one with the highest score.
    """
    ids = labels.classes.ids

    def line(row: int, row_scores: np.ndarray) -> list[object]:
        predicted = (row_scores >= THRESHOLD).nonzero()[0].tolist() if multi_label else [int(row_scores.argmax())]
        cells = [",".join(ids[number] for number in numbers) for numbers in (labels[row], predicted)]
        return [row, manifest.relative_path(row), *cells, *(f"{score:.6g}" for score in row_scores.tolist())]

    lines = (line(row, row_scores) for row, row_scores in zip(rows.tolist(), scores, strict=True))
    return _write_csv(folder, f"{name}.predictions.csv", [["row", "path", "true", "predicted", *ids], *lines])


def _cell(value: np.generic) -> str:
    return "" if np.isnan(value) else f"{value:.6g}"


def _write_csv(folder: str | os.PathLike[str], name: str, rows: Iterable[Sequence[object]]) -> str:
    path = os.path.join(folder, name)
    write_table(path, rows)
    return path
