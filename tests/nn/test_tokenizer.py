"""Tokenizer encoder, estimator and the cold start's projection."""

import torch

from bridle_fairseq.nn.encoder import Encoder
from bridle_fairseq.nn.tokenizer import RandomProjection, TokenizerEncoder, TokenizerEstimator


def test_init_from_encoder_copies_the_first_blocks():
    teacher, tokenizer = Encoder(12, 32, 3, 4), TokenizerEncoder(Encoder(12, 32, 2, 4), 8)
    with torch.no_grad():
        for p in teacher.parameters():
            p.add_(torch.randn_like(p))
    head = tokenizer.head[0].weight.clone()
    tokenizer.init_from_encoder(teacher)
    x = torch.randn(2, 6, 12)
    torch.testing.assert_close(
        tokenizer.encoder(x, (3, 2), with_layers=True).layers[1], teacher(x, (3, 2), with_layers=True).layers[1]
    )
    assert torch.equal(tokenizer.encoder.norm.weight, teacher.norm.weight)
    assert torch.equal(tokenizer.encoder.norm.bias, teacher.norm.bias)
    assert not torch.equal(tokenizer.head[0].weight, head)
    assert tokenizer(x, (3, 2)).shape == (2, 6, 8)


def test_reset_parameters_changes_all_weights():
    for module in (TokenizerEncoder(Encoder(12, 32, 2, 4), 8), TokenizerEstimator(8, 32, 2, 4, 24)):
        with torch.no_grad():
            for p in module.parameters():
                p.fill_(5.0)
        module.reset_parameters()
        assert not any((p == 5.0).any() for p in module.parameters())


def test_estimator_ignores_padding():
    estimator = TokenizerEstimator(8, 32, 2, 4, 24).eval()
    z, padding = torch.randn(1, 6, 8), torch.zeros(1, 6, dtype=torch.bool)
    padding[0, 4:] = True
    out = estimator(z, (3, 2), padding)
    assert out.shape == (1, 6, 24)
    torch.testing.assert_close(out[:, :4], estimator(z[:, :4], (2, 2)), atol=1e-5, rtol=1e-5)


def test_projection_is_fixed_and_depends_on_positions():
    projection = RandomProjection(12, 32, 8)
    assert not list(projection.parameters())
    assert {"embed", "project"} <= set(projection.state_dict())
    same = torch.ones(1, 6, 12)
    codes = projection(same, (3, 2))
    assert len(torch.unique(codes[0], dim=0)) == 6
    places = torch.tensor([[4, 1]])
    torch.testing.assert_close(projection(same, (3, 2), places), codes[:, places[0]])
    projection.position_scale = 0.0
    assert len(torch.unique(projection(same, (3, 2))[0].round(decimals=5), dim=0)) == 1
