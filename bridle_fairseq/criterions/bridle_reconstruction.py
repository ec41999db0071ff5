"""fairseq criterion ``bridle_reconstruction``: absolute error of log-mel values estimated from codes."""

from dataclasses import dataclass

import torch
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics
from torch import nn

from bridle_fairseq.criterions.totals import BatchLoss, Log, totals_of
from bridle_fairseq.data.collate import Batch
from bridle_fairseq.nn.mel_decoder import DECIBELS, Reconstruction


@dataclass
class BridleReconstructionCriterionConfig(FairseqDataclass):
    """No options."""


@register_criterion("bridle_reconstruction", dataclass=BridleReconstructionCriterionConfig)
class BridleReconstructionCriterion(FairseqCriterion):
    """Absolute error of normalized log-mel, summed; fairseq divides by ``sample_size``, the number of values.

    In evaluation the loss is the mean over 0 to K levels, and ``distance_k`` is logged: the mean absolute error in
    decibels with the codes of levels 1 to k.
    """

    def forward(self, model: nn.Module, sample: Batch, reduce: bool = True) -> BatchLoss:
        """Return (loss, sample_size, logging output) of a batch."""
        out: Reconstruction = model(**sample["net_input"])
        errors = out.absolute_error()
        loss, values = torch.stack(errors).mean(), int(out.valid.sum())
        log: Log = {
            "loss": loss.detach(),
            "sample_size": values,
            "ntokens": sample["ntokens"],
            "nsentences": sample["nsentences"],
        }
        if not self.training:
            decibels = 2 * out.std * DECIBELS
            log |= {f"distance_{k}": error.detach() * decibels for k, error in enumerate(errors)}
        return loss, values, log

    @staticmethod
    def reduce_metrics(logging_outputs: list[Log]) -> None:
        """Average over the values of all ranks and micro-batches."""
        totals = totals_of(logging_outputs)
        values = totals["sample_size"]
        if not values:
            return
        metrics.log_scalar("loss", totals["loss"] / values, values, round=5)
        for key in sorted(key for key in totals if key.startswith("distance_")):
            metrics.log_scalar(key, totals[key] / values, values, round=4)
        metrics.log_speed("clips_per_second", totals["nsentences"], priority=850, round=1)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """All values are sums."""
        return True
