#!/usr/bin/env python3
"""Speech Commands: write manifests and labels of its own train, valid and test split.

The source is the folder of the data set as it is distributed: a folder for each word, ``validation_list.txt`` and
``testing_list.txt``. The recordings of ``_background_noise_`` are not used.
"""

from __future__ import annotations

import os
import sys

from script_parser import script_parser

from bridle_fairseq.prepare.corpus import labelled_corpus, scan_source
from bridle_fairseq.prepare.tables import Entry, read_names
from bridle_fairseq.utils.process import run_script


def main(args):
    listed = {
        split: set(read_names(os.path.join(args.source, f"{name}_list.txt")))
        for split, name in (("valid", "validation"), ("test", "testing"))
    }
    scan = scan_source(args.source, args.dest, max_skipped=args.max_skipped)
    entries = []
    for name in (file.name for file in scan.files):
        split = next((split for split, names in listed.items() if name in names), "train")
        word = name.split("/")[0]
        entries.append(None if word == "_background_noise_" else Entry([word], split))
    labelled_corpus(scan, entries).write(args.dest)


if __name__ == "__main__":
    sys.exit(run_script(main, script_parser(__doc__, random_split=False).parse_args()))
