#!/usr/bin/env python3
"""Manifests and labels of a folder (or stored .zip) with a subfolder a class, as in ``dog/1.wav``, ``cat/7.wav``.

Folders of splits may be above them: ``train/dog/1.wav``, ``test/cat/7.wav``. The same as ``bridle manifest
--class-folders``; without labels use that command without it, which needs no particular layout.
"""

from __future__ import annotations

import sys

from bridle_fairseq.prepare.corpus import folder_entries, labelled_corpus, run_script, scan_source, script_parser


def main(args):
    scan = scan_source(args.source, args.dest, modality=args.modality)
    entries = folder_entries(scan, args.valid_percent, args.seed)
    labelled_corpus(scan, entries, args.valid_percent, args.seed).write(args.dest)


if __name__ == "__main__":
    sys.exit(run_script(main, script_parser(__doc__, modality=True).parse_args()))
