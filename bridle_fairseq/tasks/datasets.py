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
from bridle_fairseq.data.sampling import BucketShuffle, WeightedDraw, clip_weights
from bridle_fairseq.nn.ctc import needed_frames
from bridle_fairseq.utils.errors import InputError, exit_on_input_error


class FairseqMedia(FairseqDataset):
    """A :class:`MediaDataset` as a data set of fairseq.

    While training, fairseq batches, shuffles and shards slots, and each epoch puts other rows into them: by default
    every row once, in a slot of its bucket of length.

    Args:
        media: the data set.
        keep_precision: make waveforms float64. Under fp16 and bf16, fairseq's trainer casts every float32 tensor of a
            batch to half precision, which changes the log-mel. It does not cast float64; the front end then casts to
            float32.
        read_threads: items of a batch that are read in parallel.
        order: which rows an epoch has.

    Attributes:
        order: the rows of training epochs; None in validation, where slots are rows.
        sizes: lengths of the slots, for batching.
    """

    order: BucketShuffle | WeightedDraw | None

    def __init__(
        self,
        media: MediaDataset,
        keep_precision: bool = False,
        read_threads: int = 1,
        order: WeightedDraw | None = None,
    ) -> None:
        if read_threads < 1:
            raise InputError(f"task.read_threads is {read_threads}; expected at least 1")
        self.media, self.keep_precision, self.read_threads = media, keep_precision, read_threads
        self.order = order
        if media.training and order is None:
            first = media.ordered_indices()
            self.order = BucketShuffle(first, media.sizes[first], media.num_buckets, media.seed)
        self.sizes = media.sizes if self.order is None else self.order.sizes
        self._present: tuple[int, np.ndarray] | None = None  # epoch and its rows

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
        return len(self.sizes)

    def __getitem__(self, index: int) -> Item:
        """The item in this slot in the present epoch; its ``"id"`` is its row of the manifest."""
        return self.read(self.row(int(index)))

    def row(self, slot: int) -> int:
        """The row in a slot in the present epoch."""
        if self.order is None:
            return slot
        epoch, present = self.media.epoch, self._present
        if present is None or present[0] != epoch:
            present = self._present = epoch, self.order.rows(epoch)
        return int(present[1][slot])

    def read(self, row: int, *draw: int) -> Item:
        """See :meth:`MediaDataset.item`; with ``"error"``, a sentence, if reading raises an InputError.

        Data loader workers pass errors on in the item.
        """
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
        """All slots while training, else rows, in the order of batching."""
        return self.media.ordered_indices() if self.order is None else np.arange(len(self))

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
        """Batches of slots, beginning with one that is readable in all epochs: fairseq's dummy batch is the first one.

        Which one that is depends on the rows of the first epoch only, so a resumed run has the same batches.
        """
        self._refuse_less_than_longest(indices, max_tokens)
        batches = super().batch_by_size(indices, max_tokens=max_tokens, **limits)
        rows = None if self.order is None else self.order.rows(1)
        for number, batch in enumerate(batches):
            items = [self.read(row) for row in (batch if rows is None else rows[batch])]
            if self.collater(items):
                readable = [slot for slot, item in zip(batch, items, strict=True) if item["source"] is not None]
                if isinstance(self.order, BucketShuffle) and readable:  # none: the batch reports a user's mistake
                    self.order.keep(readable[0])
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
        """Batches have the same slots in all epochs; their rows follow the epoch by themselves.

        Otherwise fairseq would start new workers in every epoch and never end the old ones.
        """
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

    A clip can occur several times in an epoch, with different augmentation.
    """

    def __init__(self, media: MediaDataset, *, labels: Labels, samples_per_epoch: int, **options: Any) -> None:
        draw = WeightedDraw(clip_weights(labels), samples_per_epoch, media.seed, media.sizes, media.num_buckets)
        super().__init__(media, labels=labels, order=draw, **options)

    def __getitem__(self, index: int) -> Item:
        """The clip in this slot in the present epoch; its ``"id"`` is its row of the manifest."""
        return self.read(self.row(int(index)), int(index))


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

    def read(self, row: int, *draw: int) -> Item:
        """The item; without a source if the model's output has too few frames for the transcript."""
        item = super().read(row, *draw)
        if item["source"] is None or self.frames is None:
            return item
        target = self.transcripts[row]
        needed, emitted = needed_frames(target), self.frames(len(item["source"]))
        if needed > emitted:
            reason = f"{len(target)} symbols need {needed} frames, the clip has {emitted} (model.upsample gives more)"
            self.skips.add(row, reason)
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
