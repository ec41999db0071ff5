"""Restarts of dead codes."""

import math

import pytest
import torch

from bridle_fairseq.quantization import ResidualQuantizer
from bridle_fairseq.quantization.restarts import restart_priorities

DIM, SIZE, DEAD = 8, 16, 5


def vectors(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, DIM, generator=torch.Generator().manual_seed(seed)) + 0.3


def with_dead_code(**options) -> ResidualQuantizer:
    """A trained quantizer whose code DEAD is dead at each level."""
    module = ResidualQuantizer(DIM, **{"num_codebooks": 2, "codebook_size": SIZE, "decay": 0.9, **options}).train()
    for step in range(3):
        module(vectors(step, 200))
        module.commit()
    make_dead(module, slice(DEAD, DEAD + 1))
    return module


def make_dead(module: ResidualQuantizer, which: slice) -> None:
    books = module.codebooks
    books.codes[:, which], books.sizes[:, which], books.sums[:, which] = 50.0, 0.01, 0.5


@pytest.mark.parametrize("options", [{}, {"restart_step": 1.0}, {"metric": "cosine", "num_codebooks": 1}])
def test_restarted_code_stays_in_use(options):
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


def test_restarted_code_has_the_mean_count_and_the_sum_that_belongs_to_it():
    module = with_dead_code()
    module(vectors(9, 200))
    module.commit()
    books = module.codebooks
    others = [code for code in range(SIZE) if code != DEAD]
    mean = (books.sizes[:, others].sum(dim=1) + 0.9 * 0.01) / SIZE
    torch.testing.assert_close(books.sizes[:, DEAD], mean)
    torch.testing.assert_close(books.sums[:, DEAD], mean.unsqueeze(1) * books.codes[:, DEAD])


@pytest.mark.parametrize("step", [1.0, 0.25])
def test_restart_lies_between_a_vector_of_the_batch_and_its_code(step):
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


def test_padding_and_non_finite_vectors_are_no_candidates():
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


def test_equal_vectors_restart_one_code_only():
    module = with_dead_code()
    make_dead(module, slice(0, DEAD + 1))
    module(vectors(9, 1).expand(50, DIM))
    module.commit()
    assert (module.codebooks.codes[:, : DEAD + 1].norm(dim=2) < 2).sum(dim=1).tolist() == [1, 1]


def test_each_vector_restarts_at_most_one_code():
    module = with_dead_code()
    make_dead(module, slice(0, DEAD + 1))
    module(vectors(9, 4))
    module.commit()
    assert (module.codebooks.codes[:, : DEAD + 1].norm(dim=2) < 2).sum(dim=1).tolist() == [4, 4]
    assert module.codebooks.restarted.tolist() == [4, 4]
    module.commit()  # an update without vectors
    assert module.codebooks.restarted.tolist() == [0, 0]


def test_threshold_zero_disables_restarts():
    module = with_dead_code(restart_threshold=0.0)
    for step in range(3):
        module(vectors(10 + step, 200))
        module.commit()
    assert (module.codebooks.codes[:, DEAD] > 40).all() and (module.codebooks.sizes[:, DEAD] < 0.01).all()


def test_candidates_are_drawn_uniformly_and_anew_in_each_update():
    rows, valid = vectors(0, 40), torch.ones(40, dtype=torch.bool)
    times_drawn = torch.zeros(40)
    for update in range(2000):
        drawn = restart_priorities(rows, valid, torch.tensor(update), 4)[1]
        assert len(drawn.unique()) == 4
        times_drawn[drawn] += 1
    assert 150 < times_drawn.min() and times_drawn.max() < 250  # mean 200, standard deviation 13


def test_codes_stay_in_use_in_many_dimensions():
    """Regression: with restarts on the vectors themselves (restart_step=1), level 4 ends at a perplexity of 2 here."""
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


def test_draws_are_those_of_earlier_versions():
    rows = torch.arange(20 * 24).view(20, 24) / 16 - 7  # exact: the bits are hashed
    priorities, drawn = restart_priorities(rows, torch.arange(20) != 3, torch.tensor(7), 4)
    assert drawn.tolist() == [16, 14, 18, 5]
    torch.testing.assert_close(priorities, torch.tensor([0.047124, 0.089496, 0.114052, 0.202476]), atol=1e-6, rtol=0)


def test_at_most_64_codes_of_a_level_restart_in_an_update():
    module = ResidualQuantizer(DIM, 1, 256).train()
    module.init_codebooks(vectors(0, 1000))
    make_dead(module, slice(0, 100))
    module(vectors(1, 500))
    module.commit()
    assert module.codebooks.restarted.tolist() == [64]
