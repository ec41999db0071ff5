"""Blocks: stochastic depth, and the MLP with and without gradient."""

from __future__ import annotations

import torch

from bridle_fairseq.nn.attention import Attention
from bridle_fairseq.nn.encoder import Encoder
from bridle_fairseq.nn.transformer import Block, Mlp


def block(drop_path: float) -> Block:
    torch.manual_seed(0)
    return Block(8, Attention(8, 2), drop_path=drop_path)


def test_block_without_drop_path_draws_no_random_numbers() -> None:
    x, state = torch.randn(3, 5, 8), torch.get_rng_state()
    assert torch.equal(block(0.0).train()(x), block(0.0).eval()(x))
    torch.set_rng_state(state)
    block(0.0)
    before = torch.get_rng_state()
    model = block(0.0).train()
    torch.set_rng_state(before)
    model(x)
    assert torch.equal(torch.get_rng_state(), before)


def test_drop_path_skips_whole_branches_and_keeps_the_mean() -> None:
    x = torch.randn(1, 5, 8).expand(4000, 5, 8)
    model = block(0.25).train()
    branch = model.attention(model.norm1(x[:1]))
    model.mlp = torch.nn.Module()
    model.mlp.forward = torch.zeros_like  # attention alone
    added = model(x) - x
    skipped = (added == 0).all(2).all(1)
    assert 0.22 < skipped.float().mean() < 0.28
    torch.testing.assert_close(added[~skipped], (branch / 0.75).expand(int((~skipped).sum()), 5, 8))


def test_drop_path_of_both_branches_is_independent() -> None:
    x = torch.randn(1, 5, 8).expand(2000, 5, 8)
    found = block(0.5).train()(x)
    assert len(torch.unique(found.double().round(decimals=4).flatten(1), dim=0)) == 4


def test_drop_path_rises_linearly_to_the_last_block() -> None:
    rates = [part.drop_path for part in Encoder(4, 8, 5, 2, drop_path=0.2).blocks]
    torch.testing.assert_close(torch.tensor(rates), torch.tensor([0.0, 0.05, 0.1, 0.15, 0.2]))
    assert [part.drop_path for part in Encoder(4, 8, 1, 2, drop_path=0.2).blocks] == [0.0]
    assert [part.drop_path for part in Encoder(4, 8, 2, 2).blocks] == [0.0, 0.0]


def test_mlp_is_the_same_without_gradient_and_keeps_its_input():
    mlp = Mlp(8, 4.0).eval()
    x = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    with_gradient = mlp(x)
    with torch.no_grad():
        assert torch.equal(mlp(x), with_gradient)
    with torch.inference_mode():
        assert torch.equal(mlp(x), with_gradient)
    assert torch.equal(x, before)
