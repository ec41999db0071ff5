"""The first sound stream of a container such as m4a, decoded by PyAV (FFmpeg) to mono. Runs in the decoding process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from bridle_fairseq.data.manifests.archive import Slice, split_slice
from bridle_fairseq.data.regular import check_regular
from bridle_fairseq.data.video.container import ContainerFile, decode_errors, load_av
from bridle_fairseq.utils.errors import DecodeError

FORMATS = "mov,mp4,m4a,matroska,webm,asf,amr,aac,caf,ogg,wv,tta"  # demuxers of FFmpeg
OPTIONS = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
SCALES = {"u8": 128.0, "s16": 32768.0, "s32": 2147483648.0, "flt": 1.0, "dbl": 1.0}  # what stands for 1
MAX_CHANNELS = 64
MAX_RATE = 1 << 21  # Hz, above any converter's rate; ten seconds are 84 MB
FAR_SECONDS = 30  # crops farther from the start are found by seeking
PREROLL_SECONDS = 2  # decoded and dropped after seeking, since a frame depends on the ones before it


class SoundStream(ContainerFile):
    """An open file. Frames are counted from the first one that is decoded.

    Args:
        path: a file or a slice of a stored archive.

    Attributes:
        path: as above.
        rate: frames per second.
        position: number of the frame that is read next.

    Raises:
        DecodeError: missing, empty, another format, or without sound.
    """

    def __init__(self, path: str) -> None:
        self._av, self.path, self.position = load_av(), path, 0
        self._rest = np.zeros(0, np.float32)
        self._first_time: int | None = None
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        with decode_errors("not readable as sound"):
            name, offsets = split_slice(self.path)
            check_regular(name)
            self._slice = None if offsets is None else Slice(name, *offsets)
            # Without "file:", FFmpeg would take a name with a colon for a protocol.
            self._container = self._av.open(self._slice or f"file:{name}", options=OPTIONS, metadata_errors="replace")
        if not self._container.streams.audio:
            raise DecodeError("no sound in it")
        self._stream = self._container.streams.audio[0]
        context = self._stream.codec_context
        self.rate = int(context.sample_rate or 0)
        if not 0 < self.rate <= MAX_RATE or not 0 < context.channels <= MAX_CHANNELS:
            raise DecodeError(
                f"{context.channels} channels at {self.rate} Hz; expected at most {MAX_CHANNELS} and {MAX_RATE} Hz"
            )
        self._blocks: Iterator[np.ndarray] = self._decoded()

    def read(self, start: int, count: int) -> np.ndarray:
        """Frames ``start`` to ``start + count``, float32 with the mean of the channels; fewer at the end.

        ``start`` is not before :attr:`position`.
        """
        blocks, missing = [], count
        with decode_errors("corrupt"):
            if self.position == 0 and start > FAR_SECONDS * self.rate:
                self._seek(start - PREROLL_SECONDS * self.rate)
            while missing > 0:
                if not len(self._rest):
                    block = next(self._blocks, None)
                    if block is None:
                        break
                    self._rest = block
                dropped = min(len(self._rest), max(0, start - self.position))
                taken = self._rest[dropped : dropped + missing]
                if len(taken):
                    blocks.append(taken)
                    missing -= len(taken)
                self._rest = self._rest[dropped + len(taken) :]
                self.position += dropped + len(taken)
        return np.concatenate([np.zeros(0, np.float32), *blocks])

    def _seek(self, frame: int) -> None:
        """Go on at most at ``frame``, if times in this container are exact to a frame."""
        if self._stream.time_base * self.rate != 1 or not self._stream.index_entries:
            return
        self._rest = next(self._blocks, self._rest)
        if self._first_time is None:
            return
        self._container.seek(self._first_time + frame, stream=self._stream, backward=True)
        frames = self._frames()
        first = next(frames, None)
        if first is None or first.pts is None or not 0 <= first.pts - self._first_time <= frame:
            raise DecodeError("a position in it cannot be found")
        self.position = first.pts - self._first_time
        self._rest = self._mono(first)
        self._blocks = map(self._mono, frames)

    def _decoded(self) -> Iterator[np.ndarray]:
        for frame in self._frames():
            if self._first_time is None:
                self._first_time = frame.pts
            yield self._mono(frame)

    def _frames(self) -> Iterator[Any]:
        for packet in self._container.demux(self._stream):
            yield from packet.decode()

    def _mono(self, frame: Any) -> np.ndarray:
        """Samples of a decoded frame, the mean of its channels."""
        kind = frame.format.name.removesuffix("p")
        if kind not in SCALES or frame.sample_rate != self.rate:
            raise DecodeError(f"samples of format {frame.format.name} at {frame.sample_rate} Hz after {self.rate} Hz")
        samples = frame.to_ndarray()  # channels x n, or 1 x (n * channels)
        channels = frame.layout.nb_channels
        if not frame.format.is_planar:
            samples = samples.reshape(-1, channels).T
        samples = samples.astype(np.float32) - (128 if kind == "u8" else 0)
        return (samples[0] if channels == 1 else samples.mean(axis=0)) / np.float32(SCALES[kind])


class SoundCache:
    """Reads files; the last one stays open, because long ones are read in blocks."""

    def __init__(self) -> None:
        self._open: SoundStream | None = None

    def rate(self, path: str) -> int:
        """Sample rate of a file in Hz.

        Raises:
            DecodeError: see :class:`SoundStream`.
        """
        return self._at(path, 0).rate

    def read(self, path: str, start: int, count: int) -> np.ndarray:
        """Frames of a file: see :meth:`SoundStream.read`.

        Raises:
            DecodeError: see :class:`SoundStream`, or corrupt.
        """
        return self._at(path, start).read(start, count)

    def _at(self, path: str, start: int) -> SoundStream:
        """The file, open at a frame or before it."""
        stream = self._open
        if stream is None or stream.path != path or stream.position > start or 0 < stream.position < start:
            self._open = None
            if stream is not None:
                stream.close()
            self._open = stream = SoundStream(path)
        return stream
