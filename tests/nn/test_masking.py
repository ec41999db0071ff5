"""Random masks."""

import pytest
import torch

from bridle_fairseq.nn.masking import random_mask


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
