"""fairseq criterion ``bridle_classification``: cross-entropy for one class per clip, or binary for any number."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics
from torch import Tensor, nn
from torch.nn import functional

from bridle_fairseq.criterions.totals import BatchLoss, Log, totals_of
from bridle_fairseq.data.collate import Batch
from bridle_fairseq.data.image.augment import load_transforms
from bridle_fairseq.nn.batch_augment import mixup
from bridle_fairseq.nn.classifier import class_scores
from bridle_fairseq.utils.errors import InputError

if TYPE_CHECKING:
    from bridle_fairseq.tasks.bridle_classification import BridleClassificationTask


@dataclass
class BridleClassificationCriterionConfig(FairseqDataclass):
    """Regularization by labels. The task's targets determine the loss."""

    label_smoothing: float = field(
        default=0.0, metadata={"help": "label smoothing: weight of the uniform distribution (multi-label: of 1/2)"}
    )
    mixup: float = field(
        default=0.0, metadata={"help": "fraction of the clips that are mixed with another clip of the batch"}
    )
    mixup_alpha: float = field(default=10.0, metadata={"help": "mixup: weights are drawn from Beta(alpha, alpha)"})
    cutmix: float = field(
        default=0.0,
        metadata={"help": "image, video: fraction of the batches with CutMix in place of mixup"},
    )


@register_criterion("bridle_classification", dataclass=BridleClassificationCriterionConfig)
class BridleClassificationCriterion(FairseqCriterion):
    """Sums over clips; fairseq divides by ``sample_size``, the number of clips of all ranks and micro-batches.

    For targets of one class per clip (B, long), the loss is softmax cross-entropy, and training logs the accuracy (for
    mixed clips, of the class with the larger weight). For targets of any number of classes (B x classes, 0 or 1), it is
    binary cross-entropy averaged over classes, and training logs the precision at 1: the fraction of clips whose
    highest-scoring class is correct.

    Mixup, CutMix (arXiv 1905.04899, from torchvision) and label smoothing are off in evaluation. The logging output
    then has ``"scores"`` (B x classes) in place of the accuracy, from which the task computes its metrics.
    """

    def __init__(
        self,
        task: "BridleClassificationTask",
        label_smoothing: float = 0.0,
        mixup: float = 0.0,
        mixup_alpha: float = 10.0,
        cutmix: float = 0.0,
    ) -> None:
        super().__init__(task)
        shares = (("label_smoothing", label_smoothing, 0.999), ("mixup", mixup, 1.0), ("cutmix", cutmix, 1.0))
        for name, value, limit in shares:
            if not 0 <= value <= limit:
                raise InputError(f"criterion.{name} is {value}; expected 0 to {limit:g}")
        if not mixup_alpha > 0:
            raise InputError(f"criterion.mixup_alpha is {mixup_alpha}; expected more than 0")
        self.label_smoothing, self.mixup, self.mixup_alpha = label_smoothing, mixup, mixup_alpha
        self.cutmix = cutmix
        if cutmix:
            load_transforms()  # fails before training if torchvision is missing

    def forward(self, model: nn.Module, sample: Batch, reduce: bool = True) -> BatchLoss:
        """Return (loss, sample_size, logging output) of a batch."""
        net_input, target = dict(sample["net_input"]), sample["target"]
        multi_label, count = target.dim() == 2, len(target)
        log: Log = {"sample_size": count, "nsentences": count, "ntokens": sample["ntokens"]}
        if self.training and (self.mixup or self.cutmix):
            net_input, target = self._mixed(net_input, target)
        logits = model(**net_input).float()
        if not self.training:
            log["scores"] = class_scores(logits.detach(), multi_label)
        elif multi_label:
            log["hits"] = target.gather(1, logits.detach().argmax(1)[:, None]).float().gt(0).sum()
        else:
            label = target if target.dim() == 1 else target.argmax(1)
            log["correct"] = (logits.detach().argmax(1) == label).sum()
        loss = self.loss(logits, target, multi_label)
        return loss, count, {"loss": loss.detach(), **log}

    def _mixed(self, net_input: dict[str, Any], target: Tensor) -> tuple[dict[str, Any], Tensor]:
        if target.dim() == 1:
            target = functional.one_hot(target, len(self.task.classes))
        if self.cutmix and len(target) > 1 and torch.rand(()) < self.cutmix:
            pixels = net_input["source"]
            cut = load_transforms().CutMix(num_classes=target.shape[1])
            # CutMix takes images: B x 3 x frames x height x width -> B x (3 * frames) x height x width
            flat, target = cut(pixels.flatten(1, -3), target.float())
            return {**net_input, "source": flat.view_as(pixels)}, target
        source, padding_mask, target = mixup(
            net_input["source"], net_input.get("padding_mask"), target.float(), self.mixup, self.mixup_alpha
        )
        return {**net_input, "source": source, "padding_mask": padding_mask}, target

    def loss(self, logits: Tensor, target: Tensor, multi_label: bool) -> Tensor:
        """Loss summed over clips; ``target``: B class numbers, or B x classes probabilities."""
        smoothing = self.label_smoothing if self.training else 0.0
        if not multi_label:
            return functional.cross_entropy(logits, target, reduction="sum", label_smoothing=smoothing)
        target = target.float() * (1 - smoothing) + smoothing / 2
        return functional.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(1).sum()

    @staticmethod
    def reduce_metrics(logging_outputs: list[Log]) -> None:
        """Average over the clips of all ranks and micro-batches."""
        totals = totals_of(logging_outputs)
        clips = totals["sample_size"]
        if not clips:
            return
        metrics.log_scalar("loss", totals["loss"] / clips, clips, round=4)
        for key, name in (("correct", "accuracy"), ("hits", "precision_at_1")):
            if key in totals:
                metrics.log_scalar(name, totals[key] / clips, clips, round=5)
        metrics.log_speed("clips_per_second", totals["nsentences"], priority=850, round=1)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """All values are sums; the task removes ``"scores"``."""
        return True
