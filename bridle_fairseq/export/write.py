"""Write an export: weights, settings and a model card that :mod:`bridle_fairseq.pretrained` loads without fairseq."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from bridle_fairseq import __version__
from bridle_fairseq.export.model_card import model_card
from bridle_fairseq.export.onnx import ONNX, write_onnx
from bridle_fairseq.exported.format import (
    ALL_MODULES,
    CONFIG,
    FORMAT,
    FORMAT_VERSION,
    MODEL_TYPE,
    PARTS,
    PREPROCESSOR,
    WEIGHTS,
)
from bridle_fairseq.exported.inputs import preprocessor_config, stored_inputs
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.files import file_sha256, temporary_folder, usual_permissions
from bridle_fairseq.utils.json_files import read_json

if TYPE_CHECKING:
    from bridle_fairseq.models.checkpoints import Checkpoint

CARD = "README.md"
DTYPES = ("float32", "float16")
FILES = {WEIGHTS, CONFIG, PREPROCESSOR, CARD, ONNX, f"{ONNX}.data"}


def write_export(
    checkpoint: Checkpoint,
    folder: str | os.PathLike[str],
    parts: tuple[str, ...] = (),
    license: str | None = None,
    onnx: bool = False,
    dtype: str = "float32",
    about: str = "",
    datasets: Sequence[str] = (),
) -> Path:
    """Write an export completely or not at all; an earlier export in the same folder is replaced.

    Args:
        checkpoint: checkpoint of the model ``bridle``, ``bridle_classifier`` or ``bridle_ctc``.
        folder: it must not hold anything else.
        parts: parts of the model ``bridle``: encoder, tokenizer or both; empty: both.
        license: license of the weights, for the model card.
        onnx: also write the encoder as an ONNX graph.
        dtype: of the weights, one of :data:`DTYPES`; codebooks, biases and statistics are float32 in any case.
        about: Markdown for the model card.
        datasets: names on the Hub of the data sets of training, for the card's metadata.

    Returns:
        The absolute path of the folder.

    Raises:
        InputError: the folder holds something else, the weights do not fit, the codebooks are not initialized, or the
            ONNX graph cannot be written.
    """
    assert dtype in DTYPES
    folder = Path(folder).absolute()
    check_folder(folder)
    if onnx and checkpoint.settings.modality != "audio":
        raise InputError(f"--onnx with a model of modality {checkpoint.settings.modality}; expected one of sound")
    config, weights = _contents(checkpoint, parts)
    if dtype == "float16":
        weights = {name: _rounded(name, value, checkpoint.path) for name, value in weights.items()}
        # codes and features differ a little from the checkpoint's, so they are of a model of their own
        config["rounded_from_sha256"] = config.pop("checkpoint_sha256")
    with temporary_folder(folder) as temporary:
        _write_weights(weights, temporary / WEIGHTS)
        (temporary / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        _check_loads(temporary, checkpoint.path)
        if onnx:
            config["onnx"] = {"largest_difference": write_onnx(temporary)}
            (temporary / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        preprocessor = preprocessor_config(config)
        if preprocessor:
            (temporary / PREPROCESSOR).write_text(json.dumps(preprocessor, indent=2) + "\n", encoding="utf-8")
        (temporary / CARD).write_text(model_card(checkpoint, config, license, about, datasets), encoding="utf-8")
        replace_folder(temporary, folder)
    return folder


def check_folder(folder: Path) -> None:
    """Refuse a path that holds anything but an export.

    Raises:
        InputError: it is a file, or a folder with something else in it.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; expected a new folder, an empty one, or an earlier export")
    present = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if not present:
        return
    try:
        is_export = read_json(folder / CONFIG)["format"] == FORMAT
    except (InputError, KeyError, TypeError):
        is_export = False
    others = sorted(present - FILES) if is_export else sorted(present)
    if others:
        raise InputError(
            f"{folder} holds {others[0]}, which no export wrote; expected a new or empty folder, or an earlier export"
        )


def replace_folder(new: Path, folder: Path) -> None:
    """Move a finished folder to its place; readers see either the old one or the new one."""
    if folder.exists():
        with temporary_folder(folder) as old:
            try:
                os.replace(folder, old / "export")
                os.replace(new, folder)
            except BaseException:  # Ctrl-C between the two, too: what is in ``old`` is removed
                if not folder.exists():
                    os.replace(old / "export", folder)
                raise
    else:
        os.replace(new, folder)


def _contents(checkpoint: Checkpoint, parts: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The values of ``config.json``, and the weights to write, in float32."""
    settings = checkpoint.settings
    config: dict[str, Any] = {"format": FORMAT, "format_version": FORMAT_VERSION, "bridle_fairseq": __version__}
    config |= {"model_type": MODEL_TYPE, "model": checkpoint.model, "modality": settings.modality}
    if settings.modality == "audio":
        config["sample_rate"] = settings.sample_rate
    config |= stored_inputs(checkpoint.cfg.get("task", {}), settings.modality)
    weights = checkpoint.weights
    if checkpoint.model == "bridle_classifier":
        config |= {"parts": ["classifier"], "pooling": checkpoint.option("model", "pooling")}
        config |= {"multi_label": checkpoint.cfg.get("task", {}).get("multi_label", False)}
        config |= {"classes": {key: checkpoint.outputs["classes"][key] for key in ("ids", "names")}}
    elif checkpoint.model == "bridle_ctc":
        config |= {"parts": ["transcriber"]}
        config |= {name: checkpoint.option("model", name) for name in ("pooling", "upsample")}
        config |= {"labels": checkpoint.option("task", "labels"), "symbols": checkpoint.outputs["symbols"]}
    else:
        chosen = [part for part in PARTS if part in parts or not parts]
        if "tokenizer" in chosen and not weights.get("quantizer.codebooks.started", True):
            raise InputError(
                f"{checkpoint.path}: its codebooks have not been started; expected --part encoder, or updates"
            )
        unwanted = set(ALL_MODULES) - {name for part in chosen for name in PARTS[part]}
        weights = {name: value for name, value in weights.items() if name.split(".")[0] not in unwanted}
        config["parts"] = chosen
    config |= {"settings": asdict(settings), "checkpoint_sha256": file_sha256(checkpoint.path)}
    # a run in half precision has half-precision weights; codebooks and running averages are float32 in any checkpoint
    weights = {n: (v.float() if v.is_floating_point() else v).contiguous() for n, v in weights.items()}
    return config, weights


def _rounded(name: str, value: Tensor, path: str) -> Tensor:
    """A weight in float16, if it is a matrix and none of the quantizer's.

    Raises:
        InputError: it is too large.
    """
    if value.dim() < 2 or not value.is_floating_point() or name.startswith("quantizer."):
        return value
    rounded = value.half()
    if not bool(rounded.isfinite().all()) and bool(value.isfinite().all()):
        raise InputError(f"{path}: {name} has values above 65504, the largest in float16; expected --dtype float32")
    return rounded


def _write_weights(weights: dict[str, Tensor], path: Path) -> None:
    from safetensors.torch import save_file

    with usual_permissions(path):  # safetensors gives 0600
        save_file({name: value.clone() for name, value in weights.items()}, path, metadata={"format": "pt"})
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _check_loads(folder: Path, checkpoint: str) -> None:
    """Load the written export, to detect a checkpoint whose weights do not fit its settings."""
    from bridle_fairseq.pretrained import load

    try:
        load(folder)
    except InputError as error:
        reason = str(error).split("(", 1)[-1].rstrip(")")
        raise InputError(f"{checkpoint}: its weights do not fit its settings ({reason})") from None
