"""Motion in the encoder's features: mp4 files of digits that move in one of eight directions.

    python benchmarks/moving_digits.py --work WORK [--seeds 1 2 3] [--methods rq vq] [--jobs 2]

The digits are scikit-learn's, 8 x 8 pixels each, drawn at twice the size on 32 x 32 pixels. A digit that leaves on one
side returns on the other, so that a single frame does not show the direction. The digit images of test videos do not
occur in training videos. An encoder (`tiny`, on 8 frames in tubelets of 2 x 8 x 8) is pretrained without labels. Its
features are probed for the direction and for the digit, and compared with the untrained encoder and with histograms of
colours and edges of single frames, which must be at chance (0.125) for the direction. study.py describes the
comparison.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import av
import numpy as np
from runs import bridle, measure_statistics
from sklearn.datasets import load_digits
from study import Study, argument_parser, compare

SIDE, FRAMES, SPEED = 32, 12, 2  # pixels, frames, pixels per frame
DIRECTIONS = {
    **{"right": (0, 1), "down right": (1, 1), "down": (1, 0), "down left": (1, -1)},
    **{"left": (0, -1), "up left": (-1, -1), "up": (-1, 0), "up right": (-1, 1)},
}
CLIPS = {"train": 800, "valid": 160, "test": 320}  # valid is a fifth of train
UPDATES = (600, 100, 300)  # encoder, tokenizer, fine-tuning
CLIP_OPTIONS = ("--num-frames", "8", "--frame-stride", "1", "--image-size", str(SIDE))


def write_video(path: Path, digit: np.ndarray, position: tuple[int, int], step: tuple[int, int]) -> None:
    """Write a video of a digit (8 x 8, values 0 to 16) that starts at a position and moves by a step in every frame."""
    canvas = np.zeros((SIDE, SIDE), np.uint8)
    canvas[:16, :16] = (digit * 15).astype(np.uint8).repeat(2, 0).repeat(2, 1)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=25, options={"crf": "12"})
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "yuv420p"
        for number in range(FRAMES):
            moved = np.roll(
                canvas, [start + number * SPEED * by for start, by in zip(position, step, strict=True)], (0, 1)
            )
            file.mux(stream.encode(av.VideoFrame.from_ndarray(moved[..., None].repeat(3, 2), format="rgb24")))
        file.mux(stream.encode())


def make_videos(folder: Path, seed: int) -> None:
    """Write ``split/direction/number.mp4`` and ``digits.csv`` (file, label, split); splits share no digit image."""
    random, digits = np.random.default_rng(seed), load_digits()
    images, table = digits.images, ["file,label,split"]
    order = random.permutation(len(images))
    for split, count in CLIPS.items():
        own, order = order[: len(images) // 3], order[len(images) // 3 :]
        for number in range(count):
            name, step = list(DIRECTIONS.items())[number % len(DIRECTIONS)]
            (folder / split / name).mkdir(parents=True, exist_ok=True)
            position = tuple(random.integers(0, SIDE, 2).tolist())
            index = int(random.choice(own))
            write_video(folder / split / name / f"{number}.mp4", images[index], position, step)
            table.append(f"{split}/{name}/{number}.mp4,{digits.target[index]},{split}")
    (folder / "digits.csv").write_text("\n".join(table) + "\n", encoding="utf-8")


def main() -> None:
    """Generate the videos, then compare."""
    args = argument_parser(__doc__).parse_args()
    work = args.work.resolve()
    videos, direction, digit = (work / name for name in ("videos", "direction", "digit"))
    if not videos.exists():
        shutil.rmtree(work / "making", ignore_errors=True)
        make_videos(work / "making", seed=1)
        (work / "making").rename(videos)
    bridle("manifest", videos, "--modality", "video", "--class-folders", "--dest", direction)
    bridle("manifest", videos, "--modality", "video", "--labels", videos / "digits.csv", "--dest", digit)
    statistics = measure_statistics(direction / "train.tsv", "--modality", "video", *CLIP_OPTIONS)
    options = (f"task.image_size={SIDE}", "task.frame_stride=1", "task.crop=false", "task.flip=false")
    pretraining = [*options, *statistics, f"dataset.validate_interval_updates={UPDATES[0] // 3}", *args.overrides]
    sets = {"direction": direction, "digit": digit}
    compare(lambda threads: Study(work, "video", direction, sets, pretraining, options, UPDATES, threads), args)


if __name__ == "__main__":
    main()
