"""What pretraining is worth on small images, of which a few labels are known.

    python benchmarks/images.py clothing DATA --work WORK [--seeds 1 2 3] [--methods rq vq] [--jobs 2]
    python benchmarks/images.py digits --work WORK

clothing: DATA is a folder with train/CLASS/*.jpg and test/CLASS/*.jpg, such as clothing-dataset-small: ten classes of
photographs, 100 images each to learn from, 24 to test. digits: scikit-learn's 1797 digits of 8 x 8 pixels, written as
PNG files of 32 x 32; every third one is for testing.

Pretraining sees all of train without labels; probes and fine-tuning validate on a random 15 % of it. What is compared,
and how, is in study.py.
"""

from __future__ import annotations

from pathlib import Path

from runs import bridle, measure_statistics
from study import Study, arguments, compare

UPDATES = {"clothing": (1200, 100, 400), "digits": (600, 100, 300)}  # of the encoder, the tokenizer, fine-tuning
# A digit in a mirror is another one or none; small crops of it are too.
OVERRIDES = {
    "clothing": (),
    "digits": ("task.image_size=32", "task.flip=false", "task.min_area=0.6"),
}
PATCHES = {"clothing": (), "digits": ("model.patch_size=[4,4]",)}


def write_digits(folder: Path) -> None:
    """``split/digit/number.png``."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = folder / ("train" if number % 3 else "test") / str(label) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 15.9).astype("uint8")).resize((32, 32), Image.Resampling.BICUBIC).save(path)


def main() -> None:
    """Write manifests, then compare."""
    parser = arguments(__doc__)
    parser.add_argument("set", choices=list(UPDATES))
    parser.add_argument("data", type=Path, nargs="?", help="of clothing")
    args = parser.parse_args()
    work = args.work.resolve()
    data = args.data.resolve() if args.data else work / "images"
    if args.set == "digits" and not data.exists():
        write_digits(work / "making")
        (work / "making").rename(data)
    everything, labelled = work / "all", work / "labelled"
    for folder, source, share in ((everything, data / "train", "0.05"), (labelled, data, "0.15")):
        named = ("--class-folders",) if folder == labelled else ()
        bridle("manifest", source, "--modality", "image", "--dest", folder, "--valid-percent", share, *named)
    size = 64 if args.set == "clothing" else 32
    shown = measure_statistics(everything / "train.tsv", "--modality", "image", "--image-size", size)
    often = f"dataset.validate_interval_updates={UPDATES[args.set][0] // 3}"
    pretraining = [*shown, *OVERRIDES[args.set], *PATCHES[args.set], often, *args.overrides]

    def make(threads: int) -> Study:
        sets = {"classes": labelled}
        finetuning = ["dataset.validate_interval=2", *OVERRIDES[args.set]]
        return Study(work, "images", everything, sets, pretraining, finetuning, UPDATES[args.set], threads)

    compare(make, args)


if __name__ == "__main__":
    main()
