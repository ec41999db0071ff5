"""A modality's data set as fairseq batches it."""

import numpy as np
import torch
from fairseq.data import FairseqDataset
from torch.nn.utils.rnn import pad_sequence

from bridle_fairseq.data.dataset import read_parallel
from bridle_fairseq.data.manifests.labels import Labels
from bridle_fairseq.data.manifests.transcripts import Transcripts
from bridle_fairseq.data.sampling import WeightedDraw, clip_weights
from bridle_fairseq.nn.ctc import needed_frames
from bridle_fairseq.utils.errors import InputError, exit_on_input_error


class FairseqMedia(FairseqDataset):
    """A :class:`MediaDataset`, which knows nothing of fairseq, as a dataset that fairseq can batch.

    Args:
        media: the data set.
        keep_precision: fairseq casts what is float32 to half precision.
        read_threads: items of a batch that are read at once.
    """

    # fairseq's trainer casts every float32 tensor of a batch under fp16 and bf16, and a waveform of 8 or 11 bits gives
    # another log-mel. Float64 it leaves alone; the front end takes it to float32.

    def __init__(self, media, keep_precision=False, read_threads=1):
        if read_threads < 1:
            raise InputError(f"task.read_threads is {read_threads}; expected at least 1")
        self.media, self.keep_precision, self.read_threads = media, keep_precision, read_threads
        self.sizes = media.sizes

    @property
    def manifest(self):
        """Of the media."""
        return self.media.manifest

    @property
    def skips(self):
        """Its rows that could not be used."""
        return self.media.skips

    @property
    def training(self):
        """Whether items are cropped and augmented at random."""
        return self.media.training

    def __len__(self):
        return len(self.media)

    def __getitem__(self, index):
        """See :class:`MediaDataset`; with an ``"error"``, the sentence, where reading tells a user's mistake."""
        return self.read(index)

    def read(self, row, *draw):
        """See :meth:`MediaDataset.item`; an error is kept, as no sentence comes out of a data loader's worker."""
        try:
            return self.media.item(int(row), *draw)
        except InputError as error:
            return {"id": int(row), "source": None, "error": str(error)}

    def __getitems__(self, indices):
        """The items of a batch, as torch's data loader asks for them."""
        return read_parallel(self.__getitem__, indices, self.read_threads)

    def collater(self, samples):
        """A batch, whose waveforms are float64 where float32 would be cast to half precision.

        Where an item has an error the batch has nothing else but its ids: see ``checked`` of the data set.
        """
        wrong = [sample for sample in samples if "error" in sample]
        if wrong:
            return {"id": torch.tensor([sample["id"] for sample in wrong]), "error": wrong[0]["error"]}
        batch = self.media.collater(samples)
        if batch and self.keep_precision and batch["net_input"]["source"].is_floating_point():
            batch["net_input"]["source"] = batch["net_input"]["source"].double()
        return batch

    def set_epoch(self, epoch):
        """From now on, the crops and augmentation of this epoch, in worker processes too."""
        self.media.set_epoch(epoch)

    def ordered_indices(self):
        """Rows in the order in which they are batched."""
        return self.media.ordered_indices()

    def num_tokens(self, index):
        """Length of an item, for batches of at most ``max_tokens``."""
        return int(self.sizes[index])

    def num_tokens_vec(self, indices):
        """Lengths of several items."""
        return self.sizes[indices]

    def size(self, index):
        """Length of an item, for fairseq's filter by length."""
        return int(self.sizes[index])

    def filter_indices_by_size(self, indices, max_sizes):
        """All rows: none is left out for its length.

        ``max_sizes`` is ``dataset.max_tokens``, and fairseq would leave out every item that is longer.
        """
        limit = max_sizes[0] if isinstance(max_sizes, (tuple, list)) else max_sizes
        self._refuse_less_than_longest(indices, limit)
        return indices, []

    def _refuse_less_than_longest(self, indices, max_tokens) -> None:
        longest = int(self.sizes[indices].max(initial=0))
        if max_tokens is not None and longest > max_tokens:
            kind = "" if self.training else "_valid"
            with exit_on_input_error():
                raise InputError(
                    f"dataset.max_tokens{kind} is {max_tokens}; expected at least {longest}, the length of the longest "
                    f"item of {self.manifest.name} (for sound, task.max_sample_size makes clips shorter)"
                )

    def batch_by_size(self, indices, max_tokens=None, **limits):
        """Batches of rows; the first one has items that can be read.

        fairseq makes its dummy batch of the first one, which stands in for batches without a readable item.
        """
        self._refuse_less_than_longest(indices, max_tokens)
        batches = super().batch_by_size(indices, max_tokens=max_tokens, **limits)
        for number, batch in enumerate(batches):
            if self.collater([self[row] for row in batch]):
                return [*batches[number:], *batches[:number]]
        with exit_on_input_error():
            self.skips.check(0.0)
        return batches

    @property
    def supports_prefetch(self):
        """fairseq need not ask for items ahead."""
        return False

    @property
    def can_reuse_epoch_itr_across_epochs(self):
        """Batches of all epochs hold the same rows; items ask for the epoch themselves."""
        return True


class LabelledMedia(FairseqMedia):
    """Batches with ``"target"``: class numbers (B, long), or B x classes of 0 and 1 with ``multi_label``."""

    def __init__(self, media, *, labels: Labels, multi_label: bool, **options):
        super().__init__(media, **options)
        self.labels, self.multi_label = labels, multi_label

    def collater(self, samples):
        """Items to a batch, as without labels, and its targets."""
        batch = super().collater(samples)
        if batch:
            batch["target"] = self.targets(batch["id"].tolist())
        return batch

    def targets(self, rows):
        """Targets of these rows of the manifest."""
        if self.multi_label:
            return torch.from_numpy(np.stack([self.labels.multi_hot(row) for row in rows]))
        return torch.tensor([self.labels[row][0] for row in rows])


class SampledMedia(LabelledMedia):
    """An epoch has ``samples_per_epoch`` places, each of which holds a clip drawn anew in every epoch.

    fairseq batches, shuffles and shards the places, which are the same in all epochs: batches and workers live on, and
    a run that resumes in the middle of an epoch finds the same clips. Places are in the order of the clips' lengths, so
    that a batch holds clips of like length. In one epoch a clip may come several times, augmented differently.
    """

    def __init__(self, media, *, samples_per_epoch: int, **options):
        super().__init__(media, **options)
        self.draw = WeightedDraw(clip_weights(self.labels), samples_per_epoch, media.seed)
        self._drawn = None
        self.clip_sizes = self.sizes
        # Any clip may come to any place: with max_tokens, each counts as long as the longest.
        self.sizes = np.full(samples_per_epoch, self.clip_sizes.max())

    def __len__(self):
        return self.draw.size

    def __getitem__(self, index):
        """The clip at this place in the present epoch; its ``"id"`` is its row of the manifest."""
        return self.read(self.rows()[index], int(index))

    def rows(self) -> np.ndarray:
        """The rows at all places in the present epoch."""
        epoch = self.media.epoch
        if self._drawn is None or self._drawn[0] != epoch:
            rows = self.draw.rows(epoch)
            self._drawn = epoch, rows[self.media.length_order(self.clip_sizes[rows])]
        return self._drawn[1]

    def ordered_indices(self):
        """All places."""
        return np.arange(len(self))


class TranscribedMedia(FairseqMedia):
    """Batches with ``"target"`` (B x L symbols, padded with 0) and ``"target_lengths"`` (B).

    Args:
        media: the data set.
        transcripts: of its rows.
        frames: samples -> frames that a model emits for so many; a row whose transcript needs more is skipped, counted
            and listed. None: that does not matter, as where no loss is computed.
    """

    def __init__(self, media, *, transcripts: Transcripts, frames=None, **options):
        super().__init__(media, **options)
        self.transcripts, self.frames = transcripts, frames

    def __getitem__(self, index):
        """As of the media, without a source where no path of the model's frames spells the transcript."""
        item = super().__getitem__(index)
        if item["source"] is None or self.frames is None:
            return item
        target = self.transcripts[index]
        needed, there = needed_frames(target), self.frames(len(item["source"]))
        if needed > there:
            reason = f"{len(target)} symbols need {needed} frames, the clip has {there} (model.upsample gives more)"
            self.skips.add(index, reason)
            return {**item, "source": None}
        return item

    def collater(self, samples):
        """Items to a batch, as without transcripts, and its targets."""
        batch = super().collater(samples)
        if batch:
            targets = [self.transcripts[row] for row in batch["id"].tolist()]
            batch["target"] = pad_sequence(targets, batch_first=True)
            batch["target_lengths"] = batch["id"].new_tensor([len(target) for target in targets])
        return batch
