"""One update of each stage of `base`, as a ratio to forward and backward of timm's ViT-B in the same run.

    sh scripts/peers.sh
    PYTHONPATH=peers python benchmarks/train_step.py [--batch-size 4] [--seconds 10.24] [--precision bfloat16]

Each round times every candidate once, in turn, so that a machine that slows down slows down all of them; the figure is
the ratio of the medians. An update is what a trainer runs: front end, targets, forward, backward and the commit of the
codebooks, without the optimizer's step (timm's figure has none either).
"""

from __future__ import annotations

import argparse
import importlib.abc
import importlib.machinery
import statistics
import sys
import time
import types
from collections.abc import Callable

import torch

from bridle_fairseq.nn.bridle import Bridle
from bridle_fairseq.nn.schedule import Stage
from bridle_fairseq.nn.settings import BridleSettings

ENCODER, TOKENIZER = Stage("encoder", 10), Stage("tokenizer", 10)


class _Anything(type):
    def __getattr__(cls, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        return name


class _NoTorchvision(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """timm imports torchvision for its data sets, and PyPI's torchvision fails beside a CPU build of torch."""

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


def load_peer(frames: int) -> torch.nn.Module:
    """timm's ViT-B/16 on a frames x 128 input of one channel."""
    sys.meta_path.insert(0, _NoTorchvision())
    try:
        import timm
    except ImportError:
        sys.exit("train_step.py needs timm: run make bench, or sh scripts/peers.sh and set PYTHONPATH=peers")
    return timm.create_model("vit_base_patch16_224", img_size=(frames, 128), in_chans=1, num_classes=0)


def candidates(args: argparse.Namespace, device: torch.device) -> dict[str, Callable[[], None]]:
    """A function for each thing to be timed: one update of each stage, and the peer."""
    samples = round(args.seconds * 16000)
    frames = -(-(1 + (samples - 400) // 160) // 16) * 16
    peer = load_peer(frames).to(device)
    picture = torch.randn(args.batch_size, 1, frames, 128, device=device)
    waveform = 0.1 * torch.randn(args.batch_size, samples, device=device)
    model = Bridle(BridleSettings(precision=args.precision)).to(device).train()

    def peer_update() -> None:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=args.precision == "bfloat16"):
            peer(picture).float().mean().backward()
        peer.zero_grad()

    def update(stage: Stage, ready: bool) -> Callable[[], None]:
        def run() -> None:
            model.tokenizer_ready.fill_(ready)
            out = model(waveform, None, stage)
            (out.loss / out.sample_size).backward()
            model.commit()
            model.zero_grad()

        return run

    return {
        "timm vit_base_patch16": peer_update,
        "cold-start encoder": update(ENCODER, ready=False),
        "encoder with tokenizer": update(ENCODER, ready=True),
        "tokenizer": update(TOKENIZER, ready=True),
    }


def main() -> None:
    """Print a table of seconds and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=10.24, help="length of a clip")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    device = torch.device(args.device)
    torch.manual_seed(0)
    runs = candidates(args, device)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for round_number in range(args.rounds + 1):  # the first one warms up
        for name, run in runs.items():
            _wait(device)
            start = time.perf_counter()
            run()
            _wait(device)
            if round_number:
                seconds[name].append(time.perf_counter() - start)
    reference = statistics.median(seconds["timm vit_base_patch16"])
    print(
        f"batch {args.batch_size} x {args.seconds} s, {args.precision}, {device}, torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads, median of {args.rounds}"
    )
    for name, values in seconds.items():
        median = statistics.median(values)
        print(f"{name:24} {median:8.3f} s   ratio {median / reference:.2f}")


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
