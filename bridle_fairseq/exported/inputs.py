"""What an export says of its model's inputs, in place of the configuration of a task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from bridle_fairseq.nn.settings import BridleSettings
from bridle_fairseq.utils.bounds import GRID, LARGEST_IMAGE, LARGEST_SIZE
from bridle_fairseq.utils.schema import Kind, Whole

DEFAULT_SECONDS = 10.24  # the longest clip, in exports that do not say


@dataclass(frozen=True)
class InputSettings:
    """How a model reads files. The names are those of a task's settings, and so are the defaults.

    Attributes:
        modality: ``audio``, ``image`` or ``video``.
        sample_rate: sound: of the model, in Hz.
        max_sample_size: sound: longest clip in samples.
        min_sample_size: sound: shortest clip in samples.
        image_size, valid_crop: images, video: height and width (0: unchanged), and the fraction of the shorter side.
        num_frames, frame_stride: video: frames of a clip, and the step between two of them.
    """

    modality: str = "audio"
    sample_rate: int = 16000
    max_sample_size: int = round(DEFAULT_SECONDS * 16000)
    min_sample_size: int = 1
    image_size: int = 224
    valid_crop: float = 0.875
    num_frames: int = 16
    frame_stride: int = 4
    random_start: ClassVar[bool] = False  # only training begins clips at random


BY_MODALITY = {
    "audio": ("max_sample_size", "min_sample_size"),
    "image": ("image_size", "valid_crop"),
    "video": ("image_size", "valid_crop", "num_frames", "frame_stride"),
}
KINDS: dict[str, Kind] = {
    "max_sample_size": Whole(0, LARGEST_SIZE),
    "min_sample_size": Whole(0, LARGEST_SIZE),
    "image_size": Whole(0, LARGEST_IMAGE),
    **{name: GRID[name] for name in ("valid_crop", "num_frames", "frame_stride")},
}


def stored_inputs(task: Mapping[str, Any], modality: str) -> dict[str, Any]:
    """The values of ``config.json`` that :func:`inputs_of` reads.

    Args:
        task: settings of a checkpoint's task; those that are missing have their defaults.
        modality: of the model.
    """
    defaults = InputSettings()
    return {name: task.get(name, getattr(defaults, name)) for name in BY_MODALITY[modality]}


def inputs_of(config: Mapping[str, Any], settings: BridleSettings) -> InputSettings:
    """The inputs of an export with this ``config.json``; what it does not say has the defaults."""
    values = {"max_sample_size": round(DEFAULT_SECONDS * settings.sample_rate)}
    values |= {name: config[name] for name in KINDS if name in config}
    return InputSettings(settings.modality, settings.sample_rate, **values)


def preprocessor_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """``preprocessor_config.json``: what reads inputs in transformers (:mod:`bridle_fairseq.adapters.transformers`).

    Args:
        config: ``config.json`` of the export.

    Returns:
        A class name and its arguments; empty if transformers has no use for the model.
    """
    if config["parts"] == ["tokenizer"]:
        return {}
    if config["modality"] == "audio":
        return {"feature_extractor_type": "BridleFeatureExtractor", "sampling_rate": config["sample_rate"]}
    if config["modality"] == "image":
        sizes = {name: config[name] for name in ("image_size", "valid_crop")}
        return {"image_processor_type": "BridleImageProcessor", **sizes}
    return {}
