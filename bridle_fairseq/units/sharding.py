"""Units made from cached codes, block by block. :mod:`.files` describes the format."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bridle_fairseq.data.artifacts.codes import CachedCodes
from bridle_fairseq.data.artifacts.indexed import write_index
from bridle_fairseq.data.artifacts.sharding import BlockResult, ShardedJob, plan_blocks
from bridle_fairseq.units.files import RowEncoder, write_dictionary
from bridle_fairseq.units.info import FORMATS, UnitsInfo, read_units_info, write_units_info
from bridle_fairseq.utils.files import atomic_binary

ROWS_PER_BLOCK, CODES_PER_BLOCK = 1 << 16, 1 << 22  # about 20 MB of text


class UnitsSummary(NamedTuple):
    """What the complete files of units hold."""

    rows: int
    codes: int  # units before deduplication
    units: int  # in all streams
    empty: int  # rows without units


class UnitsJob(ShardedJob):
    """Units, block by block; :meth:`make` computes a block.

    Arrays of a block, for each stream s: ``rows{s}`` (uint8, the bytes of its file), ``units{s}`` (int64, number of
    units of each row) and ``counts{s}`` (uint8, the lines of counts).

    Args:
        prefix: path up to and including ``{split}.units``.
        codes: their source.
        info: content of the complete json.
        overwrite: allow replacing complete units of other settings.
    """

    what = "units"
    info: UnitsInfo

    def __init__(
        self, prefix: str | os.PathLike[str], codes: CachedCodes, info: UnitsInfo, overwrite: bool = False
    ) -> None:
        self.codes, self.stems = codes, info.stems(os.fspath(prefix))
        self.endings = (*FORMATS[info.format], *["counts"] * info.dedup)
        super().__init__(prefix, info, None, overwrite, plan_blocks(codes.sizes, ROWS_PER_BLOCK, CODES_PER_BLOCK))

    def stored_info(self) -> UnitsInfo:
        """The content of the complete json."""
        return read_units_info(self.prefix)

    def files(self) -> list[str]:
        """The files of all streams."""
        return [f"{stem}.{ending}" for stem in self.stems for ending in self.endings]

    def make(self, rows: range) -> BlockResult:
        """Compute the units of these rows."""
        encode = RowEncoder(self.info)
        encoded = [encode(self.codes.item(row)) for row in rows]
        arrays = {}
        for stream in range(len(self.stems)):
            contents, units, counts = zip(*(streams[stream] for streams in encoded), strict=True)
            arrays[f"rows{stream}"] = np.frombuffer(b"".join(contents), np.uint8)
            arrays[f"units{stream}"] = np.array(units, np.int64)
            arrays[f"counts{stream}"] = np.frombuffer(b"".join(counts), np.uint8)
        return BlockResult(arrays, [])

    def _join(self) -> UnitsSummary:
        units = [self._write_stream(stream, stem) for stream, stem in enumerate(self.stems)]
        write_units_info(self.prefix, self.info)
        sizes = self.codes.sizes
        codes = int(sizes.sum(dtype=np.int64)) * len(self.info.scheme.levels) // self.info.codes.num_codebooks
        return UnitsSummary(self.info.rows, codes, sum(units), int((sizes == 0).sum()))

    def _write_stream(self, stream: int, stem: str) -> int:
        """Write the files of a stream and return its number of units."""
        self._write(f"{stem}.{self.endings[0]}", f"rows{stream}")
        sizes: list[int] = []
        for number in range(len(self.blocks)):
            units = self.read(number, [f"units{stream}"]).arrays[f"units{stream}"]
            self.check_sizes(number, units)
            sizes += units.tolist()
        if self.info.format == "fairseq":
            write_index(stem, [size + 1 for size in sizes], self.info.dtype)  # and END_OF_LINE
        if self.info.dedup:
            self._write(f"{stem}.counts", f"counts{stream}")
        write_dictionary(self.info, stem)
        return sum(sizes)

    def _write(self, path: str, name: str) -> None:
        with atomic_binary(path) as file:
            for number in range(len(self.blocks)):
                file.write(self.read(number, [name]).arrays[name].tobytes())


def make_units(job: UnitsJob, numbers: Sequence[int]) -> None:
    """Compute and store these blocks."""
    for number in numbers:
        if not job.has(number):
            job.write(number, job.make(job.blocks[number]))
