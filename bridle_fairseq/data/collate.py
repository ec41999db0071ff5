"""From items of a data set to a padded batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def pad_waveforms(clips: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Clips of any lengths to B x S, zero-padded at the end, and the padding mask B x S (None: nothing is padded)."""
    sizes = torch.tensor([len(clip) for clip in clips])
    longest = int(sizes.max())
    source = torch.zeros(len(clips), longest)
    for row, clip in zip(source, clips, strict=True):
        row[: len(clip)] = clip
    if bool((sizes == longest).all()):
        return source, None
    return source, torch.arange(longest) >= sizes[:, None]


def pad_codes(codes: Sequence[Tensor]) -> Tensor:
    """Codes n x K of clips with any number of patches n to B x N x K, padded with 0 at the end."""
    return torch.nn.utils.rnn.pad_sequence(list(codes), batch_first=True)


def collate_audio(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Items ``{"id", "source"}`` (and ``"codes"``) to a batch; items without a source were skipped and are left out.

    Returns:
        ``{"id": B, "net_input": {"source": B x S, "padding_mask": B x S or None}, "nsentences", "ntokens"}`` and, when
        the items have them, ``"codes": B x N x K``; ``{}``, fairseq's empty batch, when nothing is left.
    """
    items = [item for item in items if item["source"] is not None]
    if not items:
        return {}
    source, padding_mask = pad_waveforms([item["source"] for item in items])
    batch = {
        "id": torch.tensor([item["id"] for item in items], dtype=torch.long),
        "net_input": {"source": source, "padding_mask": padding_mask},
        "nsentences": len(items),
        "ntokens": sum(len(item["source"]) for item in items),
    }
    if "codes" in items[0]:
        batch["codes"] = pad_codes([item["codes"] for item in items])
    return batch
