"""The decoder."""

import pytest
import torch

from bridle_fairseq.nn.decoder import Decoder
from bridle_fairseq.nn.masking import Mask, random_mask


def make(window):
    torch.manual_seed(0)
    return Decoder(24, width=32, depth=3, num_heads=4, num_codebooks=2, codebook_size=5, window=window).eval()


@pytest.mark.parametrize("window", [None, (4, 4)])
@pytest.mark.parametrize("grid", [(8, 4), (7, 3), (1, 1 + 1)])
def test_logits_at_masked_patches_only(window, grid):
    num_patches = grid[0] * grid[1]
    mask = random_mask(3, num_patches, 0.6)
    logits = make(window)(torch.randn(3, mask.visible.shape[1], 24), mask, grid)
    assert logits.shape == (int(mask.masked.sum()), 2, 5)


@pytest.mark.parametrize("window", [None, (4, 4)])
def test_a_clip_alone_equals_the_clip_padded(window):
    decoder, grid, valid = make(window), (7, 4), 5 * 4
    x = torch.randn(2, 28, 24)
    masked = torch.zeros(2, 28, dtype=torch.bool)
    masked[0, 3:valid:2] = True
    masked[1, ::3] = True
    order = [(~masked[0, :valid]).nonzero().flatten(), (~masked[1]).nonzero().flatten()]
    width = max(len(o) for o in order)
    visible = torch.zeros(2, width, dtype=torch.long)
    visible_padding = torch.ones(2, width, dtype=torch.bool)
    for i, o in enumerate(order):
        visible[i, : len(o)], visible_padding[i, : len(o)] = o, False
    padding = torch.zeros(2, 28, dtype=torch.bool)
    padding[0, valid:] = True
    together = decoder(x[:, :width], Mask(visible, visible_padding, masked), grid, padding)
    mask = Mask(order[0][None], None, masked[:1, :valid])
    alone = decoder(x[:1, : len(order[0])], mask, (5, 4))
    torch.testing.assert_close(together[: len(alone)], alone, atol=1e-5, rtol=1e-5)


def test_visible_features_land_at_their_places():
    decoder = make(None)
    mask = random_mask(1, 6, 0.5)
    x = torch.randn(1, 3, 24)
    filled = decoder._fill(decoder.embed(x), mask)
    torch.testing.assert_close(filled[0, mask.visible[0]], decoder.embed(x)[0])
    assert torch.equal(filled[0, mask.masked[0]], decoder.mask_token[0].expand(3, -1))
