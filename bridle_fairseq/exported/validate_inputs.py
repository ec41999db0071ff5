"""Check the inputs of exported models, and convert them to tensors on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bridle_fairseq.data.audio.resample import resample, resampled_length
from bridle_fairseq.data.audio.samples import unusable_sample
from bridle_fairseq.nn.fbank import FRAME_LENGTH_MS
from bridle_fairseq.nn.frontend import unit_range
from bridle_fairseq.utils.errors import InputError

Inputs = Tensor | np.ndarray | Sequence[Tensor] | Sequence[np.ndarray]
Lengths = Sequence[int] | Tensor | None
READERS = {"image": "pretrained.read_image", "clip": "pretrained.read_clip", "waveform": "soundfile.read"}


def waveforms(inputs: Inputs, sample_rate: int | None, lengths: Lengths, model_rate: int) -> list[Tensor]:
    """Waveforms as clips at the model's rate, S float32 each.

    Args:
        inputs: S, B x S (S at least a frame, or with lengths), or a list of clips.
        sample_rate: sample rate of the inputs, in Hz.
        lengths: B, samples of each clip; None: all.
        model_rate: rate of the model, in Hz.

    Raises:
        InputError: samples that are not mono or not floating-point, no rate, lengths that do not fit, or an array of
            clips below a frame without ``lengths``: it is rather samples x channels.
    """
    if sample_rate is None or isinstance(sample_rate, str) or sample_rate < 1:
        raise InputError(f"sample_rate is {sample_rate!r}; expected the waveforms' samples a second")
    if lengths is None:  # else they say which axis is which
        _check_layout(getattr(inputs, "shape", ()), sample_rate)
    return [_resampled(clip, sample_rate, model_rate) for clip in _clips(inputs, lengths)]


def _check_layout(sizes: Sequence[int], sample_rate: int) -> None:
    """Check that an array is clips x samples, and not samples x channels as soundfile reads a file."""
    frame = int(sample_rate * FRAME_LENGTH_MS / 1000)
    if len(sizes) == 2 and 0 < sizes[1] < frame:
        raise InputError(
            f"the array's shape is {sizes[0]} x {sizes[1]}, clips of less than a frame of {frame} samples; expected "
            "clips x samples: if it is samples x channels, pass x.mean(1) for mono, or x.T for a clip of each channel; "
            "pass clips that are so short as a list"
        )


def images(inputs: Inputs) -> list[Tensor]:
    """Images, 3 x height x width each: uint8, or float32 from 0 to 1 if one of them is floating-point.

    Args:
        inputs: 3 x height x width, B x 3 x height x width, or a list of images of any sizes.

    Raises:
        InputError: no image, another shape, or values out of range.
    """
    return _pixels(inputs, "image", "3 x height x width", 0)


def clips(inputs: Inputs) -> list[Tensor]:
    """Video clips, 3 x frames x height x width each, with the dtypes of :func:`images`.

    Args:
        inputs: frames x height x width x 3, as decoders return them, B of these, or a list of clips of any sizes.

    Raises:
        InputError: no clip, another shape, or values out of range.
    """
    return [clip.permute(3, 0, 1, 2) for clip in _pixels(inputs, "clip", "frames x height x width x 3", 3)]


def _pixels(inputs: Inputs, what: str, shape: str, channel_axis: int) -> list[Tensor]:
    """Items of this shape, with red, green and blue along the channel axis."""
    axes = shape.count(" x ") + 1
    items = _tensors(inputs, what, axes)
    for number, item in enumerate(items):
        if item.dim() != axes or item.shape[channel_axis] != 3 or not item.numel():
            sizes = " x ".join(map(str, item.shape)) or "a single number"
            raise InputError(f"{what} {number} has the shape {sizes}; expected {shape}, red, green, blue")
        highest = 1 if item.is_floating_point() else 255
        if item.dtype == torch.bool or not bool(((item >= 0) & (item <= highest)).all()):
            expected = "whole numbers from 0 to 255 or floating-point ones from 0 to 1"
            raise InputError(f"{what} {number} has values of {item.dtype} out of range; expected {expected}")
    if any(item.is_floating_point() for item in items):
        return [unit_range(item) for item in items]
    return [item.to(torch.uint8) for item in items]


def _tensors(inputs: Any, what: str, axes: int) -> list[Tensor]:
    """The items as tensors, at least one; an array of ``axes`` axes is one item."""
    single = getattr(inputs, "ndim", 0) == axes or isinstance(inputs, str) or not hasattr(inputs, "__iter__")
    items = [
        _tensor(row, f"{what} {number}", READERS[what]) for number, row in enumerate([inputs] if single else inputs)
    ]
    if not items:
        raise InputError(f"no {what}s; expected at least one")
    return items


def _tensor(row: Any, what: str, reader: str) -> Tensor:
    if isinstance(row, np.ndarray) and (not row.flags.writeable or min(row.strides, default=0) < 0):
        row = row.copy()  # torch warns of the first and refuses the second
    try:
        return torch.as_tensor(row).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"{what} is of type {type(row).__name__}; expected an array: {reader} reads files") from None


def _resampled(clip: Tensor, sample_rate: int, model_rate: int) -> Tensor:
    if sample_rate == model_rate:
        return clip
    length = resampled_length(len(clip), sample_rate, model_rate)
    samples = resample(clip.numpy(), sample_rate, model_rate)[:length]
    return torch.from_numpy(np.pad(samples, (0, length - len(samples))))


def _clips(inputs: Inputs, lengths: Lengths) -> list[Tensor]:
    """Clips without padding, S float32 each."""
    clips = _tensors(inputs, "waveform", 1)
    if lengths is not None:
        sizes = [int(length) for length in lengths]
        if len(sizes) != len(clips):
            raise InputError(f"{len(sizes)} lengths of {len(clips)} waveforms; expected one for each")
        for number, (clip, size) in enumerate(zip(clips, sizes, strict=True)):
            if not 1 <= size <= len(clip):
                raise InputError(f"lengths[{number}] is {size}; expected 1 to its {len(clip)} samples")
        clips = [clip[:size] for clip, size in zip(clips, sizes, strict=True)]
    for number, clip in enumerate(clips):
        if clip.dim() != 1 or not clip.is_floating_point():
            shape = f"{clip.dim()} axes of {clip.dtype}"
            expected = "expected one axis of floats, mono"
            remedy = "samples.mean(1)" if clip.dim() > 1 else "see soundfile.read"
            raise InputError(f"waveform {number} has {shape}; {expected}: {remedy}")
        if not len(clip):
            raise InputError(f"waveform {number} has no samples; expected at least one")
        unusable = unusable_sample(clip.float().numpy())
        if unusable:
            raise InputError(f"waveform {number}: {unusable}")
    return [clip.float() for clip in clips]
