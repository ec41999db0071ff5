"""Self-attention over all tokens, and over local windows of a patch grid."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

# On a CPU the fused kernel pays off in float32 from this many tokens on; below, and in bfloat16 (whose backward pass it
# has no fast code for), plain products were 1.5 to 7 times faster at the sizes of `tiny` and of the decoder's windows.
# Above the second number its memory is worth more than its time.
FUSED_FROM_CPU = 33
PLAIN_UP_TO_CPU = 1024


def _attend(qkv: Tensor, num_heads: int, key_padding: Tensor | None) -> Tensor:
    """Attention of each row of ``qkv`` (R x L x 3D) within itself: R x L x D. ``key_padding``: R x L."""
    rows, length, width = qkv.shape
    q, k, v = qkv.view(rows, length, 3, num_heads, width // 3 // num_heads).permute(2, 0, 3, 1, 4)
    allowed = None
    if key_padding is not None:
        allowed = ~key_padding
        # A row of padding only would be a softmax over nothing (NaN): it may look at itself, and nobody looks at it.
        allowed = (allowed | ~allowed.any(1, keepdim=True))[:, None, None, :]
    return attend(q, k, v, allowed).transpose(1, 2).reshape(rows, length, width // 3)


def attend(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None) -> Tensor:
    """Attention by the faster of two ways; R x H x L x d each, ``allowed`` (R x 1 x 1 x L) says which keys count."""
    length = k.shape[-2]
    if q.device.type == "cpu" and (
        length < FUSED_FROM_CPU or (q.dtype == torch.bfloat16 and length <= PLAIN_UP_TO_CPU)
    ):
        return _plain_attention(q, k, v, allowed)
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=allowed)


def _plain_attention(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None) -> Tensor:
    """``scaled_dot_product_attention`` as two products and a softmax; R x H x L x d each."""
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
        """B x L x D -> B x L x D; ``padding_mask`` (B x L) hides keys."""
        return self.proj(_attend(self.qkv(x), self.num_heads, padding_mask))


class WindowAttention(nn.Module):
    """Attention within windows of a two-dimensional patch grid, the windows optionally shifted in time.

    Tokens come in *band order* (:class:`BandLayout`): a band is one window wide in frequency, and within a band
    tokens run in time. A window is then a run of consecutive tokens, a shifted window another run of the same tokens:
    both are views of one tensor, and no block rolls or permutes anything. At both ends a shift leaves a shorter
    window, as a cyclic shift with masks (Swin, arXiv 2103.14030, section 3.2) would.

    Args:
        width: D.
        num_heads: H; must divide ``width``.
        window: patches in time and in frequency.
        shift: patches in time by which windows are shifted; 0 <= shift < window[0].
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
        # Runs of whole windows: the shortened first one, the full ones between, the shortened last one.
        ends = [0, self.shift, length - (self.tokens - self.shift), length] if self.shift else [0, length]
        parts = []
        for start, end in zip(ends[:-1], ends[1:], strict=True):
            if start < end:
                parts.append(self._windows(qkv, padding_mask, start, end))
        return self.proj(parts[0] if len(parts) == 1 else torch.cat(parts, dim=1))

    def _windows(self, qkv: Tensor, padding_mask: Tensor | None, start: int, end: int) -> Tensor:
        rows, size = qkv.shape[0], min(self.tokens, end - start)
        run = qkv[:, start:end].reshape(-1, size, qkv.shape[-1])
        padding = None if padding_mask is None else padding_mask[:, start:end].reshape(-1, size)
        return _attend(run, self.num_heads, padding).view(rows, end - start, -1)


class BandLayout:
    """The way from a time-major patch grid to band order and back (see :class:`WindowAttention`).

    Args:
        grid: T and F.
        window: patches of a window in time and in frequency; a grid that is no multiple of it is padded, the padding
            masked.
    """

    def __init__(self, grid: Sequence[int], window: Sequence[int]) -> None:
        self.grid = (int(grid[0]), int(grid[1]))
        self.window = (int(window[0]), int(window[1]))
        self.missing = (-self.grid[0] % self.window[0], -self.grid[1] % self.window[1])

    def to_bands(self, x: Tensor) -> Tensor:
        """B x N x D (or B x N) -> (B * bands) x (T * window[1]) x D (or without D); added places are 0 or False."""
        flat = x.dim() == 2
        x = x.reshape(x.shape[0], *self.grid, -1)
        x = functional.pad(x, (0, 0, 0, self.missing[1], 0, self.missing[0]))
        x = x.unflatten(2, (-1, self.window[1])).transpose(1, 2)  # B x bands x T x window[1] x D
        x = x.reshape(x.shape[0] * x.shape[1], -1, x.shape[-1])
        return x.squeeze(-1) if flat else x

    def from_bands(self, x: Tensor) -> Tensor:
        """The inverse: (B * bands) x (T * window[1]) x D -> B x N x D."""
        bands = (self.grid[1] + self.missing[1]) // self.window[1]
        x = x.view(-1, bands, self.grid[0] + self.missing[0], self.window[1], x.shape[-1]).transpose(1, 2).flatten(2, 3)
        return x[:, : self.grid[0], : self.grid[1]].reshape(x.shape[0], -1, x.shape[-1])

    def padding(self, padding_mask: Tensor | None, batch: int, device: torch.device) -> Tensor | None:
        """The mask in band order, with the places added to fill windows marked too; None where nothing is padding."""
        if padding_mask is None and not any(self.missing):
            return None
        if padding_mask is None:
            padding_mask = torch.zeros(batch, self.grid[0] * self.grid[1], dtype=torch.bool, device=device)
        return ~self.to_bands(~padding_mask)
