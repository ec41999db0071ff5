"""Sums of logging outputs."""

import torch

from bridle_fairseq.criterions.totals import totals_of


def test_numbers_and_tensors_are_summed_by_name():
    totals = totals_of([{"loss": torch.tensor(1.5), "clips": 2}, {"loss": 0.5, "clips": 3, "late": torch.tensor(7)}])
    assert totals == {"loss": 2.0, "clips": 5, "late": 7} and totals["nobody"] == 0


def test_large_sums_are_exact():
    assert totals_of([{"patches": torch.tensor(2**24 + 1)}] * 3)["patches"] == 3 * (2**24 + 1)
