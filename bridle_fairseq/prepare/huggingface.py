"""Hugging Face datasets in parquet files, with the media inside: packed into tar archives that manifests address.

A file is named after its split, ``data/train-00000-of-00004.parquet``. A column of sounds or images is a struct of
``bytes`` and ``path``. The names of classes (``ClassLabel``) are in the file's metadata.
"""

from __future__ import annotations

import io
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bridle_fairseq.prepare.tables import SPLIT_NAMES, Entry
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.files import atomic_binary
from bridle_fairseq.utils.json_files import parse_json
from bridle_fairseq.utils.names import checked_name
from bridle_fairseq.utils.optional import optional_import

SHARD = re.compile(r"^(?P<split>.+?)(-\d+-of-\d+)?(-[0-9a-f]{8,})?\.parquet$")
LABEL_COLUMNS = ("label", "labels", "category", "class", "fine_label", "keyword", "intent_class")
ENDINGS = {  # by the first bytes, for files without a name
    b"RIFF": "wav",
    b"fLaC": "flac",
    b"OggS": "ogg",
    b"ID3": "mp3",
    b"\xff\xfb": "mp3",
    b"\xff\xf3": "mp3",
    b"\xff\xd8": "jpg",
    b"\x89PNG": "png",
    b"GIF8": "gif",
    b"II*\0": "tif",
    b"BM": "bmp",
}
ROWS_AT_ONCE = 64


class PackedSplits(NamedTuple):
    """What was packed."""

    entries: dict[str, Entry]  # name of a file in the folder of archives -> its split and classes
    without_media: int  # rows


def pack(
    source: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    media_column: str | None = None,
    label_column: str | None = None,
) -> PackedSplits:
    """Pack the media of all parquet files below a folder into ``{folder}/{file}.tar``, and read their labels.

    Args:
        source: folder with the parquet files.
        folder: gets an archive for each of them.
        media_column: column of the sounds or images; None: the first one with ``bytes`` and ``path``.
        label_column: column of classes; None: a usual name, or no labels.

    Raises:
        InputError: no parquet file, another format, or a column is missing.
    """
    with optional_import("parquet files need pyarrow", "'bridle_fairseq[parquet]'"):
        import pyarrow.parquet
    source = Path(source)
    files = sorted(source.rglob("*.parquet"))
    if not files:
        saved = next(source.rglob("*.arrow"), None)
        known = f"; {saved} is of save_to_disk: write it with to_parquet first" if saved else ""
        raise InputError(f"{source}: no *.parquet file{known}")
    entries: dict[str, Entry] = {}
    without = 0
    for number, path in enumerate(files):
        match = SHARD.match(path.name)
        assert match is not None
        split = SPLIT_NAMES.get(match["split"], match["split"])
        checked_name(split, f"{path}, its split")
        archive = f"{number:05d}-{path.stem}.tar"
        try:
            with pyarrow.parquet.ParquetFile(path) as file, atomic_binary(Path(folder) / archive) as out:
                media = _column(path, file.schema_arrow, media_column)
                labels = _label_column(path, file.schema_arrow, label_column)
                names = _class_names(file.schema_arrow.metadata or {}, labels)
                columns = [media, *([labels] if labels else [])]
                with tarfile.open(fileobj=out, mode="w") as tar:
                    for row, values in enumerate(_rows(file, columns)):
                        content = (values[media] or {}).get("bytes")
                        if not content:
                            without += 1
                            continue
                        name = f"{row:08d}.{_ending((values[media] or {}).get('path'), content)}"
                        member = tarfile.TarInfo(name)
                        member.size = len(content)
                        tar.addfile(member, io.BytesIO(content))
                        entries[f"{archive}/{name}"] = Entry(_classes(values.get(labels or ""), names), split)
        except pyarrow.ArrowException as error:
            raise InputError(f"{path}: cannot read this parquet file: {str(error).splitlines()[0][:200]}") from None
    return PackedSplits(entries, without)


def _rows(file: Any, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    for batch in file.iter_batches(batch_size=ROWS_AT_ONCE, columns=list(columns)):
        yield from batch.to_pylist()


def _column(path: Path, schema: Any, wanted: str | None) -> str:
    """The column of media."""
    structs = {
        field.name: {part.name for part in field.type} for field in schema if str(field.type).startswith("struct")
    }
    media = [name for name, parts in structs.items() if "bytes" in parts]
    if wanted in media or (wanted is None and media):
        return wanted or media[0]
    expected = f"{wanted!r} with bytes in it" if wanted else "one with bytes in it, such as audio or image"
    raise InputError(f"{path}: columns {', '.join(schema.names)}; expected {expected}")


def _label_column(path: Path, schema: Any, wanted: str | None) -> str | None:
    if wanted is None:
        return next((name for name in LABEL_COLUMNS if name in schema.names), None)
    if wanted not in schema.names:
        raise InputError(f"{path}: columns {', '.join(schema.names)}; expected {wanted!r}")
    return wanted


def _class_names(metadata: dict[bytes, bytes], column: str | None) -> list[str]:
    """The names of a ClassLabel column, or of a sequence of them; none if it is of another kind."""
    try:
        feature = parse_json(metadata[b"huggingface"])["info"]["features"][column]
        feature = feature.get("feature", feature)
        return [str(name) for name in feature["names"]]
    except (KeyError, TypeError, ValueError, AttributeError):
        return []


def _classes(value: Any, names: Sequence[str]) -> list[str]:
    """The classes of a row: their names, or the values themselves."""
    values = value if isinstance(value, list) else [value]
    known = [item for item in values if item is not None and item != -1]  # -1: ClassLabel without a class
    return [names[item] if isinstance(item, int) and 0 <= item < len(names) else str(item) for item in known]


def _ending(path: object, content: bytes) -> str:
    """Ending of a file's name, from its path or its first bytes."""
    ending = os.path.splitext(path)[1][1:].lower() if isinstance(path, str) else ""
    if ending.isascii() and ending.isalnum() and len(ending) <= 5:
        return ending
    return next((ending for start, ending in ENDINGS.items() if content.startswith(start)), "bin")
