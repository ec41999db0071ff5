"""The drawn videos: file formats, and classes that no single frame distinguishes."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from bridle_fairseq.data.video.reader import count_frames
from bridle_fairseq.demo import motion
from bridle_fairseq.utils.errors import InputError

PAIRS = [("left", "right"), ("up", "down"), ("growing", "shrinking"), ("turning_left", "turning_right")]


def centre(frame: np.ndarray) -> np.ndarray:
    """Of what differs from the paper: x and y as shares of the side."""
    away = np.abs(frame.astype(float) - np.median(frame, axis=(0, 1))).mean(-1) > 25
    return np.argwhere(away).mean(0)[::-1] / len(frame)


def ink(frame: np.ndarray) -> float:
    """Share of the frame that is not paper."""
    return float((np.abs(frame.astype(float) - np.median(frame, axis=(0, 1))).mean(-1) > 25).mean())


def test_clips_are_deterministic_and_depend_on_the_seed() -> None:
    one, again, other = (motion.draw_clip("left", 3, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert one.shape != other.shape or not np.array_equal(one, other)


@pytest.mark.parametrize(("name", "axis", "sign"), [("left", 0, -1), ("right", 0, 1), ("up", 1, -1), ("down", 1, 1)])
def test_shapes_move_in_the_direction_of_their_class(name: str, axis: int, sign: int) -> None:
    for index in range(4):
        clip = motion.draw_clip(name, index, 0)
        moved = centre(clip[-1]) - centre(clip[0])
        assert sign * moved[axis] > 0.3 and abs(moved[1 - axis]) < 0.1


def test_shapes_grow_and_shrink() -> None:
    for index in range(4):
        first, *_, last = motion.draw_clip("growing", index, 0)
        assert ink(last) > 1.5 * ink(first)
        first, *_, last = motion.draw_clip("shrinking", index, 0)
        assert ink(first) > 1.5 * ink(last)


def test_turning_shapes_change_but_keep_their_position() -> None:
    clip = motion.draw_clip("turning_left", 1, 0).astype(float)
    assert np.abs(centre(clip[-1]) - centre(clip[0])).max() < 0.1
    changed = [(np.abs(clip[step] - clip[0]).mean(-1) > 25).mean() for step in (1, -1)]
    assert changed[1] > 1.5 * changed[0] > 0


@pytest.mark.parametrize("pair", PAIRS)
def test_classes_of_a_pair_have_similar_frames(pair) -> None:
    """Mean places and sizes over many clips and both ends of time."""
    found = []
    for name in pair:
        ends = [motion.draw_clip(name, index, 7)[[0, 7, -1]] for index in range(24)]
        found.append(np.array([[*centre(frame), ink(frame)] for frames in ends for frame in frames]))
    error = np.sqrt(sum(values.var(0) / len(values) for values in found))
    assert (np.abs(found[0].mean(0) - found[1].mean(0)) < 4 * error + 1e-3).all()


def test_every_format_is_written_with_its_label(tmp_path) -> None:
    labels = motion.film(tmp_path, clips_per_class=3, seed=0)
    with open(labels, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 8 and {row["label"] for row in rows} == set(motion.CLASSES)
    assert {row["file"].rsplit(".")[-1] for row in rows} == set(motion.FILE_FORMATS)
    assert {count_frames(str(tmp_path / row["file"])) for row in rows} == {motion.FRAMES}


def test_missing_pyav_is_reported(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(InputError, match=r"video needs PyAV.*bridle_fairseq\[video\]"):
        motion.film(tmp_path, 1)
