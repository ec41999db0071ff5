"""Pictures of items: sound with time from left to right and low frequencies at the bottom, images unchanged."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from bridle_fairseq.nn.frontend import front_end_of
from bridle_fairseq.nn.settings import BridleSettings
from bridle_fairseq.report.pictures import draw, in_picture_layout


def model_of(**settings):
    settings = BridleSettings(**settings)
    front_end = front_end_of(settings)
    return SimpleNamespace(
        settings=settings, front_end=front_end, parameters=lambda: iter([torch.nn.Parameter(torch.zeros(1))])
    )


def test_sound_is_as_wide_as_its_maps_with_low_frequencies_at_the_bottom():
    waveform = 0.5 * torch.sin(torch.arange(6000) * 0.05)  # 127 Hz
    codes = np.arange(3 * 8 * 2).reshape(3, 8, 2)
    clip = draw(model_of(), "a.wav", "hum", waveform, codes)
    assert clip.picture.shape == (128, 48, 3) and clip.codes.shape == (8, 3, 2)
    assert np.array_equal(clip.codes[-1], codes[:, 0]) and np.array_equal(clip.codes[0], codes[:, 7])
    brightness = clip.picture.astype(int).sum((1, 2))
    assert brightness[-16:].mean() > brightness[:16].mean()
    assert (clip.kind, clip.style, clip.ticks[-1]) == ("log-mel", "sound", "0.48 s") and "audio/wav" in clip.player


@pytest.mark.parametrize("whole", [True, False])
def test_image_is_unchanged_and_filled_up_to_its_maps(whole):
    pixels = torch.randint(0, 256, (3, 14, 24), dtype=torch.uint8)
    codes = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    source = pixels if whole else pixels.float() / 255
    clip = draw(model_of(modality="image", patch_size=[8, 8]), "a.png", "", source, codes)
    assert clip.picture.shape == (16, 24, 3) and np.array_equal(clip.codes, codes)
    assert np.array_equal(clip.picture[:14], pixels.permute(1, 2, 0).numpy()) and (clip.picture[14:] == 255).all()
    assert (clip.style, clip.ticks, clip.player) == ("image", (), "")
    assert np.array_equal(in_picture_layout(codes, "image"), codes) and Image.fromarray(clip.picture).size == (24, 16)


def test_video_is_a_strip_of_the_first_frames_of_its_tubelets():
    pixels = torch.randint(0, 256, (3, 5, 14, 20), dtype=torch.uint8)
    codes = np.arange(3 * 2 * 3 * 4).reshape(3, 2, 3, 4)
    clip = draw(model_of(modality="video", patch_size=[2, 8, 8], decoder_window=[]), "a.mp4", "", pixels, codes)
    assert clip.picture.shape == (16, 3 * 24, 3) and clip.codes.shape == (2, 3 * 3, 4)
    for step in range(3):
        part = clip.picture[:, 24 * step : 24 * step + 24]
        assert np.array_equal(part[:14, :20], pixels[:, 2 * step].permute(1, 2, 0).numpy())
        assert (part[14:] == 255).all() and (part[:, 20:] == 255).all()
        assert np.array_equal(clip.codes[:, 3 * step : 3 * step + 3], codes[step])
    assert (clip.kind, clip.style) == ("frames", "video")
