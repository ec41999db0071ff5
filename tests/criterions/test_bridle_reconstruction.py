"""Criterion ``bridle_reconstruction``: sums over values, and logged distances in decibels."""

import math

import pytest
import torch
from fairseq.logging import metrics

import bridle_fairseq

bridle_fairseq.register()

from bridle_fairseq.criterions.bridle_reconstruction import BridleReconstructionCriterion  # noqa: E402
from bridle_fairseq.nn.mel_decoder import Reconstruction  # noqa: E402

STD = 3.0


@pytest.fixture
def criterion():
    return BridleReconstructionCriterion(None)


def model_of(estimates, target, valid):
    """What a decoder that gives just these would."""
    return lambda source, padding_mask: Reconstruction(list(estimates), target, valid, STD)


def sample(clips):
    return {"net_input": {"source": None, "padding_mask": None}, "ntokens": 100 * clips, "nsentences": clips}


def drawn(seed, clips, levels):
    generator = torch.Generator().manual_seed(seed)
    estimates = torch.randn(levels, clips, 5, 4, generator=generator)
    target = torch.randn(clips, 5, 4, generator=generator)
    return estimates, target, torch.rand(clips, 5, 4, generator=generator) < 0.7


def test_training_sums_over_valid_values(criterion):
    estimates, target, valid = drawn(0, 3, 1)
    loss, size, log = criterion.train()(model_of(estimates, target, valid), sample(3))
    expected = sum(abs(e - t) for e, t, v in zip(*(x.flatten().tolist() for x in (estimates, target, valid))) if v)  # noqa: B905
    assert loss.item() == pytest.approx(expected, rel=1e-5) and size == int(valid.sum())
    assert not any(name.startswith("distance") for name in log)


def test_evaluation_logs_distances_in_decibels(criterion):
    criterion.eval()
    parts = [drawn(seed, clips, 3) for seed, clips in ((1, 2), (2, 5))]
    logs = [criterion(model_of(*part), sample(len(part[1])))[2] for part in parts]
    with metrics.aggregate(new_root=True) as found:
        BridleReconstructionCriterion.reduce_metrics(logs)
    values = found.get_smoothed_values()
    losses = []
    for level in range(3):
        errors = torch.cat([(e[level] - t).abs()[v] for e, t, v in parts]).double()
        losses.append(errors.mean())
        decibels = errors.mean().item() * 2 * STD * 10 / math.log(10)  # normalized by 2 std, natural logarithms
        assert values[f"distance_{level}"] == pytest.approx(decibels, abs=1e-3)
    assert values["loss"] == pytest.approx(torch.stack(losses).mean().item(), abs=1e-4)


def test_ranks_without_data_log_nothing():
    with metrics.aggregate(new_root=True) as found:
        BridleReconstructionCriterion.reduce_metrics([])
    assert not found.get_smoothed_values()
