"""Updates of the codebooks: no synchronization with the device, one sum over the ranks."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bridle_fairseq.quantization import ResidualQuantizer
from bridle_fairseq.utils import distributed

DIM, SIZE = 8, 16


def vectors(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, DIM, generator=torch.Generator().manual_seed(seed)) + 0.3


def initialized(**options) -> ResidualQuantizer:
    module = ResidualQuantizer(DIM, **{"num_codebooks": 2, "codebook_size": SIZE, **options}).train()
    module.init_codebooks(vectors(0, 200))
    return module


class HostReads(TorchDispatchMode):
    """Lists operations for whose result, or its shape, the host has to wait."""

    NAMES = ("_local_scalar_dense", "nonzero", "masked_select", "bincount", "unique", "equal.default", "is_nonzero")

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        boolean_index = "index" in str(func) and any(
            isinstance(index, torch.Tensor) and index.dtype == torch.bool
            for arg in args
            if isinstance(arg, (list, tuple))
            for index in arg
        )
        if boolean_index or any(f"aten.{name}" in str(func) for name in self.NAMES):
            self.reads.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("options", [{}, {"metric": "cosine", "num_codebooks": 1}])
def test_training_update_never_waits_for_the_device(options):
    module = initialized(**options)
    z, padding_mask = vectors(0, 4, 50), torch.zeros(4, 50, dtype=torch.bool)
    with HostReads() as host:
        result = module(z.requires_grad_(), padding_mask)
        (result.loss + result.quantized.sum()).backward()
        module.encode(z, padding_mask, codes_per_level=2)
        module.commit()
        module.eval()(z)
    assert host.reads == []
    with HostReads() as host:
        bool(module.codebooks.started), z[padding_mask], padding_mask.nonzero()
    assert len(host.reads) == 3


def test_commit_sums_once_over_ranks_and_only_counts_after_encode(monkeypatch):
    module = initialized()
    sent: list[int] = []
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: sent.append(tensor.numel()))
    monkeypatch.setattr(torch.distributed, "all_gather", lambda parts, tensor: [part.copy_(tensor) for part in parts])
    monkeypatch.setattr(distributed, "rank", lambda: 0)
    for _ in range(2):
        module.encode(vectors(1, 50))
        module.commit()
    assert sent == 2 * [2 * (SIZE + 1)]
    module(vectors(1, 50))
    module.encode(vectors(1, 50))
    module.commit()
    assert sent[2:] == [sum(tensor.numel() for tensor in module.codebooks.pending())]
