"""Probes without a test split: cross-validation over folds of the training split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from bridle_fairseq.evaluation.probe import Split
from bridle_fairseq.evaluation.probe_data import ProbeData
from bridle_fairseq.evaluation.probe_table import ProbeRow, compare
from bridle_fairseq.utils.errors import InputError

FOLDS, FEWEST = 5, 3


def cross_validate(
    data: ProbeData,
    probes: Sequence[str],
    has_valid: bool,
    seed: int,
    say: Callable[[str], object] = lambda text: None,
    device: str = "cpu",
) -> tuple[list[ProbeRow], int]:
    """Test each of :data:`FOLDS` stratified folds of the training split once, and average; the rows and the folds.

    Args:
        data: its training split is divided; its test split is not used.
        probes: see :func:`bridle_fairseq.evaluation.probe_table.compare`.
        has_valid: choose by the validation split of ``data``; else by the next fold, which is not fitted to then.
        seed: seed of the folds.
        say: called with a line before each fold.
        device: see ``probes``.

    Returns:
        For each probe the mean scores, weighted by the clips of the folds, and the layer that was chosen most often.

    Raises:
        InputError: too few clips, or a fold leaves fewer than two classes to fit to.
    """
    labels = data.labels.train
    count = min(FOLDS, len(labels) // 2)
    if count < FEWEST:
        raise InputError(
            f"{len(labels)} training clips and no test split; expected {2 * FEWEST} at least, or a test split"
        )
    fold_of = stratified_folds(labels, count, seed)
    results, sizes = [], []
    for fold in range(count):
        say(f"fold {fold + 1} of {count}")
        tested, chosen = fold_of == fold, fold_of == (fold + 1) % count
        take = partial(_divided, fitted=~tested if has_valid else ~(tested | chosen), chosen=chosen, tested=tested)
        part = take(data.labels) if not has_valid else take(data.labels)._replace(valid=data.labels.valid)
        if (part.train.any(0).sum() if data.multi_label else len(np.unique(part.train))) < 2:
            raise InputError(f"fold {fold + 1} leaves a single class to fit to; expected more clips, or a test split")
        features = {array: take(split) for array, split in data.features.items()}
        if has_valid:
            features = {array: split._replace(valid=data.features[array].valid) for array, split in features.items()}
        results.append(compare(features, part, probes, device=device))
        sizes.append(int(tested.sum()))
    return [_mean(rows, sizes) for rows in zip(*results, strict=True)], count


def _divided(split: Split, fitted: np.ndarray, chosen: np.ndarray, tested: np.ndarray) -> Split:
    """Rows of the training split as three splits."""
    return Split(split.train[fitted], split.train[chosen], split.train[tested])


def stratified_folds(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """The fold of each row, from 0; the rows of a class are dealt out evenly.

    Args:
        labels: n classes, or n x C of 0 and 1, of which the first class counts.
        count: number of folds.
        seed: seed of the deal.
    """
    first = labels.argmax(1) if labels.ndim == 2 else labels
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(first[order], kind="stable")]
    folds = np.empty(len(labels), dtype=np.int64)
    folds[order] = np.arange(len(labels)) % count
    return folds


def _mean(rows: Sequence[ProbeRow], sizes: Sequence[int]) -> ProbeRow:
    """One probe's rows of all folds as one row."""

    def mean(values: Sequence[Any]) -> float:
        return float(np.average(values, weights=sizes))

    layers = rows[0].valid_of_layers
    return rows[0]._replace(
        layer=Counter(row.layer for row in rows).most_common(1)[0][0],
        settings={},
        valid=mean([row.valid for row in rows]),
        test=mean([row.test for row in rows]),
        interval=None,
        valid_of_layers={layer: mean([row.valid_of_layers[layer] for row in rows]) for layer in layers},
        at_end=False,
        outcomes=tuple(outcome for row in rows for outcome in row.outcomes),
    )
