"""Where the time of an update goes on a GPU: shares by kind, the longest kernels, log-mel and the quantizer alone.

    PYTHONPATH=peers python benchmarks/gpu_profile.py [--batch-size 64] [--dry-run]

Updates of `base` and `base_fast` without the optimizer, not compiled, so that kernels have their operators' names.
Without vector-quantize-pytorch, the quantizer is compared with its matrix products only. --dry-run runs all of it on a
CPU at the smallest sizes; its timings are meaningless.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics

import torch
from configs import model_settings
from fbank import padded_batch
from gpu_step import DRY, seconds_of
from profile_step import STAGES, profiled, shares
from quantizer import measure
from results import result

from bridle_fairseq.nn.bridle import Bridle
from bridle_fairseq.nn.fbank import LogMel
from bridle_fairseq.nn.settings import BridleSettings

LONGEST = 12  # kernels of each update


def updates(args: argparse.Namespace) -> None:
    """The profile of an update of each stage."""
    samples = 16000 if args.dry_run else 163840
    waveform = 0.1 * torch.randn(args.batch_size, samples, device=args.device)
    for size in ("base", "base_fast"):
        settings = model_settings(size) | {"precision": "bfloat16"} | (DRY if args.dry_run else {})
        model = Bridle(BridleSettings(**settings)).to(args.device).train()
        for title, stage in STAGES.items():
            if size == "base_fast" and title != "cold start":
                continue
            profiler = profiled(model, stage, waveform)
            kinds, operators, reads = shares(profiler, args.device)
            text = ", ".join(f"{kind} {100 * share:.0f} %" for kind, share in kinds.items())
            result(f"{size}, {title}", f"{text}; {operators} operators, {reads} reads", "0 reads")
            by = "self_device_time_total" if args.device == "cuda" else "self_cpu_time_total"
            print(profiler.key_averages().table(sort_by=by, row_limit=LONGEST, max_name_column_width=70))
        del model


def log_mel(args: argparse.Namespace) -> None:
    """The front end's log-mel on padded clips."""
    clips, longest = (2, 1.0) if args.dry_run else (256, 10.24)
    source, padding_mask, _ = (x.to(args.device) for x in padded_batch(clips, longest))
    module, device = LogMel().to(args.device), torch.device(args.device)
    median = statistics.median(seconds_of(lambda: module(source, padding_mask), device, 5) for _ in range(5))
    result(f"log-mel of {clips} x {longest} s", f"{1e3 * median:.2f} ms", "2 % of an update of base")


def quantizer(args: argparse.Namespace) -> None:
    """The quantizer alone, beside its matrix products and vector-quantize-pytorch."""
    setting = (512, 16, 4, 16) if args.dry_run else (65536, 256, 4, 256)
    with_peer = importlib.util.find_spec("vector_quantize_pytorch") is not None
    times = measure(setting, args.device, 2 if args.dry_run else 9, with_peer)
    medians = {name: 1e3 * statistics.median(values) for name, values in times.items()}
    mine, floor = medians["ours", "update"], medians["floor", ""]
    peer = medians.get(("peer", "update"))
    text = f"{mine:.2f} ms, {mine / floor:.1f} of its products"
    text += f"; the peer takes {peer / mine:.1f} times as long" if peer else "; no peer"
    result(f"quantizer, update of {setting[0]} x {setting[1]}, {setting[2]} x {setting[3]}", text, "2, 4")
    for what in ("step", "eval"):
        print(f"{what}: " + ", ".join(f"{side} {ms:.2f} ms" for (side, call), ms in medians.items() if call == what))


def main() -> None:
    """Profile and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--dry-run", action="store_true", help="smallest sizes, on a CPU")
    args = parser.parse_args()
    args.device = "cpu" if args.dry_run else "cuda"
    if args.dry_run:
        args.batch_size = 2
    log_mel(args)
    quantizer(args)
    updates(args)


if __name__ == "__main__":
    main()
