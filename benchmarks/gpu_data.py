"""Sounds for scripts/gpu_check.sh, as FLAC: labelled words of one second, and clips of 10.24 s joined from them.

    python benchmarks/gpu_data.py FOLDER [--words DIR] [--dry-run]

DIR has meta.csv (name, keyword, split) and opus/, as the corpus of keywords.py. Without it, tones are generated: ten
classes of two tones each. FOLDER gets ``words`` (train, valid, train_many) and ``long`` (train), each with manifests; a
complete one is left as it is. In train_many and in long, each file has many names (hard links): an epoch of few batches
would measure how fast fairseq starts its loader processes.
"""

from __future__ import annotations

import argparse
import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
from runs import read_table, write_labelled

RATE, LONG = 16000, 163840
CLASSES, GENERATED = 10, {"train": 1000, "valid": 200}
LONG_CLIPS, WORD_NAMES, LONG_NAMES = 2048, 16, 16  # files, and names of each


def tone(number: int, samples: int) -> np.ndarray:
    """A word of class ``number % CLASSES``: two tones that glide by chance, in noise."""
    random = np.random.default_rng(number)
    pitches = np.random.default_rng(number % CLASSES).uniform(200, 4000, 2) * random.uniform(0.9, 1.1)
    glide = np.linspace(1, random.uniform(0.8, 1.25), samples)
    phase = [2 * np.pi * np.cumsum(pitch * glide) / RATE for pitch in pitches]
    return 0.2 * sum(np.sin(angle) for angle in phase) * random.uniform(0.3, 1) + 0.01 * random.standard_normal(samples)


def write_word(item: tuple[str, int], folder: Path, opus: Path | None, samples: int) -> None:
    """Write a word as FLAC: decoded from Opus, or generated."""
    name, number = item
    wave = soundfile.read(opus / f"{name}.opus", dtype="float32")[0] if opus else tone(number, samples)
    soundfile.write(folder / f"{name}.flac", wave, RATE, subtype="PCM_16")


def write_long(number: int, folder: Path, words: list[Path], samples: int) -> None:
    """Write a clip of words in random order."""
    random, parts, length = np.random.default_rng(number), [], 0
    while length < samples:
        parts.append(soundfile.read(words[random.integers(len(words))], dtype="float32")[0])
        length += len(parts[-1])
    soundfile.write(folder / f"{number}.flac", np.concatenate(parts)[:samples], RATE, subtype="PCM_16")


def with_links(folder: Path, names: list[str], count: int) -> list[str]:
    """``names`` in ``count`` folders, the further ones with hard links."""
    found = list(names)
    for copy in range(1, count):
        (folder / str(copy)).mkdir()
        for name in names:
            os.link(folder / name, folder / str(copy) / name)
            found.append(f"{copy}/{name}")
    return found


def main() -> None:
    """Write the sounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--words", type=Path, help="folder with meta.csv and opus/")
    parser.add_argument("--dry-run", action="store_true", help="a few short generated sounds")
    args = parser.parse_args()
    if (args.folder / "long" / "train.tsv").exists():
        return
    shutil.rmtree(args.folder, ignore_errors=True)
    words, long = args.folder / "words", args.folder / "long"
    for folder in (words / "flac", long / "flac"):
        folder.mkdir(parents=True)
    dry, opus = args.dry_run, None
    sizes = {"train": 40, "valid": 10} if dry else GENERATED
    splits = {split: [(f"{split}-{n}", f"tone {n % CLASSES}") for n in range(count)] for split, count in sizes.items()}
    if args.words and (args.words / "meta.csv").exists() and not dry:
        opus = args.words / "opus"
        rows = [row for row in read_table(args.words / "meta.csv") if row["split"] != "test"]
        names = {"train": "train", "val": "valid"}
        splits = {names[old]: [(r["name"], r["keyword"]) for r in rows if r["split"] == old] for old in names}
    long_samples, word_samples = (RATE, RATE // 4) if dry else (LONG, RATE)
    items = [(name, number) for rows in splits.values() for number, (name, _) in enumerate(rows)]
    with ProcessPoolExecutor(1 if dry else os.cpu_count()) as pool:
        work = partial(write_word, folder=words / "flac", opus=opus, samples=word_samples)
        list(pool.map(work, items, chunksize=16))
        files = [words / "flac" / f"{name}.flac" for name, _ in splits["train"]]
        work = partial(write_long, folder=long / "flac", words=files, samples=long_samples)
        numbers = range(24 if dry else LONG_CLIPS)
        list(pool.map(work, numbers, chunksize=16))
    labelled = {split: [(f"{name}.flac", label) for name, label in rows] for split, rows in splits.items()}
    names = with_links(words / "flac", [name for name, _ in labelled["train"]], 2 if dry else WORD_NAMES)
    write_labelled(words, words / "flac", labelled)
    lengths = dict(line.split("\t") for line in (words / "train.tsv").read_text().splitlines()[1:])
    write_rows(words / "train_many.tsv", words / "flac", [(name, lengths[Path(name).name]) for name in names])
    names = with_links(long / "flac", [f"{number}.flac" for number in numbers], 2 if dry else LONG_NAMES)
    rows = [(name, str(long_samples)) for name in names]
    write_rows(long / "valid.tsv", long / "flac", rows[:8])  # fairseq opens one, even if it does not validate
    write_rows(long / "train.tsv", long / "flac", rows)


def write_rows(path: Path, root: Path, rows: list[tuple[str, str]]) -> None:
    """Write a manifest without opening its files."""
    path.write_text("\n".join([str(root), *(f"{name}\t{size}" for name, size in rows)]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
