"""Features of clips of any length, from an encoder and from the log-mel."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch

from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.inference.chunking import Chunking
from bridle_fairseq.inference.extractors import EncoderFeatures, LogMelFeatures, encoder_features
from bridle_fairseq.inference.features import FeatureMaker
from bridle_fairseq.inference.pipeline import BatchLimits, SegmentReader
from bridle_fairseq.nn.bridle import Bridle
from bridle_fairseq.nn.pooling import log_mel_deviation, log_mel_segments
from bridle_fairseq.nn.pooling_kinds import OF_SOUND
from bridle_fairseq.nn.settings import BridleSettings

SMALL = dict(encoder_width=32, encoder_depth=2, encoder_heads=2, decoder_width=32, decoder_depth=1, decoder_heads=2)
SMALL |= dict(tokenizer_depth=1, estimator_depth=1, num_mel_bins=32, patch_size=[8, 16], codebook_size=8)
ALL = (*OF_SOUND, "patches")


@pytest.fixture(scope="module")
def model() -> Bridle:
    torch.manual_seed(0)
    return Bridle(BridleSettings(**SMALL)).eval()


def wave(samples: int, seed: int = 0) -> torch.Tensor:
    pitch = np.random.default_rng(seed).uniform(0.01, 0.6, samples // 400 + 1).repeat(400)[:samples]
    return torch.from_numpy(0.3 * np.sin(np.cumsum(pitch))).float()


@pytest.fixture
def make(tmp_path, model):
    """``make(waves, chunk, overlap, **options)`` -> the part of all of them."""

    def run(waves, chunk, overlap, extractors=None, **options):
        for number, clip in enumerate(waves):
            soundfile.write(tmp_path / f"{number}.wav", clip.numpy(), 16000, subtype="FLOAT")
        manifest = Manifest(tmp_path, [f"{n}.wav" for n in range(len(waves))], [len(clip) for clip in waves])
        chunking = Chunking.of_samples(model.front_end, chunk, overlap)
        extractors = extractors or [EncoderFeatures(model, [1, 2], ALL)]
        with SegmentReader(manifest, chunking.reader, chunking, 1) as reader:
            maker = FeatureMaker(model.front_end, extractors, reader, BatchLimits(4, 1 << 20), **options)
            return maker.make(range(len(waves)))

    return run


def test_features_of_short_clips_equal_encoder_features(make, model) -> None:
    waves = [wave(8000), wave(3000, 1), wave(300, 2)]
    part = make(waves, 8000, 2000)
    for row, clip in enumerate(waves):
        expected = encoder_features(model, clip[None], poolings=OF_SOUND)
        for (pooling, layer), value in expected.items():
            found = part.arrays[f"{pooling}.layer{layer}"][row]
            torch.testing.assert_close(torch.from_numpy(found), value[0], atol=1e-5, rtol=1e-4)
    patches = model.extract_features(waves[1][None])
    start, count = part.arrays["sizes"][:2]
    found = part.arrays["patches.layer2"][start : start + count]
    torch.testing.assert_close(torch.from_numpy(found), patches["x"][0], atol=1e-5, rtol=1e-4)


def test_features_of_long_clips_equal_merged_chunks(make, model) -> None:
    """By hand, from what the encoder makes of each chunk by itself, told where in the clip it is."""
    clip = wave(47000)
    part = make([clip, wave(4000, 1)], 8000, 2000)
    chunking = Chunking.of_samples(model.front_end, 8000, 2000)
    assert len({end - first for first, end in (segment.kept for segment in chunking(0, len(clip)))}) > 1
    kept, tokens = [], []
    for segment in chunking(0, len(clip)):
        chunk = model.front_end(clip[None, segment.start : segment.start + segment.length])
        out = model.encoder(chunk.x, chunk.grid, offset=torch.tensor([segment.start // (8 * 160)]))
        steps = out.x.unflatten(1, chunk.grid)[0, segment.kept[0] : segment.kept[1]]
        kept.append(steps)
        tokens.append((len(steps), out.class_token[0]))
    patches = torch.cat(kept)
    expected = {"mean": patches.mean((0, 1)), "frequency": patches.mean(0).flatten(), "patches": patches.flatten(0, 1)}
    expected["class_token"] = sum(n * token for n, token in tokens) / len(patches)
    x = patches.double()  # T x F x D
    moments = [(y.mean(0).flatten(), y.std(0, unbiased=False).flatten()) for y in (x.flatten(0, 1), x)]
    expected["statistics"], expected["frequency_statistics"] = (torch.cat(pair).float() for pair in moments)
    edges = [round(len(x) * number / 4) for number in range(5)]
    parts = [x[a:b].mean(0).flatten() for a, b in zip(edges, edges[1:], strict=False)]
    expected["segments"] = torch.cat(parts).float()
    assert set(expected) == set(ALL)
    assert part.arrays["sizes"][0] == len(patches) * 2
    for pooling, value in expected.items():
        found = part.arrays[f"{pooling}.layer2"]
        found = found[: part.arrays["sizes"][0]] if pooling == "patches" else found[0]
        torch.testing.assert_close(torch.from_numpy(found), value, atol=1e-5, rtol=1e-4)


def test_longer_chunks_are_closer_to_the_whole_clip(make) -> None:
    """A random encoder, 3 s: in one chunk the same, in chunks of 1 s close to it, closer in chunks of 2 s."""
    clip = wave(48000)
    exact = make([clip], 1 << 20, 1 << 19).arrays
    errors = []
    for chunk in (48000, 32000, 16000):
        found = make([clip], chunk, chunk // 4).arrays["mean.layer2"]
        whole = exact["mean.layer2"]
        errors.append(float(np.linalg.norm(found - whole) / np.linalg.norm(whole)))
    assert errors[0] == 0 < errors[1] < errors[2] < 0.2


def test_log_mel_statistics_of_chunks_equal_the_whole_clip(make, model) -> None:
    waves = [wave(50321), wave(8000, 1), wave(5000, 2)]
    part = make(waves, 8000, 2000, [LogMelFeatures(model.front_end)])
    for row, clip in enumerate(waves):
        frames = model.front_end.log_mel(clip[None])[0]
        for name, function in (("deviation", log_mel_deviation), ("segments", log_mel_segments)):
            found = torch.from_numpy(part.arrays[f"log-mel.{name}"][row])
            torch.testing.assert_close(found, function(frames, None)[0], atol=2e-3, rtol=1e-3)


def test_several_extractors(make, model) -> None:
    both = [EncoderFeatures(model, [2], ["mean"]), EncoderFeatures(model, [2], ["mean"], "untrained")]
    part = make([wave(8000)], 8000, 0, both, dtype="float16")
    assert set(part.arrays) == {"mean.layer2", "untrained.mean.layer2", "sizes"}
    assert part.arrays["mean.layer2"].dtype == np.float16


@pytest.mark.parametrize(
    ("dtype", "scale", "listed"), [("float16", 1e5, [1]), ("float32", 1e5, []), ("float32", 1e39, [1])]
)
def test_features_that_are_not_finite_are_listed(make, model, monkeypatch, dtype, scale, listed) -> None:
    extractor, merged = EncoderFeatures(model, [2], ("mean", "patches")), []
    merge = extractor.merge_segments

    def merge_segments(results):
        merged.append(results)
        scaled = np.float64(scale if len(merged) == 2 else 1)
        with np.errstate(over="ignore"):
            return {name: (value * scaled).astype(np.float32) for name, value in merge(results).items()}

    monkeypatch.setattr(extractor, "merge_segments", merge_segments)
    result = make([wave(8000), wave(9000), wave(7000)], 16000, 0, [extractor], dtype=dtype)
    assert [row for row, _ in result.skipped] == listed
    pooled = result.arrays["mean.layer2"]
    assert np.flatnonzero(~np.isfinite(pooled).all(1)).tolist() == listed
    assert len(result.arrays["patches.layer2"]) == result.arrays["sizes"].sum()
    if listed:
        assert f"not finite in {dtype}" in result.skipped[0][1] and result.arrays["sizes"][1] == 0
