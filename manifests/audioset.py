#!/usr/bin/env python3
"""AudioSet: write manifests and labels from its csv files, for the clips that you have.

The source is the folder (or stored .zip) with the clips. Also needed are ``class_labels_indices.csv`` and segment lists
such as ``balanced_train_segments.csv`` and ``eval_segments.csv``. A file is named after the YouTube id of its clip,
optionally with a leading ``Y`` and with the start (and end) of the segment in seconds or milliseconds: ``ID``, ``YID``,
``ID_30``, ``ID_30.000``, ``ID_30000``, ``ID_30_40``, ``ID_30.000_40.000``, ``ID_30000_40000``.
"""

from __future__ import annotations

import sys

from script_parser import script_parser

from bridle_fairseq.data.manifests.labels import Classes
from bridle_fairseq.prepare.corpus import labelled_corpus, scan_source
from bridle_fairseq.prepare.tables import Entry, match, read_segments
from bridle_fairseq.utils.process import run_script


def file_names(segment):
    """Possible names of a segment's file, without extension."""
    name, start, end = segment
    ends = [""]
    for write in ("{:.0f}".format, "{:.3f}".format, lambda seconds: f"{1000 * seconds:.0f}"):
        ends += [f"_{write(start)}", f"_{write(start)}_{write(end)}"]
    return [prefix + name + end for end in ends for prefix in ("", "Y")]


def main(args):
    entries = {}
    for split, tables in (("train", args.train), ("valid", args.valid), ("test", args.test)):
        for table in tables:
            entries.update({segment: Entry(labels, split) for segment, labels in read_segments(table).items()})
    classes = Classes.read(args.classes)
    scan = scan_source(args.source, args.dest, max_skipped=args.max_skipped)
    labelled_corpus(scan, match(scan, entries, file_names), classes=classes).write(args.dest)


if __name__ == "__main__":
    parser = script_parser(__doc__, random_split=False)
    parser.add_argument("--classes", required=True, metavar="CSV", help="class_labels_indices.csv")
    parser.add_argument("--train", required=True, nargs="+", metavar="CSV", help="segment lists for training")
    parser.add_argument("--valid", required=True, nargs="+", metavar="CSV", help="segment lists for validation")
    parser.add_argument("--test", default=[], nargs="+", metavar="CSV", help="segment lists for a test")
    sys.exit(run_script(main, parser.parse_args()))
