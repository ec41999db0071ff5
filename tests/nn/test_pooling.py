"""Pooling of patches and of log-mel frames, without padding."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from bridle_fairseq.nn.bridle import Bridle
from bridle_fairseq.nn.encoder import EncoderOutput
from bridle_fairseq.nn.pooling import (
    log_mel_deviation,
    log_mel_segments,
    merge_chunks,
    pool_patches,
    pooled_width,
)
from bridle_fairseq.nn.pooling_kinds import OF_SOUND
from bridle_fairseq.nn.settings import BridleSettings
from bridle_fairseq.utils.errors import InputError

ROWS, WIDTH = 3, 4


def reference(clip: torch.Tensor, pooling: str) -> np.ndarray:
    """The pooled vector of T x F x D patches, all of which count, slowly and in float64."""
    x = clip.double().numpy()
    if pooling in ("mean", "statistics"):
        x = x.reshape(-1, 1, x.shape[-1])  # T x F x D -> (T * F) x 1 x D
    if pooling == "segments":
        edges = [round(len(x) * number / 4) for number in range(5)]
        first = [min(edge, len(x) - 1) for edge in edges[:4]]
        parts = [x[a : max(a + 1, b)].mean(0) for a, b in zip(first, edges[1:], strict=True)]
    else:
        parts = [x.mean(0), x.std(0)] if "statistics" in pooling else [x.mean(0)]
    return np.concatenate([part.ravel() for part in parts])


def random_clips(*steps: int) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    """Patches of a padded batch B x (T * F) x D, with NaN at padding; their mask; and each clip's T x F x D."""
    torch.manual_seed(0)
    clips = [torch.randn(n, ROWS, WIDTH) * torch.rand(n, 1, 1) + 3 for n in steps]
    x = torch.full((len(steps), max(steps), ROWS, WIDTH), torch.nan)
    for row, clip in zip(x, clips, strict=True):
        row[: len(clip)] = clip
    return x.flatten(1, 2), x.isnan().any(3).flatten(1), clips


@pytest.mark.parametrize("pooling", [name for name in OF_SOUND if name != "class_token"])
def test_pooled_vectors_equal_a_slow_reference(pooling) -> None:
    x, padding, clips = random_clips(13, 1, 2, 3, 4, 6, 10)
    found = pool_patches(EncoderOutput(x, x[:, 0], []), (13, ROWS), padding, pooling)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, [reference(clip, pooling) for clip in clips], atol=1e-6, rtol=1e-5)
    for clip, vector in zip(clips, found, strict=True):
        alone = pool_patches(EncoderOutput(clip.flatten(0, 1)[None], x[:1, 0], []), (len(clip), ROWS), None, pooling)
        torch.testing.assert_close(alone[0], vector, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("pooling", [name for name in OF_SOUND if name != "class_token"])
@pytest.mark.parametrize("total", [2, 3, 5, 23])
def test_merged_chunks_equal_the_whole_clip(pooling, total) -> None:
    """Overlapping chunks in one batch with another clip: of each, only some patches count."""
    _, _, (clip,) = random_clips(total)
    clip = clip + 100 * torch.arange(total)[:, None, None]  # chunks differ more than their patches
    length = max(1, total // 3)
    starts = [*range(0, total - length, length), total - length]
    kept = [(a - at, b - at) for at, a, b in zip(starts, starts, [*starts[1:], total], strict=True)]
    x = torch.stack([clip[at : at + length] for at in starts]).flatten(1, 2)
    time = torch.arange(length)
    left_out = torch.stack([(time < a) | (time >= b) for a, b in kept]).repeat_interleave(ROWS, 1)
    place = torch.tensor(starts), torch.full((len(starts),), total)
    found = pool_patches(EncoderOutput(x, x[:, 0], []), (length, ROWS), left_out, pooling, *place)
    merged = merge_chunks(pooling, list(found.numpy()), [(b - a) * ROWS for a, b in kept])
    assert merged.dtype == np.float32
    np.testing.assert_allclose(merged, reference(clip, pooling), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("pooling", OF_SOUND)
def test_pooling_has_finite_gradients_without_deviation_and_none_at_padding(pooling) -> None:
    x, padding, _ = random_clips(6, 1, 4)
    x[2, : 4 * ROWS] = 0.1
    x.requires_grad_()
    pool_patches(EncoderOutput(x, x[:, 0], []), (6, ROWS), padding, pooling).sum().backward()
    assert x.grad is not None and torch.isfinite(x.grad).all() and not x.grad[padding].any()


def test_pooled_width_and_poolings_of_images() -> None:
    sizes = dict(encoder_width=32, encoder_depth=1, encoder_heads=2, num_mel_bins=48, patch_size=[8, 16])
    sizes |= dict(decoder_width=32, decoder_depth=1, decoder_heads=2, tokenizer_depth=1, estimator_depth=1)
    sound = Bridle(BridleSettings(**sizes)).front_end
    out = EncoderOutput(torch.randn(1, 5 * ROWS, 32), torch.randn(1, 32), [])
    for pooling in OF_SOUND:
        assert pool_patches(out, (5, ROWS), None, pooling).shape == (1, pooled_width(sound, 32, pooling))
    images = Bridle(BridleSettings(**{**sizes, "modality": "image", "patch_size": [8, 8]})).front_end
    assert [pooled_width(images, 32, pooling) for pooling in ("mean", "class_token", "statistics")] == [32, 32, 64]
    for pooling in ("frequency", "frequency_statistics", "segments"):
        with pytest.raises(
            InputError, match=f"pooling is {pooling}, which is for sound; expected one of mean, class_t"
        ):
            pooled_width(images, 32, pooling)
    out = EncoderOutput(torch.randn(1, 5 * 7, 32), torch.randn(1, 32), [])
    assert pool_patches(out, (5, 7), None, "regions").shape == (1, pooled_width(images, 32, "regions"))
    with pytest.raises(InputError, match="pooling is regions, which is for images and video; expected one of mean, f"):
        pooled_width(sound, 32, "regions")
    with pytest.raises(InputError, match="pooling is 'max'; expected one of mean, "):
        pooled_width(sound, 32, "max")


@pytest.mark.parametrize(
    ("boxes", "parts"),
    [([(8, 8), (5, 9), (1, 2), (9, 3)], (4, 4)), ([(4, 4, 4), (3, 5, 1), (6, 2, 7), (1, 1, 1)], (4, 2, 2))],
    ids=["image", "video"],
)
def test_regions_equal_a_slow_reference(boxes, parts) -> None:
    grid = tuple(max(sizes) for sizes in zip(*boxes, strict=True))
    torch.manual_seed(0)
    clips = [torch.randn(*box, WIDTH) for box in boxes]
    x = torch.full((len(boxes), *grid, WIDTH), torch.nan)
    for row, clip, box in zip(x, clips, boxes, strict=True):
        row[tuple(slice(size) for size in box)] = clip
    flat = x.flatten(1, -2).requires_grad_()
    found = pool_patches(EncoderOutput(flat, flat[:, 0], []), grid, flat.isnan().any(2), "regions")
    for clip, box, vector in zip(clips, boxes, found, strict=True):
        slices = []
        for size, number in zip(box, parts, strict=True):
            edges = [round(size * index / number) for index in range(number + 1)]
            firsts = [min(edge, size - 1) for edge in edges[:-1]]
            slices.append([slice(a, max(a + 1, b)) for a, b in zip(firsts, edges[1:], strict=True)])
        regions = [clip.double()[part].flatten(0, -2).mean(0) for part in itertools.product(*slices)]
        torch.testing.assert_close(vector.double(), torch.cat(regions), atol=1e-6, rtol=1e-5)
        alone = EncoderOutput(clip.flatten(0, -2)[None], flat[:1, 0], [])
        torch.testing.assert_close(pool_patches(alone, box, None, "regions")[0], vector, atol=1e-6, rtol=1e-5)
    found.sum().backward()
    assert not flat.grad[flat.isnan()].any()


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
