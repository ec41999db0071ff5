#!/usr/bin/env python3
"""SentencePiece over units: train models, encode and decode losslessly, and say what each vocabulary is worth.

Units are what ``bridle units --format text`` writes; pieces are written as lines of their numbers with ``dict.txt``
beside them, for fairseq-preprocess.
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
from bridle_fairseq.utils.errors import InputError, run_script
from bridle_fairseq.utils.files import atomic_text


def read_text(path: str) -> tuple[str, UnitsInfo, str]:
    """Of a split's units: the path of their description, what it says, and the path of their text."""
    prefix = prefix_of(path, ".units")
    info = read_units_info(prefix)
    if info.format != "text":
        raise InputError(
            f"{prefix}.json: units of the format {info.format}; expected text (bridle units --format text)"
        )
    if info.scheme.streams > 1:
        raise InputError(f"{prefix}.json: units of several levels apart; expected one line a clip: --level N for each")
    return f"{prefix}.json", info, f"{info.stems(prefix)[0]}.txt"


def units_of(path: str) -> Iterator[str]:
    """The lines of the text file of a split's units."""
    _, info, text = read_text(path)
    return lines_of(text, info)


def lines_of(text: str, info: UnitsInfo) -> Iterator[str]:
    """The lines of a text file; their number must be that of its manifest's rows."""
    rows = 0
    try:
        with open(text, encoding="utf-8", newline="\n") as file:
            for line in file:
                rows += 1
                yield line.rstrip("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{text}: cannot read these lines: {getattr(error, 'strerror', 'not UTF-8')}") from None
    if rows != info.rows:
        raise InputError(f"{text}: {rows} lines; expected {info.rows}, one a row of its manifest, as its json says")


def characters(info: UnitsInfo) -> int:
    """How many characters there are up to the last one that units of this kind can have."""
    return info.scheme.first_character(0) + info.scheme.size


def train(args: argparse.Namespace) -> None:
    """A model for each vocabulary size."""
    _, info, _ = read_text(args.units)
    args.out.mkdir(parents=True, exist_ok=True)
    for size in args.vocab_size:
        model = pieces.train_on_units(units_of(args.units), size, characters(info), args.max_units)
        path = args.out / f"{size}.model"
        path.write_bytes(model)
        pieces.write_description(path, info)
        made = pieces.load(path).get_piece_size()
        print(f"{path}: {made} pieces{'; nothing else comes twice' if made < size else ''}")


def encode(args: argparse.Namespace) -> None:
    """Lines of piece numbers, and their dictionary."""
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
            for number, line in enumerate(units_of(units), 1):
                found = model.encode(line)
                if pieces.UNKNOWN in found:
                    raise InputError(f"{units}, line {number}: a unit that {args.model} lacks; expected its own units")
                file.write(" ".join(map(str, found)) + "\n")
                count += len(found)
        print(f"{path}: {count} pieces")


def decode(args: argparse.Namespace) -> None:
    """Files of units again, beside a copy of the description of those that were encoded."""
    where, info, text = read_text(args.like)
    model = pieces.load_matching(args.model, where, info)
    path = args.out / Path(text).name
    if path.resolve() == Path(text).resolve():
        raise InputError(f"--out is {args.out}, where the units of --like are; expected another folder")
    with atomic_text(path) as out:
        for number, line in enumerate(lines_of(args.pieces, info), 1):
            found = [int(word) if word.isdecimal() else -1 for word in line.split()]
            if not all(0 < piece < model.get_piece_size() for piece in found):
                raise InputError(f"{args.pieces}, line {number}: not pieces of {args.model}; expected their numbers")
            out.write(model.decode(found) + "\n")
    if info.dedup:
        shutil.copy(text.removesuffix(".txt") + ".counts", path.with_suffix(".counts"))
    shutil.copy(where, args.out)
    print(f"{path}: units again")


def report(args: argparse.Namespace) -> None:
    """A table: plain units, then each model; how much shorter lines get, and bits of a second of sound."""
    manifest = Manifest.read(args.manifest)
    where, info, _ = read_text(args.units)
    if info.codes.manifest_sha256 != manifest.fingerprint():
        raise InputError(f"{args.units}: units of another manifest; expected those of {args.manifest}")
    others, learned, _ = read_text(args.train)
    check_same_units(
        where,
        {**info.identity, "dedup": info.dedup},
        others,
        {**learned.identity, "dedup": learned.dedup},
    )
    models: list[Any] = [None, *(pieces.load_matching(path, where, info) for path in args.models)]
    first, plain = info.scheme.first_character(0), 0
    seconds = total_seconds(manifest, [row for row, line in enumerate(units_of(args.units)) if line])
    print("vocabulary  tokens/s  units/token  entropy bits/s  coded bits/s")
    for model in models:
        size = model.get_piece_size() if model else info.scheme.size
        counts, known = (count(model, units_of(path), size, first) for path in (args.units, args.train))
        cost = pieces.unigram_cost(counts, known)
        plain, rate = plain or cost.tokens, cost.tokens / seconds
        print(f"{size:10}  {rate:8.1f}  {plain / cost.tokens:11.3f}  {cost.entropy * rate:14.1f}  ", end="")
        print(f"{cost.held_out * rate:12.1f}")
    if info.dedup:
        print("how often units are repeated (.counts) is not in these bits")


def count(model: Any, lines: Iterable[str], size: int, first: int) -> np.ndarray:
    """How often each token occurs: a piece of the model, or without one a unit."""
    total = np.zeros(size, np.int64)
    for line in lines:
        total += np.bincount(model.encode(line) if model else _units(line, first), minlength=size)
    return total


def _units(line: str, first: int) -> np.ndarray:
    from bridle_fairseq.units.scheme import from_characters

    return from_characters(line) - first


def main() -> int:
    """Take the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for function in (train, encode, decode, report):
        command = commands.add_parser(function.__name__, help=function.__doc__)
        command.set_defaults(function=function)
        if function is train:
            command.add_argument("units", help="{split}.units to learn from")
            command.add_argument("--vocab-size", type=int, nargs="+", required=True)
            command.add_argument("--max-units", type=int, default=pieces.MAX_UNITS, help="learned from (%(default)s)")
        if function in (encode, decode):
            command.add_argument("model")
        if function is encode:
            command.add_argument("units", nargs="+", help="{split}.units")
        if function is decode:
            command.add_argument("pieces", help="{split}.pieces")
            command.add_argument("--like", required=True, help="{split}.units that were encoded")
        if function is not report:
            command.add_argument("--out", type=Path, required=True)
            continue
        command.add_argument("train", help="{split}.units whose frequencies are known")
        command.add_argument("units", help="{split}.units that are measured")
        command.add_argument("models", nargs="+")
        command.add_argument("--manifest", required=True, help="of the measured ones: seconds of sound")
    args = parser.parse_args()
    return run_script(args.function, args)


if __name__ == "__main__":
    sys.exit(main())
