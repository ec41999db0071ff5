"""Exported models, for use in any program: needs torch, numpy and safetensors, and nothing of fairseq.

A folder that ``bridle export`` wrote holds weights and settings, and no code: loading it runs none.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bridle_fairseq.data.collate import pad_items
from bridle_fairseq.data.manifests.transcripts import Vocabulary
from bridle_fairseq.export.core import EncoderCore
from bridle_fairseq.export.format import read_config, read_module
from bridle_fairseq.export.validate_inputs import Inputs, Lengths, clips, images, waveforms
from bridle_fairseq.nn.bridle import Bridle
from bridle_fairseq.nn.classifier import POOLINGS, Classifier, pool_patches
from bridle_fairseq.nn.ctc import Emissions, Transcriber, greedy
from bridle_fairseq.nn.encoder import EncoderOutput
from bridle_fairseq.utils.errors import InputError

WITH_ENCODER = ("encoder", "classifier", "transcriber")  # parts that have one


class Features(NamedTuple):
    """Features of the patches of a batch."""

    x: Tensor  # B x N x D, the grid's first axis slowest
    class_token: Tensor | None  # B x D; None below the last layer
    padding_mask: Tensor | None  # B x N, or None where nothing is padding
    grid: tuple[int, ...]  # (T, F); of images rows and columns, of video T before them


class Codes(NamedTuple):
    """Codes of the patches of a batch."""

    codes: Tensor  # B x N x K long, the grid's first axis slowest
    padding_mask: Tensor | None  # B x N, or None where nothing is padding
    grid: tuple[int, ...]  # (T, F); of images rows and columns, of video T before them


def load(folder: str | os.PathLike[str], device: str | torch.device = "cpu") -> Pretrained:
    """An exported model, in float32.

    Raises:
        InputError: a missing or damaged file, or an export of another version.
    """
    folder = Path(folder)
    config = read_config(folder)
    return Pretrained(config, read_module(folder, config).to(device).eval().requires_grad_(False))


class Pretrained:
    """An exported model.

    Waveforms are mono, in [-1, 1], at any rate (``sample_rate``): a tensor or array of S samples or B x S (with
    ``lengths``, in samples, where clips end before S), or a list of clips of any lengths. Images are RGB, whole numbers
    from 0 to 255 or floating-point ones from 0 to 1: 3 x height x width, B x 3 x height x width, or a list of images of
    any sizes; :func:`read_image` reads files so. Clips of video are the same with
    ``num_frames`` frames, each height x width x 3: :func:`read_clip`. Results are on the model's device.

    Attributes:
        config: what ``config.json`` says.
        parts: some of encoder, tokenizer, classifier, transcriber.
        classes: names of a classifier's classes; empty for the others.
        symbols: of a transcriber, the first of which is the blank of CTC; empty for the others.
        sample_rate: of a model for sound, in Hz.
        image_size: height and width of the images or frames of its validation (0: they were as they are); None for
            sound.
        valid_crop: share of their shorter side that was shown there.
        num_frames, frame_stride: frames of a clip, and which of a file's those are: every ``frame_stride``-th; None
            without video.
        core: input and padding mask to features; what a user assigns here, such as ``torch.compile(model.core)``, is
            used by :meth:`embed`. None without an encoder.
    """

    def __init__(self, config: Mapping[str, Any], module: Bridle | Classifier | Transcriber) -> None:
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
        """Where the model is."""
        return next(self.module.parameters()).device

    @torch.no_grad()
    def features(
        self,
        inputs: Inputs,
        sample_rate: int | None = None,
        lengths: Lengths = None,
        layer: int | None = None,
    ) -> Features:
        """Features of all patches.

        Args:
            inputs: waveforms, images or clips, see the class.
            sample_rate: of waveforms, in Hz.
            lengths: B, samples of each waveform.
            layer: None for the normalised last layer, else the output of block 1 .. encoder_depth.

        Raises:
            InputError: inputs that cannot be used, no such layer, or an export without an encoder.
        """
        self._need(*WITH_ENCODER)
        source, mask = self._batch(inputs, sample_rate, lengths)
        if layer is None:
            x, class_token, padding = self.core(source, mask)
            return Features(x, class_token, padding, self._grid(source))
        depth = self.settings.encoder_depth
        if not 1 <= layer <= depth:
            raise InputError(f"layer is {layer}; expected 1 to {depth}, or None for the normalised last one")
        patches = self.module.front_end(source, mask)
        out = self.module.encoder(patches.x, patches.grid, patches.padding_mask, with_layers=True)
        return Features(out.layers[layer - 1], None, patches.padding_mask, patches.grid)

    @torch.no_grad()
    def embed(
        self,
        inputs: Inputs,
        sample_rate: int | None = None,
        lengths: Lengths = None,
        layer: int | None = None,
        pooling: str = "mean",
    ) -> Tensor:
        """One vector of each clip, float32: B x D, or B x (F * D) with ``pooling="frequency"``.

        Args:
            inputs, sample_rate, lengths, layer: as in :meth:`features`.
            pooling: ``mean`` of all patches, ``frequency`` (mean over time, frequency rows kept apart) or
                ``class_token``.
        """
        if pooling not in POOLINGS:
            raise InputError(f"pooling is {pooling!r}; expected one of {', '.join(POOLINGS)}")
        if pooling == "class_token" and layer is not None:
            raise InputError(f"pooling is 'class_token' with layer {layer}; expected layer None, the last one")
        found = self.features(inputs, sample_rate, lengths, layer)
        token = found.x.new_zeros(0) if found.class_token is None else found.class_token
        return pool_patches(EncoderOutput(found.x, token, []), found.grid, found.padding_mask, pooling)

    @torch.no_grad()
    def codes(self, inputs: Inputs, sample_rate: int | None = None, lengths: Lengths = None) -> Codes:
        """Codes of all patches.

        Args:
            inputs, sample_rate, lengths: as in :meth:`features`.

        Raises:
            InputError: inputs that cannot be used, or an export without a tokenizer.
        """
        self._need("tokenizer")
        codes, padding, grid = self.module.tokenize(*self._batch(inputs, sample_rate, lengths))  # type: ignore[union-attr,operator]
        return Codes(codes, padding, grid)

    @torch.no_grad()
    def logits(self, inputs: Inputs, sample_rate: int | None = None, lengths: Lengths = None) -> Tensor:
        """Logits of a classifier's classes, B x classes; arguments and errors as in :meth:`features`."""
        self._need("classifier")
        return self.module(*self._batch(inputs, sample_rate, lengths))

    def classify(
        self,
        inputs: Inputs,
        sample_rate: int | None = None,
        lengths: Lengths = None,
        top: int = 5,
    ) -> list[list[tuple[str, float]]]:
        """The likeliest classes of each clip and their probabilities, the likeliest first.

        Probabilities of a clip's classes sum to 1, unless the model was trained for any number of classes a clip.
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
        """Logits of a transcriber's symbols in every frame (``module.frame_ms``), B x frames x symbols, and the frames
        of each clip; arguments and errors as in :meth:`features`.
        """
        self._need("transcriber")
        return self.module(*self._batch(inputs, sample_rate, lengths))

    def transcribe(self, inputs: Inputs, sample_rate: int | None = None, lengths: Lengths = None) -> list[str]:
        """What is said in each clip by the likeliest path of symbols; arguments and errors as in :meth:`features`.

        A clip is heard whole: cut what is much longer than the clips of the training.
        """
        found = greedy(self.emissions(inputs, sample_rate, lengths))
        vocabulary = Vocabulary(self.symbols, self.config["labels"])
        return [vocabulary.text(symbols) for symbols in found]

    def program(self) -> torch.export.ExportedProgram:
        """The encoder of sound as a graph of torch.export, for any number of clips of any length.

        It takes ``waveform`` (B x S float32 at the model's rate) and ``padding_mask`` (B x S bool, True after the end
        of a shorter clip), and gives features (B x N x D), class tokens (B x D) and the patches that are padding
        (B x N), all on the model's device. Save it with ``torch.export.save``.

        Raises:
            InputError: an export without an encoder, or of another modality.
        """
        from bridle_fairseq.export.onnx import export_graph

        self._need(*WITH_ENCODER)
        if self.settings.modality != "audio":
            raise InputError(f"a graph of a model of modality {self.settings.modality}; expected one of sound")
        return export_graph(EncoderCore(self.module.front_end, self.module.encoder).eval())  # type: ignore[arg-type]

    # -- input -------------------------------------------------------------------------------------------------------

    def _need(self, *parts: str) -> None:
        if not set(parts) & set(self.parts):
            raise InputError(f"this export holds {' and '.join(self.parts)}; expected one with {' or '.join(parts)}")

    def _grid(self, source: Tensor) -> tuple[int, ...]:
        return self.module.front_end.grid(source.shape[1 if source.dim() == 2 else 2 :])

    def _batch(self, inputs: Inputs, sample_rate: int | None, lengths: Lengths) -> tuple[Tensor, Tensor | None]:
        """Inputs as the model takes them, on its device, and their padding mask."""
        if self.settings.modality == "audio":
            items = waveforms(inputs, sample_rate, lengths, self.sample_rate)
        elif sample_rate is not None or lengths is not None:
            raise InputError("sample_rate or lengths with pixels; expected neither: they are for sound")
        else:
            items = images(inputs) if self.settings.modality == "image" else clips(inputs)
        source, mask = pad_items(items)
        return source.to(self.device), None if mask is None else mask.to(self.device)


def read_image(path: str, size: int = 0, middle: float = 1.0) -> np.ndarray:
    """Read an image as validation shows it: see :func:`read_image` (needs Pillow)."""
    from bridle_fairseq.data.image import decode

    return decode.read_image(path, size, middle)


def read_clip(
    path: str, num_frames: int = 16, frame_stride: int = 4, image_size: int = 0, middle: float = 1.0
) -> np.ndarray:
    """Read the middle clip of a video: see :func:`bridle_fairseq.data.video.dataset.read_clip` (needs PyAV)."""
    from bridle_fairseq.data.video import dataset

    return dataset.read_clip(path, num_frames, frame_stride, image_size, middle)
