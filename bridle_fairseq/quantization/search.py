"""Search for the nearest codes, with bounded memory for the scores."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

# Values computed at once: on a CPU as many as a core's cache holds, elsewhere as many as take little of the memory.
VALUES_AT_ONCE_CPU = 1 << 18
VALUES_AT_ONCE = 1 << 26


def row_blocks(rows: Tensor, values_per_row: int) -> Iterator[slice]:
    """Split ``rows`` (n x ...) into blocks to work on one at a time.

    ``values_per_row``: size of a row's intermediate result, such as the number of its scores.
    """
    budget = VALUES_AT_ONCE_CPU if rows.device.type == "cpu" else VALUES_AT_ONCE
    step = max(1, budget // values_per_row)
    for start in range(0, len(rows), step):
        yield slice(start, start + step)


class CodebookSearch:
    """Search in one codebook (C x D), by squared distance or by cosine similarity.

    Terms that are the same for all codes of a row are left out: ``|r - e|^2`` is searched as ``|e|^2 - 2 r.e``, and the
    cosine as ``-r.e / |e|``.
    """

    def __init__(self, codebook: Tensor, cosine: bool = False) -> None:
        codebook = F.normalize(codebook, dim=1) if cosine else codebook
        self.offset = codebook.new_zeros(len(codebook)) if cosine else codebook.square().sum(dim=1)
        self.scale = -1.0 if cosine else -2.0
        self.vectors = codebook.t()  # D x C

    def nearest(self, rows: Tensor) -> Tensor:
        """Index of the code nearest to each row: n x D -> n."""
        return self._scores(rows).argmin(dim=1)

    def nearest_m(self, rows: Tensor, m: int) -> Tensor:
        """Indices of the m codes nearest to each row, nearest first: n x D -> n x m."""
        if m == 1:
            return self.nearest(rows).unsqueeze(1)
        return self._scores(rows).topk(m, dim=1, largest=False).indices

    def _scores(self, rows: Tensor) -> Tensor:
        """Lower is nearer: n x D -> n x C."""
        return torch.addmm(self.offset, rows, self.vectors, alpha=self.scale)


def nearest_code(rows: Tensor, codebook: Tensor, cosine: bool = False) -> Tensor:
    """Index of the code nearest to each row, block by block: n x D, C x D -> n."""
    search = CodebookSearch(codebook, cosine)
    codes = rows.new_empty(len(rows), dtype=torch.long)
    for block in row_blocks(rows, len(codebook)):
        codes[block] = search.nearest(rows[block])
    return codes
