"""Checks of the inputs of exported models."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bridle_fairseq import pretrained
from bridle_fairseq.exported.validate_inputs import clips, images, waveforms
from bridle_fairseq.utils.errors import InputError

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 5, 7), dtype=np.uint8)


def test_accepts_one_image_a_batch_and_a_list_of_any_sizes():
    assert [tuple(image.shape) for image in images(PIXELS)] == [(3, 5, 7)]
    assert [tuple(image.shape) for image in images(torch.zeros(2, 3, 5, 7))] == [(3, 5, 7)] * 2
    found = images([PIXELS, torch.from_numpy(PIXELS[:, :2])])
    assert [tuple(image.shape) for image in found] == [(3, 5, 7), (3, 2, 7)]
    assert all(image.dtype == torch.uint8 for image in found)
    assert images(PIXELS.astype(np.int64))[0].dtype == torch.uint8


def test_read_only_and_flipped_arrays_are_taken_as_they_are():
    fixed = PIXELS.copy()
    fixed.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for given in (fixed, PIXELS[:, ::-1]):
            assert np.array_equal(images([given])[0].numpy(), given)


def test_mixed_dtypes_become_float():
    found = images([PIXELS, PIXELS / 255.0])
    assert {image.dtype for image in found} == {torch.float32}
    torch.testing.assert_close(*found)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ([], "no images"),
        (PIXELS.transpose(1, 2, 0), "image 0 has the shape 5 x 7 x 3; expected 3 x height x width"),
        ([PIXELS, PIXELS[0]], "image 1 has the shape 5 x 7"),
        (np.zeros((3, 0, 5)), "shape 3 x 0 x 5"),
        (PIXELS.astype(np.float32), "image 0 has values of torch.float32 out of range"),
        (np.full((3, 2, 2), 300), "torch.int64 out of range"),
        (np.full((3, 2, 2), np.nan), "out of range"),
        (np.zeros((3, 2, 2), bool), "torch.bool out of range"),
        (["a.png"], "image 0 is of type str; expected an array: pretrained.read_image reads files"),
        ("a.png", "image 0 is of type str; expected an array"),
        ([PIXELS, Path("a.png")], "image 1 is of type PosixPath; expected an array"),
        (Image.new("RGB", (4, 4)), "image 0 is of type Image; expected an array"),
    ],
)
def test_invalid_images_are_reported(given, sentence):
    with pytest.raises(InputError, match=sentence):
        images(given)


def test_accepts_clips_in_the_layout_of_decoders():
    frames = np.random.default_rng(0).integers(0, 256, (4, 5, 7, 3), dtype=np.uint8)
    found = clips([frames, torch.from_numpy(frames[:2, :3])])
    assert [tuple(clip.shape) for clip in found] == [(3, 4, 5, 7), (3, 2, 3, 7)]
    assert np.array_equal(found[0].numpy(), frames.transpose(3, 0, 1, 2)) and found[0].dtype == torch.uint8
    assert [tuple(clip.shape) for clip in clips(frames)] == [(3, 4, 5, 7)]
    assert len(clips(np.stack([frames, frames]))) == 2
    torch.testing.assert_close(clips([frames, frames / 255.0])[0], clips(frames / 255.0)[0])


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ([], "no clips"),
        (np.zeros((3, 4, 5, 7), np.uint8), "clip 0 has the shape 3 x 4 x 5 x 7; expected frames x height x width x 3"),
        ([PIXELS], "clip 0 has the shape 3 x 5 x 7"),
        (np.full((4, 5, 7, 3), 2.0), "clip 0 has values of torch.float64 out of range"),
    ],
)
def test_invalid_clips_are_reported(given, sentence):
    with pytest.raises(InputError, match=sentence):
        clips(given)


def test_batches_of_waveforms_hold_at_least_a_frame():
    """A stereo file, as soundfile reads it, is no batch of clips of two samples."""
    stereo = 0.1 * np.random.default_rng(0).standard_normal((16000, 2))
    for array in (stereo, torch.from_numpy(stereo)):
        with pytest.raises(InputError, match=r"16000 x 2, .* x.mean\(1\) for mono, or x.T for a clip of each"):
            waveforms(array, 16000, None, 16000)
        assert [len(clip) for clip in waveforms(array.T, 16000, None, 16000)] == [16000, 16000]
        assert [len(clip) for clip in waveforms(array.mean(1), 16000, None, 16000)] == [16000]
    assert [len(clip) for clip in waveforms(np.zeros((2, 400)), 16000, None, 16000)] == [400, 400]
    assert [len(clip) for clip in waveforms(np.zeros((3, 2)), 16000, [2, 1, 2], 16000)] == [2, 1, 2]
    assert [len(clip) for clip in waveforms([np.zeros(2), np.zeros(3)], 16000, None, 16000)] == [2, 3]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([torch.zeros(2, 3, 400), 16000], "2 axes of torch.float32; expected one axis"),
        ([torch.zeros(400, dtype=torch.int16), 16000], "torch.int16; expected one axis of floats, mono: see"),
        ([[np.zeros((16000, 2))], 16000], "mono: samples.mean(1)"),
        ([torch.zeros(400), "16000"], "sample_rate is '16000'"),
        (
            [torch.zeros(16000, 2), 16000],
            "shape is 16000 x 2, clips of less than a frame of 400 samples",
        ),
        ([np.zeros((3, 399)), 16000], "pass x.mean(1) for mono, or x.T for a clip of each"),
        ([torch.zeros(2, 199), 8000], "less than a frame of 200 samples"),
        ([torch.full((400,), torch.nan), 16000], "waveform 0: sample 0 is nan"),
        ([[], 16000], "no waveforms"),
        ([torch.zeros(0), 16000], "no samples"),
        ([torch.zeros(1, 400), 0], "sample_rate is 0"),
        ([torch.zeros(1, 400), 16000, [401]], "lengths[0] is 401; expected 1 to its 400 samples"),
        ([torch.zeros(2, 400), 16000, [400]], "1 lengths of 2 waveforms"),
        ([torch.zeros(400), 16000, None, 3], "layer is 3; expected 1 to 2"),
        ([torch.zeros(400), 16000, None, None, "max"], "pooling is 'max'"),
        ([torch.zeros(400), 16000, None, 1, "class_token"], "expected layer None"),
    ],
)
def test_wrong_inputs_are_reported(exported, arguments, sentence) -> None:
    with pytest.raises(InputError) as error:
        pretrained.load(exported / "encoder").embed(*arguments)
    assert sentence in str(error.value)
