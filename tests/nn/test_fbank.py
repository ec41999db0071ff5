"""The batched log-mel front end against Kaldi's arithmetic."""

import copy
import math

import pytest
import torch

from bridle_fairseq.nn.fbank import LogMel, frame_count


def clips():
    """Clips of 0.02 s to 12 s: noise, DC offset, silence, constants, integer scale, tones, half silent."""
    random = torch.Generator().manual_seed(0)
    for seconds in (0.02, 0.05, 0.3, 1.0, 2.345, 12.0):
        size = int(seconds * 16000)
        noise = 0.1 * torch.randn(size, generator=random)
        time = torch.arange(size) / 16000
        yield from (
            noise,
            noise + 0.7,
            torch.zeros(size),
            torch.full((size,), 0.3),
            (80000 * noise).round(),
            1e-3 * noise,
        )
        yield 0.9 * torch.sin(2 * math.pi * (100 + 600 * time) * time)
        yield torch.where(time < seconds / 2, noise, 0.0)


def padded(waveforms, value=0.0):
    sizes = torch.tensor([len(waveform) for waveform in waveforms])
    source = torch.full((len(waveforms), int(sizes.max())), value)
    for row, waveform in zip(source, waveforms, strict=True):
        row[: len(waveform)] = waveform
    return source, torch.arange(source.shape[1]) >= sizes[:, None]


def torchaudio_fbank(waveform, **settings):
    kaldi = pytest.importorskip("torchaudio.compliance.kaldi")
    waveform = waveform - waveform.mean()
    window = int(settings.get("sample_frequency", 16000) * 0.025)
    waveform = torch.nn.functional.pad(waveform, (0, max(0, window - len(waveform))))
    settings = {"sample_frequency": 16000, "num_mel_bins": 128, **settings}
    return kaldi.fbank(
        waveform[None], htk_compat=True, use_energy=False, window_type="hanning", dither=0.0, frame_shift=10, **settings
    )


def test_a_padded_batch_equals_torchaudio_clip_by_clip():
    waveforms = list(clips())
    fbank, padding_mask = LogMel()(*padded(waveforms))
    for waveform, row, mask in zip(waveforms, fbank, padding_mask, strict=True):
        expected = torchaudio_fbank(waveform)
        assert int((~mask).sum()) == len(expected)
        torch.testing.assert_close(row[~mask], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("rate,bins", [(8000, 64), (22050, 80), (48000, 128)])
def test_other_rates_and_numbers_of_bins_equal_torchaudio(rate, bins):
    waveform = 0.1 * torch.randn(rate, generator=torch.Generator().manual_seed(1))
    fbank, _ = LogMel(rate, bins)(waveform[None])
    expected = torchaudio_fbank(waveform, sample_frequency=rate, num_mel_bins=bins)
    torch.testing.assert_close(fbank[0], expected, atol=1e-4, rtol=0)


def test_equals_the_formula_in_float64():
    """Kaldi's definition written out frame by frame, so that the arithmetic does not hang on one library."""
    waveform = 0.1 * torch.randn(4000, generator=torch.Generator().manual_seed(2))
    signal = waveform.double() - waveform.double().mean()
    bins = 1127 * torch.log1p(torch.arange(257, dtype=torch.float64) * 16000 / 512 / 700)
    edges = torch.linspace(1127 * math.log1p(20 / 700), 1127 * math.log1p(8000 / 700), 130, dtype=torch.float64)
    left, centre, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    filters = torch.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)).clamp(min=0)
    expected = []
    for start in range(0, len(signal) - 399, 160):
        frame = signal[start : start + 400]
        frame = frame - frame.mean()
        frame = frame - 0.97 * torch.cat([frame[:1], frame[:-1]])
        power = torch.fft.rfft(frame * torch.hann_window(400, periodic=False, dtype=torch.float64), n=512).abs() ** 2
        expected.append((filters @ power).clamp(min=torch.finfo(torch.float32).eps).log())
    fbank, _ = LogMel()(waveform[None])
    torch.testing.assert_close(fbank[0].double(), torch.stack(expected), atol=2e-3, rtol=0)


def test_padding_is_zero_and_its_values_are_ignored():
    waveforms = [torch.randn(5000), torch.randn(300), torch.randn(16000)]
    log_mel = LogMel()
    fbank, mask = log_mel(*padded(waveforms))
    assert (fbank[mask] == 0).all() and mask.sum(1).tolist() == [98 - 29, 97, 0]
    again, _ = log_mel(*padded(waveforms, value=math.nan))
    assert torch.equal(fbank, again)


def test_frames_do_not_depend_on_the_batch():
    log_mel = LogMel()
    many = 0.1 * torch.randn(7, 16000)
    long = 0.1 * torch.randn(2, 160 * 1500)
    for batch in (many, long):  # more and fewer frames than are done at once
        together, none = log_mel(batch)
        assert none is None
        for clip, row in zip(batch, together, strict=True):
            torch.testing.assert_close(log_mel(clip[None])[0][0], row, atol=1e-5, rtol=0)


@pytest.mark.parametrize("frames_at_once", [10, 2**16])
def test_path_of_other_devices_equals_the_cpu_path(monkeypatch, frames_at_once):
    """Many clips at once, as on an accelerator; only the rounding of the mean differs."""
    monkeypatch.setattr("bridle_fairseq.nn.fbank.DEVICE_FRAMES_AT_ONCE", frames_at_once)
    log_mel = LogMel()
    for waveforms in ([torch.randn(5000), torch.randn(300), torch.randn(9000)], [torch.randn(200)]):
        source, mask = padded(waveforms, value=math.nan)
        expected, frame_mask = log_mel(source, mask)
        fbank = log_mel._together(source, mask, (~mask).sum(1))
        torch.testing.assert_close(fbank[~frame_mask], expected[~frame_mask], atol=1e-3, rtol=0)
    for size in (2000, 1999, 719, 720, 399, 400):  # frames of 400 begin every 160: one fewer ends before 720
        source = torch.randn(2, size)
        fbank = log_mel._together(source, None, torch.full((2,), size))
        torch.testing.assert_close(fbank, log_mel(source)[0], atol=1e-3, rtol=0)


def test_row_of_padding_gives_no_nan():
    source, mask = torch.zeros(2, 800), torch.zeros(2, 800, dtype=torch.bool)
    mask[1] = True
    fbank, frame_mask = LogMel()(source, mask)
    assert fbank.isfinite().all() and frame_mask.shape == (2, 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_stays_float32_in_a_half_precision_model(dtype):
    waveform = 0.1 * torch.randn(2, 8000)
    expected, _ = LogMel()(waveform)
    halved = torch.nn.Sequential(LogMel(), torch.nn.Linear(2, 2)).to(dtype)[0]
    assert halved.window.dtype == halved.filters.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        fbank, _ = halved(waveform)
    assert fbank.dtype == torch.float32 and torch.equal(fbank, expected)
    coarse = waveform.to(dtype)  # fairseq casts the batch too
    assert torch.equal(halved(coarse)[0], LogMel()(coarse.float())[0])
    assert copy.deepcopy(halved)(waveform)[0].equal(expected)


def test_no_gradient_and_no_state():
    waveform = torch.randn(1, 800, requires_grad=True)
    log_mel = LogMel()
    kept = waveform.detach().clone()
    assert not log_mel(waveform)[0].requires_grad and not log_mel.state_dict()
    assert torch.equal(waveform.detach(), kept)


def test_frame_count():
    sizes = [0, 1, 399, 400, 559, 560, 16000, 163840]
    expected = [1, 1, 1, 1, 1, 2, 98, 1022]
    assert [frame_count(size) for size in sizes] == expected
    assert frame_count(torch.tensor(sizes)).tolist() == expected
    assert LogMel(8000).frame_count(8000) == 98


def test_padding_is_0_where_clips_are_computed_together(monkeypatch):
    source, mask = padded([0.1 * torch.randn(2000), 0.1 * torch.randn(900)])
    log_mel = LogMel()
    expected, padding = log_mel(source, mask)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)  # as in a graph, or on a GPU
    found, same = log_mel(source, mask)
    assert torch.equal(padding, same) and padding.any() and (found[padding] == 0).all()
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=0)
