"""A labelled set of drawn images: a dozen classes in several file formats, to try things out without data.

The classes come in groups with the same colours and the same inked area. They differ only in *arrangement*: a triangle
that points up or down, a ring or a disk of the same area, stripes or squares. Sizes, positions, colours and backgrounds
are random, so neither the mean colour nor the position of a shape distinguishes the classes of a group.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from bridle_fairseq.demo.data import write_classes

SIDES = (64, 72, 80, 96, 120, 128)
FILE_FORMATS = ("jpg", "png", "webp", "bmp")
Plane = np.ndarray  # height x width float, from -1 to 1 across a shape


def _triangle(x: Plane, y: Plane) -> Plane:
    return (np.abs(x) < (y + 1) / 2) & (y < 1)


def _bars(x: Plane, count: int) -> Plane:
    return (np.floor((x + 1) * count) % 2 == 0) & (np.abs(x) < 1)


def _inside(x: Plane, y: Plane) -> Plane:
    return (np.abs(x) < 1) & (np.abs(y) < 1)


CLASSES: dict[str, Callable[[Plane, Plane], Plane]] = {
    "triangle_up": _triangle,
    "triangle_down": lambda x, y: _triangle(x, -y),
    "triangle_left": lambda x, y: _triangle(y, x),
    "disk": lambda x, y: x**2 + y**2 < 0.6,
    "ring": lambda x, y: (x**2 + y**2 < 1) & (x**2 + y**2 > 0.4),
    "half_ring": lambda x, y: (x**2 + y**2 < 1) & (x**2 + y**2 > 0.3) & (y < 0.2),
    "stripes_across": lambda x, y: _inside(x, y) & _bars(y, 3),
    "stripes_down": lambda x, y: _inside(x, y) & _bars(x, 3),
    "squares": lambda x, y: _inside(x, y) & (_bars(x, 2) ^ _bars(y, 2)),
    "plus": lambda x, y: _inside(x, y) & ((np.abs(x) < 0.3) | (np.abs(y) < 0.3)),
    "cross": lambda x, y: _inside(x, y) & ((np.abs(x - y) < 0.4) | (np.abs(x + y) < 0.4)),
    "corner": lambda x, y: _inside(x, y) & ((x < -0.4) | (y > 0.4)),
}


def draw_image(class_name: str, index: int, seed: int) -> np.ndarray:
    """One image, height x width x 3 uint8; the same arguments give the same image."""
    rng = np.random.default_rng((seed, list(CLASSES).index(class_name), index))
    height, width = (int(side) for side in rng.choice(SIDES, 2))
    radius = rng.uniform(0.22, 0.4) * min(height, width)
    centre_y, centre_x = (rng.uniform(radius, side - radius) for side in (height, width))
    y, x = np.mgrid[:height, :width]
    angle = rng.uniform(-0.2, 0.2)
    across, down = (x - centre_x) / radius, (y - centre_y) / radius
    shape = CLASSES[class_name](
        across * np.cos(angle) - down * np.sin(angle), across * np.sin(angle) + down * np.cos(angle)
    )
    ink, paper = rng.uniform(20, 235, (2, 3))
    if np.abs(ink - paper).mean() < 70:
        ink = (paper + 128) % 256
    slope = rng.uniform(-40, 40, 3) * (x / width)[..., None] + rng.uniform(-40, 40, 3) * (y / height)[..., None]
    pixels = np.where(shape[..., None], ink, paper) + slope + rng.normal(0, rng.uniform(2, 12), (height, width, 3))
    return pixels.clip(0, 255).astype(np.uint8)


def _write_class(class_name: str, folder: Path, images: int, seed: int) -> list[str]:
    """Write the images of a class; their paths relative to the folder."""
    (folder / class_name).mkdir(parents=True, exist_ok=True)
    names = []
    for index in range(images):
        kind = FILE_FORMATS[(index + list(CLASSES).index(class_name)) % len(FILE_FORMATS)]
        name = f"{class_name}/{index:04d}.{kind}"
        Image.fromarray(draw_image(class_name, index, seed)).save(folder / name)
        names.append(name)
    return names


def draw(folder: Path, images_per_class: int, seed: int = 0) -> Path:
    """Write the set below ``folder``, one folder per class, and ``labels.csv`` with the columns file and label.

    Returns:
        The path of ``labels.csv``.
    """
    write = partial(_write_class, images=images_per_class, seed=seed)
    return write_classes(write, list(CLASSES), folder)
