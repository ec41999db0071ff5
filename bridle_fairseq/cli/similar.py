"""``bridle similar``: the clips of an index most like others, by embeddings or by codes."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from bridle_fairseq.cli.corpus_run import add_batch_arguments, check_batch_arguments
from bridle_fairseq.utils.errors import InputError

HELP = "the clips of an index most like a file or one of its own, by embeddings or by codes"
KINDS = (".features", ".codes")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bridle similar``."""
    parser.add_argument(
        "index", help="folder of `bridle features` or `bridle tokenize`; of several splits, DIR/{split}.features"
    )
    parser.add_argument("queries", nargs="+", metavar="QUERY", help="files, or rows of the index (numbers from 0)")
    parser.add_argument("--top", type=int, default=5, metavar="N", help="clips for each query (%(default)s)")
    parser.add_argument(
        "--manifest", metavar="TSV", help="of the index: names its clips, and knows which files are its"
    )
    parser.add_argument("--checkpoint", metavar="PT", help="that made the index, for files that are not in it")
    parser.add_argument("--array", metavar="NAME", help="of several features, such as mean.layer4 (default: the first)")
    parser.add_argument("--exact", action="store_true", help="compare all clips, though faiss is installed")
    add_batch_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Print each query, and under it the clips most like it with their similarities."""
    check_batch_arguments(args)
    if args.top < 1:
        raise InputError(f"--top is {args.top}; expected at least 1")
    import numpy as np

    from bridle_fairseq.data.manifests.manifest import Manifest
    from bridle_fairseq.evaluation.retrieval import candidates_exactly, nearest

    manifest = Manifest.read(args.manifest) if args.manifest else None
    bank = open_index(args.index, args.array, manifest)
    own = _own_rows(args.queries, bank, manifest)
    files = [query for query, row in zip(args.queries, own, strict=True) if row is None]
    made = iter(_vectors(args, bank, files) if files else ())
    vectors = [next(made) if row is None else bank.raw(np.array([row]))[0] for row in own]
    for query, vector in zip(args.queries, vectors, strict=True):
        if np.isnan(vector).any():
            raise InputError(f"{query}: this row of {args.index} could not be read; expected another query")
    found = nearest(bank, np.stack(vectors), args.top, own, candidates_exactly if args.exact else None)
    for query, neighbours in zip(args.queries, found, strict=True):
        print(query)
        for row, similarity in neighbours:
            print(f"  {similarity:.4f}  {manifest.path(row) if manifest else f'row {row}'}")
    return 0


def open_index(path: str, array: str | None, manifest: Any) -> Any:
    """The :class:`bridle_fairseq.evaluation.retrieval.Bank` at a path.

    Raises:
        InputError: there is none, or several, or it is of another manifest.
    """
    from bridle_fairseq.data.artifacts.codes import CachedCodes
    from bridle_fairseq.data.artifacts.features import Features
    from bridle_fairseq.evaluation.retrieval import CodeBank, FeatureBank

    prefix = _prefix(path)
    if prefix.endswith(".codes"):
        if array:
            raise InputError(f"--array {array} with codes; expected features, of which there may be several")
        bank: Any = CodeBank(CachedCodes(prefix, manifest))
    else:
        bank = FeatureBank(Features(prefix, manifest), array)
    return bank


def _prefix(path: str) -> str:
    if not os.path.isdir(path):
        prefix = path.removesuffix(".json")
        if not prefix.endswith(KINDS):
            raise InputError(f"{path}: no such folder; expected one of bridle features or bridle tokenize")
        return prefix
    found = sorted(str(file) for kind in KINDS for file in Path(path).glob(f"*{kind}.json"))
    if len(found) != 1:
        names = ", ".join(file.removesuffix(".json") for file in found) or "none"
        raise InputError(f"{path}: {len(found)} indices ({names}); expected one, or the path of one of them")
    return found[0].removesuffix(".json")


def _own_rows(queries: list[str], bank: Any, manifest: Any) -> list[int | None]:
    """The row of the index that each query is; None where it is a file from elsewhere."""
    numbers = [query.isdecimal() and not os.path.exists(query) for query in queries]
    wanted = {os.path.abspath(query) for query, number in zip(queries, numbers, strict=True) if not number}
    known: dict[str, int] = {}
    if manifest is not None and wanted:
        paths = ((os.path.abspath(manifest.path(row)), row) for row in range(len(manifest)))
        known = {path: row for path, row in paths if path in wanted}
    found: list[int | None] = []
    for query, number in zip(queries, numbers, strict=True):
        if number and int(query) >= bank.rows:
            raise InputError(f"row {query} of {bank.prefix}: expected 0 to {bank.rows - 1}")
        found.append(int(query) if number else known.get(os.path.abspath(query)))
    return found


def _vectors(args: argparse.Namespace, bank: Any, files: list[str]) -> Any:
    """Vectors of files that are not in the index, made as its own were."""
    from bridle_fairseq.data.artifacts.provenance import check_checkpoint
    from bridle_fairseq.data.modality import modality_of
    from bridle_fairseq.evaluation.retrieval import FeatureBank
    from bridle_fairseq.inference.pipeline import BatchLimits
    from bridle_fairseq.models.checkpoints import ENCODERS, load_model
    from bridle_fairseq.utils.device import choose_device

    if not args.checkpoint:
        raise InputError(f"{files[0]}: not a row of the index; expected --checkpoint, the one that made it")
    of_features = isinstance(bank, FeatureBank)
    what = "features" if of_features else "codes"
    check_checkpoint(f"{bank.prefix}.json", what, bank.info.checkpoint_sha256, args.checkpoint)
    model, task = load_model(args.checkpoint, choose_device(args.device), ENCODERS if of_features else ("bridle",))
    modality, limits = modality_of(task.cfg), BatchLimits(args.batch_size, args.max_tokens)
    reader = modality.reader(task.cfg)
    manifest = _manifest_of(files, modality)
    make = _features_of if of_features else _histograms_of
    vectors, skipped = make(bank, model, reader, manifest, limits, args.workers)
    if skipped:
        raise InputError(f"{files[skipped[0][0]]}: {skipped[0][1]}; expected one of {modality.files}")
    return vectors


def _manifest_of(files: list[str], modality: Any) -> Any:
    from bridle_fairseq.data.manifests.manifest import Manifest
    from bridle_fairseq.utils.errors import DecodeError

    sizes = []
    for path in files:
        try:
            sizes.append(modality.measure(path))
        except DecodeError as error:
            raise InputError(f"{path}: {error}; expected one of {modality.files}") from None
    return Manifest("", [os.path.abspath(path) for path in files], sizes)


def _features_of(bank: Any, model: Any, reader: Any, manifest: Any, limits: Any, workers: int) -> Any:
    from bridle_fairseq.inference.extractors import Chunking, EncoderFeatures, FeatureMaker, Whole
    from bridle_fairseq.inference.pipeline import SegmentReader

    array, grid = bank.array, bank.info.grid
    if array.source != "encoder":
        raise InputError(
            f"{bank.prefix}.json: features of {array.source}; expected those of an encoder, to ask with files"
        )
    cut: Any = Whole(model.front_end, reader, grid)
    if "chunk_patches" in grid:
        cut = Chunking(model.front_end, int(grid["chunk_patches"]), int(grid["overlap_patches"]))
    extractor = EncoderFeatures(model, [array.layer], [array.pooling])
    device = next(model.parameters()).device
    with SegmentReader(manifest, reader, cut, workers) as segments:
        maker = FeatureMaker(model.front_end, [extractor], segments, limits, bank.info.dtype, device)
        part = maker.make(range(len(manifest)))
    return part.arrays[array.name].astype("f8"), part.skipped


def _histograms_of(bank: Any, model: Any, reader: Any, manifest: Any, limits: Any, workers: int) -> Any:
    import numpy as np

    from bridle_fairseq.inference.pipeline import CodeMaker, SegmentReader, segments_of_codes

    with SegmentReader(manifest, reader, segments_of_codes(bank.info), workers) as segments:
        part = CodeMaker(model, segments, limits).make(range(len(manifest)))
    ends = part.arrays["sizes"].cumsum()
    rows = np.split(part.arrays["codes"].astype(np.int64), ends[:-1])
    return [bank.histogram(row.reshape(-1, bank.info.num_codebooks)) for row in rows], part.skipped
