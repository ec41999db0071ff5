"""The interface of a modality, which each of data/audio, data/image and data/video implements."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # keeps the commands' --help fast: torch takes seconds to import
    from torch import Tensor

    from bridle_fairseq.data.dataset import MediaDataset
    from bridle_fairseq.data.manifests.manifest import Manifest
    from bridle_fairseq.nn.frontend import FrontEnd


class Reader(Protocol):
    """Reads files for inference: no cropping or augmentation at random."""

    def length(self, path: str, size: int | None = None) -> int:
        """Length of a file, from its header (audio: samples at the model's rate; images and video: number of segments).

        Raises:
            DecodeError: the file is unusable, or its size is not the manifest's ``size``.
        """

    def read(self, path: str, start: int, length: int) -> Tensor:
        """A segment of a file.

        Raises:
            DecodeError: the file is unusable.
        """


class Modality(ABC):
    """How files of one kind become inputs of a model. ``cfg`` is always the configuration of a task.

    Attributes:
        name: value of ``task.modality`` and ``model.modality``.
        files: name of such files in messages, plural.
        extensions: extensions of such files that are read, in lower case.
        other_extensions: extensions of files of this kind that are not read, or only if asked for.
        advice: what to do with files of these extensions, if asking for them is of no use.
    """

    name: str
    files: str
    extensions: tuple[str, ...]
    other_extensions: tuple[str, ...] = ()
    advice: str = ""

    @abstractmethod
    def measure(self, path: str) -> int:
        """Size of a file for its row in a manifest, from its header.

        Raises:
            DecodeError: the file is unusable.
        """

    @abstractmethod
    def dataset(self, manifest: Manifest, cfg: Any, training: bool = False, **options: Any) -> MediaDataset:
        """Data set of a manifest; ``options`` are further arguments of its class.

        Raises:
            InputError: settings that are not possible, or a missing file.
        """

    @abstractmethod
    def reader(self, cfg: Any) -> Reader:
        """Reader of single files."""

    @abstractmethod
    def segment(self, cfg: Any, seconds: float | None = None) -> int:
        """Length of the longest segment that a model is given, in the units of :meth:`Reader.length`.

        Args:
            cfg: configuration of the task.
            seconds: a length to use instead of the task's (audio only).

        Raises:
            InputError: seconds for another modality.
        """

    @abstractmethod
    def layout_of_codes(self, cfg: Any, front_end: FrontEnd, segment: int) -> dict[str, Any]:
        """Geometry of a segment's patches, as files of codes describe it.

        Args:
            cfg: configuration of the task.
            front_end: the model's front end.
            segment: length of a segment.

        Raises:
            InputError: segments differ in size.
        """
