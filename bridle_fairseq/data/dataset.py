"""A manifest of media files as a data set, whatever the modality. Nothing here imports fairseq.

The data set of a modality defines how a row is read (:meth:`MediaDataset._load`) and how long its items are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from bridle_fairseq.data.artifacts.codes import CachedCodes
from bridle_fairseq.data.collate import Batch, Item, collate
from bridle_fairseq.data.manifests.archive import split_slice
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.data.manifests.skipped import SkipLog
from bridle_fairseq.data.sampling import length_buckets
from bridle_fairseq.nn.settings import BridleSettings
from bridle_fairseq.utils.errors import DecodeError, InputError

LOST_FILES = 32  # in a row; then the storage is lost, and not single files


class LoadedRow(NamedTuple):
    """What is read for a row of a manifest."""

    views: list[torch.Tensor]  # usually one
    codes: np.ndarray | None  # n x K, cached codes of the views; None without cached codes


class MediaDataset(Dataset):
    """Items of a manifest's rows.

    All randomness of item i follows from (seed, epoch, i): workers, ranks and a resumed run do not change it. An
    unusable clip is listed in ``skips`` and left out of its batch.

    Args:
        manifest: the rows; item i is row i.
        training: crop, augment and order at random.
        seed: seed of all randomness.
        skips: counts unusable rows; by default a log without a list.
        num_buckets: buckets of similar length, within which training items are ordered at random.
        codes: cached codes of the same manifest; items then have ``"codes"`` (n x K int64) of what they show.

    Attributes:
        sizes: length of each item for batching (audio: samples; images and video: 1).
        long_enough: whether each row is batched; False for rows known to be too short.

    Raises:
        InputError: a missing file.
    """

    sizes: np.ndarray

    def __init__(
        self,
        manifest: Manifest,
        *,
        training: bool = False,
        seed: int = 0,
        skips: SkipLog | None = None,
        num_buckets: int = 16,
        codes: CachedCodes | None = None,
    ) -> None:
        super().__init__()
        self.manifest = manifest
        self.training = training
        self.seed = seed
        # In shared memory: fairseq keeps data loader workers across epochs, and they must see a new epoch.
        self._epoch = torch.ones((), dtype=torch.int64).share_memory_()
        self._lost = torch.zeros(2, dtype=torch.int64).share_memory_()  # number of lost files in a row, last such row
        self.skips = skips if skips is not None else SkipLog(manifest)
        self.num_buckets = num_buckets
        self.codes = codes
        self.long_enough = np.ones(len(manifest), dtype=bool)
        manifest.check_files()

    def _load(self, row: int, random: np.random.Generator) -> LoadedRow | None:
        """The views of a row and its cached codes (:meth:`_cached`); None: left out, but not as unusable.

        Raises:
            DecodeError: the row is unusable.
        """
        raise NotImplementedError

    def _cached(self, row: int, segment: int = 0) -> np.ndarray | None:
        """Cached codes of a segment of a row, n x K; None without cached codes.

        Raises:
            DecodeError: the row has none.
        """
        if self.codes is None:
            return None
        codes = self.codes.segment_codes(row, segment)
        if codes.size == 0:
            raise DecodeError("no cached codes")
        return codes

    def approximate_patches(self, settings: BridleSettings) -> float:
        """Approximate number of patches of all items, for a model with these settings."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, index: int) -> Item:
        """``{"id", "source"}``, with ``"codes"`` (n x K) if cached; ``source`` is None if the row is left out.

        If a row has several views, ``"source"`` is the first and ``"more"`` lists the others.
        """
        return self.item(int(index))

    def item(self, row: int, *draw: int) -> Item:
        """The item of a row. Another ``draw`` is another crop and augmentation of the same row in the same epoch."""
        left_out = {"id": row, "source": None}
        if row in self.skips:
            return left_out
        try:
            loaded = self._load(row, np.random.default_rng((self.seed, self.epoch, row, *draw)))
            if loaded is None:
                return left_out
            source, *more = loaded.views
            item: Item = {"id": row, "source": source, **({"more": more} if more else {})}
            if loaded.codes is not None:
                item["codes"] = torch.from_numpy(loaded.codes)
            self._lost[0] = 0
            return item
        except DecodeError as error:
            self.skips.add(row, str(error))
            if not os.path.exists(split_slice(self.manifest.path(row))[0]):
                self._lost[0] += 1
                self._lost[1] = row
            return left_out

    def check_storage(self) -> None:
        """Stop if file after file has disappeared since the manifest was read; training would go on without data.

        Raises:
            InputError: 32 files in a row are missing, or all of a shorter manifest.
        """
        lost, row = self._lost.tolist()
        if lost >= min(LOST_FILES, len(self)):
            raise InputError(
                f"{self.manifest.name}: {lost} files in a row have disappeared, such as {self.manifest.path(row)}; "
                "expected them to stay while they are read (is their storage still mounted?)"
            )

    def collater(self, samples: Sequence[Item]) -> Batch:
        """Items to a batch: see :func:`bridle_fairseq.data.collate.collate`."""
        return collate(samples)

    @property
    def epoch(self) -> int:
        """The epoch that determines crops and augmentation."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Use the crops and augmentation of this epoch from now on, in worker processes too."""
        self._epoch.fill_(epoch)

    def ordered_indices(self) -> np.ndarray:
        """Rows in batching order: by buckets of similar length while training, else in the manifest's order.

        While training, this is the order of the first epoch (:class:`.BucketShuffle` has those of later ones).
        """
        rows = np.flatnonzero(self.long_enough)
        if not self.training or len(rows) == 0:
            return rows
        rows = np.random.default_rng(self.seed).permutation(rows)
        return rows[np.argsort(length_buckets(self.sizes[rows], self.num_buckets), kind="stable")]


def read_parallel(read: Callable[[Any], Any], rows: Sequence[Any], threads: int) -> list[Any]:
    """``read(row)`` of each row, in ``threads`` threads."""
    if threads == 1:
        return [read(row) for row in rows]
    return list(_pool(os.getpid(), threads).map(read, rows))


def checked_batch(batch: Batch) -> Batch:
    """A data loader's batch, after a check for ``"error"``, by which workers report a user's mistake.

    Raises:
        InputError: with the text of that error.
    """
    if "error" in batch:
        raise InputError(batch["error"])
    return batch


@cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """One pool per process: a forked data loader worker does not inherit threads."""
    return ThreadPoolExecutor(threads, thread_name_prefix="reading")
