"""Video: a manifest of video files as a data set of clips, and a reader of single clips. Nothing here imports fairseq.

A clip is ``num_frames`` frames, every ``frame_stride``-th of its file (:mod:`.frames` says which). Frames are scaled
while they are decoded, to a shorter side of ``image_size / valid_crop``, and then cropped like images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch

from bridle_fairseq.data.artifacts.codes import CachedCodes
from bridle_fairseq.data.dataset import LoadedRow
from bridle_fairseq.data.image.dataset import ImageDataset, check_crop
from bridle_fairseq.data.image.decode import Box, crop_and_resize
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.data.video.container import load_av
from bridle_fairseq.data.video.frames import even_places
from bridle_fairseq.data.video.reader import borrowed_reader, count_frames
from bridle_fairseq.utils.errors import InputError

MIDDLE = 0.5


class View(NamedTuple):
    """A clip and a crop of a file."""

    place: float = MIDDLE  # position of the clip, 0 to 1: see read_clips
    across: float | None = None  # position of the largest square crop, 0 to 1 along the longer side; None: centre crop


def even_views(clips: int, crops: int) -> list[View]:
    """``clips`` x ``crops`` views: clips evenly spaced in time, crops evenly spaced along the longer side."""
    sides = [None] if crops == 1 else even_places(crops)
    return [View(place, across) for place in even_places(clips) for across in sides]


class VideoDataset(ImageDataset):
    """Clips of a manifest's videos, uint8 3 x frames x height x width: random while training, else the middle one.

    Args:
        manifest: the rows.
        num_frames: frames per clip.
        frame_stride: distance of two frames of a clip.
        random_start: begin clips at random while training.
        options: options of :class:`ImageDataset`; all frames of a clip are cropped and augmented alike.

    Raises:
        InputError: as :class:`ImageDataset`, or PyAV is not installed.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        num_frames: int = 16,
        frame_stride: int = 4,
        random_start: bool = True,
        **options: Any,
    ) -> None:
        self.num_frames, self.frame_stride = num_frames, frame_stride
        self.random_start = random_start and bool(options.get("training"))
        super().__init__(manifest, **options)
        load_av()  # a missing package must be reported before training

    def _check_settings(self, codes: CachedCodes | None) -> None:
        check_clip(self.num_frames, self.frame_stride)
        super()._check_settings(codes)
        if codes is None:
            return
        if self.random_start:
            raise InputError("cached codes are of clips in the middle; expected task.random_start=false with them")
        codes.check(num_frames=self.num_frames, frame_stride=self.frame_stride)

    def _load(self, row: int, random: np.random.Generator) -> LoadedRow:
        places = [random.random() if self.random_start else MIDDLE for _ in range(self.repeats)]
        path, short_side = self.manifest.path(row), _short_side(self.image_size, self.valid_crop)
        with _decoded(path, self.num_frames, self.frame_stride, short_side, places) as clips:
            views = [_copied(self._crop_and_augment(frames, random).transpose(0, 1)) for frames in clips]
        return LoadedRow(views, self._cached(row))

    @property
    def item_sizes(self) -> tuple[int, ...]:
        """Frames, height and width."""
        return self.num_frames, *super().item_sizes


class ClipReader:
    """Views of files, each a segment of length 1; by default one, the clip in the middle, as in validation.

    Args:
        num_frames, frame_stride: see :class:`VideoDataset`.
        image_size, valid_crop: see :class:`ImageDataset`.
        views: the views of each file.
    """

    def __init__(
        self,
        num_frames: int,
        frame_stride: int,
        image_size: int,
        valid_crop: float,
        views: Sequence[View] = (View(),),
    ) -> None:
        check_clip(num_frames, frame_stride)
        check_crop(image_size, valid_crop)
        if not image_size and any(view.across is not None for view in views):
            raise InputError("several crops of frames as they are; expected task.image_size above 0")
        self.options, self.views = (num_frames, frame_stride, image_size, valid_crop), views

    def of_views(self, clips: int, crops: int) -> ClipReader:
        """A reader with the same settings and with :func:`even_views`."""
        return ClipReader(*self.options, even_views(clips, crops))

    def length(self, path: str, size: int | None = None) -> int:
        """Number of views, after a check of the header.

        Raises:
            DecodeError: the file is unusable.
        """
        count_frames(path)
        return len(self.views)

    def read(self, path: str, start: int = 0, length: int = 1) -> torch.Tensor:
        """uint8 3 x frames x height x width."""
        clip = read_clip(path, *self.options, self.views[start])
        return torch.from_numpy(np.ascontiguousarray(clip.transpose(3, 0, 1, 2)))


def read_clip(
    path: str,
    num_frames: int = 16,
    frame_stride: int = 4,
    image_size: int = 0,
    middle: float = 1.0,
    shown: View | None = None,
) -> np.ndarray:
    """The clip in the middle of a file, uint8 frames x height x width x 3.

    Args:
        path: a file or a slice of a stored archive.
        num_frames: frames per clip.
        frame_stride: distance of two frames.
        image_size, middle: ``size`` and ``middle`` of :func:`.crop_and_resize`.
        shown: read this view instead.

    Raises:
        DecodeError: the file is unusable.
        InputError: PyAV is not installed.
    """
    place, across = View() if shown is None else shown
    short_side = _short_side(image_size, middle if across is None else 1.0)
    with _decoded(path, num_frames, frame_stride, short_side, [place]) as (frames,):
        box = None if across is None else _square(frames.shape[2], frames.shape[1], across)
        return _copied(crop_and_resize(frames, image_size, middle, box).permute(0, 2, 3, 1)).numpy()


def _square(width: int, height: int, across: float) -> Box:
    side = min(width, height)
    left, upper = round((width - side) * across), round((height - side) * across)
    return left, upper, left + side, upper + side


@contextmanager
def _decoded(
    path: str, num_frames: int, stride: int, short_side: int | None, places: Sequence[float]
) -> Iterator[np.ndarray]:
    """Clips x num_frames x height x width x 3, in memory that is valid inside the ``with`` only."""
    with borrowed_reader() as reader:
        yield reader.clips(path, places, num_frames, stride, short_side, copy=False).numpy()


def _copied(pixels: torch.Tensor) -> torch.Tensor:
    """A copy outside the memory that the decoding process writes to."""
    return pixels.clone(memory_format=torch.contiguous_format)


def _short_side(image_size: int, valid_crop: float) -> int | None:
    return round(image_size / valid_crop) if image_size else None


def check_clip(num_frames: int, frame_stride: int) -> None:
    """Raise :class:`InputError` for invalid values."""
    if num_frames < 1 or frame_stride < 1:
        raise InputError(
            f"task.num_frames is {num_frames} and task.frame_stride {frame_stride}; expected at least 1 each"
        )
