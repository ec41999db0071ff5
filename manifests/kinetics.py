#!/usr/bin/env python3
"""Kinetics, and videos laid out or listed like it: manifests with the number of frames of each file, and labels.

Takes the folder (or stored .zip) with the files and, if there are, lists of them: Kinetics' own csv files (columns
label, youtube_id, time_start, time_end, for files called ID_000010_000020.mp4 or ID.mp4), csv files with the columns
path and label, or lines ``path label``. Without lists, files lie in folders of their classes: class/x.mp4, or
train/class/x.mp4 and val/class/y.mp4. Where nothing is for validation, a random share of the clips is.
"""

from __future__ import annotations

import sys

from bridle_fairseq.prepare.corpus import folder_entries, labelled_corpus, run_script, scan_source, script_parser
from bridle_fairseq.prepare.kinetics import clip_names, read_lists
from bridle_fairseq.prepare.tables import match


def main(args):
    lists = {"train": args.train, "valid": args.valid, "test": args.test}
    entries = read_lists(lists)
    scan = scan_source(args.source, args.dest, modality="video")
    found = match(scan, entries, clip_names) if entries else folder_entries(scan, args.valid_percent, args.seed)
    labelled_corpus(scan, found, args.valid_percent, args.seed).write(args.dest)


if __name__ == "__main__":
    parser = script_parser(__doc__)
    for split in ("train", "valid", "test"):
        parser.add_argument(f"--{split}", nargs="+", default=[], metavar="CSV", help=f"lists of clips: {split}")
    sys.exit(run_script(main, parser.parse_args()))
