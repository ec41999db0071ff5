"""Run a model over a corpus: clips are divided into segments, segments are batched, and results are sorted by row.

Threads read files ahead of the model. What is computed is up to the caller: see :mod:`.codes`, :mod:`.features`.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from torch import Tensor

from bridle_fairseq.data.collate import Batch, pad_items
from bridle_fairseq.data.dataset import MediaDataset
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.data.modality import Reader
from bridle_fairseq.utils.errors import DecodeError, InputError

BATCHES_AHEAD = 4
Result = TypeVar("Result")


class BatchLimits(NamedTuple):
    """Maximum size of a batch."""

    batch_size: int  # clips
    max_tokens: int  # clips x longest length; one longer clip is a batch of its own


@dataclass(frozen=True)
class BatchOptions:
    """How a corpus is read and batched, and where the model runs.

    Attributes:
        batch_size: clips of a batch.
        max_tokens: sound: samples of a padded batch, clips x longest length.
        workers: threads that read files.
        max_skipped: abort if more than this fraction of the clips, and more than 10, is unusable.
        device: device of the model.

    Raises:
        InputError: one of the first three is below 1.
    """

    batch_size: int = 32
    max_tokens: int = 3_200_000
    workers: int = min(4, os.cpu_count() or 1)
    max_skipped: float = 0.01
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in ("batch_size", "max_tokens", "workers"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name.replace('_', '-')} is {getattr(self, name)}; expected at least 1")

    @property
    def limits(self) -> BatchLimits:
        """Maximum size of a batch."""
        return BatchLimits(self.batch_size, self.max_tokens)


class Segment(NamedTuple):
    """A stretch of a row's clip, in the units of the reader (sound: samples; images and video: one of length 1)."""

    row: int
    start: int
    length: int
    kept: tuple[int, int] | None = None  # of a chunk: [first, end) of its time patches that count
    clip_steps: int = 0  # of a chunk: time patches of the whole clip


class SegmentReader:
    """Reads the segments of a manifest's rows in threads. A context manager that ends them.

    Args:
        manifest: the rows.
        reader: reads the files.
        cut: (row, length of its clip) -> its segments, such as the chunks of a :class:`.chunking.Chunking`.
        workers: number of threads.
    """

    def __init__(
        self, manifest: Manifest, reader: Reader, cut: Callable[[int, int], Sequence[Segment]], workers: int
    ) -> None:
        self.manifest, self.reader, self.cut = manifest, reader, cut
        self.pool = ThreadPoolExecutor(workers)

    def __enter__(self) -> SegmentReader:
        return self

    def __exit__(self, *error: object) -> None:
        self.pool.shutdown(cancel_futures=True)

    def segments(self, rows: range) -> tuple[list[Segment], dict[int, str]]:
        """The segments of these rows in order, and the rows whose header cannot be used, with the reason."""
        segments: list[Segment] = []
        bad = {}
        for row, length in zip(rows, self.pool.map(self._length, rows), strict=True):
            if isinstance(length, str):
                bad[row] = length
            else:
                segments += self.cut(row, length)
        return segments, bad

    def read(self, batches: Iterable[list[Segment]]) -> Iterator[tuple[list[Segment], list[Tensor | str]]]:
        """Each batch with the contents of its segments; a reason in place of a segment that cannot be read."""
        waiting: deque[tuple[list[Segment], list[Future[Tensor | str]]]] = deque()
        for batch in batches:
            waiting.append((batch, [self.pool.submit(self._item, segment) for segment in batch]))
            if len(waiting) > BATCHES_AHEAD:
                yield _wait_for(*waiting.popleft())
        while waiting:
            yield _wait_for(*waiting.popleft())

    def _length(self, row: int) -> int | str:
        try:
            return self.reader.length(self.manifest.path(row), int(self.manifest.sizes[row]))
        except DecodeError as error:
            return str(error)

    def _item(self, segment: Segment) -> Tensor | str:
        try:
            return self.reader.read(self.manifest.path(segment.row), segment.start, segment.length)
        except DecodeError as error:
            return str(error)


def _wait_for(batch: list[Segment], futures: list[Future[Tensor | str]]) -> tuple[list[Segment], list[Tensor | str]]:
    return batch, [future.result() for future in futures]


def batch_by_length(segments: Iterable[Segment], batch_size: int, max_tokens: int) -> Iterator[list[Segment]]:
    """Batches of segments of similar length, the longest first, so that running out of memory happens at once."""
    batch: list[Segment] = []
    for segment in sorted(segments, key=lambda s: (-s.length, s.row, s.start)):
        if batch and (len(batch) == batch_size or (len(batch) + 1) * batch[0].length > max_tokens):
            yield batch
            batch = []
        batch.append(segment)
    if batch:
        yield batch


def process(
    reader: SegmentReader,
    rows: range,
    work: Callable[[list[Segment], Tensor, Tensor | None], Sequence[Result]],
    limits: BatchLimits,
    on_done: Callable[[int], object] = lambda clips: None,
) -> tuple[dict[int, list[Result]], dict[int, str]]:
    """Apply ``work`` to the segments of these rows.

    Args:
        reader: reads the manifest's rows.
        rows: a block of them. No batch holds clips of two blocks, so the result of a block is always the same.
        work: (segments, batch, padding mask or None) -> a result for each segment.
        limits: maximum size of a batch.
        on_done: called with numbers of rows that have just been finished.

    Returns:
        The results of each row's segments, and the rows that cannot be read, with the reason.
    """
    segments, bad = reader.segments(rows)
    on_done(len(bad))
    left = Counter(segment.row for segment in segments)
    results: dict[Segment, Result] = {}
    for batch, clips in reader.read(batch_by_length(segments, *limits)):
        pairs = list(zip(batch, clips, strict=True))
        bad |= {segment.row: clip for segment, clip in pairs if isinstance(clip, str)}
        good = [(segment, clip) for segment, clip in pairs if isinstance(clip, Tensor)]
        if good:
            readable = [segment for segment, _ in good]
            results.update(zip(readable, work(readable, *pad_items([clip for _, clip in good])), strict=True))
        left.subtract(segment.row for segment in batch)
        on_done(sum(left[row] == 0 for row in {segment.row for segment in batch}))
    by_row: dict[int, list[Result]] = defaultdict(list)
    for segment in segments:
        if segment.row not in bad:
            by_row[segment.row].append(results.pop(segment))
    return by_row, bad


def read_batches(dataset: MediaDataset, batch_size: int, rows: np.ndarray | None = None) -> Iterator[Batch]:
    """The readable clips among some rows (default: all) in batches of similar length; threads decode.

    For callers with a data set instead of a :class:`.SegmentReader`: ``knn_accuracy`` in training and the examples.
    """
    rows = np.arange(len(dataset)) if rows is None else rows
    order = rows[np.argsort(-dataset.sizes[rows], kind="stable")].tolist()
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for start in range(0, len(order), batch_size):
            batch = dataset.collater(list(pool.map(dataset.__getitem__, order[start : start + batch_size])))
            if batch:
                yield batch
