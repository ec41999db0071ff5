"""From inputs to normalized values and patches, for every modality."""

import itertools
import math
from dataclasses import replace

import pytest
import torch

from bridle_fairseq.nn.bridle import Bridle
from bridle_fairseq.nn.frontend import AudioFrontEnd, Patches, PixelFrontEnd, front_end_of
from bridle_fairseq.nn.patch import patchify
from bridle_fairseq.nn.schedule import Stage
from bridle_fairseq.nn.settings import BridleSettings, check_settings
from bridle_fairseq.utils.errors import InputError

SETTINGS = {
    "audio": BridleSettings(patch_size=[8, 32]),
    "image": BridleSettings(
        modality="image", patch_size=[4, 8], pixel_mean=[0.5, 0.25, 0.0], pixel_std=[0.5, 0.25, 1.0]
    ),
    "video": BridleSettings(
        modality="video", patch_size=[2, 4, 8], pixel_mean=[0.5, 0.25, 0.0], pixel_std=[0.5, 0.25, 1.0]
    ),
}


def source(modality, size=3):
    generator = torch.Generator().manual_seed(0)
    if modality == "audio":
        return 0.1 * torch.randn(2, 4000 + 160 * size, generator=generator)
    frames = [3] if modality == "video" else []
    return torch.randint(0, 256, (2, 3, *frames, 9 + size, 17), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("modality", SETTINGS)
def test_grid_follows_from_the_input_size(modality):
    front_end = front_end_of(SETTINGS[modality])
    x = source(modality)
    patches = front_end(x)
    assert patches.grid == front_end.grid(x.shape[1:] if modality == "audio" else x.shape[2:])
    assert patches.x.shape == (2, math.prod(patches.grid), front_end.patch_dim)
    assert patches.padding_mask is None and patches.x.dtype == torch.float32
    assert (front_end.rows is None) == (modality != "audio")


def test_repeated_batch_is_the_batch_again():
    padding = torch.tensor([[False, False, True], [False, False, False]])
    patches = Patches(torch.arange(12.0).view(2, 3, 2), (3, 1), padding)
    again = patches.repeated(3)
    assert torch.equal(again.x, torch.cat([patches.x] * 3)) and again.grid == (3, 1)
    assert torch.equal(again.padding_mask, torch.cat([padding] * 3))
    assert Patches(patches.x, (3, 1), None).repeated(2).padding_mask is None


@pytest.mark.parametrize("modality", SETTINGS)
def test_augmentation_changes_the_values(modality):
    front_end = front_end_of(SETTINGS[modality])
    x = source(modality)
    doubled = front_end(x, augment=lambda values, padding: 2 * values)
    torch.testing.assert_close(doubled.x, 2 * front_end(x).x)


def test_log_mel_is_normalized_by_twice_the_deviation():
    front_end = front_end_of(BridleSettings(fbank_mean=-5.0, fbank_std=3.0))
    log_mel = front_end.log_mel(source("audio"))[0]
    torch.testing.assert_close(front_end.fbank(source("audio"))[0], (log_mel + 5) / 6)
    assert (BridleSettings().fbank_mean, BridleSettings().fbank_std) == pytest.approx((-4.4446, 3.3216), abs=1e-4)


def test_pixels_are_normalized_per_channel():
    front_end = front_end_of(SETTINGS["image"])
    assert isinstance(front_end, PixelFrontEnd)
    pixels = torch.tensor([255, 51, 0], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 4, 8)
    values, _ = front_end.values(pixels)
    torch.testing.assert_close(values[0, :, 0, 0], torch.tensor([1.0, -0.2, 0.0]))
    torch.testing.assert_close(front_end(pixels).x, patchify(values, [4, 8]))


def test_integer_and_floating_point_pixels_are_equivalent():
    front_end = front_end_of(SETTINGS["image"])
    pixels = source("image")
    for same in (pixels.float() / 255, (pixels.double() / 255)):
        torch.testing.assert_close(front_end(same).x, front_end(pixels).x)


def test_padding_of_images_is_the_mean_colour_and_masked():
    front_end = front_end_of(SETTINGS["image"])
    pixels, mask = source("image"), torch.zeros(2, 12, 17, dtype=torch.bool)
    mask[0, 5:], mask[1, :, 8:] = True, True
    patches = front_end(pixels, mask)
    assert patches.grid == (3, 3)
    assert patches.padding_mask.view(2, 3, 3)[0].tolist() == [[False] * 3, [False] * 3, [True] * 3]
    assert patches.padding_mask.view(2, 3, 3)[1].tolist() == [[False, True, True]] * 3
    assert (patches.x[patches.padding_mask] == 0).all()
    alone = front_end(pixels[:1, :, :5])
    torch.testing.assert_close(alone.x[0], patches.x[0][~patches.padding_mask[0]])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_model_keeps_pixels_exact(dtype):
    sizes = dict(encoder_width=16, encoder_depth=1, encoder_heads=2, decoder_width=16, decoder_depth=1, decoder_heads=2)
    sizes |= dict(tokenizer_depth=1, estimator_depth=1, codebook_dim=8, codebook_size=4, decoder_window=[])
    model = Bridle(BridleSettings(modality="image", patch_size=[4, 8], **sizes))
    before = model.front_end(source("image")).x
    assert torch.equal(model.to(dtype).front_end(source("image")).x, before)
    assert not [name for name in model.state_dict() if name.startswith("front_end")]


def test_audio_has_its_own_front_end():
    assert isinstance(front_end_of(SETTINGS["audio"]), AudioFrontEnd)


def test_video_patches_span_several_frames():
    front_end, pixels = front_end_of(SETTINGS["video"]), source("video")[:, :, :2, :8]
    of_frames = [front_end_of(SETTINGS["image"])(pixels[:, :, step]).x.unflatten(2, (3, 32)) for step in range(2)]
    torch.testing.assert_close(front_end(pixels).x, torch.stack(of_frames, 3).flatten(2))
    assert front_end.layout == {"patch_frames": 2, "patch_height": 4, "patch_width": 8}


def test_video_padding_on_all_three_axes():
    front_end, pixels = front_end_of(SETTINGS["video"]), source("video")
    mask = torch.ones(2, 3, 12, 17, dtype=torch.bool)
    mask[0, :2, :5, :9], mask[1] = False, False
    patches = front_end(pixels, mask)
    assert patches.grid == (2, 3, 3) and not patches.padding_mask[1].any()
    valid = ~patches.padding_mask[0].view(2, 3, 3)
    assert valid.nonzero().tolist() == [[0, row, column] for row in (0, 1) for column in (0, 1)]
    alone = front_end(pixels[:1, :, :2, :5, :9])
    torch.testing.assert_close(alone.x[0], patches.x[0][valid.flatten()])


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"patch_size": [16, 16]}, r"\[16, 16\]; expected three positive numbers, frames, height and width"),
        ({"patch_size": [0, 16, 16]}, "expected three positive numbers"),
        ({"decoder_window": [4, 4]}, r"decoder_window is \[4, 4\] with modality video; expected an empty list"),
    ],
)
def test_impossible_video_settings_are_errors(settings, sentence):
    settings = {"patch_size": [2, 16, 16], "decoder_window": [], **settings}
    with pytest.raises(InputError, match=sentence):
        check_settings(BridleSettings(modality="video", **settings))
    with pytest.raises(InputError, match="expected two positive numbers, height and width"):
        check_settings(BridleSettings(modality="image", patch_size=[2, 16, 16]))


@pytest.mark.parametrize("rate", [16000, 11025])
@pytest.mark.parametrize("samples", [100, 400, 5000, 16000, 16123])
def test_times_and_bands_follow_the_frames_and_the_filters(rate: int, samples: int) -> None:
    front_end = AudioFrontEnd(BridleSettings(sample_rate=rate, num_mel_bins=40, patch_size=[8, 12]))
    log_mel, (steps, rows) = front_end.log_mel, front_end.grid((samples,))
    times, bands = front_end.times((samples,)), front_end.bands((samples,))
    assert times.shape == bands.shape == (steps * rows, 2) and times.dtype == bands.dtype == torch.float32
    frames = [range(start, start + log_mel.frame_length) for start in range(0, samples, log_mel.frame_shift)]
    frames = [f for f in frames if f.stop <= samples] or [range(samples)]
    used = log_mel.filters.T > 0  # mel bins x bins of the spectrum
    hertz = rate / log_mel.fft_length
    for patch in range(steps * rows):
        of_patch = frames[patch // rows * 8 :][:8]
        expected = torch.tensor([of_patch[0].start / rate, of_patch[-1].stop / rate])
        torch.testing.assert_close(times[patch], expected)
        low, high = bands[patch].tolist()
        bins = used[patch % rows * 12 :][:12].any(0).nonzero().flatten()
        assert low < bins[0] * hertz <= low + hertz and high - hertz <= bins[-1] * hertz < high
    assert bands[0, 0] == pytest.approx(20) and bands[-1, 1] == pytest.approx(rate / 2)


def test_a_click_changes_the_patches_whose_times_hold_it() -> None:
    front_end, samples = AudioFrontEnd(BridleSettings(num_mel_bins=40, patch_size=[8, 12])), 16000
    times = front_end.times((samples,))
    silence = front_end(torch.zeros(1, samples)).x
    for place in (203, 1357, 1379, 9001, 15905, 15950):  # in one patch, in the overlap of two, after the last frame
        click = torch.zeros(1, samples)
        click[0, place] = 0.5
        changed = (front_end(click).x != silence)[0].any(1)
        assert changed.tolist() == [start <= place / 16000 < end for start, end in times.tolist()], place


def test_times_of_tubelets_need_the_frame_rate() -> None:
    front_end = PixelFrontEnd(BridleSettings(modality="video", patch_size=[2, 8, 8], decoder_window=[]))
    sizes = (5, 16, 24)
    assert front_end.times(sizes) is None and front_end.bands(sizes) is None
    times = front_end.times(sizes, 12.5).unflatten(0, (3, 2, 3))
    assert times[:, 1, 2].tolist() == [pytest.approx(pair) for pair in ([0, 0.16], [0.16, 0.32], [0.32, 0.4])]
    image = PixelFrontEnd(BridleSettings(modality="image", patch_size=[8, 8]))
    assert image.times((16, 24), 12.5) is None and image.bands((16, 24)) is None


@pytest.mark.parametrize("modality", SETTINGS)
@pytest.mark.parametrize("target_norm", ["clip", "band", "patch"])
@pytest.mark.parametrize("padded", [False, True])
def test_targets_of_a_cold_start_have_no_mean(modality, target_norm, padded):
    """Compared with means of float64, one clip, channel and band or patch at a time."""
    if target_norm == "band" and modality != "audio":
        with pytest.raises(InputError, match="target_norm is band with modality"):
            check_settings(replace(SETTINGS[modality], target_norm="band", decoder_window=[]))
        return
    x = source(modality)
    padding = None
    if padded:
        padding = torch.zeros(x.shape if modality == "audio" else (2, *x.shape[2:]), dtype=torch.bool)
        padding[1, ..., x.shape[-1] // 2 :] = True  # the end of a waveform, the right half of images
    front_end = front_end_of(replace(SETTINGS[modality], target_norm=target_norm))
    values, values_padding = front_end.values(x, padding)
    expected = torch.zeros_like(values)
    for clip in range(2):
        valid = torch.ones(values.shape[2:], dtype=torch.bool)
        if values_padding is not None:
            valid = (~values_padding[clip]).view(
                *values_padding.shape[1:], *[1] * (valid.dim() - values_padding.dim() + 1)
            )
            valid = valid.expand(values.shape[2:])
        for channel in range(values.shape[1]):
            parts = [(..., band) for band in (range(128) if target_norm == "band" else [slice(None)])]
            if target_norm == "patch":
                steps = zip(valid.shape, front_end.patch_size, strict=True)
                starts = itertools.product(*(range(0, size, step) for size, step in steps))
                parts = [
                    tuple(slice(a, a + step) for a, step in zip(at, front_end.patch_size, strict=True)) for at in starts
                ]
            for part in parts:
                chosen, rows = values[clip, channel][part].double(), valid[part]
                if rows.any():
                    expected[clip, channel][part] = torch.where(rows, chosen - chosen[rows].mean(), 0.0).float()
    patches = front_end(x, padding, with_centred=True)
    torch.testing.assert_close(patches.centred, patchify(expected, front_end.patch_size), atol=2e-6, rtol=1e-5)
    assert torch.equal(patches.x, front_end_of(SETTINGS[modality])(x, padding).x)
    assert torch.equal(patches.repeated(2).centred, torch.cat([patches.centred] * 2))


def test_codes_of_a_cold_start_without_the_mean_spectrum():
    """Codes follow what changes: another loudness, or another filter of the recording, gives the same codes."""
    sizes = {"encoder_width": 32, "encoder_depth": 1, "encoder_heads": 2, "decoder_width": 32, "decoder_depth": 1}
    sizes |= {"decoder_heads": 2, "tokenizer_depth": 1, "codebook_dim": 16, "codebook_size": 8, "num_codebooks": 2}
    fbank = torch.randn(2, 1, 64, 128, generator=torch.Generator().manual_seed(1))
    spectrum = torch.randn(2, 1, 1, 128, generator=torch.Generator().manual_seed(2))
    codes = {}
    for target_norm, offset in (
        ("none", spectrum),
        ("clip", spectrum),
        ("clip", spectrum[..., :1]),
        ("band", spectrum),
    ):
        torch.manual_seed(0)
        model = Bridle(BridleSettings(**sizes, position_scale=0.0, target_norm=target_norm))
        model.begin_stage(model.settings.schedule().stages[0])
        of_offset = []
        for values in (fbank, fbank + offset):
            model.front_end.values = lambda *_, values=values: (values, None)
            patches = model.patches(torch.zeros(2, 16000))
            if not model.quantizer.initialized:
                model.quantizer.init_codebooks_if_needed(model.latents(patches, False), None)
            of_offset.append(model.codes(patches, from_tokenizer=False))
        codes[target_norm, offset.shape[-1]] = float((of_offset[0] == of_offset[1]).float().mean())
    assert codes["band", 128] > 0.99 and codes["clip", 1] > 0.99  # rounding can move a vector between two codes
    assert codes["none", 128] < 0.9 and codes["clip", 128] < 0.9


def test_only_codes_of_a_cold_start_need_centred_patches():
    """Features, and codes of a tokenizer, do not pay for them; patches without them give no codes in silence."""
    sizes = {"encoder_width": 32, "encoder_depth": 1, "encoder_heads": 2, "decoder_width": 32, "decoder_depth": 1}
    sizes |= {"decoder_heads": 2, "tokenizer_depth": 1, "codebook_dim": 16, "codebook_size": 8, "num_codebooks": 2}
    model = Bridle(BridleSettings(**sizes, target_norm="band"))
    x = source("audio")
    assert model.front_end(x).centred is None and model.patches(x).centred is not None
    with pytest.raises(AssertionError, match="patches of the front end alone"):
        model.latents(model.front_end(x), from_tokenizer=False)
    model.begin_stage(Stage("tokenizer", 1))
    assert model.patches(x).centred is None
