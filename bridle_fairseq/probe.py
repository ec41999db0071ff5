"""Linear probe of frozen features: standardised logistic regression, all choices made on validation data.

Features go in as ``n x d`` arrays. They come from a frozen encoder (patches pooled as a plain mean, or with the
frequency rows kept apart) or from statistics of the log-mel spectrogram, the baseline to beat.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

POOLINGS = ("mean", "frequency")
INVERSE_REGULARISATIONS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)


class Split(NamedTuple):
    """Features (n x d) or labels (n) of the three parts of a labelled set."""

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray


class ProbeResult(NamedTuple):
    """Accuracy on the test part, and what was chosen on the validation part."""

    accuracy: float
    valid_accuracy: float
    candidate: Any
    inverse_regularisation: float


def linear_probe(
    candidates: Mapping[Any, Split],
    labels: Split,
    inverse_regularisations: Sequence[float] = INVERSE_REGULARISATIONS,
) -> ProbeResult:
    """Fit a logistic regression to each candidate's training features and test the one that validates best.

    Args:
        candidates: name (such as the encoder's layer) -> features; all have the rows of ``labels``.
        labels: integers or strings, one a row.
        inverse_regularisations: the values of scikit-learn's ``C`` to choose from.

    Validation accuracy decides, at a draw the validation likelihood. The test part is looked at once, at the end.
    """
    trials = []
    for name, features in candidates.items():
        mean, deviation = features.train.mean(axis=0), features.train.std(axis=0)
        scaled = [(part - mean) / np.maximum(deviation, 1e-6) for part in features]
        for strength in inverse_regularisations:
            classifier = _fit(scaled[0], labels.train, strength)
            accuracy = float((classifier.predict(scaled[1]) == labels.valid).mean())
            likelihood = _log_likelihood(classifier, scaled[1], labels.valid)
            trials.append(((accuracy, likelihood), name, strength, classifier, scaled[2]))
    (valid_accuracy, _), name, strength, classifier, test = max(trials, key=lambda trial: trial[0])
    accuracy = float((classifier.predict(test) == labels.test).mean())
    return ProbeResult(accuracy, valid_accuracy, name, strength)


def _fit(features: np.ndarray, labels: np.ndarray, strength: float) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    # The products are small: a second thread waits more than it works, and made the fits many times slower.
    with warnings.catch_warnings(), threadpool_limits(1):
        # a fit that stops at the limit is as good a candidate as any: validation judges it
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=strength, max_iter=300, tol=1e-3).fit(features, labels)


def _log_likelihood(classifier: Any, features: np.ndarray, labels: np.ndarray) -> float:
    known = np.isin(labels, classifier.classes_)
    if not known.any():
        return float("-inf")
    columns = np.searchsorted(classifier.classes_, labels[known])
    chosen = classifier.predict_proba(features[known])[np.arange(known.sum()), columns]
    return float(np.log(np.maximum(chosen, 1e-12)).mean())


def pool(x: Tensor, padding_mask: Tensor | None, grid: tuple[int, int], pooling: str) -> Tensor:
    """Average patches over what is not padding.

    Args:
        x: B x N x D patch features, time-major.
        padding_mask: B x N or None.
        grid: (T, F) with T * F = N.
        pooling: ``mean`` over all patches -> B x D, or ``frequency``: over time alone -> B x (F * D).
    """
    if pooling not in POOLINGS:
        raise ValueError(f"pooling is {pooling!r}, expected one of {', '.join(POOLINGS)}")
    batch, _, width = x.shape
    x = x.float().view(batch, *grid, width)
    axes = (1, 2) if pooling == "mean" else (1,)
    if padding_mask is None:
        return x.mean(axes).flatten(1)
    padding = padding_mask.view(batch, *grid, 1)
    pooled = x.masked_fill(padding, 0.0).sum(axes) / (~padding).sum(axes).clamp(min=1)
    return pooled.flatten(1)


def log_mel_deviation(fbank: Tensor, padding_mask: Tensor | None) -> Tensor:
    """Mean and deviation over time of every mel bin: B x M x bins -> B x (2 * bins)."""
    clips = _unpadded(fbank, padding_mask)
    return torch.stack([torch.cat([clip.mean(0), clip.std(0, unbiased=False)]) for clip in clips])


def log_mel_segments(fbank: Tensor, padding_mask: Tensor | None, segments: int = 4) -> Tensor:
    """Mean of every mel bin in each of a few equal stretches of time: B x M x bins -> B x (segments * bins)."""
    rows = []
    for clip in _unpadded(fbank, padding_mask):
        edges = [round(len(clip) * index / segments) for index in range(segments + 1)]
        # a clip of fewer frames than segments uses some frames twice
        starts = [min(edge, len(clip) - 1) for edge in edges[:-1]]
        rows.append(torch.cat([clip[a : max(a + 1, b)].mean(0) for a, b in zip(starts, edges[1:], strict=True)]))
    return torch.stack(rows)


def _unpadded(fbank: Tensor, padding_mask: Tensor | None) -> Iterable[Tensor]:
    if padding_mask is None:
        return iter(fbank)
    return (clip[~padding] for clip, padding in zip(fbank, padding_mask, strict=True))


@torch.inference_mode()
def encoder_features(
    model: Any, source: Tensor, padding_mask: Tensor | None = None, poolings: Sequence[str] = POOLINGS
) -> dict[tuple[str, int], Tensor]:
    """Pooled features after every block of a frozen encoder, in one pass.

    Args:
        model: a :class:`bridle_fairseq.nn.bridle.Bridle` in eval mode.
        source: B x S waveforms.
        padding_mask: B x S, or None.
        poolings: see :func:`pool`.

    Returns:
        (pooling, layer from 1) -> B x d; the last layer's are normalised.
    """
    patches = model.front_end(source, padding_mask)
    out = model.encoder(patches.x, patches.grid, patches.padding_mask, with_layers=True)
    layers = [*out.layers[:-1], out.x]
    return {
        (pooling, number): pool(x, patches.padding_mask, patches.grid, pooling)
        for number, x in enumerate(layers, start=1)
        for pooling in poolings
    }
