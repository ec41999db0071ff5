"""``bridle stats``: mean and standard deviation of a manifest's log-mel frames or pixels, to normalise them."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from types import SimpleNamespace
from typing import Any

from bridle_fairseq.cli.arguments import add_modality_argument

HELP = "mean and standard deviation of a manifest's log-mel frames or pixels, as overrides for training"
PIXELS = ("image_size", "num_frames", "frame_stride")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bridle stats``."""
    parser.add_argument("manifest", metavar="MANIFEST", help="train.tsv, as bridle manifest writes it")
    add_modality_argument(parser)
    parser.add_argument("--max-clips", type=int, metavar="N", help="a random choice of N clips (default: all)")
    parser.add_argument("--max-seconds", type=float, default=10.24, help="sound: a random crop of longer clips (10.24)")
    parser.add_argument("--sample-rate", type=int, default=16000, metavar="HZ", help="sound: the model's (16000)")
    parser.add_argument("--num-mel-bins", type=int, default=128, metavar="N", help="sound: the model's (128)")
    parser.add_argument(
        "--image-size", type=int, default=224, metavar="N", help="images, video: their middle is resized to this (224)"
    )
    parser.add_argument("--num-frames", type=int, default=16, metavar="N", help="video: frames of a clip (16)")
    parser.add_argument("--frame-stride", type=int, default=4, metavar="N", help="video: from frame to frame (4)")
    parser.add_argument("--batch-size", type=int, default=32, help="clips at a time (32)")
    parser.add_argument("--workers", type=int, default=2, help="processes that decode (2)")
    parser.add_argument("--seed", type=int, default=1, help="of the choice of clips and crops (1)")
    parser.add_argument(
        "--max-skipped", type=float, default=0.01, metavar="SHARE", help="clips that may be unreadable (0.01)"
    )


def run(args: argparse.Namespace) -> int:
    """Print the numbers as overrides on stdout, what they come from on stderr."""
    import numpy as np

    from bridle_fairseq.data.manifests.manifest import Manifest
    from bridle_fairseq.data.manifests.skipped import SkipLog
    from bridle_fairseq.data.modalities import modality_of
    from bridle_fairseq.utils.errors import InputError

    for name in ("max_clips", "max_seconds", "batch_size", "sample_rate", "num_mel_bins", *PIXELS):
        value = getattr(args, name)
        if value is not None and value <= 0:
            raise InputError(f"--{name.replace('_', '-')} {value}; expected more than 0")
    if args.workers < 0:
        raise InputError(f"--workers {args.workers}; expected 0 or more")
    manifest = Manifest.read(args.manifest)
    if args.max_clips is not None and args.max_clips < len(manifest):
        chosen = np.random.default_rng(args.seed).choice(len(manifest), args.max_clips, replace=False)
        manifest = manifest.select(np.sort(chosen))
    cfg = _configuration(args)
    with tempfile.TemporaryDirectory() as folder:
        skips = SkipLog(manifest, os.path.join(folder, "skipped.tsv"))
        dataset = modality_of(cfg).dataset(manifest, cfg, training=True, skips=skips)
        mean, deviation, count = value_statistics(dataset, _values(args), args.batch_size, args.workers)
        for _, path, reason in skips.listed():
            print(f"left out: {path}: {reason}", file=sys.stderr)
    if skips.count > args.max_skipped * len(manifest):
        raise InputError(
            f"{args.manifest}: {skips.count} of {len(manifest)} clips cannot be read, see above; expected at most a "
            f"share of {args.max_skipped:g} (--max-skipped)"
        )
    clips = len(manifest) - skips.count
    if args.modality == "audio":
        print(f"{clips} clips, {count // args.num_mel_bins} frames; {skips.count} skipped", file=sys.stderr)
        print(f"model.fbank_mean={mean[0]:.4f} model.fbank_std={deviation[0]:.4f}")
    else:
        many = "images" if args.modality == "image" else "clips"
        print(f"{clips} {many}, {count} pixels; {skips.count} skipped", file=sys.stderr)
        shown = (",".join(f"{value:.4f}" for value in values) for values in (mean, deviation))
        print("model.pixel_mean=[{}] model.pixel_std=[{}]".format(*shown))
    return 0


def _configuration(args: argparse.Namespace) -> Any:
    """Clips as they are when nothing is augmented, long ones cropped at random."""
    return SimpleNamespace(
        modality=args.modality,
        seed=args.seed,
        num_buckets=16,
        sample_rate=args.sample_rate,
        max_sample_size=round(args.max_seconds * args.sample_rate),
        roll=False,
        gain=False,
        **{name: getattr(args, name) for name in PIXELS},
        random_start=True,
        valid_crop=1.0,
        crop=False,
        flip=False,
        rand_augment=0,
        rand_magnitude=0,
        erase=0.0,
    )


def _values(args: argparse.Namespace) -> Any:
    """What makes a batch's values, B x channels x sizes, and their padding (B x the first sizes) or None."""
    from bridle_fairseq.nn.fbank import LogMel
    from bridle_fairseq.nn.frontend import unit_range

    if args.modality != "audio":
        return lambda source, padding_mask: (unit_range(source), padding_mask)
    log_mel = LogMel(args.sample_rate, args.num_mel_bins)

    def of_sound(source: Any, padding_mask: Any) -> tuple[Any, Any]:
        fbank, padding = log_mel(source, padding_mask)
        return fbank.unsqueeze(1), padding

    return of_sound


def value_statistics(dataset: Any, values: Any, batch_size: int, workers: int) -> tuple[list[float], list[float], int]:
    """Mean and standard deviation of each channel over all valid values, and how many those are; sums in float64.

    Raises:
        InputError: not a single clip could be read.
    """
    import numpy as np
    import torch
    from tqdm import tqdm

    from bridle_fairseq.utils.errors import InputError

    order = dataset.ordered_indices()
    batches = [rows.tolist() for rows in np.split(order, range(batch_size, len(order), batch_size))]
    loader = torch.utils.data.DataLoader(
        dataset, batch_sampler=batches, collate_fn=dataset.collater, num_workers=workers
    )
    total, squares, count = torch.zeros(1), torch.zeros(1), 0
    for batch in tqdm(loader, desc="stats", unit=" batches", disable=not sys.stderr.isatty()):
        if not batch:
            continue
        x, padding = values(**batch["net_input"])
        by_channel = x.transpose(0, 1)  # channels x B x sizes
        by_channel = (by_channel if padding is None else by_channel[:, ~padding]).flatten(1).double()
        total = total + by_channel.sum(1)
        squares = squares + by_channel.square().sum(1)
        count += by_channel.shape[1]
    if count == 0:
        raise InputError(f"{dataset.manifest.name}: none of {len(dataset)} clips can be read")
    mean = total / count
    return mean.tolist(), (squares / count - mean.square()).clamp(min=0).sqrt().tolist(), count
