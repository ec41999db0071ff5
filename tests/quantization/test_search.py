"""Search for the nearest codes, in blocks of any size."""

import pytest
import torch

from bridle_fairseq.quantization import search
from bridle_fairseq.quantization.search import CodebookSearch, nearest_code

DIM = 8


def vectors(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, DIM, generator=torch.Generator().manual_seed(seed)) + 0.3


@pytest.mark.parametrize(("device", "values"), [("cpu", search.VALUES_AT_ONCE_CPU), ("meta", search.VALUES_AT_ONCE)])
def test_blocks_have_the_size_that_suits_the_device(device, values):
    blocks = list(search.row_blocks(torch.zeros(10, 2, device=device), values // 4))
    assert blocks == [slice(0, 4), slice(4, 8), slice(8, 12)]


@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("values_at_once", [1, 100, 1 << 18])
def test_nearest_codes_match_the_float64_distances(cosine, values_at_once, monkeypatch):
    monkeypatch.setattr(search, "VALUES_AT_ONCE_CPU", values_at_once)
    rows, codebook = vectors(0, 37), vectors(1, 20) * torch.linspace(0.2, 3, 20).unsqueeze(1)
    if cosine:
        distances = -torch.nn.functional.cosine_similarity(rows[:, None].double(), codebook.double(), dim=2)
    else:
        distances = (rows[:, None].double() - codebook.double()).square().sum(dim=2)  # 37 x 20
    assert torch.equal(nearest_code(rows, codebook, cosine), distances.argmin(dim=1))
    assert torch.equal(CodebookSearch(codebook, cosine).nearest_m(rows, 6), distances.argsort(dim=1)[:, :6])


@pytest.mark.parametrize("cosine", [False, True])
def test_no_rows_have_no_nearest_codes(cosine):
    rows, codebook = vectors(0, 0), vectors(1, 20)
    assert nearest_code(rows, codebook, cosine).shape == (0,)
    assert CodebookSearch(codebook, cosine).nearest_m(rows, 2).shape == (0, 2)


@pytest.mark.parametrize("rows_at_once", [1, 7, 100])
def test_block_size_does_not_change_the_result(trained, rows_at_once, monkeypatch):
    z = vectors(2, 50)
    before = trained.eval()(z)
    monkeypatch.setattr(search, "VALUES_AT_ONCE_CPU", rows_at_once * trained.codebook_size)
    after = trained(z)
    assert torch.equal(after.codes, before.codes) and torch.equal(after.quantized, before.quantized)
    assert torch.equal(trained.encode(z), before.codes)
    torch.testing.assert_close(after.residual_energy, before.residual_energy)
