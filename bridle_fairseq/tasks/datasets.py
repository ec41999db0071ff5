"""Data sets of fairseq around a modality's data set."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from fairseq.data import FairseqDataset
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from bridle_fairseq.data.collate import Batch, Item
from bridle_fairseq.data.dataset import MediaDataset, read_parallel
from bridle_fairseq.data.manifests.labels import Labels
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.data.manifests.skipped import SkipLog
from bridle_fairseq.data.manifests.transcripts import Transcripts
from bridle_fairseq.data.sampling import WeightedDraw, clip_weights
from bridle_fairseq.nn.ctc import needed_frames
from bridle_fairseq.utils.errors import InputError, exit_on_input_error


class FairseqMedia(FairseqDataset):
    """A :class:`MediaDataset` as a data set of fairseq.

    Args:
        media: the data set.
        keep_precision: make waveforms float64. Under fp16 and bf16, fairseq's trainer casts every float32 tensor of a
            batch to half precision, which changes the log-mel. It does not cast float64; the front end then casts to
            float32.
        read_threads: items of a batch that are read in parallel.
    """

    def __init__(self, media: MediaDataset, keep_precision: bool = False, read_threads: int = 1) -> None:
        if read_threads < 1:
            raise InputError(f"task.read_threads is {read_threads}; expected at least 1")
        self.media, self.keep_precision, self.read_threads = media, keep_precision, read_threads
        self.sizes = media.sizes

    @property
    def manifest(self) -> Manifest:
        """Manifest of the data set."""
        return self.media.manifest

    @property
    def skips(self) -> SkipLog:
        """Log of the skipped rows."""
        return self.media.skips

    @property
    def training(self) -> bool:
        """Whether items are cropped and augmented at random."""
        return self.media.training

    def __len__(self) -> int:
        return len(self.media)

    def __getitem__(self, index: int) -> Item:
        """See :class:`MediaDataset`; with ``"error"``, a sentence, if reading raises an InputError."""
        return self.read(index)

    def read(self, row: int, *draw: int) -> Item:
        """See :meth:`MediaDataset.item`; data loader workers pass errors on in the item."""
        try:
            return self.media.item(int(row), *draw)
        except InputError as error:
            return {"id": int(row), "source": None, "error": str(error)}

    def __getitems__(self, indices: Sequence[int]) -> list[Item]:
        """The items of a batch; called by torch's data loader."""
        return read_parallel(self.__getitem__, indices, self.read_threads)

    def collater(self, samples: Sequence[Item]) -> Batch:
        """Items to a batch. If an item has an error, the batch has only ids and that error (:func:`checked_batch`)."""
        failed = [sample for sample in samples if "error" in sample]
        if failed:
            return {"id": torch.tensor([sample["id"] for sample in failed]), "error": failed[0]["error"]}
        batch = self.media.collater(samples)
        if batch and self.keep_precision and batch["net_input"]["source"].is_floating_point():
            batch["net_input"]["source"] = batch["net_input"]["source"].double()
        return batch

    def set_epoch(self, epoch: int) -> None:
        """Use the crops and augmentation of this epoch, also in worker processes."""
        self.media.set_epoch(epoch)

    def ordered_indices(self) -> np.ndarray:
        """Rows in the order of batching."""
        return self.media.ordered_indices()

    def num_tokens(self, index: int) -> int:
        """Length of an item, for ``max_tokens``."""
        return int(self.sizes[index])

    def num_tokens_vec(self, indices: np.ndarray) -> np.ndarray:
        """Lengths of several items."""
        return self.sizes[indices]

    def size(self, index: int) -> int:
        """Length of an item, for fairseq's filter by size."""
        return int(self.sizes[index])

    def filter_indices_by_size(
        self, indices: np.ndarray, max_sizes: int | tuple[int, ...] | list[int]
    ) -> tuple[np.ndarray, list[int]]:
        """All rows: none is left out for its length.

        ``max_sizes`` is ``dataset.max_tokens``; fairseq would leave out all longer items.
        """
        limit = max_sizes[0] if isinstance(max_sizes, (tuple, list)) else max_sizes
        self._refuse_less_than_longest(indices, limit)
        return indices, []

    def _refuse_less_than_longest(self, indices: np.ndarray, max_tokens: int | None) -> None:
        """End with one sentence if ``max_tokens`` is less than the longest item."""
        longest = int(self.sizes[indices].max(initial=0))
        if max_tokens is not None and longest > max_tokens:
            kind = "" if self.training else "_valid"
            with exit_on_input_error():
                raise InputError(
                    f"dataset.max_tokens{kind} is {max_tokens}; expected at least {longest}, the length of the longest "
                    f"item of {self.manifest.name} (for sound, task.max_sample_size makes clips shorter)"
                )

    def batch_by_size(self, indices: np.ndarray, max_tokens: int | None = None, **limits: Any) -> list[np.ndarray]:
        """Batches of rows, beginning with one that is readable: fairseq makes its dummy batch of the first one."""
        self._refuse_less_than_longest(indices, max_tokens)
        batches = super().batch_by_size(indices, max_tokens=max_tokens, **limits)
        for number, batch in enumerate(batches):
            if self.collater([self[row] for row in batch]):
                return [*batches[number:], *batches[:number]]
        with exit_on_input_error():
            self.skips.check(0.0)
        return batches

    @property
    def supports_prefetch(self) -> bool:
        """fairseq does not prefetch items."""
        return False

    @property
    def can_reuse_epoch_itr_across_epochs(self) -> bool:
        """Batches have the same rows in all epochs; items follow the epoch by themselves."""
        return True


class LabelledMedia(FairseqMedia):
    """Batches with ``"target"``: class numbers (B, long), or B x classes of 0 and 1 with ``multi_label``."""

    def __init__(self, media: MediaDataset, *, labels: Labels, multi_label: bool, **options: Any) -> None:
        super().__init__(media, **options)
        self.labels, self.multi_label = labels, multi_label

    def collater(self, samples: Sequence[Item]) -> Batch:
        """Items to a batch with targets."""
        batch = super().collater(samples)
        if batch:
            batch["target"] = self.targets(batch["id"].tolist())
        return batch

    def targets(self, rows: Sequence[int]) -> Tensor:
        """Targets of these rows of the manifest."""
        if self.multi_label:
            return torch.from_numpy(np.stack([self.labels.multi_hot(row) for row in rows]))
        return torch.tensor([self.labels[row][0] for row in rows])


class SampledMedia(LabelledMedia):
    """Weighted sampling: an epoch has ``samples_per_epoch`` slots, and every epoch draws the clip of each slot.

    fairseq batches, shuffles and shards slots, which are the same in all epochs. So batches and workers are reused, and
    a run that resumes within an epoch has the same clips. Slots are ordered by the length of their clips, so that a
    batch has clips of similar length. A clip can occur several times in an epoch, with different augmentation.
    """

    def __init__(self, media: MediaDataset, *, samples_per_epoch: int, **options: Any) -> None:
        super().__init__(media, **options)
        self.draw = WeightedDraw(clip_weights(self.labels), samples_per_epoch, media.seed)
        self._drawn: tuple[int, np.ndarray] | None = None  # epoch and its rows
        self.clip_sizes = self.sizes
        # Any clip can be in any slot, so for max_tokens each slot has the length of the longest clip.
        self.sizes = np.full(samples_per_epoch, self.clip_sizes.max())

    def __len__(self) -> int:
        return self.draw.size

    def __getitem__(self, index: int) -> Item:
        """The clip in this slot in the present epoch; its ``"id"`` is its row of the manifest."""
        return self.read(self.rows()[index], int(index))

    def rows(self) -> np.ndarray:
        """The rows in all slots in the present epoch."""
        epoch = self.media.epoch
        if self._drawn is None or self._drawn[0] != epoch:
            rows = self.draw.rows(epoch)
            self._drawn = epoch, rows[self.media.length_order(self.clip_sizes[rows])]
        return self._drawn[1]

    def ordered_indices(self) -> np.ndarray:
        """All slots."""
        return np.arange(len(self))


class TranscribedMedia(FairseqMedia):
    """Batches with ``"target"`` (B x L symbols, padded with 0) and ``"target_lengths"`` (B).

    Args:
        media: the data set.
        transcripts: transcripts of its rows.
        frames: number of samples -> number of output frames of the model. A row whose transcript needs more frames is
            skipped, counted and listed. None: no check, if no loss is computed.
    """

    def __init__(
        self,
        media: MediaDataset,
        *,
        transcripts: Transcripts,
        frames: Callable[[int], int] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(media, **options)
        self.transcripts, self.frames = transcripts, frames

    def __getitem__(self, index: int) -> Item:
        """The item; without a source if the model's output has too few frames for the transcript."""
        item = super().__getitem__(index)
        if item["source"] is None or self.frames is None:
            return item
        target = self.transcripts[index]
        needed, emitted = needed_frames(target), self.frames(len(item["source"]))
        if needed > emitted:
            reason = f"{len(target)} symbols need {needed} frames, the clip has {emitted} (model.upsample gives more)"
            self.skips.add(index, reason)
            return {**item, "source": None}
        return item

    def collater(self, samples: Sequence[Item]) -> Batch:
        """Items to a batch with targets."""
        batch = super().collater(samples)
        if batch:
            targets = [self.transcripts[row] for row in batch["id"].tolist()]
            batch["target"] = pad_sequence(targets, batch_first=True)
            batch["target_lengths"] = batch["id"].new_tensor([len(target) for target in targets])
        return batch
