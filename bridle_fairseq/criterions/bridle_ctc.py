"""fairseq criterion ``bridle_ctc``: CTC loss, and in evaluation error rates of greedy decoding."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics
from torch import nn

from bridle_fairseq.criterions.totals import BatchLoss, Log, totals_of
from bridle_fairseq.data.collate import Batch
from bridle_fairseq.data.manifests.transcripts import Vocabulary
from bridle_fairseq.evaluation.wer import load_jiwer, word_errors
from bridle_fairseq.nn.ctc import Emissions, ctc_loss, greedy

if TYPE_CHECKING:
    from bridle_fairseq.tasks.bridle_ctc import BridleCtcTask


@dataclass
class BridleCtcCriterionConfig(FairseqDataclass):
    """No options."""


@register_criterion("bridle_ctc", dataclass=BridleCtcCriterionConfig)
class BridleCtcCriterion(FairseqCriterion):
    """Sums over symbols; fairseq divides by ``sample_size``, the number of symbols of all ranks and micro-batches.

    Evaluation logs ``uer`` and ``wer`` of greedy decoding: errors per symbol and per word of the references (0.25 is
    25 %). They are exact for the whole set, because only sums are logged.
    """

    def __init__(self, task: "BridleCtcTask") -> None:
        super().__init__(task)
        load_jiwer()  # fails before training if it is missing

    def forward(self, model: nn.Module, sample: Batch, reduce: bool = True) -> BatchLoss:
        """Return (loss, sample_size, logging output) of a batch."""
        emissions: Emissions = model(**sample["net_input"])
        loss = ctc_loss(emissions, sample["target"], sample["target_lengths"])
        symbols = int(sample["target_lengths"].sum())
        log: Log = {
            "loss": loss.detach(),
            "sample_size": symbols,
            "ntokens": sample["ntokens"],
            "nsentences": sample["nsentences"],
        }
        if not self.training:
            log |= self._errors(sample, greedy(emissions))
        return loss, symbols, log

    def _errors(self, sample: Batch, transcribed: list[list[int]]) -> dict[str, int]:
        vocabulary: Vocabulary = self.task.vocabulary
        lengths = sample["target_lengths"].tolist()
        references = [row[:length] for row, length in zip(sample["target"].tolist(), lengths, strict=True)]
        pairs = (references, transcribed)
        units = word_errors(*([" ".join(vocabulary.spelled(row)) for row in rows] for rows in pairs))
        words = word_errors(*([vocabulary.text(row) for row in rows] for rows in pairs))
        return {"u_edits": units.edits, "units": units.length, "w_edits": words.edits, "words": words.length}

    @staticmethod
    def reduce_metrics(logging_outputs: list[Log]) -> None:
        """Average over all ranks and micro-batches."""
        totals = totals_of(logging_outputs)
        symbols = totals["sample_size"]
        if not symbols:
            return
        metrics.log_scalar("loss", totals["loss"] / symbols, symbols, round=4)
        for name, edits, length in (("uer", "u_edits", "units"), ("wer", "w_edits", "words")):
            if totals[length]:
                metrics.log_scalar(name, totals[edits] / totals[length], totals[length], round=5)
        metrics.log_speed("clips_per_second", totals["nsentences"], priority=850, round=1)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """All values are sums."""
        return True
