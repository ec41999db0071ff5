"""The batched log-mel front end compared with torchaudio's: ratio of times and largest difference of values.

    python benchmarks/fbank.py [--device cuda] [--threads 1]

torchaudio, the common choice, computes one clip at a time. Both run in turn in one process. Prints the medians over the
rounds and the quartiles of the rounds' ratios. On a CPU, CPU time is measured, which other processes disturb less; on a
GPU, the time until the device has finished.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torchaudio.compliance import kaldi

from bridle_fairseq.nn.fbank import LogMel

SHAPES = ((4, 10.24), (16, 10.24), (64, 1.0), (256, 1.0), (1, 1.0), (1, 60.0))  # clips, seconds of the longest clip
ROUNDS = 9


def torchaudio_fbank(clip: torch.Tensor) -> torch.Tensor:
    """Log-mel frames of one clip, as in AST and BEATs."""
    return kaldi.fbank(
        (clip - clip.mean())[None],
        htk_compat=True,
        sample_frequency=16000,
        use_energy=False,
        window_type="hanning",
        num_mel_bins=128,
        dither=0.0,
        frame_shift=10,
    )


def seconds(function, device: str) -> float:
    """Seconds of one call."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    start = clock()
    function()
    if device != "cpu":
        torch.cuda.synchronize()
    return clock() - start


def padded_batch(clips: int, longest: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Noise from half the longest length to the longest (in seconds), its padding mask, and the lengths in samples."""
    random = torch.Generator().manual_seed(0)
    sizes = (
        torch.linspace(0.5, 1.0, clips).mul(longest * 16000).long() if clips > 1 else torch.tensor([longest * 16000])
    )
    source = 0.1 * torch.randn(clips, int(sizes.max()), generator=random)
    return source, torch.arange(source.shape[1]) >= sizes[:, None], sizes


def compare(clips: int, longest: float, device: str) -> None:
    """Time a padded batch, and print one line."""
    source, padding_mask, sizes = padded_batch(clips, longest)
    single_clips = [clip[: int(size)].to(device) for clip, size in zip(source, sizes, strict=True)]
    source, padding_mask = source.to(device), padding_mask.to(device)
    log_mel = LogMel().to(device)
    ours, theirs = [], []
    for _ in range(ROUNDS):
        ours.append(seconds(lambda: log_mel(source, padding_mask), device))
        theirs.append(seconds(lambda: [torchaudio_fbank(clip) for clip in single_clips], device))
    fbank, frame_padding_mask = log_mel(source, padding_mask)
    difference = max(
        float((row[~mask] - torchaudio_fbank(clip)).abs().max())
        for row, mask, clip in zip(fbank, frame_padding_mask, single_clips, strict=True)
    )
    our_median, their_median = statistics.median(ours), statistics.median(theirs)
    first, _, third = statistics.quantiles([a / b for a, b in zip(ours, theirs, strict=True)], n=4)
    print(
        f"{clips:4} x {longest:6.2f} s  ours {1e3 * our_median:8.2f} ms  torchaudio {1e3 * their_median:8.2f} ms  "
        f"ratio {our_median / their_median:.2f} ({first:.2f} to {third:.2f})  largest difference {difference:.1e}"
    )


def main() -> None:
    """Compare on all shapes."""
    parser = argparse.ArgumentParser(description="The batched log-mel front end compared with torchaudio's.")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for clips, longest in SHAPES:
        compare(clips, longest, args.device)


if __name__ == "__main__":
    main()
