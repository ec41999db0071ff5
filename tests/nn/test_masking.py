"""Random masks."""

import pytest
import torch

from bridle_fairseq.nn.masking import grid_mask, random_mask


@pytest.mark.parametrize(
    ("num_patches", "ratio", "hidden"), [(512, 0.8, 410), (10, 0.5, 5), (2, 0.01, 1), (2, 0.99, 1), (3, 0.5, 2)]
)
def test_share_of_hidden_patches(num_patches, ratio, hidden):
    mask = random_mask(3, num_patches, ratio)
    assert mask.masked.sum(1).tolist() == [hidden] * 3
    assert mask.visible.shape[1] == max(1, num_patches - hidden)


def test_visible_and_masked_share_out_the_patches():
    mask = random_mask(4, 20, 0.7, generator=torch.Generator().manual_seed(3))
    assert mask.visible_padding is None
    for visible, masked in zip(mask.visible, mask.masked, strict=True):
        assert visible.tolist() == (~masked).nonzero().flatten().tolist()
    assert not torch.equal(mask.masked[0], mask.masked[1])


def test_padding_is_neither_visible_nor_masked():
    padding = torch.zeros(5, 30, dtype=torch.bool)
    for clip, valid in enumerate((30, 17, 8, 2, 1)):
        padding[clip, valid:] = True
    mask = random_mask(5, 30, 0.75, padding_mask=padding)
    assert not (mask.masked & padding).any()
    for clip, valid in enumerate((30, 17, 8, 2, 1)):
        visible = mask.visible[clip][~mask.visible_padding[clip]]
        hidden = min(max(1, round(valid * 0.75)), valid - 1)
        assert mask.masked[clip].sum() == hidden
        assert not padding[clip, visible].any()
        assert len(visible) + mask.masked[clip].sum() == valid
        assert visible.tolist() == sorted(set(visible.tolist()))


def test_each_patch_is_hidden_equally_often():
    mask = random_mask(4000, 8, 0.5, generator=torch.Generator().manual_seed(0))
    share = mask.masked.float().mean(0)
    assert (share - 0.5).abs().max() < 0.04


def test_whole_columns_and_rows_are_left_of_a_grid():
    torch.manual_seed(0)
    mask = grid_mask(50, (10, 5), 0.3, 0.4)
    assert mask.grid == (7, 3) and mask.visible.shape == (50, 21) and mask.visible_padding is None
    assert (mask.visible.diff(dim=1) > 0).all()
    shown = torch.zeros(50, 50, dtype=torch.bool).scatter_(1, mask.visible, True).view(50, 10, 5)
    steps, rows = shown.any(2), shown.any(1)
    assert torch.equal(shown, steps[:, :, None] & rows[:, None, :])
    assert (steps.sum(1) == 7).all() and (rows.sum(1) == 3).all()
    assert steps.float().mean(0).std() < 0.1 and not (steps == steps[0]).all()


def test_a_grid_mask_keeps_its_share_of_each_clips_own_steps():
    torch.manual_seed(0)
    steps = torch.tensor([10, 5, 1])
    padding = (torch.arange(10) >= steps[:, None]).repeat_interleave(4, dim=1)
    mask = grid_mask(3, (10, 4), 0.2, 0.0, padding_mask=padding)
    assert mask.grid == (8, 4)
    assert (~mask.visible_padding).sum(1).tolist() == [32, 16, 4]
    for row in range(3):
        places = mask.visible[row][~mask.visible_padding[row]]
        assert len(places.unique()) == len(places) and not padding[row][places].any()


def test_a_ratio_of_0_hides_nothing_of_an_axis():
    assert grid_mask(2, (6, 4), 0.0, 0.5).grid == (6, 2) and grid_mask(2, (6, 4), 0.5, 0.0).grid == (3, 4)
    padding = torch.zeros(2, 24, dtype=torch.bool)
    padding[1, 12:] = True
    mask = grid_mask(2, (6, 4), 0.0, 0.0, padding_mask=padding)
    assert torch.equal(mask.visible, torch.arange(24).expand(2, 24)) and torch.equal(mask.visible_padding, padding)
