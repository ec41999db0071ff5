"""From media files, with or without labels, to the files of a data set: manifests, labels, folds.

``bridle manifest`` and the scripts in ``manifests/`` are thin wrappers of this module.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bridle_fairseq.data.manifests.labels import Classes, Labels
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.data.manifests.skipped import above_limit
from bridle_fairseq.data.modalities import modality_named
from bridle_fairseq.data.modality import Modality
from bridle_fairseq.prepare.earlier import set_aside_labels, set_aside_splits
from bridle_fairseq.prepare.folds import draw_validation, fold_names
from bridle_fairseq.prepare.scan import Scan, choose_files, count_endings, list_source, read_sizes
from bridle_fairseq.prepare.splits import check_shares, random_split, stratified_split
from bridle_fairseq.prepare.tables import SPLIT_NAMES, Entry, named_files
from bridle_fairseq.utils.errors import InputError, printable
from bridle_fairseq.utils.files import atomic_text
from bridle_fairseq.utils.progress import progress_bar

FAILURES_SHOWN = 20


@dataclass
class Corpus:
    """Scanned files and their splits, ready to be written as manifests.

    Attributes:
        scan: the files.
        splits: name of a split (which may contain a folder, ``fold1/train``) -> row numbers of the scan.
        classes: None without labels.
        labels: class numbers of each file of the scan; empty for unused files.
        annotation: what unused files lack, ``label`` or ``transcript``.
    """

    scan: Scan
    splits: dict[str, np.ndarray]
    classes: Classes | None = None
    labels: list[list[int]] = field(default_factory=list)
    annotation: str = "label"

    def write(self, dest: str | os.PathLike[str], say: Callable[[str], object] = print) -> None:
        """Write ``{split}.tsv`` and, with labels, ``{split}.lbl`` and ``labels.csv``; ``say`` reports each split."""
        manifests = {split: self._manifest(rows) for split, rows in self.splits.items()}
        set_aside_splits(Path(dest), manifests)
        for split, rows in self.splits.items():
            path = Path(dest) / f"{split}.tsv"
            if self.classes is None:
                set_aside_labels(path, manifests[split])
            manifests[split].write(path)
            classes = ""
            if self.classes is not None:
                present, total = len(set().union(*(self.labels[row] for row in rows))), len(self.classes)
                classes = f", {total} classes" if present == total else f", {present} of {total} classes"
                Labels((self.labels[row] for row in rows), self.classes).write(path.with_suffix(".lbl"))
                self.classes.write(path.with_name("labels.csv"))
            say(f"{path}: {len(rows)} clips{classes}")
        self._warn_of_untrained_classes()
        used = len(set().union(*(rows.tolist() for rows in self.splits.values())))
        unused = self.scan.unnamed + len(self.scan.files) - used
        if unused:
            files = "1 file" if unused == 1 else f"{unused} files"
            print(f"skipped {files} without a {self.annotation}", file=sys.stderr)

    def _manifest(self, rows: np.ndarray) -> Manifest:
        sizes = [self.scan.sizes[row] for row in rows]
        return Manifest(self.scan.root, (self.scan.files[row].path for row in rows), sizes)

    def _warn_of_untrained_classes(self) -> None:
        """Warn of classes with clips, but none for training."""
        if self.classes is None or "train" not in self.splits:
            return
        trained = set().union(*(self.labels[row] for row in self.splits["train"]))
        used = set().union(*(self.labels[row] for rows in self.splits.values() for row in rows))
        lost = [self.classes.names[number] for number in sorted(used - trained)]
        if lost:
            shown = ", ".join(map(repr, lost[:5])) + (" ..." if len(lost) > 5 else "")
            print(
                f"warning: {len(lost)} of {len(self.classes)} classes are in no training part: {shown}", file=sys.stderr
            )


def scan_source(
    source: str | os.PathLike[str],
    dest: str | os.PathLike[str],
    extensions: Collection[str] | None = None,
    path_must_contain: str | None = None,
    workers: int = 8,
    modality: str = "audio",
    max_skipped: float = 0.01,
    named: Collection[str] | None = None,
) -> Scan:
    """Find files and read their sizes, with a progress bar.

    Files that cannot be read, and files of this modality whose extension is not among ``extensions``, are counted on
    stderr and listed in ``skipped.tsv``.

    Args:
        source: folder, or stored zip or tar archive.
        dest: folder of ``skipped.tsv``.
        extensions: extensions of the files; None: those that the modality reads.
        path_must_contain: a text that the path below the source must contain.
        workers: threads that read headers.
        modality: modality of the files.
        max_skipped: share of the files that may be unreadable (:func:`~bridle_fairseq.data.manifests.skipped.allowed`).
        named: names in a table; other files are not read.

    Raises:
        InputError: no file, or too many that cannot be read.
    """
    kind = modality_named(modality)
    listed = list_source(source)
    files, others = choose_files(source, listed.files, extensions or kind.extensions, path_must_contain)
    found = len(files)
    files = files if named is None else named_files(files, named) or files  # none: match() says what there is
    with progress_bar(len(files), "reading headers", "files", in_files=False) as bar:
        scan = read_sizes(listed.root, files, kind.measure, workers, bar.update)
    scan = scan._replace(failures=scan.failures + listed.failures, others=others, unnamed=found - len(files))
    _report(scan, len(files) + len(listed.failures), kind, Path(dest) / "skipped.tsv")
    if not scan.files:
        raise InputError(f"{scan.root}: none of {len(files)} files can be read, such as {': '.join(scan.failures[0])}")
    above = above_limit(len(scan.failures), len(files) + len(listed.failures), max_skipped)
    if above:
        raise InputError(
            f"{scan.root}: {len(scan.failures)} files cannot be read, {above}; see above, or --max-skipped"
        )
    return scan


def _report(scan: Scan, num_files: int, kind: Modality, skip_list: Path) -> None:
    """Say on stderr which files are left out, and list those that are of this modality."""
    for path, reason in scan.failures[:FAILURES_SHOWN]:
        print(f"left out: {printable(path)}: {printable(reason)}", file=sys.stderr)
    known = {f".{extension}" for extension in (*kind.extensions, *kind.other_extensions)}
    media = [file for file in scan.others if file.ending in known]
    if scan.failures or media:
        reason = f"other extension; {kind.advice or f'name it with --ext to read it as one of the {kind.files}'}"
        unread = [(os.path.join(scan.root, file.name), reason) for file in media]
        with atomic_text(skip_list) as file:
            file.writelines(f"{path!r}\t{reason}\n" for path, reason in [*scan.failures, *unread])
    else:
        skip_list.unlink(missing_ok=True)  # of an earlier run
    if scan.failures:
        print(f"{len(scan.failures)} of {num_files} files cannot be read; all of them: {skip_list}", file=sys.stderr)
    if media:
        print(f"not read: {count_endings(media)}; all of them: {skip_list}", file=sys.stderr)
    rest = [file for file in scan.others if file.ending not in known]
    if rest:
        print(f"no {kind.files} by their endings: {count_endings(rest)}", file=sys.stderr)


def labelled_corpus(
    scan: Scan,
    entries: Sequence[Entry | None],
    valid_percent: float = 0.05,
    seed: int = 42,
    classes: Classes | None = None,
    test_percent: float = 0.0,
    fold_valid_percent: float = 0.1,
) -> Corpus:
    """Labels and splits of the files with an entry. If entries have no split, it is drawn from each class at random.

    If entries have folds, each fold f is also ``fold{f}/test``, and the others are ``fold{f}/train`` and
    ``fold{f}/valid``.

    Args:
        scan: the files.
        entries: entry of each file; None: the file is not used.
        valid_percent, seed, test_percent: see :func:`stratified_split`.
        classes: default: those of the entries.
        fold_valid_percent: share of ``fold{f}/valid`` in the other folds, drawn by :func:`.draw_validation`; 0: none.

    Raises:
        InputError: a class that is not among ``classes``, only some entries have a split, or other folds with too few
            clips for training and validation.
    """
    kept = [entry for entry in entries if entry is not None]
    classes = classes or Classes.from_names(label for entry in kept for label in entry.labels)
    labels = [[] if entry is None else _numbers(entry, classes) for entry in entries]
    file_splits = [None if entry is None else entry.split for entry in entries]
    used, splits = splits_of(scan, file_splits, valid_percent, seed, labels, test_percent)
    for name, rows in _fold_splits(kept, [labels[row] for row in used], classes, fold_valid_percent, seed).items():
        splits[name] = used[rows]
    return Corpus(scan, splits, classes, labels)


def _fold_splits(
    entries: Sequence[Entry], labels: Sequence[Sequence[int]], classes: Classes, valid_percent: float, seed: int
) -> dict[str, np.ndarray]:
    """Numbers of the entries in ``fold{f}/train``, ``/valid`` and ``/test``, for every fold f."""
    check_shares(valid_percent, 0)
    splits: dict[str, np.ndarray] = {}
    column = np.array([entry.fold for entry in entries])
    names = fold_names([name for name in column.tolist() if name])
    if not names:
        return splits
    multi_hot = np.zeros((len(labels), len(classes)), dtype=bool)
    for row, numbers in enumerate(labels):
        multi_hot[row, numbers] = True
    for number, name in enumerate(names):
        train = np.flatnonzero(column != name)
        if valid_percent:
            valid = draw_validation(name, multi_hot, train, valid_percent, (seed, number))
            train, splits[f"fold{name}/valid"] = np.setdiff1d(train, valid), valid
        splits[f"fold{name}/train"], splits[f"fold{name}/test"] = train, np.flatnonzero(column == name)
    return splits


def splits_of(
    scan: Scan,
    file_splits: Sequence[str | None],
    valid_percent: float,
    seed: int,
    labels: Sequence[Sequence[int]] | None = None,
    test_percent: float = 0.0,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The rows of a scan that are used, and the rows of each split.

    Args:
        scan: the files.
        file_splits: split of each file; None: the file is not used; "" for all used files: random splits.
        valid_percent, seed, test_percent: see :func:`random_split`.
        labels: class numbers of each file; the random splits are stratified by them.

    Raises:
        InputError: only some files have a split.
    """
    used = np.array([row for row, split in enumerate(file_splits) if split is not None], dtype=np.int64)
    column = np.array([split for split in file_splits if split is not None])
    names = sorted(set(column.tolist()))
    if names == [""]:
        if labels is None:
            drawn = random_split(len(used), valid_percent, seed, test_percent)
        else:
            drawn = stratified_split([labels[row] for row in used], valid_percent, seed, test_percent)
        return used, {name: used[rows] for name, rows in drawn.items()}
    if "" in names:
        row = used[column == ""][0]
        raise InputError(f"{scan.files[row].name}: no split in the label table; expected one for every file or none")
    return used, {name: used[column == name] for name in names}


def folder_entries(
    scan: Scan, valid_percent: float = 0.05, seed: int = 42, test_percent: float = 0.0
) -> list[Entry | None]:
    """Entries by folder: ``class/file``, or ``split/class/file`` as in ImageNet.

    The first folder is a split if that holds for all files and one of the splits is ``train``. Without a validation or
    test split, a random share of each class of ``train`` is used. Deeper folders are ignored. A file outside a class
    folder has no entry.

    Raises:
        InputError: no file is in a folder.
    """
    paths = [file.name.split("/") for file in scan.files]
    splits = [SPLIT_NAMES.get(folders[0], folders[0]) if len(folders) > 2 else "" for folders in paths]
    if all(len(folders) == 1 for folders in paths):
        raise InputError(
            f"{scan.root}: none of {len(paths)} files is in a folder of its class; expected class/x below it"
        )
    if not (set(splits) <= {"train", "valid", "test"} and "train" in splits):
        return [Entry([folders[0]]) if len(folders) > 1 else None for folders in paths]
    shares = [0.0 if name in splits else share for name, share in (("valid", valid_percent), ("test", test_percent))]
    if any(shares):
        train = np.flatnonzero(np.array(splits) == "train")
        numbers = {name: number for number, name in enumerate(sorted({paths[row][1] for row in train}))}
        drawn = stratified_split([[numbers[paths[row][1]]] for row in train], shares[0], seed, shares[1])
        for name, rows in drawn.items():
            for row in train[rows]:
                splits[row] = name
    return [Entry([folders[1]], split) for folders, split in zip(paths, splits, strict=True)]


def _numbers(entry: Entry, classes: Classes) -> list[int]:
    numbers = [classes.find(label) for label in entry.labels]
    if None in numbers:
        label = entry.labels[numbers.index(None)]
        raise InputError(f"unknown class {label!r} in the label table; expected one of those in {classes.source}")
    return [number for number in numbers if number is not None]
