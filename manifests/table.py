#!/usr/bin/env python3
"""Manifests and labels of sound files that a csv file names (the same as ``bridle manifest --labels``).

The csv has a header: columns ``filename`` and ``label`` (or others, given below), and ``split`` if it says the splits.
"""

from __future__ import annotations

import sys

from bridle_fairseq.prepare.corpus import labelled_corpus, run_script, scan_source, script_parser
from bridle_fairseq.prepare.tables import match, read_table


def main(args):
    columns = {"name": args.name_column, "label": args.label_column}
    entries = read_table(args.table, columns, args.label_separator)
    scan = scan_source(args.source, args.dest, modality=args.modality)
    labelled_corpus(scan, match(scan, entries), args.valid_percent, args.seed).write(args.dest)


if __name__ == "__main__":
    parser = script_parser(__doc__, modality=True)
    parser.add_argument("table", metavar="CSV")
    parser.add_argument("--name-column", metavar="NAME", help="column that names the file")
    parser.add_argument("--label-column", metavar="NAME", help="column with the class")
    parser.add_argument("--label-separator", metavar="TEXT", help="between several classes in one cell")
    sys.exit(run_script(main, parser.parse_args()))
