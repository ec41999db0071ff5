"""``bridle manifest``: list the files of a folder or a stored zip archive, for training and validation."""

from __future__ import annotations

import argparse

from bridle_fairseq.cli.arguments import add_max_skipped_argument, add_modality_argument

HELP = "list the sound files, images or videos of a folder (or a stored .zip or .tar) in train.tsv and valid.tsv"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bridle manifest``."""
    parser.add_argument(
        "source", metavar="SOURCE", help="folder, searched with its subfolders and .tar shards, or stored .zip or .tar"
    )
    parser.add_argument("--dest", required=True, metavar="DIR", help="folder for the manifests; created if missing")
    add_modality_argument(parser)
    parser.add_argument("--ext", nargs="+", metavar="EXT", help="extensions (default: the usual ones of the modality)")
    parser.add_argument(
        "--valid-percent", type=float, default=0.05, metavar="SHARE", help="validation share, 0 to 1 (0.05)"
    )
    parser.add_argument("--test-percent", type=float, default=0.0, metavar="SHARE", help="test share, 0 to 1 (0)")
    parser.add_argument("--seed", type=int, default=42, help="of the random split; with labels it is stratified (42)")
    parser.add_argument("--path-must-contain", metavar="TEXT", help="only files with this text in their path")
    add_max_skipped_argument(parser, what="files")
    parser.add_argument("--workers", type=int, default=8, help="threads that read headers (8)")
    labels = parser.add_argument_group(
        "labels", "write {split}.lbl and labels.csv as well; files without a label are skipped"
    )
    labels.add_argument(
        "--class-folders", action="store_true", help="files lie in folders of their classes: class/x, or train/class/x"
    )
    labels.add_argument(
        "--labels", nargs="+", metavar="CSV", help="tables with a header that name a file and its class"
    )
    labels.add_argument(
        "--label-member",
        metavar="ENDING",
        help="a file beside each file has its class, as in WebDataset's shards: cls, txt, or json:KEY",
    )
    labels.add_argument(
        "--name-column", metavar="NAME", help="default: path, filename, slice_file_name, file, name or fname"
    )
    labels.add_argument("--label-column", metavar="NAME", help="default: label, labels, category, class or keyword")
    labels.add_argument(
        "--label-separator", metavar="TEXT", help="between several classes in one cell (default: one class)"
    )
    labels.add_argument("--split-column", metavar="NAME", help="split of each file (default: split, if there is one)")
    labels.add_argument(
        "--fold-column", metavar="NAME", help="also write fold*/{train,valid,test}.tsv; test is the fold"
    )
    labels.add_argument(
        "--fold-valid-percent", type=float, default=0.1, metavar="SHARE", help="validation share of other folds (0.1)"
    )
    labels.add_argument("--classes", metavar="CSV", help="an existing labels.csv (index,mid,display_name) to keep to")


def run(args: argparse.Namespace) -> int:
    """Write the manifests, print a line for each."""
    from bridle_fairseq.prepare.listing import ListingOptions, list_corpus

    options = ListingOptions(
        source=args.source,
        dest=args.dest,
        modality=args.modality,
        extensions=args.ext,
        path_must_contain=args.path_must_contain,
        workers=args.workers,
        max_skipped=args.max_skipped,
        valid_percent=args.valid_percent,
        test_percent=args.test_percent,
        seed=args.seed,
        fold_valid_percent=args.fold_valid_percent,
        labels=args.labels or (),
        columns={name: getattr(args, f"{name}_column") for name in ("name", "label", "split", "fold")},
        label_separator=args.label_separator,
        class_folders=args.class_folders,
        label_member=args.label_member,
        classes=args.classes,
    )
    list_corpus(options).write(args.dest)
    return 0
