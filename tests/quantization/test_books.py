"""Books in parallel: each is a residual quantizer of its own share of the dimensions."""

import pytest
import torch
from torch.nn import functional

from bridle_fairseq.quantization import ResidualQuantizer

DIM, BOOKS, LEVELS, CODES = 12, 2, 2, 16
OPTIONS = {"codebook_size": CODES, "decay": 0.8}


def halves_of_norm_one(seed: int, rows: int = 600) -> list[torch.Tensor]:
    """Two n x 6 vectors of norm 1: together a vector whose halves are equally long."""
    z = torch.randn(rows, BOOKS, DIM // BOOKS, generator=torch.Generator().manual_seed(seed)) + 0.3
    return list(functional.normalize(z, dim=-1).unbind(1))


@pytest.mark.parametrize("init", ["kmeans", "uniform"])
def test_books_are_quantizers_of_their_own(init):
    """Codes, codebooks and the quantized vector of two books are those of two quantizers, over several updates."""
    options = {**OPTIONS, "init": init, "restart_threshold": 0.0}
    both = ResidualQuantizer(DIM, BOOKS * LEVELS, num_books=BOOKS, **options).train()
    alone = [ResidualQuantizer(DIM // BOOKS, LEVELS, seed=book * LEVELS, **options).train() for book in range(BOOKS)]
    scale = BOOKS**0.5  # a half of a unit vector has norm 1 / sqrt(2); the quantizers alone see it with norm 1
    for update in range(4):
        parts = halves_of_norm_one(update)
        result = both(torch.cat(parts, 1))
        for book, (quantizer, part) in enumerate(zip(alone, parts, strict=True)):
            own, levels = slice(book * DIM // 2, (book + 1) * DIM // 2), slice(book * LEVELS, (book + 1) * LEVELS)
            expected = quantizer(part)
            if init == "uniform" and update == 0:  # drawn in all dimensions of the vector, so not the same
                quantizer.codebooks.codes.copy_(both.codebooks.codes[levels, :, own] * scale)
                quantizer.codebooks.sums.copy_(both.codebooks.sums[levels, :, own] * scale)
                quantizer.discard()
                expected = quantizer(part)
            assert (result.codes[:, levels] == expected.codes).float().mean() > 0.995  # rounding can decide a tie
            torch.testing.assert_close(
                both.codebooks.codes[levels, :, own] * scale, quantizer.codebooks.codes, atol=0.03, rtol=0
            )
            quantizer.commit()
        both.commit()


def test_codes_of_a_book_are_zero_outside_its_dimensions():
    """Also after restarts of dead codes, which take vectors of the batch."""
    quantizer = ResidualQuantizer(DIM, 4, num_books=2, codebook_size=64, restart_threshold=0.9, decay=0.5).train()
    restarted = 0.0
    for update in range(5):
        quantizer(torch.cat(halves_of_norm_one(update, 200), 1))
        quantizer.commit()
        restarted += float(quantizer.codebooks.restarted.sum())
    assert restarted > 0
    books = quantizer.codebooks
    for state in (books.codes, books.sums):
        assert not state[:2, :, 6:].any() and not state[2:, :, :6].any()
        assert state[:2, :, :6].any() and state[2:, :, 6:].any()


def test_quantized_vector_is_that_of_all_books():
    quantizer = ResidualQuantizer(DIM, 4, num_books=4, **OPTIONS).train()
    z = torch.randn(300, DIM, generator=torch.Generator().manual_seed(5))
    quantizer(z)
    quantizer.commit()
    quantizer.eval()
    result = quantizer(z)
    unit = functional.normalize(z, dim=1).double()
    expected = torch.zeros_like(unit)
    for level in range(4):
        own = slice(3 * level, 3 * level + 3)
        codebook = quantizer.codebooks.codes[level, :, own].double()
        nearest = torch.cdist(unit[:, own], codebook).argmin(1)
        assert (nearest == result.codes[:, level]).float().mean() > 0.99
        expected[:, own] = codebook[result.codes[:, level]]
    torch.testing.assert_close(result.quantized.double(), expected, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(quantizer.decode(result.codes).double(), expected, atol=1e-6, rtol=1e-6)
    assert (result.residual_energy.diff() < 0).all()  # every book explains its own share


def test_one_book_is_the_residual_quantizer():
    """To the bit: earlier checkpoints and runs go on as they are."""
    one, plain = (ResidualQuantizer(DIM, 3, **OPTIONS, **more).train() for more in ({"num_books": 1}, {}))
    for update in range(3):
        z = torch.cat(halves_of_norm_one(update), 1)
        assert torch.equal(one(z).codes, plain(z).codes)
        one.commit(), plain.commit()
    for name, state in plain.state_dict().items():
        assert torch.equal(state, one.state_dict()[name]), name


def test_books_divide_codebooks_and_dimensions():
    for dim, codebooks in ((12, 3), (9, 4)):
        with pytest.raises(ValueError, match="2 books; expected a divisor of"):
            ResidualQuantizer(dim, codebooks, num_books=2)
