"""Exported models, for use in any program: needs torch, numpy and safetensors, and nothing of fairseq.

A folder that ``bridle export`` wrote holds weights and settings, and no code: loading it runs none.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from bridle_fairseq.data.collate import pad_items
from bridle_fairseq.errors import InputError
from bridle_fairseq.inputs import Inputs, Lengths, clips, images, waveforms
from bridle_fairseq.nn.bridle import Bridle
from bridle_fairseq.nn.classifier import POOLINGS, Classifier, pool_patches
from bridle_fairseq.nn.core import EncoderCore
from bridle_fairseq.nn.encoder import EncoderOutput
from bridle_fairseq.nn.settings import BridleSettings, check_settings

FORMAT, FORMAT_VERSION = "bridle_fairseq", 1
WEIGHTS, CONFIG = "model.safetensors", "config.json"
PARTS = {  # of the model `bridle`: the modules that each part needs
    "encoder": ("encoder",),
    "tokenizer": ("tokenizer", "quantizer", "estimator", "projection", "latent_norm"),
}
ALL_MODULES = ("decoder", "teacher_norm", *PARTS["encoder"], *PARTS["tokenizer"])


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
    settings = _settings(folder / CONFIG, config)
    module = _build(folder, config, settings)
    _fill(module, folder / WEIGHTS)
    return Pretrained(config, module.to(device).eval().requires_grad_(False))


class Pretrained:
    """An exported model.

    Waveforms are mono, in [-1, 1], at any rate (``sample_rate``): a tensor or array of S samples or B x S (with
    ``lengths``, in samples, where clips end before S), or a list of clips of any lengths. Images are RGB, whole numbers
    from 0 to 255 or floating-point ones from 0 to 1: 3 x height x width, B x 3 x height x width, or a list of images of
    any sizes; :func:`bridle_fairseq.data.pixels.read_image` reads files so. Clips of video are the same with
    ``num_frames`` frames, each height x width x 3: :func:`bridle_fairseq.data.clips.read_clip`. Results are on the
    model's device.

    Attributes:
        config: what ``config.json`` says.
        parts: some of encoder, tokenizer, classifier.
        classes: names of a classifier's classes; empty for the others.
        sample_rate: of a model for sound, in Hz.
        image_size: height and width of the images or frames of its validation (0: they were as they are); None for
            sound.
        valid_crop: share of their shorter side that was shown there.
        num_frames, frame_stride: frames of a clip, and which of a file's those are: every ``frame_stride``-th; None
            without video.
        core: input and padding mask to features, for torch.compile, torch.export and ONNX; what a user assigns here,
            such as ``torch.compile(model.core)``, is used by :meth:`embed`. None without an encoder.
    """

    def __init__(self, config: Mapping[str, Any], module: Bridle | Classifier) -> None:
        self.config, self.module, self.settings = config, module, module.settings
        self.parts: list[str] = list(config["parts"])
        self.classes: list[str] = list(config.get("classes", {}).get("names", []))
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
        self._need("encoder", "classifier")
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


# -- reading ---------------------------------------------------------------------------------------------------------


def read_config(folder: Path) -> dict[str, Any]:
    """``config.json`` of an export.

    Raises:
        InputError: missing, damaged, or of another version.
    """
    path = folder / CONFIG
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected one that bridle export wrote")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; expected a folder that bridle export wrote") from None
    except ValueError as error:
        raise InputError(f"{path}: damaged, no JSON ({error})") from None
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise InputError(f"{path}: not of this format; expected one that bridle export wrote")
    if config.get("format_version") != FORMAT_VERSION:
        found = config.get("format_version")
        raise InputError(f"{path}: version {found!r}; expected {FORMAT_VERSION}, the one this bridle_fairseq reads")
    return config


def _settings(path: Path, config: Mapping[str, Any]) -> BridleSettings:
    given = config.get("settings")
    known = {field.name for field in fields(BridleSettings)}
    if not isinstance(given, dict) or not set(given) <= known:
        unknown = sorted(set(given) - known) if isinstance(given, dict) else ["none"]
        raise InputError(f"{path}: unknown settings {', '.join(unknown)}; expected those of this bridle_fairseq")
    # what was trained in bfloat16 is exact in float32, and does not depend on the batch there
    settings = replace(BridleSettings(**given), precision="float32")
    try:
        check_settings(settings)
    except (TypeError, InputError) as error:
        raise InputError(f"{path}: settings that cannot work ({error})") from None
    return settings


class _NoRandomNumbers(TorchFunctionMode):
    """Leaves out random starts of weights: on the device "meta" they do nothing, and import half of torch for it."""

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if getattr(func, "__name__", "") in ("uniform_", "normal_", "kaiming_uniform_"):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def _build(folder: Path, config: Mapping[str, Any], settings: BridleSettings) -> Bridle | Classifier:
    """The modules of the parts, without memory for their weights: those will be the file's."""
    parts = config.get("parts")
    if parts == ["classifier"]:
        try:
            names, pooling = config["classes"]["names"], config["pooling"]
            config["multi_label"]
        except (KeyError, TypeError) as error:
            raise InputError(f"{folder / CONFIG}: damaged, no {error} of the classifier") from None
        with torch.device("meta"), _NoRandomNumbers():
            return Classifier(settings, len(names), pooling)
    if not parts or not isinstance(parts, list) or not set(parts) <= set(PARTS):
        raise InputError(f"{folder / CONFIG}: parts are {parts!r}; expected encoder, tokenizer or classifier")
    with torch.device("meta"), _NoRandomNumbers():
        module = Bridle(settings)
    needed = {name for part in parts for name in PARTS[part]}
    for name in ALL_MODULES:
        if name not in needed:
            setattr(module, name, None)
    return module


def _fill(module: nn.Module, path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    for part in module.modules():  # what training collects is in no file, and begins empty
        for name, buffer in part.named_buffers(recurse=False):
            if buffer.is_meta:
                part._buffers[name] = torch.zeros(buffer.shape, dtype=buffer.dtype)
    try:
        module.load_state_dict(load_file(path), assign=True)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}; expected the weights that bridle export wrote") from None
    except SafetensorError as error:
        raise InputError(f"{path}: damaged, no safetensors file ({error})") from None
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"{path}: weights that do not fit {CONFIG} ({reason})") from None
