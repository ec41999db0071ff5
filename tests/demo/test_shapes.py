"""The drawn images: file formats, and classes that colour does not distinguish."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from PIL import Image

from bridle_fairseq.demo import shapes


def test_images_are_deterministic_and_depend_on_the_seed() -> None:
    one, again, other = (shapes.draw_image("ring", 3, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert one.shape != other.shape or not np.array_equal(one, other)


@pytest.mark.parametrize("name", shapes.CLASSES)
def test_shapes_cover_a_part_of_the_image(name: str) -> None:
    y, x = np.mgrid[-1.5:1.5:61j, -1.5:1.5:61j]
    ink = shapes.CLASSES[name](x, y)
    assert 0.05 < ink.mean() < 0.45
    assert not (ink[:5].any() or ink[-5:].any() or ink[:, :5].any() or ink[:, -5:].any())
    others = [other(x, y) for label, other in shapes.CLASSES.items() if label != name]
    assert min(np.abs(ink ^ other).mean() for other in others) > 0.03
    image = shapes.draw_image(name, 0, seed=0)
    assert image.dtype == np.uint8 and set(image.shape[:2]) <= set(shapes.SIDES) and image.std() > 5


def test_every_format_is_written_with_its_label(tmp_path) -> None:
    labels = shapes.draw(tmp_path, images_per_class=4, seed=0)
    with open(labels, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * 12 and {row["label"] for row in rows} == set(shapes.CLASSES)
    formats = {Image.open(tmp_path / row["file"]).format for row in rows}
    assert formats == {"JPEG", "PNG", "WEBP", "BMP"}


def test_colours_do_not_distinguish_classes() -> None:
    means = np.array(
        [[shapes.draw_image(name, n, 5).mean((0, 1)) for n in range(40)] for name in ("triangle_up", "triangle_down")]
    )
    assert np.abs(means[0].mean(0) - means[1].mean(0)).max() < 3 * means.std((0, 1)).max() / 40**0.5
