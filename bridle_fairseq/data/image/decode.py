"""From an image file to RGB pixels: decoding by Pillow, cropping and resizing by torch.

Reads JPEG, PNG, WebP, BMP, GIF, PNM and TIFF, whatever the file is named, and nothing else: other decoders of Pillow
start programs. Grey, palette, CMYK and other colour modes are converted to RGB, 16-bit values to their upper 8 bits.
Transparent images are put on white. EXIF rotation is applied. Only the first frame is read. A truncated file is an
error; half an image must not be trained on.

Decoding takes at most :data:`~.memory.MAX_BYTES`. An image that would take more at full size is decoded at a fraction
of its size, from about 28 megapixels on; it is refused if that takes more, too.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from PIL import ExifTags, Image, TiffImagePlugin, WebPImagePlugin  # noqa: F401 (the last two register formats)
from torch import Tensor
from torch.nn import functional

from bridle_fairseq.data.image.memory import reduction
from bridle_fairseq.data.manifests.archive import Slice, split_slice
from bridle_fairseq.data.regular import check_regular
from bridle_fairseq.utils.errors import DecodeError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM", "TIFF")  # "PPM": all of PNM
STRIP_BYTES = 1 << 22  # of the pixels that are converted at a time, at 4 bytes each
# EXIF's orientation -> what turns an upright image's stored rows and columns upright again
TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: np.fliplr,
    3: lambda stored: np.rot90(stored, 2),
    4: np.flipud,
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored, 2).transpose(1, 0, 2),
    8: np.rot90,
}
MAX_PIXELS = 89_478_485  # where Pillow begins to warn of decompression bombs: 256 MiB of RGB
MIN_SIDE = 2  # pixels
Box = tuple[int, int, int, int]  # left, upper, right, lower


def check_header(path: str) -> tuple[int, int]:
    """Width and height from the header, before rotation.

    Raises:
        DecodeError: missing, empty, not an image, or too many or too few pixels, also for the memory of a reader.
    """
    with _opened(path) as (image, num_bytes):
        reduction(image, num_bytes)
        return image.size


def decode(path: str) -> np.ndarray:
    """Decode an image file, or a slice of a stored zip archive: RGB, uint8 height x width x 3, upright.

    Raises:
        DecodeError: as :func:`check_header`, or corrupt or truncated.
    """
    pixels, orientation = _decoded(path)
    turn = TURNS.get(orientation)
    return pixels if turn is None else np.ascontiguousarray(turn(pixels))


def _decoded(path: str) -> tuple[np.ndarray, int]:
    """RGB as stored, and EXIF's orientation."""
    with _opened(path) as (image, num_bytes):
        factor = reduction(image, num_bytes)
        if factor > 1 and image.format == "JPEG":
            image.draft(image.mode, (image.width // factor, image.height // factor))
            factor = 1
        image.load()
        return as_rgb(image, factor), image.getexif().get(ExifTags.Base.Orientation, 1)


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
def _opened(path: str) -> Iterator[tuple[Image.Image, int]]:
    """An open image with a checked header, and its file's size; any error inside becomes a :class:`DecodeError`."""
    try:
        name, offsets = split_slice(path)
        num_bytes = check_regular(name)
        num_bytes = num_bytes if offsets is None else offsets[1]
        file = name if offsets is None else io.BufferedReader(Slice(name, *offsets))
        with Image.open(file, formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise DecodeError(f"{width} x {height} pixels, more than the {MAX_PIXELS} allowed")
            if min(width, height) < MIN_SIDE:
                raise DecodeError(f"{width} x {height} pixels; expected {MIN_SIDE} at least on either side")
            yield image, num_bytes
    except DecodeError:
        raise
    except Image.DecompressionBombError:
        raise DecodeError(f"far more pixels than the {MAX_PIXELS} allowed") from None
    except Image.UnidentifiedImageError:
        raise DecodeError("not readable as an image") from None
    except Exception as error:  # a corrupt file can raise any exception: OSError, SyntaxError, struct.error ...
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:120] or type(error).__name__
        raise DecodeError(reason if isinstance(error, FileNotFoundError) else f"corrupt: {reason}") from None


def as_rgb(image: Image.Image, factor: int = 1) -> np.ndarray:
    """Pixels of a loaded image, uint8 height x width x 3, averaged over ``factor`` x ``factor``, in parts."""
    if image.mode == "F":
        raise DecodeError("floating-point pixels; expected whole numbers")
    width, height = image.size
    out = np.empty((-(-height // factor), -(-width // factor), 3), np.uint8)
    columns = min(width, max(1, STRIP_BYTES // 4 // factor // factor) * factor)
    rows = max(1, STRIP_BYTES // 4 // columns // factor) * factor
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            part = image.crop((left, top, min(left + columns, width), min(top + rows, height)))
            rgb = _part_as_rgb(part) if factor == 1 else _part_as_rgb(part).reduce(factor)
            out[top // factor :, left // factor :][: rows // factor, : -(-columns // factor)] = np.asarray(rgb)
    return out


def _part_as_rgb(strip: Image.Image) -> Image.Image:
    if strip.mode.startswith("I"):  # 16-bit grey, in one of Pillow's several modes
        values = np.asarray(strip).astype(np.int64)
        strip = Image.fromarray((values.clip(0, 65535) >> 8).astype(np.uint8))
    if strip.has_transparency_data:
        strip = strip.convert("RGBA")
        strip = Image.alpha_composite(Image.new("RGBA", strip.size, (255, 255, 255, 255)), strip)
    return strip.convert("RGB")
