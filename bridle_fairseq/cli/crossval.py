"""``bridle crossval``: cross-validation on the folds of a table. A run that was stopped continues where it was."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from bridle_fairseq.cli.arguments import (
    MODEL,
    add_batch_arguments,
    add_chunk_arguments,
    add_layers_argument,
    batch_options,
    chunk_options,
)

HELP = "cross-validate on the folds of a table: frozen probe, fine-tuning, or log-mel statistics"
MODES = ("probe", "finetune", "logmel")
TAKES_OVERRIDES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bridle crossval``."""
    parser.epilog = "What stands after -- is passed to fairseq-hydra-train: -- optimization.max_update=2000"
    parser.add_argument("table", metavar="CSV", help="names, classes and folds, such as esc50.csv or UrbanSound8K.csv")
    parser.add_argument("audio", metavar="AUDIO_DIR", help="folder of the clips (searched), or stored .zip archive")
    parser.add_argument("--out", required=True, metavar="DIR", help="gets manifests, results, crossval.json and .csv")
    parser.add_argument("--mode", choices=MODES, default="probe", help="what is trained on the folds (%(default)s)")
    parser.add_argument(
        "--checkpoint",
        metavar="CKPT",
        help=f"of the model 'bridle' (probe and finetune): {MODEL}; with {{fold}} in its path each fold has its own, "
        "pretrained without the clips that test it",
    )
    parser.add_argument(
        "--untrained", action="store_true", help="use random weights instead of the checkpoint's: from scratch"
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
    parser.add_argument("--seed", type=int, default=1, help="of that share, and of random weights (1)")
    parser.add_argument("--overwrite", action="store_true", help="delete results of other settings or checkpoints")
    parser.add_argument(
        "--against",
        metavar="DIR",
        help="folder of another cross-validation of the same clips and folds, such as one of --untrained or --mode "
        "logmel: the difference of what validates best is printed with its interval",
    )
    add_layers_argument(parser, "all")
    parser.add_argument("--config-dir", metavar="DIR", help="finetune: default examples/audio/config/finetuning")
    parser.add_argument("--config-name", default="tiny", metavar="NAME", help="finetune (default: %(default)s)")
    add_chunk_arguments(parser)
    add_batch_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run the folds, print the table."""
    from bridle_fairseq.training.crossval import CrossvalOptions, cross_validate
    from bridle_fairseq.training.fold_runs import FoldOptions

    out = Path(args.out).absolute()
    folds = FoldOptions(
        out=out,
        mode=args.mode,
        checkpoint=args.checkpoint or "",
        untrained=args.untrained,
        layers=args.layers,
        chunks=chunk_options(args),
        batch=batch_options(args),
        seed=args.seed,
        config_dir=args.config_dir,
        config_name=args.config_name,
        overrides=args.overrides,
    )
    options = CrossvalOptions(
        table=args.table,
        audio=args.audio,
        run=folds,
        name_column=args.name_column,
        label_column=args.label_column,
        fold_column=args.fold_column,
        label_separator=args.label_separator,
        classes=args.classes,
        folds=args.folds,
        valid_share=args.valid_percent,
        overwrite=args.overwrite,
        against=args.against,
    )
    print(f"\n{cross_validate(options, partial(print, flush=True))}")
    print(f"\n{out / 'crossval.json'}, {out / 'crossval.csv'}")
    return 0
