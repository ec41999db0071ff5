"""Charts as SVG, pictures as PNG, colours of codes."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest

from bridle_fairseq.report import charts
from bridle_fairseq.report.charts import Band, Line


def decode(data: bytes) -> np.ndarray:
    from matplotlib import image

    return (image.imread(io.BytesIO(data), format="png")[..., :3] * 255).round().astype(np.uint8)


def test_png_holds_the_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    np.testing.assert_array_equal(decode(charts.png(pixels)), pixels)


def test_like_codes_get_like_colours_and_all_differ() -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(8, 16)) * 5
    codebook = np.concatenate([centres + 0.01 * rng.normal(size=(8, 16)) for _ in range(2)])
    colours = charts.code_colours(codebook).astype(float)
    near = np.abs(colours[:8] - colours[8:]).mean()
    far = np.abs(colours[:8, None] - colours[None, 8:]).mean()
    assert near < far / 2
    assert len({tuple(colour) for colour in colours}) > 12


@pytest.mark.parametrize("codes,width", [(1024, 64), (2, 1), (3, 2)])
def test_colours_for_any_codebook(codes: int, width: int) -> None:
    assert charts.code_colours(np.random.default_rng(0).normal(size=(codes, width))).shape == (codes, 3)


def test_ticks_are_round_and_within() -> None:
    assert charts.ticks(0, 1000) == [0, 250, 500, 750, 1000]
    assert charts.ticks(0, 0.62) == [0, 0.2, 0.4, 0.6]
    assert charts.ticks(3, 3) == [3]


def test_a_line_is_not_drawn_across_the_end_of_a_stage() -> None:
    line = Line("x", [(10, 1.0), (20, 2.0), (30, 5.0), (40, 6.0)], 0)
    svg = charts.line_chart([line], [Band("one", "1", 0, 20), Band("two", "2", 20, 40)], label="x")
    assert len(re.findall("<polyline", svg)) == 2
    assert len(re.findall("<polyline", charts.line_chart([line], label="x"))) == 1


def test_values_that_are_not_finite_leave_a_chart_whole() -> None:
    svg = charts.line_chart([Line("x", [(1, float("nan")), (2, 1.0), (3, float("inf"))], 0)], label="x")
    assert "nan" not in svg and "inf" not in svg.replace("info", "")
    assert "nothing was logged" in charts.line_chart([Line("x", [], 0)], label="x")


def test_a_line_is_cut_where_it_is_told_and_a_lonely_point_is_seen() -> None:
    line = Line("a", [(1, 1.0), (2, 2.0), (3, 3.0)], 0, cuts=(2,))
    text = charts.line_chart([line], label="x", last=30)
    assert text.count("<polyline") == 1 and text.count("<circle") == 1
    assert '"last": 30' in text.replace("&quot;", '"')
