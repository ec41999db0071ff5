"""Pooling of patches and of log-mel frames, without padding."""

from __future__ import annotations

import pytest
import torch

from bridle_fairseq.nn.encoder import EncoderOutput
from bridle_fairseq.nn.pooling import log_mel_deviation, log_mel_segments, pool_patches


def test_frequency_pooling_ignores_padding() -> None:
    x = torch.arange(2 * 6 * 1, dtype=torch.float32).view(2, 6, 1)  # T = 3, F = 2
    padding = torch.zeros(2, 6, dtype=torch.bool)
    padding[1, 4:] = True
    x[1, 4:] = torch.nan  # whatever stands at padding
    out = EncoderOutput(x, torch.tensor([[7.0], [8.0]]), [])
    assert pool_patches(out, (3, 2), padding, "frequency").tolist() == [[2.0, 3.0], [7.0, 8.0]]
    assert pool_patches(out, (3, 2), padding, "mean").tolist() == [[2.5], [7.5]]
    assert pool_patches(out, (3, 2), padding, "class_token").tolist() == [[7.0], [8.0]]
    with pytest.raises(ValueError, match="max"):
        pool_patches(out, (3, 2), padding, "max")


def test_log_mel_baselines_do_not_depend_on_the_batch() -> None:
    torch.manual_seed(0)
    fbank = torch.randn(2, 20, 5)
    padding = torch.zeros(2, 20, dtype=torch.bool)
    padding[1, 13:] = True
    alone = fbank[1:, :13]
    for function in (log_mel_deviation, log_mel_segments):
        torch.testing.assert_close(function(fbank, padding)[1:], function(alone, None))
        torch.testing.assert_close(function(fbank, padding)[:1], function(fbank[:1], None))


def test_log_mel_statistics_values() -> None:
    fbank = torch.tensor([[[0.0], [2.0], [4.0], [6.0], [1.0], [1.0], [5.0], [7.0]]])
    assert log_mel_segments(fbank, None).tolist() == [[1.0, 5.0, 1.0, 6.0]]
    mean, deviation = log_mel_deviation(fbank, None)[0].tolist()
    assert mean == pytest.approx(fbank.mean().item())
    assert deviation == pytest.approx(fbank.std(unbiased=False).item())


def test_segments_of_a_very_short_clip() -> None:
    assert log_mel_segments(torch.tensor([[[3.0]]]), None).tolist() == [[3.0, 3.0, 3.0, 3.0]]
    assert torch.isfinite(log_mel_segments(torch.randn(1, 3, 2), None)).all()
