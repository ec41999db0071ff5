"""Files of units: formats, writing, reading, and the way back to codes.

A split has these files in one folder. With the layout ``separate`` of several levels, all but the json are in
``level1/``, ``level2/`` and so on:

* format ``km``, as HuBERT's: ``{split}.km``, a line per row of the manifest, unit numbers separated by spaces; and
  ``dict.km.txt``, fairseq's dictionary of them.
* format ``text``: ``{split}.txt``, a line per row, a private-use character for each unit, without separators.
* format ``fairseq``: ``{split}.bin`` and ``.idx`` with ``dict.txt``, the same bytes that ``fairseq-preprocess`` makes
  from the ``.km`` file: unit u is 4 + u, and 2 ends a line.
* with deduplication, ``{split}.counts``: a line per row, the run length of each unit (``interleaved``: of each patch).
* ``{split}.units.json`` (:class:`.info.UnitsInfo`), written last: the units are complete if it is there.

A row that could not be tokenized is an empty line.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import numpy as np

from bridle_fairseq.data.artifacts.codes import CodesInfo, read_info, write_info
from bridle_fairseq.data.artifacts.indexed import IndexedItems, write_index
from bridle_fairseq.data.artifacts.provenance import check_settings
from bridle_fairseq.units.info import FORMATS, SPECIAL_SYMBOLS, UnitsInfo, read_units_info
from bridle_fairseq.units.scheme import UnitError, collapse, expand, from_characters, to_characters
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.files import atomic_binary, atomic_text
from bridle_fairseq.utils.text_files import read_lines

DICTIONARIES = {"km": "dict.km.txt", "fairseq": "dict.txt"}
END_OF_LINE = 2  # in fairseq's dictionaries


def write_dictionary(info: UnitsInfo, stem: str) -> None:
    """Write the dictionary beside a stream's files, if its format has one."""
    if info.format in DICTIONARIES:
        path = os.path.join(os.path.dirname(stem), DICTIONARIES[info.format])
        with atomic_text(path) as file:
            file.writelines(f"{unit} 1\n" for unit in range(info.scheme.size))


class RowEncoder:
    """Encodes a row's codes as the bytes of its files."""

    def __init__(self, info: UnitsInfo) -> None:
        self.info, self.scheme = info, info.scheme

    def __call__(self, codes: np.ndarray) -> list[tuple[bytes, int, bytes]]:
        """Codes (n x K) -> for each stream: the bytes of the row, its number of units, and its line of counts."""
        encoded = []
        for stream, units in enumerate(self.scheme.units(codes)):
            counts_line = b""
            if self.info.dedup:
                units, counts = collapse(units, self.scheme.step)
                counts_line = _number_line(counts)
            encoded.append((self._row(units, stream), len(units), counts_line))
        return encoded

    def _row(self, units: np.ndarray, stream: int) -> bytes:
        if self.info.format == "km":
            return _number_line(units)
        if self.info.format == "text":
            return to_characters(units + self.scheme.first_character(stream)).encode() + b"\n"
        return np.append(units + SPECIAL_SYMBOLS, END_OF_LINE).astype(self.info.dtype).tobytes()


def _number_line(values: np.ndarray) -> bytes:
    return (" ".join(map(str, values.tolist())) + "\n").encode()


def read_rows(prefix: str | os.PathLike[str], info: UnitsInfo | None = None) -> Iterator[np.ndarray]:
    """The codes of each row (n x levels, int64) of ``{prefix}.json`` and its files, one row in memory at a time.

    Raises:
        InputError: files are missing, have another number of rows than the json, or contain invalid units.
    """
    prefix = os.fspath(prefix)
    info = info or read_units_info(prefix)
    paths = [f"{stem}.{FORMATS[info.format][0]}" for stem in info.stems(prefix)]
    streams = [_units(info, stem, number) for number, stem in enumerate(info.stems(prefix))]
    rows = 0
    for units in zip_longest(*streams):
        ended = [path for path, line in zip(paths, units, strict=True) if line is None]
        if ended or rows == info.rows:
            raise _wrong_length(ended[0] if ended else paths[0], rows, bool(ended), prefix, info)
        rows += 1
        try:
            yield info.scheme.codes(list(units))
        except UnitError as error:
            raise InputError(f"{paths[0]}, line {rows}: {error}") from None
    if rows < info.rows:
        raise _wrong_length(paths[0], rows, True, prefix, info)


def _wrong_length(path: str, rows: int, ended: bool, prefix: str, info: UnitsInfo) -> InputError:
    return InputError(
        f"{path}: {'' if ended else 'more than '}{rows} lines; expected {info.rows}, one per row of the manifest "
        f"(sha256 {info.codes.manifest_sha256[:12]}), as {prefix}.json says"
    )


def _units(info: UnitsInfo, stem: str, stream: int) -> Iterator[np.ndarray]:
    """Units of each line of a stream, with deduplication undone."""
    lines = _written_units(info, stem, stream)
    if not info.dedup:
        yield from lines
        return
    counted = read_lines(f"{stem}.counts", "these units")
    counts = (_parse_numbers(line, f"{stem}.counts", number) for number, line in enumerate(counted, 1))
    for number, (units, repeats) in enumerate(zip_longest(lines, counts), 1):
        if units is None or repeats is None:
            raise InputError(
                f"{stem}.counts: not as many lines as its units have; expected one per row of the manifest"
            )
        try:
            yield expand(units, repeats, info.scheme.step)
        except UnitError as error:
            raise InputError(f"{stem}.counts, line {number}: {error}") from None


def _written_units(info: UnitsInfo, stem: str, stream: int) -> Iterator[np.ndarray]:
    """Units of each line of a stream as written."""
    if info.format == "km":
        lines = read_lines(f"{stem}.km", "these units")
        yield from (_parse_numbers(line, f"{stem}.km", number) for number, line in enumerate(lines, 1))
    elif info.format == "text":
        first = info.scheme.first_character(stream)
        yield from (from_characters(line) - first for line in read_lines(f"{stem}.txt", "these units"))
    else:
        items = IndexedItems(stem, info.dtype)
        for number in range(len(items)):
            item = items[number]
            if not len(item) or item[-1] != END_OF_LINE:
                raise InputError(f"{stem}.bin, item {number + 1}: no end of line; expected {END_OF_LINE} at the end")
            yield item[:-1] - SPECIAL_SYMBOLS


def _parse_numbers(line: str, path: str, number: int) -> np.ndarray:
    try:
        return np.array(line.split(), dtype=np.int64)
    except (ValueError, OverflowError):
        bad = next((word for word in line.split() if not word.isdecimal()), max(line.split(), key=len))
        raise InputError(f"{path}, line {number}: {bad[:40]!r}; expected whole numbers, separated by spaces") from None


def write_codes(
    prefix: str | os.PathLike[str], out: str | os.PathLike[str], overwrite: bool = False
) -> tuple[str, CodesInfo, int]:
    """Convert units back to codes: ``{out}/{split}.codes.{bin,idx,json}``, byte for byte the original ones.

    Args:
        prefix: path up to and including ``{split}.units``.
        out: folder of the codes.
        overwrite: allow replacing codes of another checkpoint, manifest or settings.

    Returns:
        The path of the codes, their description (units of a single level become codes of one codebook), and the number
        of rows.

    Raises:
        InputError: invalid units (see :func:`read_rows`), or other codes are there.
    """
    prefix = os.fspath(prefix)
    info = read_units_info(prefix)
    codes_info = dataclasses.replace(info.codes, num_codebooks=len(info.scheme.levels))
    codes_prefix = os.path.join(out, os.path.basename(prefix).removesuffix(".units") + ".codes")
    if os.path.exists(f"{codes_prefix}.json") and not overwrite:
        check_settings(codes_prefix, "codes", read_info(codes_prefix), codes_info)
    sizes: list[int] = []
    with atomic_binary(f"{codes_prefix}.bin") as file:
        for codes in read_rows(prefix, info):
            file.write(codes.astype("<u2").tobytes())
            sizes.append(codes.size)
        Path(f"{codes_prefix}.json").unlink(missing_ok=True)  # without it, no codes count as complete
    write_index(codes_prefix, sizes, np.uint16)
    write_info(codes_prefix, codes_info)
    return codes_prefix, codes_info, len(sizes)
