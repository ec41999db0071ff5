"""Initialization of codebooks."""

import copy
import math

import pytest
import torch

from bridle_fairseq.quantization import ResidualQuantizer, initialization, kmeans

DIM = 8


def quantizer(**options) -> ResidualQuantizer:
    return ResidualQuantizer(DIM, **{"num_codebooks": 3, "codebook_size": 10, **options}).train()


def vectors(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, DIM, generator=torch.Generator().manual_seed(seed)) + 0.5


def state(module: ResidualQuantizer) -> dict[str, torch.Tensor]:
    """All buffers, also those that are not saved."""
    return {name: tensor.clone() for name, tensor in module.named_buffers()}


def assert_same(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> None:
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]), name


def test_init_codebooks_equals_the_first_forward(variant):
    explicit, implicit = quantizer(**variant), quantizer(**variant)
    z = vectors(0, 5, 40)
    padding_mask = torch.zeros(5, 40, dtype=torch.bool)
    padding_mask[:, 30:] = True
    explicit.init_codebooks(z.masked_fill(padding_mask.unsqueeze(2), math.nan), padding_mask)
    implicit(z[:, :30])
    implicit.discard()
    assert explicit.initialized
    assert_same(state(implicit), state(explicit))
    explicit.eval().init_codebooks(vectors(1, 0))
    assert not explicit.initialized


def test_initialization_from_fewer_vectors_than_codes():
    module = quantizer(codebook_size=20)
    few = vectors(0, 7)
    result = module(few)
    assert len(result.codes[:, 0].unique()) == 7 and result.residual_energy[0] < 1e-6
    for step in range(1, 30):
        module.commit()
        module(vectors(step, 200))
    codes = module.eval().encode(vectors(99, 1000))
    assert [len(level.unique()) for level in codes.T] == [20, 20, 20]


def test_batch_without_vectors_does_not_initialize(variant):
    module = quantizer(**variant)
    module(vectors(0, 0))
    module.commit()
    assert not module.initialized
    module(vectors(0, 50))
    assert module.initialized


def test_eval_mode_never_initializes(variant):
    module = quantizer(**variant).eval()
    before = state(module)
    result = module(vectors(0, 50))
    module.encode(vectors(0, 50))
    assert_same(before, state(module))
    assert not module.initialized and result.codes.max() < 10


def test_uninitialized_state_is_initialized_after_loading(variant):
    module = quantizer(**variant)
    fresh = copy.deepcopy(module.state_dict())
    module(vectors(0, 50))
    module.load_state_dict(fresh)
    assert not module.initialized
    module(vectors(0, 50))
    assert module.initialized and module.codebooks.codes.any()


@pytest.mark.parametrize("init", ["kmeans", "uniform"])
def test_sizes_are_those_of_all_vectors_if_some_are_sampled(init):
    """64 vectors a code are sampled; the averages continue from the counts of a whole update."""
    module = quantizer(codebook_size=4, init=init)
    module.init_codebooks(vectors(0, 1000))
    torch.testing.assert_close(module.codebooks.sizes.sum(dim=1), torch.full((3,), 1000.0))
    torch.testing.assert_close(module.codebooks.sums, module.codebooks.codes * module.codebooks.sizes.unsqueeze(2))


def test_constants_are_those_of_earlier_versions():
    """The same seed and vectors give the same codebooks as before."""
    assert (initialization.ROWS_PER_CODE, kmeans.SEEDING_ROUNDS, kmeans.COPY_JITTER) == (64, 16, 1e-3)


def test_codebooks_keep_no_graph_of_the_vectors_they_are_initialized_from():
    module = quantizer()
    module.init_codebooks(vectors(0, 50).requires_grad_())
    assert not any(buffer.requires_grad for buffer in module.buffers())


def test_uniform_codes_fill_their_interval():
    module = quantizer(codebook_size=50, init="uniform")
    module.init_codebooks(vectors(0, 100))
    codes = module.codebooks.codes * 50
    assert -1 <= codes.min() < -0.95 and 0.95 < codes.max() < 1 and codes.mean().abs() < 0.05
    assert len(codes.flatten(1).unique(dim=0)) == 3  # other codes at each level


def test_first_batch_initializes_usage():
    module = quantizer()
    z, padding_mask = vectors(0, 50), torch.arange(50) >= 40
    codes = module(z, padding_mask).codes[:40]
    module.commit()
    counted = torch.stack([torch.bincount(level, minlength=10) for level in codes.T]) / 40
    torch.testing.assert_close(module.usage, counted)
