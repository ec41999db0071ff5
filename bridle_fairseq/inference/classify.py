"""A trained classifier over a data set, over several views of each file, and over whole files of any length."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bridle_fairseq.data.artifacts.codes import segment_count
from bridle_fairseq.data.collate import Batch, pad_items
from bridle_fairseq.data.dataset import checked_batch
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.data.modality import Modality, Reader
from bridle_fairseq.inference.pipeline import BatchLimits, Segment, SegmentReader, process
from bridle_fairseq.nn.classifier import Classifier, class_scores
from bridle_fairseq.utils.errors import DecodeError, InputError

SEGMENTS_AT_ONCE = 8
Progress = Callable[[Iterable[Batch]], Iterable[Batch]]  # the same batches, such as with a progress bar


@dataclass(frozen=True)
class ViewOptions:
    """Video: views of a file over which a classifier's scores are averaged.

    Attributes:
        clips: evenly spaced from the start of the file to its end.
        crops: squares along the longer side of the frames.

    Raises:
        InputError: one of them is below 1.
    """

    clips: int = 1
    crops: int = 1

    def __post_init__(self) -> None:
        if self.clips < 1 or self.crops < 1:
            raise InputError(f"--clips is {self.clips} and --crops {self.crops}; expected at least 1 each")

    @property
    def single(self) -> bool:
        """Whether there is one view, that of validation."""
        return self.clips == self.crops == 1


def reader_of_views(options: ViewOptions, modality: Modality, task_cfg: Any) -> Reader:
    """The reader of a modality's files that gives these views.

    Raises:
        InputError: several views of another modality than video.
    """
    reader: Any = modality.reader(task_cfg)
    if options.single:
        return reader
    if modality.name != "video":
        given = f"--clips is {options.clips} and --crops {options.crops} with a model of modality {modality.name}"
        raise InputError(f"{given}; expected 1 each: they are for video")
    return reader.of_views(options.clips, options.crops)


@torch.inference_mode()
def score_dataset(
    model: Classifier, dataset: Any, multi_label: bool, batch_size: int, workers: int, progress: Progress = iter
) -> tuple[np.ndarray, np.ndarray]:
    """Class scores of a data set's clips; clips that cannot be read are left out.

    Args:
        model: in eval mode, on its device.
        dataset: a :class:`bridle_fairseq.tasks.datasets.FairseqMedia` that is not training.
        multi_label: see :func:`class_scores`.
        batch_size: clips of a batch; batches hold clips of similar length.
        workers: processes that read files.
        progress: wraps the iterable of batches.

    Returns:
        n rows of the manifest in order, and n x classes float32.
    """
    rows, scores = [], []
    for batch_rows, source, mask in batches_of(model, dataset, batch_size, workers, progress):
        rows.append(batch_rows)
        scores.append(class_scores(model(source, mask), multi_label).cpu().numpy())
    if not rows:
        return np.zeros(0, np.int64), np.zeros((0, model.head.out_features), np.float32)
    all_rows = np.concatenate(rows)
    in_order = all_rows.argsort()
    return all_rows[in_order], np.concatenate(scores)[in_order]


def batches_of(
    model: nn.Module, dataset: Any, batch_size: int, workers: int, progress: Progress = iter
) -> Iterator[tuple[np.ndarray, Tensor, Tensor | None]]:
    """Rows, source and padding mask of batches of clips of similar length, on the model's device.

    Args: see :func:`score_dataset`.
    """
    device = next(model.parameters()).device
    order = dataset.ordered_indices()
    order = order[np.argsort(-dataset.sizes[order], kind="stable")]
    batches = [rows.tolist() for rows in np.split(order, range(batch_size, len(order), batch_size))]
    loader = torch.utils.data.DataLoader(
        dataset, batch_sampler=batches, collate_fn=dataset.collater, num_workers=workers
    )
    for batch in progress(loader):
        if checked_batch(batch):
            source, mask = batch["net_input"]["source"], batch["net_input"]["padding_mask"]
            yield batch["id"].numpy(), source.to(device), None if mask is None else mask.to(device)


@torch.inference_mode()
def score_views(
    model: Classifier, manifest: Manifest, reader: Reader, multi_label: bool, batch_size: int, workers: int
) -> tuple[np.ndarray, np.ndarray, dict[int, str]]:
    """Class scores of a manifest's rows, averaged over the views that a reader gives of each file.

    Args:
        model: in eval mode, on its device.
        manifest: the rows.
        reader: see :func:`reader_of_views`; a view is a stretch of length 1.
        multi_label: see :func:`class_scores`.
        batch_size: views of a batch.
        workers: threads that read.

    Returns:
        n rows in order, n x classes float32, and the rows that cannot be read with the reason.
    """
    device = next(model.parameters()).device

    def score(_: list[Segment], source: Tensor, mask: Tensor | None) -> list[np.ndarray]:
        logits = model(source.to(device), None if mask is None else mask.to(device))
        return list(class_scores(logits, multi_label).double().cpu().numpy())

    def cut(row: int, length: int) -> list[Segment]:
        return [Segment(row, number, 1) for number in range(length)]

    with SegmentReader(manifest, reader, cut, workers) as segments:
        scores, bad = process(segments, range(len(manifest)), score, BatchLimits(batch_size, batch_size))
    rows = np.array(sorted(scores), dtype=np.int64)
    means = [np.mean(scores[row], axis=0) for row in rows.tolist()]
    return rows, np.array(means, np.float32).reshape(len(rows), model.head.out_features), bad


@torch.inference_mode()
def score_file(model: Classifier, reader: Reader, path: str, multi_label: bool, segment: int) -> np.ndarray:
    """Class scores of a file; those of a file longer than ``segment`` are means over its segments, weighted by length.

    Args:
        model: in eval mode, on its device.
        reader: reader of files as the model takes them.
        path: a file.
        multi_label: see :func:`class_scores`.
        segment: the longest stretch that the model takes at once, in the reader's units.

    Raises:
        DecodeError: the file cannot be used.
    """
    summed, total = np.zeros(model.head.out_features), 0
    for lengths, source, mask in segments_of(model, reader, path, segment):
        summed += lengths @ class_scores(model(source, mask), multi_label).double().cpu().numpy()
        total += lengths.sum()
    return summed / total


def classify_files(
    model: Classifier, reader: Reader, paths: Sequence[str], segment: int, multi_label: bool, expected: str
) -> Iterator[tuple[str, np.ndarray | InputError]]:
    """(path, class scores) of files, one after the other; in place of scores, why a file cannot be used.

    Args:
        model, reader, segment, multi_label: see :func:`score_file`.
        paths: paths of the files.
        expected: what the files should be, for messages: ``images``.
    """
    for path in paths:
        result: np.ndarray | InputError
        try:
            with unusable_file(path, expected):
                result = score_file(model, reader, path, multi_label, segment)
        except InputError as error:
            result = error
        yield path, result


@contextmanager
def unusable_file(path: str, expected: str) -> Iterator[None]:
    """Report a file that cannot be used in this block; one that is there may be of another kind than ``expected``.

    Raises:
        InputError: names the file, the reason, and what was expected.
    """
    try:
        yield
    except DecodeError as error:
        other_kind = "expected" not in str(error) and os.path.isfile(path) and os.path.getsize(path)
        raise InputError(f"{path}: {error}{f'; the model takes {expected}' if other_kind else ''}") from None


def segments_of(
    model: nn.Module, reader: Reader, path: str, segment: int
) -> Iterator[tuple[np.ndarray, Tensor, Tensor | None]]:
    """Lengths, source and padding mask of batches of a file's consecutive segments, on the model's device.

    Args and raises: see :func:`score_file`.
    """
    device, total = next(model.parameters()).device, reader.length(path)
    starts = [number * segment for number in range(segment_count(total, segment, 1))]
    for first in range(0, len(starts), SEGMENTS_AT_ONCE):
        batch = starts[first : first + SEGMENTS_AT_ONCE]
        lengths = np.array([min(segment, total - start) for start in batch])
        source, mask = pad_items([reader.read(path, *stretch) for stretch in zip(batch, lengths.tolist(), strict=True)])
        yield lengths, source.to(device), None if mask is None else mask.to(device)
