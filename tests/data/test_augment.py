"""Roll and gain."""

import numpy as np

from bridle_fairseq.data.augment import Augment


def test_roll_turns_the_clip_in_a_circle():
    samples = np.arange(1000, dtype=np.float32)
    shifts = {int(Augment(gain=False)(samples, np.random.default_rng(seed))[0]) for seed in range(50)}
    assert len(shifts) > 40 and max(shifts) > 700 and min(shifts) < 300
    for seed in range(5):
        rolled = Augment(gain=False)(samples, np.random.default_rng(seed))
        assert np.array_equal(np.roll(rolled, int(rolled[0])), samples)


def test_gain_is_beta_10_10_plus_a_half():
    ones = np.ones(4, dtype=np.float32)
    gains = np.array([Augment(roll=False)(ones, np.random.default_rng(seed))[0] for seed in range(2000)])
    assert 0.5 <= gains.min() and gains.max() <= 1.5
    assert abs(gains.mean() - 1) < 0.01 and abs(gains.std() - 0.109) < 0.01  # sqrt(1 / (4 * 21))
    assert Augment(roll=False)(ones, np.random.default_rng(0)).dtype == np.float32


def test_the_same_generator_gives_the_same_clip_and_the_input_stays():
    samples = np.random.default_rng(0).standard_normal(100).astype(np.float32)
    kept = samples.copy()
    first, second = (Augment()(samples, np.random.default_rng(7)) for _ in range(2))
    assert np.array_equal(first, second) and np.array_equal(samples, kept)
    assert np.array_equal(Augment(roll=False, gain=False)(samples, np.random.default_rng(7)), samples)
