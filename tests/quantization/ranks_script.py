"""Train quantizers as one of two ranks, or as one process on the joined batches. Run by test_ranks.py.

python ranks_script.py OUTPUT_FOLDER WORLD_SIZE RANK
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist

from bridle_fairseq.quantization import ResidualQuantizer

DIM = 8
LONG = ("euclidean", "many restarts", "rank without vectors")
SCENARIOS = {
    "euclidean": {},
    "cosine": {"metric": "cosine"},
    "unit codes": {"metric": "cosine", "num_codebooks": 1},
    "uniform init": {"init": "uniform"},
    "many restarts": {"restart_threshold": 0.7, "decay": 0.9},
    "rank without vectors": {"restart_threshold": 0.3, "decay": 0.95},
    "subsampled init": {"codebook_size": 4},
}


def batch(step: int, rank: int, scenario: str) -> tuple[torch.Tensor, torch.Tensor]:
    """A rank's vectors of an update (n x D, in a few clouds) and their padding mask."""
    draw = torch.Generator().manual_seed(2 * step + rank)
    if scenario == "rank without vectors" and rank == 1 and step % 3 == 0:
        if step % 2:
            return torch.zeros(0, DIM), torch.zeros(0, dtype=torch.bool)
        return torch.full((5, DIM), 7.0), torch.ones(5, dtype=torch.bool)
    size = (400 if scenario == "subsampled init" else 60) - 10 * rank
    clouds = torch.randn(6, DIM, generator=torch.Generator().manual_seed(99))
    rows = clouds[torch.randint(6, (size,), generator=draw)] + 0.3 * torch.randn(size, DIM, generator=draw)
    return rows, torch.rand(size, generator=draw) < 0.1


def train(scenario: str, world: int, rank: int) -> dict[str, object]:
    """State dict after initialization ('init') and after all updates ('end'), codes, and what is pending at the end."""
    quantizer = ResidualQuantizer(DIM, **{"num_codebooks": 3, "codebook_size": 12, **SCENARIOS[scenario]}).train()
    codes, initial = [], {}
    for step in range(50 if scenario in LONG else 10):
        ranks = [rank] if world == 2 else [0, 1]
        rows, padding = (torch.cat(parts) for parts in zip(*(batch(step, r, scenario) for r in ranks), strict=True))
        result = quantizer(rows, padding)
        initial = initial or {name: tensor.clone() for name, tensor in quantizer.state_dict().items()}
        codes.append(result.codes[~padding])
        quantizer.encode(rows, padding)
        quantizer.commit()
    return {"init": initial, "end": quantizer.state_dict(), "codes": codes, "pending": quantizer.codebooks.pending()}


if __name__ == "__main__":
    folder, world, rank = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", world_size=world, rank=rank)
    torch.save({name: train(name, world, rank) for name in SCENARIOS}, folder / f"{world}-{rank}.pt")
    if world > 1:  # a rank that simply ends may abort the other one's
        dist.barrier()
        dist.destroy_process_group()
