"""From items of a data set to a padded batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def pad_items(items: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Items of any sizes to one batch, zero-padded at the ends of their axes, and its padding mask.

    Args:
        items: S each (sound), or channels x size_1 x size_2... (pixels); of one dtype.

    Returns:
        B x S and B x S, or B x channels x sizes and B x sizes; None for the mask where nothing is padded.
    """
    first = items[0].dim() > 1  # the channels, of which all have as many
    longest = [max(sizes) for sizes in zip(*(item.shape[first:] for item in items), strict=True)]
    if all(list(item.shape[first:]) == longest for item in items):
        return torch.stack(list(items)), None
    source = items[0].new_zeros(len(items), *items[0].shape[:first], *longest)
    padding = torch.ones(len(items), *longest, dtype=torch.bool)
    for item, values, outside in zip(items, source, padding, strict=True):
        inside = tuple(slice(size) for size in item.shape[first:])
        everywhere = (slice(None),) * first
        values[everywhere + inside] = item
        outside[inside] = False
    return source, padding


def pad_codes(codes: Sequence[Tensor]) -> Tensor:
    """Codes n x K of clips with any number of patches n to B x N x K, padded with 0 at the end."""
    return torch.nn.utils.rnn.pad_sequence(list(codes), batch_first=True)


def collate(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Items ``{"id", "source"}`` (and ``"codes"``) to a batch; items without a source were skipped and are left out.

    The further views of an item, its ``"more"``, are items of the same id.

    Returns:
        ``{"id": B, "net_input": {"source", "padding_mask"}, "nsentences", "ntokens"}``, source and mask as of
        :func:`pad_items`, and, when the items have them, ``"codes": B x N x K``; ``{}``, fairseq's empty batch, when
        nothing is left. ``ntokens`` counts samples or pixels.
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
