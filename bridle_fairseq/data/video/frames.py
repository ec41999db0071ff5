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

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from bridle_fairseq.data.video.container import VideoFile, decode_errors, load_av
from bridle_fairseq.utils.errors import DecodeError

SEEK_BACK_SECONDS = (0, 2, 10)  # a seek may lead too far: then from earlier, at last from the start
SEEK_GAP_SECONDS = 1  # less is decoded rather than sought over
BLIND_SEEK_GAP_SECONDS = 10  # the same where nobody knows whether there is a key frame to seek to
SLACK_SECONDS = 0.5  # by which frames may end before, or begin after, the time that the container states
LOOK_AHEAD_FRAMES = (
    1.4  # mean durations for which a frame is expected to be on screen; that it was not longer is checked
)


class _NoTimes(Exception):
    """Frames without times, or with times that run backwards."""


class FrameSelector:
    """Shows frames of a file at given times, which are in the file's time base.

    Frames on which no other frame builds are not decoded where nobody looks at them; packets tell whether one that was
    left out should have been shown, and then everything is decoded. Files whose frames have no usable times are decoded
    from the start, and the number of a frame gives its time.
    """

    def __init__(self, file: VideoFile) -> None:
        self._file = file
        self._counting = not file.has_times
        self._thrifty = file.has_times and file.knows_unused_frames
        self._seen: list[int] = []  # times of the packets since the last seek

    def at(self, times: Sequence[int]) -> Iterator[Any]:
        """The frame on screen at each of these ascending times; the first frame before its time, the last after it.

        Raises:
            DecodeError: corrupt, or frames begin later or end earlier than the container says.
        """
        first = 0
        while first < len(times):
            end = first + 1
            while end < len(times) and not self._worth_seeking(times[end - 1], times[end]):
                end += 1
            for frame in self._run(times[first:end]):
                if frame.is_corrupt:
                    raise DecodeError(f"corrupt: the frame at {self._seconds(times[first])}")
                yield frame
                first += 1

    def _worth_seeking(self, last: int, then: int) -> bool:
        """Whether to leave out what lies between two times: it is long, and the decoder can start behind ``last``."""
        gap = (then - last) * self._file.base
        if self._counting or gap < SEEK_GAP_SECONDS:
            return False
        key = self._file.key_frame_before(then)
        return gap > BLIND_SEEK_GAP_SECONDS if key is None else key > last

    def _run(self, times: Sequence[int]) -> Iterator[Any]:
        """:meth:`at` after one seek, or as few as it takes."""
        done = 0
        while done < len(times):
            try:
                for frame in self._shown(times[done:]):
                    yield frame
                    done += 1
                self._thrifty = self._thrifty and done == len(times)
            except _NoTimes:
                self._counting, self._thrifty = True, False

    def _shown(self, times: Sequence[int]) -> Iterator[Any]:
        """:meth:`at` after one seek; being thrifty, it ends before the first time whose frame was left out."""
        shown, end, number = None, 0, 0
        for time, frame in self._frames(times):
            if shown is None and (time - times[0]) * self._file.base > SLACK_SECONDS:
                raise DecodeError(f"no frame before {self._seconds(time)} can be decoded")
            while times[number] < time:
                found = frame if shown is None else shown
                if not self._is_newest(found, times[number]):
                    return
                yield found
                number += 1
                if number == len(times):
                    return
            shown, end = frame, time + max(frame.duration or 0, int(1 / self._file.rate / self._file.base))
        if shown is None:
            raise DecodeError("no frames")
        if (times[-1] - end) * self._file.base > SLACK_SECONDS:
            stated = float(self._file.num_slots / self._file.rate)
            raise DecodeError(f"frames end at {self._seconds(end)}; expected {stated:.2f} s of them")
        for time in times[number:]:
            if not self._is_newest(shown, time):
                return
            yield shown

    def _is_newest(self, frame: Any, time: int) -> bool:
        """Whether no frame was left out that would be on screen in place of this one."""
        return not self._thrifty or not any(frame.pts < other <= time for other in self._seen)

    def _frames(self, times: Sequence[int]) -> Iterator[tuple[int, Any]]:
        """(time, frame) in the order in which they are shown, from one that is on screen at the first time on."""
        if self._counting:
            self._file.rewind()
            for number, frame in enumerate(self._file.decoded()):
                yield self._file.start + int(number / self._file.rate / self._file.base), frame
            return
        last = None
        for frame in self._sought(times):
            if frame.pts is None or (last is not None and frame.pts < last):
                raise _NoTimes
            last = frame.pts
            yield last, frame

    def _sought(self, times: Sequence[int]) -> Iterator[Any]:
        """Decoded frames from a key frame at or before the first of these times on."""
        reach = math.ceil(LOOK_AHEAD_FRAMES / self._file.rate / self._file.base)

        def needed(packet: Any) -> bool:
            if packet.pts is None:
                raise _NoTimes
            self._seen.append(packet.pts)
            number = bisect_left(times, packet.pts)
            return not self._thrifty or (number < len(times) and times[number] < packet.pts + reach)

        for seconds in SEEK_BACK_SECONDS:
            target = times[0] - int(seconds / self._file.base)
            if target <= self._file.start or not self._file.seek(target):
                break
            self._seen.clear()
            frames = self._file.decoded(from_key=True, needed=needed)
            first = next(frames, None)
            if first is not None and first.pts is not None and first.pts <= times[0]:
                yield first
                yield from frames
                return
        self._file.rewind()
        self._seen.clear()
        yield from self._file.decoded(needed=needed)

    def _seconds(self, time: int) -> str:
        return f"{float((time - self._file.start) * self._file.base):.2f} s"


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
    with VideoFile(path) as file, decode_errors("corrupt"):
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
    with VideoFile(path, threads) as file, decode_errors("corrupt"):
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
    for number, frame in enumerate(FrameSelector(file).at(middles)):
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
