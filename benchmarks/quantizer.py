"""The residual quantizer beside vector-quantize-pytorch's ResidualVQ: time of a training step as a ratio.

    python benchmarks/quantizer.py [--device cuda] [--threads 1]

A step is forward, backward of the quantizer's own loss, and the update of the codebooks (for ours `commit`, for the
peer part of its forward). Both are started by k-means, restart dead codes and move by averages with a decay of 0.99;
ours also normalises its input and reports residual energies. "eval" is the forward in eval mode. Both run in turn, in
the same process, and the best of several rounds counts.
"""

from __future__ import annotations

import argparse
import time

import torch

from bridle_fairseq.quantization import ResidualQuantizer

# vectors, width, codebooks, codes: batches of 4 and 32 clips of 10.24 s for base, and of 32 for the VQ baseline
SETTINGS = ((2048, 256, 4, 256), (16384, 256, 4, 256), (16384, 256, 1, 1024))
WARM_UP, ROUNDS = 3, 8
DEAD_BELOW = 0.25


def ours(width: int, levels: int, codes: int):
    """A training step and an eval forward of our quantizer."""
    module = ResidualQuantizer(width, levels, codes, restart_threshold=DEAD_BELOW)

    def step(z: torch.Tensor) -> None:
        module.train()(z).loss.backward()
        module.commit()

    return module, step, lambda z: module.eval()(z)


def peer(width: int, levels: int, codes: int, vectors: int):
    """The same of the peer."""
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
    return module, lambda z: module.train()(z)[2].mean().backward(), lambda z: module.eval()(z)


def seconds(function, z: torch.Tensor) -> float:
    """Time of one call, the device's work included."""
    start = time.perf_counter()
    function(z)
    if z.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def compare(vectors: int, width: int, levels: int, codes: int, device: str) -> None:
    """Print one line for a setting."""
    torch.manual_seed(0)
    pair = [ours(width, levels, codes), peer(width, levels, codes, vectors)]
    for module, *_ in pair:
        module.to(device)
    clouds = torch.randn(2 * codes, width, device=device)
    times: dict[tuple[int, str], list[float]] = {}
    for number in range(WARM_UP + ROUNDS):
        z = clouds[torch.randint(len(clouds), (vectors,), device=device)]
        z = torch.nn.functional.normalize(z + 0.7 * torch.randn_like(z), dim=1).view(4, -1, width).requires_grad_()
        for side, (_, step, forward) in enumerate(pair):
            if number < WARM_UP:
                step(z)
                continue
            times.setdefault((side, "step"), []).append(seconds(step, z))
            with torch.no_grad():
                times.setdefault((side, "eval"), []).append(seconds(forward, z))
    line = f"{vectors:6} vectors of {width}, {levels} x {codes:4} codes"
    for what in ("step", "eval"):
        mine, theirs = (min(times[side, what]) for side in range(2))
        line += f"   {what}: {1e3 * mine:8.2f} ms, peer {1e3 * theirs:8.2f} ms, ratio {mine / theirs:.2f}"
    print(line, flush=True)


def main() -> None:
    """Compare for all settings."""
    parser = argparse.ArgumentParser(description="The residual quantizer beside vector-quantize-pytorch's.")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    try:
        import vector_quantize_pytorch  # noqa: F401
    except ImportError as error:
        raise SystemExit(
            f"the peer cannot be imported ({error}): run make bench, or sh scripts/peers.sh and set PYTHONPATH=peers"
        ) from None
    print(f"torch {torch.__version__}, {args.device}, {args.threads} threads, float32")
    for setting in SETTINGS:
        compare(*setting, args.device)


if __name__ == "__main__":
    main()
