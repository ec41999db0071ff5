"""A manifest of sound files as a data set that fairseq can batch. Nothing here imports fairseq.

For fairseq's checks a task mixes its base class in: ``class FairseqAudioDataset(AudioDataset, FairseqDataset)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from bridle_fairseq.data.augment import Augment
from bridle_fairseq.data.codes import CachedCodes, segment_count
from bridle_fairseq.data.collate import collate_audio
from bridle_fairseq.data.decode import DecodeError, crop_of, open_sound, read_info, resampled_length
from bridle_fairseq.data.manifest import Manifest
from bridle_fairseq.data.skips import SkipLog
from bridle_fairseq.errors import InputError

PROBED_FILES = 32


class AudioDataset(Dataset):
    """Waveforms of a manifest, cropped, resampled, mono, augmented.

    Everything random about item i follows from (seed, epoch, i): neither workers, ranks nor a resumed run change it.
    While training, a clip longer than ``max_sample_size`` gives a random crop; otherwise its beginning, always the
    same. A clip that cannot be used is listed in ``skips`` and leaves its batch; one shorter than ``min_sample_size``
    leaves it silently.

    Lengths for batching (``sizes``) come from the manifest's sizes, which count samples at each file's own rate. They
    are scaled by the lowest rate among some probed files: exact when all files have one rate, else an upper bound.

    Args:
        manifest: the rows; item i is row i.
        sample_rate: of the items, in Hz.
        max_sample_size: samples of the longest item; None for no limit.
        min_sample_size: samples of the shortest item.
        training: crop and order at random.
        seed: of all randomness.
        augment: what happens to a training item after cropping.
        skips: where unusable rows are counted; a log without a list by default.
        num_buckets: groups of like length within which training items are ordered at random.
        segment_crops: crop only at multiples of ``max_sample_size``, as with cached codes.
        codes: cached codes of the same manifest; items then have ``"codes"`` (n x K int64) of just their crop.

    Raises:
        InputError: a missing file, no readable file among those probed, or codes that do not fit the other settings.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        sample_rate: int = 16000,
        max_sample_size: int | None = None,
        min_sample_size: int | None = None,
        training: bool = False,
        seed: int = 0,
        augment: Augment | None = None,
        skips: SkipLog | None = None,
        num_buckets: int = 16,
        segment_crops: bool = False,
        codes: CachedCodes | None = None,
    ) -> None:
        super().__init__()
        self.manifest = manifest
        self.sample_rate = sample_rate
        self.max_sample_size = max_sample_size
        self.min_sample_size = max(1, min_sample_size or 1)
        self.training = training
        self.seed = seed
        # Shared with data loader workers, which fairseq keeps from epoch to epoch.
        self._epoch = torch.ones((), dtype=torch.int64).share_memory_()
        self.augment = augment if training else None
        self.skips = skips if skips is not None else SkipLog(manifest)
        self.num_buckets = num_buckets
        self.codes = codes
        self.segment_crops = segment_crops or codes is not None
        self._check_settings()
        manifest.check_files()
        lengths = np.ceil(manifest.sizes * (sample_rate / self._lowest_rate())).astype(np.int64)
        self._long_enough = lengths >= self.min_sample_size
        if not self._long_enough.any():
            raise InputError(
                f"{manifest.name}: the longest of {len(manifest)} clips has {lengths.max()} samples; expected "
                f"min_sample_size {self.min_sample_size} at least"
            )
        self.sizes: np.ndarray = lengths if max_sample_size is None else np.minimum(lengths, max_sample_size)

    def _check_settings(self) -> None:
        if self.max_sample_size is not None and self.max_sample_size < self.min_sample_size:
            raise InputError(
                f"max_sample_size {self.max_sample_size} is under min_sample_size {self.min_sample_size}; "
                "expected at least as much"
            )
        if self.segment_crops and self.max_sample_size is None:
            raise InputError("crops at segment boundaries need max_sample_size, the length of a segment; it is not set")
        if self.codes is None:
            return
        if self.augment is not None:
            raise InputError("cached codes are of clips as they are; expected no augmentation (roll, gain) with them")
        self.codes.check(
            manifest_sha256=self.manifest.fingerprint(),
            sample_rate=self.sample_rate,
            segment_samples=self.max_sample_size,
            min_segment_samples=self.min_sample_size,
        )

    def _lowest_rate(self) -> int:
        rows = np.unique(np.linspace(0, len(self.manifest) - 1, PROBED_FILES).astype(np.int64))
        rates, failure = [], ""
        for row in rows:
            try:
                rates.append(read_info(self.manifest.path(int(row))).sample_rate)
            except DecodeError as error:
                failure = failure or f"{self.manifest.path(int(row))} ({error})"
        if not rates:
            raise InputError(f"{self.manifest.name}: none of {len(rows)} files tried can be read, such as {failure}")
        return min(rates)

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """``{"id", "source": float32 S}``, with ``"codes"`` n x K when cached; ``source`` None when left out."""
        return self.item(int(index))

    def item(self, row: int, *draw: int) -> dict[str, Any]:
        """The item of a row; ``draw`` tells apart several items of one row in one epoch, in crop and augmentation."""
        nothing = {"id": row, "source": None}
        if row in self.skips:
            return nothing
        try:
            return self._load(row, *draw) or nothing
        except DecodeError as error:
            self.skips.add(row, str(error))
            return nothing

    def _load(self, row: int, *draw: int) -> dict[str, Any] | None:
        random = np.random.default_rng((self.seed, self.epoch, row, *draw))
        with open_sound(self.manifest.path(row)) as sound:
            if sound.frames != self.manifest.sizes[row]:
                raise DecodeError(f"{sound.frames} samples, the manifest says {self.manifest.sizes[row]}")
            num_samples = resampled_length(sound.frames, sound.samplerate, self.sample_rate)
            if num_samples < self.min_sample_size:
                return None
            start, segment = self._crop(num_samples, random)
            samples = crop_of(sound, self.sample_rate, start, self.max_sample_size)
        if self.augment is not None:
            samples = self.augment(samples, random)
        item: dict[str, Any] = {"id": row, "source": torch.from_numpy(np.ascontiguousarray(samples))}
        if self.codes is not None:
            item["codes"] = torch.from_numpy(self.codes.segment(row, segment))
            if item["codes"].numel() == 0:
                raise DecodeError("no cached codes")
        return item

    def _crop(self, num_samples: int, random: np.random.Generator) -> tuple[int, int]:
        """Where the item begins, in samples and as the number of its segment (0 when crops are free)."""
        longest = self.max_sample_size
        if longest is None or not self.training:
            return 0, 0
        if self.segment_crops:
            segment = int(random.integers(segment_count(num_samples, longest, self.min_sample_size)))
            return segment * longest, segment
        return int(random.integers(max(0, num_samples - longest) + 1)), 0

    def collater(self, samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Items to a batch: see :func:`bridle_fairseq.data.collate.collate_audio`."""
        return collate_audio(samples)

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
        rows = np.flatnonzero(self._long_enough)
        if not self.training or len(rows) == 0:
            return rows
        rows = np.random.default_rng(self.seed).permutation(rows)
        return rows[self.length_order(self.sizes[rows])]

    def length_order(self, sizes: np.ndarray) -> np.ndarray:
        """Places of these lengths by ``num_buckets`` buckets, the longest first; in each bucket as they stood."""
        edges = np.unique(np.quantile(sizes, np.linspace(0, 1, self.num_buckets + 1)[1:-1]))
        buckets = np.searchsorted(edges, sizes, side="left")
        return np.argsort(-buckets, kind="stable")

    def num_tokens(self, index: int) -> int:
        """Samples of an item, for batches of at most ``max_tokens``."""
        return int(self.sizes[index])

    def num_tokens_vec(self, indices: np.ndarray) -> np.ndarray:
        """Samples of several items."""
        return self.sizes[indices]

    def size(self, index: int) -> int:
        """Samples of an item, for fairseq's filter by length."""
        return int(self.sizes[index])

    def filter_indices_by_size(self, indices: np.ndarray, max_sizes: Any) -> tuple[np.ndarray, list[int]]:
        """Split rows into those of at most ``max_sizes`` samples and the others."""
        limit = max_sizes[0] if isinstance(max_sizes, (tuple, list)) else max_sizes
        fits = self.sizes[indices] <= (np.inf if limit is None else limit)
        return indices[fits], indices[~fits].tolist()

    @property
    def supports_prefetch(self) -> bool:
        """fairseq need not ask for items ahead."""
        return False

    @property
    def supports_fetch_outside_dataloader(self) -> bool:
        """Items may be read in the main process too."""
        return True

    @property
    def can_reuse_epoch_itr_across_epochs(self) -> bool:
        """Batches of all epochs hold the same rows; items ask for the epoch themselves."""
        return True
