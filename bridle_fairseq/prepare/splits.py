"""Random splits of a corpus, with labels stratified by class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bridle_fairseq.utils.errors import InputError


def random_split(num_rows: int, valid_percent: float, seed: int, test_percent: float = 0.0) -> dict[str, np.ndarray]:
    """Row numbers of ``train``, ``valid`` and ``test``, each sorted and not empty; none of a part with a share of 0.

    Args:
        num_rows: number of rows.
        valid_percent: share of ``valid``, from 0 to below 1 (fairseq's name for it).
        seed: seed of the draw.
        test_percent: share of ``test``; it does not change what is drawn for ``valid``.

    Raises:
        InputError: a share out of range, or too few rows.
    """
    parts = _parts(num_rows, valid_percent, test_percent)
    order, free = np.random.default_rng(seed).permutation(num_rows), num_rows - 1  # one row is left for training
    splits, drawn = {}, 0
    for place, (name, share) in enumerate(parts.items()):
        count = min(max(1, round(num_rows * share)), free - (len(parts) - 1 - place))
        splits[name] = np.sort(order[drawn : drawn + count])
        drawn, free = drawn + count, free - count
    return {"train": np.sort(order[drawn:]), **splits}


def stratified_split(
    labels: Sequence[Sequence[int]], valid_percent: float, seed: int, test_percent: float = 0.0
) -> dict[str, np.ndarray]:
    """:func:`random_split` that takes the share of each class.

    A class keeps a row for training; then it gives ``valid`` at least one, then ``test``. Of rows with several classes,
    the first class counts. Rows without a class are drawn like a class of their own.

    Args:
        labels: class numbers of each row.
        valid_percent, seed, test_percent: see :func:`random_split`.

    Raises:
        InputError: as :func:`random_split`.
    """
    parts = _parts(len(labels), valid_percent, test_percent)
    first = np.array([min(row, default=-1) for row in labels], dtype=np.int64)
    rng = np.random.default_rng(seed)
    part_of = np.zeros(len(labels), dtype=np.int64)  # 0: training
    order = rng.permutation(len(labels))
    order = order[np.argsort(first[order], kind="stable")]  # rows of a class, shuffled, one class after the other
    ends = np.flatnonzero(np.diff(first[order], append=len(labels) + 1)) + 1
    for rows in np.split(order, ends[:-1]):
        drawn = 0
        for number, share in enumerate(parts.values(), start=1):
            count = min(max(1, round(len(rows) * share)), max(0, len(rows) - 1 - drawn))
            part_of[rows[drawn : drawn + count]] = number
            drawn += count
    splits = {name: np.flatnonzero(part_of == number) for number, name in enumerate(("train", *parts))}
    if all(map(len, splits.values())):
        return splits
    return random_split(len(labels), valid_percent, seed, test_percent)  # a single row of each class


def check_shares(valid_percent: float, test_percent: float) -> None:
    """Raise :class:`InputError` for shares that are out of range."""
    for share, what in ((valid_percent, "validation"), (test_percent, "the test")):
        if not 0 <= share < 1:
            raise InputError(f"share for {what} {share}; expected 0 to under 1, such as 0.05")
    if valid_percent + test_percent >= 1:
        raise InputError(f"shares {valid_percent} and {test_percent}; expected a sum under 1: the rest is for training")


def _parts(num_rows: int, valid_percent: float, test_percent: float) -> dict[str, float]:
    """The parts beside training with their shares, checked."""
    check_shares(valid_percent, test_percent)
    parts = {name: share for name, share in (("valid", valid_percent), ("test", test_percent)) if share}
    if num_rows < 1 + len(parts):
        files = f"{num_rows} usable file{'s' * (num_rows != 1)}"
        purposes = " and one to test" if len(parts) > 1 else ""
        raise InputError(f"{files}; expected at least {1 + len(parts)}, one to train and one to validate{purposes}")
    return parts
