"""Batches: padding, masks, skipped items, codes."""

import torch

from bridle_fairseq.data.collate import collate, pad_codes, pad_items


def item(number, size, **more):
    return {"id": number, "source": torch.full((size,), float(number)), **more}


def test_padding_and_mask():
    batch = collate([item(4, 3), item(9, 5)])
    assert batch["id"].tolist() == [4, 9] and batch["id"].dtype == torch.long
    assert batch["net_input"]["source"].tolist() == [[4, 4, 4, 0, 0], [9, 9, 9, 9, 9]]
    assert batch["net_input"]["padding_mask"].tolist() == [[False] * 3 + [True] * 2, [False] * 5]
    assert (batch["nsentences"], batch["ntokens"]) == (2, 8) and "codes" not in batch


def test_no_mask_without_padding():
    source, mask = pad_items([torch.ones(5), torch.zeros(5)])
    assert source.shape == (2, 5) and mask is None


def test_skipped_items_are_left_out():
    batch = collate([{"id": 0, "source": None}, item(1, 4), {"id": 2, "source": None}])
    assert batch["id"].tolist() == [1] and batch["nsentences"] == 1 and batch["net_input"]["padding_mask"] is None
    assert collate([{"id": 0, "source": None}]) == {} and collate([]) == {}


def test_codes_are_padded_with_zero():
    codes = [torch.full((2, 3), 7), torch.full((4, 3), 9)]
    padded = pad_codes(codes)
    assert padded.shape == (2, 4, 3) and padded.dtype == torch.long
    assert (padded[0, :2] == 7).all() and (padded[0, 2:] == 0).all() and (padded[1] == 9).all()
    batch = collate([item(0, 2, codes=codes[0]), {"id": 5, "source": None}, item(1, 4, codes=codes[1])])
    assert torch.equal(batch["codes"], padded)


def test_images_are_padded_in_both_axes():
    small, wide = torch.full((3, 2, 3), 7, dtype=torch.uint8), torch.full((3, 1, 5), 9, dtype=torch.uint8)
    source, mask = pad_items([small, wide])
    assert source.dtype == torch.uint8 and source.shape == (2, 3, 2, 5)
    assert torch.equal(source[0, :, :, :3], small) and torch.equal(source[1, :, :1], wide)
    assert (~mask).nonzero().tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 2], [0, 1, 0], [0, 1, 1], [0, 1, 2]] + [
        [1, 0, column] for column in range(5)
    ]
    assert (source.permute(0, 2, 3, 1)[mask] == 0).all() and pad_items([small, small])[1] is None
