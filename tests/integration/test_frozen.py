"""What a stage does not train does not change by a bit in it, and what it begins to train starts fresh."""

import math

import pytest
import torch
from omegaconf import OmegaConf

from bridle_fairseq.models.bridle import BridleModel
from bridle_fairseq.nn.schedule import Schedule

PARTS = ("encoder.", "decoder.", "tokenizer.", "estimator.", "quantizer.codebooks.", "latent_norm.", "teacher_norm.")
ENCODER, TOKENIZER = {"encoder.", "decoder."}, {"tokenizer.", "estimator.", "latent_norm.", "teacher_norm."}
CODES = {"quantizer.codebooks."}
# `usage` counts codes in every stage.
COUNTED = "quantizer.codebooks.usage"


def expected_changes(stages, update):
    """The parts that update number ``update`` (from 0) is to change."""
    schedule = Schedule(stages)
    index = schedule.index_at(update)
    stage, position = schedule.stages[index], update - schedule.starts[index]
    changed = ENCODER.copy() if stage.trains_encoder else set()
    if BridleModel.uses_tokenizer_loss(stage, position):
        changed |= TOKENIZER | CODES
    if position == 0 and (index == 0 or stage.kind == "joint"):
        changed |= CODES  # new ones
    return changed


def changes(before, after):
    """The parts in which anything differs to the bit."""
    found = set()
    for name, tensor in after.items():
        if name != COUNTED and not torch.equal(tensor, before[name]):
            found.add(next((part for part in PARTS if name.startswith(part)), name))
    return found - {"tokenizer_ready"}


@pytest.fixture(scope="module")
def half(fairseq, stages, tmp_path_factory):
    """All stages in bfloat16 with float32 masters, as ``common.bf16`` makes it."""
    return fairseq.train(
        tmp_path_factory.mktemp("half"), "checkpoint.save_interval_updates=1", "common.bf16=true", stages=stages
    )


@pytest.fixture(params=["whole", "pair", "half"])
def run(request, modality):
    return request.getfixturevalue(request.param)


def test_a_stage_changes_its_own_parts_only(run, stages):
    before = run.state(1)["model"]
    for update in range(1, 40):
        after = run.state(update + 1)["model"]
        rate = Schedule(stages).learning_rate(update, 5e-4)
        wanted = expected_changes(stages, update)
        found = changes(before, after)
        if run.log.count("'bf16': True") and rate < 1e-4:
            assert found <= wanted  # steps too small for bfloat16
        else:
            assert found == wanted, update
        before = after


def test_optimizer_state_of_frozen_parts_stands_still_and_that_of_new_ones_starts_fresh(run, stages):
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
        found = {}
        for number, moments in state.items():
            part = next(part for part in PARTS if names[number].startswith(part))
            found.setdefault(part, set()).add(int(moments["step"]))
        assert found == {part: {n} for part, n in steps.items()}, update


def parameter_names(state):
    """Names in the optimizer's order: first the matrices, then what has one dimension."""
    model = BridleModel(OmegaConf.create(state["cfg"]["model"]))
    named = [name for name, p in model.named_parameters() if p.dim() > 1]
    return named + [name for name, p in model.named_parameters() if p.dim() <= 1]


def test_codebooks_and_averages_stay_float32_in_bfloat16(half):
    """fairseq saves everything as float32: what was bfloat16 can be told by its rounding."""
    for name, tensor in half.state(40)["model"].items():
        rounded = torch.equal(tensor, tensor.bfloat16().to(tensor.dtype))
        if name.startswith(("quantizer.", "latent_norm.", "teacher_norm.", "projection.")):
            assert not rounded or not tensor.is_floating_point(), name
        else:
            assert rounded, name


def test_bfloat16_learns_what_float32_learns(half, whole):
    assert all(math.isfinite(record["loss"]) for record in half.logged().values())
    # Later stages learn from codes of their own: other losses.
    mine, theirs = (sum(run.logged()[update]["loss"] for update in range(8, 14)) for run in (half, whole))
    assert mine == pytest.approx(theirs, rel=0.02)
