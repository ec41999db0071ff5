"""Transcription of files longer than a segment."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch

from bridle_fairseq.data.audio.dataset import AudioReader
from bridle_fairseq.inference.transcribe import transcribe_file
from bridle_fairseq.nn.ctc import Emissions, Transcriber, greedy
from bridle_fairseq.nn.settings import BridleSettings

SIZES = dict(encoder_width=16, encoder_depth=2, encoder_heads=2, num_mel_bins=40, patch_size=[8, 16])


@pytest.mark.parametrize("sample_rate", [8000, 22050])
def test_long_file_is_transcribed_by_segments(tmp_path, sample_rate) -> None:
    """Ten stretches, more than are read at once, and a sample; each gives the frames that it gives alone."""
    torch.manual_seed(0)
    model = Transcriber(BridleSettings(**SIZES, sample_rate=sample_rate), num_symbols=7).eval()
    wave = (0.1 * np.random.default_rng(0).standard_normal(10 * sample_rate + 1)).astype(np.float32)
    soundfile.write(tmp_path / "long.wav", wave, sample_rate, subtype="FLOAT")
    heard: list[Emissions] = []

    def decode(emissions: Emissions) -> list[list[int]]:
        heard.append(emissions)
        return greedy(emissions)

    symbols = transcribe_file(model, AudioReader(sample_rate), str(tmp_path / "long.wav"), sample_rate, decode)
    with torch.no_grad():
        parts = [
            model(torch.from_numpy(part)[None]) for part in np.split(wave, range(sample_rate, len(wave), sample_rate))
        ]
    assert len(parts) == 11 and len(heard) == 1 and heard[0].lengths.tolist() == [10 * 52 + 4]
    expected = torch.cat([part.logits for part in parts], 1)
    torch.testing.assert_close(heard[0].logits, expected, atol=1e-5, rtol=1e-4)
    assert symbols == greedy(Emissions(expected, heard[0].lengths))[0]
