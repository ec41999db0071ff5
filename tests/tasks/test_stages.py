"""Applying a stage: what learns, the optimizer state (also with float32 copies), and what ranks exchange."""

import copy

import pytest
import torch
from fairseq.distributed import LegacyDistributedDataParallel, ModuleProxyWrapper, utils
from fairseq.optim import FP16Optimizer, build_optimizer
from omegaconf import OmegaConf
from torch import nn

import bridle_fairseq

bridle_fairseq.register()

from bridle_fairseq.models.bridle import BridleModel  # noqa: E402
from bridle_fairseq.tasks.stages import (  # noqa: E402
    begin_update,
    drop_gradients,
    frozen_parameters,
    master_parameters,
    newly_trained_parameters,
    reset_optimizer_state,
    sync_only,
)

SMALL = {"num_mel_bins": 32, "patch_size": [8, 8], "encoder_width": 16, "encoder_depth": 1, "encoder_heads": 2}
SMALL |= {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2, "tokenizer_depth": 1, "estimator_depth": 1}
SMALL |= {"num_codebooks": 2, "codebook_size": 8, "codebook_dim": 4}


def make(kinds, **changes):
    torch.manual_seed(0)
    stages = [{"kind": kind, "updates": updates} for kind, updates in kinds]
    return BridleModel(OmegaConf.create({**SMALL, "stages": stages, **changes})).train()


def named(model, parameters):
    """The parts of these parameters."""
    return {name.split(".")[0] for name, p in model.named_parameters() if p in parameters}


def test_frozen_and_newly_trained_parameters():
    model = make([("encoder", 1), ("tokenizer", 1), ("encoder", 1), ("joint", 2), ("encoder", 1), ("encoder", 1)])
    new, frozen = [], []
    for update in range(7):
        if begin_update(model, update):
            new.append(named(model, newly_trained_parameters(model)))
        frozen.append(named(model, frozen_parameters(model)))
    first, second = {"encoder", "decoder"}, {"tokenizer", "estimator"}
    assert new == [first, second, first, second, set(), set()]
    # The joint stage has the tokenizer's loss every fourth update: in neither of its two.
    assert frozen == [second, first, second, second, second, second, second]


@pytest.mark.parametrize("how", ["encoder", "random", "continue"])
@pytest.mark.parametrize("before", ["joint", "tokenizer"])
def test_initialized_tokenizer_is_newly_trained(before, how):
    model = make([(before, 1), ("tokenizer", 1)], tokenizer_init=how)
    begin_update(model, 0)
    before = copy.deepcopy(model.state_dict())
    begin_update(model, 1)
    same = all(torch.equal(v, before[k]) for k, v in model.state_dict().items() if k.startswith("estimator."))
    assert same == (how == "continue")
    assert named(model, newly_trained_parameters(model)) >= (set() if same else {"tokenizer", "estimator"})
    assert same == (not named(model, newly_trained_parameters(model)) & {"tokenizer", "estimator"})


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


def test_master_parameters_match_model_parameters(trained):
    model, optimizer = trained
    pairs = list(master_parameters(optimizer))
    assert {id(parameter) for parameter, _ in pairs} == {id(p) for p in model.parameters()}
    for parameter, master in pairs:
        assert torch.equal(master.to(parameter.dtype), parameter)
        assert master.dtype == torch.float32


def test_frozen_parts_and_their_moments_do_not_change(trained):
    model, optimizer = trained
    before = {part: copy_of(model, optimizer, part) for part in "ab"}
    for _ in range(3):
        step(model, optimizer, ["b"], frozen=["a"])
    assert all(torch.equal(x, y) for x, y in zip(copy_of(model, optimizer, "a"), before["a"], strict=True))
    assert not any(torch.equal(x, y) for x, y in zip(copy_of(model, optimizer, "b"), before["b"], strict=True))


def test_unfrozen_part_learns_again(trained):
    model, optimizer = trained
    step(model, optimizer, ["b"], frozen=["a"])
    before = copy_of(model, optimizer, "a")
    step(model, optimizer, ["a"], frozen=["b"])
    assert not any(torch.equal(x, y) for x, y in zip(copy_of(model, optimizer, "a"), before, strict=True))


def test_reset_optimizer_state_drops_moments(trained):
    model, optimizer = trained
    kept = copy_of(model, optimizer, "b")
    reset_optimizer_state(optimizer, set(model["a"].parameters()))
    assert all(torch.equal(x, y) for x, y in zip(copy_of(model, optimizer, "b"), kept, strict=True))
    step(model, optimizer, ["a", "b"])
    steps = {
        part: {int(optimizer.optimizer.state[m]["step"]) for p, m in master_parameters(optimizer) if p in mine}
        for part in "ab"
        for mine in [set(model[part].parameters())]
    }
    assert steps == {"a": {1}, "b": {4}}


def test_reset_optimizer_state_copies_values_to_masters(trained):
    model, optimizer = trained
    with torch.no_grad():
        model["a"].weight.fill_(2.0)
    reset_optimizer_state(optimizer, set(model["a"].parameters()))
    step(model, optimizer, ["b"], frozen=["a"])
    assert (model["a"].weight == 2.0).all()


@pytest.fixture
def wrapped(monkeypatch):
    """A model as fairseq wraps it for two ranks, the other of which has the same gradients; and what they send."""
    sent = []

    def all_reduce(tensor, group):
        sent.append(tensor.numel())
        tensor.mul_(2)

    monkeypatch.setattr(utils, "get_world_size", lambda group: 2)
    monkeypatch.setattr(utils, "all_reduce", all_reduce)
    model = BridleModel(OmegaConf.create({**SMALL, "stages": [{"kind": "encoder", "updates": 3}]}))
    return ModuleProxyWrapper(LegacyDistributedDataParallel(model, process_group=None)), model, sent


def test_sync_only_exchanges_gradients_of_the_given_parts(wrapped):
    wrapper, model, sent = wrapped
    for parts in ([model.encoder, model.decoder], [model.tokenizer, model.estimator], [model.encoder, model.decoder]):
        chosen = [parameter for part in parts for parameter in part.parameters()]
        for parameter in model.parameters():
            parameter.grad = None
        for parameter in chosen[1:]:
            parameter.grad = torch.randn_like(parameter)
        expected = {parameter: parameter.grad.clone() for parameter in chosen[1:]}
        expected[chosen[0]] = torch.zeros_like(chosen[0])
        sync_only(wrapper, parts)
        wrapper.all_reduce_grads()
        assert sent.pop() == sum(parameter.numel() for parameter in chosen) and not sent
        for parameter in model.parameters():
            assert (parameter.grad is not None) == (parameter in expected)
        for parameter, grad in expected.items():
            assert torch.equal(parameter.grad, grad)


def test_sync_only_without_ddp_does_nothing(wrapped):
    _, model, sent = wrapped
    sync_only(model, [model.encoder])
    assert not sent
