"""A manifest of files as a data set, whatever the files are. Nothing here imports fairseq.

A modality's data set says how a row is read (:meth:`MediaDataset._load`) and how long items are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from bridle_fairseq.data.artifacts.codes import CachedCodes
from bridle_fairseq.data.collate import collate
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.data.manifests.skipped import SkipLog
from bridle_fairseq.utils.errors import DecodeError, InputError


class MediaDataset(Dataset):
    """Items of a manifest's rows.

    Everything random about item i follows from (seed, epoch, i): neither workers, ranks nor a resumed run change it. A
    clip that cannot be used is listed in ``skips`` and leaves its batch.

    Args:
        manifest: the rows; item i is row i.
        training: crop, augment and order at random.
        seed: of all randomness.
        skips: where unusable rows are counted; a log without a list by default.
        num_buckets: groups of like length within which training items are ordered at random.
        codes: cached codes of the same manifest; items then have ``"codes"`` (n x K int64) of just what they show.

    Attributes:
        sizes: length of each item for batching (sound: samples; images and clips of video: 1).
        usable: rows that are batched at all.

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
        # Shared with data loader workers, which fairseq keeps from epoch to epoch.
        self._epoch = torch.ones((), dtype=torch.int64).share_memory_()
        self.skips = skips if skips is not None else SkipLog(manifest)
        self.num_buckets = num_buckets
        self.codes = codes
        self.usable = np.ones(len(manifest), dtype=bool)
        manifest.check_files()

    def _load(self, row: int, random: np.random.Generator) -> tuple[list[torch.Tensor], np.ndarray | None] | None:
        """Views of a row, one as a rule, and its cached codes (:meth:`_cached`); None: nothing, which is no fault.

        Raises:
            DecodeError: the row cannot be used.
        """
        raise NotImplementedError

    def _cached(self, row: int, segment: int = 0) -> np.ndarray | None:
        """Cached codes of a segment of a row, n x K; None where none are cached.

        Raises:
            DecodeError: the row has none.
        """
        if self.codes is None:
            return None
        codes = self.codes.segment(row, segment)
        if codes.size == 0:
            raise DecodeError("no cached codes")
        return codes

    def approximate_patches(self, settings: Any) -> float:
        """About how many patches a model with these :class:`BridleSettings` makes of all items."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """``{"id", "source"}``, with ``"codes"`` n x K when cached; ``source`` None when left out.

        Where a row has several views, ``"source"`` is the first and ``"more"`` a list of the others.
        """
        return self.item(int(index))

    def item(self, row: int, *draw: int) -> dict[str, Any]:
        """The item of a row; ``draw`` tells apart several items of one row in one epoch, in crop and augmentation."""
        nothing = {"id": row, "source": None}
        if row in self.skips:
            return nothing
        try:
            found = self._load(row, np.random.default_rng((self.seed, self.epoch, row, *draw)))
            if found is None:
                return nothing
            (source, *more), codes = found
            item: dict[str, Any] = {"id": row, "source": source, **({"more": more} if more else {})}
            if codes is not None:
                item["codes"] = torch.from_numpy(codes)
            return item
        except DecodeError as error:
            self.skips.add(row, str(error))
            return nothing

    def collater(self, samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Items to a batch: see :func:`bridle_fairseq.data.collate.collate`."""
        return collate(samples)

    @property
    def epoch(self) -> int:
        """The epoch whose crops and augmentation items have."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """From now on, the crops and augmentation of this epoch, in worker processes too."""
        self._epoch.fill_(epoch)

    def ordered_indices(self) -> np.ndarray:
        """Rows in the order in which they are batched: by buckets of like length while training, else as they stand.

        The same in every epoch (fairseq shuffles the batches): batches and workers live on, which saves a start of all
        workers in every epoch, and fairseq never ends the old ones.
        """
        rows = np.flatnonzero(self.usable)
        if not self.training or len(rows) == 0:
            return rows
        rows = np.random.default_rng(self.seed).permutation(rows)
        return rows[self.length_order(self.sizes[rows])]

    def length_order(self, sizes: np.ndarray) -> np.ndarray:
        """Places of these lengths by ``num_buckets`` buckets, the longest first; in each bucket as they stood."""
        edges = np.unique(np.quantile(sizes, np.linspace(0, 1, self.num_buckets + 1)[1:-1]))
        buckets = np.searchsorted(edges, sizes, side="left")
        return np.argsort(-buckets, kind="stable")


def read_together(read: Callable[[Any], Any], rows: Sequence[Any], threads: int) -> list[Any]:
    """``read(row)`` of each of the rows, so many of them at once."""
    if threads == 1:
        return [read(row) for row in rows]
    return list(_pool(os.getpid(), threads).map(read, rows))


def checked(batch: dict[str, Any]) -> dict[str, Any]:
    """A data loader's batch, unless it holds an ``"error"``: workers can hand a user's mistake on in no other way.

    Raises:
        InputError: what the error says.
    """
    if "error" in batch:
        raise InputError(batch["error"])
    return batch


@cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """One for each process: threads do not come along into a data loader worker."""
    return ThreadPoolExecutor(threads, thread_name_prefix="reading")
