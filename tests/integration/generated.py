"""Generated files with their manifests: sounds, images, and videos."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image


def write_images(folder, split, lengths, seed):
    """Write images of waves in noise, of various sizes, and their manifest."""
    random = np.random.default_rng(seed)
    rows = []
    for number, length in enumerate(lengths):
        height, width = 20 + length % 17, 20 + length % 23
        y, x = np.mgrid[:height, :width]
        waves = [np.sin(x * random.uniform(0, 0.6) + y * random.uniform(0, 0.6) + random.uniform(0, 6)) for _ in "RGB"]
        pixels = 128 + 90 * np.stack(waves, -1) + 8 * random.standard_normal((height, width, 3))
        path = Path("clips", f"{split} {number}.png")
        (folder / path).parent.mkdir(exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / path)
        rows.append(f"{path}\t1\n")
    (folder / f"{split}.tsv").write_text(f"{folder}\n" + "".join(rows))


def write_videos(folder, split, lengths, seed):
    """Write videos of bars that move over waves, with 3 to 20 frames of various sizes, and their manifest."""
    av = pytest.importorskip("av")
    random = np.random.default_rng(seed)
    rows = []
    for number, length in enumerate(lengths):
        frames, width, height = 3 + length % 18, 16 + length % 5 * 2, 16 + length % 7 * 2
        path = Path("clips", f"{split} {number}.mp4")
        (folder / path).parent.mkdir(exist_ok=True)
        y, x = np.mgrid[:height, :width]
        pitch, speed = random.uniform(0, 0.6, (3, 2)), random.integers(-2, 3, 2)
        waves = np.stack([128 + 90 * np.sin(x * a + y * b + 6 * a) for a, b in pitch], -1)
        # x264's assembly reads past the end of frames this small, which makes files differ between runs.
        options = {"crf": "18", "threads": "1", "x264-params": "asm=0"}
        with av.open(str(folder / path), "w") as file:
            stream = file.add_stream("libx264", rate=25, options=options)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for frame in range(frames):
                pixels = waves.clip(0, 255).astype(np.uint8)
                pixels[(y - frame * speed[0]) % height < 6] = 255
                pixels[(x - frame * speed[1]) % width < 4] = 0
                file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            file.mux(stream.encode())
        rows.append(f"{path}\t{frames}\n")
    (folder / f"{split}.tsv").write_text(f"{folder}\n" + "".join(rows))


def write_clips(folder, split, lengths, seed):
    """Write tones of varying pitch in noise, and their manifest."""
    random = np.random.default_rng(seed)
    rows = []
    for number, length in enumerate(lengths):
        pitch = random.uniform(0.02, 0.8, length // 400 + 1).repeat(400)[:length]
        wave = 0.3 * np.sin(np.cumsum(pitch)) + 0.01 * random.standard_normal(length)
        path = Path("clips", f"{split} {number}.wav")
        (folder / path).parent.mkdir(exist_ok=True)
        soundfile.write(folder / path, wave, 16000)
        rows.append(f"{path}\t{length}\n")
    (folder / f"{split}.tsv").write_text(f"{folder}\n" + "".join(rows))
