"""A tokenizer over a corpus: stretches of sound files to batches, batches to codes; threads read ahead of the model."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bridle_fairseq.data.codes import CodesInfo, segment_count
from bridle_fairseq.data.collate import pad_waveforms
from bridle_fairseq.data.decode import AudioInfo, DecodeError, read_crop, read_info, resampled_length
from bridle_fairseq.data.manifest import Manifest
from bridle_fairseq.data.parts import Part

BATCHES_AHEAD = 4


class Segment(NamedTuple):
    """A stretch of a row's clip, in samples at the model's rate."""

    row: int
    start: int
    length: int


class SegmentReader:
    """The segments of a manifest's rows, and batches of their waveforms; a context manager that ends its threads.

    Args:
        manifest: the rows.
        info: how long segments are and at which rate.
        workers: threads.
    """

    def __init__(self, manifest: Manifest, info: CodesInfo, workers: int) -> None:
        self.manifest, self.info = manifest, info
        self.pool = ThreadPoolExecutor(workers)

    def __enter__(self) -> SegmentReader:
        return self

    def __exit__(self, *error: object) -> None:
        self.pool.shutdown(cancel_futures=True)

    def segments(self, rows: range) -> tuple[list[Segment], dict[int, str]]:
        """The segments of these rows in order; and the rows whose header is no good, with the reason."""
        found, bad = [], {}
        for row, header in zip(rows, self.pool.map(self._header, rows), strict=True):
            if isinstance(header, str):
                bad[row] = header
                continue
            total = resampled_length(header.num_frames, header.sample_rate, self.info.sample_rate)
            length = self.info.segment_samples
            for number in range(segment_count(total, length, self.info.min_segment_samples)):
                found.append(Segment(row, number * length, min(length, total - number * length)))
        return found, bad

    def read(self, batches: Iterable[list[Segment]]) -> Iterator[tuple[list[Segment], list[Tensor | str]]]:
        """Each batch with its waveforms (S float32), or with the reason in place of one that cannot be read."""
        waiting: deque[tuple[list[Segment], list[Future[Tensor | str]]]] = deque()
        for batch in batches:
            waiting.append((batch, [self.pool.submit(self._waveform, segment) for segment in batch]))
            if len(waiting) > BATCHES_AHEAD:
                yield _finished(*waiting.popleft())
        while waiting:
            yield _finished(*waiting.popleft())

    def _header(self, row: int) -> AudioInfo | str:
        try:
            header = read_info(self.manifest.path(row))
        except DecodeError as error:
            return str(error)
        if header.num_frames != self.manifest.sizes[row]:
            return f"{header.num_frames} samples, the manifest says {self.manifest.sizes[row]}"
        return header

    def _waveform(self, segment: Segment) -> Tensor | str:
        try:
            path = self.manifest.path(segment.row)
            return torch.from_numpy(read_crop(path, self.info.sample_rate, segment.start, segment.length))
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


class CodeMaker:
    """Makes the codes of chunks of rows. A batch never holds clips of two chunks: a chunk's codes are always the same.

    Args:
        model: a :class:`bridle_fairseq.nn.bridle.Bridle` in eval mode, on its device.
        reader: of the manifest.
        batch_size: clips of a batch at most.
        max_tokens: samples of a padded batch at most (a single clip may have more).
    """

    def __init__(self, model: Any, reader: SegmentReader, batch_size: int, max_tokens: int) -> None:
        self.model, self.reader = model, reader
        self.batch_size, self.max_tokens = batch_size, max_tokens
        self.device = next(model.parameters()).device

    def make(self, rows: range, done: Callable[[int], object] = lambda clips: None) -> Part:
        """Codes of these rows; ``done(n)`` hears of every n rows that are finished."""
        segments, bad = self.reader.segments(rows)
        done(len(bad))
        left = Counter(segment.row for segment in segments)
        codes: dict[Segment, np.ndarray] = {}
        energy = np.zeros(self.model.settings.num_codebooks)
        for batch, clips in self.reader.read(batch_by_length(segments, self.batch_size, self.max_tokens)):
            pairs = list(zip(batch, clips, strict=True))
            bad |= {segment.row: clip for segment, clip in pairs if isinstance(clip, str)}
            good = [(segment, clip) for segment, clip in pairs if isinstance(clip, Tensor)]
            if good:
                found, batch_energy = self._encode([clip for _, clip in good])
                codes.update(zip([segment for segment, _ in good], found, strict=True))
                energy += batch_energy
            left.subtract(segment.row for segment in batch)
            done(sum(left[row] == 0 for row in {segment.row for segment in batch}))
        items: dict[int, list[np.ndarray]] = defaultdict(list)
        for segment in segments:
            if segment.row not in bad:
                items[segment.row].append(codes[segment].ravel())
        flat = [array for row in rows for array in items[row]]
        sizes = np.array([sum(map(len, items[row])) for row in rows], dtype=np.int64)
        return Part(np.concatenate(flat) if flat else np.zeros(0, np.uint16), sizes, sorted(bad.items()), energy)

    @torch.inference_mode()
    def _encode(self, clips: list[Tensor]) -> tuple[list[np.ndarray], np.ndarray]:
        """Codes (n x K uint16) of each clip, and K sums over their patches of the energy left after each level."""
        source, mask = pad_waveforms(clips)
        patches = self.model.front_end(source.to(self.device), None if mask is None else mask.to(self.device))
        latents = self.model.latents(patches, bool(self.model.tokenizer_ready))
        result = self.model.quantizer(latents, patches.padding_mask)
        codes = result.codes.cpu().numpy().astype(np.uint16)
        if patches.padding_mask is None:
            kept = list(codes)
        else:
            kept = [rows[keep] for rows, keep in zip(codes, (~patches.padding_mask).cpu().numpy(), strict=True)]
        return kept, result.residual_energy.double().cpu().numpy() * sum(map(len, kept))
