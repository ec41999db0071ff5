"""How good scores of classes are: scikit-learn's metrics over a whole set of clips, and the tables that go to files."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from bridle_fairseq.data.manifests.labels import Classes
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.files import atomic_text

# What may decide which checkpoint is the best one, by whether a clip has one class or any number of them.
SINGLE_LABEL = ("accuracy", "top5_accuracy", "mAP", "mAUC", "d_prime")
MULTI_LABEL = ("mAP", "mAUC", "d_prime", "precision_at_1")
THRESHOLD = 0.5  # of any number of classes, those with at least this score count as predicted


class ClassMetrics(NamedTuple):
    """A number for each of C classes, each against all others; NaN where it is not defined."""

    positives: np.ndarray  # clips of the class
    average_precision: np.ndarray  # NaN without a positive
    auc: np.ndarray  # area under the ROC curve; NaN without a positive or without a negative
    precision: np.ndarray  # of what is predicted; 0 where nothing is
    recall: np.ndarray  # NaN without a positive
    f1: np.ndarray  # NaN without a positive


class Evaluation(NamedTuple):
    """All metrics of a set of clips."""

    values: dict[str, float]  # by name; those that are defined
    clips: int
    classes: ClassMetrics
    confusion: np.ndarray | None  # C x C clips, rows true, columns predicted; None with any number of classes a clip

    @property
    def absent(self) -> int:
        """Classes without a clip; mAP, mAUC and d_prime leave them out."""
        return int((self.classes.positives == 0).sum())


def evaluate(scores: np.ndarray, targets: np.ndarray) -> Evaluation:
    """Metrics of n clips.

    Args:
        scores: n x C, higher is more likely; probabilities where the threshold of 0.5 is to mean something.
        targets: n class numbers, or n x C of 0 and 1.

    ``mAP`` and ``mAUC`` are means over the classes that have a positive (mAUC: and a negative) among the clips;
    ``d_prime`` is sqrt(2) times the normal quantile of mAUC (Gemmeke et al. 2017, AudioSet). ``accuracy``: the highest
    score is the clip's class, the first class at ties.

    Raises:
        InputError: scores that are no numbers.
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
        truth, predicted = targets[:, None] == numbers, best[:, None] == numbers
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
    """Distance of two normal distributions of deviation 1 that would give this area under the ROC curve."""
    if not 0 < auc < 1:
        return float("inf") if auc >= 1 else float("-inf")
    return 2**0.5 * NormalDist().inv_cdf(auc)


def _class_metrics(scores: np.ndarray, truth: np.ndarray, predicted: np.ndarray) -> ClassMetrics:
    """From scores, truth and predictions, n x C each."""
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


def write_tables(folder: str | os.PathLike[str], name: str, found: Evaluation, classes: Classes) -> list[str]:
    """Write ``{name}.classes.csv`` and, for one class a clip, ``{name}.confusion.csv``; their paths.

    A cell is empty where a number is not defined.
    """
    header = ["index", "mid", "display_name", *ClassMetrics._fields]
    rows = [
        [number, classes.ids[number], classes.names[number], *map(_cell, numbers)]
        for number, numbers in enumerate(zip(*found.classes, strict=True))
    ]
    paths = [_write_csv(folder, f"{name}.classes.csv", [header, *rows])]
    if found.confusion is not None:
        table = [[class_id, *row.tolist()] for class_id, row in zip(classes.ids, found.confusion, strict=True)]
        paths.append(_write_csv(folder, f"{name}.confusion.csv", [["true\\predicted", *classes.ids], *table]))
    return paths


def _cell(value: np.generic) -> str:
    return "" if np.isnan(value) else f"{value:.6g}"


def _write_csv(folder: str | os.PathLike[str], name: str, rows: Sequence[Sequence[object]]) -> str:
    path = os.path.join(folder, name)
    with atomic_text(path) as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    return path
