"""The model ``bridle`` as fairseq's trainer drives it: update numbers, stages, micro-batches."""

import copy

import pytest
import torch
from omegaconf import OmegaConf

import bridle_fairseq

bridle_fairseq.register()

from bridle_fairseq.models.bridle import BridleModel, settings_from  # noqa: E402
from bridle_fairseq.tasks.stages import begin_update  # noqa: E402
from bridle_fairseq.utils.errors import InputError  # noqa: E402

SMALL = {
    "num_mel_bins": 32,
    "patch_size": [8, 8],
    "encoder_width": 16,
    "encoder_depth": 1,
    "encoder_heads": 2,
    "decoder_width": 16,
    "decoder_depth": 1,
    "decoder_heads": 2,
    "tokenizer_depth": 1,
    "estimator_depth": 1,
    "num_codebooks": 2,
    "codebook_size": 8,
    "codebook_dim": 4,
}
KINDS = [("encoder", 3), ("tokenizer", 2), ("encoder", 2)]


def make(kinds=KINDS, **changes):
    torch.manual_seed(0)
    stages = [{"kind": kind, "updates": updates} for kind, updates in kinds]
    return BridleModel(OmegaConf.create({**SMALL, "stages": stages, **changes})).train()


def clips(seed, size=4):
    return torch.randn(size, 8000, generator=torch.Generator().manual_seed(seed)).cumsum(1).sin()


def test_settings_come_from_configurations_of_any_kind():
    cfg = {**SMALL, "stages": [{"kind": "encoder", "updates": 3}], "_name": "bridle", "unknown": 1}
    settings = settings_from(OmegaConf.create(cfg))
    assert settings.encoder_width == 16 and settings.stages == cfg["stages"] and settings.mask_ratio == 0.8
    assert type(settings.stages) is list and type(settings.patch_size) is list


def test_impossible_settings_are_errors():
    with pytest.raises(InputError, match="mask_ratio"):
        make(mask_ratio=1.0)


def test_updates_advance_through_the_stages():
    model, seen = make(), []
    for update in range(7):
        model.set_num_updates(update)
        began = begin_update(model, update)
        seen.append((model.stage_index, model.stage_update, began))
        assert not begin_update(model, update)  # a second micro-batch
        model.set_num_updates(update + 1)
        assert model.stage_index == seen[-1][0]  # validation after an update is of its stage
    assert seen == [(0, 0, 1), (0, 1, 0), (0, 2, 0), (1, 0, 1), (1, 1, 0), (2, 0, 1), (2, 1, 0)]


def test_updates_after_the_end_belong_to_the_last_stage():
    model = make()
    assert not begin_update(model, 7) and model.stage_index == 2 and model.stage_update == 2


@pytest.mark.parametrize(("update", "stage", "begins"), [(2, 0, False), (3, 1, True), (4, 1, False), (5, 2, True)])
def test_resumed_run_begins_the_remaining_stages(update, stage, begins):
    model = make()
    model.set_num_updates(update)  # what the trainer does before it loads the weights
    assert model.stage_index == (stage - 1 if begins else stage)
    assert begin_update(model, update) == begins
    assert model.stage_index == stage


def trained_by(model, batches, forget=()):
    """Codebooks after one update of the tokenizer in micro-batches, driven as the trainer and the task drive it."""
    model.train()
    for batch in forget:  # an update that is thrown away: no optimizer step, no commit
        with model.within_update():
            model.train()
            model(batch)
    model.train()
    for batch in batches:
        with model.within_update():
            model.train()
            model(batch)
    model.commit()
    return {name: value.clone() for name, value in model.state_dict().items() if "norm" in name or "quantizer" in name}


@pytest.fixture
def started():
    model = make([("tokenizer", 9)])
    begin_update(model, 0)
    trained_by(model, [clips(0)])
    begin_update(model, 1)
    return model


def test_all_micro_batches_of_an_update_count_for_codebooks(started):
    whole = trained_by(copy.deepcopy(started), [torch.cat([clips(1), clips(2)])])
    parts = trained_by(copy.deepcopy(started), [clips(1), clips(2)])
    last = trained_by(copy.deepcopy(started), [clips(2)])
    for name in whole:
        torch.testing.assert_close(parts[name], whole[name], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(last["quantizer.codebooks.sizes"], whole["quantizer.codebooks.sizes"], atol=1e-2)


def test_statistics_of_a_skipped_update_are_dropped(started):
    clean = trained_by(copy.deepcopy(started), [clips(1)])
    after = trained_by(copy.deepcopy(started), [clips(1)], forget=[clips(2), clips(3)])
    assert all(torch.equal(after[name], clean[name]) for name in clean)


def test_validation_of_a_joint_stage_has_both_losses():
    model = make([("joint", 8)])
    for update in range(5):
        model.train()
        begin_update(model, update)
        assert (model(clips(update)).tokenizer is None) == (update != 3)
        model.commit()
        model.set_num_updates(update + 1)
        out = model.eval()(clips(9))
        assert out.encoder is not None and out.tokenizer is not None


def test_stage_with_projected_targets_resets_the_codebooks():
    model = make(
        stages=[{"kind": "tokenizer", "updates": 1}, {"kind": "encoder", "updates": 1, "targets": "projection"}]
    )
    begin_update(model, 0)
    trained_by(model, [clips(0)])
    assert model.tokenizer_ready
    begin_update(model, 1)
    assert not model.tokenizer_ready and not model.quantizer.initialized
    trained_by(model, [clips(0)])
    model.eval()
    patches = model.front_end(clips(5))
    assert torch.equal(model.tokenize(clips(5))[0], model.codes(patches, from_tokenizer=False))
