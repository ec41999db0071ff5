"""From an image file to RGB pixels: decoding by Pillow, cropping and resizing by torch.

Reads JPEG, PNG, WebP, BMP, GIF, PNM and TIFF. Grey, palette, CMYK and other colour modes are converted to RGB, 16-bit
values to their upper 8 bits. Transparent images are put on white. EXIF rotation is applied. Only the first frame is
read. A truncated file is an error; half an image must not be trained on.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional

from bridle_fairseq.data.manifests.archive import read_slice, split_slice
from bridle_fairseq.utils.errors import DecodeError

MAX_PIXELS = 89_478_485  # where Pillow begins to warn of decompression bombs: 256 MiB of RGB
MIN_SIDE = 2  # pixels
Box = tuple[int, int, int, int]  # left, upper, right, lower


def check_header(path: str) -> tuple[int, int]:
    """Width and height from the header, before rotation.

    Raises:
        DecodeError: missing, empty, not an image, or too many or too few pixels.
    """
    with _opened(path) as image:
        return image.size


def decode(path: str) -> np.ndarray:
    """Decode an image file, or a slice of a stored zip archive: RGB, uint8 height x width x 3, upright.

    Raises:
        DecodeError: as :func:`check_header`, or corrupt or truncated.
    """
    with _opened(path) as image:
        return np.array(_as_rgb(ImageOps.exif_transpose(image)))


def crop_and_resize(frames: np.ndarray, size: int, middle: float = 1.0, box: Box | None = None) -> Tensor:
    """Crop all frames alike and resize them: uint8 n x 3 x size x size, in any memory layout.

    Args:
        frames: uint8 n x height x width x 3; an image is one frame.
        size: height and width of the result (bicubic, antialiased); 0: neither crop nor resize.
        middle: without a box, crop the centre square whose side is this share of the shorter side, in whole pixels.
            This equals resizing the shorter side to size / middle and a centre crop.
        box: box of the crop; pixels outside it have no influence.
    """
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2)  # n x 3 x height x width
    if not size:
        return pixels
    height, width = pixels.shape[2:]
    if box is None:
        side = max(1, round(middle * min(height, width)))
        left, upper = (width - side) // 2, (height - side) // 2
        box = left, upper, left + side, upper + side
    left, upper, right, lower = box
    pixels = pixels[:, :, upper:lower, left:right]
    if pixels.shape[2:] == (size, size):
        return pixels
    return functional.interpolate(pixels, (size, size), mode="bicubic", antialias=True)


def read_image(path: str, size: int = 0, middle: float = 1.0) -> np.ndarray:
    """Pixels of a file, uint8 3 x height x width: see :func:`decode` and :func:`crop_and_resize`."""
    return crop_and_resize(decode(path)[None], size, middle)[0].contiguous().numpy()


@contextmanager
def _opened(path: str) -> Iterator[Image.Image]:
    """An open image with a checked header; any error inside the ``with`` becomes a :class:`DecodeError`."""
    try:
        file, offsets = split_slice(path)
        if os.path.getsize(file) == 0:
            raise DecodeError("empty file")
        with Image.open(file if offsets is None else io.BytesIO(read_slice(file, *offsets))) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise DecodeError(f"{width} x {height} pixels, more than the {MAX_PIXELS} allowed")
            if min(width, height) < MIN_SIDE:
                raise DecodeError(f"{width} x {height} pixels; expected {MIN_SIDE} at least on either side")
            yield image
    except DecodeError:
        raise
    except Image.DecompressionBombError:
        raise DecodeError(f"far more pixels than the {MAX_PIXELS} allowed") from None
    except Image.UnidentifiedImageError:
        raise DecodeError("not readable as an image") from None
    except Exception as error:  # a corrupt file can raise any exception: OSError, SyntaxError, struct.error ...
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:120] or type(error).__name__
        raise DecodeError(reason if isinstance(error, FileNotFoundError) else f"corrupt: {reason}") from None


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey, in one of Pillow's several modes
        values = np.asarray(image).astype(np.int64)
        image = Image.fromarray((values.clip(0, 65535) >> 8).astype(np.uint8))
    if image.mode == "F":
        raise DecodeError("floating-point pixels; expected whole numbers")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image)
    return image.convert("RGB")
