"""Search in a codebook, restarts of dead codes, and what an update may not do."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bridle_fairseq.quantization import ResidualQuantizer, search
from bridle_fairseq.quantization.restarts import restart_priorities
from bridle_fairseq.quantization.search import CodebookSearch, nearest_code
from bridle_fairseq.utils import distributed

DIM, SIZE, DEAD = 8, 16, 5


def vectors(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, DIM, generator=torch.Generator().manual_seed(seed)) + 0.3


def with_dead_code(**options) -> ResidualQuantizer:
    """A trained quantizer whose code DEAD of each level has lost all its vectors."""
    module = ResidualQuantizer(DIM, **{"num_codebooks": 2, "codebook_size": SIZE, "decay": 0.9, **options}).train()
    for step in range(3):
        module(vectors(step, 200))
        module.commit()
    kill(module, slice(DEAD, DEAD + 1))
    return module


def kill(module: ResidualQuantizer, which: slice) -> None:
    books = module.codebooks
    books.codes[:, which], books.sizes[:, which], books.sums[:, which] = 50.0, 0.01, 0.5


@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("at_once", [1, 100, 1 << 18])
def test_nearest_is_nearest_however_the_rows_are_cut(cosine, at_once, monkeypatch):
    monkeypatch.setattr(search, "VALUES_AT_ONCE_CPU", at_once)
    rows, codes = vectors(0, 37), vectors(1, 20) * torch.linspace(0.2, 3, 20).unsqueeze(1)
    if cosine:
        distances = -torch.nn.functional.cosine_similarity(rows[:, None].double(), codes.double(), dim=2)
    else:
        distances = (rows[:, None].double() - codes.double()).square().sum(dim=2)
    assert torch.equal(nearest_code(rows, codes, cosine), distances.argmin(dim=1))
    assert torch.equal(CodebookSearch(codes, cosine).nearest_m(rows, 6), distances.argsort(dim=1)[:, :6])
    assert nearest_code(rows[:0], codes, cosine).shape == (0,)
    assert CodebookSearch(codes, cosine).nearest_m(rows[:0], 2).shape == (0, 2)


@pytest.mark.parametrize("options", [{}, {"restart_step": 1.0}, {"metric": "cosine", "num_codebooks": 1}])
def test_a_revived_code_stays_revived(options):
    module = with_dead_code(**options)
    used = 0
    for step in range(30):
        result = module(vectors(10 + step, 200))
        used += bool((result.codes == DEAD).any())
        module.commit()
        books = module.codebooks
        assert books.codes[:, DEAD].norm(dim=1).max() < 1.5
        assert (books.sizes[:, DEAD] >= 0.25 * books.sizes.mean(dim=1)).all()
        restored = books.sums / books.sizes.unsqueeze(2)
        if module.codebooks.unit_codes:
            restored = torch.nn.functional.normalize(restored, dim=2)
        torch.testing.assert_close(restored, books.codes, atol=1e-4, rtol=1e-4)
    assert used > 20


def test_a_revived_code_has_the_even_share_of_both_averages():
    module = with_dead_code()
    module(vectors(9, 200))
    module.commit()
    books = module.codebooks
    others = [code for code in range(SIZE) if code != DEAD]
    share = (books.sizes[:, others].sum(dim=1) + 0.9 * 0.01) / SIZE
    torch.testing.assert_close(books.sizes[:, DEAD], share)
    torch.testing.assert_close(books.sums[:, DEAD], share.unsqueeze(1) * books.codes[:, DEAD])


@pytest.mark.parametrize("step", [1.0, 0.25])
def test_a_dead_code_restarts_between_a_vector_of_the_batch_and_its_code(step):
    module = with_dead_code(restart_step=step)
    z = vectors(9, 200)
    before = module.codebooks.codes.clone()
    codes = module(z).codes
    module.commit()
    residual = torch.nn.functional.normalize(z, dim=1)
    for level in range(2):
        places = torch.lerp(before[level][codes[:, level]], residual, step)
        assert (places - module.codebooks.codes[level, DEAD]).norm(dim=1).min() < 1e-6
        residual = residual - before[level][codes[:, level]]


def test_padding_and_vectors_that_are_not_finite_revive_no_code():
    module = with_dead_code()
    z = vectors(9, 6)
    z[:3, 0] = math.nan
    padding_mask = torch.tensor([False, False, False, True, True, True])
    module(z, padding_mask)
    module(vectors(10, 0))
    module.commit()
    assert (module.codebooks.codes[:, DEAD] == 50.0).all()
    padding_mask[3] = False
    codes = module(z, padding_mask).codes
    expected = torch.lerp(module.codebooks.codes[0, codes[3, 0]], torch.nn.functional.normalize(z[3], dim=0), 0.2)
    module.commit()
    torch.testing.assert_close(module.codebooks.codes[0, DEAD], expected)


def test_equal_vectors_revive_one_code():
    module = with_dead_code()
    kill(module, slice(0, DEAD + 1))
    module(vectors(9, 1).expand(50, DIM))
    module.commit()
    assert (module.codebooks.codes[:, : DEAD + 1].norm(dim=2) < 2).sum(dim=1).tolist() == [1, 1]


def test_as_many_codes_are_revived_as_there_are_vectors():
    module = with_dead_code()
    kill(module, slice(0, DEAD + 1))
    module(vectors(9, 4))
    module.commit()
    assert (module.codebooks.codes[:, : DEAD + 1].norm(dim=2) < 2).sum(dim=1).tolist() == [4, 4]
    assert module.codebooks.restarted.tolist() == [4, 4]
    module.commit()  # an update without vectors
    assert module.codebooks.restarted.tolist() == [0, 0]


def test_a_threshold_of_zero_revives_no_code():
    module = with_dead_code(restart_threshold=0.0)
    for step in range(3):
        module(vectors(10 + step, 200))
        module.commit()
    assert (module.codebooks.codes[:, DEAD] > 40).all() and (module.codebooks.sizes[:, DEAD] < 0.01).all()


def test_every_vector_has_the_same_chance_and_each_update_draws_anew():
    rows, valid = vectors(0, 40), torch.ones(40, dtype=torch.bool)
    wins = torch.zeros(40)
    for update in range(2000):
        drawn = restart_priorities(rows, valid, torch.tensor(update), 4)[1]
        assert len(drawn.unique()) == 4
        wins[drawn] += 1
    assert 150 < wins.min() and wins.max() < 250  # 200 is expected, with a deviation of 13


def test_no_level_of_many_dimensions_loses_its_codes():
    """Started from few vectors, without restarts beside used codes, level 4 ends with a perplexity of 2 here."""
    draw = torch.Generator().manual_seed(0)
    clouds = torch.randn(40, 128, generator=draw)

    def batch() -> torch.Tensor:
        return clouds[torch.randint(40, (400,), generator=draw)] + 0.5 * torch.randn(400, 128, generator=draw)

    module = ResidualQuantizer(128, 4, 32, decay=0.95).train()
    for _ in range(60):
        module(batch())
        module.commit()
    for use in module.statistics():
        assert use.perplexity > 24, use


class HostReads(TorchDispatchMode):
    """Lists operations whose result, or its shape, the host has to wait for."""

    NAMES = ("_local_scalar_dense", "nonzero", "masked_select", "bincount", "unique", "equal.default", "is_nonzero")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        boolean_index = "index" in str(func) and any(
            isinstance(index, torch.Tensor) and index.dtype == torch.bool
            for arg in args
            if isinstance(arg, (list, tuple))
            for index in arg
        )
        if boolean_index or any(f"aten.{name}" in str(func) for name in self.NAMES):
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("options", [{}, {"metric": "cosine", "num_codebooks": 1}])
def test_a_step_never_waits_for_the_device(options):
    module = with_dead_code(**options)
    z, padding_mask = vectors(0, 4, 50), torch.zeros(4, 50, dtype=torch.bool)
    with HostReads() as reads:
        result = module(z.requires_grad_(), padding_mask)
        (result.loss + result.quantized.sum()).backward()
        module.encode(z, padding_mask, codes_per_level=2)
        module.commit()
        module.eval()(z)
    assert reads.found == []
    with HostReads() as reads:
        bool(module.codebooks.started), z[padding_mask], padding_mask.nonzero()
    assert len(reads.found) == 3


def test_an_update_is_one_sum_over_ranks_and_of_counts_alone_where_codes_stay(monkeypatch):
    module = with_dead_code()
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
