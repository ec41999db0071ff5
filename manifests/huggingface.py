#!/usr/bin/env python3
"""A Hugging Face data set of sounds or images in parquet files: write manifests and labels.

The source is the folder of the data set as it is downloaded (``hf download --repo-type dataset ...``), with files such
as ``data/train-00000-of-00004.parquet``, whose names begin with their split. The media are packed into .tar archives in
``OUT/media``, which the manifests address. Labels are the names of a column of ClassLabels, or its texts. Without
a split for validation, a share of each class of ``train`` is taken.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace

from script_parser import script_parser

from bridle_fairseq.data.modalities import CLASSES
from bridle_fairseq.prepare.corpus import Corpus, labelled_corpus, scan_source, splits_of
from bridle_fairseq.prepare.huggingface import pack
from bridle_fairseq.prepare.splits import stratified_split
from bridle_fairseq.prepare.tables import match
from bridle_fairseq.utils.process import run_script


def with_validation(entries, valid_percent, seed):
    """The entries, in whose ``train`` a share of each class becomes ``valid`` if there is none: training needs it."""
    rows = [row for row, entry in enumerate(entries) if entry and entry.split == "train"]
    if not rows or any(entry and entry.split == "valid" for entry in entries):
        return entries
    names = sorted({label for row in rows for label in entries[row].labels})
    numbers = {name: number for number, name in enumerate(names)}
    labels = [[numbers[label] for label in entries[row].labels] for row in rows]
    drawn = {rows[place] for place in stratified_split(labels, valid_percent, seed).get("valid", [])}
    return [replace(entry, split="valid") if row in drawn else entry for row, entry in enumerate(entries)]


def main(args):
    media = os.path.join(args.dest, "media")
    packed = pack(args.source, media, args.media_column, args.label_column)
    if packed.without_media:
        print(f"left out: {packed.without_media} rows without bytes", file=sys.stderr)
    scan = scan_source(media, args.dest, modality=args.modality, max_skipped=args.max_skipped)
    entries = match(scan, packed.entries)
    if {entry.split for entry in entries if entry} == {"train"}:
        entries = [entry and replace(entry, split="") for entry in entries]
    else:
        entries = with_validation(entries, args.valid_percent, args.seed)
    share = args.valid_percent, args.seed
    if any(entry and entry.labels for entry in entries):
        labelled_corpus(scan, entries, *share).write(args.dest)
    else:
        Corpus(scan, splits_of(scan, [entry and entry.split for entry in entries], *share)[1]).write(args.dest)


if __name__ == "__main__":
    parser = script_parser(__doc__)
    parser.add_argument("--modality", choices=sorted(CLASSES), default="audio", help="of the media (audio)")
    parser.add_argument("--media-column", metavar="NAME", help="default: the first one with bytes in it")
    parser.add_argument("--label-column", metavar="NAME", help="default: label, labels, category, class ..., if any")
    sys.exit(run_script(main, parser.parse_args()))
