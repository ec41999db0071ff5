"""``bridle export``: a model for use without fairseq."""

from __future__ import annotations

import argparse
from pathlib import Path

from bridle_fairseq.utils.errors import InputError

HELP = "write a model for use without fairseq: safetensors, settings and a model card"
PARTS = {"encoder": ("encoder",), "tokenizer": ("tokenizer",), "all": ("encoder", "tokenizer")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bridle export``."""
    parser.add_argument(
        "checkpoint",
        help="checkpoint of the model 'bridle', 'bridle_classifier' or 'bridle_ctc'; with --push, also an export",
    )
    parser.add_argument(
        "dir",
        metavar="DIR",
        nargs="?",
        help="new or empty folder, or an earlier export, which is replaced; none if CHECKPOINT is an export to push",
    )
    parser.add_argument("--part", choices=list(PARTS), help="of the model 'bridle' (default: all)")
    parser.add_argument("--license", metavar="NAME", help="of the weights, for the model card, such as cc-by-4.0")
    parser.add_argument(
        "--dataset",
        metavar="NAME",
        action="append",
        default=[],
        help="data set of training on the Hugging Face Hub, for the model card; may be repeated",
    )
    parser.add_argument("--about", metavar="FILE", help="Markdown for the model card: what the model is good for ...")
    parser.add_argument(
        "--dtype",
        choices=("float32", "float16"),
        default="float32",
        help="of the weights in the file; float16 takes half the space, and results differ a little (%(default)s)",
    )
    parser.add_argument(
        "--onnx",
        action="store_true",
        help="also write encoder.onnx, for sound of any length, checked in onnxruntime (needs the extra 'onnx')",
    )
    parser.add_argument(
        "--push",
        metavar="OWNER/NAME",
        help="upload the export to the Hugging Face Hub, OWNER/NAME or OWNER/NAME@BRANCH (needs the extra 'hub')",
    )
    parser.add_argument("--private", action="store_true", help="with --push: a model that is made there is private")


def run(args: argparse.Namespace) -> int:
    """Export, list the files, and upload them."""
    if args.private and not args.push:
        raise InputError("--private without --push; expected both: it is about the model on the Hub")
    if args.push:
        from bridle_fairseq.export.push import check_push

        check_push(args.push)
    if args.dir is None:
        _check_push_alone(args)
        folder = Path(args.checkpoint)
    else:
        folder = _export(args)
    if args.push:
        from bridle_fairseq.export.push import push_export

        print(f"uploaded: {push_export(folder, args.push, args.private)}")
    print(f'use it: bridle_fairseq.pretrained.load("{args.push or folder}")')
    return 0


def _export(args: argparse.Namespace) -> Path:
    if args.onnx and args.part == "tokenizer":
        raise InputError("--onnx with --part tokenizer; expected --part encoder or all, as it is the encoder's graph")
    from bridle_fairseq.export.write import write_export
    from bridle_fairseq.models.checkpoints import read_checkpoint
    from bridle_fairseq.utils.files import size_text
    from bridle_fairseq.utils.text_files import read_lines

    about = "\n".join(read_lines(args.about, "Markdown")) if args.about else ""
    checkpoint = read_checkpoint(args.checkpoint, expected="a checkpoint of fairseq-hydra-train")
    if checkpoint.model != "bridle" and args.part is not None:
        raise InputError(f"--part {args.part} with a checkpoint of the model {checkpoint.model!r}; expected none")
    parts = PARTS.get(args.part, ())
    folder = write_export(
        checkpoint, args.dir, parts, args.license, args.onnx, args.dtype, about, datasets=args.dataset
    )
    for path in sorted(folder.iterdir()):
        print(f"{path}: {size_text(path.stat().st_size)}")
    return folder


def _check_push_alone(args: argparse.Namespace) -> None:
    """Check that the export which is given in place of a checkpoint is only pushed."""
    if not args.push:
        raise InputError("no DIR; expected the folder to write, or --push with a folder of bridle export")
    if not Path(args.checkpoint).is_dir():
        raise InputError(f"{args.checkpoint} without DIR: no folder; expected one of bridle export to push, or DIR")
    given = {"--part": args.part, "--license": args.license, "--dataset": args.dataset, "--about": args.about}
    given |= {"--dtype": args.dtype != "float32", "--onnx": args.onnx}
    for option, value in given.items():
        if value:
            raise InputError(
                f"{option} with an export, which is pushed as it is; expected none, or a checkpoint and DIR"
            )
