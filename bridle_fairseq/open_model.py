"""Open a trained model for use: a checkpoint, an exported folder, or an export on the Hugging Face Hub.

Exports need no fairseq; it is imported for a checkpoint only.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from bridle_fairseq.data.manifests.labels import Classes
from bridle_fairseq.data.manifests.transcripts import Vocabulary
from bridle_fairseq.exported.format import WITH_ENCODER, check_parts, read_config, read_module
from bridle_fairseq.exported.inputs import inputs_of
from bridle_fairseq.exported.source import find_export, model_sha256

Use = Literal["features", "codes", "outputs"]
MODELS: dict[Use, tuple[str, ...]] = {  # models of checkpoints for each use
    "features": ("bridle", "bridle_classifier", "bridle_ctc"),
    "codes": ("bridle",),
    "outputs": ("bridle_classifier", "bridle_ctc"),
}
PARTS: dict[Use, tuple[str, ...]] = {  # of exports
    "features": WITH_ENCODER,
    "codes": ("tokenizer",),
    "outputs": ("classifier", "transcriber"),
}


@dataclass(frozen=True)
class OpenedModel:
    """A trained model and how its files are read.

    Attributes:
        source: path or name that it was opened by.
        model: in eval mode, on its device.
        inputs: how files are read: the configuration of its task, or an :class:`.inputs.InputSettings`.
        classes: of a classifier; else None.
        vocabulary: of a transcriber; else None.
        multi_label: whether a clip may have several of the classes.
    """

    source: str
    model: Any
    inputs: Any
    classes: Classes | None = None
    vocabulary: Vocabulary | None = None
    multi_label: bool = False

    @cached_property
    def sha256(self) -> str:
        """See :func:`.source.model_sha256`."""
        return model_sha256(self.source)


def open_model(source: str, use: Use = "features", device: str = "cpu") -> OpenedModel:
    """Open a model.

    Args:
        source: path of a checkpoint or of an exported folder, or a Hub name (:func:`.source.find_export`).
        use: what it is opened for: ``features`` of its encoder, ``codes`` of its tokenizer, or ``outputs``, classes or
            transcripts.
        device: of the model.

    Raises:
        InputError: there is no such model, its files cannot be used, or it cannot be used for this.
    """
    folder = find_export(source)
    if folder is not None:
        return _open_export(source, folder, use, device)
    from bridle_fairseq.models.checkpoints import load_model

    model, task = load_model(source, device, MODELS[use])
    classes, vocabulary = getattr(task, "classes", None), getattr(task, "vocabulary", None)
    return OpenedModel(source, model, task.cfg, classes, vocabulary, getattr(task.cfg, "multi_label", False))


def folder_beside(source: str) -> str:
    """The folder in which a model lies; the present one for a Hub name."""
    return os.path.dirname(os.path.abspath(source)) if os.path.exists(source) else os.getcwd()


def _open_export(source: str, folder: Path, use: Use, device: str) -> OpenedModel:
    config = read_config(folder)
    check_parts(config, PARTS[use], f"{source}: this export")
    module: Any = read_module(folder, config).to(device).eval().requires_grad_(False)
    classes = vocabulary = None
    if "classes" in config:
        names = config["classes"]["names"]
        classes = Classes(config["classes"].get("ids", names), names, source)
    if "symbols" in config:
        vocabulary = Vocabulary(config["symbols"], config["labels"], source)
    inputs = inputs_of(config, module.settings)
    return OpenedModel(source, module, inputs, classes, vocabulary, config.get("multi_label", False))
