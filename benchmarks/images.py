"""Effect of pretraining on small labelled image sets.

    python benchmarks/images.py clothing DATA --work WORK [--seeds 1 2 3] [--methods rq vq] [--jobs 2]
    python benchmarks/images.py digits --work WORK

clothing: DATA is a folder with train/CLASS/*.jpg and test/CLASS/*.jpg, such as clothing-dataset-small: photographs of
ten classes, with 100 training and 24 test images each. digits: the 1797 digits of scikit-learn, 8 x 8 pixels, written
as PNG files of 32 x 32 pixels; every third one is a test image.

Pretraining uses the whole training set without labels. Probes and fine-tuning validate on a random 15 % of it. study.py
describes the comparison.
"""

from __future__ import annotations

from pathlib import Path

from runs import bridle, measure_statistics
from study import Study, argument_parser, compare

UPDATES = {"clothing": (1200, 100, 400), "digits": (600, 100, 300)}  # encoder, tokenizer, fine-tuning
# Mirroring a digit or cropping it tightly can change its class.
OVERRIDES = {
    "clothing": (),
    "digits": ("task.image_size=32", "task.flip=false", "task.min_area=0.6"),
}
PATCHES = {"clothing": (), "digits": ("model.patch_size=[4,4]",)}


def write_digits(folder: Path) -> None:
    """Write the digits as ``split/digit/number.png``."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = folder / ("train" if number % 3 else "test") / str(label) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 15.9).astype("uint8")).resize((32, 32), Image.Resampling.BICUBIC).save(path)


def main() -> None:
    """Write manifests, then compare."""
    parser = argument_parser(__doc__)
    parser.add_argument("set", choices=list(UPDATES))
    parser.add_argument("data", type=Path, nargs="?", help="folder of the set clothing")
    args = parser.parse_args()
    work = args.work.resolve()
    data = args.data.resolve() if args.data else work / "images"
    if args.set == "digits" and not data.exists():
        write_digits(work / "making")
        (work / "making").rename(data)
    unlabelled, labelled = work / "all", work / "labelled"
    for folder, source, share in ((unlabelled, data / "train", "0.05"), (labelled, data, "0.15")):
        labels = ("--class-folders",) if folder == labelled else ()
        bridle("manifest", source, "--modality", "image", "--dest", folder, "--valid-percent", share, *labels)
    size = 64 if args.set == "clothing" else 32
    statistics = measure_statistics(unlabelled / "train.tsv", "--modality", "image", "--image-size", size)
    validation = f"dataset.validate_interval_updates={UPDATES[args.set][0] // 3}"
    pretraining = [*statistics, *OVERRIDES[args.set], *PATCHES[args.set], validation, *args.overrides]

    def make_study(threads: int) -> Study:
        sets = {"classes": labelled}
        finetuning = ["dataset.validate_interval=2", *OVERRIDES[args.set]]
        return Study(work, "images", unlabelled, sets, pretraining, finetuning, UPDATES[args.set], threads)

    compare(make_study, args)


if __name__ == "__main__":
    main()
