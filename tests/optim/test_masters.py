"""Frozen and newly trained parameters, with plain optimizers and with float32 masters of half-precision models."""

import pytest
import torch
from fairseq.optim import FP16Optimizer, build_optimizer
from omegaconf import OmegaConf
from torch import nn

import bridle_fairseq

bridle_fairseq.register()

from bridle_fairseq.optim.masters import drop_gradients, master_parameters, start_fresh  # noqa: E402

ADAMW = {"_name": "bridle_adamw", "adam_betas": [0.9, 0.95], "adam_eps": 1e-8, "weight_decay": 0.1, "lr": [0.1]}


def configuration(**common):
    return OmegaConf.create(
        {
            "optimizer": ADAMW,
            "common": {"bf16": False, "fp16_no_flatten_grads": True, "fp16_scale_window": 4, **common},
            "optimization": {"update_freq": [1]},
            "distributed_training": {"distributed_world_size": 1},
        }
    )


SCALER = {"fp16_init_scale": 4, "fp16_scale_tolerance": 0.0, "threshold_loss_scale": None, "min_loss_scale": 1e-4}


@pytest.fixture(params=["float32", "bfloat16", "float16"])
def trained(request):
    """Two linear maps, of which both have learned; and their optimizer."""
    torch.manual_seed(0)
    dtype = getattr(torch, request.param)
    model = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4)}).to(dtype)
    params = list(model.parameters())
    if dtype == torch.float32:
        optimizer = build_optimizer(OmegaConf.create(ADAMW), params)
    else:
        cfg = configuration(bf16=dtype == torch.bfloat16, **SCALER)
        optimizer = FP16Optimizer.build_optimizer(cfg, params)
    for _ in range(3):
        step(model, optimizer, ["a", "b"])
    return model, optimizer


def step(model, optimizer, parts, frozen=()):
    """One update as fairseq's trainer does it, of the loss of some parts; ``frozen`` parts lose their gradient."""
    optimizer.zero_grad()
    x = torch.randn(8, 4).to(model["a"].weight.dtype)
    optimizer.backward(sum(model[part](x).float().square().mean() for part in parts))
    for parameter in model.parameters():  # what legacy_ddp does
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.multiply_grads(0.5)
    optimizer.clip_grad_norm(1.0)
    drop_gradients(optimizer, {p for part in frozen for p in model[part].parameters()})
    optimizer.step()


def copy_of(model, optimizer, part):
    """Parameters of a part, their masters, and their moments."""
    mine = set(model[part].parameters())
    masters = [master for parameter, master in master_parameters(optimizer) if parameter in mine]
    moments = [value for master in masters for value in optimizer.optimizer.state[master].values()]
    return [t.detach().clone() for t in [*model[part].parameters(), *masters, *moments]]


def test_masters_belong_to_their_parameters(trained):
    model, optimizer = trained
    pairs = list(master_parameters(optimizer))
    assert {id(parameter) for parameter, _ in pairs} == {id(p) for p in model.parameters()}
    for parameter, master in pairs:
        assert torch.equal(master.to(parameter.dtype), parameter)
        assert master.dtype == torch.float32


def test_frozen_parts_and_their_moments_stand_still(trained):
    model, optimizer = trained
    before = {part: copy_of(model, optimizer, part) for part in "ab"}
    for _ in range(3):
        step(model, optimizer, ["b"], frozen=["a"])
    assert all(torch.equal(x, y) for x, y in zip(copy_of(model, optimizer, "a"), before["a"], strict=True))
    assert not any(torch.equal(x, y) for x, y in zip(copy_of(model, optimizer, "b"), before["b"], strict=True))


def test_a_frozen_part_learns_again(trained):
    model, optimizer = trained
    step(model, optimizer, ["b"], frozen=["a"])
    before = copy_of(model, optimizer, "a")
    step(model, optimizer, ["a"], frozen=["b"])
    assert not any(torch.equal(x, y) for x, y in zip(copy_of(model, optimizer, "a"), before, strict=True))


def test_newly_trained_parts_start_without_moments(trained):
    model, optimizer = trained
    kept = copy_of(model, optimizer, "b")
    start_fresh(optimizer, set(model["a"].parameters()))
    assert all(torch.equal(x, y) for x, y in zip(copy_of(model, optimizer, "b"), kept, strict=True))
    step(model, optimizer, ["a", "b"])
    steps = {
        part: {int(optimizer.optimizer.state[m]["step"]) for p, m in master_parameters(optimizer) if p in mine}
        for part in "ab"
        for mine in [set(model[part].parameters())]
    }
    assert steps == {"a": {1}, "b": {4}}


def test_parameters_set_anew_are_not_undone_by_their_masters(trained):
    model, optimizer = trained
    with torch.no_grad():
        model["a"].weight.fill_(2.0)
    start_fresh(optimizer, set(model["a"].parameters()))
    step(model, optimizer, ["b"], frozen=["a"])
    assert (model["a"].weight == 2.0).all()
