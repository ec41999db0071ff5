"""The files of an export: ``config.json`` and ``model.safetensors``. Reading them executes no code."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from bridle_fairseq.data.manifests.transcripts import WORD_MARKS
from bridle_fairseq.nn.classifier import Classifier
from bridle_fairseq.nn.code_tokenizer import CodeTokenizer
from bridle_fairseq.nn.ctc import Transcriber
from bridle_fairseq.nn.encoder import Encoder
from bridle_fairseq.nn.settings import BridleSettings, checked_settings
from bridle_fairseq.utils.errors import InputError

FORMAT, FORMAT_VERSION = "bridle_fairseq", 1
WEIGHTS, CONFIG = "model.safetensors", "config.json"
PARTS = {  # of the model `bridle`: modules of each part
    "encoder": ("encoder",),
    "tokenizer": ("tokenizer", "quantizer", "estimator", "projection", "latent_norm"),
}
ALL_MODULES = ("decoder", "teacher_norm", *PARTS["encoder"], *PARTS["tokenizer"])


class ExportedBridle(CodeTokenizer):
    """Encoder and code tokenizer of an exported model ``bridle``, or one of the two.

    Args:
        settings: of the model.
        parts: keys of :data:`PARTS`.
    """

    encoder: Encoder | None

    def __init__(self, settings: BridleSettings, parts: Collection[str]) -> None:
        self._parts = frozenset(parts)
        super().__init__(settings)

    def _build(self, with_estimator: bool) -> None:
        s = self.settings
        self.encoder = None
        if "encoder" in self._parts:
            self.encoder = Encoder(self.front_end.patch_dim, s.encoder_width, s.encoder_depth, s.encoder_heads)
        if "tokenizer" in self._parts:
            super()._build(with_estimator)
            del self.teacher_norm  # only training needs it


ExportedModule = ExportedBridle | Classifier | Transcriber


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
        version = config.get("format_version")
        raise InputError(f"{path}: version {version!r}; expected {FORMAT_VERSION}, the one this bridle_fairseq reads")
    return config


def read_module(folder: Path, config: Mapping[str, Any]) -> ExportedModule:
    """The modules of an export's parts with their weights, on the CPU.

    Args:
        folder: of the export.
        config: its ``config.json``.

    Raises:
        InputError: a file is missing or damaged, or the weights do not fit.
    """
    module = _build(folder, config, _settings(folder / CONFIG, config))
    _fill(module, folder / WEIGHTS)
    return module


def _settings(path: Path, config: Mapping[str, Any]) -> BridleSettings:
    settings = checked_settings(config.get("settings"), str(path))
    # float32 represents weights of a bfloat16 training exactly, and results do not depend on the batch
    return replace(settings, precision="float32", codes_precision="auto")


class _NoRandomNumbers(TorchFunctionMode):
    """Skips random initialization, which is useless on the device "meta" and slow to import."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in ("uniform_", "normal_", "kaiming_uniform_"):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def _build(folder: Path, config: Mapping[str, Any], settings: BridleSettings) -> ExportedModule:
    """The modules of the parts on the device "meta": the weights will be those of the file."""
    parts = config.get("parts")
    if parts in (["classifier"], ["transcriber"]):
        try:
            with torch.device("meta"), _NoRandomNumbers():
                return _build_finetuned(config, settings)
        except (KeyError, TypeError) as error:
            raise InputError(f"{folder / CONFIG}: damaged, no {error} of the {parts[0]}") from None
    if not parts or not isinstance(parts, list) or not set(parts) <= set(PARTS):
        known = "encoder, tokenizer, classifier or transcriber"
        raise InputError(f"{folder / CONFIG}: parts are {parts!r}; expected {known}")
    with torch.device("meta"), _NoRandomNumbers():
        return ExportedBridle(settings, parts)


def _build_finetuned(config: Mapping[str, Any], settings: BridleSettings) -> Classifier | Transcriber:
    """The module of a fine-tuned encoder with its head.

    Raises:
        KeyError: a setting is missing.
    """
    if config["parts"] == ["transcriber"]:
        WORD_MARKS[config["labels"]]  # known labels
        return Transcriber(settings, len(config["symbols"]), config["pooling"], config["upsample"])
    config["multi_label"]  # must be there
    return Classifier(settings, len(config["classes"]["names"]), config["pooling"])


def _fill(module: nn.Module, path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    for child in module.modules():  # buffers that are not saved, such as statistics of a batch, start at zero
        for name, buffer in child.named_buffers(recurse=False):
            if buffer.is_meta:
                child._buffers[name] = torch.zeros(buffer.shape, dtype=buffer.dtype)
    try:
        module.load_state_dict(load_file(path), assign=True)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}; expected the weights that bridle export wrote") from None
    except SafetensorError as error:
        raise InputError(f"{path}: damaged, no safetensors file ({error})") from None
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"{path}: weights that do not fit {CONFIG} ({reason})") from None
