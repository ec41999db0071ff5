"""Files of units, what stands in them, and the way back to codes.

In a folder, for each split (with the layout ``separate`` of several levels, all but the json in ``level1/``,
``level2/`` and so on):

* format ``km``, as HuBERT's: ``{split}.km``, a line a row of the manifest, unit numbers with a blank between; and
  ``dict.km.txt``, fairseq's dictionary of them.
* format ``text``: ``{split}.txt``, a line a row, a private character for each unit and nothing between.
* format ``fairseq``: ``{split}.bin`` and ``.idx`` with ``dict.txt``, the bytes that ``fairseq-preprocess`` makes of the
  ``.km`` file: unit u is 4 + u, and 2 ends a line.
* with deduplication, ``{split}.counts``: a line a row, how often each unit (``interleaved``: each patch) is repeated.
* ``{split}.units.json`` (:class:`UnitsInfo`), written last: the units are complete where it is.

A row that could not be tokenised is an empty line.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from bridle_fairseq.data.artifacts.codes import CodesInfo, read_info, write_info
from bridle_fairseq.data.artifacts.indexed import IndexedItems, write_index
from bridle_fairseq.data.artifacts.provenance import check_settings
from bridle_fairseq.units.scheme import (
    MAX_CHARACTERS,
    Scheme,
    UnitError,
    collapse,
    expand,
    from_characters,
    to_characters,
)
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.files import atomic_binary, atomic_text, fields_of

VERSION = 1
FORMATS = {"km": ("km",), "text": ("txt",), "fairseq": ("bin", "idx")}
DICTIONARIES = {"km": "dict.km.txt", "fairseq": "dict.txt"}
SPECIAL_SYMBOLS, END_OF_LINE = 4, 2  # of fairseq's dictionaries
LARGEST_IN_16_BITS = 65500  # fairseq's own limit


@dataclasses.dataclass(frozen=True)
class UnitsInfo:
    """What stands in ``{split}.units.json``.

    Attributes:
        codes: of what they were made.
        rows: lines.
        level: a number, or ``all``.
        layout: see :mod:`.units`.
        format: a key of :data:`FORMATS`.
        dedup: whether runs stand there once, with their counts beside them.
        version: of this format.
    """

    codes: CodesInfo
    rows: int
    level: str
    layout: str
    format: str
    dedup: bool
    version: int = VERSION

    def __post_init__(self) -> None:
        characters = self.codes.num_codebooks * self.codes.codebook_size
        if self.format == "text" and characters > MAX_CHARACTERS:
            raise InputError(f"{characters} codes in all; expected at most {MAX_CHARACTERS}, a character for each")

    @property
    def scheme(self) -> Scheme:
        """How units are made of codes."""
        return Scheme.of(self.codes.num_codebooks, self.codes.codebook_size, self.level, self.layout)

    @property
    def dtype(self) -> type[np.integer]:
        """Of ``.bin``."""
        return np.uint16 if self.scheme.size + SPECIAL_SYMBOLS < LARGEST_IN_16_BITS else np.int32

    def stems(self, prefix: str) -> list[str]:
        """Paths of the streams' files without their endings, of ``{split}.units`` at ``prefix``."""
        folder, name = os.path.split(prefix.removesuffix(".units"))
        if self.scheme.streams == 1:
            return [os.path.join(folder, name)]
        return [os.path.join(folder, f"level{level}", name) for level in self.scheme.levels]


def read_units_info(prefix: str | os.PathLike[str]) -> UnitsInfo:
    """Read ``{prefix}.json``.

    Raises:
        InputError: missing, damaged, or of another version.
    """
    with fields_of(prefix, "units", VERSION) as fields:
        codes = CodesInfo(**{**fields["codes"], "grid": dict(fields["codes"]["grid"])})
        return UnitsInfo(**{**fields, "codes": codes})


def write_units_info(prefix: str | os.PathLike[str], info: UnitsInfo) -> None:
    """Write ``{prefix}.json``, all of it or nothing."""
    with atomic_text(f"{os.fspath(prefix)}.json") as file:
        json.dump(dataclasses.asdict(info), file, indent=2)
        file.write("\n")


def write_dictionary(info: UnitsInfo, stem: str) -> None:
    """The dictionary beside a stream's files, where its format has one."""
    if info.format in DICTIONARIES:
        path = os.path.join(os.path.dirname(stem), DICTIONARIES[info.format])
        with atomic_text(path) as file:
            file.writelines(f"{unit} 1\n" for unit in range(info.scheme.size))


class RowEncoder:
    """Makes what is written of a row's codes."""

    def __init__(self, info: UnitsInfo) -> None:
        self.info, self.scheme = info, info.scheme

    def __call__(self, codes: np.ndarray) -> list[tuple[bytes, int, bytes]]:
        """For each stream: the row as it stands in its file, its number of units, and the line of counts."""
        found = []
        for stream, units in enumerate(self.scheme.units(codes)):
            line = b""
            if self.info.dedup:
                units, counts = collapse(units, self.scheme.step)
                line = _numbers(counts)
            found.append((self._row(units, stream), len(units), line))
        return found

    def _row(self, units: np.ndarray, stream: int) -> bytes:
        if self.info.format == "km":
            return _numbers(units)
        if self.info.format == "text":
            return to_characters(units + self.scheme.first_character(stream)).encode() + b"\n"
        return np.append(units + SPECIAL_SYMBOLS, END_OF_LINE).astype(self.info.dtype).tobytes()


def _numbers(values: np.ndarray) -> bytes:
    return (" ".join(map(str, values.tolist())) + "\n").encode()


def read_rows(prefix: str | os.PathLike[str], info: UnitsInfo | None = None) -> Iterator[np.ndarray]:
    """The codes of each row (n x levels, int64) of ``{prefix}.json`` and its files, one row in memory at a time.

    Raises:
        InputError: files are missing, have another number of rows than the json, or hold what is no unit.
    """
    prefix = os.fspath(prefix)
    info = info or read_units_info(prefix)
    paths = [f"{stem}.{FORMATS[info.format][0]}" for stem in info.stems(prefix)]
    streams = [_units(info, stem, number) for number, stem in enumerate(info.stems(prefix))]
    rows = 0
    for parts in zip_longest(*streams):
        short = [path for path, part in zip(paths, parts, strict=True) if part is None]
        if short or rows == info.rows:
            raise _out_of_step(short[0] if short else paths[0], rows, bool(short), prefix, info)
        rows += 1
        try:
            yield info.scheme.codes(list(parts))
        except UnitError as error:
            raise InputError(f"{paths[0]}, line {rows}: {error}") from None
    if rows < info.rows:
        raise _out_of_step(paths[0], rows, True, prefix, info)


def _out_of_step(path: str, rows: int, short: bool, prefix: str, info: UnitsInfo) -> InputError:
    return InputError(
        f"{path}: {'' if short else 'more than '}{rows} lines; expected {info.rows}, one a row of the manifest "
        f"(sha256 {info.codes.manifest_sha256[:12]}), as {prefix}.json says"
    )


def _units(info: UnitsInfo, stem: str, stream: int) -> Iterator[np.ndarray]:
    """Units of each line of a stream, repeated as their counts say."""
    lines = _lines_of_units(info, stem, stream)
    if not info.dedup:
        yield from lines
        return
    counts = (_parsed(line, f"{stem}.counts", number) for number, line in _lines(f"{stem}.counts"))
    for number, (units, repeated) in enumerate(zip_longest(lines, counts), 1):
        if units is None or repeated is None:
            raise InputError(f"{stem}.counts: not as many lines as its units have; expected one a row of the manifest")
        try:
            yield expand(units, repeated, info.scheme.step)
        except UnitError as error:
            raise InputError(f"{stem}.counts, line {number}: {error}") from None


def _lines_of_units(info: UnitsInfo, stem: str, stream: int) -> Iterator[np.ndarray]:
    if info.format == "km":
        yield from (_parsed(line, f"{stem}.km", number) for number, line in _lines(f"{stem}.km"))
    elif info.format == "text":
        first = info.scheme.first_character(stream)
        yield from (from_characters(line) - first for _, line in _lines(f"{stem}.txt"))
    else:
        items = IndexedItems(stem, info.dtype)
        for number in range(len(items)):
            item = items[number]
            if not len(item) or item[-1] != END_OF_LINE:
                raise InputError(f"{stem}.bin, item {number + 1}: no end of a line; expected {END_OF_LINE} at last")
            yield item[:-1] - SPECIAL_SYMBOLS


def _lines(path: str) -> Iterator[tuple[int, str]]:
    try:
        with open(path, encoding="utf-8", newline="\n") as file:
            for number, line in enumerate(file, 1):
                yield number, line.rstrip("\r\n")
    except OSError as error:
        raise InputError(f"{path}: cannot read these units: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 ({error.reason}); expected lines of units") from None


def _parsed(line: str, path: str, number: int) -> np.ndarray:
    try:
        return np.array(line.split(), dtype=np.int64)
    except (ValueError, OverflowError):
        bad = next((word for word in line.split() if not word.isdecimal()), max(line.split(), key=len))
        raise InputError(f"{path}, line {number}: {bad[:40]!r}; expected whole numbers with blanks between") from None


def write_codes(
    prefix: str | os.PathLike[str], out: str | os.PathLike[str], overwrite: bool = False
) -> tuple[str, CodesInfo, int]:
    """Units back to codes: ``{out}/{split}.codes.{bin,idx,json}`` of ``{split}.units`` at ``prefix``, byte for byte.

    Args:
        prefix, out: see above.
        overwrite: codes of another checkpoint, manifest or kind may be replaced.

    Returns:
        The path of the codes, what they are (units of a single level become codes of one codebook), and their rows.

    Raises:
        InputError: units that :func:`read_rows` refuses, or codes that must not be replaced.
    """
    prefix = os.fspath(prefix)
    info = read_units_info(prefix)
    codes_info = dataclasses.replace(info.codes, num_codebooks=len(info.scheme.levels))
    codes_prefix = os.path.join(out, os.path.basename(prefix).removesuffix(".units") + ".codes")
    if os.path.exists(f"{codes_prefix}.json") and not overwrite:
        check_settings(codes_prefix, "codes", read_info(codes_prefix), codes_info)
    sizes: list[int] = []
    with atomic_binary(Path(f"{codes_prefix}.bin")) as file:
        for codes in read_rows(prefix, info):
            file.write(codes.astype("<u2").tobytes())
            sizes.append(codes.size)
        Path(f"{codes_prefix}.json").unlink(missing_ok=True)  # until the new one is there, no codes are complete
    write_index(codes_prefix, sizes, np.uint16)
    write_info(codes_prefix, codes_info)
    return codes_prefix, codes_info, len(sizes)


def units_summary(info: UnitsInfo) -> dict[str, Any]:
    """What files of units must have in common to be used together, by name."""
    codes = info.codes
    return {
        "checkpoint_sha256": codes.checkpoint_sha256,
        "num_codebooks": codes.num_codebooks,
        "codebook_size": codes.codebook_size,
        "level": info.level,
        "layout": info.layout,
    }


def check_alike(path: str, found: Mapping[str, Any], expected_path: str, expected: Mapping[str, Any]) -> None:
    """See that two things are of units that mean the same.

    Args:
        path, found: what describes the one, and its :func:`units_summary`.
        expected_path, expected: the other.

    Raises:
        InputError: they are not.
    """
    for name, value in expected.items():
        if found.get(name) != value:
            raise InputError(
                f"{path}: {name} {str(found.get(name))[:12]}; expected {str(value)[:12]} as in {expected_path}, for "
                "units that are used together mean the same"
            )
