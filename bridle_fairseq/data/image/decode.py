"""From an image file to RGB pixels: the one place that decodes images (by Pillow) and resizes pixels (by torch).

JPEG, PNG, WebP, BMP, GIF, PNM and TIFF; grey, palette, CMYK and other colour models become RGB, 16 bits their upper 8;
what is transparent is put on white; rotation by EXIF is done; of several frames the first is taken. A file that ends
too early is no image: half a picture would be learned from as if it were whole.
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

MAX_PIXELS = 89_478_485  # where Pillow begins to warn of bombs: 256 MiB of RGB
MIN_SIDE = 2  # pixels; less shows nothing
Box = tuple[int, int, int, int]


def check_header(path: str) -> tuple[int, int]:
    """Width and height as the header says (before any rotation).

    Raises:
        DecodeError: missing, empty, no image, of too many pixels or of too few.
    """
    with _opened(path) as image:
        return image.size


def decode(path: str) -> np.ndarray:
    """An image file, or a slice of a stored zip archive, the right way up: RGB, uint8 height x width x 3.

    Raises:
        DecodeError: as :func:`check_header`; also corrupt, or shorter than it says.
    """
    with _opened(path) as image:
        return np.array(_as_rgb(ImageOps.exif_transpose(image)))


def view(frames: np.ndarray, size: int, middle: float = 1.0, box: Box | None = None) -> Tensor:
    """A part of frames, the same of all: uint8 n x 3 x size x size, in any order in memory.

    Args:
        frames: uint8 n x height x width x 3; an image is one frame.
        size: height and width to which the part is resized (bicubic, antialiased); 0: all of the frames as they are.
        middle: without a box, the part is the square in the middle with this share of the shorter side, in whole
            pixels: what resizing to size / middle and a crop of the centre leave.
        box: left, upper, right, lower of the part; nothing outside it is seen.
    """
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2)
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
    """Pixels of a file, uint8 3 x height x width: see :func:`decode` and :func:`view`."""
    return view(decode(path)[None], size, middle)[0].contiguous().numpy()


@contextmanager
def _opened(path: str) -> Iterator[Image.Image]:
    """An image whose header has been checked; whatever goes wrong with it is a DecodeError."""
    try:
        file, piece = split_slice(path)
        if os.path.getsize(file) == 0:
            raise DecodeError("empty file")
        with Image.open(file if piece is None else io.BytesIO(read_slice(file, *piece))) as image:
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
    except Exception as error:  # what is corrupt fails in any way there is: OSError, SyntaxError, struct.error ...
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:120] or type(error).__name__
        raise DecodeError(reason if isinstance(error, FileNotFoundError) else f"corrupt: {reason}") from None


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits of grey, in one of several ways to hold them
        values = np.asarray(image).astype(np.int64)
        image = Image.fromarray((values.clip(0, 65535) >> 8).astype(np.uint8))
    if image.mode == "F":
        raise DecodeError("floating-point pixels; expected whole numbers")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image)
    return image.convert("RGB")
