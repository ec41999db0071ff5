"""``bridle stats``: mean and standard deviation of a manifest's log-mel frames or pixels, for normalization."""

from __future__ import annotations

import argparse
import sys
from functools import partial

from bridle_fairseq.cli.arguments import add_max_skipped_argument, add_modality_argument

HELP = "mean and standard deviation of a manifest's log-mel frames or pixels, as overrides for training"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bridle stats``."""
    parser.add_argument("manifest", metavar="MANIFEST", help="train.tsv, as bridle manifest writes it")
    add_modality_argument(parser)
    parser.add_argument("--max-clips", type=int, metavar="N", help="a random sample of N clips (default: all)")
    parser.add_argument("--max-seconds", type=float, default=10.24, help="sound: a random crop of longer clips (10.24)")
    parser.add_argument("--sample-rate", type=int, default=16000, metavar="HZ", help="sound: the model's (16000)")
    parser.add_argument("--num-mel-bins", type=int, default=128, metavar="N", help="sound: the model's (128)")
    parser.add_argument(
        "--image-size", type=int, default=224, metavar="N", help="images, video: the center is resized to this (224)"
    )
    parser.add_argument("--num-frames", type=int, default=16, metavar="N", help="video: frames of a clip (16)")
    parser.add_argument("--frame-stride", type=int, default=4, metavar="N", help="video: from frame to frame (4)")
    parser.add_argument("--batch-size", type=int, default=32, help="clips at a time (32)")
    parser.add_argument("--workers", type=int, default=2, help="processes that decode (2)")
    parser.add_argument("--seed", type=int, default=1, help="of the sample and of the crops (1)")
    add_max_skipped_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Print the numbers as overrides on stdout, and the number of clips on stderr."""
    from dataclasses import fields

    from bridle_fairseq.prepare.statistics import StatisticsOptions, measure_overrides

    options = StatisticsOptions(**{field.name: getattr(args, field.name) for field in fields(StatisticsOptions)})
    say = partial(print, file=sys.stderr)
    print(*measure_overrides(args.manifest, options, args.max_skipped, say))
    return 0
