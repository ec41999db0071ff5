"""From a video file to clips of RGB frames: the one place that chooses, scales and turns frames.

Frames are chosen by the time at which they are shown. A file has slots, ``rate`` of them a second (the mean frame rate
that its container states); slot i lasts from i / rate to (i + 1) / rate after the start of the first frame, and shows
the frame that is on screen in its middle. With a constant frame rate slot i is frame i; with a variable one frames may
come twice or not at all, and motion keeps its speed. The last frame stays on screen: a file shorter than a clip repeats
it up to the clip's end.

Frames are turned as the file says, in quarters of a circle. YUV of any depth becomes 8-bit RGB with the matrix and the
range that the file states; the transfer curve is kept (HDR is not tone-mapped), and pixels that are not square stay so.
Files whose frames have no usable times (raw streams, H.264 with B-frames in avi) are decoded from their start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from bridle_fairseq.data.video.container import VideoFile, load_av, told
from bridle_fairseq.data.video.on_screen import Screen

Allocate = Callable[[tuple[int, ...]], np.ndarray]


class VideoInfo(NamedTuple):
    """What a file holds: its first video stream, with height and width as frames are shown (turned)."""

    num_frames: int
    counted: str  # "container": the number that it states; "packets": found by reading, not decoding, all of the file
    rate: float  # slots a second (see the module)
    seconds: float
    height: int
    width: int
    rotation: int  # degrees anticlockwise by which stored frames are turned: 0, 90, 180 or 270


def read_video_info(path: str) -> VideoInfo:
    """What a file, or a slice of a stored archive, holds; its first frame is decoded.

    Raises:
        DecodeError: missing, empty, no video in it, or no frame that can be decoded.
    """
    with VideoFile(path) as file, told("corrupt"):
        frame = file.first_frame()
        stated, quarters = file.stated_frames, _quarters(frame)
        sides = (frame.width, frame.height) if quarters % 2 else (frame.height, frame.width)
        return VideoInfo(
            stated or file.packets().frames,
            "container" if stated else "packets",
            float(file.rate),
            float(file.num_slots / file.rate),
            *sides,
            90 * quarters,
        )


def read_clips(
    path: str,
    places: Sequence[float],
    num_frames: int = 16,
    stride: int = 4,
    short_side: int | None = None,
    threads: int = 1,
    allocate: Allocate | None = None,
) -> np.ndarray:
    """Clips of a file, uint8 clips x num_frames x height x width x 3 (RGB).

    Args:
        path: a file or a slice of a stored archive.
        places: where clips begin, each a number from 0, the start, to 1, the latest start of a clip that ends no later
            than the file: :func:`even_places` for testing, random ones for training.
        num_frames: of a clip.
        stride: slots from one frame to the next.
        short_side: pixels to which each frame is scaled as soon as it is decoded; None leaves frames as they are.
        threads: of the decoder; 1 is best where several workers decode.
        allocate: gives the array of a shape that clips are written to; default: a new one.

    Raises:
        DecodeError: unreadable, corrupt, or its frames end before its header says.
    """
    with VideoFile(path, threads) as file, told("corrupt"):
        room = max(0, file.num_slots - ((num_frames - 1) * stride + 1))
        starts = np.array([min(int(place * (room + 1)), room) for place in places], dtype=np.int64)
        slots = (starts[:, None] + stride * np.arange(num_frames)).clip(max=file.num_slots - 1)
        return frames_at(file, slots, short_side, allocate)


def even_places(count: int) -> list[float]:
    """Places of clips evenly spaced over a file, from its start to its end; a single one is in the middle."""
    return [0.5] if count == 1 else [number / (count - 1) for number in range(count)]


def frames_at(
    file: VideoFile, slots: np.ndarray, short_side: int | None = None, allocate: Allocate | None = None
) -> np.ndarray:
    """The frames of these slots, uint8 \\*slots.shape x height x width x 3; each is decoded and scaled once."""
    wanted, place = np.unique(slots, return_inverse=True)
    place = place.reshape(slots.shape)
    middles = [file.start + (2 * int(slot) + 1) // (2 * file.rate * file.base) for slot in wanted]
    rgb, out = _RGB(short_side), None
    for number, frame in enumerate(Screen(file).at(middles)):
        picture = rgb(frame)
        if out is None:
            shape = (*slots.shape, *picture.shape)
            out = np.empty(shape, np.uint8) if allocate is None else allocate(shape)
        out[place == number] = picture
    assert out is not None
    return out


class _RGB:
    """Decoded frames to RGB, all of one size: that of the first, with its shorter side scaled."""

    def __init__(self, short_side: int | None) -> None:
        self._short_side = short_side
        self._reformat = load_av().video.reformatter.VideoReformatter().reformat
        self._size: tuple[int, int] | None = None

    def __call__(self, frame: Any) -> np.ndarray:
        """Height x width x 3, the right way up."""
        if self._size is None:
            scale = 1 if self._short_side is None else self._short_side / min(frame.width, frame.height)
            self._size = max(1, round(frame.width * scale)), max(1, round(frame.height * scale))
        width, height = self._size
        how = "BILINEAR" if self._size == (frame.width, frame.height) else "BICUBIC"
        plane = self._reformat(frame, width, height, "rgb24", interpolation=how, threads=1).planes[0]
        picture = np.frombuffer(plane, np.uint8).reshape(height, plane.line_size)[:, : 3 * width]
        return np.rot90(picture.reshape(height, width, 3), _quarters(frame))


def _quarters(frame: Any) -> int:
    """Quarters of a circle by which to turn a frame anticlockwise."""
    return round(frame.rotation / 90) % 4
