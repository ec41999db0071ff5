"""Time of a training update by kind of operator, measured with torch.profiler.

    python benchmarks/profile_step.py [--size base|tiny] [--precision bfloat16] [--batch-size 2] [--seconds 10.24]

Prints one table with an update of each stage, without the optimizer step. Shares are of self time in operators (on a
GPU: in kernels). *Reads* are device values that the host reads: on a GPU, each one is a synchronization.
"""

from __future__ import annotations

import argparse

import torch
from configs import model_settings
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from bridle_fairseq.nn.bridle import Bridle
from bridle_fairseq.nn.schedule import Stage
from bridle_fairseq.nn.settings import BridleSettings
from bridle_fairseq.utils.memory import keep_freed_memory

STAGES = {
    "cold start": Stage("encoder", 10, targets="projection"),
    "live tokenizer": Stage("encoder", 10, targets="tokenizer"),
    "tokenizer": Stage("tokenizer", 10),
}
KINDS = {
    "linear maps": ("aten::mm", "aten::addmm"),
    "attention": ("aten::bmm", "aten::baddbmm", "aten::_softmax", "aten::_scaled_dot_product"),
    "GELU": ("aten::gelu",),
    "norms": ("aten::native_layer_norm",),
    "copies and casts": ("aten::copy_", "aten::cat", "aten::clone"),
}
READS = ("aten::_local_scalar_dense", "aten::nonzero")


def kind_of(operator: str) -> str:
    """The kind of an operator: a key of :data:`KINDS`, or "all else"."""
    for kind, names in KINDS.items():
        if operator in names or operator.startswith(tuple(n for n in names if n not in ("aten::mm", "aten::addmm"))):
            return kind
    return "all else"


def profiled(model: Bridle, stage: Stage, waveform: torch.Tensor) -> profile:
    """The profile of one update."""

    def update() -> None:
        out = model(waveform, None, stage)
        (out.loss / out.sample_size).backward()
        model.commit()
        model.zero_grad()

    for _ in range(2):  # initializes the codebooks and fills the memory allocator
        update()
    device = waveform.device.type
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device == "cuda")
    with profile(activities=activities) as profiler:
        update()
    return profiler


def shares(profiler: profile, device: str) -> tuple[dict[str, float], int, int]:
    """Time share of each kind, number of operators and number of reads in a profiled update."""
    seconds = dict.fromkeys([*KINDS, "all else"], 0.0)
    operators = reads = 0
    for event in profiler.key_averages():
        if event.device_type != DeviceType.CPU:
            continue  # a kernel, whose time is that of the operator that started it
        self_time = event.self_device_time_total if device == "cuda" else event.self_cpu_time_total
        seconds[kind_of(event.key)] += self_time
        operators += event.count * event.key.startswith("aten::")
        reads += event.count * (event.key in READS)
    total = sum(seconds.values())
    return {kind: value / total for kind, value in seconds.items()}, operators, reads


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=["base", "tiny", "small"], default="base")
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=10.24, help="length of a clip")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    if args.device == "cpu":
        keep_freed_memory()
    torch.manual_seed(0)
    model = Bridle(BridleSettings(**model_settings(args.size) | {"precision": args.precision})).to(args.device).train()
    waveform = 0.1 * torch.randn(args.batch_size, round(args.seconds * 16000), device=args.device)
    print(f"{args.size}, {args.batch_size} x {args.seconds} s, {args.precision}, {torch.get_num_threads()} threads\n")
    names = [*KINDS, "all else"]
    print("| " + " | ".join(["an update of", *names, "operators", "reads"]) + " |\n|" + "---|" * (len(names) + 3))
    for title, stage in STAGES.items():
        kinds, operators, reads = shares(profiled(model, stage, waveform), waveform.device.type)
        print("| " + " | ".join([title, *(f"{kinds[name]:.3f}" for name in names), str(operators), str(reads)]) + " |")


if __name__ == "__main__":
    main()
