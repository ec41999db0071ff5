"""Vectors of files: a row for each file, in a table of one of three kinds."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.data.modality import Modality
from bridle_fairseq.inference.chunking import Chunking, WholeClip
from bridle_fairseq.inference.extractors import Extractor
from bridle_fairseq.inference.features import extract_corpus
from bridle_fairseq.inference.pipeline import BatchOptions
from bridle_fairseq.prepare.scan import FoundFile, choose_files, count_endings, list_source, read_sizes
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.files import atomic_binary, atomic_text
from bridle_fairseq.utils.optional import optional_import
from bridle_fairseq.utils.progress import progress_bar
from bridle_fairseq.utils.spreadsheet import write_table

ENDINGS = (".npy", ".csv", ".parquet")


class FileList(NamedTuple):
    """Files to embed, as they were named, and what is left out."""

    manifest: Manifest
    names: list[str]  # of the rows
    skipped: list[tuple[str, str]]  # (name, reason)
    others: str  # how many files of folders are of another kind, by their endings; "" for none


@dataclass(frozen=True)
class Vectors:
    """A row for each file.

    Attributes:
        names: of the files.
        values: files x D float32.
        columns: D names of the values, such as ``mean.layer4.0``.
        skipped: (name, reason) of files without a row.
    """

    names: list[str]
    values: np.ndarray
    columns: list[str]
    skipped: list[tuple[str, str]]


def list_files(sources: Sequence[str], modality: Modality, workers: int = 4) -> FileList:
    """The files that were named: files, folders and archives (searched, sorted), or the rows of one manifest.

    Raises:
        InputError: a manifest beside other sources, or a folder without a file of the modality.
    """
    manifests = [source for source in sources if source.endswith(".tsv") and os.path.isfile(source)]
    if manifests:
        if len(sources) > 1:
            raise InputError(f"{manifests[0]}: a manifest beside other files; expected it alone")
        manifest = Manifest.read(manifests[0])
        return FileList(manifest, [manifest.path(row) for row in range(len(manifest))], [], "")
    files: list[FoundFile] = []
    skipped: list[tuple[str, str]] = []
    others: list[FoundFile] = []
    for source in sources:
        if not os.path.isdir(source) and not source.lower().endswith((".zip", ".tar")):
            files.append(FoundFile(source, os.path.abspath(source)))
            continue
        listed = list_source(source)
        skipped += listed.failures
        chosen, rest = choose_files(source, listed.files, modality.extensions)
        files += [FoundFile(os.path.join(source, f.name), os.path.join(listed.root, f.path)) for f in chosen]
        unread = [file for file in rest if file.ending[1:] in modality.other_extensions]
        reason = f"other extension; {modality.advice or 'name the file itself to try it'}"
        skipped += [(os.path.join(source, file.name), reason) for file in unread]
        others += [file for file in rest if file.ending[1:] not in modality.other_extensions]
    with progress_bar(len(files), "reading headers", "files", in_files=False) as bar:
        scan = read_sizes("", files, modality.measure, workers, bar.update)
    names = {file.location(""): file.name for file in files}
    skipped += [(names[path], reason) for path, reason in scan.failures]
    manifest = Manifest("", [file.path for file in scan.files], scan.sizes)
    return FileList(manifest, [file.name for file in scan.files], skipped, count_endings(others) if others else "")


def embed_files(
    extractor: Extractor, chunking: Chunking | WholeClip, files: FileList, options: BatchOptions
) -> Vectors:
    """Vectors of files. The arrays of the extractor stand beside one another; unusable files have no row.

    Args:
        extractor: computes pooled features.
        chunking: how clips are divided into segments.
        files: see :func:`list_files`.
        options: how files are read and batched; ``max_skipped`` is not looked at.

    Raises:
        InputError: not one file can be used.
    """
    skipped = list(files.skipped)

    def skip(row: int, reason: str) -> None:
        skipped.append((files.names[row], reason))

    every = replace(options, max_skipped=1.0)
    values = np.zeros((0, 1), np.float32)
    if len(files.manifest):
        arrays = extract_corpus([extractor], chunking, files.manifest, every, "embed", on_skipped=skip)
        values = np.concatenate([arrays[array] for array in extractor.arrays], axis=1)  # files x D
    usable = np.asarray(np.isfinite(values).all(axis=1))
    if not usable.any():
        named = f"; {skipped[0][0]}: {skipped[0][1]}" if skipped else ""
        raise InputError(f"not one of {len(files.names) + len(files.skipped)} files can be used{named}")
    names = [name for name, use in zip(files.names, usable.tolist(), strict=True) if use]
    columns = [f"{array.name}.{number}" for array in extractor.arrays for number in range(array.width)]
    return Vectors(names, values[usable], columns, skipped)


def check_output(path: str) -> None:
    """Check that vectors can be written under this name.

    Raises:
        InputError: an unknown ending, or pyarrow is missing.
    """
    if not path.lower().endswith(ENDINGS):
        raise InputError(f"--out is {path}; expected a name that ends with {', '.join(ENDINGS)}")
    if path.lower().endswith(".parquet"):
        with optional_import(f"{path} needs pyarrow", "'bridle_fairseq[parquet]'"):
            import pyarrow.parquet  # noqa: F401


def write_vectors(vectors: Vectors, path: str) -> list[str]:
    """Write vectors, completely or not at all; files of the same names are replaced. The paths of what was written.

    * ``x.npy``: files x D float32; ``x.files.txt`` names the file of each row.
    * ``x.csv``: a line for each file: ``file``, then D columns.
    * ``x.parquet``: the columns ``file`` (string) and ``embedding`` (list of D float32).
    """
    check_output(path)
    if path.lower().endswith(".csv"):
        write_table(path, _table(vectors))
        return [path]
    if path.lower().endswith(".npy"):
        listed = f"{path[: -len('.npy')]}.files.txt"
        with atomic_text(listed) as names, atomic_binary(path) as file:
            names.writelines(f"{name}\n" for name in vectors.names)
            np.save(file, vectors.values)
        return [path, listed]
    import pyarrow
    import pyarrow.parquet

    flat = pyarrow.array(vectors.values.ravel(), pyarrow.float32())
    lists = pyarrow.FixedSizeListArray.from_arrays(flat, vectors.values.shape[1])
    table = pyarrow.table({"file": pyarrow.array(vectors.names, pyarrow.string()), "embedding": lists})
    with atomic_binary(path) as file:
        pyarrow.parquet.write_table(table, file)
    return [path]


def _table(vectors: Vectors) -> Iterator[list[object]]:
    yield ["file", *vectors.columns]
    for name, values in zip(vectors.names, vectors.values, strict=True):
        yield [name, *map(str, values)]  # the shortest text that is read as the same float32
