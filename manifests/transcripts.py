#!/usr/bin/env python3
"""Speech with transcripts, for the task bridle_ctc: write manifests, symbols and words of each row, and a dictionary.

The source is a folder (or stored .zip) with the files. Transcripts come from a csv with the columns ``file`` and
``transcript`` (or those named below), and ``split`` if it defines the splits. Without a csv they come from
LibriSpeech's ``*.trans.txt`` files in the folder. Then folders ``train-...``, ``dev-...`` and ``test-...`` become
train, valid and test, unless --split names the folders of each split:

    python manifests/transcripts.py LibriSpeech --dest OUT --split train=train-clean-100 --split valid=dev-clean

Symbols are letters (OUT/train.ltr, OUT/dict.ltr.txt) or, with --units spm, pieces of a SentencePiece model that is
trained on the training transcripts (OUT/train.spm, OUT/dict.spm.txt, OUT/spm.model). Dictionaries are in fairseq's
format.
"""

from __future__ import annotations

import sys
from pathlib import Path

from script_parser import script_parser

from bridle_fairseq.data.manifests.transcripts import WORD_MARKS, Vocabulary
from bridle_fairseq.prepare.corpus import Corpus, scan_source, splits_of
from bridle_fairseq.prepare.transcripts import (
    letter_counts,
    letters,
    librispeech_texts,
    normalized,
    table_texts,
    write_symbols,
)
from bridle_fairseq.units.sentencepiece import Pieces, train_on_text
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.files import atomic_binary
from bridle_fairseq.utils.names import checked_name
from bridle_fairseq.utils.process import run_script

MODEL = "spm.model"


def main(args):
    if args.table and args.split:
        raise InputError("--split with a csv; expected splits in its column split")
    scan = scan_source(args.source, args.dest, max_skipped=args.max_skipped)
    if args.table:
        texts = table_texts(args.table, scan, args.name_column, args.text_column)
    else:
        texts = librispeech_texts(scan, folders_of(args.split))
    texts = [None if text is None else checked(text, args) for text in texts]
    _, splits = splits_of(scan, [None if t is None else t.split for t in texts], args.valid_percent, args.seed)
    if "train" not in splits and not args.like:
        raise InputError(f"splits {', '.join(splits)}; expected train among them, or --like with its dictionary")
    split_texts = {split: [texts[row] for row in rows] for split, rows in splits.items()}
    spell, vocabulary = symbols_of(args, [text.words for text in split_texts.get("train", [])])
    for split, of_split in split_texts.items():
        write_symbols(args.dest, split, of_split, spell, vocabulary)
    Corpus(scan, splits, annotation="transcript").write(args.dest)
    print(f"{vocabulary.source}: {len(vocabulary)} symbols with the four special ones")


def folders_of(options):
    """Parse options --split NAME=FOLDER,FOLDER to name -> folders."""
    folders_by_split = {}
    for option in options:
        name, equals, folders = option.partition("=")
        if not (name and equals and folders):
            raise InputError(f"--split {option}; expected NAME=FOLDER, such as train=train-clean-100")
        folders_by_split.setdefault(checked_name(name, "--split"), []).extend(folders.split(","))
    return folders_by_split


def checked(text, args):
    """A normalized transcript, or None if it is empty and --skip-empty is set."""
    words = normalized(text.words, args.case, args.drop_punctuation)
    if not words and args.skip_empty:
        print(f"left out: {text.source}: an empty transcript", file=sys.stderr)
        return None
    if not words:
        raise InputError(f"{text.source}: an empty transcript; expected words, or --skip-empty to leave the file out")
    mark = WORD_MARKS[args.units]
    if mark in words:
        raise InputError(f"{text.source}: {mark!r} in {words[:60]!r}; expected none: it marks words")
    return text._replace(words=words)


def symbols_of(args, training_texts):
    """The function that spells a transcript, and the dictionary: new ones, or with --like those of another folder."""
    folder = args.like or args.dest
    model = Path(folder, MODEL)
    if not args.like:
        counts = letter_counts(training_texts)
        if args.units == "spm":
            with atomic_binary(model) as file:
                file.write(train_on_text(training_texts, args.vocab_size))
            counts = Pieces(model.read_bytes(), str(model)).counts(training_texts)
        Vocabulary.write(folder, args.units, counts)
    vocabulary = Vocabulary.read(folder, args.units)
    if args.like and Path(args.like).resolve() != Path(args.dest).resolve():
        with atomic_binary(Path(Vocabulary.path(args.dest, args.units))) as file:
            file.write(Path(vocabulary.source).read_bytes())
    if args.units == "ltr":
        return letters, vocabulary
    if not model.is_file():
        raise InputError(f"{model}: no such SentencePiece model; expected the one of {vocabulary.source}")
    return Pieces(model.read_bytes(), str(model)), vocabulary


if __name__ == "__main__":
    parser = script_parser(__doc__)
    parser.add_argument("table", metavar="CSV", nargs="?", help="table of files and transcripts")
    parser.add_argument("--name-column", metavar="NAME", help="column that names the file")
    parser.add_argument("--text-column", metavar="NAME", help="column with the transcript")
    parser.add_argument(
        "--split",
        action="append",
        default=[],
        metavar="NAME=FOLDER",
        help="LibriSpeech: comma-separated folders of a split",
    )
    parser.add_argument("--units", choices=list(WORD_MARKS), default="ltr", help="letters or pieces (%(default)s)")
    parser.add_argument(
        "--vocab-size", type=int, default=1000, metavar="N", help="spm: largest number of pieces (%(default)s)"
    )
    parser.add_argument("--like", metavar="DIR", help="use the dictionary (and model) of this folder")
    parser.add_argument("--case", choices=["keep", "upper", "lower"], default="keep", help="of letters (%(default)s)")
    parser.add_argument("--drop-punctuation", action="store_true", help="remove all punctuation but the apostrophe")
    parser.add_argument("--skip-empty", action="store_true", help="skip files with an empty transcript")
    sys.exit(run_script(main, parser.parse_args()))
