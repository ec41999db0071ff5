"""Self-attention over all tokens, and over local windows of a patch grid."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

# On a CPU, the fused kernel is faster in float32 from this many tokens on. For fewer tokens, and in bfloat16 (where it
# has no fast backward pass), plain matrix products were 1.5 to 7 times faster at the sizes of `tiny` and of the
# decoder's windows. Above PLAIN_UP_TO_CPU tokens, plain products take too much memory.
FUSED_FROM_CPU = 33
PLAIN_UP_TO_CPU = 1024


def _self_attention(qkv: Tensor, num_heads: int, key_padding: Tensor | None) -> Tensor:
    """Self-attention within each row: R x L x 3D -> R x L x D; ``key_padding`` is R x L."""
    rows, length, width = qkv.shape
    # R x L x 3D -> 3 x R x H x L x d
    q, k, v = qkv.view(rows, length, 3, num_heads, width // 3 // num_heads).permute(2, 0, 3, 1, 4)
    allowed = None
    if key_padding is not None:
        allowed = ~key_padding
        # Softmax over no key is NaN, so a row of nothing but padding attends to itself. No other row reads it.
        allowed = (allowed | ~allowed.any(1, keepdim=True))[:, None, None, :]  # R x 1 x 1 x L
    # R x H x L x d -> R x L x D
    return _attend(q, k, v, allowed).transpose(1, 2).reshape(rows, length, width // 3)


def _attend(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None) -> Tensor:
    """Attention by the faster of two implementations; R x H x L x d each, ``allowed`` (keys) is R x 1 x 1 x L."""
    length = k.shape[-2]
    if q.device.type == "cpu" and (
        length < FUSED_FROM_CPU or (q.dtype == torch.bfloat16 and length <= PLAIN_UP_TO_CPU)
    ):
        return _plain_attention(q, k, v, allowed)
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=allowed)


def _plain_attention(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None) -> Tensor:
    """``scaled_dot_product_attention`` as two matrix products and a softmax; R x H x L x d each."""
    score = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    if allowed is not None:
        score = score.masked_fill(~allowed, float("-inf"))
    return score.softmax(-1) @ v


class Attention(nn.Module):
    """Multi-head self-attention over all tokens.

    Args:
        width: D.
        num_heads: H; must divide ``width``.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """B x L x D -> B x L x D; keys at ``padding_mask`` (B x L) are ignored."""
        return self.proj(_self_attention(self.qkv(x), self.num_heads, padding_mask))


class WindowAttention(nn.Module):
    """Attention within windows of a two-dimensional patch grid. Windows can be shifted in time.

    Tokens are in *band order* (:class:`BandLayout`): a band is one window wide in frequency, and its tokens are ordered
    by time. A window, shifted or not, is then a run of consecutive tokens, i.e. a view: no block rolls or permutes.
    A shift leaves a shorter window at both ends, as a cyclic shift with masks does (Swin, arXiv 2103.14030,
    section 3.2).

    Args:
        width: D.
        num_heads: H; must divide ``width``.
        window: patches of a window in time and in frequency.
        shift: shift of the windows in time, in patches; 0 <= shift < window[0].
    """

    def __init__(self, width: int, num_heads: int, window: Sequence[int], shift: int = 0) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.tokens = window[0] * window[1]
        self.shift = shift * window[1]
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """R x L x D -> R x L x D, R bands of L = T * window[1] tokens; ``padding_mask``: R x L."""
        qkv = self.qkv(x)
        length = x.shape[1]
        # With a shift: the short first window, the full windows, the short last window.
        ends = [0, self.shift, length - (self.tokens - self.shift), length] if self.shift else [0, length]
        runs = []
        for start, end in zip(ends[:-1], ends[1:], strict=True):
            if start < end:
                runs.append(self._windows(qkv, padding_mask, start, end))
        return self.proj(runs[0] if len(runs) == 1 else torch.cat(runs, dim=1))

    def _windows(self, qkv: Tensor, padding_mask: Tensor | None, start: int, end: int) -> Tensor:
        """Attention in the windows of tokens ``start`` to ``end`` of each band: R x L x 3D -> R x (end - start) x D."""
        rows, size = qkv.shape[0], min(self.tokens, end - start)
        run = qkv[:, start:end].reshape(-1, size, qkv.shape[-1])  # (R * windows) x size x 3D
        padding = None if padding_mask is None else padding_mask[:, start:end].reshape(-1, size)
        return _self_attention(run, self.num_heads, padding).view(rows, end - start, -1)


class BandLayout:
    """Reorders tokens from a time-major patch grid to band order and back (see :class:`WindowAttention`).

    Args:
        grid: T and F.
        window: patches of a window in time and in frequency. A grid that is not a multiple of it is padded.
    """

    def __init__(self, grid: Sequence[int], window: Sequence[int]) -> None:
        self.grid = (int(grid[0]), int(grid[1]))
        self.window = (int(window[0]), int(window[1]))
        self.missing = (-self.grid[0] % self.window[0], -self.grid[1] % self.window[1])

    def to_bands(self, x: Tensor) -> Tensor:
        """B x N x D (or B x N) -> (B * bands) x (T * window[1]) x D (or without D); added tokens are 0 or False."""
        flat = x.dim() == 2
        x = x.reshape(x.shape[0], *self.grid, -1)  # B x T x F x D
        x = functional.pad(x, (0, 0, 0, self.missing[1], 0, self.missing[0]))
        x = x.unflatten(2, (-1, self.window[1])).transpose(1, 2)  # B x bands x T x window[1] x D
        x = x.reshape(x.shape[0] * x.shape[1], -1, x.shape[-1])  # (B * bands) x (T * window[1]) x D
        return x.squeeze(-1) if flat else x

    def from_bands(self, x: Tensor) -> Tensor:
        """The inverse: (B * bands) x (T * window[1]) x D -> B x N x D."""
        bands = (self.grid[1] + self.missing[1]) // self.window[1]
        x = x.view(-1, bands, self.grid[0] + self.missing[0], self.window[1], x.shape[-1])
        x = x.transpose(1, 2).flatten(2, 3)  # B x T x F x D, with padding of T and F
        return x[:, : self.grid[0], : self.grid[1]].reshape(x.shape[0], -1, x.shape[-1])  # B x N x D

    def padding(self, padding_mask: Tensor | None, batch: int, device: torch.device) -> Tensor | None:
        """The padding mask in band order, including the tokens added to fill windows; None without any padding."""
        if padding_mask is None and not any(self.missing):
            return None
        if padding_mask is None:
            padding_mask = torch.zeros(batch, self.grid[0] * self.grid[1], dtype=torch.bool, device=device)
        return ~self.to_bands(~padding_mask)
