"""Logged memory."""

import resource

import pytest
from fairseq.logging import metrics

from bridle_fairseq.tasks.memory import log_memory


def test_peak_memory_is_logged():
    with metrics.aggregate(new_root=True) as logged:
        log_memory()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert logged.get_smoothed_values()["memory_gb"] == pytest.approx(peak / 1e9, rel=0.1)
