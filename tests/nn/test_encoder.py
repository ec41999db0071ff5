"""The encoder."""

import pytest
import torch

from bridle_fairseq.nn.encoder import Encoder
from bridle_fairseq.nn.patch import gather_patches


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return Encoder(patch_dim=12, width=32, depth=2, num_heads=4).eval()


def test_shapes_on_any_grid(encoder):
    for grid in [(1, 1), (5, 3), (2, 9), (2, 2, 3)]:
        num_patches = torch.Size(grid).numel()
        out = encoder(torch.randn(2, num_patches, 12), grid, with_layers=True)
        assert out.x.shape == (2, num_patches, 32) and out.class_token.shape == (2, 32)
        assert [layer.shape for layer in out.layers] == [(2, num_patches, 32)] * 2


def test_output_depends_on_visible_patches_only(encoder):
    patches = torch.randn(2, 10, 12)
    visible = torch.tensor([[1, 4, 9], [0, 2, 3]])
    out = encoder(patches, (5, 2), visible=visible).x
    hidden = torch.ones(2, 10, dtype=torch.bool).scatter(1, visible, False)
    patches[hidden] = 7.0
    assert torch.equal(encoder(patches, (5, 2), visible=visible).x, out)


def test_visible_patches_keep_their_positions(encoder):
    """The visible ones of a full input, in place, equal the whole input with everything else masked as padding."""
    patches = torch.randn(1, 10, 12)
    visible = torch.tensor([[1, 4, 9]])
    padding = torch.ones(1, 10, dtype=torch.bool).scatter(1, visible, False)
    whole = gather_patches(encoder(patches, (5, 2), padding).x, visible)
    torch.testing.assert_close(encoder(patches, (5, 2), visible=visible).x, whole, atol=1e-5, rtol=1e-5)


def test_single_clip_equals_the_clip_padded(encoder):
    short, long = torch.randn(1, 6, 12), torch.randn(1, 10, 12)
    batch = torch.cat([torch.cat([short, torch.full((1, 4, 12), 9.0)], 1), long])
    padding = torch.zeros(2, 10, dtype=torch.bool)
    padding[0, 6:] = True
    together, alone = encoder(batch, (5, 2), padding), encoder(short, (3, 2))
    torch.testing.assert_close(together.x[:1, :6], alone.x, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together.class_token[:1], alone.class_token, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together.x[1:], encoder(long, (5, 2)).x, atol=1e-5, rtol=1e-5)


def test_of_layer_returns_a_blocks_output_and_normalizes_the_last(encoder):
    patches = torch.randn(2, 6, 12)
    out = encoder(patches, (3, 2), with_layers=True)
    first, last = out.of_layer(1), out.of_layer(2)
    assert torch.equal(first.x, out.layers[0]) and first.class_token.shape == (2, 32)
    both = torch.cat([first.class_token[:, None], first.x], 1)
    x = encoder.norm(encoder.blocks[1](both))
    torch.testing.assert_close((last.x, last.class_token), (x[:, 1:], x[:, 0]))
    assert torch.equal(last.x, out.x) and torch.equal(last.class_token, out.class_token)
