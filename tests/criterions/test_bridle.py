"""Criterion ``bridle``: sums over ranks and micro-batches, and their averages."""

import pytest
import torch
from fairseq.logging import metrics
from omegaconf import OmegaConf

import bridle_fairseq

bridle_fairseq.register()

from bridle_fairseq.criterions.bridle import BridleCriterion, BridleCriterionConfig, comparable  # noqa: E402
from bridle_fairseq.models.bridle import BridleModel  # noqa: E402
from bridle_fairseq.tasks.stages import begin_update  # noqa: E402

SMALL = {"num_mel_bins": 32, "patch_size": [8, 8], "encoder_width": 16, "encoder_depth": 1, "encoder_heads": 2}
SMALL |= {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2, "tokenizer_depth": 1, "estimator_depth": 1}
SMALL |= {"num_codebooks": 2, "codebook_size": 8, "codebook_dim": 4}
LEVELS = ["loss_1", "loss_2", "acc_1", "acc_2"]
ENERGIES = ["residual_energy_1", "residual_energy_2"]
USE = ["used_1", "used_2", "perplexity_1", "perplexity_2", "dead_1", "dead_2", "revived_1", "revived_2"]


@pytest.fixture
def criterion():
    return BridleCriterion.build_criterion(BridleCriterionConfig(), task=None)


@pytest.fixture
def model():
    """With codebooks that have been started, and then in eval mode: nothing random is left."""
    torch.manual_seed(0)
    stages = [{"kind": "joint", "updates": 9, "tokenizer_every": 1}]
    model = BridleModel(OmegaConf.create({**SMALL, "stages": stages})).train()
    begin_update(model, 0)
    model(torch.randn(4, 8000).cumsum(1).sin())
    model.commit()
    return model.eval()


def batch(seed, lengths):
    source = torch.randn(len(lengths), max(lengths), generator=torch.Generator().manual_seed(seed)).cumsum(1).sin()
    padding = torch.arange(max(lengths))[None] >= torch.tensor(lengths)[:, None]
    net_input = {"source": source, "padding_mask": padding if padding.any() else None}
    return {"net_input": net_input, "nsentences": len(lengths), "ntokens": sum(lengths)}


def reduced(logs):
    with metrics.aggregate(new_root=True) as found:
        BridleCriterion.reduce_metrics(logs)
    return found.get_smoothed_values()


def test_stage_logs_its_losses(criterion, model):
    for kind, own in (("encoder", LEVELS), ("tokenizer", [*ENERGIES, "cosine"]), ("joint", [*LEVELS, *ENERGIES])):
        model.schedule = type(model.schedule)([{"kind": kind, "updates": 5, "tokenizer_every": 1}])
        loss, sample_size, log = criterion(model, batch(1, [8000, 3000]))
        values = reduced([log])
        assert {"loss", "stage", "clips_per_second", *USE, *own} <= values.keys()
        absent = {*LEVELS, *ENERGIES, "cosine"} - {*own, "cosine"}
        assert kind == "joint" or not absent & values.keys()
        assert comparable(model.schedule.stages, 2).keys() <= values.keys()
        assert values["loss"] == pytest.approx(float(loss.detach() / sample_size), abs=1e-4)
        assert values["stage"] == 1 and values["used_1"] == int(values["used_1"]) <= 8


def test_losses_of_the_quantizer_are_averages_over_patches(criterion, model):
    """With codes of 0, all residuals are the vectors of unit length and 4 values."""
    model.schedule = type(model.schedule)([{"kind": "tokenizer", "updates": 5}])
    model.quantizer.codebooks.codes.zero_()
    logs = [criterion(model, batch(seed, lengths))[2] for seed, lengths in ((1, [8000, 3000]), (2, [5000]))]
    values = reduced(logs)
    assert (values["codebook_loss"], values["commitment_loss"]) == pytest.approx((0.25, 0.25), abs=1e-4)
    assert (values["residual_energy_1"], values["residual_energy_2"]) == pytest.approx((1, 1), abs=1e-4)
    cosine = sum(float(log["cosine"]) for log in logs) / sum(int(log["patches"]) for log in logs)
    assert values["loss"] == pytest.approx(1 - cosine + 0.25 + 0.25 * 0.25, abs=1e-4)


def test_dead_codes_are_below_the_restart_threshold(criterion, model):
    model.quantizer.usage[:] = torch.tensor([0.3, 0.03, 0.0, 0.0313, 0.2, 0.2, 0.2, 0.0387])  # 0.25 / 8 = 0.03125
    model.quantizer.codebooks.restarted[:] = torch.tensor([3.0, 1.0])
    values = reduced([criterion(model, batch(1, [8000]))[2]])
    assert (values["dead_1"], values["dead_2"], values["used_1"]) == (2, 2, 6)
    assert (values["revived_1"], values["revived_2"]) == (3, 1)


def test_logs_of_micro_batches_reduce_to_those_of_the_batch(criterion, model):
    """A clip's codes and losses do not depend on its batch; a mask would: so the tokenizer's part is compared."""
    model.schedule = type(model.schedule)([{"kind": "tokenizer", "updates": 5}])
    first, second = batch(1, [8000, 8000, 5000]), batch(2, [8000])
    joined = batch(0, [8000, 8000, 5000, 8000])
    joined["net_input"]["source"] = torch.cat([b["net_input"]["source"] for b in (first, second)])
    parts = [criterion(model, b)[2] for b in (first, second)]
    whole = criterion(model, joined)[2]
    names = ["loss", "cosine", "codebook_loss", "commitment_loss", *ENERGIES, *USE, "stage"]
    expected = {name: reduced([whole])[name] for name in names}
    assert {name: reduced(parts)[name] for name in names} == pytest.approx(expected, abs=2e-4)
    summed = {key: sum(log[key] for log in parts) for key in parts[0]}  # as ranks add them up
    assert {name: reduced([summed])[name] for name in names} == pytest.approx(expected, abs=2e-4)
    assert parts[0]["patches"] > 2 * parts[1]["patches"]


def test_stage_is_that_of_the_last_update(criterion, model):
    """Also in the mean over an interval in which a stage ends."""
    model.schedule = type(model.schedule)([{"kind": "tokenizer", "updates": 5}, {"kind": "encoder", "updates": 5}])
    with metrics.aggregate(new_root=True) as found:
        for update in (3, 4, 5):
            begin_update(model, update)
            BridleCriterion.reduce_metrics([criterion(model, batch(1, [8000]))[2]] * 2)
            model.discard()
    assert found.get_smoothed_values()["stage"] == 2


def test_accuracy_is_the_fraction_of_predicted_codes(criterion, model):
    model.schedule = type(model.schedule)([{"kind": "encoder", "updates": 5}])
    sample = batch(1, [8000, 8000])
    with torch.no_grad():
        bias = torch.full((2, 8), -50.0)
        codes = model.tokenize(**sample["net_input"])[0]
        likely = codes.flatten(0, 1).mode(0).values
        bias[torch.arange(2), likely] = 50.0
        model.decoder.head.weight.zero_()
        model.decoder.head.bias.copy_(bias.flatten())
    values = reduced([criterion(model, {**sample, "codes": codes})[2]])
    always = reduced([criterion(model, {**sample, "codes": likely.expand_as(codes)})[2]])
    assert always["acc_1"] == always["acc_2"] == 1.0 and always["loss"] == pytest.approx(0, abs=1e-4)
    share = (codes == likely).float().mean((0, 1))
    assert values["acc_1"] == pytest.approx(float(share[0]), abs=0.15) and values["acc_1"] < 1


def test_code_use_follows_running_frequencies(criterion, model):
    model.quantizer.usage.copy_(torch.tensor([[0.25] * 4 + [0.0] * 4, [1.0] + [0.0] * 7]))
    values = reduced([criterion(model, batch(1, [8000]))[2]])
    assert [values[name] for name in USE[:6]] == pytest.approx([4, 1, 4, 1, 4, 7], abs=1e-3)


def test_ranks_without_data_change_nothing(criterion, model):
    log = criterion(model, batch(1, [8000]))[2]
    nothing = {key: torch.zeros_like(v) if torch.is_tensor(v) else 0 for key, v in log.items()}
    mine, both = reduced([log]), reduced([log, nothing])
    assert {k: v for k, v in both.items() if k != "clips_per_second"} == pytest.approx(
        {k: v for k, v in mine.items() if k != "clips_per_second"}
    )
    assert "loss" not in reduced([nothing]) and "loss" not in reduced([])


def test_logging_outputs_can_be_summed():
    assert BridleCriterion.logging_outputs_can_be_summed()
