"""Whether the encoder sees motion: digits that move in one of eight directions, in real mp4 files.

    python benchmarks/moving_digits.py --work WORK [--seeds 1 2 3] [--methods rq vq] [--jobs 2]

Digits are scikit-learn's, 8 x 8 pixels each, drawn twice as large on 32 x 32 pixels; one that leaves on one side
comes back on the other, so that no single frame tells where it goes. Test videos show digits that no training video
shows. An encoder (`tiny`, on 8 frames in tubelets of 2 x 8 x 8) is pretrained without labels. What its features tell of
the direction, and of the digit, is compared with the same encoder untrained and with histograms of colours and of edges
of single frames: those must be at chance with the direction, 0.125. What is compared, and how, is in study.py.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import av
import numpy as np
from runs import bridle, measure_statistics
from sklearn.datasets import load_digits
from study import Study, arguments, compare

SIDE, FRAMES, SPEED = 32, 12, 2  # pixels, frames, pixels a frame
DIRECTIONS = {
    **{"right": (0, 1), "down right": (1, 1), "down": (1, 0), "down left": (1, -1)},
    **{"left": (0, -1), "up left": (-1, -1), "up": (-1, 0), "up right": (-1, 1)},
}
CLIPS = {"train": 800, "valid": 160, "test": 320}  # 160 is a fifth of train
UPDATES = (600, 100, 300)  # of the encoder, the tokenizer, fine-tuning
SHOWN = ("--num-frames", "8", "--frame-stride", "1", "--image-size", str(SIDE))


def write(path: Path, digit: np.ndarray, place: tuple[int, int], step: tuple[int, int]) -> None:
    """A video of a digit (8 x 8, 0 to 16) that moves from a place by a step in every frame."""
    canvas = np.zeros((SIDE, SIDE), np.uint8)
    canvas[:16, :16] = (digit * 15).astype(np.uint8).repeat(2, 0).repeat(2, 1)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=25, options={"crf": "12"})
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "yuv420p"
        for number in range(FRAMES):
            moved = np.roll(
                canvas, [start + number * SPEED * by for start, by in zip(place, step, strict=True)], (0, 1)
            )
            file.mux(stream.encode(av.VideoFrame.from_ndarray(moved[..., None].repeat(3, 2), format="rgb24")))
        file.mux(stream.encode())


def make(folder: Path, seed: int) -> None:
    """``split/direction/number.mp4`` and ``digits.csv`` (file, label, split); each split has digits of its own."""
    random, digits = np.random.default_rng(seed), load_digits()
    images, table = digits.images, ["file,label,split"]
    order = random.permutation(len(images))
    for split, count in CLIPS.items():
        own, order = order[: len(images) // 3], order[len(images) // 3 :]
        for number in range(count):
            name, step = list(DIRECTIONS.items())[number % len(DIRECTIONS)]
            (folder / split / name).mkdir(parents=True, exist_ok=True)
            place = tuple(random.integers(0, SIDE, 2).tolist())
            chosen = int(random.choice(own))
            write(folder / split / name / f"{number}.mp4", images[chosen], place, step)
            table.append(f"{split}/{name}/{number}.mp4,{digits.target[chosen]},{split}")
    (folder / "digits.csv").write_text("\n".join(table) + "\n", encoding="utf-8")


def main() -> None:
    """Make the videos, then compare."""
    args = arguments(__doc__).parse_args()
    work = args.work.resolve()
    videos, direction, digit = (work / name for name in ("videos", "direction", "digit"))
    if not videos.exists():
        shutil.rmtree(work / "making", ignore_errors=True)
        make(work / "making", seed=1)
        (work / "making").rename(videos)
    bridle("manifest", videos, "--modality", "video", "--class-folders", "--dest", direction)
    bridle("manifest", videos, "--modality", "video", "--labels", videos / "digits.csv", "--dest", digit)
    statistics = measure_statistics(direction / "train.tsv", "--modality", "video", *SHOWN)
    shown = (f"task.image_size={SIDE}", "task.frame_stride=1", "task.crop=false", "task.flip=false")
    pretraining = [*shown, *statistics, f"dataset.validate_interval_updates={UPDATES[0] // 3}", *args.overrides]
    sets = {"direction": direction, "digit": digit}
    compare(lambda threads: Study(work, "video", direction, sets, pretraining, shown, UPDATES, threads), args)


if __name__ == "__main__":
    main()
