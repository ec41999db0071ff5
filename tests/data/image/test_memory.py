"""Memory of a process that reads images, and images that are decoded at a fraction of their size."""

import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from bridle_fairseq.data.image import memory
from bridle_fairseq.data.image.decode import check_header, decode
from bridle_fairseq.utils.errors import DecodeError

READ_AND_PRINT_PEAK = """
import re, sys
from bridle_fairseq.data.image.decode import read_image
assert read_image(sys.argv[1], 32, 0.875).shape == (3, 32, 32)
print(int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1]) >> 10)
"""


def test_reading_takes_less_than_500_megabytes(tmp_path):
    """A grey PNG of 16 bits, 177 MB, in a file of 172 kB: without strips, 2 GB."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    compressor, row = zlib.compressobj(1), bytes(1 + 2 * 9400)
    pixels = b"".join(compressor.compress(row) for _ in range(9400)) + compressor.flush()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 9400, 9400, 16, 0, 0, 0, 0))
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))
    command = [sys.executable, "-c", READ_AND_PRINT_PEAK, str(path)]
    assert int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) < 500


@pytest.fixture
def picture():
    """Smooth, 400 x 304 pixels."""
    y, x = np.mgrid[:304, :400]
    return np.stack([x // 2, y // 2, (x + y) // 4], -1).astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "options", "bytes_per_pixel"),
    [
        ("a.png", {}, 7),  # 4 as stored by Pillow, 3 of RGB
        ("a.jpg", {}, 7),
        ("progressive.jpg", {"progressive": True, "subsampling": 0}, 10),  # and 2 of each coefficient
        ("a.bmp", {}, 7),
        ("a.tif", {"compression": "tiff_lzw", "tiffinfo": {278: 304}}, 8),  # one strip: 4 besides those stored
    ],
)
def test_larger_images_are_decoded_at_half_size(tmp_path, monkeypatch, picture, name, options, bytes_per_pixel):
    path = str(tmp_path / name)
    Image.fromarray(picture).save(path, **options)
    file = (tmp_path / name).stat().st_size if name == "a.tif" else 0
    monkeypatch.setattr(memory, "MAX_BYTES", 304 * 400 * bytes_per_pixel + file)
    whole = decode(path)
    assert whole.shape == picture.shape
    monkeypatch.setattr(memory, "MAX_BYTES", memory.MAX_BYTES - 1)
    if name in ("progressive.jpg", "a.tif"):  # these take as much, or nearly, at any size of the result
        monkeypatch.setattr(memory, "MAX_BYTES", 304 * 400 * 7)
    if name == "a.tif":
        with pytest.raises(DecodeError, match=r"^400 x 304 pixels, \d MB to decode; expected 0 at most$"):
            check_header(path)
        return
    half = decode(path)
    assert half.shape == (152, 200, 3)
    expected = picture.reshape(152, 2, 200, 2, 3).mean((1, 3))
    assert np.abs(half - expected).max() < (8 if "jpg" in name else 1.01)


@pytest.mark.parametrize("mode", ["1", "L", "P", "I;16", "RGBA", "LA", "CMYK"])
def test_strips_do_not_change_pixels(tmp_path, monkeypatch, picture, mode):
    path = str(tmp_path / "a.tif")
    image = Image.fromarray(picture).convert("RGBA" if mode == "LA" else "L" if mode == "I;16" else mode)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    if mode in ("RGBA", "LA"):
        image.putalpha(Image.fromarray(picture[..., 2]))
    image.convert(mode if mode != "I;16" else None).save(path)
    whole = decode(path)
    monkeypatch.setattr("bridle_fairseq.data.image.decode.STRIP_BYTES", 4 * 400 * 7)
    assert np.array_equal(decode(path), whole) and whole.std() > 10


@pytest.mark.parametrize(
    ("header", "fits"),
    [
        (b"P6 2048 2048 100 ", True),
        (b"P6 2049 2048 100 ", False),
        (b"P3 2049 2048 255 ", False),
        (b"P6 2049 2048 255 ", True),
    ],
)
def test_variants_that_are_slow_to_decode_have_fewer_pixels(tmp_path, header, fits):
    (tmp_path / "a.ppm").write_bytes(header)
    if fits:
        assert check_header(str(tmp_path / "a.ppm"))[1] == 2048
    else:
        with pytest.raises(DecodeError, match=r"2049 x 2048 pixels in a variant of PPM that is slow.* 4194304 pixels"):
            check_header(str(tmp_path / "a.ppm"))
