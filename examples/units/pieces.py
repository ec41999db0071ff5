#!/usr/bin/env python3
"""SentencePiece over units: train models, encode and decode losslessly, and compare vocabulary sizes.

Units are files of ``bridle units --format text``. Pieces are written as lines of their numbers, with a ``dict.txt`` for
fairseq-preprocess.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bridle_fairseq.data.audio.dataset import total_seconds
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.units import sentencepiece as pieces
from bridle_fairseq.units.convert import prefix_of
from bridle_fairseq.units.info import UnitsInfo, check_same_units, read_units_info
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.files import atomic_binary, atomic_text
from bridle_fairseq.utils.process import run_script
from bridle_fairseq.utils.text_files import read_lines


def read_text(path: str) -> tuple[str, UnitsInfo, str]:
    """The path of the description of a split's units, the description, and the path of their text."""
    prefix = prefix_of(path, ".units")
    info = read_units_info(prefix)
    if info.format != "text":
        raise InputError(
            f"{prefix}.json: units of the format {info.format}; expected text (bridle units --format text)"
        )
    if info.scheme.streams > 1:
        raise InputError(
            f"{prefix}.json: levels in separate files; expected one line per clip: use --level N for each level"
        )
    return f"{prefix}.json", info, f"{info.stems(prefix)[0]}.txt"


def units_of(path: str) -> Iterator[str]:
    """The lines of a split's units."""
    _, info, text = read_text(path)
    return lines_of(text, info)


def lines_of(text: str, info: UnitsInfo) -> Iterator[str]:
    """The lines of a text file; their number must equal the number of rows of the manifest."""
    rows = 0
    for line in read_lines(text, "these lines"):
        rows += 1
        yield line
    if rows != info.rows:
        raise InputError(f"{text}: {rows} lines; expected {info.rows}, one per row of its manifest, as in its json")


def num_characters(info: UnitsInfo) -> int:
    """Number of characters up to the last one that these units can use."""
    return info.scheme.first_character(0) + info.scheme.size


def train(args: argparse.Namespace) -> None:
    """Train a model for each vocabulary size."""
    _, info, _ = read_text(args.units)
    args.out.mkdir(parents=True, exist_ok=True)
    for size in args.vocab_size:
        model = pieces.train_on_units(units_of(args.units), size, num_characters(info), args.max_units)
        path = args.out / f"{size}.model"
        with atomic_binary(path) as file:
            file.write(model)
        pieces.write_description(path, info)
        learned = pieces.load(path).get_piece_size()
        print(f"{path}: {learned} pieces{'; no other sequence is repeated' if learned < size else ''}")


def encode(args: argparse.Namespace) -> None:
    """Write lines of piece numbers, and their dictionary."""
    model = None
    for units in args.units:
        where, info, _ = read_text(units)
        model = pieces.load_matching(args.model, where, info)
    args.out.mkdir(parents=True, exist_ok=True)
    with atomic_text(args.out / "dict.txt") as file:
        file.writelines(f"{number} 1\n" for number in range(model.get_piece_size()))
    for units in args.units:
        path = args.out / f"{Path(prefix_of(units, '.units')).name.removesuffix('.units')}.pieces"
        count = 0
        with atomic_text(path) as file:
            for line_number, line in enumerate(units_of(units), 1):
                numbers = model.encode(line)
                if pieces.UNKNOWN in numbers:
                    raise InputError(
                        f"{units}, line {line_number}: a unit that {args.model} does not know; expected units of the "
                        "kind that it was trained on"
                    )
                file.write(" ".join(map(str, numbers)) + "\n")
                count += len(numbers)
        print(f"{path}: {count} pieces")


def decode(args: argparse.Namespace) -> None:
    """Convert pieces back to units, with a copy of the description of the original units."""
    where, info, text = read_text(args.like)
    model = pieces.load_matching(args.model, where, info)
    path = args.out / Path(text).name
    if path.resolve() == Path(text).resolve():
        raise InputError(f"--out is {args.out}, where the units of --like are; expected another folder")
    with atomic_text(path) as out:
        for line_number, line in enumerate(lines_of(args.pieces, info), 1):
            numbers = [int(word) if word.isdecimal() and len(word) < 10 else -1 for word in line.split()]
            if not all(0 < number < model.get_piece_size() for number in numbers):
                raise InputError(
                    f"{args.pieces}, line {line_number}: not pieces of {args.model}; expected their numbers"
                )
            out.write(model.decode(numbers) + "\n")
    if info.dedup:
        copy(text.removesuffix(".txt") + ".counts", path.with_suffix(".counts"))
    copy(where, args.out / Path(where).name)
    print(f"{path}: units restored")


def copy(source: str, path: Path) -> None:
    """A copy that is there only when it is complete."""
    with open(source, "rb") as file, atomic_binary(path) as out:
        shutil.copyfileobj(file, out)


def report(args: argparse.Namespace) -> None:
    """Print a row for plain units and one per model: tokens/s, units/token, and bits/s."""
    manifest = Manifest.read(args.manifest)
    where, info, _ = read_text(args.units)
    if info.codes.manifest_sha256 != manifest.fingerprint():
        raise InputError(f"{args.units}: units of another manifest; expected those of {args.manifest}")
    train_where, train_info, _ = read_text(args.train)
    check_same_units(
        where,
        {**info.identity, "dedup": info.dedup},
        train_where,
        {**train_info.identity, "dedup": train_info.dedup},
    )
    models: list[Any] = [None, *(pieces.load_matching(path, where, info) for path in args.models)]
    first, plain = info.scheme.first_character(0), 0
    seconds = total_seconds(manifest, [row for row, line in enumerate(units_of(args.units)) if line])
    print("vocabulary  tokens/s  units/token  entropy bits/s  coded bits/s")
    for model in models:
        size = model.get_piece_size() if model else info.scheme.size
        counts, train_counts = (count(model, units_of(path), size, first) for path in (args.units, args.train))
        cost = pieces.unigram_cost(counts, train_counts)
        plain, rate = plain or cost.tokens, cost.tokens / seconds
        print(f"{size:10}  {rate:8.1f}  {plain / cost.tokens:11.3f}  {cost.entropy * rate:14.1f}  ", end="")
        print(f"{cost.held_out * rate:12.1f}")
    if info.dedup:
        print("these bits do not include the repetition counts (.counts)")


def count(model: Any, lines: Iterable[str], size: int, first: int) -> np.ndarray:
    """Number of occurrences of each token: a piece of the model, or a unit if there is no model."""
    total = np.zeros(size, np.int64)
    for line in lines:
        total += np.bincount(model.encode(line) if model else _units(line, first), minlength=size)
    return total


def _units(line: str, first: int) -> np.ndarray:
    from bridle_fairseq.units.scheme import from_characters

    return from_characters(line) - first


def main() -> int:
    """Parse the command line and run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for function in (train, encode, decode, report):
        command = commands.add_parser(function.__name__, help=function.__doc__)
        command.set_defaults(function=function)
        if function is train:
            command.add_argument("units", help="{split}.units to train on")
            command.add_argument("--vocab-size", type=int, nargs="+", required=True)
            command.add_argument(
                "--max-units", type=int, default=pieces.MAX_UNITS, help="number of units to train on (%(default)s)"
            )
        if function in (encode, decode):
            command.add_argument("model", help="SentencePiece model")
        if function is encode:
            command.add_argument("units", nargs="+", help="{split}.units")
        if function is decode:
            command.add_argument("pieces", help="{split}.pieces")
            command.add_argument("--like", required=True, help="the original {split}.units")
        if function is not report:
            command.add_argument("--out", type=Path, required=True)
            continue
        command.add_argument("train", help="{split}.units that the models were trained on")
        command.add_argument("units", help="{split}.units to measure")
        command.add_argument("models", nargs="+", help="SentencePiece models")
        command.add_argument("--manifest", required=True, help="manifest of the measured units, for their duration")
    args = parser.parse_args()
    return run_script(args.function, args)


if __name__ == "__main__":
    sys.exit(main())
