"""Folds of a labelled data set for cross-validation: training, validation and test rows of each fold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bridle_fairseq.data.manifests.labels import Classes
from bridle_fairseq.prepare.scan import Scan
from bridle_fairseq.prepare.tables import Entry, match
from bridle_fairseq.utils.errors import InputError


class Fold(NamedTuple):
    """Row numbers of the splits when this fold is tested; ``train`` and ``valid`` divide the other folds."""

    name: str
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray


def match_all(scan: Scan, entries: dict[str, Entry], table: str, multi_label: bool = False) -> list[Entry | None]:
    """The table's entry of each file of a scan, or None.

    Args:
        scan: the files.
        entries: entries of the table, by file.
        table: its path, for messages.
        multi_label: allow any number of classes per file.

    Raises:
        InputError: an entry without a readable file, without a fold, or, without ``multi_label``, not of one class.
    """
    for name, entry in entries.items():
        if not entry.fold:
            raise InputError(f"{table}: {name!r} has an empty fold; expected one for each file")
        if len(entry.labels) != 1 and not multi_label:
            raise InputError(
                f"{table}: {name!r} has {len(entry.labels)} classes; expected exactly 1, unless --label-separator says "
                "that there may be several"
            )
    file_entries = match(scan, entries)
    matched = {id(entry) for entry in file_entries}
    missing = [name for name, entry in entries.items() if id(entry) not in matched]
    if missing:
        raise InputError(
            f"{table}: {len(missing)} of {len(entries)} files are not there or cannot be read, such as {missing[0]!r}; "
            f"expected all of them below {scan.root}"
        )
    return file_entries


def make_folds(
    folds: Sequence[str],
    labels: np.ndarray,
    classes: Classes,
    valid_share: float,
    seed: int,
    wanted: Sequence[str] | None = None,
) -> list[Fold]:
    """Test each fold once; a validation set stratified by class is drawn from the other folds.

    Clips of several classes are drawn as in "On the stratification of multi-label data" (Sechidis et al. 2011): for the
    rarest class first, while their other classes want clips, too. Of the clips that are not tested, each class keeps
    at least one for training. A class with at least two of them validates at least one, unless each of its clips is the
    only one left for training another class. The share of nearly every class is exact to one clip.

    Args:
        folds: fold of each row.
        labels: class number of each row, or rows x C of 0 and 1 for any number of classes per row.
        classes: the classes.
        valid_share: share of validation in the rows of each class that are not tested, above 0 and below 1.
        seed: seed of the draws.
        wanted: names of the folds to test; default: all.

    Raises:
        InputError: fewer than two folds, a wanted fold without rows, a fold with a single class, or other folds with
            too few clips for training and validation.
    """
    if not 0 < valid_share < 1:
        raise InputError(f"share for validation {valid_share}; expected above 0 and under 1, such as 0.1")
    column, names = np.array(folds), fold_names(folds)
    multi_hot = labels > 0 if labels.ndim == 2 else labels[:, None] == np.arange(len(classes))  # rows x C
    if len(names) < 2:
        raise InputError(f"all {len(column)} clips are in fold {names[0]!r}; expected at least 2 folds")
    result = []
    for name in wanted or names:
        test = np.flatnonzero(column == name)
        if len(test) == 0:
            raise InputError(f"fold {name!r} has no clips; expected one of {', '.join(names)}")
        others = np.flatnonzero(column != name)
        for where, rows in (("the fold", test), ("the other folds", others)):
            present = np.flatnonzero(multi_hot[rows].any(0))
            if len(present) < 2:
                only = " or ".join(repr(classes.ids[number]) for number in present) or "of no class"
                raise InputError(f"fold {name!r}: all {len(rows)} clips of {where} are {only}; expected 2 classes")
        valid = draw_validation(name, multi_hot, others, valid_share, (seed, names.index(name)))
        result.append(Fold(name, np.setdiff1d(others, valid), valid, test))
    return result


def fold_names(folds: Sequence[str]) -> list[str]:
    """The different folds, numbers first and in their order."""
    return sorted(set(folds), key=lambda name: (0, int(name), "") if name.isdecimal() else (1, 0, name))


def draw_validation(
    name: str, multi_hot: np.ndarray, others: np.ndarray, share: float, seed: tuple[int, int]
) -> np.ndarray:
    """Rows for validation when a fold is tested; :func:`make_folds` says what holds.

    Args:
        name: the fold.
        multi_hot: all rows x C bool.
        others: rows of the other folds.
        share: above 0 and below 1.
        seed: seed of the draw, and number of the fold.

    Raises:
        InputError: all of the other rows are needed for training.
    """
    valid = _stratified(multi_hot, others, share, np.random.default_rng(seed))
    if not len(valid):
        raise InputError(
            f"fold {name!r}: the {len(others)} clips of the other folds are all needed for training; expected a "
            "class with 2 of them at least, one for validation"
        )
    return valid


def _stratified(multi_hot: np.ndarray, rows: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Draw a share of the rows of each class, the rarest class first. :func:`make_folds` says what holds.

    Args:
        multi_hot: all rows x C bool.
        rows: row numbers to draw from.
        share: above 0 and below 1.
        rng: shuffles the rows of each class.
    """
    counts = multi_hot[rows].sum(0)  # C
    wanted = np.minimum(np.maximum(1, np.round(counts * share)), counts - 1)
    left, drawn = counts.copy(), np.zeros(len(multi_hot), dtype=bool)  # left: rows of each class that are not drawn
    # Rows whose other classes want rows, too; then rows whose other classes have enough; for a first one, any row.
    rounds = ((counts - wanted, wanted), (counts - wanted - 1, wanted), (np.ones_like(counts), np.ones_like(counts)))
    for number in np.argsort(counts, kind="stable"):
        members = rows[multi_hot[rows, number]]
        members = rng.permutation(members[~drawn[members]])
        only_one = (wanted == 1) & (left == counts)  # C; rows of these come first, else they may all be spent
        members = members[np.argsort(-(multi_hot[members] & only_one).sum(1), kind="stable")]
        for least, enough in rounds:
            full = left <= np.maximum(least, 1)  # C, classes of which no row may be drawn
            for row in members[~(multi_hot[members] & full).any(1)]:
                if counts[number] - left[number] >= enough[number]:
                    break
                if not full[multi_hot[row]].any():
                    drawn[row] = True
                    left[multi_hot[row]] -= 1
                    full = left <= np.maximum(least, 1)
            members = members[~drawn[members]]
    unlabelled = rng.permutation(rows[~multi_hot[rows].any(1)])
    drawn[unlabelled[: round(len(unlabelled) * share)]] = True
    return np.flatnonzero(drawn)
