"""Sums of logging outputs."""

from collections import defaultdict
from typing import Any, Dict

import torch


def totals_of(logs):
    """Sum of each value over the logs of ranks and micro-batches, 0 for missing names.

    All tensors are copied from the device at once.
    """
    totals: Dict[str, Any] = defaultdict(int)
    sums: Dict[str, torch.Tensor] = {}
    for log in logs:
        for key, value in log.items():
            into: Dict[str, Any] = sums if torch.is_tensor(value) else totals
            into[key] = into.get(key, 0) + value
    if sums:
        # float64 is exact for counts of patches and for sums of float32
        values = torch.stack([value.double() for value in sums.values()]).tolist()
        for key, value in zip(sums, values, strict=True):
            totals[key] += value
    return totals
