"""A stage leaves frozen parts bit-identical, and starts newly trained parts with a new optimizer state."""

import math

import pytest
import torch
from omegaconf import OmegaConf

from bridle_fairseq.models.bridle import BridleModel
from bridle_fairseq.nn.schedule import Schedule

PARTS = ("encoder.", "decoder.", "tokenizer.", "estimator.", "quantizer.codebooks.", "latent_norm.", "teacher_norm.")
ENCODER, TOKENIZER = {"encoder.", "decoder."}, {"tokenizer.", "estimator.", "latent_norm.", "teacher_norm."}
CODES = {"quantizer.codebooks."}
USAGE = "quantizer.codebooks.usage"  # counts codes in every stage


def expected_changes(stages, update):
    """The parts that update number ``update`` (from 0) should change."""
    schedule = Schedule(stages)
    index = schedule.index_at(update)
    stage, position = schedule.stages[index], update - schedule.starts[index]
    changed = ENCODER.copy() if stage.trains_encoder else set()
    if BridleModel.uses_tokenizer_loss(stage, position):
        changed |= TOKENIZER | CODES
    if position == 0 and (index == 0 or stage.kind == "joint"):
        changed |= CODES  # codebooks are initialized
    return changed


def changes(before, after):
    """The parts that are not bit-identical."""
    parts = set()
    for name, tensor in after.items():
        if name != USAGE and not torch.equal(tensor, before[name]):
            parts.add(next((part for part in PARTS if name.startswith(part)), name))
    return parts - {"tokenizer_ready"}


@pytest.fixture(scope="module")
def bf16_run(fairseq, stages, tmp_path_factory):
    """All stages with ``common.bf16``: bfloat16 with float32 master weights."""
    return fairseq.train(
        tmp_path_factory.mktemp("bf16_run"), "checkpoint.save_interval_updates=1", "common.bf16=true", stages=stages
    )


@pytest.fixture(params=["full_run", "two_rank_run", "bf16_run"])
def run(request, modality):
    return request.getfixturevalue(request.param)


def test_stage_changes_only_its_parts(run, stages):
    before = run.state(1)["model"]
    for update in range(1, 40):
        after = run.state(update + 1)["model"]
        rate = Schedule(stages).learning_rate(update, 5e-4)
        expected = expected_changes(stages, update)
        changed = changes(before, after)
        if run.log.count("'bf16': True") and rate < 1e-4:
            assert changed <= expected  # steps too small for bfloat16
        else:
            assert changed == expected, update
        before = after


def test_optimizer_state_is_kept_for_frozen_parts_and_reset_for_new_ones(run, stages):
    names = parameter_names(run.state(40))
    steps = {}
    for update in range(40):
        trained = expected_changes(stages, update) & {"encoder.", "decoder.", "tokenizer.", "estimator."}
        if update in Schedule(stages).starts:
            before = expected_changes(stages, update - 1) if update else set()
            joint = Schedule(stages).stages[Schedule(stages).index_at(update)].kind == "joint"
            steps = {part: n for part, n in steps.items() if part not in trained or part in before}
            if joint:
                steps = {part: n for part, n in steps.items() if part in ENCODER}
        for part in trained:
            steps[part] = steps.get(part, 0) + 1
        state = run.state(update + 1)["last_optimizer_state"]["state"]
        saved_steps = {}
        for number, moments in state.items():
            part = next(part for part in PARTS if names[number].startswith(part))
            saved_steps.setdefault(part, set()).add(int(moments["step"]))
        assert saved_steps == {part: {n} for part, n in steps.items()}, update


def parameter_names(state):
    """Names in the order of the optimizer: first the matrices, then the parameters with one dimension."""
    model = BridleModel(OmegaConf.create(state["cfg"]["model"]))
    named = [name for name, p in model.named_parameters() if p.dim() > 1]
    return named + [name for name, p in model.named_parameters() if p.dim() <= 1]


def test_codebooks_and_running_norms_stay_float32(bf16_run):
    """fairseq saves everything as float32; parameters that were bfloat16 are rounded to it."""
    for name, tensor in bf16_run.state(40)["model"].items():
        rounded = torch.equal(tensor, tensor.bfloat16().to(tensor.dtype))
        if name.startswith(("quantizer.", "latent_norm.", "teacher_norm.", "projection.")):
            assert not rounded or not tensor.is_floating_point(), name
        else:
            assert rounded, name


def test_bfloat16_learns_like_float32(bf16_run, full_run):
    assert all(math.isfinite(record["loss"]) for record in bf16_run.logged().values())
    # Later stages have other codes as targets, so only the first stage is compared.
    mine, theirs = (sum(run.logged()[update]["loss"] for update in range(8, 14)) for run in (bf16_run, full_run))
    assert mine == pytest.approx(theirs, rel=0.02)
