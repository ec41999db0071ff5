"""A trained transcriber over a data set, and over whole files of any length."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from bridle_fairseq.data.modality import Reader
from bridle_fairseq.inference.classify import batches_of, segments_of
from bridle_fairseq.nn.ctc import Emissions, greedy

Decode = Callable[[Emissions], list[list[int]]]


@torch.inference_mode()
def transcribe_dataset(
    model: Any, dataset: Any, batch_size: int, workers: int, decode: Decode = greedy, progress: Any = iter
) -> dict[int, list[int]]:
    """Symbols of each clip of a data set by its row, in order; clips that cannot be read are left out.

    Args:
        model: a :class:`bridle_fairseq.nn.ctc.Transcriber` in eval mode, on its device.
        dataset: a :class:`bridle_fairseq.tasks.datasets.FairseqMedia` that is not training.
        batch_size: clips of a batch.
        workers: processes that read files.
        decode: emissions -> symbols of each clip.
        progress: wraps the iterable of batches.
    """
    found: dict[int, list[int]] = {}
    for rows, source, mask in batches_of(model, dataset, batch_size, workers, progress):
        found |= zip(rows.tolist(), decode(model(source, mask)), strict=True)
    return dict(sorted(found.items()))


@torch.inference_mode()
def transcribe_file(model: Any, reader: Reader, path: str, segment: int, decode: Decode = greedy) -> list[int]:
    """Symbols of a file; of one longer than ``segment``, the model hears one such stretch after the other.

    Args:
        model: a transcriber in eval mode, on its device.
        reader: of files as the model takes them.
        path: a file.
        segment: the longest stretch that the model is shown, in samples at its rate.
        decode: emissions -> symbols of each clip.

    Raises:
        DecodeError: the file cannot be used.
    """
    logits = []
    for _, source, mask in segments_of(model, reader, path, segment):
        emissions = model(source, mask)
        logits += [row[:length] for row, length in zip(emissions.logits, emissions.lengths.tolist(), strict=True)]
    whole = torch.cat(logits)[None]
    (symbols,) = decode(Emissions(whole, torch.tensor([whole.shape[1]], device=whole.device)))
    return symbols
