"""What the rest of the package asks of a modality: one :class:`Modality` for each, in a module of its own."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol

from bridle_fairseq.utils.errors import InputError

if TYPE_CHECKING:  # a command's --help need not wait for torch
    from torch import Tensor

MODULES = {
    "audio": "bridle_fairseq.data.audio.dataset",
    "image": "bridle_fairseq.data.image.dataset",
    "video": "bridle_fairseq.data.video.dataset",
}


class Reader(Protocol):
    """Reads files as models are shown them when they are not trained."""

    def length(self, path: str, size: int | None = None) -> int:
        """Length of what a file holds, from its header (sound: samples at the model's rate; images and video: 1).

        Raises:
            DecodeError: the file cannot be used, or has another size than the manifest's ``size``.
        """

    def read(self, path: str, start: int, length: int) -> Tensor:
        """A stretch of it.

        Raises:
            DecodeError: the file cannot be used.
        """


@dataclass(frozen=True)
class Modality:
    """How files of one kind become what models take. ``cfg`` is a task's configuration.

    Attributes:
        name: as ``task.modality`` and ``model.modality`` have it.
        files: what messages call them.
        extensions: of the files that are looked for.
        measure: path -> the size that stands in a manifest, from the header; raises DecodeError.
        dataset: (manifest, cfg, training, **options of the :class:`MediaDataset`) -> that.
        reader: cfg -> a :class:`Reader`.
        segment: (cfg, seconds or None) -> the longest stretch that a model is shown at once, in the reader's units.
        layout_of_codes: (cfg, front end, segment) -> what a patch's codes stand for, as files of codes say it.
    """

    name: str
    files: str
    extensions: tuple[str, ...]
    measure: Callable[[str], int]
    dataset: Callable[..., Any]
    reader: Callable[[Any], Reader]
    segment: Callable[..., int]
    layout_of_codes: Callable[[Any, Any, int], dict[str, Any]]


def modality_named(name: str) -> Modality:
    """The modality of this name.

    Raises:
        InputError: there is none.
    """
    if name not in MODULES:
        raise InputError(f"modality is {name!r}; expected one of {', '.join(MODULES)}")
    return import_module(MODULES[name]).MODALITY


def modality_of(cfg: Any) -> Modality:
    """The modality of a task's configuration (sound, where an old one names none)."""
    return modality_named(getattr(cfg, "modality", None) or "audio")


def as_configuration(task: Mapping[str, Any]) -> Any:
    """A task's configuration out of a checkpoint's plain values."""
    return SimpleNamespace(**task)


def add_modality_argument(parser: argparse.ArgumentParser) -> None:
    """What kind of files there are."""
    parser.add_argument("--modality", choices=list(MODULES), default="audio", help="what the files are (%(default)s)")
