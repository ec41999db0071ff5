"""From a checkpoint of fairseq to what :mod:`bridle_fairseq.pretrained` loads: weights, settings and a model card."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from bridle_fairseq import __version__
from bridle_fairseq.export.format import ALL_MODULES, CONFIG, FORMAT, FORMAT_VERSION, PARTS, WEIGHTS
from bridle_fairseq.export.model_card import model_card
from bridle_fairseq.export.onnx import ONNX, write_onnx
from bridle_fairseq.nn.settings import BridleSettings, check_settings
from bridle_fairseq.utils.errors import InputError

CARD = "README.md"
TUNED = ("bridle_classifier", "bridle_ctc")  # models whose encoder was fine-tuned
FILES = {WEIGHTS, CONFIG, CARD, ONNX, f"{ONNX}.data"}


@dataclass
class Source:
    """A checkpoint that can be exported.

    Attributes:
        path: of the file.
        model: ``bridle``, ``bridle_classifier`` or ``bridle_ctc``.
        settings: of the model.
        weights: its state, on the CPU.
        cfg: the run's configuration.
        state: the checkpoint without its weights.
    """

    path: str
    model: str
    settings: BridleSettings
    weights: dict[str, Tensor]
    cfg: Mapping[str, Any]
    state: Mapping[str, Any]


def read_checkpoint(path: str) -> Source:
    """Read a checkpoint of ``bridle``, ``bridle_classifier`` or ``bridle_ctc``.

    Raises:
        InputError: no such file, not a checkpoint, of another model, or without the settings of its model.
    """
    if not os.path.isfile(path):
        raise InputError(f"{path}: no such checkpoint; expected a file that fairseq-hydra-train wrote")
    from fairseq import checkpoint_utils
    from omegaconf import OmegaConf

    try:
        state = dict(checkpoint_utils.load_checkpoint_to_cpu(path))
        weights = state.pop("model")
        cfg = OmegaConf.to_container(state["cfg"], resolve=True, enum_to_str=True)
        model, settings = cfg["model"], None
        name = model["_name"]
    except Exception as error:  # what is no checkpoint fails in any way there is
        reason = " ".join(str(error).split()).split(". ")[0][:160] or type(error).__name__
        raise InputError(f"{path}: not a checkpoint that fairseq can load ({reason})") from None
    if name == "bridle":
        settings = settings_of(model)
    elif name in TUNED and model.get("settings") is not None:
        settings = settings_of(model["settings"])
    if settings is None:
        expected = " or ".join(map(repr, ("bridle", *TUNED)))
        raise InputError(f"{path}: a checkpoint of the model {name!r}; expected one of {expected}")
    check_settings(settings)
    return Source(path, name, settings, weights, cfg, state)


def settings_of(model: Mapping[str, Any]) -> BridleSettings:
    """The settings among those of a run's model."""
    return BridleSettings(**{field.name: model[field.name] for field in fields(BridleSettings) if field.name in model})


def export(
    source: Source,
    folder: str | os.PathLike[str],
    parts: tuple[str, ...] = (),
    license: str | None = None,
    onnx: bool = False,
) -> Path:
    """Write an export, all of it or nothing; an earlier export in the same place is replaced.

    Args:
        source: what to export.
        folder: where; it must not hold anything else.
        parts: of the model ``bridle``: encoder, tokenizer or both; empty: both.
        license: of the weights, for the model card.
        onnx: also write the encoder as an ONNX graph.

    Raises:
        InputError: the folder holds something else, weights that do not fit, codebooks that have not been started, or
            no ONNX graph could be made.
    """
    folder = Path(folder).absolute()
    check_folder(folder)
    if onnx and source.settings.modality != "audio":
        raise InputError(f"--onnx with a model of modality {source.settings.modality}; expected one of sound")
    config, weights = _contents(source, parts)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        _write_weights(weights, temporary / WEIGHTS)
        (temporary / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        _check(temporary, source.path)
        if onnx:
            config["onnx"] = {"largest_difference": write_onnx(temporary)}
            (temporary / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        (temporary / CARD).write_text(model_card(source, config, license), encoding="utf-8")
        replace_folder(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def check_folder(folder: Path) -> None:
    """Refuse a place that holds anything but an export.

    Raises:
        InputError: a file, or a folder with something else in it.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; expected a new folder, an empty one, or an earlier export")
    found = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if not found:
        return
    try:
        ours = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        ours = False
    others = sorted(found - FILES) if ours else sorted(found)
    if others:
        raise InputError(
            f"{folder} holds {others[0]}, which no export wrote; expected a new or empty folder, or an earlier export"
        )


def replace_folder(new: Path, folder: Path) -> None:
    """Put a finished folder in its place; a reader sees the old one or the new one."""
    umask = os.umask(0)
    os.umask(umask)
    new.chmod(0o777 & ~umask)
    if folder.exists():
        old = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.old."))
        os.replace(folder, old / "export")
        os.replace(new, folder)
        shutil.rmtree(old)
    else:
        os.replace(new, folder)


def _contents(source: Source, parts: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What ``config.json`` says, and the weights that are wanted, in float32."""
    from bridle_fairseq.utils.files import file_sha256

    config: dict[str, Any] = {"format": FORMAT, "format_version": FORMAT_VERSION, "bridle_fairseq": __version__}
    config |= {"model": source.model, "modality": source.settings.modality}
    if source.settings.modality == "audio":
        config["sample_rate"] = source.settings.sample_rate
    else:
        shown = ("image_size", "valid_crop", *(("num_frames", "frame_stride") if config["modality"] == "video" else ()))
        config |= {name: source.cfg["task"][name] for name in shown}
    weights = source.weights
    if source.model == "bridle_classifier":
        classes = source.state["task_state"]["classes"]
        config |= {"parts": ["classifier"], "pooling": source.cfg["model"]["pooling"]}
        config |= {"multi_label": bool(source.cfg["task"].get("multi_label", False))}
        config |= {"classes": {"ids": list(classes["ids"]), "names": list(classes["names"])}}
    elif source.model == "bridle_ctc":
        config |= {"parts": ["transcriber"], **{name: source.cfg["model"][name] for name in ("pooling", "upsample")}}
        config |= {"labels": source.cfg["task"]["labels"], "symbols": list(source.state["task_state"]["symbols"])}
    else:
        chosen = [part for part in PARTS if part in parts or not parts]
        if "tokenizer" in chosen and not weights.get("quantizer.codebooks.started", True):
            raise InputError(f"{source.path}: its codebooks have not been started; expected --part encoder, or updates")
        unwanted = set(ALL_MODULES) - {name for part in chosen for name in PARTS[part]}
        weights = {name: value for name, value in weights.items() if name.split(".")[0] not in unwanted}
        config["parts"] = chosen
    config |= {"settings": asdict(source.settings), "checkpoint_sha256": file_sha256(source.path)}
    # a run in half precision; what has to be exact (codebooks, averages) is float32 in any checkpoint
    weights = {n: (v.float() if v.is_floating_point() else v).contiguous() for n, v in weights.items()}
    return config, weights


def _write_weights(weights: dict[str, Tensor], path: Path) -> None:
    from safetensors.torch import save_file

    save_file({name: value.clone() for name, value in weights.items()}, path, metadata={"format": "pt"})
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _check(folder: Path, checkpoint: str) -> None:
    """Load what was written: a checkpoint whose weights do not fit its settings is found here."""
    from bridle_fairseq.pretrained import load

    try:
        load(folder)
    except InputError as error:
        reason = str(error).split("(", 1)[-1].rstrip(")")
        raise InputError(f"{checkpoint}: its weights do not fit its settings ({reason})") from None
