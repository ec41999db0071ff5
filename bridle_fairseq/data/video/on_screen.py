"""Which frame of a video file is on screen at some times, decoding no more than that takes."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Any

from bridle_fairseq.data.video.container import VideoFile
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


class Screen:
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
