"""The parts of files of units, whose format is in :mod:`.unit_files`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bridle_fairseq.data.artifacts.codes import CachedCodes, write_index
from bridle_fairseq.data.artifacts.sharding import Part, Parts, cut, replacing
from bridle_fairseq.units.files import (
    FORMATS,
    Encoder,
    UnitsInfo,
    read_units_info,
    write_dictionary,
    write_units_info,
)

ROWS_OF_CHUNK, CODES_OF_CHUNK = 1 << 16, 1 << 22  # some 20 MB of text


class Summary(NamedTuple):
    """What finished files of units hold."""

    rows: int
    codes: int  # units before deduplication
    units: int  # in all streams
    empty: int  # rows without any


class UnitParts(Parts):
    """Units of chunks of rows, by :meth:`make`.

    A part's arrays, s being a stream's number: ``rows{s}`` (uint8: what stands in its file), ``units{s}`` (int64: how
    many each row has) and ``counts{s}`` (uint8: lines of counts).

    Args:
        prefix: path up to and with ``{split}.units``.
        codes: whose units they are.
        info: what the finished json will say.
        overwrite: finished units of other settings may be replaced.
    """

    what = "units"
    info: UnitsInfo

    def __init__(
        self, prefix: str | os.PathLike[str], codes: CachedCodes, info: UnitsInfo, overwrite: bool = False
    ) -> None:
        self.codes, self.stems = codes, info.stems(os.fspath(prefix))
        self.endings = (*FORMATS[info.format], *["counts"] * info.dedup)
        super().__init__(prefix, info, None, overwrite, cut(codes.sizes, ROWS_OF_CHUNK, CODES_OF_CHUNK))

    def stored_info(self) -> UnitsInfo:
        """What the finished json says."""
        return read_units_info(self.prefix)

    def files(self) -> list[str]:
        """Those of all streams."""
        return [f"{stem}.{ending}" for stem in self.stems for ending in self.endings]

    def make(self, rows: range) -> Part:
        """The units of these rows of the codes."""
        encode = Encoder(self.info)
        made = [encode(self.codes.item(row)) for row in rows]
        arrays = {}
        for stream in range(len(self.stems)):
            of_rows, units, counts = zip(*(row[stream] for row in made), strict=True)
            arrays[f"rows{stream}"] = np.frombuffer(b"".join(of_rows), np.uint8)
            arrays[f"units{stream}"] = np.array(units, np.int64)
            arrays[f"counts{stream}"] = np.frombuffer(b"".join(counts), np.uint8)
        return Part(arrays, [])

    def _join(self) -> Summary:
        units = [self._write_stream(stream, stem) for stream, stem in enumerate(self.stems)]
        write_units_info(self.prefix, self.info)
        sizes = self.codes.sizes
        taken = int(sizes.sum(dtype=np.int64)) * len(self.info.scheme.levels) // self.info.codes.num_codebooks
        return Summary(self.info.rows, taken, sum(units), int((sizes == 0).sum()))

    def _write_stream(self, stream: int, stem: str) -> int:
        """Write the files of a stream; its number of units."""
        self._write(f"{stem}.{self.endings[0]}", f"rows{stream}")
        sizes: list[int] = []
        for number in range(len(self.chunks)):
            sizes += self.read(number, [f"units{stream}"]).arrays[f"units{stream}"].tolist()
        if self.info.format == "fairseq":
            write_index(stem, [size + 1 for size in sizes], self.info.dtype)
        if self.info.dedup:
            self._write(f"{stem}.counts", f"counts{stream}")
        write_dictionary(self.info, stem)
        return sum(sizes)

    def _write(self, path: str, name: str) -> None:
        with replacing(Path(path)) as file:
            for number in range(len(self.chunks)):
                file.write(self.read(number, [name]).arrays[name].tobytes())


def make_units(parts: UnitParts, todo: Sequence[int]) -> None:
    """Make and store these chunks."""
    for number in todo:
        parts.write(number, parts.make(parts.chunks[number]))
