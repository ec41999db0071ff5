"""Check that the video files of a folder decode, and that frames equal those of a reference decoding.

    python benchmarks/video_frames.py DIR

The reference decodes the whole file with PyAV, without seeking, and converts every frame to RGB. The frame of a time
slot is the last one shown before the middle of the slot. Ours are the clips that training reads (16 frames, every 4th)
at five positions from start to end, each read separately. Prints a table.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import av
import numpy as np

from bridle_fairseq.data.video.frames import even_places, read_clips, read_video_info
from bridle_fairseq.data.video.reader import EXTENSIONS
from bridle_fairseq.utils.errors import DecodeError

FRAMES, STRIDE, PLACES = 16, 4, 5


def reference(path: Path) -> tuple[np.ndarray, np.ndarray, Any]:
    """Seconds and RGB of all frames, rotated as their metadata says; codec and pixel format of the stream."""
    times, frames = [], []
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        context, start = stream.codec_context, float((stream.start_time or 0) * stream.time_base)
        for frame in file.decode(stream):
            times.append(frame.time - start)
            frames.append(np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90) % 4))
        return np.array(times), np.stack(frames), (context.name, context.pix_fmt)


def row(path: Path) -> str:
    """A row of the table."""
    try:
        info = read_video_info(str(path))
        clips = [read_clips(str(path), [place])[0] for place in even_places(PLACES)]
    except DecodeError as error:
        return f"| {path.name} | {error} | | | | |"
    times, frames, (codec, pixels) = reference(path)
    slots = round(info.seconds * info.rate)
    last_start, differ = max(0, slots - (FRAMES - 1) * STRIDE - 1), 0
    for place, clip in zip(even_places(PLACES), clips, strict=True):
        numbers = np.minimum(min(int(place * (last_start + 1)), last_start) + STRIDE * np.arange(FRAMES), slots - 1)
        indices = np.searchsorted(times, (numbers + 0.5) / info.rate, side="right") - 1
        differ += int((clip != frames[indices]).any((1, 2, 3)).sum())
    rotated = f", rotated by {info.rotation}" if info.rotation else ""
    size = f"{info.width} x {info.height}{rotated}"
    same = f"{FRAMES * PLACES - differ} of {FRAMES * PLACES}"
    return f"| {path.name} | {codec}, {pixels} | {size} | {info.rate:.2f} | {info.num_frames}, {len(frames)} | {same} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Frames compared with a reference decoding.")
    parser.add_argument("videos", type=Path, help="folder of the files")
    args = parser.parse_args()
    print("| file | codec, pixels | displayed | frames per second | frames: stated or counted, decoded | same frames |")
    print("|---|---|---|---|---|---|")
    for path in sorted(path for path in args.videos.iterdir() if path.suffix[1:].lower() in EXTENSIONS):
        print(row(path), flush=True)


if __name__ == "__main__":
    main()
