"""fairseq criterion ``bridle_classification``: cross-entropy of one class a clip, or of each class by itself."""

from dataclasses import dataclass

import torch
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics
from torch.nn import functional


@dataclass
class BridleClassificationCriterionConfig(FairseqDataclass):
    """Nothing to choose here: the loss follows from the task's targets."""


@register_criterion("bridle_classification", dataclass=BridleClassificationCriterionConfig)
class BridleClassificationCriterion(FairseqCriterion):
    """Sums over clips; fairseq divides by ``sample_size``, the clips of all ranks and micro-batches.

    Targets of one class a clip (B, long): softmax cross-entropy, and the accuracy. Targets of any number of classes
    (B x classes, 0 or 1): binary cross-entropy averaged over classes, and the precision at 1, the share of clips whose
    highest-scoring class is one of theirs.
    """

    def forward(self, model, sample, reduce=True):
        """Return (loss, sample_size, logging output) of a batch."""
        logits, target = model(**sample["net_input"]).float(), sample["target"]
        best = logits.detach().argmax(1)
        if target.dim() == 1:
            loss = functional.cross_entropy(logits, target, reduction="sum")
            hits = {"correct": (best == target).sum()}
        else:
            loss = functional.binary_cross_entropy_with_logits(logits, target.float(), reduction="none").mean(1).sum()
            hits = {"hits": target.gather(1, best[:, None]).float().sum()}
        count = len(target)
        log = {"loss": loss.detach(), "sample_size": count, "nsentences": count, "ntokens": sample["ntokens"], **hits}
        return loss, count, log

    @staticmethod
    def reduce_metrics(logging_outputs) -> None:
        """Average over the clips of all ranks and micro-batches."""

        def total(key):
            values = [log.get(key, 0) for log in logging_outputs]
            return sum(v.item() if torch.is_tensor(v) else v for v in values)

        clips = total("sample_size")
        if not clips:
            return
        metrics.log_scalar("loss", total("loss") / clips, clips, round=4)
        for key, name in (("correct", "accuracy"), ("hits", "precision_at_1")):
            if any(key in log for log in logging_outputs):
                metrics.log_scalar(name, total(key) / clips, clips, round=5)
        metrics.log_speed("clips_per_second", total("nsentences"), priority=850, round=1)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """All values are sums."""
        return True
