"""The files of an export: ``config.json`` and ``model.safetensors``. Reading them executes no code.

The configuration has a schema. The model is built without memory, and its weights are read only if the header of
their file has the names, types and shapes that the model needs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from bridle_fairseq.data.manifests.transcripts import WORD_MARKS
from bridle_fairseq.exported.inputs import KINDS
from bridle_fairseq.nn.classifier import Classifier
from bridle_fairseq.nn.code_tokenizer import CodeTokenizer
from bridle_fairseq.nn.ctc import STEP_POOLINGS, Transcriber
from bridle_fairseq.nn.encoder import Encoder
from bridle_fairseq.nn.pooling_kinds import POOLINGS
from bridle_fairseq.nn.settings import BridleSettings, checked_settings
from bridle_fairseq.utils.bounds import HASH
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.json_files import read_json
from bridle_fairseq.utils.schema import Anything, Flag, Kind, ListOf, Mapped, OneOf, String, Whole, check, shown

FORMAT, FORMAT_VERSION = "bridle_fairseq", 1
WEIGHTS, CONFIG = "model.safetensors", "config.json"
MODEL_TYPE, PREPROCESSOR = "bridle", "preprocessor_config.json"  # what transformers looks for; adapters/transformers.py
WITH_ENCODER = ("encoder", "classifier", "transcriber")  # parts with an encoder
PARTS = {  # of the model `bridle`: modules of each part
    "encoder": ("encoder",),
    "tokenizer": ("tokenizer", "quantizer", "estimator", "projection", "latent_norm"),
}
ALL_MODULES = ("decoder", "teacher_norm", *PARTS["encoder"], *PARTS["tokenizer"])

NAMES = ListOf(String(), 1, 1 << 20)
BRIDLE: dict[str, Kind] = {"parts": ListOf(OneOf(tuple(PARTS)), 1, len(PARTS))}
FINE_TUNED: dict[str, dict[str, Kind]] = {  # what the configuration must hold, by the only part of a fine-tuned model
    "classifier": {
        "classes": Mapped({"names": NAMES}, others=NAMES),
        "pooling": OneOf(tuple(POOLINGS)),
        "multi_label": Flag(),
    },
    "transcriber": {
        "symbols": NAMES,
        "labels": OneOf(tuple(WORD_MARKS)),
        "pooling": OneOf(STEP_POOLINGS),
        "upsample": Whole(1, 1024),
    },
}
OPTIONAL: dict[str, Kind] = {
    "model": String(),
    "bridle_fairseq": String(),
    "checkpoint_sha256": HASH,  # of an export in float16: "rounded_from_sha256", as its results are its own
    "rounded_from_sha256": HASH,
    **KINDS,
}
DTYPES = {torch.bool: "BOOL", torch.int64: "I64", torch.int32: "I32"}
WEIGHTS_PER_BLOCK = 12


class MisfitError(Exception):
    """Weights that do not fit the settings; :func:`_opened` adds the file."""


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
    config = read_json(path, "this configuration of an export")
    check_config(config, str(path))
    return config


def check_config(config: Any, path: str) -> None:
    """Check the contents of ``config.json`` of an export, from ``path``.

    Raises:
        InputError: of another format or version, or a value is missing or impossible.
    """
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise InputError(f"{path}: not of this format; expected one that bridle export wrote")
    if config.get("format_version") != FORMAT_VERSION:
        version = shown(config.get("format_version"))
        raise InputError(f"{path}: version {version}; expected {FORMAT_VERSION}, the one this bridle_fairseq reads")
    required = next((kinds for part, kinds in FINE_TUNED.items() if config.get("parts") == [part]), BRIDLE)
    check(Mapped(required, OPTIONAL, Anything()), "", config, path)


def check_parts(config: Mapping[str, Any], parts: Collection[str], what: str = "this export") -> None:
    """Check that an export has one of these parts.

    Raises:
        InputError: it has not.
    """
    if not set(parts) & set(config["parts"]):
        raise InputError(f"{what} holds {' and '.join(config['parts'])}; expected one with {' or '.join(parts)}")


def read_pretrained(folder: Path, part: str) -> tuple[BridleSettings, dict[str, Tensor]]:
    """Settings and weights of an export of the model ``bridle``, to fine-tune it or to make codes.

    Args:
        folder: of the export.
        part: that it must have, a key of :data:`PARTS`.

    Raises:
        InputError: a file is missing or damaged, or the export has no such part.
    """
    config = read_config(folder)
    check_parts(config, (part,), f"{folder}: this export")
    weights = read_module(folder, config).state_dict()
    return checked_settings(config["settings"], str(folder / CONFIG)), weights


def read_module(folder: Path, config: Mapping[str, Any]) -> ExportedModule:
    """The modules of an export's parts with their weights, on the CPU.

    Args:
        folder: of the export.
        config: its ``config.json``, as :func:`read_config` returns it.

    Raises:
        InputError: a file is missing or damaged, or the weights do not fit.
    """
    settings = settings_of(config, str(folder / CONFIG))
    with _opened(folder / WEIGHTS) as weights:
        names = weights.keys()
        blocks = sum(getattr(settings, f"{name}_depth") for name in _stacks(config["parts"]))
        if blocks * WEIGHTS_PER_BLOCK > len(names):  # a model that the file cannot hold is not even built
            raise MisfitError(f"{len(names)} weights for {blocks} blocks")
        module = _build(config, settings)
        _check_fit(module, weights)
        tensors = {name: weights.get_tensor(name) for name in names}
        _fill(module, {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()})
    return module


def settings_of(config: Mapping[str, Any], path: str) -> BridleSettings:
    """The settings in ``config.json`` of an export, from ``path``, to compute in float32.

    Raises:
        InputError: they are missing or impossible.
    """
    settings = checked_settings(config.get("settings"), path)
    for name in ("modality", "sample_rate"):
        value = getattr(settings, name)
        if config.get(name, value) != value:
            raise InputError(f"{path}: {name} is {shown(config[name])}; expected {value}, as in its settings")
    # float32 represents weights of a bfloat16 training exactly, and results do not depend on the batch
    return replace(settings, precision="float32", codes_precision="auto")


def _stacks(parts: Collection[str]) -> list[str]:
    """The modules of these parts that are stacks of blocks."""
    modules = {name for part in parts for name in PARTS.get(part, ("encoder",))}
    return sorted(modules & {"encoder", "tokenizer", "estimator"})


class _NoRandomNumbers(TorchFunctionMode):
    """Skips random initialization, which is useless on the device "meta" and slow to import."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in ("uniform_", "normal_", "kaiming_uniform_"):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def _build(config: Mapping[str, Any], settings: BridleSettings) -> ExportedModule:
    """The modules of the parts on the device "meta": the weights will be those of the file."""
    with torch.device("meta"), _NoRandomNumbers():
        return new_module(config, settings)


def new_module(config: Mapping[str, Any], settings: BridleSettings) -> ExportedModule:
    """The modules of the parts with initial weights."""
    if config["parts"] == ["transcriber"]:
        return Transcriber(settings, len(config["symbols"]), config["pooling"], config["upsample"])
    if config["parts"] == ["classifier"]:
        return Classifier(settings, len(config["classes"]["names"]), config["pooling"])
    return ExportedBridle(settings, config["parts"])


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The weights' file: its names, and types, shapes and values by name."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            yield file
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}; expected the weights that bridle export wrote") from None
    except SafetensorError as error:
        raise InputError(f"{path}: damaged, no safetensors file ({' '.join(str(error).split())[:160]})") from None
    except MisfitError as error:
        raise InputError(f"{path}: weights that do not fit {CONFIG} ({error})") from None


def _check_fit(module: nn.Module, weights: Any) -> None:
    """Compare names, types and shapes in the file's header with those of the model.

    Raises:
        MisfitError: they differ.
    """
    expected, names = module.state_dict(), set(weights.keys())
    for name in sorted(names ^ set(expected)):
        raise MisfitError(f"{shown(name)} is {'unknown' if name in names else 'missing'}")
    for name, value in expected.items():
        stored = weights.get_slice(name)
        found = f"{stored.get_dtype()} {list(stored.get_shape())}"
        kinds = ("F32", "F16") if value.is_floating_point() else (DTYPES[value.dtype],)
        if found not in [f"{kind} {list(value.shape)}" for kind in kinds]:
            raise MisfitError(f"{name} is {found}; expected {kinds[0]} {list(value.shape)}")


def _fill(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    for child in module.modules():  # buffers that are not saved, such as statistics of a batch, start at zero
        for name, buffer in child.named_buffers(recurse=False):
            if buffer.is_meta:
                child._buffers[name] = torch.zeros(buffer.shape, dtype=buffer.dtype)
    module.load_state_dict(weights, assign=True)
