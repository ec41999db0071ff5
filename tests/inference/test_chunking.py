"""Chunks of long clips: they cover every patch once, with full length."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from bridle_fairseq.inference.chunking import Chunking, ChunkOptions, WholeClip, choose_chunking, stored_chunking
from bridle_fairseq.nn.frontend import AudioFrontEnd
from bridle_fairseq.nn.settings import BridleSettings
from bridle_fairseq.utils.errors import InputError

SMALL = dict(encoder_width=32, encoder_depth=2, encoder_heads=2, decoder_width=32, decoder_depth=1, decoder_heads=2)
SMALL |= dict(tokenizer_depth=1, estimator_depth=1, num_mel_bins=32, patch_size=[8, 16], codebook_size=8)


def wave(samples: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(samples // 400 + 1, generator=generator).repeat_interleave(400)[:samples].cumsum(0).sin() * 0.3


@pytest.mark.parametrize("samples", [1, 400, 8000, 8360, 9000, 16000, 50000, 50321, 163840])
@pytest.mark.parametrize("chunk,overlap", [(8000, 0), (8000, 2000), (8000, 7999), (1, 0), (200000, 1000)])
def test_chunks_cover_every_patch_once(samples, chunk, overlap) -> None:
    front_end = AudioFrontEnd(BridleSettings(**SMALL))
    clip = wave(samples)[None]
    whole = front_end(clip)
    steps, rows = whole.grid
    chunking = Chunking.of_samples(front_end, chunk, overlap)
    pieces = []
    for segment in chunking(0, samples):
        patches = front_end(clip[:, segment.start : segment.start + segment.length])
        assert patches.grid[0] <= chunking.chunk_patches
        first, end = segment.kept or (0, patches.grid[0])
        assert 0 <= first < end <= patches.grid[0]
        pieces.append(patches.x[:, first * rows : end * rows])
    together = torch.cat(pieces, 1)
    assert together.shape == whole.x.shape
    if samples >= 400:  # a clip under a frame loses its mean over other samples
        torch.testing.assert_close(together, whole.x, atol=2e-3, rtol=1e-3)


def test_chunks_have_full_length_and_split_their_overlap() -> None:
    front_end = AudioFrontEnd(BridleSettings(**SMALL))
    chunking = Chunking(front_end, 8, 4)
    steps = 21
    segments = chunking(0, (steps * 8 - 1) * 160 + 400)
    starts = [segment.start // (8 * 160) for segment in segments]
    assert starts == [0, 4, 8, 12, 13]
    assert [segment.kept for segment in segments] == [(0, 6), (2, 6), (2, 6), (2, 4), (3, 8)]


def test_default_chunk_is_the_crop_length_of_training() -> None:
    front_end = AudioFrontEnd(BridleSettings(**SMALL))
    cfg = SimpleNamespace(modality="audio", max_sample_size=8000)
    assert choose_chunking(ChunkOptions(), front_end, cfg) == Chunking.of_samples(front_end, 8000, 2000)
    assert choose_chunking(ChunkOptions(), front_end) == Chunking.of_samples(front_end, 163840, 40960)
    assert choose_chunking(ChunkOptions(0.3, 0.1), front_end, cfg) == Chunking.of_samples(front_end, 4800, 1600)
    mistakes = ((ChunkOptions(0), "--chunk-seconds is 0"), (ChunkOptions(0.1, 0.1), "less than the 0.1 s of a chunk"))
    for options, sentence in mistakes:
        with pytest.raises(InputError, match=sentence):
            choose_chunking(options, front_end, cfg)


def test_chunking_is_restored_from_stored_features() -> None:
    front_end = AudioFrontEnd(BridleSettings(**SMALL))
    chunking = Chunking(front_end, 8, 4)
    assert stored_chunking(chunking.layout, front_end, chunking.reader) == chunking
    assert isinstance(stored_chunking({"image_size": 8}, front_end, chunking.reader), WholeClip)
