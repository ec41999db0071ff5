"""What of a checkpoint's configuration is used: names that this package registers, and settings of known kinds.

fairseq saves a configuration with all interpolations resolved. One that still has some is refused: resolving them could
read the environment.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

from fairseq.models import MODEL_DATACLASS_REGISTRY
from fairseq.tasks import TASK_DATACLASS_REGISTRY
from omegaconf import DictConfig, OmegaConf

import bridle_fairseq
from bridle_fairseq.nn.settings import DEPTH, HEADS, PATCH_AXES, RATE, WIDTH
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.schema import (
    Anything,
    Flag,
    Kind,
    ListOf,
    Mapped,
    OneOf,
    Real,
    String,
    Whole,
    check,
    check_product,
    shown,
)

TASKS = {  # model -> its task
    "bridle": "bridle_pretraining",
    "bridle_classifier": "bridle_classification",
    "bridle_ctc": "bridle_ctc",
    "bridle_mel_decoder": "bridle_reconstruction",
}
CRITERIONS = ("bridle", "bridle_classification", "bridle_ctc", "bridle_reconstruction")
# Bounds of what decides how much memory an input takes; the other settings have the types of the dataclasses.
TASK_KINDS: dict[str, Kind] = {
    "modality": OneOf(tuple(PATCH_AXES)),
    "sample_rate": RATE,
    "max_sample_size": Whole(0, 1 << 40),
    "image_size": Whole(0, 8192),
    "valid_crop": Real(0, 1, above=True),
    "num_frames": Whole(1, 4096),
    "frame_stride": Whole(1, 1 << 20),
    "multi_label": Flag(),
    "labels": OneOf(("ltr", "spm")),
}
MODEL_KINDS: dict[str, Kind] = {
    "pooling": String(32),
    "upsample": Whole(1, 64),
    "decoder_width": WIDTH,
    "decoder_depth": DEPTH,
    "decoder_heads": HEADS,
}
MAX_PIXELS = 1 << 26  # of an image, or of all frames of a clip
FOLDERS = ("data", "codes", "knn_data", "results")  # settings of tasks that are paths on the machine of the training
NAMES = ListOf(String(), 1, 1_000_000)
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
OUTPUTS: dict[str, Kind] = {  # what the task's state holds: the names of the model's outputs
    "bridle_classifier": Mapped({"classes": Mapped({"ids": NAMES, "names": NAMES})}, others=Anything()),
    "bridle_ctc": Mapped({"symbols": NAMES}, others=Anything()),
}


def checked_name(path: str, cfg: Any, names: Sequence[str]) -> str:
    """The registered name of a checkpoint's model.

    Args:
        path: path of the checkpoint.
        cfg: its configuration, as plain values.
        names: models, one of which it must be.

    Raises:
        InputError: another model, task or criterion, a setting of another kind or out of bounds, or an interpolation.
    """
    group = Mapped({"_name": String(200)}, others=Anything())
    problem = Mapped({"model": group}, {"task": group, "criterion": group}, Anything()).problem("cfg", cfg)
    if problem is not None:
        raise InputError(f"{path}: not a checkpoint that fairseq can load ({problem})")
    name = cfg["model"]["_name"]
    if name not in names:
        raise other_model(path, name, names)
    for kind, allowed in (("task", (TASKS[name],)), ("criterion", CRITERIONS)):
        if kind in cfg and cfg[kind]["_name"] not in allowed:
            found = shown(cfg[kind]["_name"])
            raise InputError(f"{path}: a checkpoint of the {kind} {found}; expected one of this package for {name!r}")
    for where, text in _strings("cfg", cfg):
        if "${" in text:
            raise InputError(f"{path}: {where} is {shown(text)}; expected a value: nothing in a file is interpolated")
    task = cfg.get("task", {})
    check(Mapped({}, TASK_KINDS, Anything()), "cfg.task", task, path)
    if name != "bridle":
        check(Mapped({}, MODEL_KINDS, Anything()), "cfg.model", cfg["model"], path)
    return name


def manifests_of_run(cfg: Mapping[str, Any], subset: str) -> list[str]:
    """Paths of manifests of a run: ``{task.data}/{split}.tsv``. They may not exist, or not be of this run.

    Args:
        cfg: its checkpoint's configuration.
        subset: ``train`` or ``valid``.
    """
    folder, dataset = cfg.get("task", {}).get("data"), cfg.get("dataset")
    names = dataset.get(f"{subset}_subset") if isinstance(dataset, dict) else None
    if not isinstance(folder, str) or not folder:
        return []
    splits = (names if isinstance(names, str) and names else subset).split(",")
    return [os.path.join(folder, f"{split}.tsv") for split in splits if split == os.path.basename(split)]


def other_model(path: str, name: str, names: Sequence[str]) -> InputError:
    """The error for a checkpoint of another model than one of ``names``."""
    expected = " or ".join(map(repr, names))
    return InputError(f"{path}: a checkpoint of the model {shown(name)}; expected one of {expected}")


def checked_outputs(path: str, model: str, task_state: Any) -> dict[str, Any]:
    """The part of a task's state that names the outputs of a fine-tuned model; {} for other models.

    Raises:
        InputError: it is missing, or not a list of names.
    """
    if model not in OUTPUTS:
        return {}
    kind = OUTPUTS[model]
    check(kind, "task_state", task_state, path)
    outputs = {name: task_state[name] for name in ("classes", "symbols") if name in task_state}
    for where, text in _strings("task_state", outputs):
        if CONTROL.search(text):  # commands print names, and a terminal would obey
            raise InputError(f"{path}: {where} is {shown(text)}; expected a name without control characters")
    if "classes" in outputs and len(outputs["classes"]["ids"]) != len(outputs["classes"]["names"]):
        counts = " ids and ".join(str(len(outputs["classes"][key])) for key in ("ids", "names"))
        raise InputError(f"{path}: classes with {counts} names; expected a name for each")
    return outputs


def rebuilt_config(path: str, model: str, cfg: Mapping[str, Any], overrides: Mapping[str, Any]) -> DictConfig:
    """A run's configuration with what building its model needs.

    It has the settings that this package's dataclasses have, and none of the task's folders.

    Args:
        path: path of the checkpoint.
        model: name of the model, from :func:`checked_name`.
        cfg: the checkpoint's configuration.
        overrides: settings of the task to use instead.

    Raises:
        InputError: an input would have too many pixels.
    """
    bridle_fairseq.register()
    task = {name: value for name, value in cfg["task"].items() if name not in FOLDERS} | dict(overrides)
    classes = {"model": MODEL_DATACLASS_REGISTRY[model], "task": TASK_DATACLASS_REGISTRY[TASKS[model]]}
    groups = {
        group: {field.name: values[field.name] for field in fields(classes[group]) if field.name in values}
        for group, values in (("model", cfg["model"]), ("task", task))
    }
    sizes: dict[str, Any] = {field.name: field.default for field in fields(classes["task"])} | groups["task"]
    side, frames = sizes.get("image_size", 0), sizes.get("num_frames", 1)  # side 0: that of the file
    check_product(MAX_PIXELS, {"height": side, "width": side, "frames": frames}, path)
    common: Any = cfg.get("common")
    half = {name: isinstance(common, dict) and common.get(name) is True for name in ("fp16", "bf16")}
    return OmegaConf.create({"common": {"seed": 1, **half}, **groups})


def _strings(where: str, value: Any) -> Iterator[tuple[str, str]]:
    """All strings in plain values, keys too, with their places."""
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _strings(f"a name in {where}", key)
            yield from _strings(f"{where}.{key}", item)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _strings(f"{where}[{number}]", item)
