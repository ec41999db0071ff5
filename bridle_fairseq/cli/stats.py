"""``bridle stats``: mean and standard deviation of the log-mel frames of a manifest, for the model's normalisation."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from typing import Any

HELP = "mean and standard deviation of the log-mel of a manifest, as overrides for training"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bridle stats``."""
    parser.add_argument("manifest", metavar="MANIFEST", help="train.tsv, as bridle manifest writes it")
    parser.add_argument("--max-clips", type=int, metavar="N", help="a random choice of N clips (default: all)")
    parser.add_argument("--max-seconds", type=float, default=10.24, help="a random crop of longer clips (10.24)")
    parser.add_argument("--sample-rate", type=int, default=16000, metavar="HZ", help="that of the model (16000)")
    parser.add_argument("--num-mel-bins", type=int, default=128, metavar="N", help="those of the model (128)")
    parser.add_argument("--batch-size", type=int, default=32, help="clips at a time (32)")
    parser.add_argument("--workers", type=int, default=2, help="processes that decode (2)")
    parser.add_argument("--seed", type=int, default=1, help="of the choice of clips and crops (1)")
    parser.add_argument(
        "--max-skipped", type=float, default=0.01, metavar="SHARE", help="clips that may be unreadable (0.01)"
    )


def run(args: argparse.Namespace) -> int:
    """Print the two numbers as overrides on stdout, what they come from on stderr."""
    import numpy as np

    from bridle_fairseq.data.audio import AudioDataset
    from bridle_fairseq.data.manifest import Manifest
    from bridle_fairseq.data.skips import SkipLog
    from bridle_fairseq.errors import InputError
    from bridle_fairseq.nn.fbank import LogMel

    for name in ("max_clips", "max_seconds", "batch_size", "sample_rate", "num_mel_bins"):
        value = getattr(args, name)
        if value is not None and value <= 0:
            raise InputError(f"--{name.replace('_', '-')} {value}; expected more than 0")
    if args.workers < 0:
        raise InputError(f"--workers {args.workers}; expected 0 or more")
    manifest = Manifest.read(args.manifest)
    if args.max_clips is not None and args.max_clips < len(manifest):
        chosen = np.random.default_rng(args.seed).choice(len(manifest), args.max_clips, replace=False)
        manifest = manifest.select(np.sort(chosen))
    with tempfile.TemporaryDirectory() as folder:
        skips = SkipLog(manifest, os.path.join(folder, "skipped.tsv"))
        dataset = AudioDataset(
            manifest,
            sample_rate=args.sample_rate,
            max_sample_size=round(args.max_seconds * args.sample_rate),
            training=True,
            seed=args.seed,
            skips=skips,
        )
        log_mel = LogMel(args.sample_rate, args.num_mel_bins)
        mean, deviation, frames = log_mel_statistics(dataset, log_mel, args.batch_size, args.workers)
        for _, path, reason in skips.listed():
            print(f"left out: {path}: {reason}", file=sys.stderr)
    if skips.count > args.max_skipped * len(manifest):
        raise InputError(
            f"{args.manifest}: {skips.count} of {len(manifest)} clips cannot be read, see above; expected at most a "
            f"share of {args.max_skipped:g} (--max-skipped)"
        )
    print(f"{len(manifest) - skips.count} clips, {frames} frames; {skips.count} skipped", file=sys.stderr)
    print(f"model.fbank_mean={mean:.4f} model.fbank_std={deviation:.4f}")
    return 0


def log_mel_statistics(dataset: Any, log_mel: Any, batch_size: int, workers: int) -> tuple[float, float, int]:
    """Mean and standard deviation over all bins of all valid frames, and how many frames; sums in float64.

    Raises:
        InputError: not a single clip could be read.
    """
    import numpy as np
    import torch
    from tqdm import tqdm

    from bridle_fairseq.errors import InputError

    order = dataset.ordered_indices()
    batches = [rows.tolist() for rows in np.split(order, range(batch_size, len(order), batch_size))]
    loader = torch.utils.data.DataLoader(
        dataset, batch_sampler=batches, collate_fn=dataset.collater, num_workers=workers
    )
    total, squares, frames = 0.0, 0.0, 0
    for batch in tqdm(loader, desc="stats", unit=" batches", disable=not sys.stderr.isatty()):
        if not batch:
            continue
        fbank, padding_mask = log_mel(batch["net_input"]["source"], batch["net_input"]["padding_mask"])
        values = (fbank if padding_mask is None else fbank[~padding_mask]).double()
        total += float(values.sum())
        squares += float(values.square().sum())
        frames += values.numel() // fbank.shape[-1]
    if frames == 0:
        raise InputError(f"{dataset.manifest.name}: none of {len(dataset)} clips can be read")
    count = frames * log_mel.num_mel_bins
    mean = total / count
    return mean, max(squares / count - mean**2, 0.0) ** 0.5, frames
