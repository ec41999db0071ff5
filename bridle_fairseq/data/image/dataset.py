"""Images: a manifest of image files as a data set, and a reader of single files. Nothing here imports fairseq."""

from __future__ import annotations

import math

import numpy as np
import torch

from bridle_fairseq.data.artifacts.codes import CachedCodes
from bridle_fairseq.data.dataset import LoadedRow, MediaDataset
from bridle_fairseq.data.image.augment import ImageAugment, StrongImageAugment
from bridle_fairseq.data.image.decode import check_header, crop_and_resize, decode, read_image
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.data.manifests.skipped import SkipLog
from bridle_fairseq.nn.patch import grid_size
from bridle_fairseq.nn.settings import BridleSettings
from bridle_fairseq.utils.errors import DecodeError, InputError


class ImageDataset(MediaDataset):
    """Pixels of a manifest's images, uint8 3 x height x width: random crops while training, else centre crops.

    Args:
        manifest, training, seed, skips, num_buckets, codes: see :class:`MediaDataset`.
        image_size: height and width of all items; 0: keep each image's size (batches are padded to the largest).
        valid_crop: side of the centre crop, as a share of the shorter side.
        augment: crops and flips while training; None: as in validation.
        strong_augment: further augmentation while training; None: none.
        repeats: number of random views of each file while training; the file is decoded once, and its views stand side
            by side in the batch.

    Raises:
        InputError: invalid settings, a missing file, or codes that do not fit the other settings.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        image_size: int = 224,
        valid_crop: float = 0.875,
        training: bool = False,
        seed: int = 0,
        augment: ImageAugment | None = None,
        strong_augment: StrongImageAugment | None = None,
        repeats: int = 1,
        skips: SkipLog | None = None,
        num_buckets: int = 16,
        codes: CachedCodes | None = None,
    ) -> None:
        self.image_size, self.valid_crop = image_size, valid_crop
        self.augment, self.strong_augment = (augment, strong_augment or None) if training else (None, None)
        self.repeats = repeats if training else 1
        self._check_settings(codes)
        super().__init__(manifest, training=training, seed=seed, skips=skips, num_buckets=num_buckets, codes=codes)
        self.sizes = np.ones(len(manifest), dtype=np.int64)

    def _check_settings(self, codes: CachedCodes | None) -> None:
        check_crop(self.image_size, self.valid_crop)
        if self.repeats < 1:
            raise InputError(f"task.repeats is {self.repeats}; expected at least 1")
        if self.augment is not None and not 0 < self.augment.min_area <= 1:
            raise InputError(f"task.min_area is {self.augment.min_area}; expected a share above 0, up to 1")
        if codes is None:
            return
        if self.augment is not None or self.strong_augment is not None:
            raise InputError("cached codes are of images as they are; expected no augmentation (crop, flip) with them")
        if self.repeats > 1:
            raise InputError(f"cached codes are of one view of each file; expected task.repeats=1, not {self.repeats}")
        if not self.image_size:
            raise InputError("cached codes are of images of one size; expected task.image_size above 0")
        codes.check(image_size=self.image_size, valid_crop=self.valid_crop)

    def _load(self, row: int, random: np.random.Generator) -> LoadedRow:
        _check_size(int(self.manifest.sizes[row]))
        frames = decode(self.manifest.path(row))[None]
        views = [self._crop_and_augment(frames, random)[0].contiguous() for _ in range(self.repeats)]
        return LoadedRow(views, self._cached(row))

    def _crop_and_augment(self, frames: np.ndarray, random: np.random.Generator) -> torch.Tensor:
        """Crop and augment frames alike: n x height x width x 3 -> n x 3 x image_size x image_size."""
        box = None
        if self.augment is not None and self.augment.crop and self.image_size:
            box = self.augment.box(frames.shape[2], frames.shape[1], random)
        shown = crop_and_resize(frames, self.image_size, self.valid_crop, box)
        if self.augment is not None and self.augment.flip and random.random() < 0.5:
            shown = shown.flip(3)
        return shown if self.strong_augment is None else self.strong_augment(shown, random)

    @property
    def item_sizes(self) -> tuple[int, ...]:
        """Height and width of all items; 0 if they differ."""
        return self.image_size, self.image_size

    def approximate_patches(self, settings: BridleSettings) -> float:
        """Exact for images of one size; infinite, that is, assumed to be enough, if sizes differ."""
        if not self.image_size:
            return float("inf")
        return float(len(self) * math.prod(grid_size(self.item_sizes, settings.patch_size)))


class ImageReader:
    """Images as in validation; each is one segment of length 1.

    Args:
        image_size, valid_crop: see :class:`ImageDataset`.
    """

    def __init__(self, image_size: int, valid_crop: float) -> None:
        check_crop(image_size, valid_crop)
        self.image_size, self.valid_crop = image_size, valid_crop

    def length(self, path: str, size: int | None = None) -> int:
        """1, after a check of the header.

        Raises:
            DecodeError: the file is unusable, or the manifest's size is not 1.
        """
        _check_size(1 if size is None else size)
        check_header(path)
        return 1

    def read(self, path: str, start: int = 0, length: int = 1) -> torch.Tensor:
        """uint8 3 x height x width."""
        return torch.from_numpy(read_image(path, self.image_size, self.valid_crop))


def _check_size(size: int) -> None:
    if size != 1:
        raise DecodeError(f"the manifest says size {size}; expected 1, the size of every image")


def check_crop(image_size: int, valid_crop: float) -> None:
    """Raise :class:`InputError` for invalid values."""
    if image_size < 0:
        raise InputError(f"task.image_size is {image_size}; expected a number of pixels, or 0 for images as they are")
    if not 0 < valid_crop <= 1:
        raise InputError(f"task.valid_crop is {valid_crop}; expected a share above 0, up to 1")
