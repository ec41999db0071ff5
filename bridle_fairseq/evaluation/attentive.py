"""The attentive probe: one learned query attends to all patches of a frozen encoder; a linear head follows.

Sources: the attentive probes of CAE (Chen et al. 2022, arXiv 2202.03026, section 4), V-JEPA (Bardes et al. 2024, arXiv
2404.08471) and CAPI (Darcet et al. 2025, arXiv 2502.08769). Here without an MLP: attention, then the head.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from bridle_fairseq.data.artifacts.patch_rows import PatchRows
from bridle_fairseq.evaluation.classifiers import Fit, Scorer, Settings

LEARNING_RATES, WEIGHT_DECAYS = (1e-3, 3e-3, 1e-2), (0.01, 0.3)
EPOCHS, WARMUP, BATCH_SIZE = 20, 0.1, 64
UPDATES = 400  # at least, for small sets
HEAD_WIDTH = 64


class AttentiveHead(nn.Module):
    """Cross-attention of one learned query to N patches, then a linear layer.

    With a single query, keys and values need not be computed for every patch: the query times the key weights is one
    vector per head, and values are projected after the mean. Nor need the patches be standardized: what a common mean
    adds to their scores cancels in the softmax. The result is the same.

    Args:
        mean, deviation: D, of the training patches.
        num_classes: C.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: Tensor, deviation: Tensor, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)
        width = len(mean)
        self.heads = math.gcd(width, max(1, width // HEAD_WIDTH))
        self.query = nn.Parameter(0.02 * torch.randn(self.heads, width // self.heads))
        self.key, self.value = nn.Linear(width, width, bias=False), nn.Linear(width, width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, patches: Tensor, padding: Tensor) -> Tensor:
        """Logits of clips: B x N x D and B x N, True at padding -> B x C."""
        keys = self.key.weight.unflatten(0, self.query.shape)  # heads x D / heads x D
        asked = torch.einsum("hk,hkd->dh", self.query, keys) / self.query.shape[1] ** 0.5 / self.deviation[:, None]
        attention = (patches @ asked).masked_fill(padding.unsqueeze(-1), -torch.inf).softmax(1)  # B x N x heads
        means = (attention.transpose(1, 2) @ patches - self.mean) / self.deviation  # B x heads x D
        values = torch.einsum("bhd,hkd->bhk", means, self.value.weight.unflatten(0, self.query.shape)).flatten(1)
        return self.head(values + self.value.bias)


def attentive(
    seed: int,
    device: str,
    features: PatchRows,
    targets: np.ndarray,
    multi: bool,
    grid: Sequence[Settings],
) -> Fit:
    """The attentive probe, trained by AdamW with ``lr`` and ``weight_decay``; see :mod:`.classifiers`.

    Args:
        seed: of weights and of the order of clips; equal seeds give equal results.
        device: where it is trained.
        features: of n clips.
        targets: n x C.
        multi: whether a clip may have several classes: binary cross-entropy for each.
        grid: not used.
    """
    mean, deviation = (torch.from_numpy(values) for values in _statistics(features))

    def fit(settings: Settings) -> Scorer:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = AttentiveHead(mean, deviation, targets.shape[1]).to(device)
        _train(model, features, torch.from_numpy(targets).float(), multi, settings, seed)
        return lambda patches: _scores(model, patches, multi)  # type: ignore[arg-type]  # PatchRows for an array

    return fit


def _statistics(features: PatchRows) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of all patches, D each, float32; a row at a time, so that memory suffices."""
    count, total, squares = 0, np.zeros(features.width), np.zeros(features.width)
    for patches in features:
        x = patches.astype(np.float64)
        count, total, squares = count + len(x), total + x.sum(0), squares + np.square(x).sum(0)
    mean = total / count
    deviation = np.sqrt((squares / count - np.square(mean)).clip(min=1e-12))
    return mean.astype(np.float32), deviation.astype(np.float32)


def _train(
    model: AttentiveHead, features: PatchRows, targets: Tensor, multi: bool, settings: Settings, seed: int
) -> None:
    device, order = model.mean.device, np.random.default_rng(seed)
    per_epoch = math.ceil(len(features) / BATCH_SIZE)
    updates = max(UPDATES, EPOCHS * per_epoch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings["lr"], weight_decay=settings["weight_decay"])
    warmup = WARMUP * updates
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: (step + 1) / warmup if step < warmup else 0.5 + 0.5 * math.cos(math.pi * step / updates),
    )
    loss_of = functional.binary_cross_entropy_with_logits if multi else functional.cross_entropy

    def batches() -> Iterator[np.ndarray]:
        while True:
            yield from np.array_split(order.permutation(len(features)), per_epoch)

    for _, rows in zip(range(updates), batches(), strict=False):
        logits = model(*_batch(features, rows, device))
        loss = loss_of(logits, targets[torch.from_numpy(rows)].to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()


def _batch(features: PatchRows, rows: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
    patches, padding = features.padded(rows)
    return torch.from_numpy(patches).to(device), torch.from_numpy(padding).to(device)


@torch.inference_mode()
def _scores(model: AttentiveHead, features: PatchRows, multi: bool) -> np.ndarray:
    """Probabilities of the classes, n x C."""
    parts = np.array_split(np.arange(len(features)), max(1, math.ceil(len(features) / BATCH_SIZE)))
    logits = torch.cat([model(*_batch(features, rows, model.mean.device)) for rows in parts])
    return (logits.sigmoid() if multi else logits.softmax(1)).cpu().numpy()
