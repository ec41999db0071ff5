"""Training speed of `base` on a GPU in clips per second, and utilization of the GPU.

    sh scripts/peers.sh
    PYTHONPATH=peers python benchmarks/gpu_step.py [--batch-size 64] [--updates 20] [--rounds 5] [--budget 120]

BRIDLE and timm's ViT-B/16 run in bfloat16 (autocast) on the same input, both compiled. An update consists of front
end, targets, forward, backward, gradient clipping, fused AdamW and the commit of the codebooks. Each round times all
candidates in turn; results are medians over rounds. *Used* is the speed of an update's matrix products and attention
(counted by torch, forward and backward), divided by the peak speed of a bfloat16 matrix product, which is measured
first, as is the speed of a product of the encoder's sizes. "log-mel" is the front end alone, without its operations.

With --budget, no further candidate is compiled after two thirds of so many seconds, and nothing is timed after them.
Without timm, its row is missing. --dry-run runs all steps on a CPU at the smallest sizes; its timings are meaningless.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from configs import model_settings
from results import result
from torch import nn
from train_step import COLD, LIVE, PEER, PRODUCT, TOKENIZER, load_peer, operations, samples_and_frames

from bridle_fairseq.nn.bridle import Bridle
from bridle_fairseq.nn.schedule import Stage
from bridle_fairseq.nn.settings import BridleSettings
from bridle_fairseq.nn.transformer import compile_blocks

SECONDS = 10.24
DRY = {"encoder_width": 48, "encoder_depth": 2, "encoder_heads": 2, "decoder_width": 32, "decoder_depth": 2}
DRY |= {"decoder_heads": 2, "tokenizer_depth": 2, "estimator_depth": 1, "codebook_size": 16, "codebook_dim": 16}
GOALS = {  # of docs/gpu.md, on an H100: clips/s and used
    "encoder, cached codes": "1700, 0.45",
    "encoder, live tokenizer": "1100",
    "encoder, cold start": "1700, 0.45",
    "tokenizer": "0.45",
    "base_fast, cached codes": "4000",
}
DRY_PEER = {"embed_dim": 48, "depth": 2, "num_heads": 2}


class Candidate(NamedTuple):
    """An update to be timed."""

    update: Callable[[], None]
    flops: int  # per update


def ours(args: argparse.Namespace, stage: Stage, cached: bool, **settings: Any) -> Candidate:
    """Updates of a stage of `base`, with or without cached codes."""
    sizes = DRY if args.dry_run else {}
    model = Bridle(BridleSettings(**{"precision": "bfloat16", **settings, **sizes})).to(args.device).train()
    samples, _ = samples_and_frames(args.seconds)
    waveform = 0.1 * torch.randn(args.batch_size, samples, device=args.device)
    frames, bands = model.front_end.grid((samples,))
    shape = (args.batch_size, frames * bands, model.settings.num_codebooks)
    codes = torch.randint(model.settings.codebook_size, shape, device=args.device) if cached else None

    def loss() -> torch.Tensor:
        out = model(waveform, None, stage, codes=codes)
        return out.loss / out.sample_size

    model.begin_stage(stage)
    parameters = [p for part in model.trained_parts(stage) for p in part.parameters()]
    compile_model = (lambda: compile_blocks(model, args.backend)) if args.compile else None
    return _candidate(loss, parameters, compile_model, model.commit)


def peer(args: argparse.Namespace) -> Candidate:
    """Updates of timm's ViT-B; the loss is the mean of its output."""
    _, frames = samples_and_frames(args.seconds)
    model = load_peer(frames, **(DRY_PEER if args.dry_run else {})).to(args.device).train()
    picture = torch.randn(args.batch_size, 1, frames, 128, device=args.device)

    def loss() -> torch.Tensor:
        with torch.autocast(args.device.type, dtype=torch.bfloat16):
            return model(picture).float().mean()

    compile_model = (lambda: model.compile(backend=args.backend)) if args.compile else None
    return _candidate(loss, list(model.parameters()), compile_model, lambda: None)


def _candidate(
    loss: Callable[[], torch.Tensor],
    parameters: list[nn.Parameter],
    compile_model: Callable[[], None] | None,
    commit: Callable[[], None],
) -> Candidate:
    optimizer = torch.optim.AdamW(parameters, lr=1e-6, fused=True)

    def update() -> None:
        loss().backward()
        torch.nn.utils.clip_grad_norm_(parameters, 3.0)
        optimizer.step()
        optimizer.zero_grad()
        commit()

    update()  # initializes the codebooks and the running averages
    flops = operations(update)
    if compile_model is not None:
        compile_model()
    return Candidate(update, flops)


def front_end(args: argparse.Namespace) -> Candidate:
    """The front end of ``base``."""
    samples, _ = samples_and_frames(args.seconds)
    module = Bridle(BridleSettings(**DRY)).front_end.to(args.device)
    waveform = 0.1 * torch.randn(args.batch_size, samples, device=args.device)
    return Candidate(lambda: module(waveform), 0)


def product_speed(device: torch.device, rows: int, width: int, columns: int) -> float:
    """Speed of a product of two bfloat16 matrices, in floating point operations per second."""
    a, b = (torch.randn(*size, device=device).bfloat16() for size in ((rows, width), (width, columns)))
    best = min(seconds_of(lambda: a @ b, device, 10) for _ in range(5))
    return 2 * rows * width * columns / best


def seconds_of(run: Callable[[], Any], device: torch.device, times: int) -> float:
    """Mean seconds per run over ``times`` runs, without synchronization between them."""
    run()
    _wait(device)
    start = time.perf_counter()
    for _ in range(times):
        run()
    _wait(device)
    return (time.perf_counter() - start) / times


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    """Time all candidates and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--updates", type=int, default=20, help="updates of each candidate per round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--budget", type=float, default=float("inf"), metavar="SECONDS", help="see above")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--dry-run", action="store_true", help="smallest sizes, on a CPU")
    args = parser.parse_args()
    if not args.dry_run and not torch.cuda.is_available():
        parser.error("no GPU found; --dry-run runs the same steps on a CPU")
    begin = time.perf_counter()
    args.device = torch.device("cpu" if args.dry_run else "cuda")
    args.backend, args.seconds = "inductor", SECONDS
    if args.dry_run:
        args.batch_size, args.updates, args.rounds, args.backend, args.seconds = 2, 1, 2, "eager", 1.0
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    size = 256 if args.dry_run else 8192
    peak = product_speed(args.device, size, size, size)
    shape = (64, 64, 64) if args.dry_run else (PRODUCT[0][0] * args.batch_size // 4, PRODUCT[0][1], PRODUCT[1][0])
    result(f"bf16 product of {size} x {size}", f"{peak / 1e12:.0f} TFLOP/s")
    result(f"bf16 product of {' x '.join(map(str, shape))}", f"{product_speed(args.device, *shape) / 1e12:.0f} TFLOP/s")
    makers: dict[str, Callable[[], Candidate]] = {
        "encoder, cached codes": lambda: ours(args, LIVE, cached=True),
        "encoder, cold start": lambda: ours(args, COLD, cached=False),
        "base_fast, cached codes": lambda: ours(args, LIVE, cached=True, **model_settings("base_fast")),
        "encoder, live tokenizer": lambda: ours(args, LIVE, cached=False),
        "tokenizer": lambda: ours(args, TOKENIZER, cached=False),
        "log-mel": lambda: front_end(args),
    }
    if importlib.util.find_spec("timm") is not None:
        makers[f"{PEER}, forward and backward"] = lambda: peer(args)  # last: compiles as a whole, which takes longest
    runs: dict[str, Candidate] = {}
    seconds: dict[str, list[float]] = {}
    try:
        for name, make in makers.items():
            if time.perf_counter() - begin < args.budget * 2 / 3:
                run = make()
                seconds_of(run.update, args.device, 1)  # compiles
                runs[name], seconds[name] = run, [seconds_of(run.update, args.device, args.updates)]
                print(f"{name}: compiled after {time.perf_counter() - begin:.0f} s", flush=True)
        for _ in range(args.rounds - 1):
            for name, run in runs.items():
                if time.perf_counter() - begin < args.budget:
                    seconds[name].append(seconds_of(run.update, args.device, args.updates))
    except KeyboardInterrupt:  # a time limit; what has been measured is shown
        print(f"stopped after {time.perf_counter() - begin:.0f} s")
    if runs:
        _print_table(args, peak, runs, seconds)


def _print_table(
    args: argparse.Namespace, peak: float, runs: dict[str, Candidate], seconds: dict[str, list[float]]
) -> None:
    name = "CPU, smallest sizes: timings are meaningless" if args.dry_run else torch.cuda.get_device_name()
    compiled = "compiled" if args.compile else "not compiled"
    rounds = max(map(len, seconds.values()))
    print(f"{name}; torch {torch.__version__}, bfloat16, {compiled}, batch {args.batch_size} x {args.seconds} s")
    print(f"matmul peak {peak / 1e12:.1f} TFLOP/s; medians of {rounds} rounds of {args.updates} updates\n")
    print("| an update of | clips/s | ms | TFLOP/s | used | used, of timm's |\n|---|---|---|---|---|---|")
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    rates = {name: run.flops / medians[name] for name, run in runs.items()}
    peers = rates.get(f"{PEER}, forward and backward")
    for name, rate in rates.items():
        row = [f"{args.batch_size / medians[name]:.0f}", f"{1e3 * medians[name]:.2f}", f"{rate / 1e12:.1f}"]
        row += [f"{rate / peak:.2f}", f"{rate / peers:.2f}" if peers else ""]
        print("| " + " | ".join([name, *row]) + " |")
    for name, rate in rates.items():
        speed = f"{args.batch_size / medians[name]:.0f} clips/s, {1e3 * medians[name]:.2f} ms"
        result(name, f"{speed}, {rate / peak:.2f} of the product", GOALS.get(name, ""))
    if args.device.type == "cuda":
        result("peak memory, all models together", f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")


if __name__ == "__main__":
    main()
