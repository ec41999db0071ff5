"""``bridle export``: a model for use without fairseq."""

from __future__ import annotations

import argparse

from bridle_fairseq.utils.errors import InputError

HELP = "write a model for use without fairseq: safetensors, settings and a model card"
PARTS = {"encoder": ("encoder",), "tokenizer": ("tokenizer",), "all": ("encoder", "tokenizer")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bridle export``."""
    parser.add_argument("checkpoint", help="checkpoint of the model 'bridle', 'bridle_classifier' or 'bridle_ctc'")
    parser.add_argument("dir", metavar="DIR", help="new or empty folder, or an earlier export, which is replaced")
    parser.add_argument("--part", choices=list(PARTS), help="of the model 'bridle' (default: all)")
    parser.add_argument("--license", metavar="NAME", help="of the weights, for the model card, such as cc-by-4.0")
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


def run(args: argparse.Namespace) -> int:
    """Export, and list the files."""
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
    folder = write_export(checkpoint, args.dir, PARTS.get(args.part, ()), args.license, args.onnx, args.dtype, about)
    for path in sorted(folder.iterdir()):
        print(f"{path}: {size_text(path.stat().st_size)}")
    print(f'use it: bridle_fairseq.pretrained.load("{folder}")')
    return 0
