"""Decoders: windows, global attention, convolutions."""

import pytest
import torch

from bridle_fairseq.nn.decoder import ConvDecoder, GlobalDecoder, WindowDecoder
from bridle_fairseq.nn.masking import Mask, Targets, choose_targets, random_mask
from bridle_fairseq.nn.position import sincos_position

SIZES = {"encoder_width": 24, "width": 32, "depth": 3, "num_codebooks": 2, "codebook_size": 5}
DECODERS = {
    "global": lambda: GlobalDecoder(**SIZES, num_heads=4),
    "windows": lambda: WindowDecoder(**SIZES, num_heads=4, window=(4, 4)),
    "convolution": lambda: ConvDecoder(**SIZES, groups=4, axes=2),
}
every_decoder = pytest.mark.parametrize("kind", list(DECODERS))


def make(kind):
    torch.manual_seed(0)
    return DECODERS[kind]().eval()


@every_decoder
@pytest.mark.parametrize("grid", [(8, 4), (7, 3), (1, 1 + 1)])
def test_logits_at_masked_patches_only(kind, grid):
    num_patches = grid[0] * grid[1]
    mask = random_mask(3, num_patches, 0.6)
    logits = make(kind)(torch.randn(3, mask.visible.shape[1], 24), mask, choose_targets(mask), grid)
    assert logits.shape == (int(mask.masked.sum()), 2, 5)


@every_decoder
def test_single_clip_equals_the_clip_padded(kind):
    decoder, grid, valid = make(kind), (7, 4), 5 * 4
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
    mask = Mask(visible, visible_padding, masked)
    together = decoder(x[:, :width], mask, choose_targets(mask), grid, padding)
    mask = Mask(order[0][None], None, masked[:1, :valid])
    alone = decoder(x[:1, : len(order[0])], mask, choose_targets(mask), (5, 4))
    torch.testing.assert_close(together[: len(alone)], alone, atol=1e-5, rtol=1e-5)


def test_visible_features_are_scattered_to_their_positions():
    decoder = make("windows")
    mask = random_mask(1, 6, 0.5)
    x = torch.randn(1, 3, 24)
    filled = decoder._fill(decoder.embed(x), mask)
    torch.testing.assert_close(filled[0, mask.visible[0]], decoder.embed(x)[0])
    assert torch.equal(filled[0, mask.masked[0]], decoder.mask_token[0].expand(3, -1))


@pytest.mark.parametrize("kind", [kind for kind in DECODERS if kind != "global"])
def test_logits_do_not_depend_on_the_share_of_targets(kind):
    decoder, grid = make(kind), (6, 4)
    mask = random_mask(2, grid, 0.5)
    x, every = torch.randn(2, mask.visible.shape[1], 24), choose_targets(mask)
    some = choose_targets(mask, 0.4)
    places = torch.zeros(2, 24, 2, 5)
    places[mask.masked] = decoder(x, mask, every, grid)
    torch.testing.assert_close(decoder(x, mask, some, grid), some.of(places))


def test_global_attention_equals_one_window_of_the_whole_grid():
    decoder, grid = make("global"), (6, 4)
    windows = WindowDecoder(**SIZES, num_heads=4, window=(6, 4)).eval()
    windows.load_state_dict(decoder.state_dict())
    for block in windows.blocks:
        block.attention.shift = 0
    mask = random_mask(2, grid, 0.5)
    x, targets = torch.randn(2, mask.visible.shape[1], 24), choose_targets(mask)
    expected = windows(x, mask, targets, grid)
    torch.testing.assert_close(decoder(x, mask, targets, grid), expected)


def test_global_decoder_leaves_out_patches_that_are_not_predicted():
    decoder, mask = make("global"), Mask(torch.tensor([[0, 3]]), None, torch.tensor([[False, True, True, False, True]]))
    x, position = torch.randn(1, 2, 24), sincos_position((5,), 32, like=torch.zeros(1))
    tokens = torch.stack([*decoder.embed(x[0]), decoder.mask_token[0, 0]]) + position[[0, 3, 2]]
    for block in decoder.blocks:
        tokens = block(tokens[None], None)[0]
    expected = decoder.head(decoder.norm(tokens[2:])).view(1, 2, 5)
    torch.testing.assert_close(decoder(x, mask, Targets(torch.tensor([[2]]), None), (5,)), expected)


@every_decoder
def test_logits_depend_on_the_visible_patches(kind):
    decoder, grid = make(kind), (6, 4)
    mask = random_mask(1, grid, 0.5)
    x = torch.randn(1, mask.visible.shape[1], 24)
    changed = x.clone()
    changed[0, 0] += 1.0
    targets = choose_targets(mask)
    away = (decoder(changed, mask, targets, grid) - decoder(x, mask, targets, grid)).abs().amax((1, 2))
    assert away.max() > 1e-4


@pytest.mark.parametrize("grid", [(7,), (5, 4), (3, 4, 2)])
def test_convolutions_on_grids_with_any_number_of_axes(grid):
    decoder = ConvDecoder(**SIZES, groups=4, axes=len(grid))
    mask = random_mask(2, grid, 0.5)
    logits = decoder(torch.randn(2, mask.visible.shape[1], 24), mask, choose_targets(mask), grid)
    assert logits.shape == (int(mask.masked.sum()), 2, 5)


@pytest.mark.parametrize(
    ("depth", "reached"), [(1, [4, 5, 6, 7]), (2, [2, 3, 4, 5, 6, 7, 8, 9]), (3, list(range(12)))], ids=str
)
def test_every_second_block_shifts_its_windows(depth, reached):
    """Time steps that see step 5: those of its window, then of the windows that begin half a window later."""
    torch.manual_seed(0)
    decoder = WindowDecoder(**{**SIZES, "depth": depth}, num_heads=4, window=(4, 4)).eval()
    mask = Mask(
        torch.tensor([[21]]), None, torch.arange(48)[None] != 21
    )  # grid of 12 x 4, only patch (5, 1) is visible
    x = torch.randn(1, 1, 24)
    first, second = (decoder(source, mask, choose_targets(mask), (12, 4)) for source in (x, x + 1))
    steps = mask.masked[0].nonzero().flatten() // 4
    differs = (first - second).abs().amax((1, 2)) > 0
    assert sorted(set(steps[differs].tolist())) == reached


def test_receptive_field_of_convolutions_equals_their_depth():
    decoder = ConvDecoder(**{**SIZES, "depth": 1}, groups=1, axes=1).eval()
    visible = torch.arange(4)[None]
    masked = torch.tensor([[False] * 4 + [True] * 4])
    mask, x = Mask(visible, None, masked), torch.randn(1, 4, 24)
    changed = x.clone()
    changed[0, 3] += 1.0
    out = [decoder(source, mask, choose_targets(mask), (8,)) for source in (x, changed)]
    away = (out[0] - out[1]).abs().amax((1, 2))
    assert away[0] > 1e-4 and away[1:].max() == 0
