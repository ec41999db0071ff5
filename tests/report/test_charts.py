"""Line charts as SVG."""

from __future__ import annotations

import re

from bridle_fairseq.report import charts, sections
from bridle_fairseq.report.charts import Band, Line
from bridle_fairseq.training.log import Record


def test_ticks_are_round_and_within_the_range() -> None:
    assert charts.ticks(0, 1000) == [0, 250, 500, 750, 1000]
    assert charts.ticks(0, 0.62) == [0, 0.2, 0.4, 0.6]
    assert charts.ticks(3, 3) == [3]


def test_line_is_interrupted_at_the_end_of_a_stage() -> None:
    line = Line("x", [(10, 1.0), (20, 2.0), (30, 5.0), (40, 6.0)], 0)
    svg = charts.line_chart([line], [Band("one", "1", 0, 20), Band("two", "2", 20, 40)], label="x")
    assert len(re.findall("<polyline", svg)) == 2
    assert len(re.findall("<polyline", charts.line_chart([line], label="x"))) == 1


def test_values_that_are_not_finite_are_left_out() -> None:
    svg = charts.line_chart([Line("x", [(1, float("nan")), (2, 1.0), (3, float("inf"))], 0)], label="x")
    assert "nan" not in svg and "inf" not in svg.replace("info", "")
    assert "nothing was logged" in charts.line_chart([Line("x", [], 0)], label="x")


def test_line_is_interrupted_at_its_cuts_and_single_points_are_visible() -> None:
    line = Line("a", [(1, 1.0), (2, 2.0), (3, 3.0)], 0, cuts=(2,))
    text = charts.line_chart([line], label="x", last=30)
    assert text.count("<polyline") == 1 and text.count("<circle") == 1
    assert '"last": 30' in text.replace("&quot;", '"')


def test_used_codes_are_those_that_are_not_dead() -> None:
    """Logs of earlier versions counted them in another way."""
    record = Record("train", 2, {"used_1": 256.0, "dead_1": 44.0, "perplexity_1": 200.0})
    points = [line.points for line in sections.used_codes([record], 256)]
    assert points == [[(2, 212.0)]]
    assert sections.used_codes([Record("train", 2, {"used_1": 9.0})], 256)[0].points == [(2, 9.0)]
