"""What the probes of a fold say of each clip that tests it, and the paired difference of two cross-validations.

``fold{name}/result.scores.npy`` is float32, rows of ``result.json`` x clips of the fold's ``test.tsv`` x classes of
``labels.csv``. It is written before the result. Clips that could not be read are NaN. Classes that the fold's training
clips do not have are -inf.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bridle_fairseq.data.artifacts.arrays import open_array
from bridle_fairseq.data.manifests.labels import Classes, Labels
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.evaluation.scores import Difference, Outcome, paired_difference
from bridle_fairseq.prepare.folds import Fold
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.files import atomic_binary

SCORES = "result.scores.npy"
RESAMPLES = 1000


class FoldScore(NamedTuple):
    """Scores of one kind of features, or of fine-tuning, in a fold."""

    name: str
    valid: float
    test: float


def placed(scores: np.ndarray, clips: np.ndarray, classes: np.ndarray, num_clips: int, num_classes: int) -> np.ndarray:
    """Scores of some clips and classes (n x C) in the place of all, num_clips x num_classes float32.

    Args:
        scores: n x C.
        clips: numbers of the n clips.
        classes: numbers of the C classes.
        num_clips, num_classes: of all.
    """
    everything = np.full((num_clips, num_classes), np.nan, np.float32)
    everything[clips] = -np.inf
    everything[np.ix_(clips, classes)] = scores
    return everything


def write_scores(folder: Path, scores: Sequence[np.ndarray]) -> None:
    """Write the file of a fold: for each row of its result, clips x classes (:func:`placed`)."""
    with atomic_binary(folder / SCORES) as file:
        np.save(file, np.stack(scores).astype(np.float32))


def best_of(scores: Sequence[FoldScore]) -> int:
    """Number of the row that validates best in a fold."""
    return max(range(len(scores)), key=lambda row: scores[row].valid)


def check_folds_match(out: Path, against: Path, folds: Sequence[Fold]) -> None:
    """Check that two cross-validations have the same classes and test clips, and that the second is finished.

    Raises:
        InputError: they differ, or a fold of the second has no scores.
    """
    classes = [Classes.read(folder / "labels.csv") for folder in (out, against)]
    if classes[0].ids != classes[1].ids:
        raise InputError(f"{against / 'labels.csv'}: other classes than in {out}; expected the same clips and folds")
    for fold in folds:
        name = f"fold{fold.name}"
        clips = [_clips(folder / name, classes[0]) for folder in (out, against)]
        if clips[0] != clips[1]:
            raise InputError(
                f"{against / name / 'test.tsv'}: other clips or classes than those that test fold {fold.name} here; "
                "expected a cross-validation of the same clips and folds"
            )
        for folder in (out, against):
            done, scores = (folder / name / "result.json").exists(), folder / name / SCORES
            if (done or folder == against) and not scores.exists():
                raise InputError(
                    f"{scores}: no such file; expected the scores of each clip, which unfinished folds and those of "
                    "earlier versions do not have: remove result.json beside it and run the fold again"
                )


def _clips(folder: Path, classes: Classes) -> list[tuple[str, int, list[int]]]:
    """Path, size and classes of each clip that tests a fold."""
    manifest = Manifest.read(folder / "test.tsv")
    labels = Labels.read(folder / "test.lbl", manifest, classes)
    return [(path, size, labels[row]) for row, (path, size) in enumerate(manifest)]


def fold_difference(
    here: tuple[Path, Mapping[str, Sequence[FoldScore]]],
    there: tuple[Path, Mapping[str, Sequence[FoldScore]]],
    folds: Sequence[Fold],
    targets: np.ndarray,
    multi: bool,
    seed: int,
) -> Difference:
    """What validates best in each fold, minus the same of another cross-validation; the mean over the folds.

    Args:
        here, there: folder and scores by fold of each; see :func:`check_folds_match`.
        folds: names and test clips.
        targets: clips x classes of 0 and 1.
        multi: whether a clip may have several classes: the scores are mAP.
        seed: of the bootstrap over the test clips of each fold.

    Raises:
        InputError: scores that cannot be read.
    """
    pairs: list[tuple[Outcome, Outcome]] = []
    for fold in folds:
        truth = targets[fold.test]
        one, other = (_best_scores(folder, fold, scores[fold.name], truth) for folder, scores in (here, there))
        readable = ~(np.isnan(one) | np.isnan(other)).any(1)
        pairs.append((Outcome(one[readable], truth[readable]), Outcome(other[readable], truth[readable])))
    first, second = zip(*pairs, strict=True)
    return paired_difference(first, second, multi, RESAMPLES, seed)


def _best_scores(out: Path, fold: Fold, scores: Sequence[FoldScore], truth: np.ndarray) -> np.ndarray:
    path = out / f"fold{fold.name}" / SCORES
    return open_array(str(path), "these scores", "<f4", (len(scores), *truth.shape))[best_of(scores)]
