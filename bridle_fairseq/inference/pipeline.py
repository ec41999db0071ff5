"""A model over a corpus: stretches of files to batches, batches to what is wanted of each stretch.

Threads read ahead of the model. :class:`CodeMaker` makes codes; features are made in :mod:`.extractors`.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from bridle_fairseq.data.artifacts.codes import CodesInfo, segment_count
from bridle_fairseq.data.artifacts.sharding import BlockResult
from bridle_fairseq.data.collate import pad_items
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.data.modality import Reader
from bridle_fairseq.utils.errors import DecodeError

BATCHES_AHEAD = 4
Made = TypeVar("Made")


class Segment(NamedTuple):
    """A stretch of a row's clip, in the reader's units: samples at the model's rate; pixels are one of length 1."""

    row: int
    start: int
    length: int
    kept: tuple[int, int] | None = None  # the time patches of it that count, where it overlaps others; None: all


class SegmentReader:
    """The segments of a manifest's rows, and batches of what they hold; a context manager that ends its threads.

    Args:
        manifest: the rows.
        reader: of their files.
        cut: (row, length of its clip) -> its segments.
        workers: threads.
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
        """The segments of these rows in order; and the rows whose header is no good, with the reason."""
        found: list[Segment] = []
        bad = {}
        for row, length in zip(rows, self.pool.map(self._length, rows), strict=True):
            if isinstance(length, str):
                bad[row] = length
            else:
                found += self.cut(row, length)
        return found, bad

    def read(self, batches: Iterable[list[Segment]]) -> Iterator[tuple[list[Segment], list[Tensor | str]]]:
        """Each batch with what its segments hold, or with the reason in place of one that cannot be read."""
        waiting: deque[tuple[list[Segment], list[Future[Tensor | str]]]] = deque()
        for batch in batches:
            waiting.append((batch, [self.pool.submit(self._item, segment) for segment in batch]))
            if len(waiting) > BATCHES_AHEAD:
                yield _finished(*waiting.popleft())
        while waiting:
            yield _finished(*waiting.popleft())

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


def _finished(batch: list[Segment], futures: list[Future[Tensor | str]]) -> tuple[list[Segment], list[Tensor | str]]:
    return batch, [future.result() for future in futures]


def batch_by_length(segments: Iterable[Segment], batch_size: int, max_tokens: int) -> Iterator[list[Segment]]:
    """Segments of like length together, the longest first: what does not fit into memory fails at once."""
    batch: list[Segment] = []
    for segment in sorted(segments, key=lambda s: (-s.length, s.row, s.start)):
        if batch and (len(batch) == batch_size or (len(batch) + 1) * batch[0].length > max_tokens):
            yield batch
            batch = []
        batch.append(segment)
    if batch:
        yield batch


class BatchLimits(NamedTuple):
    """How large batches are."""

    batch_size: int  # clips at most
    max_tokens: int  # length of a padded batch at most (a single clip may have more)


def process(
    reader: SegmentReader,
    rows: range,
    work: Callable[[list[Segment], Tensor, Tensor | None], Sequence[Made]],
    limits: BatchLimits,
    done: Callable[[int], object] = lambda clips: None,
) -> tuple[dict[int, list[Made]], dict[int, str]]:
    """What ``work`` makes of the segments of these rows, and the rows that cannot be read, with the reason.

    Args:
        reader: of the manifest.
        rows: a chunk of it; no batch holds clips of two chunks, so that what is made of a chunk is always the same.
        work: (segments, their batch, its padding mask or None) -> something for each segment.
        limits: of a batch.
        done: ``done(n)`` hears of every n rows that are finished.
    """
    segments, bad = reader.segments(rows)
    done(len(bad))
    left = Counter(segment.row for segment in segments)
    made: dict[Segment, Made] = {}
    for batch, clips in reader.read(batch_by_length(segments, *limits)):
        pairs = list(zip(batch, clips, strict=True))
        bad |= {segment.row: clip for segment, clip in pairs if isinstance(clip, str)}
        good = [(segment, clip) for segment, clip in pairs if isinstance(clip, Tensor)]
        if good:
            which = [segment for segment, _ in good]
            made.update(zip(which, work(which, *pad_items([clip for _, clip in good])), strict=True))
        left.subtract(segment.row for segment in batch)
        done(sum(left[row] == 0 for row in {segment.row for segment in batch}))
    of_row: dict[int, list[Made]] = defaultdict(list)
    for segment in segments:
        if segment.row not in bad:
            of_row[segment.row].append(made.pop(segment))
    return of_row, bad


def segments_of_codes(info: CodesInfo) -> Callable[[int, int], list[Segment]]:
    """How a clip is cut whose codes are made: consecutive segments of the training's crop length."""

    def cut(row: int, total: int) -> list[Segment]:
        length = info.segment
        count = segment_count(total, length, info.min_segment)
        return [Segment(row, n * length, min(length, total - n * length)) for n in range(count)]

    return cut


class CodeMaker:
    """Makes the codes of chunks of rows.

    Args:
        model: a :class:`bridle_fairseq.nn.bridle.Bridle` in eval mode, on its device.
        reader: of the manifest.
        limits: of a batch.
    """

    def __init__(self, model: Any, reader: SegmentReader, limits: BatchLimits) -> None:
        self.model, self.reader, self.limits = model, reader, limits
        self.device = next(model.parameters()).device

    def make(self, rows: range, done: Callable[[int], object] = lambda clips: None) -> BlockResult:
        """Codes of these rows: ``codes``, ``sizes`` (how many of them each row has), ``energy`` of each level."""
        energy = np.zeros(self.model.settings.num_codebooks)

        def work(_: list[Segment], source: Tensor, mask: Tensor | None) -> list[np.ndarray]:
            nonlocal energy
            codes, batch_energy = self._encode(source, mask)
            energy = energy + batch_energy
            return codes

        items, bad = process(self.reader, rows, work, self.limits, done)
        flat = [codes.ravel() for row in rows for codes in items.get(row, ())]
        sizes = np.array([sum(codes.size for codes in items.get(row, ())) for row in rows], dtype=np.int64)
        codes = np.concatenate(flat) if flat else np.zeros(0, np.uint16)
        return BlockResult({"codes": codes, "sizes": sizes, "energy": energy}, sorted(bad.items()))

    @torch.inference_mode()
    def _encode(self, source: Tensor, mask: Tensor | None) -> tuple[list[np.ndarray], np.ndarray]:
        """Codes (n x K uint16) of each clip, and K sums over their patches of the energy left after each level."""
        patches = self.model.front_end(source.to(self.device), None if mask is None else mask.to(self.device))
        latents = self.model.latents(patches, self.model.has_tokenizer)
        result = self.model.quantizer(latents, patches.padding_mask)
        codes = result.codes.cpu().numpy().astype(np.uint16)
        if patches.padding_mask is None:
            kept = list(codes)
        else:
            kept = [rows[keep] for rows, keep in zip(codes, (~patches.padding_mask).cpu().numpy(), strict=True)]
        return kept, result.residual_energy.double().cpu().numpy() * sum(map(len, kept))


def read_batches(dataset: Any, batch_size: int, rows: np.ndarray | None = None) -> Iterator[dict[str, Any]]:
    """The readable clips among some rows (all by default) in batches of like length; threads decode."""
    rows = np.arange(len(dataset)) if rows is None else rows
    order = rows[np.argsort(-dataset.sizes[rows], kind="stable")].tolist()
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for start in range(0, len(order), batch_size):
            batch = dataset.collater(list(pool.map(dataset.__getitem__, order[start : start + batch_size])))
            if batch:
                yield batch
