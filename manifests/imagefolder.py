#!/usr/bin/env python3
"""Images in class folders, as in ImageNet-1K and torchvision's ImageFolder: write manifests and labels.

The source is a folder (or stored .zip) with ``train/CLASS/x.jpg`` and ``val/CLASS/y.jpg``, or with ``CLASS/x.jpg``.
Without a folder ``val`` or ``valid``, a random share of the training images is used for validation. ``--names`` gives
the classes readable names, from lines ``n01440764 tench, Tinca tinca`` as in ImageNet's ``LOC_synset_mapping.txt``.
"""

from __future__ import annotations

import sys

from script_parser import script_parser

from bridle_fairseq.data.manifests.labels import Classes
from bridle_fairseq.prepare.corpus import folder_entries, labelled_corpus, scan_source
from bridle_fairseq.prepare.tables import read_names
from bridle_fairseq.utils.process import run_script


def main(args):
    classes = None
    if args.names:
        pairs = [line.partition(" ")[::2] for line in read_names(args.names)]
        classes = Classes([folder for folder, _ in pairs], [name for _, name in pairs], args.names)
    scan = scan_source(args.source, args.dest, modality="image", max_skipped=args.max_skipped)
    entries = folder_entries(scan, args.valid_percent, args.seed)
    labelled_corpus(scan, entries, args.valid_percent, args.seed, classes).write(args.dest)


if __name__ == "__main__":
    parser = script_parser(__doc__)
    parser.add_argument("--names", metavar="FILE", help="a line for each class: folder, space, name")
    sys.exit(run_script(main, parser.parse_args()))
