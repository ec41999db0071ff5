"""Mixup and SpecAugment: values, padding, short clips, random seeds."""

from __future__ import annotations

import pytest
import torch

from bridle_fairseq.nn.batch_augment import add_noise, mixup, spec_augment, warp_frequency, warp_time
from bridle_fairseq.nn.fbank import LogMel


def batch(clips: int = 6, samples: int = 50) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Clip i is i + 1 throughout, is 20 + 5 i samples long, and is of class i."""
    lengths = 20 + 5 * torch.arange(clips)
    padding = torch.arange(samples) >= lengths[:, None]
    source = (torch.arange(clips) + 1.0)[:, None].repeat(1, samples).masked_fill(padding, 9.0)
    return source, padding, torch.eye(clips)


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_mixup_uses_the_same_weights_for_clips_and_labels(share) -> None:
    torch.manual_seed(0)
    source, padding, target = batch()
    mixed, mixed_padding, labels = mixup(source, padding, target, share, 10.0)
    clean = source.masked_fill(padding, 0.0)
    torch.testing.assert_close(mixed, labels @ clean)  # the labels are the weights, as clip i alone is of class i
    torch.testing.assert_close(labels.sum(1), torch.ones(6))
    mixed_clips = (labels > 0).sum(1) == 2
    assert mixed_clips.all() if share == 1 else 0 < mixed_clips.sum() < 6
    assert torch.equal(mixed_padding, torch.stack([padding[row > 0].all(0) for row in labels]))
    weights = labels.diag()[mixed_clips]
    assert 0.2 < weights.min() and weights.max() < 0.8  # Beta(10, 10)


def test_mixup_of_images_uses_pixels_from_0_to_1() -> None:
    torch.manual_seed(0)
    source = torch.randint(0, 256, (4, 3, 5, 6), dtype=torch.uint8)
    padding = torch.zeros(4, 5, 6, dtype=torch.bool)
    padding[0, 3:], padding[1, :, 4:] = True, True
    mixed, mixed_padding, labels = mixup(source, padding, torch.eye(4), 1.0, 1.0)
    clean = (source.float() / 255).masked_fill(padding[:, None], 0.0)
    torch.testing.assert_close(mixed, torch.einsum("ij,jchw->ichw", labels, clean))
    assert torch.equal(mixed_padding, torch.stack([padding[row > 0].all(0) for row in labels]))


def test_share_is_the_fraction_of_mixed_clips() -> None:
    torch.manual_seed(0)
    source, target = torch.randn(2000, 3), torch.eye(2000)
    mixed, none, labels = mixup(source, None, target, 0.3, 1.0)
    assert none is None
    untouched = (mixed == source).all(1)
    assert 0.66 < untouched.float().mean() < 0.74
    assert torch.equal(labels[untouched], target[untouched])
    assert torch.equal(mixup(source, None, target, 0.0, 1.0)[0], source)


def test_mixup_of_a_single_clip_changes_nothing() -> None:
    source, padding, target = batch(1)
    assert mixup(source, padding, target, 1.0, 10.0)[0] is source


def test_mixup_is_reproducible() -> None:
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(mixup(*batch(), 0.7, 10.0)[2])
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


def hidden(fbank: torch.Tensor, padding: torch.Tensor | None, frames: int, bins: int) -> torch.Tensor:
    found = spec_augment(fbank, padding, frames, bins)
    assert torch.equal(found[found != 0], fbank[found != 0])
    return found == 0


def test_spec_augment_masks_one_span_per_axis() -> None:
    torch.manual_seed(0)
    zero = hidden(torch.ones(400, 60, 40), None, 12, 8)
    times, bins = zero.all(2), zero.all(1)
    assert torch.equal(zero, times[:, :, None] | bins[:, None, :])
    for stretch, longest in ((times, 12), (bins, 8)):
        lengths = stretch.sum(1)
        assert set(lengths.tolist()) == set(range(longest + 1))
        edges = torch.diff(torch.nn.functional.pad(stretch.int(), (1, 1)), dim=1)
        assert (edges == 1).sum(1).max() == 1  # in one piece
        assert stretch.any(0).all()  # anywhere


def test_spec_augment_keeps_half_of_a_short_clip() -> None:
    torch.manual_seed(0)
    padding = torch.arange(60) >= torch.tensor([10] * 200)[:, None]
    zero = hidden(torch.ones(200, 60, 4), padding, 192, 48)
    times, bins = zero.all(2), zero.all(1)
    assert times[:, 10:].sum() == 0 and times.sum(1).max() == 5 and bins.sum(1).max() == 2


@pytest.mark.parametrize(("frames", "bins"), [(0, 5), (5, 0), (0, 0)])
def test_spec_augment_of_0_masks_nothing(frames, bins) -> None:
    torch.manual_seed(0)
    zero = hidden(torch.ones(50, 30, 20), None, frames, bins)
    assert zero.all(2).any() == (frames > 0) and zero.all(1).any() == (bins > 0)


def test_warped_frequencies_are_those_of_the_scaled_tone() -> None:
    """A tone whose frequency is scaled, against the warped log-mel of the tone itself."""
    log_mel, time = LogMel(16000, 128), torch.arange(16000) / 16000
    tones = torch.stack([0.3 * torch.sin(2 * torch.pi * hz * time) for hz in (400.0, 1000.0, 2500.0)])
    fbank = log_mel(tones, None)[0]
    torch.manual_seed(5)
    power = 2 * torch.rand(3) - 1
    torch.manual_seed(5)
    warped = warp_frequency(fbank, 16000, 0.25)
    for clip, hz in enumerate((400.0, 1000.0, 2500.0)):
        scaled = hz / 1.25 ** power[clip].item()  # a bin shows what lay at its frequency times the factor
        expected = log_mel(0.3 * torch.sin(2 * torch.pi * scaled * time)[None], None)[0][0]
        assert abs(warped[clip].mean(0).argmax() - expected.mean(0).argmax()) <= 1
        assert abs(fbank[clip].mean(0).argmax() - expected.mean(0).argmax()) > 1


def test_warping_stays_between_the_values_of_neighbouring_bins_and_keeps_constants() -> None:
    torch.manual_seed(1)
    fbank = torch.randn(4, 7, 64)
    warped = warp_frequency(fbank, 16000, 0.2)
    assert warped.shape == fbank.shape and warped.min() >= fbank.min() and warped.max() <= fbank.max()
    assert not torch.equal(warped, fbank) and len({row.tobytes() for row in warped[:, 0].numpy()}) == 4
    constant = torch.full((2, 3, 64), 0.5)
    torch.testing.assert_close(warp_frequency(constant, 16000, 0.2), constant)
    torch.testing.assert_close(warp_frequency(fbank, 16000, 0.0), fbank, atol=1e-4, rtol=0)


def test_warped_time_is_the_clip_at_another_rate() -> None:
    frames, largest = 400, 0.3
    times = torch.arange(frames, dtype=torch.float64)

    def tone(rate, fixed):  # at each frame, where the clip is in its slow sine
        positions = (fixed + (times - fixed) * rate).clamp(0, frames - 1)
        return torch.sin(positions / 30)

    clip = tone(1.0, 0.0).float()[None, :, None].repeat(5, 1, 3)
    torch.manual_seed(4)
    fixed, power = (frames - 1) * torch.rand(5, 1), 2 * torch.rand(5) - 1
    torch.manual_seed(4)
    warped = warp_time(clip, None, largest)
    for number in range(5):
        expected = tone((1 + largest) ** power[number].double(), fixed[number].double())
        torch.testing.assert_close(warped[number, :, 1].double(), expected, atol=1e-3, rtol=0)
        assert (warped[number] - clip[number]).abs().max() > 0.1
    torch.testing.assert_close(warp_time(clip, None, 0.0), clip, atol=1e-5, rtol=0)


def test_warped_time_takes_nothing_from_padding_and_leaves_it_zero() -> None:
    torch.manual_seed(2)
    lengths = torch.tensor([1, 2, 17, 40])
    padding = torch.arange(40) >= lengths[:, None]
    fbank = (torch.rand(4, 40, 3) + 1).masked_fill(padding[:, :, None], 0.0)
    for _ in range(20):
        warped = warp_time(fbank, padding, 0.5)
        assert torch.equal(warped == 0, padding[:, :, None].expand(4, 40, 3))
        for clip, length in enumerate(lengths.tolist()):
            inside, valid = warped[clip, :length], fbank[clip, :length]
            assert inside.min() >= valid.min() and inside.max() <= valid.max()
    assert torch.equal(warped[0], fbank[0])  # a single frame


@pytest.mark.parametrize("padded", [False, True])
def test_noise_is_5_to_40_decibels_below_the_clip(padded) -> None:
    torch.manual_seed(0)
    waveform = 0.1 * torch.randn(200, 1601) * torch.rand(200, 1)
    padding = (torch.arange(1601) >= torch.randint(300, 1602, (200, 1))) if padded else None
    if padded:
        waveform = waveform.masked_fill(padding, 0.0)
    noise = add_noise(waveform, padding, 1.0) - waveform
    valid = torch.ones_like(waveform) if padding is None else (~padding).float()

    def decibels(x):
        return 10 * ((x.double().square() * valid).sum(1) / valid.sum(1)).log10()

    below = decibels(waveform) - decibels(noise)
    assert 4.9 < below.min() < 8 and 37 < below.max() < 40.1
    assert abs(below.mean() - 22.5) < 2.5  # uniform


def test_noise_is_between_white_and_brown() -> None:
    torch.manual_seed(0)
    noise = add_noise(torch.ones(300, 8000), None, 1.0) - 1
    power = torch.fft.rfft(noise.double()).abs().square()
    octave = power[:, 2000:4000].mean(1) / power[:, 1000:2000].mean(1)  # 1 for white, 1/4 for brown
    assert 0.2 < octave.min() < 0.3 and 0.9 < octave.max() < 1.15


def test_noise_leaves_the_other_clips_and_silence_as_they_are() -> None:
    torch.manual_seed(0)
    waveform = torch.rand(400, 50) + 0.1
    noisy = (add_noise(waveform, None, 0.3) != waveform).any(1)
    assert 80 < noisy.sum() < 160
    assert torch.equal(add_noise(waveform, None, 0.0), waveform)
    silence = torch.zeros(3, 50)
    assert torch.equal(add_noise(silence, None, 1.0), silence)
    padding = torch.ones(1, 50, dtype=torch.bool)
    assert torch.isfinite(add_noise(torch.ones(1, 50), padding, 1.0)).all()
