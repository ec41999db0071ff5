"""Patches of any grid."""

import pytest
import torch

from bridle_fairseq.nn.patch import gather_patches, grid_size, patch_padding, patchify, unpatchify


def test_patches_are_the_cells_of_the_grid_time_major():
    x = torch.arange(2 * 1 * 6 * 8, dtype=torch.float32).reshape(2, 1, 6, 8)
    patches = patchify(x, (3, 4))
    assert patches.shape == (2, 4, 12)
    for t in range(2):
        for f in range(2):
            cell = x[1, 0, 3 * t : 3 * t + 3, 4 * f : 4 * f + 4]
            assert torch.equal(patches[1, 2 * t + f], cell.flatten())


def test_channels_and_three_axes():
    x = torch.randn(1, 3, 4, 4, 6)
    patches = patchify(x, (2, 4, 3))
    assert patches.shape == (1, 2 * 1 * 2, 3 * 2 * 4 * 3)
    assert torch.equal(patches[0, 3], x[0, :, 2:4, 0:4, 3:6].flatten())


def test_incomplete_last_patch_is_zero_padded():
    x = torch.ones(1, 1, 5, 3)
    assert grid_size((5, 3), (4, 2)) == (2, 2)
    patches = patchify(x, (4, 2)).reshape(2, 2, 4, 2)
    assert patches.sum() == 15
    assert torch.equal(patches[1, 0, 0], torch.ones(2)) and patches[1, 0, 1:].sum() == 0
    assert patches[0, 1, :, 1].sum() == 0


def test_patch_with_a_valid_frame_is_not_padding():
    frames = torch.zeros(3, 9, dtype=torch.bool)
    frames[1, 4:] = True  # four valid frames: one whole patch of time
    frames[2, 5:] = True  # five: the second patch has one of its own
    mask = patch_padding(frames, (4, 16), (3, 2))
    assert mask.tolist() == [[False] * 6, [False] * 2 + [True] * 4, [False] * 4 + [True] * 2]


def test_image_patch_with_a_valid_pixel_is_not_padding():
    pixels = torch.ones(2, 5, 7, dtype=torch.bool)
    pixels[0, :2, :4] = False  # two whole patches of the first row
    pixels[1, :3, :5] = False  # one pixel more each way: a second row, a third column
    mask = patch_padding(pixels, (2, 2), grid_size((5, 7), (2, 2))).view(2, 3, 4)
    assert (~mask[0]).nonzero().tolist() == [[0, 0], [0, 1]]
    assert (~mask[1]).nonzero().tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]


def test_gather_patches_takes_rows_per_clip():
    x = torch.randn(2, 5, 3)
    index = torch.tensor([[4, 0], [2, 2]])
    out = gather_patches(x, index)
    assert torch.equal(out[0, 0], x[0, 4]) and torch.equal(out[1, 1], x[1, 2])


@pytest.mark.parametrize(("sizes", "patch_size"), [((7,), (3,)), ((9, 8), (4, 4)), ((5, 7, 6), (2, 3, 4))])
def test_unpatchify_inverts_patchify(sizes, patch_size):
    x = torch.randn(2, 3, *sizes)
    torch.testing.assert_close(unpatchify(patchify(x, patch_size), patch_size, sizes), x, rtol=0, atol=0)
