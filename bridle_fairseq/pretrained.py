"""Load and use exported models in any program. Needs torch, numpy and safetensors, but not fairseq.

A folder that ``bridle export`` wrote holds weights and settings, but no code. Loading it executes none.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bridle_fairseq.data.collate import pad_items
from bridle_fairseq.data.manifests.transcripts import Vocabulary
from bridle_fairseq.exported.format import (
    WITH_ENCODER,
    ExportedBridle,
    ExportedModule,
    check_parts,
    read_config,
    read_module,
)
from bridle_fairseq.exported.graph import EncoderCore, export_graph
from bridle_fairseq.exported.results import Codes, Features
from bridle_fairseq.exported.source import find_export
from bridle_fairseq.exported.validate_inputs import Inputs, Lengths, clips, images, waveforms
from bridle_fairseq.nn.ctc import Emissions, greedy
from bridle_fairseq.nn.encoder import EncoderOutput
from bridle_fairseq.nn.pooling import pool_patches, pooled_width
from bridle_fairseq.utils.errors import DecodeError, InputError
from bridle_fairseq.utils.optional import optional_import


def load(folder: str | os.PathLike[str], device: str | torch.device = "cpu", revision: str | None = None) -> Pretrained:
    """Load an exported model in float32.

    Args:
        folder: folder of the export; or the name of weights that come with the package, such as
            ``bridle-small-audio``; or a name on the Hugging Face Hub, ``owner/name`` or ``owner/name@revision`` (needs
            huggingface_hub).
        device: of the model.
        revision: branch, tag or commit of a name on the Hub; None: that of the name, else ``main``.

    Raises:
        InputError: a file is missing or damaged, the export is of another version, or no such name is on the Hub.
    """
    local = revision is None and os.path.isdir(folder)
    folder = Path(folder) if local else find_export(folder, revision) or Path(folder)
    config = read_config(folder)
    return Pretrained(config, read_module(folder, config).to(device).eval().requires_grad_(False))


class Pretrained:
    """An exported model.

    Inputs are tensors or NumPy arrays, and results are on the model's device:

    * Waveforms are mono, in [-1, 1], at any ``sample_rate``: S samples, B x S (with ``lengths`` in samples if clips end
      before S, or if S is below a frame of 25 ms), or a list of clips of any lengths.
    * Images are RGB, integers from 0 to 255 or floats from 0 to 1: 3 x height x width, B x 3 x height x width, or a
      list of images of any sizes. :func:`read_image` reads them from files.
    * Video clips are RGB with the same values: ``num_frames`` x height x width x 3, B of these, or a list of clips of
      any sizes. :func:`read_clip` reads them from files.

    Attributes:
        config: contents of ``config.json``.
        parts: some of encoder, tokenizer, classifier, transcriber.
        classes: class names of a classifier; else empty.
        symbols: symbols of a transcriber, the blank of CTC first; else empty.
        sample_rate: sample rate of a model for sound, in Hz.
        image_size: height and width of images or frames in validation (0: original size); None for sound.
        valid_crop: fraction of their shorter side that validation shows.
        num_frames: frames of a clip; only for video.
        frame_stride: distance between two of them in the file; only for video.
        core: input and padding mask -> features. :meth:`embed` uses what you assign here, such as
            ``torch.compile(model.core)``. None without an encoder.
    """

    def __init__(self, config: Mapping[str, Any], module: ExportedModule) -> None:
        self.config, self.module, self.settings = config, module, module.settings
        self.parts: list[str] = list(config["parts"])
        self.classes: list[str] = list(config.get("classes", {}).get("names", []))
        self.symbols: list[str] = list(config.get("symbols", []))
        self.sample_rate = self.settings.sample_rate
        self.image_size, self.valid_crop = config.get("image_size"), config.get("valid_crop")
        self.num_frames, self.frame_stride = config.get("num_frames"), config.get("frame_stride")
        self.core: Any = None if module.encoder is None else EncoderCore(module.front_end, module.encoder).eval()

    @property
    def device(self) -> torch.device:
        """The model's device."""
        return next(self.module.parameters()).device

    @torch.no_grad()
    def features(
        self,
        inputs: Inputs,
        sample_rate: int | None = None,
        lengths: Lengths = None,
        layer: int | None = None,
        layers: str | Sequence[int] | None = None,
        frame_rate: float | None = None,
    ) -> Features:
        """Features of all patches.

        Args:
            inputs: waveforms, images or clips, see the class.
            sample_rate: sample rate of waveforms, in Hz.
            lengths: B, samples of each waveform.
            layer: None for the normalized last layer, else the output of block 1 .. encoder_depth.
            layers: blocks whose outputs are returned as well, in ``Features.layers``: numbers from 1, or "all".
            frame_rate: frames of a video clip per second, for ``Features.times``: the rate of the file divided by the
                distance between frames.

        Raises:
            InputError: unusable inputs, no such layer, or an export without an encoder.
        """
        self._need(*WITH_ENCODER)
        wanted = self._wanted(layer, layers)
        if frame_rate is not None and (self.settings.modality != "video" or not frame_rate > 0):
            raise InputError(
                f"frame_rate is {frame_rate} with {self.settings.modality}; expected more than 0, of video"
            )
        source, mask = self._batch(inputs, sample_rate, lengths)
        front_end, sizes = self.module.front_end, source.shape[1 if source.dim() == 2 else 2 :]
        places = front_end.times(sizes, frame_rate), front_end.bands(sizes)
        times, bands = (None if place is None else place.to(self.device) for place in places)
        if not wanted:
            x, class_token, padding = self.core(source, mask)
            return Features(x, class_token, padding, front_end.grid(sizes), (), times, bands)
        patches = front_end(source, mask)
        assert self.module.encoder is not None
        out = self.module.encoder(patches.x, patches.grid, patches.padding_mask, with_layers=True)
        blocks = tuple(out.layers[number - 1] for number in wanted)
        if layer is not None:
            return Features(blocks[0], None, patches.padding_mask, patches.grid, (), times, bands)
        return Features(out.x, out.class_token, patches.padding_mask, patches.grid, blocks, times, bands)

    @torch.no_grad()
    def embed(
        self,
        inputs: Inputs,
        sample_rate: int | None = None,
        lengths: Lengths = None,
        layer: int | None = None,
        pooling: str = "mean",
    ) -> Tensor:
        """One vector for each clip, float32: B x D with ``pooling="mean"``, else see :func:`.pooling.pool_patches`.

        Args:
            inputs, sample_rate, lengths, layer: as in :meth:`features`.
            pooling: ``mean`` of all patches, ``statistics`` (their mean and standard deviation), ``frequency`` (mean
                over time of each frequency row), ``frequency_statistics``, ``segments`` (four in time, of each row),
                ``regions`` (of images and video) or ``class_token``.

        Raises:
            InputError: as :meth:`features`, or no such pooling of this modality.
        """
        pooled_width(self.module.front_end, self.settings.encoder_width, pooling)  # checks the name
        if pooling == "class_token" and layer is not None:
            raise InputError(f"pooling is 'class_token' with layer {layer}; expected layer None, the last one")
        features = self.features(inputs, sample_rate, lengths, layer)
        token = features.x.new_zeros(0) if features.class_token is None else features.class_token
        return pool_patches(EncoderOutput(features.x, token, []), features.grid, features.padding_mask, pooling)

    @torch.no_grad()
    def codes(self, inputs: Inputs, sample_rate: int | None = None, lengths: Lengths = None) -> Codes:
        """Codes of all patches.

        Args:
            inputs, sample_rate, lengths: as in :meth:`features`.

        Raises:
            InputError: unusable inputs, or an export without a tokenizer.
        """
        self._need("tokenizer")
        assert isinstance(self.module, ExportedBridle)
        return Codes(*self.module.tokenize(*self._batch(inputs, sample_rate, lengths)))

    @torch.no_grad()
    def logits(self, inputs: Inputs, sample_rate: int | None = None, lengths: Lengths = None) -> Tensor:
        """Logits of a classifier, B x classes; arguments and errors as in :meth:`features`."""
        self._need("classifier")
        return self.module(*self._batch(inputs, sample_rate, lengths))

    def classify(
        self,
        inputs: Inputs,
        sample_rate: int | None = None,
        lengths: Lengths = None,
        top: int = 5,
    ) -> list[list[tuple[str, float]]]:
        """The most likely classes of each clip with their probabilities, in descending order.

        The probabilities of all classes sum to 1, except for multi-label models.
        """
        logits = self.logits(inputs, sample_rate, lengths)
        probabilities = logits.sigmoid() if self.config["multi_label"] else logits.softmax(1)
        best = probabilities.topk(min(max(1, top), len(self.classes)), dim=1)
        return [
            [(self.classes[number], value) for number, value in zip(*pair, strict=True)]
            for pair in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]

    @torch.no_grad()
    def emissions(self, inputs: Inputs, sample_rate: int | None = None, lengths: Lengths = None) -> Emissions:
        """Logits of a transcriber, B x frames x symbols, with the number of frames of each clip.

        A frame is ``module.frame_ms`` long. Arguments and errors are as in :meth:`features`.
        """
        self._need("transcriber")
        return self.module(*self._batch(inputs, sample_rate, lengths))

    def transcribe(self, inputs: Inputs, sample_rate: int | None = None, lengths: Lengths = None) -> list[str]:
        """Greedy transcript of each clip; arguments and errors as in :meth:`features`.

        Clips are encoded as a whole, so divide those that are much longer than the clips of training.
        """
        vocabulary = Vocabulary(self.symbols, self.config["labels"])
        return [vocabulary.text(symbols) for symbols in greedy(self.emissions(inputs, sample_rate, lengths))]

    def program(self) -> torch.export.ExportedProgram:
        """The encoder of a model for sound as a graph of torch.export, for any number of clips of any length.

        Inputs are ``waveform`` (B x S float32 at the model's rate) and ``padding_mask`` (B x S bool, True after the end
        of a shorter clip). Outputs are features (B x N x D), class tokens (B x D) and the padding mask of patches
        (B x N). All are on the model's device. Save it with ``torch.export.save``.

        Raises:
            InputError: an export without an encoder, or of another modality.
        """
        self._need(*WITH_ENCODER)
        if self.settings.modality != "audio":
            raise InputError(f"a graph of a model of modality {self.settings.modality}; expected one of sound")
        assert self.module.encoder is not None
        return export_graph(EncoderCore(self.module.front_end, self.module.encoder).eval())

    # -- input -------------------------------------------------------------------------------------------------------

    def _need(self, *parts: str) -> None:
        check_parts(self.config, parts)

    def _wanted(self, layer: int | None, layers: str | Sequence[int] | None) -> list[int]:
        """Numbers of the blocks whose outputs are asked for."""
        depth = self.settings.encoder_depth
        if layer is not None and layers is not None:
            raise InputError(f"layer is {layer} and layers {layers!r}; expected one of the two")
        if isinstance(layers, str):
            if layers != "all":
                raise InputError(f"layers is {layers!r}; expected 'all', or numbers from 1 to {depth}")
            return list(range(1, depth + 1))
        for number in layers or ():
            if not 1 <= number <= depth:
                raise InputError(f"layers has {number}; expected numbers from 1 to {depth}, or 'all'")
        if layer is not None and not 1 <= layer <= depth:
            raise InputError(f"layer is {layer}; expected 1 to {depth}, or None for the normalized last one")
        return list(layers or ()) if layer is None else [layer]

    def _batch(self, inputs: Inputs, sample_rate: int | None, lengths: Lengths) -> tuple[Tensor, Tensor | None]:
        """The batch and its padding mask as the model takes them, on its device."""
        if self.settings.modality == "audio":
            items = waveforms(inputs, sample_rate, lengths, self.sample_rate)
        elif sample_rate is not None or lengths is not None:
            raise InputError("sample_rate or lengths with pixels; expected neither: they are for sound")
        else:
            items = images(inputs) if self.settings.modality == "image" else clips(inputs)
        source, mask = pad_items(items)
        return source.to(self.device), None if mask is None else mask.to(self.device)


def read_image(path: str, size: int = 0, middle: float = 1.0) -> np.ndarray:
    """Read an image as validation does: see :func:`bridle_fairseq.data.image.decode.read_image` (needs Pillow)."""
    with optional_import("read_image needs Pillow", "'bridle_fairseq[images]'"):
        from bridle_fairseq.data.image import decode

    with _named(path):
        return decode.read_image(path, size, middle)


def read_clip(
    path: str, num_frames: int = 16, frame_stride: int = 4, image_size: int = 0, middle: float = 1.0
) -> np.ndarray:
    """Read the middle clip of a video: see :func:`bridle_fairseq.data.video.dataset.read_clip` (needs PyAV)."""
    with optional_import("read_clip needs Pillow and PyAV", "'bridle_fairseq[video]'"):
        from bridle_fairseq.data.video import dataset

    with _named(path):
        return dataset.read_clip(path, num_frames, frame_stride, image_size, middle)


@contextmanager
def _named(path: str) -> Iterator[None]:
    """A :class:`DecodeError` inside names the file."""
    try:
        yield
    except DecodeError as error:
        raise DecodeError(f"{path}: {error}") from None
