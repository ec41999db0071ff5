"""The log of unusable clips, shared by all worker processes and ranks, and how many clips may be unusable."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice

import numpy as np
import torch

from bridle_fairseq.data.manifests.manifest import MAX_DIGITS, Manifest
from bridle_fairseq.utils.errors import InputError

FEW = 10  # unusable clips stop no run: a person can look at them, and in small sets one is above any share
FEW_SHARE = 4  # but a quarter of the clips is never few
EXAMPLES = 3  # unusable clips that an error names


def allowed(total: int, max_ratio: float) -> int:
    """How many of ``total`` clips may be unusable: a share of them, or a few of a small set; none for a share of 0."""
    return max(int(max_ratio * total), min(FEW, total // FEW_SHARE) if max_ratio > 0 else 0)


def above_limit(count: int, total: int, max_ratio: float) -> str | None:
    """The end of a sentence ``... clips are unusable``, if these are too many; else None."""
    limit = allowed(total, max_ratio)
    if count <= limit:
        return None
    return f"more than the {limit} allowed (a share of {max_ratio:.3g}; in small sets {FEW}, but not above a quarter)"


class SkipLog:
    """Skipped rows of one manifest, shared by the main process and its data loader workers.

    Args:
        manifest: the rows.
        list_path: file to which skipped rows are appended, tab-separated (row, path, reason); None: count only.
            Processes, ranks and runs may share it. Each run lists a row once, even if an earlier run did: the ranks of
            a run learn of each other's rows from the list.
        start: :func:`list_size` at the beginning of the run, if other ranks may have listed rows since.
    """

    def __init__(
        self, manifest: Manifest, list_path: str | os.PathLike[str] | None = None, start: int | None = None
    ) -> None:
        self.manifest = manifest
        self.list_path = None if list_path is None else os.fspath(list_path)
        self._skipped = torch.zeros(len(manifest), dtype=torch.bool).share_memory_()
        self._first: list[tuple[int, str, str]] = []  # without a list: entries of this process
        self._start = self._list_size() if start is None else start  # entries before it are of earlier runs
        self._read_up_to = self._start

    @property
    def count(self) -> int:
        """Number of rows skipped so far by this process and its workers."""
        return int(np.count_nonzero(self._skipped.numpy()))

    def __contains__(self, row: int) -> bool:
        return bool(self._skipped[row])

    def add(self, row: int, reason: str) -> None:
        """Count a row as skipped, and list it unless this run has listed it."""
        self._add(row, reason, self._start)

    def take_over(self, rows: Iterable[tuple[int, str]]) -> None:
        """Count rows (with reasons) of stored results of earlier runs; list those that no run has listed."""
        for row, reason in rows:
            self._add(row, reason, 0)

    def entries(self) -> list[tuple[int, str, str]]:
        """(row, path, reason) of the rows that this run's processes and ranks have listed so far, each once."""
        return list(self._read_entries(self._start))

    def check(self, max_ratio: float = 0.01) -> None:
        """Stop if too many rows were skipped, including those that other ranks listed in this run.

        Raises:
            InputError: more of the manifest's rows were skipped than are :func:`allowed`; the message has the list's
                path and the first few rows with their reasons.
        """
        self._count_other_ranks()
        above = above_limit(self.count, len(self.manifest), max_ratio)
        if above is None:
            return
        skipped = (entry for entry in self._read_entries(0) if self._is_ours(*entry[:2]) and entry[0] in self)
        first = islice(skipped, EXAMPLES) if self.list_path else self._first
        examples = "; ".join(f"{path} ({reason})" for _, path, reason in first)
        where = f"; all of them: {self.list_path}" if self.list_path else ""
        raise InputError(
            f"{self.manifest.name}: {self.count} of {len(self.manifest)} clips had to be skipped, {above}"
            f"{', such as ' + examples if examples else ''}{where}"
        )

    def _add(self, row: int, reason: str, start: int) -> None:
        """Count a row, and list it unless it is listed at or after the byte ``start``."""
        if self._skipped[row]:
            return
        self._skipped[row] = True
        if self.list_path is None:
            if len(self._first) < EXAMPLES:
                self._first.append((row, self.manifest.path(row), reason))
            return
        path = self.manifest.path(row)
        line = f"{row}\t{path}\t{' '.join(reason.split())}\n".encode()
        os.makedirs(os.path.dirname(os.path.abspath(self.list_path)), exist_ok=True)
        with open(self.list_path, "ab", buffering=0) as file, _locked(file.fileno()):
            if not any(entry[:2] == (row, path) for entry in self._read_entries(start)):
                try:
                    file.write(line)  # a single write in append mode: lines of two processes do not mix
                except OSError as error:
                    error.filename = self.list_path
                    raise

    def _read_entries(self, start: int) -> Iterator[tuple[int, str, str]]:
        """(row, path, reason) of the entries from the byte ``start``, each row once, with its last reason."""
        if self._list_size() <= start:
            return
        assert self.list_path is not None
        reasons: dict[tuple[int, str], str] = {}
        with open(self.list_path, encoding="utf-8", errors="replace") as file:
            file.seek(start)
            for line in file:
                row, path, reason = (line.rstrip("\n").split("\t") + ["", ""])[:3]
                if row.isascii() and row.isdigit() and len(row) <= MAX_DIGITS:
                    reasons[int(row), path] = reason
        for (number, path), reason in reasons.items():
            yield number, path, reason

    def _is_ours(self, row: int, path: str) -> bool:
        """Whether an entry belongs to this manifest: several may share the list."""
        return row < len(self.manifest) and path == self.manifest.path(row)

    def _count_other_ranks(self) -> None:
        """Count the rows that other ranks have listed in this run."""
        size = self._list_size()
        if size <= self._read_up_to:
            return
        for row, path, _ in self._read_entries(self._start):
            if self._is_ours(row, path):
                self._skipped[row] = True
        self._read_up_to = size

    def _list_size(self) -> int:
        return 0 if self.list_path is None else list_size(self.list_path)


def list_size(path: str | os.PathLike[str]) -> int:
    """Size of a list of skipped rows in bytes; 0 if it does not exist."""
    try:
        return os.path.getsize(path)
    except OSError:
        return 0


def listed_paths(path: str | os.PathLike[str]) -> int:
    """Number of different files in a list of skipped rows; 0 if it does not exist."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return len({line.split("\t")[1] for line in file if line.count("\t") >= 2})
    except FileNotFoundError:
        return 0


@contextmanager
def _locked(handle: int) -> Iterator[None]:
    """Lock the file; go on unlocked on a file system without locks (a row may then be listed twice)."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError:
        pass
    try:
        yield
    finally:
        try:
            fcntl.flock(handle, fcntl.LOCK_UN)
        except OSError:
            pass
