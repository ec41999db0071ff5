"""What prepares inputs in transformers: a feature extractor for waveforms, an image processor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bridle_fairseq.data.collate import pad_items
from bridle_fairseq.exported.validate_inputs import Inputs, waveforms
from bridle_fairseq.exported.validate_inputs import images as checked_images
from bridle_fairseq.nn.frontend import unit_range
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.optional import optional_import

with optional_import("bridle_fairseq.adapters.transformers needs transformers", "'bridle_fairseq[transformers]'"):
    from transformers import BatchFeature, SequenceFeatureExtractor
    from transformers.image_processing_utils import BaseImageProcessor


class BridleFeatureExtractor(SequenceFeatureExtractor):
    """Waveforms of any rate and lengths -> ``input_values``, B x S at the model's rate, and ``attention_mask``.

    Sound of another rate is resampled as in training. The model computes log-mel itself.

    Args:
        sampling_rate: rate of the model, in Hz.
    """

    model_input_names = ["input_values", "attention_mask"]

    def __init__(self, sampling_rate: int = 16000, **others: Any) -> None:
        values = {"feature_size": 1, "padding_value": 0.0, "return_attention_mask": True, **others}
        super().__init__(sampling_rate=sampling_rate, **values)

    def __call__(
        self,
        raw_speech: Inputs,
        sampling_rate: int | None = None,
        padding: bool | str = True,
        max_length: int | None = None,
        truncation: bool = False,
        pad_to_multiple_of: int | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | None = None,
        **others: Any,
    ) -> BatchFeature:
        """A batch of clips.

        Args:
            raw_speech: a waveform, B x S, or a list of waveforms; mono, floats in [-1, 1].
            sampling_rate: of ``raw_speech``, in Hz.
            padding, max_length, truncation, pad_to_multiple_of, return_attention_mask, return_tensors: as in
                transformers; clips are padded to the longest.
            others: of transformers, without effect.

        Raises:
            InputError: unusable samples, or no rate.
        """
        if sampling_rate is None:
            raise InputError(f"no sampling_rate; expected that of the waveforms, such as {self.sampling_rate}")
        first = raw_speech[0] if isinstance(raw_speech, list | tuple) and raw_speech else None
        if isinstance(first, list | float | int):  # lists of numbers
            raw_speech = [np.asarray(x, np.float32) for x in (raw_speech if isinstance(first, list) else [raw_speech])]
        clips = [clip.numpy() for clip in waveforms(raw_speech, sampling_rate, None, self.sampling_rate)]
        return self.pad(
            BatchFeature({"input_values": clips}),
            padding=padding,
            max_length=max_length,
            truncation=truncation,
            pad_to_multiple_of=pad_to_multiple_of,
            return_attention_mask=return_attention_mask,
            return_tensors=return_tensors,
        )


class BridleImageProcessor(BaseImageProcessor):
    """Images -> ``pixel_values``, B x 3 x height x width from 0 to 1, cropped and resized as in validation.

    Args:
        image_size: height and width of the result; 0: those of the image, with a ``pixel_mask`` if sizes differ.
        valid_crop: fraction of the shorter side that is shown.
    """

    model_input_names = ["pixel_values"]

    def __init__(self, image_size: int = 224, valid_crop: float = 0.875, **others: Any) -> None:
        super().__init__(**others)
        self.image_size, self.valid_crop = image_size, valid_crop

    def preprocess(self, images: Any, return_tensors: str | None = None, **others: Any) -> BatchFeature:
        """A batch of images.

        Args:
            images: an image, or a list: of Pillow, or an array height x width x 3 or 3 x height x width, of whole
                numbers from 0 to 255 or floats from 0 to 1.
            return_tensors: as in transformers.
            others: of transformers, without effect.

        Raises:
            InputError: no image, another shape, or values out of range.
        """
        several = isinstance(images, list | tuple) or getattr(images, "ndim", 3) == 4
        batch, mask = pad_items([unit_range(self._shown(image)) for image in (images if several else [images])])
        values = {"pixel_values": batch.numpy()}
        if mask is not None:
            values["pixel_mask"] = (~mask).numpy().astype(np.int64)
        return BatchFeature(values, tensor_type=return_tensors)

    def _shown(self, image: Any) -> Tensor:
        """3 x size x size uint8, what validation shows of an image."""
        with optional_import("images need Pillow", "'bridle_fairseq[images]'"):
            from bridle_fairseq.data.image.decode import as_rgb, crop_and_resize
        if hasattr(image, "getbands"):  # of Pillow
            pixels = torch.from_numpy(as_rgb(image))
        else:
            (pixels,) = _checked([image])
        return crop_and_resize(pixels.numpy()[None], self.image_size, self.valid_crop)[0]


def _checked(arrays: Sequence[Any]) -> list[Tensor]:
    """Arrays as images, height x width x 3 uint8 each."""
    upright = [torch.tensor(x) if isinstance(x, np.ndarray) else torch.as_tensor(x) for x in arrays]
    upright = [x.permute(2, 0, 1) if x.dim() == 3 and x.shape[2] == 3 != x.shape[0] else x for x in upright]
    return [
        (x * 255).round().to(torch.uint8).permute(1, 2, 0) if x.is_floating_point() else x.permute(1, 2, 0)
        for x in checked_images(upright)
    ]
