"""Random clips of video files per second, compared with plain PyAV decoding of the same frames.

    python benchmarks/video_loader.py [--videos DIR] [--short-side 256] [--clips 1]

Plain PyAV opens the file, seeks to the clip, decodes with one thread up to its last frame, and converts and scales the
needed frames. It does not handle odd timestamps, broken files or crashes. Ours runs in this process (``read_clips``)
and in a decoding process (``VideoReader``, which data loader workers use). All use one thread and run in turn. Results
are medians over the rounds, in wall time and in CPU time, which other processes disturb less (the decoding process
counts on Linux only). Without --videos, files like those of Kinetics are generated: 10 s, 340 x 256 pixels, 30 frames
per second, H.264 by x264.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import av
import numpy as np
import torch

from bridle_fairseq.data.video.frames import read_clips
from bridle_fairseq.data.video.reader import EXTENSIONS, VideoReader

FRAMES, STRIDE = 16, 4


def make_videos(folder: Path, count: int = 8, size: tuple[int, int] = (340, 256)) -> None:
    """Write videos of two textures that move past each other, with noise."""
    random = np.random.default_rng(0)
    for number in range(count):
        texture = random.integers(0, 256, (2, 40, 50, 3), dtype=np.uint8).repeat(16, 1).repeat(16, 2)
        with av.open(str(folder / f"{number}.mp4"), "w") as file:
            stream = file.add_stream("libx264", rate=30)
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
            for step in range(300):
                back, front = (
                    np.roll(layer, (step * speed, step), (0, 1)) for layer, speed in zip(texture, (1, 3), strict=True)
                )
                image = np.where(np.arange(800)[:, None] % 160 < 80, back, front)[: size[1], : size[0]]
                image = np.clip(image + random.normal(0, 4, image.shape), 0, 255).astype(np.uint8)
                file.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            file.mux(stream.encode())


def read_plain(path: str, starts: list[int], short_side: int) -> torch.Tensor:
    """Clips (N x frames x height x width x 3, uint8) that start at these frames, read with a few lines of PyAV."""
    clips = []
    with av.open(path) as file:
        stream = file.streams.video[0]
        stream.codec_context.thread_count = 1
        scale = short_side / min(stream.codec_context.width, stream.codec_context.height)
        width, height = (round(n * scale) for n in (stream.codec_context.width, stream.codec_context.height))
        length = 1 / (stream.average_rate * stream.time_base)
        for start in starts:
            timestamps = [int((start + STRIDE * n) * length) + (stream.start_time or 0) for n in range(FRAMES)]
            file.seek(timestamps[0], stream=stream)
            frames = []
            for frame in file.decode(stream):
                if frame.pts >= timestamps[len(frames)]:
                    rgb = frame.reformat(width, height, "rgb24", interpolation="BICUBIC", threads=1)
                    frames.append(rgb.to_ndarray())
                    if len(frames) == FRAMES:
                        break
            clips.append(np.stack(frames))
    return torch.from_numpy(np.stack(clips))


def main() -> None:
    """Compare the readers and print clips per second and ratios."""
    parser = argparse.ArgumentParser(description="Random clips per second, compared with plain PyAV.")
    parser.add_argument("--videos", type=Path, help="folder of files with a constant frame rate")
    parser.add_argument("--short-side", type=int, default=256)
    parser.add_argument("--clips", type=int, default=1, help="clips per file and read")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.videos is None:
            make_videos(Path(folder))
        paths = sorted(p for p in (args.videos or Path(folder)).iterdir() if p.suffix[1:] in EXTENSIONS)
        compare([str(path) for path in paths], args.short_side, args.clips, args.rounds)


def clocks(reader: VideoReader) -> np.ndarray:
    """Wall seconds, and CPU seconds of this process and (on Linux) of the decoding process."""
    child = time.clock_gettime(~reader.pid << 3 | 2) if sys.platform == "linux" else 0.0  # see clock_getcpuclockid(3)
    return np.array([time.perf_counter(), time.process_time() + child])


def compare(paths: list[str], short_side: int, clips: int, rounds: int) -> None:
    """Read the same clips of each file with the three readers, in turn, and print the results."""
    random, reader = np.random.default_rng(0), VideoReader()
    work = []
    for path in paths:
        info = reader.info(path)
        last_start = round(info.seconds * info.rate) - (FRAMES - 1) * STRIDE - 1
        if last_start < 0 or info.rotation:
            print(f"skipped, because it is shorter than a clip or rotated, which plain PyAV does not handle: {path}")
            continue
        starts = sorted(random.integers(0, last_start + 1, clips).tolist())
        work.append((path, starts, [(start + 0.5) / (last_start + 1) for start in starts]))
    readers = {
        "plain PyAV": lambda path, starts, places: read_plain(path, starts, short_side),
        "read_clips": lambda path, starts, places: torch.from_numpy(read_clips(path, places, short_side=short_side)),
        "VideoReader": lambda path, starts, places: reader.clips(path, places, short_side=short_side),
    }
    seconds: dict[str, list[np.ndarray]] = {name: [] for name in readers}
    same = 0
    for _ in range(rounds):
        totals = {name: np.zeros(2) for name in readers}
        for item in work:
            frames = {}
            for name, read in readers.items():
                start = clocks(reader)
                frames[name] = read(*item)
                totals[name] += clocks(reader) - start
            assert torch.equal(frames["read_clips"], frames["VideoReader"])
            same += torch.equal(frames["plain PyAV"], frames["read_clips"])
        for name in readers:
            seconds[name].append(totals[name])
    number = len(work) * clips
    medians = {name: np.median(rows, axis=0) for name, rows in seconds.items()}
    for name, (clock, cpu) in medians.items():
        by_clock, by_cpu = medians["plain PyAV"] / (clock, cpu)
        print(
            f"{name:12} {number / clock:6.2f} clips/s ({by_clock:.2f} of plain PyAV), "
            f"{1e3 * cpu / number:6.1f} ms of CPU per clip ({by_cpu:.2f} of its speed)"
        )
    print(
        f"{number} clips of {len(work)} files, short side {short_side}; same frames in {same} of {len(work) * rounds}"
    )


if __name__ == "__main__":
    main()
