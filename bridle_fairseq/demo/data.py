"""Manifests of the demo, from a folder of files with or without labels; files and table of a synthetic set."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import repeat
from pathlib import Path

import numpy as np

from bridle_fairseq.prepare.corpus import Corpus, labelled_corpus, scan_source
from bridle_fairseq.prepare.splits import random_split
from bridle_fairseq.prepare.tables import Entry, match, read_table
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.files import atomic_text, temporary_folder

VALID_SHARE, TEST_SHARE = 0.15, 0.2
UNLABELLED_VALID_SHARE = 0.1


def write_manifests(media: str, labels: str | None, dest: Path, seed: int, modality: str = "audio") -> list[str]:
    """Write train.tsv and valid.tsv; with labels also test.tsv, ``{split}.lbl`` and labels.csv.

    Splits come from the label table if it has a column for them. Otherwise each class is split at random.

    Returns:
        The names of the splits.

    Raises:
        InputError: no readable file, no label that matches a file, fewer than two classes, or too few files for three
            splits.
    """
    scan = scan_source(media, dest, modality=modality)
    if labels is None:
        corpus = Corpus(scan, random_split(len(scan.files), UNLABELLED_VALID_SHARE, seed))
    else:
        entries = [entry if entry is not None and entry.labels else None for entry in match(scan, read_table(labels))]
        corpus = labelled_corpus(scan, _with_splits(entries, labels, seed))
        assert corpus.classes is not None
        if len(corpus.classes) < 2:
            raise InputError(f"{labels}: all files are of class {corpus.classes.names}; expected at least two classes")
        for split in ("train", "valid", "test"):
            if split not in corpus.splits:
                raise InputError(f"{labels}: no file is left for {split}; expected at least 7 files of a class")
    corpus.write(dest)
    return list(corpus.splits)


def _with_splits(entries: Sequence[Entry | None], labels: str, seed: int) -> list[Entry | None]:
    """The entries, each with a split: train, valid or test."""
    given = {entry.split for entry in entries if entry is not None}
    listed = {row: entry for row, entry in enumerate(entries) if entry is not None}
    split = {row: entry.split for row, entry in listed.items()}
    if given == {""}:
        shares = {"test": TEST_SHARE, "valid": VALID_SHARE}
        split = dict.fromkeys(listed, "train")
    elif not {"train", "test"} <= given:
        raise InputError(f"{labels}: splits {', '.join(sorted(given))}; expected train and test, and valid if you like")
    else:
        shares = {} if "valid" in given else {"valid": VALID_SHARE}
    random = np.random.default_rng(seed)
    groups: dict[str, list[int]] = {}
    for row, entry in listed.items():
        if split[row] == "train":
            groups.setdefault(entry.labels[0], []).append(row)
    for _, group in sorted(groups.items()):
        order, first = random.permutation(group).tolist(), 0
        for name, share in shares.items():
            count = round(share * len(group))
            split.update(dict.fromkeys(order[first : first + count], name))
            first += count
    return [None if entry is None else replace(entry, split=split[row]) for row, entry in enumerate(entries)]


def write_classes(write: Callable[[str, Path], list[str]], classes: Sequence[str], folder: Path) -> Path:
    """Write each class in its own process, and the table of all files; path of the table.

    Args:
        write: (class, folder) -> paths of the written files below the folder.
        classes: the classes.
        folder: gets the files when all of them are complete, then ``labels.csv``.
    """
    with temporary_folder(folder) as temporary:
        with ProcessPoolExecutor(min(os.cpu_count() or 1, len(classes))) as pool:
            names = list(pool.map(write, classes, repeat(temporary)))
        for name in (name for items in names for name in items):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(temporary / name, folder / name)
    labels = folder / "labels.csv"
    with atomic_text(labels) as file:
        writer = csv.writer(file)
        writer.writerow(["file", "label"])
        writer.writerows((name, name.split("/")[0]) for items in names for name in items)
    return labels
