"""Images as a modality."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from bridle_fairseq.data.image.augment import ImageAugment, StrongImageAugment
from bridle_fairseq.data.image.dataset import ImageDataset, ImageReader
from bridle_fairseq.data.image.decode import check_header
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.data.modality import Modality, Reader
from bridle_fairseq.utils.errors import InputError

if TYPE_CHECKING:
    from bridle_fairseq.nn.frontend import FrontEnd


class ImageModality(Modality):
    """Image files; each is one segment of size 1."""

    name = "image"
    files = "images"
    extensions: tuple[str, ...] = (
        *("jpg", "jpeg", "jfif", "png", "webp", "bmp", "gif", "ppm", "pgm", "pbm", "tif", "tiff"),
    )
    other_extensions: tuple[str, ...] = (
        *("avif", "cr2", "cr3", "arw", "dng", "nef", "orf", "raf", "rw2", "exr", "hdr", "heic", "heif", "ico"),
        *("jp2", "jxl", "pcx", "pdf", "psd", "svg", "tga", "dcm"),
    )
    advice = "no format that is read; convert it, such as to .png"

    def measure(self, path: str) -> int:
        """1, after a check of the header."""
        check_header(path)
        return 1

    def dataset(self, manifest: Manifest, cfg: Any, training: bool = False, **options: Any) -> ImageDataset:
        """See :meth:`Modality.dataset`."""
        return ImageDataset(manifest, **self._pixel_options(cfg, training), **options)

    @staticmethod
    def _pixel_options(cfg: Any, training: bool) -> dict[str, Any]:
        """Arguments of an :class:`ImageDataset` that follow from the task."""
        options: dict[str, Any] = {"image_size": cfg.image_size, "valid_crop": cfg.valid_crop, "training": training}
        if training:
            options |= {"seed": cfg.seed, "num_buckets": cfg.num_buckets}
            options["repeats"] = getattr(cfg, "repeats", 1)  # missing in old checkpoints
            options["strong_augment"] = StrongImageAugment(cfg.rand_augment, cfg.rand_magnitude, cfg.erase)
            if cfg.crop or cfg.flip:
                options["augment"] = ImageAugment(cfg.crop, cfg.min_area, cfg.flip)
        return options

    def reader(self, cfg: Any) -> Reader:
        """See :meth:`Modality.reader`."""
        return ImageReader(cfg.image_size, cfg.valid_crop)

    def segment(self, cfg: Any, seconds: float | None = None) -> int:
        """1: an image, or a clip of video, is always one segment."""
        if seconds is not None:
            raise InputError(f"a length of {seconds:g} seconds; expected none: it is for sound")
        return 1

    def layout_of_codes(self, cfg: Any, front_end: FrontEnd, segment: int) -> dict[str, Any]:
        """See :meth:`Modality.layout_of_codes`."""
        if not cfg.image_size:
            raise InputError(
                "codes and features are of images of one size; expected a checkpoint trained with task.image_size "
                "above 0"
            )
        grid = front_end.grid(self._item_sizes(cfg))
        sizes = {"image_size": cfg.image_size, "valid_crop": cfg.valid_crop}
        return {**front_end.layout, **sizes, "columns": grid[-1], "patches_per_segment": math.prod(grid)}

    def _item_sizes(self, cfg: Any) -> tuple[int, ...]:
        """Sizes of an item along all axes but the channels."""
        return cfg.image_size, cfg.image_size
