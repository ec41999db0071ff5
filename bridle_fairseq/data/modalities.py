"""Modalities by name. A modality's module is imported when it is first used."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from bridle_fairseq.data.modality import Modality
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.optional import optional_import

CLASSES = {
    "audio": ("bridle_fairseq.data.audio.modality", "AudioModality"),
    "image": ("bridle_fairseq.data.image.modality", "ImageModality"),
    "video": ("bridle_fairseq.data.video.modality", "VideoModality"),
}
EXTRAS = {"image": ("images need Pillow", "images"), "video": ("video needs Pillow and PyAV", "video")}


def modality_named(name: str) -> Modality:
    """The modality of this name.

    Raises:
        InputError: there is none, or a package for it is missing.
    """
    if name not in CLASSES:
        raise InputError(f"modality is {name!r}; expected one of {', '.join(CLASSES)}")
    module, class_name = CLASSES[name]
    if name in EXTRAS:
        need, extra = EXTRAS[name]
        with optional_import(need, f"'bridle_fairseq[{extra}]'"):
            import_module(module)
    return getattr(import_module(module), class_name)()


def modality_of(cfg: Any) -> Modality:
    """The modality of a task's configuration; audio for old configurations without one."""
    return modality_named(getattr(cfg, "modality", None) or "audio")
