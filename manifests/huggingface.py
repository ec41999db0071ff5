#!/usr/bin/env python3
"""A Hugging Face data set of sounds or images in parquet files: write manifests and labels.

The source is the folder of the data set as it is downloaded (``hf download --repo-type dataset ...``), with files such
as ``data/train-00000-of-00004.parquet``, whose names begin with their split. The media are packed into .tar archives in
``OUT/media``, which the manifests address. Labels are the names of a column of ClassLabels, or its texts.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace

from script_parser import script_parser

from bridle_fairseq.data.modalities import CLASSES
from bridle_fairseq.prepare.corpus import Corpus, labelled_corpus, scan_source, splits_of
from bridle_fairseq.prepare.huggingface import pack
from bridle_fairseq.prepare.tables import match
from bridle_fairseq.utils.process import run_script


def main(args):
    media = os.path.join(args.dest, "media")
    packed = pack(args.source, media, args.media_column, args.label_column)
    if packed.without_media:
        print(f"left out: {packed.without_media} rows without bytes", file=sys.stderr)
    scan = scan_source(media, args.dest, modality=args.modality, max_skipped=args.max_skipped)
    entries = match(scan, packed.entries)
    if {entry.split for entry in entries if entry} == {"train"}:
        entries = [entry and replace(entry, split="") for entry in entries]
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
