"""Image decoding to RGB, cropping and resizing, and bad files."""

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from bridle_fairseq.data.image import decode as pixels
from bridle_fairseq.data.image.decode import check_header, crop_and_resize, decode, read_image
from bridle_fairseq.data.manifests.archive import members
from bridle_fairseq.utils.errors import DecodeError

SHARED = Path(os.environ.get("BRIDLE_DATA", Path(__file__).parents[4] / "shared" / "data")) / "images" / "clothing10"


@pytest.fixture
def picture():
    """Smooth colour gradients, 40 x 30 pixels, which survive JPEG compression."""
    y, x = np.mgrid[:30, :40]
    return np.stack([4 * x, 6 * y, 120 + x - y], -1).astype(np.uint8)


def saved(folder, image, name, **options):
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    image.save(folder / name, **options)
    return str(folder / name)


@pytest.mark.parametrize(
    "name", ["a.png", "a.bmp", "a.gif", "a.ppm", "a.tif", "a.webp", "a.jpg", "a.JPEG", "progressive.jpg"]
)
def test_all_formats_decode_alike(tmp_path, picture, name):
    options = {"lossless": True} if name.endswith("webp") else {}
    options |= {"quality": 97} if "jp" in name.lower() else {}
    path = saved(tmp_path, picture, name, **options, **({"progressive": True} if "prog" in name else {}))
    rgb = read_image(path)
    assert rgb.shape == (3, 30, 40) and rgb.dtype == np.uint8 and rgb.flags.c_contiguous
    tolerance = {"g": 12, "f": 20}.get(name.lower()[-1], 0) if not name.endswith(("png", "tif")) else 0
    assert np.abs(rgb.transpose(1, 2, 0).astype(int) - picture).max() <= tolerance
    assert check_header(path) == (40, 30)


def test_grey_palette_and_one_bit_modes(tmp_path, picture):
    grey = picture[..., 0]
    for name, image in (("l.png", Image.fromarray(grey)), ("l.jpg", Image.fromarray(grey))):
        rgb = read_image(saved(tmp_path, image, name))
        assert (rgb == rgb[0]).all() and np.abs(rgb[0].astype(int) - grey).max() <= 4
    palette = Image.fromarray(picture).quantize(256)
    rgb = read_image(saved(tmp_path, palette, "p.png"))
    assert np.abs(rgb.transpose(1, 2, 0).astype(int) - picture).mean() < 6
    rgb = read_image(saved(tmp_path, Image.fromarray(grey > 80), "one.png"))
    assert np.array_equal(rgb[0], np.where(grey > 80, 255, 0))


def test_transparency_is_put_on_white(tmp_path):
    image = np.zeros((4, 4, 4), np.uint8)
    image[..., 0], image[:2, :, 3], image[2, :, 3] = 200, 255, 128
    rgb = read_image(saved(tmp_path, image, "rgba.png"))
    assert rgb[:, 0, 0].tolist() == [200, 0, 0] and rgb[:, 3, 0].tolist() == [255, 255, 255]
    assert rgb[:, 2, 0].tolist() == pytest.approx([227, 127, 127], abs=1)
    palette = Image.fromarray(image[..., :3]).quantize(4)
    rgb = read_image(saved(tmp_path, palette, "p.png", transparency=0))
    assert (rgb == 255).all()
    grey = Image.merge("LA", (Image.new("L", (4, 4), 10), Image.new("L", (4, 4), 0)))
    assert (read_image(saved(tmp_path, grey, "la.png")) == 255).all()


def test_16_bit_values_keep_upper_8_bits(tmp_path):
    values = np.array([[0, 255, 256], [30000, 65280, 65535], [1, 2, 3]], np.uint16)
    for name in ("a.png", "a.tif"):
        rgb = read_image(saved(tmp_path, values, name))
        assert np.array_equal(rgb[0], values >> 8) and np.array_equal(rgb[0], rgb[2])
    path = saved(tmp_path, np.full((3, 3), 0.5, np.float32), "float.tif")
    with pytest.raises(DecodeError, match="floating-point pixels"):
        decode(path)


def test_cmyk(tmp_path):
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    red, green, blue = read_image(saved(tmp_path, image, "a.jpg", quality=100))[:, 4, 4].tolist()
    assert red > 240 and green < 15 and blue < 15


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(tmp_path, orientation):
    upright = np.zeros((16, 24, 3), np.uint8)
    upright[:8, :8] = 255  # upper left
    turns = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Image.Transpose that takes upright to what is stored
    stored = Image.fromarray(upright)
    if turns[orientation] is not None:
        stored = stored.transpose(Image.Transpose(turns[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    rgb = read_image(saved(tmp_path, stored, "a.jpg", exif=exif, quality=100))
    assert rgb.shape == (3, 16, 24)
    assert rgb[:, 2, 2].min() > 200 and max(rgb[:, 2, 20].max(), rgb[:, 13, 2].max()) < 50


def test_first_frame_of_animation(tmp_path):
    frames = [Image.new("RGB", (6, 6), colour) for colour in ("red", "lime")]
    for name in ("a.gif", "a.webp"):
        path = saved(tmp_path, frames[0], name, save_all=True, append_images=frames[1:])
        assert read_image(path)[:, 3, 3].tolist() == pytest.approx([255, 0, 0], abs=6)


def test_archive_slice(tmp_path, picture):
    saved(tmp_path, picture, "a.png")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.write(tmp_path / "a.png", "some/a.png")
    ((_, offset, length),) = members(tmp_path / "x.zip")
    rgb = read_image(f"{tmp_path / 'x.zip'}:{offset}:{length}")
    assert np.array_equal(rgb.transpose(1, 2, 0), picture)
    with pytest.raises(DecodeError, match="not in the archive"):
        read_image(f"{tmp_path / 'x.zip'}:{offset}:{length + 9999}")


def test_bad_files(tmp_path, picture, monkeypatch):
    whole = {kind: io.BytesIO() for kind in ("JPEG", "PNG", "WEBP")}
    for kind, file in whole.items():
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(file, kind)
        (tmp_path / f"truncated.{kind}").write_bytes(file.getvalue()[: len(file.getvalue()) * 2 // 3])
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("no image at all")
    saved(tmp_path, picture[:1, :1], "dot.png")
    saved(tmp_path, picture[:1], "line.png")
    reasons = {
        **{f"truncated.{kind}": "corrupt" for kind in whole},
        "empty.jpg": "^empty file$",
        "text.jpg": "^not readable as an image$",
        "dot.png": "^1 x 1 pixels; expected 2 at least on either side$",
        "line.png": "^40 x 1 pixels",
        "none.jpg": "^No such file",
    }
    for name, reason in reasons.items():
        with pytest.raises(DecodeError, match=reason) as caught:
            decode(str(tmp_path / name))
        assert "\n" not in str(caught.value)
    monkeypatch.setattr(pixels, "MAX_PIXELS", 1199)
    with pytest.raises(DecodeError, match="^40 x 30 pixels, more than the 1199 allowed$"):
        check_header(saved(tmp_path, picture, "a.png"))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("side", "reason"), [(10000, "10000 x 10000 pixels, more"), (20000, "far more pixels than")])
def test_decompression_bomb_is_refused_by_header(tmp_path, side, reason):
    Image.new("1", (side, side)).save(tmp_path / "bomb.png")
    assert (tmp_path / "bomb.png").stat().st_size < 100_000
    for read in (check_header, decode):
        with pytest.raises(DecodeError, match=reason):
            read(str(tmp_path / "bomb.png"))


def test_centre_crop_equals_resize_then_crop():
    random = np.random.default_rng(0)
    smooth = Image.fromarray(random.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize((450, 300), 3)
    (rgb,) = crop_and_resize(np.array(smooth)[None], 56, 0.875)
    assert rgb.shape == (3, 56, 56) and rgb.dtype == torch.uint8
    resized = smooth.resize((96, 64), Image.Resampling.BICUBIC)
    expected = np.asarray(resized.crop((20, 4, 76, 60))).transpose(2, 0, 1)
    assert np.abs(rgb.numpy().astype(int) - expected).mean() < 1.5
    (whole,) = crop_and_resize(np.array(smooth)[None], 0)
    assert whole.shape == (3, 300, 450) and tuple(whole[:, 7, 5].tolist()) == smooth.getpixel((5, 7))


@pytest.mark.parametrize("size", [16, 20, 64])
def test_resize_matches_pillow(size):
    """Downscaling, same size, upscaling; several frames at once equal each frame alone."""
    frames = np.random.default_rng(0).integers(0, 256, (3, 40, 50, 3), dtype=np.uint8)
    rgb = crop_and_resize(frames, size, box=(7, 3, 27, 23))
    for frame, shown in zip(frames, rgb, strict=True):
        cropped = Image.fromarray(frame).crop((7, 3, 27, 23)).resize((size, size), Image.Resampling.BICUBIC)
        difference = np.abs(np.asarray(cropped).astype(int) - shown.permute(1, 2, 0).numpy())
        assert difference.max() <= (0 if size == 20 else 2)


def test_pixels_outside_box_have_no_influence():
    image = np.zeros((1, 20, 30, 3), np.uint8)
    image[:, 5:15, 10:20] = 255
    assert (crop_and_resize(image, 8, box=(10, 5, 20, 15)) == 255).all()
    assert crop_and_resize(image, 8, box=(9, 5, 20, 15)).min() < 255


def test_long_strip():
    strip = np.zeros((1, 2, 40000, 3), np.uint8)
    strip[:, :, 19999:20001] = 255
    assert (crop_and_resize(strip, 64, 1.0) == 255).all() and crop_and_resize(strip, 64, 1.0).shape == (1, 3, 64, 64)


@pytest.mark.skipif(not SHARED.is_dir(), reason="no $BRIDLE_DATA/images, no ../shared/data/images")
def test_real_files_match_pillow():
    paths = sorted(SHARED.glob("test/*/*.jpg"))
    assert len(paths) == 240
    for path in paths:
        with Image.open(path) as image:
            assert np.array_equal(read_image(str(path)), np.asarray(image.convert("RGB")).transpose(2, 0, 1)), path


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_equals_that_of_pillow(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8))
    path = saved(tmp_path, stored, "a.png", exif=exif)
    with Image.open(path) as image:
        assert np.array_equal(decode(path), np.asarray(ImageOps.exif_transpose(image)))


def test_formats_that_start_programs_are_refused(tmp_path, monkeypatch):
    """Pillow starts "gs" for PostScript."""
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    (tmp_path / "a.jpg").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\nshowpage\n")
    saved(tmp_path, np.zeros((8, 8, 3), np.uint8), "b.tga")
    for name in ("a.jpg", "b.tga"):
        with pytest.raises(DecodeError, match="^not readable as an image$"):
            decode(str(tmp_path / name))
    assert not (tmp_path / "started").exists()


def test_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(DecodeError, match="^not a regular file$"):
        check_header(str(tmp_path / "a.png"))
