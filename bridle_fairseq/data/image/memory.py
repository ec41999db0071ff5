"""How much memory an image takes while it is decoded, from its header."""

from __future__ import annotations

from fractions import Fraction

from PIL import ExifTags, Image, TiffImagePlugin

from bridle_fairseq.utils.errors import DecodeError

MAX_BYTES = 188 << 20  # with Python and torch, a process that reads an image stays below 500 MB
MAX_REDUCTION = 8
# Pillow stores most modes in 4 bytes per pixel
STORED = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16L": 2, "I;16B": 2, "I;16N": 2}
TILE_WIDTH, TILE_LENGTH = 322, 323  # tags of TIFF
# Decoders of Pillow in Python: they hold all values several times, and read a megapixel in 1 to 2 s.
IN_PYTHON = ("ppm", "ppm_plain", "bmp_rle")
MAX_PIXELS_IN_PYTHON = 1 << 22


def reduction(image: Image.Image, num_bytes: int) -> int:
    """The smallest factor by which an open image's sides must be reduced, so that reading takes :data:`MAX_BYTES`.

    A JPEG is reduced while it is decoded, by 1, 2, 4 or 8; others are converted to RGB in strips, which are reduced.

    Args:
        image: the image.
        num_bytes: size of its file.

    Raises:
        DecodeError: there is none, or decoding would take long.
    """
    pixels, stored, extra = image.width * image.height, STORED.get(image.mode, 4), _while_decoding(image)
    if _in_python(image) and pixels > MAX_PIXELS_IN_PYTHON:
        raise DecodeError(
            f"{image.width} x {image.height} pixels in a variant of {image.format} that is slow to decode; expected "
            f"{MAX_PIXELS_IN_PYTHON} pixels at most"
        )
    if image.format != "WEBP" and not _by_libtiff(image):  # which hold all of the file
        num_bytes = 0
    jpeg, need = image.format == "JPEG", Fraction()
    for factor in (1, 2, 4, 8) if jpeg else range(1, MAX_REDUCTION + 1):
        kept = Fraction(stored, factor**2) if jpeg else stored
        need = num_bytes + pixels * (kept + max(extra, Fraction(3, factor**2)))
        if need <= MAX_BYTES:
            return factor
    size, most = f"{image.width} x {image.height} pixels", MAX_BYTES // 10**6
    raise DecodeError(f"{size}, {int(need / 10**6)} MB to decode; expected {most} at most")


def _while_decoding(image: Image.Image) -> Fraction:
    """Bytes per pixel that the decoder needs besides the pixels."""
    if image.format == "JPEG":
        return _coefficients(image)
    if image.format == "WEBP":
        return Fraction(12)  # two canvases and the frame
    if image.format == "GIF":
        return Fraction(1)  # what is disposed
    if image.format == "TIFF":
        return _strip(image)
    return Fraction(12 if _in_python(image) else 0)


def _in_python(image: Image.Image) -> bool:
    return any(tile[0] in IN_PYTHON for tile in image.tile)  # type: ignore[attr-defined]


def _by_libtiff(image: Image.Image) -> bool:
    return any(tile[0] == "libtiff" for tile in image.tile)  # type: ignore[attr-defined]


def _strip(image: Image.Image) -> Fraction:
    """A TIFF's largest strip or tile, as bytes per pixel of the image; or the image as it was before it is turned."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    bits = tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,))
    sample = max(Fraction(tags.get(TiffImagePlugin.SAMPLESPERPIXEL, 1) * max(bits), 8), Fraction(4))
    pixels = image.width * min(tags.get(TiffImagePlugin.ROWSPERSTRIP, image.height), image.height)
    if TILE_WIDTH in tags:
        pixels = tags[TILE_WIDTH] * tags.get(TILE_LENGTH, image.height)
    strip = sample * pixels / (image.width * image.height) if _by_libtiff(image) else Fraction(0)
    turned = tags.get(ExifTags.Base.Orientation, 1) != 1
    return max(strip, Fraction(STORED.get(image.mode, 4))) if turned else strip


def _coefficients(image: Image.Image) -> Fraction:
    """A JPEG's, of 2 bytes: all of them are held if its components are not in one scan."""
    layers = image.layer  # type: ignore[attr-defined]  # (number, horizontal and vertical sampling, table) each
    file, length = image.fp, 6 + 2 * len(layers)  # type: ignore[attr-defined]  # of the first scan's header, just read
    place = file.tell()
    file.seek(place - length)
    one_scan = file.read(3) == bytes([0, length, len(layers)])
    file.seek(place)
    if one_scan and not image.info.get("progressive"):
        return Fraction(0)
    across, down = (max(layer[axis] for layer in layers) for axis in (1, 2))
    return Fraction(2 * sum(layer[1] * layer[2] for layer in layers), max(1, across * down))
