"""What criterions return, and sums of their logging outputs."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

Log = dict[str, Any]  # logging output of a batch: sums, as numbers or as scalar tensors on the device
BatchLoss = tuple[Tensor | float, Tensor | int, Log]  # loss, sample_size and logging output; 0.0, 0, {}: no clips


def totals_of(logs: Iterable[Log]) -> defaultdict[str, float]:
    """Sum of each value over the logs of ranks and micro-batches, 0 for missing names.

    All tensors are copied from the device at once.
    """
    totals: defaultdict[str, float] = defaultdict(int)
    sums: dict[str, Tensor] = {}
    for log in logs:
        for key, value in log.items():
            into: dict[str, Any] = sums if torch.is_tensor(value) else totals
            into[key] = into.get(key, 0) + value
    if sums:
        # float64 is exact for counts of patches and for sums of float32
        values = torch.stack([value.double() for value in sums.values()]).tolist()
        for key, value in zip(sums, values, strict=True):
            totals[key] += value
    return totals
