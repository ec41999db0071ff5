"""The optimizer against torch's AdamW and fairseq's own Adam."""

import copy

import pytest
import torch
from fairseq.optim import build_optimizer
from omegaconf import OmegaConf
from torch import nn

import bridle_fairseq

bridle_fairseq.register()

SETTINGS = {"adam_betas": [0.9, 0.95], "adam_eps": 1e-8, "weight_decay": 0.1, "lr": [0.01]}


def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.GELU(), nn.LayerNorm(7), nn.Linear(7, 2))


def build(model, name="bridle_adamw", **changes):
    return build_optimizer(OmegaConf.create({"_name": name, **SETTINGS, **changes}), list(model.parameters()))


def train(model, optimizer, updates=5):
    draw = torch.Generator().manual_seed(1)
    for _ in range(updates):
        optimizer.zero_grad()
        model(torch.randn(6, 5, generator=draw)).square().sum().backward()
        optimizer.step()


def test_without_weight_decay_it_is_fairseqs_adam():
    mine, theirs = make(), make()
    train(mine, build(mine, weight_decay=0.0))
    more = {"use_old_adam": True, "fp16_adam_stats": False, "tpu": False}
    train(theirs, build(theirs, "adam", weight_decay=0.0, **more))
    for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_matrices_decay_and_vectors_do_not():
    model = make()
    optimizer = build(model)
    before = copy.deepcopy(model.state_dict())
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        factor = 1 - 0.01 * 0.1 if parameter.dim() > 1 else 1.0
        torch.testing.assert_close(parameter.data, before[name] * factor)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 6


def test_rates_reach_all_groups():
    optimizer = build(make())
    optimizer.set_lr(0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.5] and optimizer.get_lr() == 0.5


def test_a_loaded_state_goes_on_to_the_bit_with_the_rate_of_the_configuration():
    model = make()
    optimizer = build(model)
    train(model, optimizer)
    other = copy.deepcopy(model)
    resumed = build(other)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(model, optimizer)
    train(other, resumed)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    changed = build(other, lr=[0.3])
    changed.load_state_dict(optimizer.state_dict(), changed.optimizer_config)
    assert [group["lr"] for group in changed.param_groups] == [0.3, 0.3]
    assert [group["weight_decay"] for group in changed.param_groups] == [0.1, 0.0]


def test_parameters_are_not_flattened():
    assert not build(make()).supports_flat_params


@pytest.mark.parametrize("kind", ["matrix", "vector"])
def test_a_group_may_be_empty(kind):
    parameter = nn.Parameter(torch.ones(2, 2) if kind == "matrix" else torch.ones(2))
    optimizer = build_optimizer(OmegaConf.create({"_name": "bridle_adamw", **SETTINGS}), [parameter])
    parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert (parameter < 1).all()
