"""The optimizer against torch's AdamW and fairseq's own Adam."""

import copy
from typing import NamedTuple

import pytest
import torch
from fairseq.optim import FairseqOptimizer, FP16Optimizer, build_optimizer
from omegaconf import OmegaConf
from torch import nn

import bridle_fairseq
from bridle_fairseq.nn.bridle import Bridle
from bridle_fairseq.nn.settings import BridleSettings

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


def test_equals_fairseq_adam_without_weight_decay():
    mine, theirs = make(), make()
    train(mine, build(mine, weight_decay=0.0))
    more = {"use_old_adam": True, "fp16_adam_stats": False, "tpu": False}
    train(theirs, build(theirs, "adam", weight_decay=0.0, **more))
    for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


WITHOUT_DECAY = (".bias", "norm.weight", "norm1.weight", "norm2.weight")


def test_weights_and_tokens_decay_but_not_biases_and_norms():
    """Old checkpoints rely on it: the state of the optimizer is stored by position in these groups."""
    model = Bridle(
        BridleSettings(encoder_width=16, encoder_depth=1, encoder_heads=2, decoder_width=16, decoder_depth=1)
    )
    for parameter in model.parameters():
        parameter.data.fill_(1.0)
        parameter.grad = torch.zeros_like(parameter)
    build(model).step()
    tokens = 0
    for name, parameter in model.named_parameters():
        expected = 1.0 if name.endswith(WITHOUT_DECAY) else 1 - 0.01 * 0.1
        torch.testing.assert_close(parameter.data, torch.full_like(parameter, expected), atol=1e-6, rtol=0, msg=name)
        tokens += name in ("encoder.class_token", "tokenizer.encoder.class_token", "decoder.mask_token")
    assert tokens == 3


def test_learning_rate_applies_to_all_groups():
    optimizer = build(make())
    optimizer.set_lr(0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.5] and optimizer.get_lr() == 0.5


def test_loaded_state_continues_bit_identically():
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


def test_flat_parameters_are_not_supported():
    assert not build(make()).supports_flat_params


@pytest.mark.parametrize("kind", ["matrix", "vector"])
def test_empty_group_of_parameters(kind):
    parameter = nn.Parameter(torch.ones(2, 2) if kind == "matrix" else torch.ones(2))
    optimizer = build_optimizer(OmegaConf.create({"_name": "bridle_adamw", **SETTINGS}), [parameter])
    parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert (parameter < 1).all()


class Scaled(NamedTuple):
    lr_scale: float


def layered():
    """The first layer learns at a quarter of the rate."""
    model = make()
    for parameter in model[0].parameters():
        parameter.param_group = Scaled(0.25)
    return model


def test_lr_scale_multiplies_the_scheduled_rate():
    optimizer = build(layered())
    found = [(group["lr"], group["weight_decay"], len(group["params"])) for group in optimizer.param_groups]
    assert found == [(0.01, 0.1, 1), (0.01, 0.0, 3), (0.0025, 0.1, 1), (0.0025, 0.0, 1)]
    optimizer.set_lr(0.4)
    assert [group["lr"] for group in optimizer.param_groups] == [0.4, 0.4, 0.1, 0.1] and optimizer.get_lr() == 0.4


def test_scaled_layer_moves_proportionally():
    moved = []
    for model in (make(), layered()):
        before = copy.deepcopy(model.state_dict())
        train(model, build(model, weight_decay=0.0), updates=1)
        moved.append({name: value - before[name] for name, value in model.state_dict().items()})
    for name in moved[0]:
        torch.testing.assert_close(moved[1][name], moved[0][name] * (0.25 if name.startswith("0.") else 1.0))


def test_resumed_run_keeps_lr_scales():
    model = layered()
    optimizer = build(model)
    train(model, optimizer)
    resumed = build(layered(), lr=[0.2])
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()), resumed.optimizer_config)
    assert [group["lr"] for group in resumed.param_groups] == [0.2, 0.2, 0.05, 0.05]


def test_state_without_lr_scales_loads():
    state = build(make()).state_dict()
    for group in state["param_groups"]:
        group.pop("lr_scale")
    optimizer = build(make())
    optimizer.load_state_dict(state, optimizer.optimizer_config)
    optimizer.set_lr(0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.5] and optimizer.get_lr() == 0.5


def test_float32_copies_keep_lr_scales():
    copies = FP16Optimizer.build_fp32_params(None, list(layered().parameters()), flatten=False)
    optimizer = build_optimizer(OmegaConf.create({"_name": "bridle_adamw", **SETTINGS}), copies)
    assert [group["lr_scale"] for group in optimizer.param_groups] == [1.0, 1.0, 0.25, 0.25]


@pytest.mark.parametrize("max_norm", [0.0, 0.5, 100.0])
def test_gradient_clipping_equals_fairseq(max_norm):
    mine, theirs = make(), make()
    optimizers = build(mine), FairseqOptimizer(None)
    optimizers[1]._optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1)
    norms = []
    for model, optimizer in zip((mine, theirs), optimizers, strict=True):
        model(torch.ones(6, 5)).square().sum().backward()
        model[3].bias.grad = None
        optimizer.multiply_grads(torch.tensor(0.25))
        optimizer.multiply_grads(3.0)
        norms.append(optimizer.clip_grad_norm(max_norm, lambda norm: 2 * norm))
    assert norms[0] > 1.0
    torch.testing.assert_close(*norms)
    for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None)
        if a.grad is not None:
            torch.testing.assert_close(a.grad, b.grad)


def test_norm_without_gradients_is_0():
    optimizer = build(make())
    optimizer.multiply_grads(2.0)
    assert optimizer.clip_grad_norm(1.0) == 0
