#!/usr/bin/env python3
"""ESC-50: write manifests and labels of its five folds and of all clips.

The source is the folder of the data set as it is distributed, with ``audio/`` and ``meta/esc50.csv``. ``train.tsv`` and
``valid.tsv`` hold all clips, for pretraining. ``fold1/test.tsv`` is fold 1, to be used once. The other folds are
``fold1/train.tsv`` and, a share of each class, ``fold1/valid.tsv``, which chooses the best checkpoint.
"""

from __future__ import annotations

import os
import sys

from script_parser import script_parser

from bridle_fairseq.prepare.corpus import labelled_corpus, scan_source
from bridle_fairseq.prepare.tables import match, read_table
from bridle_fairseq.utils.process import run_script


def main(args):
    table = os.path.join(args.source, "meta", "esc50.csv")
    entries = read_table(table, {"name": "filename", "label": "category", "fold": "fold"})
    scan = scan_source(os.path.join(args.source, "audio"), args.dest, max_skipped=args.max_skipped)
    corpus = labelled_corpus(
        scan, match(scan, entries), args.valid_percent, args.seed, fold_valid_percent=args.fold_valid_percent
    )
    corpus.write(args.dest)


if __name__ == "__main__":
    parser = script_parser(__doc__)
    parser.add_argument(
        "--fold-valid-percent", type=float, default=0.1, metavar="SHARE", help="validation share of other folds (0.1)"
    )
    sys.exit(run_script(main, parser.parse_args()))
