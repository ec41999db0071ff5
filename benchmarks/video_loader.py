"""Random clips of video files a second, beside plain PyAV decoding of the very same frames.

    python benchmarks/video_loader.py [--videos DIR] [--short-side 256] [--clips 1]

Plain PyAV opens the file, seeks to the clip, decodes with one thread up to its last frame, and converts and scales
those that are wanted: no care for times, broken files or crashes. Ours does it in this process (``read_clips``) and in
a decoding process (``VideoReader``, what data loader workers use). All with one thread, in turns; the median of the
rounds counts, by the clock and in CPU time, which other work on the machine disturbs less (the child's on Linux only).
Without --videos it makes files as Kinetics has them: 10 s, 340 x 256, 30 frames a second, H.264 as x264 makes it.
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
    """Textures that move past each other, with some noise."""
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


def plain(path: str, starts: list[int], short_side: int) -> torch.Tensor:
    """What a few lines over PyAV do."""
    clips = []
    with av.open(path) as file:
        stream = file.streams.video[0]
        stream.codec_context.thread_count = 1
        scale = short_side / min(stream.codec_context.width, stream.codec_context.height)
        width, height = (round(n * scale) for n in (stream.codec_context.width, stream.codec_context.height))
        length = 1 / (stream.average_rate * stream.time_base)
        for start in starts:
            wanted = [int((start + STRIDE * n) * length) + (stream.start_time or 0) for n in range(FRAMES)]
            file.seek(wanted[0], stream=stream)
            frames = []
            for frame in file.decode(stream):
                if frame.pts >= wanted[len(frames)]:
                    rgb = frame.reformat(width, height, "rgb24", interpolation="BICUBIC", threads=1)
                    frames.append(rgb.to_ndarray())
                    if len(frames) == FRAMES:
                        break
            clips.append(np.stack(frames))
    return torch.from_numpy(np.stack(clips))


def main() -> None:
    """Compare, and print clips a second and their ratios."""
    parser = argparse.ArgumentParser(description="Random clips a second beside plain PyAV.")
    parser.add_argument("--videos", type=Path, help="folder of files, all with a constant frame rate")
    parser.add_argument("--short-side", type=int, default=256)
    parser.add_argument("--clips", type=int, default=1, help="of a file at once")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        if args.videos is None:
            make_videos(Path(made))
        paths = sorted(p for p in (args.videos or Path(made)).iterdir() if p.suffix[1:] in EXTENSIONS)
        compare([str(path) for path in paths], args.short_side, args.clips, args.rounds)


def clocks(reader: VideoReader) -> np.ndarray:
    """Seconds by the clock, and CPU seconds of this process and, on Linux, of the decoding process."""
    child = time.clock_gettime(~reader.pid << 3 | 2) if sys.platform == "linux" else 0.0  # as clock_getcpuclockid(3)
    return np.array([time.perf_counter(), time.process_time() + child])


def compare(paths: list[str], short_side: int, clips: int, rounds: int) -> None:
    """Read the same clips of each file in three ways, in turns."""
    random, reader = np.random.default_rng(0), VideoReader()
    work = []
    for path in paths:
        info = reader.info(path)
        room = round(info.seconds * info.rate) - (FRAMES - 1) * STRIDE - 1
        if room < 0 or info.rotation:
            print(f"left out, shorter than a clip or to be turned, which plain PyAV does not care for: {path}")
            continue
        starts = sorted(random.integers(0, room + 1, clips).tolist())
        work.append((path, starts, [(start + 0.5) / (room + 1) for start in starts]))
    ways = {
        "plain PyAV": lambda path, starts, places: plain(path, starts, short_side),
        "read_clips": lambda path, starts, places: torch.from_numpy(read_clips(path, places, short_side=short_side)),
        "VideoReader": lambda path, starts, places: reader.clips(path, places, short_side=short_side),
    }
    seconds: dict[str, list[np.ndarray]] = {name: [] for name in ways}
    same = 0
    for _ in range(rounds):
        took = {name: np.zeros(2) for name in ways}
        for item in work:
            found = {}
            for name, way in ways.items():
                begin = clocks(reader)
                found[name] = way(*item)
                took[name] += clocks(reader) - begin
            assert torch.equal(found["read_clips"], found["VideoReader"])
            same += torch.equal(found["plain PyAV"], found["read_clips"])
        for name in ways:
            seconds[name].append(took[name])
    number = len(work) * clips
    middle = {name: np.median(rows, axis=0) for name, rows in seconds.items()}
    for name, (clock, cpu) in middle.items():
        by_clock, by_cpu = middle["plain PyAV"] / (clock, cpu)
        print(
            f"{name:12} {number / clock:6.2f} clips/s ({by_clock:.2f} of plain PyAV), "
            f"{1e3 * cpu / number:6.1f} ms of CPU a clip ({by_cpu:.2f} of its speed)"
        )
    print(
        f"{number} clips of {len(work)} files, short side {short_side}; same frames in {same} of {len(work) * rounds}"
    )


if __name__ == "__main__":
    main()
