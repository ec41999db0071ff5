"""From a video file to clips of RGB frames: selection, scaling and rotation.

Frames are selected by presentation time. A file is divided into slots of 1 / ``rate`` seconds, where ``rate`` is the
mean frame rate that the container states. Slot i begins i / rate after the first frame and gets the frame that is
shown in its middle. With a constant frame rate, slot i is frame i. With a variable frame rate, frames may be repeated
or dropped, and motion keeps its speed. The last frame is held: a file shorter than a clip repeats it.

Frames are rotated as the file says, in quarter turns. YUV of any bit depth is converted to 8-bit RGB with the matrix
and range that the file states. The transfer curve is kept (no tone mapping of HDR), and non-square pixels are not
corrected. Files whose frames have no usable times (raw streams, H.264 with B-frames in avi) are decoded from the start.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from bridle_fairseq.data.video.container import MAX_PIXELS, VideoFile, decode_errors, load_av
from bridle_fairseq.utils.errors import DecodeError
from bridle_fairseq.utils.schema import Mapped, OneOf, Real, Whole

SEEK_BACK_SECONDS = (0, 2, 10)  # a seek may land too late: retry from earlier, and finally from the start
SEEK_GAP_SECONDS = 1  # decode through shorter gaps instead of seeking
BLIND_SEEK_GAP_SECONDS = 10  # the same if the container has no list of key frames
SLACK_SECONDS = 0.5  # tolerance for frames that end before, or begin after, the time that the container states
LOOK_AHEAD_FRAMES = 1.4  # assumed maximum duration of a frame, in mean durations; verified after decoding


class _NoTimes(Exception):
    """Frames have no times, or times that decrease."""


class FrameSelector:
    """Decodes the frames that are shown at given times; times are in the file's time base.

    To save time, unneeded frames that no other frame refers to are not decoded. The packets show whether a skipped
    frame was needed after all; then everything is decoded. Files whose frames have no usable times are decoded from
    the start, and a frame's time is computed from its number.
    """

    def __init__(self, file: VideoFile) -> None:
        self._file = file
        self._count_frames = not file.has_times
        self._skip_unneeded = file.has_times and file.marks_unreferenced_frames
        self._packet_times: list[int] = []  # since the last seek

    def at(self, times: Sequence[int]) -> Iterator[Any]:
        """The frame that is shown at each of these ascending times.

        It is the first frame before the first frame's time, and the last frame after the last one's.

        Raises:
            DecodeError: corrupt, or frames begin later or end earlier than the container says.
        """
        first = 0
        while first < len(times):
            end = first + 1
            while end < len(times) and not self._worth_seeking(times[end - 1], times[end]):
                end += 1
            for frame in self._at_nearby(times[first:end]):
                if frame.is_corrupt:
                    raise DecodeError(f"corrupt: the frame at {self._seconds(times[first])}")
                yield frame
                first += 1

    def _worth_seeking(self, last: int, then: int) -> bool:
        """Whether to seek between two times: the gap is long, and the decoder can start after ``last``."""
        gap = (then - last) * self._file.base
        if self._count_frames or gap < SEEK_GAP_SECONDS:
            return False
        key = self._file.key_frame_before(then)
        return gap > BLIND_SEEK_GAP_SECONDS if key is None else key > last

    def _at_nearby(self, times: Sequence[int]) -> Iterator[Any]:
        """:meth:`at` without seeks between the times; starts again if a needed frame was skipped."""
        done = 0
        while done < len(times):
            try:
                for frame in self._at_after_seek(times[done:]):
                    yield frame
                    done += 1
                self._skip_unneeded = self._skip_unneeded and done == len(times)
            except _NoTimes:
                self._count_frames, self._skip_unneeded = True, False

    def _at_after_seek(self, times: Sequence[int]) -> Iterator[Any]:
        """:meth:`at` after one seek; stops before the first time whose frame was skipped."""
        shown, end, number = None, 0, 0
        for time, frame in self._frames(times):
            if shown is None and (time - times[0]) * self._file.base > SLACK_SECONDS:
                raise DecodeError(f"no frame before {self._seconds(time)} can be decoded")
            while times[number] < time:
                current = frame if shown is None else shown
                if not self._is_newest(current, times[number]):
                    return
                yield current
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
        """Whether no skipped frame would be shown at this time instead of this frame."""
        return not self._skip_unneeded or not any(frame.pts < other <= time for other in self._packet_times)

    def _frames(self, times: Sequence[int]) -> Iterator[tuple[int, Any]]:
        """(time, frame) in presentation order, from a frame that is shown at or before the first time."""
        if self._count_frames:
            self._file.rewind()
            for number, frame in enumerate(self._file.decoded()):
                yield self._file.start + int(number / self._file.rate / self._file.base), frame
            return
        last = None
        for frame in self._seek_and_decode(times):
            if frame.pts is None or (last is not None and frame.pts < last):
                raise _NoTimes
            last = frame.pts
            yield last, frame

    def _seek_and_decode(self, times: Sequence[int]) -> Iterator[Any]:
        """Decoded frames, from a key frame at or before the first of these times."""
        look_ahead = math.ceil(LOOK_AHEAD_FRAMES / self._file.rate / self._file.base)

        def needed(packet: Any) -> bool:
            if packet.pts is None:
                raise _NoTimes
            self._packet_times.append(packet.pts)
            number = bisect_left(times, packet.pts)
            return not self._skip_unneeded or (number < len(times) and times[number] < packet.pts + look_ahead)

        for seconds in SEEK_BACK_SECONDS:
            target = times[0] - int(seconds / self._file.base)
            if target <= self._file.start or not self._file.seek(target):
                break
            self._packet_times.clear()
            frames = self._file.decoded(from_key=True, needed=needed)
            first = next(frames, None)
            if first is not None and first.pts is not None and first.pts <= times[0]:
                yield first
                yield from frames
                return
        self._file.rewind()
        self._packet_times.clear()
        yield from self._file.decoded(needed=needed)

    def _seconds(self, time: int) -> str:
        return f"{float((time - self._file.start) * self._file.base):.2f} s"


Allocate = Callable[[tuple[int, ...]], np.ndarray]


class VideoInfo(NamedTuple):
    """Properties of a file's first video stream; height and width are those of the rotated frames."""

    num_frames: int
    counted: str  # "container": the stated number; "packets": counted by reading, without decoding, the whole file
    rate: float  # slots per second (see the module)
    seconds: float
    height: int
    width: int
    rotation: int  # of stored frames, in degrees counterclockwise: 0, 90, 180 or 270


SIDE, EXTENT = Whole(1, MAX_PIXELS), Real(0, 1e30, above=True)  # FFmpeg's times are 64 bits, in units of up to 2^31 s
INFO_KINDS = Mapped(
    {
        "num_frames": Whole(1, 2**53),
        "counted": OneOf(("container", "packets")),
        "rate": EXTENT,
        "seconds": EXTENT,
        "height": SIDE,
        "width": SIDE,
        "rotation": Whole(0, 270),
    }
)


def read_video_info(path: str) -> VideoInfo:
    """Properties of a file or a slice of a stored archive; decodes its first frame.

    Raises:
        DecodeError: missing, empty, without video, or without a decodable frame.
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
        places: position of each clip, from 0 (the first possible start) to 1 (the last one): :func:`even_places` for
            testing, random ones for training.
        num_frames: frames per clip.
        stride: slots between two frames.
        short_side: length in pixels to which the shorter side is scaled; None: no scaling.
        threads: number of threads of the decoder; 1 is best if several workers decode.
        allocate: returns the output array for a shape; default: a new one.

    Raises:
        DecodeError: unreadable, corrupt, or the frames end before the header says.
    """
    with VideoFile(path, threads) as file, decode_errors("corrupt"):
        last_start = max(0, file.num_slots - ((num_frames - 1) * stride + 1))
        starts = np.array([min(int(place * (last_start + 1)), last_start) for place in places], dtype=np.int64)
        slots = (starts[:, None] + stride * np.arange(num_frames)).clip(max=file.num_slots - 1)  # clips x num_frames
        return frames_at(file, slots, short_side, allocate)


def even_places(count: int) -> list[float]:
    """Evenly spaced positions from 0 to 1; a single one is in the middle."""
    return [0.5] if count == 1 else [number / (count - 1) for number in range(count)]


def frames_at(
    file: VideoFile, slots: np.ndarray, short_side: int | None = None, allocate: Allocate | None = None
) -> np.ndarray:
    """The frames of these slots, uint8 (shape of ``slots``) x height x width x 3; each is decoded and scaled once."""
    distinct, index = np.unique(slots, return_inverse=True)
    index = index.reshape(slots.shape)
    middles = [file.start + (2 * int(slot) + 1) // (2 * file.rate * file.base) for slot in distinct]
    rgb, out = _RGB(short_side), None
    for number, frame in enumerate(FrameSelector(file).at(middles)):
        picture = rgb(frame)
        if out is None:
            shape = (*slots.shape, *picture.shape)
            out = np.empty(shape, np.uint8) if allocate is None else allocate(shape)
        out[index == number] = picture
    assert out is not None
    return out


class _RGB:
    """Converts decoded frames to RGB and scales all of them to the scaled size of the first one."""

    def __init__(self, short_side: int | None) -> None:
        self._short_side = short_side
        self._reformat = load_av().video.reformatter.VideoReformatter().reformat
        self._size: tuple[int, int] | None = None

    def __call__(self, frame: Any) -> np.ndarray:
        """Height x width x 3, rotated upright."""
        if self._size is None:
            scale = 1 if self._short_side is None else self._short_side / min(frame.width, frame.height)
            self._size = max(1, round(frame.width * scale)), max(1, round(frame.height * scale))
        width, height = self._size
        how = "BILINEAR" if self._size == (frame.width, frame.height) else "BICUBIC"
        plane = self._reformat(frame, width, height, "rgb24", interpolation=how, threads=1).planes[0]
        picture = np.frombuffer(plane, np.uint8).reshape(height, plane.line_size)[:, : 3 * width]
        return np.rot90(picture.reshape(height, width, 3), _quarters(frame))


def _quarters(frame: Any) -> int:
    """Counterclockwise quarter turns that rotate a frame upright."""
    return round(frame.rotation / 90) % 4
