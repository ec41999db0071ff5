"""Whether the encoder sees motion: digits that move in one of eight directions, in real mp4 files.

    python benchmarks/moving_digits.py --work WORK [--seed 1] [--updates 600]

Digits are scikit-learn's, 8 x 8 pixels each, drawn twice as large on 32 x 32 pixels; one that leaves on one side
comes back on the other, so that no single frame tells where it goes. Test videos show digits that no training video
shows. An encoder (`tiny`, on 8 frames in tubelets of 2 x 8 x 8) is pretrained without labels; then `bridle probe`
compares what its frozen features tell of the direction with the same encoder untrained, and with histograms of
colours and of edges a single frame, which must be at chance: 0.125.

A run that was stopped goes on. Results: WORK/probe/probe.csv.
"""

from __future__ import annotations

import argparse
import re
import subprocess
from pathlib import Path

import av
import numpy as np
from clothing import OVERRIDES, bridle
from runs import ROOT, command
from sklearn.datasets import load_digits

SIDE, FRAMES, SPEED = 32, 12, 2  # pixels, frames, pixels a frame
DIRECTIONS = {
    **{"right": (0, 1), "down right": (1, 1), "down": (1, 0), "down left": (1, -1)},
    **{"left": (0, -1), "up left": (-1, -1), "up": (-1, 0), "up right": (-1, 1)},
}
CLIPS = {"train": 800, "valid": 160, "test": 320}  # 160 is a fifth of train
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
    """``split/direction/number.mp4``; each split has digits of its own."""
    random, images = np.random.default_rng(seed), load_digits().images
    order = random.permutation(len(images))
    for split, count in CLIPS.items():
        own, order = order[: len(images) // 3], order[len(images) // 3 :]
        for number in range(count):
            name, step = list(DIRECTIONS.items())[number % len(DIRECTIONS)]
            (folder / split / name).mkdir(parents=True, exist_ok=True)
            place = tuple(random.integers(0, SIDE, 2).tolist())
            write(folder / split / name / f"{number}.mp4", images[random.choice(own)], place, step)


def main() -> None:
    """Make the videos, pretrain, then compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--updates", type=int, default=600)
    args = parser.parse_args()
    work = args.work.resolve()
    if not (work / "videos").exists():
        make(work / "making", args.seed)
        (work / "making").rename(work / "videos")
    manifests, pretrained = work / "manifests", work / "pretrained"
    bridle("manifest", work / "videos", "--modality", "video", "--class-folders", "--dest", manifests)
    said = bridle("stats", manifests / "train.tsv", "--modality", "video", *SHOWN)
    train = [
        command("fairseq-hydra-train"),
        *("--config-dir", str(ROOT / "examples/video/config/pretraining"), "--config-name", "tiny"),
        f"common.user_dir={ROOT / 'bridle_fairseq'}",
        f"common.seed={args.seed}",
        f"task.data={manifests}",
        *(f"task.image_size={SIDE}", "task.frame_stride=1", "task.crop=false", "task.flip=false"),
        *re.findall(r"model\.pixel_\w+=\S+", said),
        *OVERRIDES,
        f"model.stages=[{{kind: encoder, updates: {args.updates}, lr: 1.0e-3, warmup_updates: {args.updates // 10}}}]",
        f"checkpoint.save_dir={pretrained}",
        f"hydra.run.dir={pretrained}",
    ]
    with open(work / "stdout.log", "a", encoding="utf-8") as log:
        subprocess.run(train, stdout=log, stderr=log, check=True)
    options = ("--out", work / "probe", "--seed", args.seed)
    print(bridle("probe", pretrained / "checkpoint_last.pt", manifests, *options))


if __name__ == "__main__":
    main()
