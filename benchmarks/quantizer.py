"""Compare the residual quantizer with vector-quantize-pytorch's ResidualVQ, and with the matrix products of a search.

    python benchmarks/quantizer.py [--device cuda] [--threads 1] [--rounds 9]

"update" is a training forward and the update of the codebooks (ours: `commit`; the peer's: part of its forward).
"step" adds the backward of the quantizer's own loss. "eval" is the forward in eval mode. "floor" is the matrix product
of all vectors with all codes, without a search. Both quantizers initialize with k-means, restart dead codes and use a
decay of 0.99. Ours also normalizes its input and reports residual energies.

All run in turns in one process. A figure is the median over rounds, with the quartiles of its ratio. With one CPU
thread, times are CPU time, so that other load on the machine counts little; otherwise they are wall-clock time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from bridle_fairseq.quantization import ResidualQuantizer

# vectors, width, codebooks, codes: 4, 16 and 32 clips of 10.24 s (base), and 32 clips for the VQ baseline
SETTINGS = ((2048, 256, 4, 256), (8192, 256, 4, 256), (16384, 256, 4, 256), (16384, 256, 1, 1024))
WARM_UP = 3
DEAD_BELOW = 0.25

Run = Callable[[torch.Tensor], object]


def ours(width: int, levels: int, codes: int) -> tuple[torch.nn.Module, dict[str, Run]]:
    """Our quantizer and the calls that are timed."""
    module = ResidualQuantizer(width, levels, codes, restart_threshold=DEAD_BELOW)

    def update(z: torch.Tensor) -> torch.Tensor:
        loss = module.train()(z).loss
        module.commit()
        return loss

    def evaluate(z: torch.Tensor) -> None:
        with torch.no_grad():
            module.eval()(z)

    return module, {"update": update, "step": lambda z: update(z).backward(), "eval": evaluate}


def peer(width: int, levels: int, codes: int, vectors: int) -> tuple[torch.nn.Module, dict[str, Run]]:
    """ResidualVQ and the calls that are timed."""
    from vector_quantize_pytorch import ResidualVQ

    module = ResidualVQ(
        dim=width,
        num_quantizers=levels,
        codebook_size=codes,
        decay=0.99,
        kmeans_init=True,
        kmeans_iters=10,
        threshold_ema_dead_code=DEAD_BELOW * vectors / codes,
        commitment_weight=0.25,
    )

    def update(z: torch.Tensor) -> torch.Tensor:
        return module.train()(z)[2].mean()

    def evaluate(z: torch.Tensor) -> None:
        with torch.no_grad():
            module.eval()(z)

    return module, {"update": update, "step": lambda z: update(z).backward(), "eval": evaluate}


def seconds(run: Run, z: torch.Tensor) -> float:
    """Time of one call, including the device's work."""
    clock = time.process_time if z.device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    run(z)
    if z.is_cuda:
        torch.cuda.synchronize()
    return clock() - start


def measure(
    setting: tuple[int, int, int, int], device: str, rounds: int, with_peer: bool = True
) -> dict[tuple[str, str], list[float]]:
    """Seconds of each (side, call), one value per round."""
    vectors, width, levels, codes = setting
    torch.manual_seed(0)
    sides = {"ours": ours(width, levels, codes)}
    if with_peer:
        sides["peer"] = peer(width, levels, codes, vectors)
    for module, _ in sides.values():
        module.to(device)
    clouds = torch.randn(2 * codes, width, device=device)
    books = torch.randn(levels, width, codes, device=device)
    runs = {(side, what): run for side, (_, of_side) in sides.items() for what, run in of_side.items()}
    runs["floor", ""] = lambda z: [z.detach().view(-1, width) @ book for book in books]
    times: dict[tuple[str, str], list[float]] = {name: [] for name in runs}
    for number in range(WARM_UP + rounds):
        z = clouds[torch.randint(len(clouds), (vectors,), device=device)]
        z = torch.nn.functional.normalize(z + 0.7 * torch.randn_like(z), dim=1).view(4, -1, width).requires_grad_()
        for name, run in runs.items():
            took = seconds(run, z)
            if number >= WARM_UP:
                times[name].append(took)
    return times


def ratio(one: list[float], other: list[float]) -> str:
    """Ratio of the medians, with the quartiles of the ratio over rounds."""
    first, _, third = statistics.quantiles([a / b for a, b in zip(one, other, strict=True)], n=4)
    return f"{statistics.median(one) / statistics.median(other):.2f} ({first:.2f} to {third:.2f})"


def main() -> None:
    """Print one block per setting."""
    parser = argparse.ArgumentParser(description="Compare the residual quantizer with vector-quantize-pytorch.")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    try:
        import vector_quantize_pytorch  # noqa: F401
    except ImportError as error:
        raise SystemExit(
            f"the peer cannot be imported ({error}): run make bench, or sh scripts/peers.sh and set PYTHONPATH=peers"
        ) from None
    print(f"torch {torch.__version__}, {args.device}, {args.threads} threads, float32, median of {args.rounds}")
    for setting in SETTINGS:
        times = measure(setting, args.device, args.rounds)
        floor = times["floor", ""]
        vectors, width, levels, codes = setting
        print(f"{vectors} vectors of {width}, {levels} x {codes} codes; floor {1e3 * statistics.median(floor):.1f} ms")
        for what in ("update", "step", "eval"):
            mine, theirs = times["ours", what], times["peer", what]
            medians = f"ours {1e3 * statistics.median(mine):7.1f} ms  peer {1e3 * statistics.median(theirs):7.1f} ms"
            print(
                f"  {what:6}  {medians}  ours/peer {ratio(mine, theirs)}  ours/floor {ratio(mine, floor)}", flush=True
            )


if __name__ == "__main__":
    main()
