"""Patches of many clips."""

from __future__ import annotations

import numpy as np

from bridle_fairseq.data.artifacts.patch_rows import PatchRows


def test_rows_selections_and_padding() -> None:
    values = np.arange(12, dtype=np.float16).reshape(6, 2)
    rows = PatchRows.of_counts(values, np.array([2, 0, 3, 1]))
    assert len(rows) == 4 and rows.width == 2
    assert [row.tolist() for row in rows] == [[[0, 1], [2, 3]], [], [[4, 5], [6, 7], [8, 9]], [[10, 11]]]
    some = rows[np.array([True, False, True, True])][np.array([2, 0])]
    assert [row.tolist() for row in some] == [[[10, 11]], [[0, 1], [2, 3]]] and some.values is values
    x, padding = rows.padded([0, 2])
    assert x.dtype == np.float32 and x[0].tolist() == [[0, 1], [2, 3], [0, 0]]
    assert padding.tolist() == [[False, False, True], [False, False, False]]
