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

    A clip of several classes is drawn for the rarest of them, as in "On the stratification of multi-label data"
    (Sechidis et al. 2011). The share of its other classes may then differ slightly.

    Args:
        folds: fold of each row.
        labels: class number of each row, or rows x C of 0 and 1 for any number of classes per row.
        classes: the classes.
        valid_share: share of validation in the rows that are not tested, above 0 and below 1; of a class with at least
            two rows there, at least one row validates.
        seed: seed of the draws.
        wanted: names of the folds to test; default: all.

    Raises:
        InputError: fewer than two folds, a wanted fold without rows, or a fold with a single class.
    """
    if not 0 < valid_share < 1:
        raise InputError(f"share for validation {valid_share}; expected above 0 and under 1, such as 0.1")
    column = np.array(folds)
    multi_hot = labels > 0 if labels.ndim == 2 else labels[:, None] == np.arange(len(classes))  # rows x C
    names = sorted(set(folds), key=lambda name: (0, int(name), "") if name.isdecimal() else (1, 0, name))
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
        valid = _stratified(multi_hot, others, valid_share, np.random.default_rng((seed, names.index(name))))
        result.append(Fold(name, np.setdiff1d(others, valid), valid, test))
    return result


def _stratified(multi_hot: np.ndarray, rows: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Draw a share of the rows of each class, the rarest class first.

    Of each class at least one row is not drawn, and if it has two, at least one is.
    """
    counts = multi_hot[rows].sum(0)
    drawn, decided = np.zeros((2, len(multi_hot)), dtype=bool)
    for number in np.argsort(counts, kind="stable"):
        members = rows[multi_hot[rows, number]]
        missing = min(max(1, round(len(members) * share)), len(members) - 1) - int(drawn[members].sum())
        undecided = rng.permutation(members[~decided[members]])
        drawn[undecided[: max(0, missing)]] = decided[undecided] = True
    unlabelled = rng.permutation(rows[~decided[rows]])
    drawn[unlabelled[: round(len(unlabelled) * share)]] = True
    return np.flatnonzero(drawn)
