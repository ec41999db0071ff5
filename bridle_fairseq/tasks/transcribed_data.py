"""Items with their transcripts."""

from torch.nn.utils.rnn import pad_sequence

from bridle_fairseq.data.manifests.transcripts import Transcripts
from bridle_fairseq.nn.ctc import needed_frames
from bridle_fairseq.tasks.datasets import FairseqMedia


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
