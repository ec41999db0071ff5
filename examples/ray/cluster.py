"""What embed.py and tokenize_clips.py share: a Ray cluster computes the blocks of a corpus.

Each finished block is one parquet file that appears atomically, so a run that was killed goes on with what is missing.
Ray's own writer is of no use for that: it divides the rows as they come, and a kill leaves half a file.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import blocks
import numpy as np
import pyarrow
import pyarrow.parquet as parquet
from blocks import Block

from bridle_fairseq.cli.arguments import MODEL, add_max_skipped_argument
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.data.manifests.skipped import above_limit
from bridle_fairseq.data.modalities import modality_named
from bridle_fairseq.data.modality import Modality
from bridle_fairseq.inference.pipeline import BatchOptions
from bridle_fairseq.utils.errors import InputError, sentence_of
from bridle_fairseq.utils.files import atomic_binary, atomic_text, check_writable
from bridle_fairseq.utils.json_files import parse_json
from bridle_fairseq.utils.optional import optional_import

# Readers of folders of parquet files, such as pandas and pyarrow, ignore names that begin with an underscore.
SETTINGS, SKIPPED = "_settings.json", "_skipped.tsv"
METADATA = b"bridle_skipped"  # of a block's file: a JSON list of (file, reason)
TASKS_PER_ACTOR = 64  # blocks that are given to an actor at once are 1/64 of its share


def block_path(out: str, number: int) -> str:
    """The parquet file of a block."""
    return os.path.join(out, f"{number:06d}.parquet")


def keep_settings(out: str, settings: dict[str, Any]) -> None:
    """Write the settings beside the blocks, or compare them with those that are there.

    Raises:
        InputError: blocks of other settings are there.
    """
    path = os.path.join(out, SETTINGS)
    expected = json.loads(json.dumps(settings))
    try:
        stored = parse_json(Path(path).read_bytes())
    except FileNotFoundError:
        if any(Path(out).glob("*.parquet")):
            raise InputError(f"{out}: parquet files without {SETTINGS}; expected a new folder for --out") from None
        with atomic_text(path) as file:
            json.dump(settings, file, indent=2)
            file.write("\n")
        return
    except ValueError:
        stored = None
    if not isinstance(stored, dict):
        raise InputError(f"{path}: damaged; expected the settings of the blocks in this folder")
    for name, value in expected.items():
        if stored.get(name) != value:
            raise InputError(
                f"{path}: {name} {str(stored.get(name))[:80]}; expected {str(value)[:80]}, or another --out"
            )


class Worker:
    """An actor that computes blocks. A subclass loads a model, and has ``column``, ``type`` and :meth:`compute`.

    Args:
        args: the command line.
        modality: name of the model's modality.
        media: column of the media of parquet files.
    """

    column: str  # name of the column with the results
    type: Any  # its pyarrow type

    def __init__(self, args: argparse.Namespace, modality: str, media: str | None) -> None:
        self.args, self.modality, self.media = args, modality_named(modality), media
        self.options = BatchOptions(args.batch_size, args.max_tokens, args.workers, device=device_of(args))

    def compute(self, manifest: Manifest, rows: range) -> tuple[dict[int, np.ndarray], list[tuple[int, str]]]:
        """Row -> its result, for rows of a manifest; (row, reason) of those that cannot be read."""
        raise NotImplementedError

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        """Compute and write a batch of blocks; a sentence for each that failed, and whether to stop."""
        errors, stops = [], []
        for values in zip(*(batch[name].tolist() for name in Block._fields), strict=True):
            block = Block(*values)
            try:
                if not os.path.exists(block_path(self.args.out, block.number)):  # an actor that died may have done it
                    self.write(block, *self.make(block))
                errors.append("")
                stops.append(False)
            except Exception as error:
                sentence = sentence_of(error)
                if sentence is None:
                    raise
                errors.append(sentence)
                stops.append(not isinstance(error, InputError))  # a full disk stops all; a damaged archive does not
        return {"error": errors, "stop": stops}

    def make(self, block: Block) -> tuple[Any, list[tuple[str, str]]]:
        """The table of a block, and (name, reason) of the files without a row."""
        files: list[str] = []
        numbers: list[int] = []
        results: list[np.ndarray] = []
        with blocks.open_block(block, self.modality, self.media, self.options.workers) as clips:
            skipped = list(clips.skipped)
            for rows in filter(len, clips.rows):
                found, bad = self.compute(clips.manifest, rows)
                skipped += [(clips.names[row], reason) for row, reason in bad]
                for row, result in found.items():
                    files.append(clips.names[row])
                    numbers.append(clips.numbers[row])
                    results.append(result)
        columns = {
            "file": pyarrow.array(files, pyarrow.string()),
            "row": pyarrow.array(numbers, pyarrow.int64()),
            self.column: pyarrow.array(results, self.type),
        }
        return pyarrow.table(columns), skipped

    def write(self, block: Block, table: Any, skipped: list[tuple[str, str]]) -> None:
        """Write a block, completely or not at all."""
        table = table.replace_schema_metadata({METADATA: json.dumps(skipped).encode()})
        with atomic_binary(block_path(self.args.out, block.number)) as file:
            parquet.write_table(table, file)


def device_of(args: argparse.Namespace) -> str:
    """The device of an actor; Ray shows it its own GPUs only."""
    return "cuda" if args.gpus else "cpu"


def script_parser(description: str) -> argparse.ArgumentParser:
    """A parser with the arguments that both scripts have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "sources", nargs="+", metavar="SOURCE", help="a manifest .tsv; or .tar or .parquet files, or folders of them"
    )
    parser.add_argument("--model", required=True, help=MODEL)
    parser.add_argument("--out", required=True, metavar="DIR", help="gets a parquet file for each block")
    parser.add_argument("--column", metavar="NAME", help="parquet: column of encoded files (default: the only one)")
    parser.add_argument("--actors", type=int, default=1, metavar="N", help="processes with a model (%(default)s)")
    parser.add_argument("--gpus", type=float, default=0, metavar="X", help="GPUs of each actor (0: it uses CPUs)")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="CPUs of each actor, for its threads (1)")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="clips of a batch (%(default)s)")
    parser.add_argument(
        "--max-tokens", type=int, default=3_200_000, metavar="N", help="sound: samples of a padded batch (%(default)s)"
    )
    add_max_skipped_argument(parser, "exit with code 1", "files")
    return parser


def run(worker: type[Worker], args: argparse.Namespace, modality: Modality, settings: dict[str, Any]) -> int:
    """Compute what is missing and report the whole; the exit code.

    Args:
        worker: class of the actors.
        args: the command line.
        modality: the model's.
        settings: what the results depend on, besides the input.

    Raises:
        InputError: a mistake of the user, or a block that cannot be computed.
    """
    BatchOptions(args.batch_size, args.max_tokens, args.workers)  # checks them
    if args.actors < 1 or args.gpus < 0:
        raise InputError(f"--actors is {args.actors} and --gpus {args.gpus}; expected at least 1 and 0")
    args.out = os.path.abspath(args.out)  # the present folder of an actor may be another one
    args.sources = [os.path.abspath(source) for source in args.sources]
    if os.path.exists(args.model):
        args.model = os.path.abspath(args.model)
    every, media, input_sha256 = blocks.plan(args.sources, args.column)
    check_writable(args.out)
    keep_settings(args.out, settings | {"blocks": len(every), "input_sha256": input_sha256})
    missing = [block for block in every if not os.path.exists(block_path(args.out, block.number))]
    errors = compute(worker, args, modality.name, media, missing) if missing else []
    if errors:
        rest = "finished blocks are kept; run it again for the rest"
        raise InputError(f"{len(errors)} of {len(missing)} blocks failed: {errors[0]}; {rest}")
    return report(args, every, len(missing))


def compute(
    worker: type[Worker], args: argparse.Namespace, modality: str, media: str | None, missing: list[Block]
) -> list[str]:
    """Compute blocks on the cluster that RAY_ADDRESS names, else on this machine; sentences of those that failed."""
    with optional_import("this script needs Ray", "'ray[data]'"):
        import ray
        import ray.data
    ray.init()
    try:
        _check_room(ray.nodes(), args)
        for module in (blocks, sys.modules[__name__]):
            ray.cloudpickle.register_pickle_by_value(module)  # the nodes need not have this folder
        tasks = min(len(missing), TASKS_PER_ACTOR * args.actors)
        data = ray.data.from_items([block._asdict() for block in missing], override_num_blocks=tasks).map_batches(
            worker,
            fn_constructor_args=(args, modality, media),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=args.actors),  # an actor that dies is started again
            num_cpus=args.workers,
            num_gpus=args.gpus or None,
        )
        errors = []
        for row in data.iter_rows():
            errors += [row["error"]] if row["error"] else []
            if row["stop"]:
                break
        return errors
    finally:
        ray.shutdown()


def _check_room(nodes: list[dict[str, Any]], args: argparse.Namespace) -> None:
    """Check that one of the nodes has room for an actor: Ray would wait for one."""
    resources = [node["Resources"] for node in nodes if node["Alive"]]
    if not any(r.get("CPU", 0) >= args.workers and r.get("GPU", 0) >= args.gpus for r in resources):
        there = "; ".join(f"{r.get('CPU', 0):g} CPUs, {r.get('GPU', 0):g} GPUs" for r in resources)
        raise InputError(
            f"an actor needs {args.workers} CPUs (--workers) and {args.gpus:g} GPUs (--gpus); the nodes have {there}"
        )


def report(args: argparse.Namespace, every: Sequence[Block], computed: int) -> int:
    """List the skipped files of all blocks, and print a summary; the exit code is 1 if these are too many."""
    used, skipped = 0, []
    for block in every:
        path = block_path(args.out, block.number)
        with blocks.reading(path):
            metadata = parquet.read_metadata(path)
        if METADATA not in (metadata.metadata or {}):
            raise InputError(f"{path}: not of this script; expected a block, or no such file")
        used += metadata.num_rows
        skipped += json.loads(metadata.metadata[METADATA])
    listed = os.path.join(args.out, SKIPPED)
    with atomic_text(listed) as file:
        file.writelines(f"{name}\t{' '.join(reason.split())}\n" for name, reason in [("file", "reason"), *skipped])
    left_out = f"{len(skipped)} skipped" + (f", see {listed}" if skipped else "")
    print(f"{args.out}: {len(every)} blocks, {computed} of them new; {used} files, {left_out}")
    too_many = above_limit(len(skipped), used + len(skipped), args.max_skipped)
    if too_many:
        print(f"error: {len(skipped)} of {used + len(skipped)} files are unusable, {too_many}", file=sys.stderr)
    return 1 if too_many else 0
