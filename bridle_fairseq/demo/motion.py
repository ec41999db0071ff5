"""A labelled set of drawn videos: shapes that move in one of eight ways, to try things out without data.

The classes come in pairs that are the reverse of each other: left and right, growing and shrinking, turning one way and
the other. Both classes of a pair have the same distribution of single frames, so only the order of frames distinguishes
them. All shapes are light on dark, because codes of clips with different colours would describe colour first.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from bridle_fairseq.demo.data import write_classes
from bridle_fairseq.demo.shapes import CLASSES as SHAPES

FRAMES, FRAMES_PER_SECOND = 16, 25
SIDES = (64, 80, 96)
FILE_FORMATS = {"mp4": ("libx264", {"crf": "18"}), "mkv": ("libx264", {"crf": "18"}), "avi": ("mpeg4", {"qscale": "2"})}
SHIFT = 0.5  # in a clip, as a share of the side
GROWTH, TURN = 0.5, 0.9  # in half a clip: logarithm of the size, radians
# x, y, growth and turn from -1 to 1
CLASSES: dict[str, tuple[float, float, float, float]] = {
    "left": (-1, 0, 0, 0),
    "right": (1, 0, 0, 0),
    "up": (0, -1, 0, 0),
    "down": (0, 1, 0, 0),
    "growing": (0, 0, 1, 0),
    "shrinking": (0, 0, -1, 0),
    "turning_left": (0, 0, 0, -1),
    "turning_right": (0, 0, 0, 1),
}
TURNED = ("triangle_up", "half_ring", "stripes_down", "squares", "plus", "cross", "corner")  # a disk looks the same


def draw_clip(class_name: str, index: int, seed: int) -> np.ndarray:
    """One clip, frames x height x width x 3 uint8; the same arguments give the same clip."""
    rng = np.random.default_rng((seed, list(CLASSES).index(class_name), index))
    side = int(rng.choice(SIDES))
    shape = SHAPES[str(rng.choice(TURNED))]
    radius, angle = rng.uniform(0.15, 0.25) * side, rng.uniform(0, 2 * np.pi)
    centre = rng.uniform(0.4, 0.6, 2) * side
    ink, paper = rng.uniform(190, 230, 3), rng.uniform(20, 40, 3)
    y, x = np.mgrid[:side, :side]
    across, down, growth, turn = CLASSES[class_name]
    frames = []
    for time in np.linspace(-0.5, 0.5, FRAMES):
        size = radius * np.exp(growth * 2 * GROWTH * time)
        to_right = (x - centre[0] - across * SHIFT * side * time) / size
        to_bottom = (y - centre[1] - down * SHIFT * side * time) / size
        turned = angle + turn * 2 * TURN * time
        inside = shape(
            to_right * np.cos(turned) + to_bottom * np.sin(turned),
            to_bottom * np.cos(turned) - to_right * np.sin(turned),
        )
        pixels = np.where(inside[..., None], ink, paper) + rng.normal(0, 4, (side, side, 3))
        frames.append(pixels.clip(0, 255).astype(np.uint8))
    return np.stack(frames)


def write_video(path: Path, clip: np.ndarray, codec: str, options: dict[str, str]) -> None:
    """Encode a clip, frames x height x width x 3."""
    from bridle_fairseq.data.video.container import load_av

    av = load_av()
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=FRAMES_PER_SECOND, options=options)
        stream.height, stream.width = clip.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in clip:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode())


def _write_class(class_name: str, folder: Path, clips: int, seed: int) -> list[str]:
    """Write the clips of a class; their paths relative to the folder."""
    (folder / class_name).mkdir(parents=True, exist_ok=True)
    names = []
    for index in range(clips):
        kind = list(FILE_FORMATS)[(index + list(CLASSES).index(class_name)) % len(FILE_FORMATS)]
        name = f"{class_name}/{index:04d}.{kind}"
        write_video(folder / name, draw_clip(class_name, index, seed), *FILE_FORMATS[kind])
        names.append(name)
    return names


def film(folder: Path, clips_per_class: int, seed: int = 0) -> Path:
    """Write the set below ``folder``, one folder per class, and ``labels.csv`` with the columns file and label.

    Returns:
        The path of ``labels.csv``.

    Raises:
        InputError: PyAV is missing.
    """
    from bridle_fairseq.data.video.container import load_av

    load_av()  # one error here instead of one in each process
    write = partial(_write_class, clips=clips_per_class, seed=seed)
    return write_classes(write, list(CLASSES), folder)
