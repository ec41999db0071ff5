"""Items of a data set to a padded batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Item = dict[str, Any]  # of a data set, see :class:`MediaDataset`
Batch = dict[str, Any]  # see :func:`collate`


def pad_items(items: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Stack items of any sizes, zero-padded at the end of each axis.

    Args:
        items: S each (audio), or channels x size_1 x size_2... (pixels); of one dtype.

    Returns:
        The batch, B x S or B x channels x sizes, and its padding mask, B x S or B x sizes; None without padding.
    """
    first = items[0].dim() > 1  # the first axis that may be padded: pixels have channels before it
    longest = [max(sizes) for sizes in zip(*(item.shape[first:] for item in items), strict=True)]
    if all(list(item.shape[first:]) == longest for item in items):
        return torch.stack(list(items)), None
    source = items[0].new_zeros(len(items), *items[0].shape[:first], *longest)
    padding_mask = torch.ones(len(items), *longest, dtype=torch.bool)
    for item, padded, mask in zip(items, source, padding_mask, strict=True):
        inside = tuple(slice(size) for size in item.shape[first:])
        channels = (slice(None),) * first
        padded[channels + inside] = item
        mask[inside] = False
    return source, padding_mask


def pad_codes(codes: Sequence[Tensor]) -> Tensor:
    """Codes of clips, n x K each -> B x N x K, padded with 0 at the end."""
    return torch.nn.utils.rnn.pad_sequence(list(codes), batch_first=True)


def collate(items: Sequence[Item]) -> Batch:
    """Items ``{"id", "source"}`` (and ``"codes"``) to a batch. Items without a source were skipped and are left out.

    The further views of an item, its ``"more"``, become rows with the same id.

    Returns:
        ``{"id": B, "net_input": {"source", "padding_mask"}, "nsentences", "ntokens"}``, with source and mask as
        :func:`pad_items` returns them, and ``"codes"``: B x N x K if the items have codes. ``ntokens`` counts samples
        or pixels. ``{}``, fairseq's empty batch, if no item is left.
    """
    items = [
        {**item, "source": source}
        for item in items
        if item["source"] is not None
        for source in (item["source"], *item.get("more", ()))
    ]
    if not items:
        return {}
    sources = [item["source"] for item in items]
    source, padding_mask = pad_items(sources)
    batch = {
        "id": torch.tensor([item["id"] for item in items], dtype=torch.long),
        "net_input": {"source": source, "padding_mask": padding_mask},
        "nsentences": len(items),
        "ntokens": sum((source[0] if source.dim() > 1 else source).numel() for source in sources),
    }
    if "codes" in items[0]:
        batch["codes"] = pad_codes([item["codes"] for item in items])
    return batch
