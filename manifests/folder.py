#!/usr/bin/env python3
"""Manifests and labels of a folder (or stored .zip) with a subfolder a class, as in ``dog/1.wav``, ``cat/7.wav``.

Without labels use ``bridle manifest``, which needs no particular layout.
"""

from __future__ import annotations

import sys

from bridle_fairseq.data.prepare import labelled_corpus, run_script, scan_source, script_parser
from bridle_fairseq.data.tables import Entry


def main(args):
    scan = scan_source(args.source, args.dest)
    entries = [Entry([file.name.split("/")[0]]) if "/" in file.name else None for file in scan.files]
    labelled_corpus(scan, entries, args.valid_percent, args.seed).write(args.dest)


if __name__ == "__main__":
    sys.exit(run_script(main, script_parser(__doc__).parse_args()))
