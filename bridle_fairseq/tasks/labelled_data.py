"""Items with their classes: each once an epoch, or drawn by the weights of their classes."""

import numpy as np
import torch

from bridle_fairseq.data.manifests.labels import Labels
from bridle_fairseq.data.sampling import WeightedDraw, clip_weights
from bridle_fairseq.tasks.datasets import FairseqMedia


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
