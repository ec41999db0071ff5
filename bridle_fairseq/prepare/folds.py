"""Folds of a labelled set for cross-validation: which clips train, which choose, and which test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bridle_fairseq.data.manifests.labels import Classes
from bridle_fairseq.prepare.scan import Scan
from bridle_fairseq.prepare.tables import Entry, match
from bridle_fairseq.utils.errors import InputError


class Fold(NamedTuple):
    """Row numbers of a fold's parts; ``test`` is the fold, the others are drawn from all other folds."""

    name: str
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray


def match_all(scan: Scan, entries: dict[str, Entry], table: str, multi_label: bool = False) -> list[Entry | None]:
    """The table's entry for each file of a scan, None where it has none.

    Args:
        scan: the files.
        entries: of the table, by file.
        table: its path, for messages.
        multi_label: a file may have any number of classes.

    Raises:
        InputError: an entry has no readable file, no fold, or, unless ``multi_label``, not one class.
    """
    for name, entry in entries.items():
        if not entry.fold:
            raise InputError(f"{table}: {name!r} has an empty fold; expected one for each file")
        if len(entry.labels) != 1 and not multi_label:
            count = f"{table}: {name!r} has {len(entry.labels)} classes"
            raise InputError(f"{count}; expected exactly 1, unless --label-separator says that there may be several")
    found = match(scan, entries)
    there = {id(entry) for entry in found}
    missing = [name for name, entry in entries.items() if id(entry) not in there]
    if missing:
        raise InputError(
            f"{table}: {len(missing)} of {len(entries)} files are not there or cannot be read, such as {missing[0]!r}; "
            f"expected all of them below {scan.root}"
        )
    return found


def make_folds(
    folds: Sequence[str],
    labels: np.ndarray,
    classes: Classes,
    valid_share: float,
    seed: int,
    wanted: Sequence[str] | None = None,
) -> list[Fold]:
    """Every fold in turn as test part; of each class of the others, the same share is drawn for validation.

    Where a clip has several classes, it is drawn for the rarest of them, as in "On the stratification of multi-label
    data" (Sechidis et al. 2011): of the others the share may come out a little larger or smaller.

    Args:
        folds: fold of each row.
        labels: class number of each row, or, with any number of classes a row, rows x classes of 0 and 1.
        classes: what they mean.
        valid_share: of the rows that are not tested, above 0 and under 1; one of each class at least, if there are two.
        seed: of the draws.
        wanted: the folds to test; all by default.

    Raises:
        InputError: fewer than two folds, a wanted one without rows, or one with a single class.
    """
    if not 0 < valid_share < 1:
        raise InputError(f"share for validation {valid_share}; expected above 0 and under 1, such as 0.1")
    column = np.array(folds)
    of_classes = labels > 0 if labels.ndim == 2 else labels[:, None] == np.arange(len(classes))
    there = sorted(set(folds), key=lambda name: (0, int(name), "") if name.isdecimal() else (1, 0, name))
    if len(there) < 2:
        raise InputError(f"all {len(column)} clips are in fold {there[0]!r}; expected at least 2 folds")
    made = []
    for name in wanted or there:
        test = np.flatnonzero(column == name)
        if len(test) == 0:
            raise InputError(f"fold {name!r} has no clips; expected one of {', '.join(there)}")
        others = np.flatnonzero(column != name)
        for part, rows in (("the fold", test), ("the other folds", others)):
            there_are = np.flatnonzero(of_classes[rows].any(0))
            if len(there_are) < 2:
                only = " or ".join(repr(classes.ids[number]) for number in there_are) or "of no class"
                raise InputError(f"fold {name!r}: all {len(rows)} clips of {part} are {only}; expected 2 classes")
        valid = _stratified(of_classes, others, valid_share, np.random.default_rng((seed, there.index(name))))
        made.append(Fold(name, np.setdiff1d(others, valid), valid, test))
    return made


def _stratified(of_classes: np.ndarray, rows: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Some of the rows, by class, the rarest class first; of each class one at least stays, and one is drawn of two."""
    counts = of_classes[rows].sum(0)
    drawn, decided = np.zeros((2, len(of_classes)), dtype=bool)
    for number in np.argsort(counts, kind="stable"):
        of_class = rows[of_classes[rows, number]]
        wanted = min(max(1, round(len(of_class) * share)), len(of_class) - 1) - int(drawn[of_class].sum())
        left = rng.permutation(of_class[~decided[of_class]])
        drawn[left[: max(0, wanted)]] = decided[left] = True
    of_none = rng.permutation(rows[~decided[rows]])
    drawn[of_none[: round(len(of_none) * share)]] = True
    return np.flatnonzero(drawn)
