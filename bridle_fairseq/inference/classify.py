"""A trained classifier over a data set as validation sees it, and over whole files of any length."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bridle_fairseq.data.artifacts.codes import segment_count
from bridle_fairseq.data.collate import pad_items
from bridle_fairseq.data.dataset import checked_batch
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.data.modality import Reader
from bridle_fairseq.inference.pipeline import BatchLimits, Segment, SegmentReader, process
from bridle_fairseq.nn.classifier import class_scores

SEGMENTS_AT_ONCE = 8


@torch.inference_mode()
def score_dataset(
    model: Any, dataset: Any, multi_label: bool, batch_size: int, workers: int, progress: Any = iter
) -> tuple[np.ndarray, np.ndarray]:
    """Scores of a data set's clips, batches made of clips of like length; those that cannot be read are left out.

    Args:
        model: a :class:`bridle_fairseq.nn.classifier.Classifier` in eval mode, on its device.
        dataset: a :class:`bridle_fairseq.tasks.datasets.FairseqMedia` that is not training.
        multi_label: see :func:`class_scores`.
        batch_size: clips of a batch.
        workers: processes that read files.
        progress: wraps the iterable of batches.

    Returns:
        n rows of the manifest in order, and n x classes float32.
    """
    rows, scores = [], []
    for some, source, mask in batches_of(model, dataset, batch_size, workers, progress):
        rows.append(some)
        scores.append(class_scores(model(source, mask), multi_label).cpu().numpy())
    if not rows:
        return np.zeros(0, np.int64), np.zeros((0, model.head.out_features), np.float32)
    found = np.concatenate(rows)
    in_order = found.argsort()
    return found[in_order], np.concatenate(scores)[in_order]


def batches_of(
    model: Any, dataset: Any, batch_size: int, workers: int, progress: Any = iter
) -> Iterator[tuple[np.ndarray, Tensor, Tensor | None]]:
    """Rows, source and padding mask of batches of clips of like length, on the model's device; as of the arguments of
    :func:`score_dataset`.
    """
    device = next(model.parameters()).device
    order = dataset.ordered_indices()
    order = order[np.argsort(-dataset.sizes[order], kind="stable")]
    batches = [part.tolist() for part in np.split(order, range(batch_size, len(order), batch_size))]
    loader = torch.utils.data.DataLoader(
        dataset, batch_sampler=batches, collate_fn=dataset.collater, num_workers=workers
    )
    for batch in progress(loader):
        if checked_batch(batch):
            source, mask = batch["net_input"]["source"], batch["net_input"]["padding_mask"]
            yield batch["id"].numpy(), source.to(device), None if mask is None else mask.to(device)


@torch.inference_mode()
def score_views(
    model: Any, manifest: Manifest, reader: Reader, multi_label: bool, batch_size: int, workers: int
) -> tuple[np.ndarray, np.ndarray, dict[int, str]]:
    """Scores of a manifest's rows, the mean over the stretches of length 1 that a reader makes of each file.

    Args:
        model: a classifier in eval mode, on its device.
        manifest: the rows.
        reader: of files as the model takes them.
        multi_label: see :func:`class_scores`.
        batch_size: stretches of a batch.
        workers: threads that read.

    Returns:
        n rows in order, n x classes float32, and the rows that cannot be read with the reason.
    """
    device = next(model.parameters()).device

    def score(_: list[Segment], source: Tensor, mask: Tensor | None) -> np.ndarray:
        logits = model(source.to(device), None if mask is None else mask.to(device))
        return class_scores(logits, multi_label).double().cpu().numpy()

    def cut(row: int, length: int) -> list[Segment]:
        return [Segment(row, number, 1) for number in range(length)]

    with SegmentReader(manifest, reader, cut, workers) as segments:
        scores, bad = process(segments, range(len(manifest)), score, BatchLimits(batch_size, batch_size))
    rows = np.array(sorted(scores), dtype=np.int64)
    means = [np.mean(scores[row], axis=0) for row in rows.tolist()]
    return rows, np.array(means, np.float32).reshape(len(rows), model.head.out_features), bad


@torch.inference_mode()
def score_file(model: Any, reader: Reader, path: str, multi_label: bool, segment: int) -> np.ndarray:
    """Scores of a file, one a class: of all of it up to ``segment``, else the mean over such segments.

    A shorter last segment counts by its length.

    Args:
        model: a classifier in eval mode, on its device.
        reader: of files as the model takes them.
        path: a file.
        multi_label: see :func:`class_scores`.
        segment: the longest stretch that the model is shown, in the reader's units.

    Raises:
        DecodeError: the file cannot be used.
    """
    summed, total = np.zeros(model.head.out_features), 0
    for lengths, source, mask in segments_of(model, reader, path, segment):
        summed += lengths @ class_scores(model(source, mask), multi_label).double().cpu().numpy()
        total += lengths.sum()
    return summed / total


def segments_of(
    model: Any, reader: Reader, path: str, segment: int
) -> Iterator[tuple[np.ndarray, Tensor, Tensor | None]]:
    """Lengths, source and padding mask of some segments of a file after others, on the model's device.

    Args and raises: as of :func:`score_file`.
    """
    device, total = next(model.parameters()).device, reader.length(path)
    starts = [number * segment for number in range(segment_count(total, segment, 1))]
    for first in range(0, len(starts), SEGMENTS_AT_ONCE):
        some = starts[first : first + SEGMENTS_AT_ONCE]
        lengths = np.array([min(segment, total - start) for start in some])
        source, mask = pad_items([reader.read(path, *piece) for piece in zip(some, lengths.tolist(), strict=True)])
        yield lengths, source.to(device), None if mask is None else mask.to(device)
