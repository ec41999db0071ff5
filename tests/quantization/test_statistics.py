"""Statistics of code usage."""

import math

import pytest
import torch

from bridle_fairseq.quantization import ResidualQuantizer, code_counts, corpus_residual_energy, level_statistics


def test_uniform_use_of_half_the_codes():
    (use,) = level_statistics(torch.tensor([[5, 5, 5, 5, 0, 0, 0, 0]]))
    assert (use.level, use.codebook_size, use.used_codes, use.used_share, use.dead_codes) == (1, 8, 4, 0.5, 4)
    assert use.entropy_bits == pytest.approx(2.0) and use.perplexity == pytest.approx(4.0)


def test_levels_are_independent_and_frequencies_give_the_same_as_counts():
    counts = torch.tensor([[8, 0, 0, 0], [4, 2, 1, 1], [2, 2, 2, 2]])
    for given in (counts, counts / 8, counts.half(), 1000 * counts):
        levels = level_statistics(given)
        assert [use.level for use in levels] == [1, 2, 3]
        assert [use.entropy_bits for use in levels] == pytest.approx([0.0, 1.75, 2.0])
        assert [use.used_codes for use in levels] == [1, 4, 4]


def test_dead_codes_are_below_the_threshold():
    (use,) = level_statistics(torch.tensor([[100, 100, 9, 0]]), dead_threshold=0.2)
    assert (use.used_codes, use.used_share, use.dead_codes) == (
        2,
        0.5,
        2,
    )  # a fifth of the mean is 10.45


def test_a_code_that_was_counted_once_is_not_dead():
    (level,) = level_statistics(torch.tensor([[1, 5, 0, 2]]))
    assert (level.used_codes, level.dead_codes) == (3, 1)


def test_zero_counts():
    (use,) = level_statistics(torch.zeros(1, 4))
    assert (use.used_codes, use.entropy_bits, use.perplexity, use.dead_codes) == (0, 0.0, 1.0, 4)


def test_wrong_shape_of_counts_raises():
    with pytest.raises(ValueError, match=r"K x C.*\(4,\)"):
        level_statistics(torch.zeros(4))


def test_code_counts_skip_padding():
    codes = torch.tensor([[[0, 3], [1, 3]], [[1, 2], [9, 9]]])
    padding_mask = torch.tensor([[False, False], [False, True]])
    assert code_counts(codes, 4, padding_mask).tolist() == [[1, 2, 0, 0], [0, 0, 1, 2]]
    assert code_counts(codes[:0], 4).tolist() == [[0] * 4] * 2


def test_code_counts_raise_on_codes_out_of_range():
    with pytest.raises(ValueError, match=r"codes span 0\.\.4, expected 0\.\.3"):
        code_counts(torch.tensor([[0, 4]]), 4)


def test_training_statistics_converge_to_those_of_the_corpus():
    module = ResidualQuantizer(4, 2, 8, decay=0.5, restart_threshold=0.0).train()
    z = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    for _ in range(30):
        module.encode(z)
        module.commit()
    counts = code_counts(module.eval().encode(z), 8)
    torch.testing.assert_close(module.usage, counts / 64, atol=1e-6, rtol=0)
    for live, corpus in zip(module.statistics(), level_statistics(counts), strict=True):
        assert live.perplexity == pytest.approx(corpus.perplexity, rel=1e-4)
        assert math.isclose(live.perplexity, 2**live.entropy_bits) and 1 < live.perplexity <= 8


def test_usage_counts_the_nearest_of_soft_codes():
    module = ResidualQuantizer(4, 2, 8, restart_threshold=0.0).train()
    z = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    codes = module.encode(z, codes_per_level=3)
    module.commit()
    torch.testing.assert_close(module.usage, code_counts(codes[..., 0], 8) / 64)  # the first update sets the average
    module.encode(z[:1], codes_per_level=3)
    module.commit()
    expected = 0.99 * code_counts(codes[..., 0], 8) / 64 + 0.01 * code_counts(codes[:1, :, 0], 8)
    torch.testing.assert_close(module.usage, expected)


def test_corpus_residual_energy_equals_that_of_all_vectors_at_once():
    module = ResidualQuantizer(4, 3, 8).train()
    z = torch.randn(90, 4, generator=torch.Generator().manual_seed(0))
    together = module(z).residual_energy
    batches = [(module(part).residual_energy, len(part)) for part in (z[:10], z[10:10], z[10:80], z[80:])]
    torch.testing.assert_close(corpus_residual_energy(iter(batches)), together.double(), atol=1e-6, rtol=1e-6)
    with pytest.raises(ValueError, match="no vector"):
        corpus_residual_energy([(together, 0)])
