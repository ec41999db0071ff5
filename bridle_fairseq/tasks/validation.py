"""Scores of a whole validation set from all ranks."""

import numpy as np
import torch
from torch import Tensor

from bridle_fairseq.utils.distributed import gather_rows


class ScoreCollection:
    """Collects the scores of one pass over a data set, batch by batch, on every rank.

    Args:
        steps: number of batches, the same on each rank. A rank with fewer gets empty batches, or some clips twice.
    """

    def __init__(self, steps: int) -> None:
        self.steps, self.left = steps, steps
        self._rows: list[Tensor] = []
        self._scores: list[Tensor] = []

    def add(self, rows: Tensor | None, scores: Tensor | None) -> None:
        """Add a batch's rows of the manifest (B) and scores (B x C), or None and None for an empty batch."""
        self.left -= 1
        if rows is not None and scores is not None:
            self._rows.append(rows.cpu())
            self._scores.append(scores.detach().float().cpu())

    def gather(self, num_classes: int, device: torch.device) -> tuple[np.ndarray, np.ndarray]:
        """(n sorted rows, n x C scores) of all ranks as arrays, with each clip once. A collective."""
        rows = torch.cat([torch.zeros(0, dtype=torch.long), *self._rows]).to(device)
        scores = torch.cat([torch.zeros(0, num_classes), *self._scores]).to(device)
        unique, first = np.unique(gather_rows(rows).cpu().numpy(), return_index=True)
        return unique, gather_rows(scores).cpu().numpy()[first]
