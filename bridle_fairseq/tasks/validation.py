"""Scores of a whole validation set, from all ranks, each clip once."""

import numpy as np
import torch

from bridle_fairseq.utils.distributed import gather_rows


class ScoreCollection:
    """Collects one pass over a data set, batch by batch, on every rank.

    Args:
        steps: batches of the pass on each rank; ranks that run out take part with batches of nothing or of clips that
            they had already.
    """

    def __init__(self, steps: int):
        self.steps, self.left = steps, steps
        self._rows, self._scores = [], []

    def add(self, rows, scores) -> None:
        """Take a batch's rows of the manifest (B) and its scores (B x C), or None and None for a batch of nothing."""
        self.left -= 1
        if rows is not None:
            self._rows.append(rows.cpu())
            self._scores.append(scores.detach().float().cpu())

    def gather(self, num_classes: int, device: torch.device):
        """(n rows in order, n x C scores) of all ranks as arrays; a clip that came twice counts once. Collective."""
        rows = torch.cat([torch.zeros(0, dtype=torch.long), *self._rows]).to(device)
        scores = torch.cat([torch.zeros(0, num_classes), *self._scores]).to(device)
        rows, scores = gather_rows(rows).cpu().numpy(), gather_rows(scores).cpu().numpy()
        rows, first = np.unique(rows, return_index=True)
        return rows, scores[first]
