"""The batched log-mel front end beside torchaudio's, clip by clip: time as a ratio, and the largest difference.

    python benchmarks/fbank.py [--device cuda] [--threads 1]

torchaudio is what others call, a clip at a time. Both run in turn in one process; the figure is the median of the
rounds, with the quartiles of their ratios: CPU time on a CPU, so that what else runs there counts little, else the time
until the device has finished.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torchaudio.compliance import kaldi

from bridle_fairseq.nn.fbank import LogMel

SHAPES = ((4, 10.24), (16, 10.24), (64, 1.0), (256, 1.0), (1, 1.0), (1, 60.0))  # clips, seconds of the longest
ROUNDS = 9


def torchaudio_fbank(clip: torch.Tensor) -> torch.Tensor:
    """One clip's log-mel frames, as AST and BEATs compute them."""
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
    """Time of one call."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    start = clock()
    function()
    if device != "cpu":
        torch.cuda.synchronize()
    return clock() - start


def compare(clips: int, longest: float, device: str) -> None:
    """Print one line: a batch of clips from half the longest to the longest, padded."""
    random = torch.Generator().manual_seed(0)
    sizes = (
        torch.linspace(0.5, 1.0, clips).mul(longest * 16000).long() if clips > 1 else torch.tensor([longest * 16000])
    )
    source = 0.1 * torch.randn(clips, int(sizes.max()), generator=random)
    padding_mask = torch.arange(source.shape[1]) >= sizes[:, None]
    alone = [clip[: int(size)].to(device) for clip, size in zip(source, sizes, strict=True)]
    source, padding_mask = source.to(device), padding_mask.to(device)
    log_mel = LogMel().to(device)
    ours, theirs = [], []
    for _ in range(ROUNDS):
        ours.append(seconds(lambda: log_mel(source, padding_mask), device))
        theirs.append(seconds(lambda: [torchaudio_fbank(clip) for clip in alone], device))
    fbank, frame_padding_mask = log_mel(source, padding_mask)
    difference = max(
        float((row[~mask] - torchaudio_fbank(clip)).abs().max())
        for row, mask, clip in zip(fbank, frame_padding_mask, alone, strict=True)
    )
    mine, its = statistics.median(ours), statistics.median(theirs)
    first, _, third = statistics.quantiles([a / b for a, b in zip(ours, theirs, strict=True)], n=4)
    print(
        f"{clips:4} x {longest:6.2f} s  ours {1e3 * mine:8.2f} ms  torchaudio {1e3 * its:8.2f} ms  "
        f"ratio {mine / its:.2f} ({first:.2f} to {third:.2f})  largest difference {difference:.1e}"
    )


def main() -> None:
    """Compare for all shapes."""
    parser = argparse.ArgumentParser(description="The batched log-mel front end beside torchaudio's.")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for clips, longest in SHAPES:
        compare(clips, longest, args.device)


if __name__ == "__main__":
    main()
