"""Circular shift and gain of waveforms; random crops of images."""

import numpy as np
import pytest
import torch

from bridle_fairseq.data.audio.augment import AudioAugment
from bridle_fairseq.data.image.augment import ImageAugment
from bridle_fairseq.nn.frontend import AudioFrontEnd
from bridle_fairseq.nn.settings import BridleSettings


def test_roll_shifts_circularly():
    samples = np.arange(1000, dtype=np.float32)
    shifts = {int(AudioAugment(gain=False)(samples, np.random.default_rng(seed))[0]) for seed in range(50)}
    assert len(shifts) > 40 and max(shifts) > 700 and min(shifts) < 300
    for seed in range(5):
        rolled = AudioAugment(gain=False)(samples, np.random.default_rng(seed))
        assert np.array_equal(np.roll(rolled, int(rolled[0])), samples)


def test_gain_distribution():
    ones = np.ones(4, dtype=np.float32)
    gains = np.array([AudioAugment(roll=False)(ones, np.random.default_rng(seed))[0] for seed in range(2000)])
    assert 0.5 <= gains.min() and gains.max() <= 1.5
    assert abs(gains.mean() - 1) < 0.01 and abs(gains.std() - 0.109) < 0.01  # sqrt(1 / (4 * 21))
    assert AudioAugment(roll=False)(ones, np.random.default_rng(0)).dtype == np.float32


def test_reproducible_and_input_unchanged():
    samples = np.random.default_rng(0).standard_normal(100).astype(np.float32)
    kept = samples.copy()
    first, second = (AudioAugment()(samples, np.random.default_rng(7)) for _ in range(2))
    assert np.array_equal(first, second) and np.array_equal(samples, kept)
    assert np.array_equal(AudioAugment(roll=False, gain=False)(samples, np.random.default_rng(7)), samples)


@pytest.mark.parametrize("samples", [16000, 25600, 3000, 400])
@pytest.mark.parametrize("patch_size", [(8, 16), (16, 64), (1, 128)])
def test_codes_move_with_their_patches(samples, patch_size):
    front_end = AudioFrontEnd(BridleSettings(patch_size=list(patch_size)))
    clip = np.random.default_rng(0).standard_normal(samples).astype(np.float32)
    patches = front_end(torch.from_numpy(clip)[None])
    steps, rows = patches.grid
    codes, step_samples = np.arange(steps * rows)[:, None], 160 * patch_size[0]
    shifts = set()
    for seed in range(20):
        random = np.random.default_rng(seed)
        rolled, moved = AudioAugment(gain=False).with_codes(clip, codes, rows, step_samples, random)
        shifts.add(int(moved[0, 0]))
        now = front_end(torch.from_numpy(rolled)[None])
        same = (now.x - patches.x[:, moved[:, 0]]).abs().amax(2).view(steps, rows).amax(1) < 1e-3
        # Frames of 25 ms extend 15 ms into the next patch, so they change at the two seams and at the end.
        assert len(moved) == len(codes) and int((~same).sum()) <= 3 * -(-240 // step_samples) + 3
    whole = min(samples // step_samples, steps)
    assert len(shifts) > min(whole, 20) // 2 and (whole > 1 or shifts == {0})


def test_gain_keeps_codes():
    clip, codes = np.ones(4000, np.float32), np.arange(6)[:, None]
    louder, same = AudioAugment(roll=False).with_codes(clip, codes, 3, 1280, np.random.default_rng(0))
    assert np.array_equal(same, codes) and 0.5 <= louder[0] <= 1.5 and louder[0] != 1 and np.ptp(louder) == 0


def test_image_crop_area_and_aspect_ratio():
    augment, random = ImageAugment(min_area=0.2), np.random.default_rng(0)
    boxes = np.array([augment.box(80, 60, random) for _ in range(2000)])
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2] <= 80).all() and (boxes[:, 3] <= 60).all()
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    area = width * height / 4800
    assert 0.18 < area.min() < 0.23 and area.max() > 0.9 and 0.45 < area.mean() < 0.62
    assert 0.72 < (width / height).min() < 0.8 and 1.26 < (width / height).max() < 1.39
    assert (boxes[:, 0] == 0).mean() < 0.3 and len(np.unique(boxes[:, 0])) > 30


def test_image_crop_of_a_strip_is_centred():
    assert ImageAugment(min_area=0.5).box(1000, 12, np.random.default_rng(0)) == (492, 0, 508, 12)
    assert ImageAugment(min_area=0.5).box(12, 1000, np.random.default_rng(0)) == (0, 492, 12, 508)
