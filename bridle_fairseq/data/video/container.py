"""A video file and its first video stream: header, seeking and decoding, by PyAV (FFmpeg).

Only containers of :data:`FORMATS` are opened, whatever the file is named: playlists, session descriptions and the like
make FFmpeg open other files and addresses.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

from bridle_fairseq.data.manifests.archive import Slice, split_slice
from bridle_fairseq.data.regular import check_regular
from bridle_fairseq.utils.errors import DecodeError
from bridle_fairseq.utils.optional import optional_import

MAX_PIXELS = 2**26  # per frame, twice 8K: a header can claim any size, and memory is allocated before data is read
MAX_ASPECT = 64  # of a frame's sides: frames are scaled by the shorter one
FORMATS = "mov,mp4,matroska,webm,avi,mpeg,mpegvideo,mpegts,flv,asf,ogg,gif,h264,hevc,m4v"  # demuxers of FFmpeg
OPTIONS = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
MAX_RATE = 240  # frames per second; a stream that states more states its clock rate


def load_av() -> ModuleType:
    """The module ``av``.

    Raises:
        InputError: it is not installed.
    """
    with optional_import("video needs PyAV", "'bridle_fairseq[video]'"):
        import av
    return av


class Packets(NamedTuple):
    """Statistics of a stream's packets; times are in its time base."""

    frames: int
    first: int  # start of the first frame
    last: int  # start of the last frame
    end: int  # of the last frame


class OutOfMemory(DecodeError):
    """A file that takes more memory than the process may have."""


@contextmanager
def decode_errors(what: str) -> Iterator[None]:
    """Convert errors of FFmpeg and of the file system to :class:`DecodeError`; ``what`` begins FFmpeg's messages."""
    av = load_av()
    try:
        yield
    except av.error.FileNotFoundError:
        raise DecodeError("No such file or directory") from None
    except av.error.FFmpegError as error:
        kind = OutOfMemory if error.errno == errno.ENOMEM else DecodeError
        raise kind(f"{what}: {(error.strerror or str(error)).lower()}") from None
    except MemoryError:
        raise OutOfMemory("not enough memory to decode it") from None
    except (OSError, ValueError) as error:
        raise DecodeError(str(getattr(error, "strerror", None) or error) or type(error).__name__) from None


Opened = TypeVar("Opened", bound="ContainerFile")


class _Times:
    """Extremes of the packets' times."""

    def __init__(self) -> None:
        self.first: int | None = None
        self.last = self.end = 0

    def add(self, start: int, end: int) -> None:
        """A packet's frame."""
        if self.first is None:
            self.first, self.last, self.end = start, start, end
        self.first, self.last, self.end = min(self.first, start), max(self.last, start), max(self.end, end)


class ContainerFile:
    """A file, or a slice of a stored archive, that PyAV has open; a context manager."""

    _container: Any = None
    _slice: Slice | None = None

    def __enter__(self: Opened) -> Opened:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        for file in (self._container, self._slice):
            if file is not None:
                file.close()


class VideoFile(ContainerFile):
    """An open video file.

    Args:
        path: a file or a slice of a stored archive.
        threads: number of threads of the decoder.

    Attributes:
        rate: mean frames per second, as the container states or from the packets.
        base: the time base: seconds per unit of time.
        start: time of the first frame, in the time base.
        num_slots: duration of the stream in frames of ``rate``, at least 1.

    Raises:
        DecodeError: missing, empty, not a video file, without a video stream, or without frames.
    """

    def __init__(self, path: str, threads: int = 1) -> None:
        self._av = load_av()
        self._path, self._threads = path, threads
        self._packets: Packets | None = None
        try:
            self._open()
            with decode_errors("not readable as video"):
                self._read_header()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        with decode_errors("not readable as video"):
            name, offsets = split_slice(self._path)
            size = check_regular(name)
            self._num_bytes = size if offsets is None else offsets[1]
            self._slice = None if offsets is None else Slice(name, *offsets)
            # Without "file:", FFmpeg would take a name with a colon for a protocol.
            source = self._slice or f"file:{name}"
            try:
                self._container = self._av.open(source, options=OPTIONS, metadata_errors="replace")
            except self._av.error.ArgumentError:
                raise DecodeError("not a video container that is read here") from None
        cover = self._av.stream.Disposition.attached_pic
        streams = [stream for stream in self._container.streams.video if not stream.disposition & cover]
        if not streams:
            raise DecodeError("no video stream")
        self._stream = streams[0]
        context = self._stream.codec_context
        context.thread_count, context.thread_type = self._threads, "AUTO" if self._threads > 1 else "SLICE"
        self._unread = True

    def rewind(self) -> None:
        """Go to the start, by opening the file again: not every container can seek there."""
        if not self._unread:
            self.close()
            self._open()
        self._unread = False

    def _read_header(self) -> None:
        stream = self._stream
        width, height = stream.codec_context.width, stream.codec_context.height
        if width * height > MAX_PIXELS:
            raise DecodeError(f"frames of {width} x {height} pixels; expected {MAX_PIXELS} pixels at most")
        if max(width, height) > MAX_ASPECT * min(width, height):
            raise DecodeError(f"frames of {width} x {height} pixels; expected sides of 1:{MAX_ASPECT} at most")
        self.base: Fraction = stream.time_base
        rate, ticks = stream.average_rate, self._stated_ticks()
        if ticks is None:
            ticks = self.packets().end - self.packets().first
        if rate is None or not 0 < rate <= MAX_RATE:
            packets = self.packets()
            spread = (packets.last - packets.first) * self.base
            rate = (packets.frames - 1) / spread if spread > 0 else 1
        self.rate = Fraction(rate)
        self.start: int = stream.start_time or 0
        self.num_slots = max(1, round(ticks * self.base * self.rate))

    def _stated_ticks(self) -> int | None:
        """Duration of the stream; None if neither its header nor its tag (mkv and webm: time of its end) states it."""
        start = self._stream.start_time or 0
        if self._stream.duration is not None:
            return self._stream.duration if self._stream.duration > 0 else None
        try:
            hours, minutes, seconds = self._stream.metadata["DURATION"].split(":")
            end = 3600 * int(hours) + 60 * int(minutes) + Fraction(seconds)
        except (KeyError, ValueError):
            return None
        ticks = round(end / self.base) - start
        return ticks if ticks > 0 else None

    def packets(self) -> Packets:
        """Read the whole stream without decoding it.

        Raises:
            DecodeError: no frames.
        """
        if self._packets is None:
            self.rewind()
            count, times = 0, _Times()
            for packet in self._container.demux(self._stream):
                if packet.size and not packet.is_discard:
                    count += 1
                    time = packet.dts if packet.pts is None else packet.pts
                    if time is not None:
                        times.add(time, time + (packet.duration or 0))
            if not count:
                raise DecodeError("no frames")
            if times.first is None:  # a raw stream
                ticks = 1 / (self._stream.average_rate or 25) / self.base
                times.add(0, round(ticks))
                times.add(round((count - 1) * ticks), round(count * ticks))
            assert times.first is not None
            self._packets = Packets(count, times.first, times.last, times.end)
        return self._packets

    @property
    def stated_frames(self) -> int:
        """Number of frames that the container states; 0 if it states none, or more than its bytes."""
        stated = int(self._stream.frames)
        return stated if 0 <= stated <= self._num_bytes else 0

    @property
    def marks_unreferenced_frames(self) -> bool:
        """Whether the decoder reliably recognizes frames that no other frame refers to (H.264)."""
        return self._stream.codec_context.name == "h264"

    @property
    def has_times(self) -> bool:
        """Whether frames have presentation times. avi has decoding times, which differ from them with B-frames."""
        return not (self._container.format.name == "avi" and self._stream.codec_context.has_b_frames)

    def key_frame_before(self, time: int) -> int | None:
        """Approximate time of the last key frame at or before ``time``; None if the container does not list them."""
        keys = self._stream.index_entries
        place = keys.search_timestamp(time, backward=True) if len(keys) > 1 else -1
        return keys[place].timestamp if place >= 0 else None

    def seek(self, time: int) -> bool:
        """Go to a key frame near and usually before ``time``; False if the container cannot."""
        self._unread = False
        try:
            self._container.seek(time, stream=self._stream, backward=True)
        except self._av.error.FFmpegError:
            return False
        return True

    def decoded(self, from_key: bool = False, needed: Callable[[Any], bool] | None = None) -> Iterator[Any]:
        """Frames from the current position. Undecodable data before the first frame is ignored.

        Args:
            from_key: begin with the next key frame.
            needed: whether the frame of a packet is needed; if not, and no other frame refers to it, it is skipped.
        """
        begun, context = False, self._stream.codec_context
        context.skip_frame = "DEFAULT"
        for packet in self._container.demux(self._stream):
            if from_key and not packet.is_keyframe:
                continue
            from_key = False
            if needed is not None and packet.size:
                context.skip_frame = "DEFAULT" if needed(packet) else "NONREF"
            try:
                frames = packet.decode()
            except self._av.error.InvalidDataError:
                if begun:
                    raise
                continue
            for frame in frames:
                begun = True
                yield frame

    def first_frame(self) -> Any:
        """The first decodable frame.

        Raises:
            DecodeError: no frame can be decoded.
        """
        self.rewind()
        frame = next(self.decoded(), None)
        if frame is None:
            raise DecodeError("no frames")
        return frame
