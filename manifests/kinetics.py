#!/usr/bin/env python3
"""Kinetics, and other videos with the same layout or lists: write manifests (sizes in frames) and labels.

The source is the folder (or stored .zip) with the files. Lists of clips are optional. A list is one of Kinetics' own
csv files (columns label, youtube_id, time_start, time_end, for files named ID_000010_000020.mp4 or ID.mp4), a csv with
the columns path and label, or lines ``path label``. Without lists, the folder of a file is its class: class/x.mp4, or
train/class/x.mp4 and val/class/y.mp4. Without a validation split, a random share of the clips is used for validation.
"""

from __future__ import annotations

import sys

from script_parser import script_parser

from bridle_fairseq.prepare.corpus import folder_entries, labelled_corpus, scan_source
from bridle_fairseq.prepare.kinetics import clip_names, read_lists
from bridle_fairseq.prepare.tables import match
from bridle_fairseq.utils.process import run_script


def main(args):
    lists = {"train": args.train, "valid": args.valid, "test": args.test}
    listed = read_lists(lists)
    scan = scan_source(args.source, args.dest, modality="video", max_skipped=args.max_skipped)
    entries = match(scan, listed, clip_names) if listed else folder_entries(scan, args.valid_percent, args.seed)
    labelled_corpus(scan, entries, args.valid_percent, args.seed).write(args.dest)


if __name__ == "__main__":
    parser = script_parser(__doc__)
    for split in ("train", "valid", "test"):
        parser.add_argument(f"--{split}", nargs="+", default=[], metavar="CSV", help=f"lists of clips: {split}")
    sys.exit(run_script(main, parser.parse_args()))
