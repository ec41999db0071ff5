"""The blocks of a corpus: some rows of a manifest, an archive, or a row group of a parquet file.

The division depends on the input only.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from bridle_fairseq.data.artifacts.sharding import plan_blocks
from bridle_fairseq.data.manifests.archive import COMPRESSED, archive_members
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.data.modality import Modality
from bridle_fairseq.inference.embed import list_files
from bridle_fairseq.prepare.scan import FoundFile, read_sizes
from bridle_fairseq.utils.errors import InputError

try:
    import pyarrow
    import pyarrow.parquet as parquet
except ModuleNotFoundError:
    sys.exit("error: this script needs pyarrow; install it: pip install 'bridle_fairseq[parquet]'")

KINDS = (".tsv", ".tar", ".parquet")
ROWS_AT_ONCE = 64


class Block(NamedTuple):
    """A block of the input."""

    number: int
    source: str  # a manifest, an archive or a parquet file
    group: int  # row group of a parquet file
    first: int  # rows of a manifest or a parquet file, [first, stop)
    stop: int


class Clips(NamedTuple):
    """The files of a block, as the package reads them."""

    manifest: Manifest
    rows: list[range]  # of the manifest; no batch has clips of two ranges, as in the commands
    names: dict[int, str]  # row of the manifest -> name of the file
    numbers: dict[int, int]  # row of the manifest -> row of the source
    skipped: list[tuple[str, str]]  # (name, reason) of files that the manifest lacks


def plan(sources: Sequence[str], column: str | None) -> tuple[list[Block], str | None, str]:
    """The blocks of an input, the column with the media of parquet files, and a hash of the input.

    Raises:
        InputError: no such file, files of two kinds, or a manifest beside others.
    """
    paths = [path for source in sources for path in _files(source)]
    kinds = sorted({Path(path).suffix.lower() for path in paths})
    if kinds == [".tsv"] and len(paths) == 1:
        manifest = _manifest(paths[0])
        manifest.check_files()
        ranges = plan_blocks(manifest.sizes)
        return [Block(n, paths[0], 0, r.start, r.stop) for n, r in enumerate(ranges)], None, manifest.fingerprint()
    if len(kinds) != 1 or kinds == [".tsv"]:
        raise InputError(f"{' '.join(sources)}: expected one manifest, or files of one kind, .tar or .parquet")
    if kinds == [".parquet"]:
        blocks, column = _row_groups(paths, column)
    else:
        blocks = [Block(number, path, 0, 0, 0) for number, path in enumerate(paths)]
    sizes = "".join(f"{os.path.basename(path)}\t{os.path.getsize(path)}\n" for path in paths)
    return blocks, column, hashlib.sha256(sizes.encode()).hexdigest()


def _files(source: str) -> list[str]:
    """The file, or the .tar and .parquet files of a folder, sorted."""
    if os.path.isdir(source):
        found = sorted(str(path) for kind in KINDS[1:] for path in Path(source).rglob(f"*{kind}"))
        if not found:
            raise InputError(
                f"{source}: no .tar or .parquet file in this folder; list other files with bridle manifest"
            )
        return found
    if source.lower().endswith(COMPRESSED):
        raise InputError(f"{source}: a compressed archive; expected .tar, whose files have offsets")
    if not source.lower().endswith(KINDS):
        raise InputError(f"{source}: expected a manifest .tsv, .tar or .parquet files, or a folder of these")
    if not os.path.isfile(source):
        raise InputError(f"{source}: no such file")
    return [source]


def _row_groups(paths: Sequence[str], column: str | None) -> tuple[list[Block], str]:
    blocks: list[Block] = []
    for path in paths:
        with reading(path), parquet.ParquetFile(path) as file:
            column = _media_column(path, file.schema_arrow, column)
            first = 0
            for group in range(file.num_row_groups):
                stop = first + file.metadata.row_group(group).num_rows
                if stop > first:
                    blocks.append(Block(len(blocks), path, group, first, stop))
                first = stop
    if not blocks:
        raise InputError(f"{', '.join(paths)}: no rows")
    assert column is not None
    return blocks, column


def _media_column(path: str, schema: Any, wanted: str | None) -> str:
    """The column with encoded files: binary, or a struct with ``bytes`` as in Hugging Face data sets."""

    def is_binary(kind: Any) -> bool:
        return pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)

    def has_media(kind: Any) -> bool:
        struct = pyarrow.types.is_struct(kind)
        return is_binary(kind) or (
            struct and kind.get_field_index("bytes") >= 0 and is_binary(kind.field("bytes").type)
        )

    media = [field.name for field in schema if has_media(field.type)]
    if wanted is None and len(media) == 1:
        return media[0]
    if wanted in media:
        return str(wanted)
    expected = f"{wanted!r} with encoded files" if wanted else "one with encoded files (binary, or a struct with bytes)"
    several = f"; --column chooses among {', '.join(media)}" if media else ""
    raise InputError(f"{path}: columns {', '.join(schema.names)}; expected {expected}{several}")


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Reads a parquet file within; what pyarrow says becomes one sentence with its path."""
    try:
        yield
    except pyarrow.ArrowException as error:
        raise InputError(f"{path}: cannot read this parquet file: {str(error).splitlines()[0][:200]}") from None


@contextmanager
def open_block(block: Block, modality: Modality, column: str | None, workers: int) -> Iterator[Clips]:
    """The files of a block. Those of a parquet file are copied to a temporary archive, which the package can read.

    Raises:
        InputError: the source cannot be read.
    """
    if block.source.lower().endswith(".tsv"):
        manifest, rows = _manifest(block.source), range(block.first, block.stop)
        yield Clips(manifest, [rows], {row: manifest.path(row) for row in rows}, {row: row for row in rows}, [])
    elif block.source.lower().endswith(".tar"):
        files = list_files([block.source], modality, workers)
        numbers = {row: row for row in range(len(files.names))}
        yield Clips(
            files.manifest, plan_blocks(files.manifest.sizes), dict(enumerate(files.names)), numbers, files.skipped
        )
    else:
        assert column is not None
        with tempfile.TemporaryDirectory(prefix="bridle-") as folder:
            yield _from_parquet(block, modality, column, workers, folder)


_manifests: dict[str, Manifest] = {}  # of this process: it is read once


def _manifest(path: str) -> Manifest:
    if path not in _manifests:
        _manifests[path] = Manifest.read(path)
    return _manifests[path]


def _from_parquet(block: Block, modality: Modality, column: str, workers: int, folder: str) -> Clips:
    names: dict[int, str] = {}  # row of the parquet file -> name
    skipped: list[tuple[str, str]] = []
    archive = os.path.join(folder, "clips.tar")
    with reading(block.source), parquet.ParquetFile(block.source) as file, tarfile.open(archive, "w") as tar:
        batches = file.iter_batches(ROWS_AT_ONCE, row_groups=[block.group], columns=[column])
        values = (value for batch in batches for value in batch.column(0).to_pylist())
        for row, value in enumerate(values, start=block.first):
            content, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
            names[row] = f"{block.source}/{path or row}"
            if not content:
                skipped.append((names[row], f"no bytes in column {column}, row {row}"))
                continue
            member = tarfile.TarInfo(str(row))
            member.size = len(content)
            tar.addfile(member, BytesIO(content))
    files = [FoundFile(name, f"{archive}:{place[0]}:{place[1]}") for name, *place in archive_members(archive)]
    scan = read_sizes("", files, modality.measure, workers)
    rows = {file.location(""): int(file.name) for file in files}
    skipped += [(names[rows[location]], reason) for location, reason in scan.failures]
    numbers = {row: int(file.name) for row, file in enumerate(scan.files)}
    manifest = Manifest("", [file.path for file in scan.files], scan.sizes)
    return Clips(manifest, plan_blocks(manifest.sizes), {row: names[n] for row, n in numbers.items()}, numbers, skipped)
