"""Speed of the data loader alone, compared with torchvision's ImageFolder or plain PyAV decoding.

    python benchmarks/loader.py image [DIR] [--image-size 224] [--workers 2] [--rounds 5]
    python benchmarks/loader.py video [DIR]

All loaders use torch's DataLoader with the same number of workers, one thread each, and run in turn. A round is one
pass over all files. Results are medians over rounds of wall time and of CPU time of the workers and their decoding
processes, which other processes disturb less (Linux only). Ours is the data set that training uses.

image: DIR has class folders; without it, 256 JPEGs of 500 x 375 pixels are generated. The peers are ImageFolder with
RandomResizedCrop(0.2 to 1, bicubic) and a flip, once to uint8 (as ours) and once normalized (as in common recipes).
video: without DIR, the files of video_loader.py are generated. The peers are a short PyAV reader (open, seek, decode
with one thread, scale the needed frames), once with decoding alone and once with torchvision's crop and flip.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from video_loader import FRAMES, STRIDE, make_videos, read_plain

from bridle_fairseq.data.image.augment import ImageAugment, load_transforms
from bridle_fairseq.data.image.dataset import ImageDataset
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.data.modalities import modality_named
from bridle_fairseq.data.video.dataset import VideoDataset
from bridle_fairseq.prepare.scan import find_files, read_sizes

MIN_AREA = {"image": 0.2, "video": 0.5}
VALID_CROP = 0.875


def make_images(folder: Path, count: int = 256, size: tuple[int, int] = (500, 375)) -> None:
    """Write JPEGs (quality 90) of coloured patches at four scales plus noise: about the file size of photographs."""
    random = np.random.default_rng(0)
    for number in range(count):
        pixels = random.normal(0, 6, (size[1], size[0], 3)) + 128
        for scale, strength in ((4, 30), (12, 40), (40, 50), (120, 60)):
            small = random.integers(0, 256, (size[1] // scale + 2, size[0] // scale + 2, 3), dtype=np.uint8)
            layer = np.asarray(Image.fromarray(small).resize(size, Image.Resampling.BICUBIC), dtype=np.float64)
            pixels += (layer / 127.5 - 1) * strength
        path = folder / f"class {number % 8}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=90)


def manifest_of(folder: Path, modality: str) -> Manifest:
    """The manifest of the files in a folder."""
    kind = modality_named(modality)
    scan = read_sizes(*find_files(folder, kind.extensions), kind.measure, workers=2)
    path = Path(tempfile.mkdtemp(), "train.tsv")
    rows = [f"{file.path}\t{size}\n" for file, size in zip(scan.files, scan.sizes, strict=True)]
    path.write_text(f"{scan.root}\n" + "".join(rows), encoding="utf-8")
    return Manifest.read(path)


def ours(manifest: Manifest, modality: str, image_size: int) -> Any:
    """The data set that training uses, with the crop and flip of ``base``."""
    augment = ImageAugment(crop=True, min_area=MIN_AREA[modality], flip=True)
    options: dict[str, Any] = {"image_size": image_size, "valid_crop": VALID_CROP, "training": True, "augment": augment}
    return VideoDataset(manifest, **options) if modality == "video" else ImageDataset(manifest, **options)


def crop_and_flip(modality: str, image_size: int) -> list[Any]:
    """Torchvision's crop and flip, with the settings of ours."""
    v2 = load_transforms()
    area = (MIN_AREA[modality], 1.0)
    bicubic = v2.InterpolationMode.BICUBIC
    return [v2.RandomResizedCrop(image_size, area, interpolation=bicubic), v2.RandomHorizontalFlip()]


def image_peers(folder: Path, image_size: int) -> dict[str, Dataset]:
    """Name -> ImageFolder with the transforms of ours."""
    v2 = load_transforms()
    from torchvision.datasets import ImageFolder

    augment = crop_and_flip("image", image_size)
    normalize = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.25] * 3)]
    return {
        "ImageFolder, uint8": ImageFolder(str(folder), v2.Compose([*augment, v2.PILToTensor()])),
        "ImageFolder, normalized": ImageFolder(str(folder), v2.Compose([*augment, *normalize])),
    }


class PlainVideo(Dataset):
    """A random clip of each file, read with plain PyAV; ``transform`` takes frames x 3 x height x width."""

    def __init__(self, manifest: Manifest, image_size: int, transform: Callable[[Any], Any] | None) -> None:
        self.manifest, self.short_side, self.transform = manifest, round(image_size / VALID_CROP), transform

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        last_start = int(self.manifest.sizes[row]) - (FRAMES - 1) * STRIDE - 1
        start = int(torch.randint(max(1, last_start + 1), ()))
        (clip,) = read_plain(self.manifest.path(row), [start], self.short_side)
        clip = clip.permute(0, 3, 1, 2)
        return (clip if self.transform is None else self.transform(clip)).transpose(0, 1).contiguous(), row


def video_peers(manifest: Manifest, image_size: int) -> dict[str, Dataset]:
    """Name -> data set that reads with plain PyAV."""
    transform = load_transforms().Compose(crop_and_flip("video", image_size))
    return {
        "plain PyAV, decoding alone": PlainVideo(manifest, image_size, None),
        "plain PyAV, crop and flip": PlainVideo(manifest, image_size, transform),
    }


def descendants(pid: int) -> list[int]:
    """Ids of all descendants of a process: workers and their decoding processes."""
    children = [
        int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()
    ]
    return [*children, *(pid for child in children for pid in descendants(child))]


def cpu_seconds() -> float:
    """CPU seconds of all workers so far; 0 on systems other than Linux."""
    if sys.platform != "linux":
        return 0.0
    return sum(
        time.clock_gettime(~pid << 3 | 2) for pid in descendants(os.getpid())
    )  # the clock id of clock_getcpuclockid(3)


def pass_over(loader: DataLoader) -> tuple[int, float, float]:
    """Number of items in one pass over all files, its wall seconds and its CPU seconds."""
    start, cpu, items = time.perf_counter(), cpu_seconds(), 0
    for batch in loader:
        items += len(batch["net_input"]["source"] if isinstance(batch, dict) else batch[0])
    return items, time.perf_counter() - start, cpu_seconds() - cpu


def main() -> None:
    """Compare the loaders and print items per second and ratios."""
    parser = argparse.ArgumentParser(description="The data loader alone, compared with peers.")
    parser.add_argument("modality", choices=["image", "video"])
    parser.add_argument("data", type=Path, nargs="?", help="folder of the files (images: with class folders)")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        if args.data is None:
            (make_images if args.modality == "image" else make_videos)(Path(folder))
        compare(args, args.data or Path(folder))


def speedup(ours: list[tuple[float, float]], theirs: list[tuple[float, float]]) -> str:
    """Speed of ours relative to a peer: median and range over the rounds, in wall time and in CPU time."""
    texts = []
    for mine, other in zip(zip(*ours, strict=True), zip(*theirs, strict=True), strict=True):
        ratios = [b / a if a else 0.0 for a, b in zip(mine, other, strict=True)]
        texts.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    return f"{texts[0]} times as fast, {texts[1]} in CPU time"


def compare(args: argparse.Namespace, folder: Path) -> None:
    """Warm up each loader with one pass, then time the rounds in turn."""
    manifest = manifest_of(folder, args.modality)
    datasets: dict[str, Any] = {"ours": ours(manifest, args.modality, args.image_size)}
    arguments = (folder, args.image_size) if args.modality == "image" else (manifest, args.image_size)
    datasets |= (image_peers if args.modality == "image" else video_peers)(*arguments)
    size = args.batch_size or {"image": 32, "video": 2}[args.modality]
    options = {"batch_size": size, "shuffle": True, "num_workers": args.workers, "persistent_workers": True}
    loaders = {
        name: DataLoader(dataset, **options, collate_fn=getattr(dataset, "collater", None))
        for name, dataset in datasets.items()
    }
    rounds: dict[str, list[tuple[float, float]]] = {name: [] for name in datasets}
    for number in range(args.rounds + 1):
        for name, loader in loaders.items():
            items, *seconds = pass_over(loader)
            assert items == len(manifest), f"{name}: {items} of {len(manifest)}"
            if number:
                rounds[name].append(tuple(seconds))
    for name, timings in rounds.items():
        clock, cpu = (statistics.median(values) for values in zip(*timings, strict=True))
        print(f"{name:26} {items / clock:7.1f} per second, {1000 * cpu / items:6.2f} ms of CPU each", end="")
        print("" if name == "ours" else f"; ours is {speedup(rounds['ours'], timings)}")
    kilobytes = sum(os.path.getsize(manifest.path(row)) for row in range(len(manifest))) / len(manifest) / 1000
    print(f"{len(manifest)} files of {kilobytes:.0f} kB, {args.image_size} pixels, {args.workers} workers")


if __name__ == "__main__":
    main()
