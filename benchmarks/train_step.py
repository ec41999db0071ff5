"""Time of one update of each stage of `base`, relative to a forward and backward pass of timm's ViT-B.

    sh scripts/peers.sh
    PYTHONPATH=peers python benchmarks/train_step.py [--batch-size 4] [--seconds 10.24] [--precision bfloat16]

Each round times every candidate once, in turn, so that a slowdown of the machine affects all of them. The result is
the ratio of the medians. The peer computes in float32 unless --peer-precision is set. An update consists of front end,
targets, forward, backward and the commit of the codebooks, without the optimizer step (the peer has none either).

Two more columns bound the ratio from below. *arithmetic* is the number of multiplications and additions in matrix
products, attention and convolutions, relative to the peer's. *floor* is the same, times the measured speed ratio of a
matrix product of the encoder's size in our precision and in the peer's.
"""

from __future__ import annotations

import argparse
import importlib.abc
import importlib.machinery
import math
import statistics
import sys
import time
import types
from collections.abc import Callable
from typing import Any

import torch
from configs import model_settings
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from bridle_fairseq.nn.bridle import Bridle
from bridle_fairseq.nn.schedule import Stage
from bridle_fairseq.nn.settings import BridleSettings
from bridle_fairseq.utils.memory import keep_freed_memory

PEER = "timm vit_base_patch16"
PRODUCT = (2048, 768), (3072, 768)
COLD, LIVE = Stage("encoder", 10, targets="projection"), Stage("encoder", 10, targets="tokenizer")
TOKENIZER = Stage("tokenizer", 10)


class _Anything(type):
    def __getattr__(cls, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        return name


class _NoTorchvision(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Stands in for torchvision: timm imports it for its data sets, and it fails with a CPU build of torch."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torchvision":
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        module = types.ModuleType(spec.name)

        def attribute(name: str):
            if name.startswith("__"):
                raise AttributeError(name)
            return _Anything(name, (), {})

        module.__getattr__ = attribute  # type: ignore[method-assign]
        return module

    def exec_module(self, module) -> None:
        pass


def load_peer(frames: int, **sizes: int) -> torch.nn.Module:
    """timm's ViT-B/16 on inputs of 1 x frames x 128; ``sizes`` (``depth`` and so on) override its sizes."""
    if torch.version.cuda is None:
        sys.meta_path.insert(0, _NoTorchvision())
    try:
        import timm
    except ImportError:
        sys.exit("train_step.py needs timm: run make bench, or sh scripts/peers.sh and set PYTHONPATH=peers")
    return timm.create_model("vit_base_patch16_224", img_size=(frames, 128), in_chans=1, num_classes=0, **sizes)


def samples_and_frames(seconds: float) -> tuple[int, int]:
    """Number of samples of a clip, and of its frames rounded up to whole patches: the height of the peer's input."""
    samples = round(seconds * 16000)
    return samples, -(-(1 + (samples - 400) // 160) // 16) * 16


def candidates(args: argparse.Namespace, device: torch.device) -> dict[str, Callable[[], None]]:
    """The functions to be timed: the peer, an update of each stage, and an update of `base_fast`."""
    samples, frames = samples_and_frames(args.seconds)
    peer = load_peer(frames).to(device)
    picture = torch.randn(args.batch_size, 1, frames, 128, device=device)
    waveform = 0.1 * torch.randn(args.batch_size, samples, device=device)

    def peer_update() -> None:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=args.peer_precision == "bfloat16"):
            peer(picture).float().mean().backward()
        peer.zero_grad()

    def make(**settings: Any) -> Bridle:
        return Bridle(BridleSettings(**{"precision": args.precision, **settings})).to(device).train()

    def update(model: Bridle, stage: Stage, cached: bool = False) -> Callable[[], None]:
        patches = math.prod(model.front_end.grid((samples,)))
        books, size = model.settings.num_codebooks, model.settings.codebook_size
        codes = torch.randint(size, (args.batch_size, patches, books), device=device) if cached else None

        def run() -> None:
            out = model(waveform, None, stage, codes=codes)
            (out.loss / out.sample_size).backward()
            model.commit()
            model.zero_grad()

        return run

    model, half = make(), make(codes_precision="bfloat16")
    half.load_state_dict(model.state_dict())
    fast = make(**model_settings("base_fast") | {"precision": args.precision})
    return {
        PEER: peer_update,
        "encoder, cold start": update(model, COLD),
        "encoder, cached codes": update(model, LIVE, cached=True),
        "encoder, live tokenizer": update(model, LIVE),
        "the same, codes in bfloat16": update(half, LIVE),
        "tokenizer": update(model, TOKENIZER),
        "base_fast, cached codes": update(fast, LIVE, cached=True),
    }


def product(precision: str, device: torch.device) -> Callable[[], object]:
    """A matrix product of the size that is most frequent in the encoder."""
    x, weight = (torch.randn(*size, device=device, dtype=getattr(torch, precision)) for size in PRODUCT)
    return lambda: torch.nn.functional.linear(x, weight)


def _attention_forward(query, key, value, *_args, **_kwargs) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward(grad, query, key, value, *_args, **_kwargs) -> int:
    return sdpa_backward_flop_count(grad, query, key, value)


FUSED_ON_CPU = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_forward,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


def operations(run: Callable[[], None]) -> int:
    """Number of multiplications and additions in one update."""
    with FlopCounterMode(display=False, custom_mapping=FUSED_ON_CPU) as counter:  # torch counts only the GPU kernels
        run()
    return counter.get_total_flops()


def main() -> None:
    """Time all candidates and print seconds and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=10.24, help="length of a clip")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32", help="precision of BRIDLE")
    parser.add_argument("--peer-precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--clock", choices=["wall", "cpu"], default="wall", help="cpu: CPU time, for one thread on a shared machine"
    )
    args = parser.parse_args()
    device = torch.device(args.device)
    if device.type == "cpu":
        keep_freed_memory()
    torch.manual_seed(0)
    runs = candidates(args, device)
    work = {name: operations(run) for name, run in runs.items()}
    products = {precision: product(precision, device) for precision in (args.precision, args.peer_precision)}
    clock = time.perf_counter if args.clock == "wall" else time.process_time
    timed = runs | products
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    for round_number in range(args.rounds + 1):  # round 0 is a warm-up
        for name, run in timed.items():
            _wait(device)
            start = clock()
            run()
            _wait(device)
            if round_number:
                seconds[name].append(clock() - start)
    reference = statistics.median(seconds[PEER])
    print(
        f"batch {args.batch_size} x {args.seconds} s, {args.precision} (the peer {args.peer_precision}), {device}, "
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, median of {args.rounds}, {args.clock} time"
    )
    ours, peers = (statistics.median(seconds[precision]) for precision in (args.precision, args.peer_precision))
    for name in runs:
        median, values = statistics.median(seconds[name]), seconds[name]
        arithmetic = work[name] / work[PEER]
        floor = arithmetic * (1 if name == PEER else ours / peers)
        print(
            f"{name:28} {median:8.3f} s   ratio {median / reference:.3f}   {min(values):.3f} to {max(values):.3f} s"
            f"   arithmetic {arithmetic:.2f}   floor {floor:.2f}"
        )


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
