"""Attention against dense references with explicit masks."""

import pytest
import torch

from bridle_fairseq.nn.attention import Attention, BandLayout, WindowAttention


def dense(module, x, allowed):
    """Attention of B x N x D in float64 where ``allowed`` (B x N x N) says who sees whom."""
    batch, length, width = x.shape
    qkv = torch.nn.functional.linear(x, module.qkv.weight, module.qkv.bias)
    q, k, v = (t.reshape(batch, length, module.num_heads, -1).transpose(1, 2) for t in qkv.chunk(3, -1))
    score = (q @ k.transpose(2, 3) / (width // module.num_heads) ** 0.5).masked_fill(~allowed[:, None], float("-inf"))
    out = torch.nan_to_num(score.softmax(-1)) @ v
    return module.proj(out.transpose(1, 2).reshape(batch, length, width))


def windows_of(grid, window, shift):
    """Number of the window of each place of the grid, by the definition of shifted windows without wrap-around."""
    t, f = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    return ((t + (window[0] - shift) % window[0]) // window[0] * 1000 + f // window[1]).flatten()


def test_padded_keys_are_ignored():
    module, x = Attention(16, 4).double(), torch.randn(3, 7, 16, dtype=torch.float64)
    padding = torch.zeros(3, 7, dtype=torch.bool)
    padding[1, 5:] = True
    padding[2, 1:] = True
    expected = dense(module, x, (~padding)[:, None, :].expand(-1, 7, -1))
    torch.testing.assert_close(module(x, padding)[~padding], expected[~padding])
    x[padding] = 100.0
    torch.testing.assert_close(module(x, padding)[~padding], expected[~padding])


@pytest.mark.parametrize(
    ("length", "dtype", "fused"),
    [
        (32, torch.float32, False),
        (33, torch.float32, True),
        (1024, torch.bfloat16, False),
        (1025, torch.bfloat16, True),
    ],
)
def test_the_faster_implementation_is_used(monkeypatch, length, dtype, fused):
    used = []
    original = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional, "scaled_dot_product_attention", lambda *a, **k: used.append(1) or original(*a, **k)
    )
    with torch.no_grad():
        Attention(8, 2).to(dtype)(torch.randn(1, length, 8, dtype=dtype))
    assert bool(used) == fused


@pytest.mark.parametrize("shift", [0, 1, 2])
@pytest.mark.parametrize("grid", [(8, 4), (8, 8), (6, 8), (3, 2), (1, 1), (13, 5), (4, 4)])
@pytest.mark.parametrize("padded", [False, True])
def test_windows_equal_masked_attention_on_any_grid(grid, shift, padded):
    torch.manual_seed(0)
    window = (4, 4)
    module = WindowAttention(16, 2, window, shift).double()
    num_patches = grid[0] * grid[1]
    x = torch.randn(2, num_patches, 16, dtype=torch.float64)
    padding = None
    valid = torch.ones(2, num_patches, dtype=torch.bool)
    if padded:
        valid[1, max(1, grid[0] // 2) * grid[1] :] = False
        padding = ~valid
    layout = BandLayout(grid, window)
    out = layout.from_bands(module(layout.to_bands(x), layout.padding(padding, 2, x.device)))
    number = windows_of(grid, window, shift)
    allowed = (number[:, None] == number[None]) & valid[:, None, :]
    torch.testing.assert_close(out[valid], dense(module, x, allowed)[valid])
    assert torch.isfinite(out).all()


def test_band_layout_roundtrip_is_exact():
    x = torch.randn(3, 7 * 6, 5)
    layout = BandLayout((7, 6), (4, 4))
    assert torch.equal(layout.from_bands(layout.to_bands(x)), x)
    assert layout.padding(None, 3, x.device).sum() == 3 * (8 * 8 - 7 * 6)
    assert BandLayout((8, 8), (4, 4)).padding(None, 3, x.device) is None
