"""Images of a page: PNG files and colours of codes."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from bridle_fairseq.report.images import code_colours, heat, png_uri


def test_png_has_the_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    kind, _, data = png_uri(pixels).partition(",")
    assert kind == "data:image/png;base64"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), pixels)


def test_similar_codes_get_similar_colours_and_all_differ() -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(8, 16)) * 5
    codebook = np.concatenate([centres + 0.01 * rng.normal(size=(8, 16)) for _ in range(2)])
    colours = code_colours(codebook).astype(float)
    near = np.abs(colours[:8] - colours[8:]).mean()
    far = np.abs(colours[:8, None] - colours[None, 8:]).mean()
    assert near < far / 2
    assert len({tuple(colour) for colour in colours}) > 12


@pytest.mark.parametrize("codes,width", [(1024, 64), (2, 1), (3, 2)])
def test_colours_for_any_codebook(codes: int, width: int) -> None:
    assert code_colours(np.random.default_rng(0).normal(size=(codes, width))).shape == (codes, 3)


def test_large_values_are_light() -> None:
    colours = heat(np.linspace(0, 1, 12).reshape(3, 4))
    assert colours.shape == (3, 4, 3) and colours.dtype == np.uint8
    assert (np.diff(colours.astype(int).sum(2).ravel()) >= 0).all()
