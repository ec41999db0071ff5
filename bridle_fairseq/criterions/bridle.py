"""fairseq criterion ``bridle``: the loss of the present stage, and logged metrics."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics
from torch import Tensor, nn

from bridle_fairseq.criterions.totals import BatchLoss, Log, totals_of
from bridle_fairseq.data.collate import Batch
from bridle_fairseq.models.bridle import unwrapped
from bridle_fairseq.nn.bridle import StepOutput
from bridle_fairseq.nn.schedule import Stage
from bridle_fairseq.quantization.statistics import dead_codes

# Logged metrics by stage, and whether larger is better. Names ending with "_" have one value per level.
OF_EVERY_STAGE = {"loss": False, "used_": True, "perplexity_": True}
OF_THE_ENCODER = {"loss_": False, "acc_": True}
OF_THE_TOKENIZER = {"cosine": True, "codebook_loss": False, "commitment_loss": False, "residual_energy_": False}


@dataclass
class BridleCriterionConfig(FairseqDataclass):
    """No options: the losses follow from the stage."""


@register_criterion("bridle", dataclass=BridleCriterionConfig)
class BridleCriterion(FairseqCriterion):
    """Sums over patches; fairseq divides by ``sample_size``, the number of patches of all ranks and micro-batches."""

    def forward(self, model: nn.Module, sample: Batch, reduce: bool = True) -> BatchLoss:
        """Return (loss, sample_size, logging output) of a batch."""
        out: StepOutput = model(**sample["net_input"], codes=sample.get("codes"))
        module = unwrapped(model)
        log: Log = {
            "loss": out.loss.detach(),
            "sample_size": out.sample_size,
            "ntokens": sample["ntokens"],
            "nsentences": sample["nsentences"],
            "batches": 1,
            "stage": module.stage_index + 1,
        }
        if out.encoder is not None:
            log["masked"] = out.encoder.num_patches
            for k, (loss, correct) in enumerate(zip(out.encoder.per_level, out.encoder.correct, strict=True), 1):
                log[f"loss_{k}"], log[f"acc_{k}"] = loss, correct
        if out.tokenizer is not None:
            log["patches"] = count = out.tokenizer.num_patches
            log["cosine"] = out.tokenizer.cosine
            log["codebook_loss"] = out.tokenizer.quantized.codebook_loss.detach() * count
            log["commitment_loss"] = out.tokenizer.quantized.commitment_loss.detach() * count
            for k, energy in enumerate(out.tokenizer.quantized.residual_energy, 1):
                log[f"residual_energy_{k}"] = energy * count
        books = module.quantizer.codebooks
        use = (*_codebook_use(books.usage, books.restart_threshold), books.restarted)
        for k, (used, perplexity, dead, restarted) in enumerate(zip(*use, strict=True), 1):
            log[f"used_{k}"], log[f"perplexity_{k}"] = used, perplexity
            log[f"dead_{k}"], log[f"revived_{k}"] = dead, restarted.clone()  # "revived": restarted codes
        return out.loss, out.sample_size, log

    @staticmethod
    def reduce_metrics(logging_outputs: list[Log]) -> None:
        """Average over ranks and micro-batches, each value by the number of summands."""
        totals = totals_of(logging_outputs)
        keys = sorted(totals)
        if not totals["batches"]:
            return
        metrics.log_scalar("loss", totals["loss"] / max(totals["sample_size"], 1), totals["sample_size"], round=4)
        weights = {
            "loss_": "masked",
            "acc_": "masked",
            "residual_energy_": "patches",
            "used_": "batches",
            "perplexity_": "batches",
            "dead_": "batches",
            "revived_": "batches",
        }
        weights |= {"cosine": "patches", "codebook_loss": "patches", "commitment_loss": "patches"}
        for key in keys:
            by = weights.get(key) or weights.get(key.rstrip("0123456789"))
            if by and totals[by]:
                metrics.log_scalar(key, totals[key] / totals[by], totals[by], round=4)
        # Without a weight the meter keeps the last value, as of the number of updates: a stage is no average.
        metrics.log_scalar("stage", totals["stage"] / totals["batches"], weight=0, round=0)
        metrics.log_speed("clips_per_second", totals["nsentences"], priority=850, round=1)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """All values are sums."""
        return True


def comparable(stages: Sequence[Stage], num_codebooks: int) -> dict[str, bool]:
    """Metrics that validation logs in all of ``stages``, and whether larger is better."""
    names = dict(OF_EVERY_STAGE)
    if all(stage.trains_encoder for stage in stages):
        names |= OF_THE_ENCODER
    if all(stage.trains_tokenizer for stage in stages):
        names |= OF_THE_TOKENIZER
    maximize: dict[str, bool] = {}
    for name, larger_is_better in names.items():
        levels = range(1, num_codebooks + 1) if name.endswith("_") else [""]
        maximize |= {f"{name}{level}": larger_is_better for level in levels}
    return maximize


def _codebook_use(usage: Tensor, dead_share: float) -> tuple[Tensor, Tensor, Tensor]:
    """Used codes, perplexity and dead codes of each level, K each, from running frequencies K x C, on their device."""
    share = usage / usage.sum(1, keepdim=True).clamp(min=1e-12)
    perplexity = torch.exp(-(share * share.clamp(min=1e-12).log()).sum(1))
    dead = dead_codes(usage, dead_share)
    return (~dead).sum(1), perplexity, dead.sum(1)
