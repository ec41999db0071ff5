"""Queries of an index of features or codes: rows of the index, or files, which are embedded as its clips were."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bridle_fairseq.data.artifacts.codes import CachedCodes
from bridle_fairseq.data.artifacts.features import CachedFeatures
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.data.modalities import modality_of
from bridle_fairseq.data.modality import Modality, Reader
from bridle_fairseq.evaluation.retrieval import Bank, CodeBank, FeatureBank
from bridle_fairseq.inference.chunking import stored_chunking
from bridle_fairseq.inference.classify import unusable_file
from bridle_fairseq.inference.codes import CodeMaker, segments_of_codes
from bridle_fairseq.inference.extractors import EncoderFeatures, EncoderModel
from bridle_fairseq.inference.features import FeatureMaker
from bridle_fairseq.inference.pipeline import BatchOptions, SegmentReader
from bridle_fairseq.nn.code_tokenizer import CodeTokenizer
from bridle_fairseq.utils.errors import InputError

KINDS = (".features", ".codes")
Embeddings = tuple[Sequence[np.ndarray], list[tuple[int, str]]]  # vectors; (number, reason) of files without one


def open_bank(path: str, array: str | None, manifest: Manifest | None) -> Bank:
    """The index at a path.

    Args:
        path: a folder with one index, or the path of an index, with or without ``.json``.
        array: name of an array of features; None: the first that is pooled.
        manifest: manifest of the index; None: any.

    Raises:
        InputError: no index or several, of another manifest, or without this array.
    """
    prefix = _index_prefix(path)
    if prefix.endswith(".codes"):
        if array:
            raise InputError(f"--array {array} with codes; expected features, of which there may be several")
        return CodeBank(CachedCodes(prefix, manifest))
    return FeatureBank(CachedFeatures(prefix, manifest), array)


def _index_prefix(path: str) -> str:
    if not os.path.isdir(path):
        prefix = path.removesuffix(".json")
        if not prefix.endswith(KINDS):
            raise InputError(f"{path}: no such folder; expected one of bridle features or bridle tokenize")
        return prefix
    indices = sorted(str(file) for kind in KINDS for file in Path(path).glob(f"*{kind}.json"))
    if len(indices) != 1:
        names = ", ".join(file.removesuffix(".json") for file in indices) or "none"
        raise InputError(f"{path}: {len(indices)} indices ({names}); expected one, or the path of one of them")
    return indices[0].removesuffix(".json")


def rows_of_queries(queries: Sequence[str], bank: Bank, manifest: Manifest | None) -> list[int | None]:
    """The row of the index that each query is: a number, or a file of the manifest. None for any other file.

    Raises:
        InputError: a number that is not a row.
    """
    is_number = [query.isdecimal() and not os.path.exists(query) for query in queries]
    paths = {os.path.abspath(query) for query, number in zip(queries, is_number, strict=True) if not number}
    row_of_path: dict[str, int] = {}
    if manifest is not None and paths:
        all_paths = ((os.path.abspath(manifest.path(row)), row) for row in range(len(manifest)))
        row_of_path = {path: row for path, row in all_paths if path in paths}
    rows: list[int | None] = []
    for query, number in zip(queries, is_number, strict=True):
        if number and int(query) >= bank.rows:
            raise InputError(f"row {query} of {bank.prefix}: expected 0 to {bank.rows - 1}")
        rows.append(int(query) if number else row_of_path.get(os.path.abspath(query)))
    return rows


def query_vectors(
    queries: Sequence[str], rows: Sequence[int | None], bank: Bank, embedded: Sequence[np.ndarray]
) -> np.ndarray:
    """Raw vectors of the queries, Q x width.

    Args:
        queries: as the user gave them.
        rows: rows of the index, None for files.
        bank: the index.
        embedded: raw vectors of the files, in order.

    Raises:
        InputError: a row that could not be read when the index was made.
    """
    vectors, of_files = [], iter(embedded)
    for query, row in zip(queries, rows, strict=True):
        vectors.append(next(of_files) if row is None else bank.raw(np.array([row]))[0])
        if np.isnan(vectors[-1]).any():
            raise InputError(f"{query}: this row of {bank.prefix} could not be read; expected another query")
    return np.stack(vectors)


def embed_files(
    files: Sequence[str], bank: Bank, model: EncoderModel, task_cfg: Any, options: BatchOptions
) -> Sequence[np.ndarray]:
    """Raw vectors of files, computed as those of the index were.

    Args:
        files: paths.
        bank: the index.
        model: that made the index, in eval mode on its device.
        task_cfg: configuration of the task it was trained with.
        options: how clips are read and batched.

    Raises:
        InputError: a file cannot be used, or the features of the index are not an encoder's.
    """
    modality = modality_of(task_cfg)
    manifest, reader = _manifest_of(files, modality), modality.reader(task_cfg)
    if isinstance(bank, FeatureBank):
        vectors, skipped = _embed_features(bank, model, reader, manifest, options)
    else:
        assert isinstance(bank, CodeBank) and isinstance(model, CodeTokenizer)
        vectors, skipped = _embed_codes(bank, model, reader, manifest, options)
    if skipped:
        number, reason = skipped[0]
        raise InputError(f"{files[number]}: {reason}; the model takes {modality.files}")
    return vectors


def _manifest_of(files: Sequence[str], modality: Modality) -> Manifest:
    sizes = []
    for path in files:
        with unusable_file(path, modality.files):
            sizes.append(modality.measure(path))
    return Manifest("", [os.path.abspath(path) for path in files], sizes)


def _embed_features(
    bank: FeatureBank, model: EncoderModel, reader: Reader, manifest: Manifest, options: BatchOptions
) -> Embeddings:
    array = bank.array
    if array.source != "encoder":
        raise InputError(
            f"{bank.prefix}.json: features of {array.source}; expected those of an encoder, to ask with files"
        )
    chunking = stored_chunking(bank.info.grid, model.front_end, reader)
    extractor = EncoderFeatures(model, [array.layer], [array.pooling])
    with SegmentReader(manifest, reader, chunking, options.workers) as segments:
        maker = FeatureMaker(
            model.front_end, [extractor], segments, options.limits, bank.info.dtype, next(model.parameters()).device
        )
        result = maker.make(range(len(manifest)))
    return list(result.arrays[array.name].astype(np.float64)), result.skipped


def _embed_codes(
    bank: CodeBank, model: CodeTokenizer, reader: Reader, manifest: Manifest, options: BatchOptions
) -> Embeddings:
    with SegmentReader(manifest, reader, segments_of_codes(bank.info), options.workers) as segments:
        result = CodeMaker(model, segments, options.limits).make(range(len(manifest)))
    ends = result.arrays["sizes"].cumsum()
    rows = np.split(result.arrays["codes"].astype(np.int64), ends[:-1])
    return [bank.histogram(row.reshape(-1, bank.info.num_codebooks)) for row in rows], result.skipped
