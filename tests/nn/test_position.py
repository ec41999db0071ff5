"""Sine-cosine positions."""

import math

import pytest
import torch

from bridle_fairseq.nn.position import sincos_position


def test_values_of_a_two_dimensional_grid():
    table = sincos_position((3, 2), 8)
    assert table.shape == (6, 8)
    t, f = 2, 1  # place n = t * 2 + f; four values for time, four for frequency, each two sines and two cosines
    rate = [1.0, 1 / 100.0]
    expected = [g(v * r) for v in (t, f) for g in (math.sin, math.cos) for r in rate]
    torch.testing.assert_close(table[5], torch.tensor(expected), atol=1e-6, rtol=0)


@pytest.mark.parametrize("grid", [(1,), (7, 8), (64, 8), (8, 14, 14)])
@pytest.mark.parametrize("width", [6, 64, 70, 192])
def test_positions_are_distinct_for_any_grid_and_width(grid, width):
    table = sincos_position(grid, width)
    assert table.shape == (math.prod(grid), width)
    if len(grid) < width // 2:
        assert len(torch.unique(table, dim=0)) == math.prod(grid)


def test_longer_grid_starts_with_the_shorter_one():
    short, long = sincos_position((5, 8), 32), sincos_position((50, 8), 32)
    assert torch.equal(long[: short.shape[0]], short)


@pytest.mark.parametrize("width", [32, 70])
def test_chunk_of_a_longer_grid_keeps_its_positions(width):
    long = sincos_position((50, 3), width).unflatten(0, (50, 3))
    found = sincos_position((5, 3), width, offset=torch.tensor([0, 17, 45]))
    expected = torch.stack([long[start : start + 5].flatten(0, 1) for start in (0, 17, 45)])
    assert torch.equal(found, expected)


@pytest.mark.parametrize("compiling", [False, True])
def test_positions_have_the_dtype_of_a_given_tensor(compiling, monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiling)
    exact = sincos_position((3, 2), 8)
    assert exact.dtype == torch.float32
    half = sincos_position((3, 2), 8, like=torch.zeros(1, dtype=torch.bfloat16))
    assert half.dtype == torch.bfloat16 and torch.equal(half, exact.bfloat16())
