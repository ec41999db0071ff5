"""``bridle crossval``: k folds from a table with a fold column, in one command that goes on where it was stopped."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from bridle_fairseq.cli.corpus_run import add_batch_arguments, check_batch_arguments
from bridle_fairseq.cli.features import add_chunk_arguments, add_layers_argument
from bridle_fairseq.utils.errors import InputError

HELP = "cross-validate on the folds of a table: frozen probe, fine-tuning, or log-mel statistics"
MODES = ("probe", "finetune", "logmel")
TAKES_OVERRIDES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bridle crossval``."""
    parser.epilog = "What stands after -- is passed to fairseq-hydra-train: -- optimization.max_update=2000"
    parser.add_argument("table", metavar="CSV", help="names, classes and folds, such as esc50.csv or UrbanSound8K.csv")
    parser.add_argument("audio", metavar="AUDIO_DIR", help="folder of the sounds (searched), or stored .zip archive")
    parser.add_argument("--out", required=True, metavar="DIR", help="gets manifests, results, crossval.json and .csv")
    parser.add_argument("--mode", choices=MODES, default="probe", help="what is trained on the folds (%(default)s)")
    parser.add_argument(
        "--checkpoint",
        metavar="CKPT",
        help="of the model 'bridle' (probe and finetune); with {fold} in its path each fold has its own, pretrained "
        "without the clips that test it",
    )
    parser.add_argument(
        "--untrained", action="store_true", help="take fresh random weights instead of the checkpoint's: from scratch"
    )
    parser.add_argument(
        "--name-column", metavar="NAME", help="default: filename, slice_file_name ... (ESC, UrbanSound)"
    )
    parser.add_argument("--label-column", metavar="NAME", help="default: category, class, label ...")
    parser.add_argument(
        "--label-separator",
        metavar="TEXT",
        help="between several classes in one cell: a clip has any number of them, and the score is mAP (default: each "
        "clip has one class, and the score is accuracy)",
    )
    parser.add_argument("--fold-column", metavar="NAME", default="fold", help="(default: %(default)s)")
    parser.add_argument("--classes", metavar="CSV", help="an existing labels.csv (index,mid,display_name) to keep to")
    parser.add_argument("--folds", nargs="+", metavar="FOLD", help="test these folds only (default: each in turn)")
    parser.add_argument(
        "--valid-percent", type=float, default=0.1, metavar="SHARE", help="of the other folds, by class (0.1)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of that share, and of fresh weights (1)")
    parser.add_argument("--overwrite", action="store_true", help="throw away results of other settings or checkpoints")
    add_layers_argument(parser, "all")
    parser.add_argument("--config-dir", metavar="DIR", help="finetune: default examples/audio/config/finetuning")
    parser.add_argument("--config-name", default="tiny", metavar="NAME", help="finetune (default: %(default)s)")
    add_chunk_arguments(parser)
    add_batch_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Write the folds' manifests, train and test what is not done yet, print the table."""
    _check(args)
    from bridle_fairseq.training.crossval import Job, keep_to_checkpoints, run_fold_by_fold, summarise
    from bridle_fairseq.utils.device import choose_device

    out = Path(args.out).absolute()
    args.out = str(out)
    device = choose_device(args.device)
    corpus, labels, folds = _prepare(args)
    _check_checkpoints(args, folds)
    _keep_to_settings(args, out, corpus)
    keep_to_checkpoints(out, args.checkpoint or "", folds, args.overwrite)
    corpus.write(out, say=lambda text: None)
    print(f"{len(labels)} clips, {len(corpus.classes)} classes, {len(folds)} folds: manifests in {out}")
    _say_absent(labels, len(corpus.classes), folds)
    job = Job(args, out, corpus.classes, labels, folds, device)
    results = run_fold_by_fold(job)
    print(f"\n{summarise(results, out, _settings(args, corpus), job.metric)}")
    print(f"\n{out / 'crossval.json'}, {out / 'crossval.csv'}")
    return 0


def _check(args: argparse.Namespace) -> None:
    check_batch_arguments(args)
    if args.mode == "logmel" and (args.checkpoint or args.untrained):
        raise InputError("--mode logmel has no encoder; expected no --checkpoint and no --untrained")
    if args.mode != "logmel" and not args.checkpoint:
        more = " (with --untrained only its settings are taken)" if args.untrained else ""
        raise InputError(f"--mode {args.mode} needs --checkpoint, one of the model 'bridle'{more}")
    if args.overrides and args.mode != "finetune":
        raise InputError(f"{args.overrides[0]!r} after --; expected overrides of training with --mode finetune only")


def _check_checkpoints(args: argparse.Namespace, folds: Any) -> None:
    from bridle_fairseq.training.crossval import checkpoint_of

    for path in dict.fromkeys(checkpoint_of(args.checkpoint, fold.name) for fold in folds if args.checkpoint):
        if not os.path.isfile(path):
            raise InputError(f"{path}: no such checkpoint; expected a file that fairseq-hydra-train wrote")


def _prepare(args: argparse.Namespace) -> tuple[Any, Any, Any]:
    """The corpus with the splits of all folds, and ``all`` besides; labels of the rows of that (see Job); the folds."""
    import numpy as np

    from bridle_fairseq.data.manifests.labels import Classes, Labels
    from bridle_fairseq.prepare.corpus import labelled_corpus, scan_source
    from bridle_fairseq.prepare.folds import make_folds, match_all
    from bridle_fairseq.prepare.tables import read_table

    columns = {"name": args.name_column, "label": args.label_column, "fold": args.fold_column}
    entries = read_table(args.table, columns, args.label_separator)
    multi_label = args.label_separator is not None
    scan = scan_source(args.audio, args.out)
    found = match_all(scan, entries, args.table, multi_label)
    corpus = labelled_corpus(scan, found, 0.0, args.seed, Classes.read(args.classes) if args.classes else None)
    used = np.array([row for row, entry in enumerate(found) if entry is not None])
    if multi_label:
        labels = np.stack([Labels([corpus.labels[row]], corpus.classes).multi_hot(0) for row in used])
    else:
        labels = np.array([corpus.labels[row][0] for row in used])
    of_rows = [entry.fold for entry in found if entry is not None]
    folds = make_folds(of_rows, labels, corpus.classes, args.valid_percent, args.seed, args.folds)
    corpus.splits = {"all": used}
    for fold in folds:
        for part, rows in (("train", fold.train), ("valid", fold.valid), ("test", fold.test)):
            corpus.splits[f"fold{fold.name}/{part}"] = used[rows]
    return corpus, labels, folds


def _say_absent(labels: Any, num_classes: int, folds: Any) -> None:
    """How many classes no fold can be judged by, where the score is a mean over classes."""
    for fold in folds if labels.ndim == 2 else ():
        absent = num_classes - int(labels[fold.test].any(0).sum())
        if absent:
            print(f"fold {fold.name}: {absent} of {num_classes} classes have no clip in it and are left out of its mAP")


def _settings(args: argparse.Namespace, corpus: Any) -> dict[str, Any]:
    """All that decides the results."""
    from bridle_fairseq.utils.files import file_sha256

    rows = [(corpus.scan.files[row].name, corpus.scan.sizes[row], corpus.labels[row]) for row in corpus.splits["all"]]
    digest = hashlib.sha256(repr((rows, corpus.classes.ids)).encode()).hexdigest()
    table = file_sha256(args.table)
    found = {"mode": args.mode, "clips_sha256": digest, "table_sha256": table, "seed": args.seed}
    found |= {"valid_share": args.valid_percent}
    if args.label_separator is not None:
        found |= {"label_separator": args.label_separator}
    if args.mode != "logmel":
        of_each = "{fold}" in args.checkpoint  # then it stands in each fold's files
        sha256 = "of each fold" if of_each else file_sha256(args.checkpoint)
        found |= {"checkpoint_sha256": sha256, "untrained": args.untrained}
    if args.mode == "finetune":
        found |= {"config_dir": args.config_dir, "config_name": args.config_name, "overrides": args.overrides}
    else:
        found |= {name: getattr(args, name) for name in ("layers", "chunk_seconds", "overlap_seconds")}
    return found


def _keep_to_settings(args: argparse.Namespace, out: Path, corpus: Any) -> None:
    """See that results in the folder are of the same settings; with ``--overwrite``, throw others away.

    Raises:
        InputError: they are of others.
    """
    from bridle_fairseq.utils.files import atomic_text

    settings, path = _settings(args, corpus), out / "settings.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        found = None
    except ValueError:
        raise InputError(f"{path}: not JSON; expected the settings that an earlier run wrote, or no file") from None
    if found is not None and found != settings:
        name = next(name for name in {**settings, **found} if settings.get(name) != found.get(name))
        if not args.overwrite:
            raise InputError(
                f"{path}: results of other settings are there ({name} {str(found.get(name))[:40]}); expected "
                f"{str(settings.get(name))[:40]}: choose another --out, or throw them away with --overwrite"
            )
        for fold in out.glob("fold*"):
            shutil.rmtree(fold)
    with atomic_text(path) as file:
        json.dump(settings, file, indent=2)
        file.write("\n")
