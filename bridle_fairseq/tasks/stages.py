"""Applies the stages of interleaved training: the only code that changes what learns.

:mod:`bridle_fairseq.nn.schedule` defines to which stage an update belongs, and its learning rate. The scheduler
``bridle_interleaved`` sets that rate. All else that depends on the stage happens here, in the order of an update:

1. :func:`before_forward`, before the forward pass of each micro-batch. In the first update of a stage it initializes
   tokenizer and codebooks (:meth:`bridle_fairseq.nn.bridle.Bridle.begin_stage`) and resets the optimizer state of what
   begins to learn. In every update, ranks exchange only the gradients of what learns (:func:`sync_only`).
2. :func:`around_step`, around the optimizer step. It drops the gradients of what is frozen, and updates codebooks and
   running averages after the step.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from fairseq import checkpoint_utils
from fairseq.distributed import LegacyDistributedDataParallel
from fairseq.optim import AMPOptimizer, FairseqOptimizer
from torch import nn

from bridle_fairseq.models.bridle import BridleModel, unwrapped

logger = logging.getLogger(__name__)


def before_forward(
    wrapped: nn.Module, optimizer: FairseqOptimizer, num_updates: int, dummy_batch: bool = False
) -> None:
    """Put the model into the stage of an update; call it before the forward pass of each micro-batch, on every rank.

    Args:
        wrapped: a :class:`BridleModel` as fairseq wraps it.
        optimizer: a fairseq optimizer with unflattened parameters.
        num_updates: number of finished updates.
        dummy_batch: the batch only keeps this rank in step with the others.
    """
    model = unwrapped(wrapped)
    if begin_update(model, num_updates):
        reset_optimizer_state(optimizer, newly_trained_parameters(model))
        # fairseq keeps the best score as an attribute of save_checkpoint; scores of two stages cannot be compared.
        vars(checkpoint_utils.save_checkpoint).pop("best", None)
        logger.info(f"stage {model.stage_index + 1} of {len(model.schedule.stages)} begins: {model.stage}")
    model.dummy_batch = dummy_batch
    sync_only(wrapped, model.trained_parts(model.stage, model.stage_update))


@contextmanager
def around_step(wrapped: nn.Module, optimizer: FairseqOptimizer) -> Iterator[None]:
    """Context manager of the optimizer step. Collective: every rank enters it.

    Args:
        wrapped: a :class:`BridleModel` as fairseq wraps it.
        optimizer: a fairseq optimizer with unflattened parameters.
    """
    model = unwrapped(wrapped)
    drop_gradients(optimizer, frozen_parameters(model))
    scale = _amp_scale(optimizer)
    yield
    if _amp_scale(optimizer) < scale:  # gradients overflowed: amp skipped the step, and the batch comes again
        model.discard()
    else:
        model.commit()
    if model.stage_update + 1 == model.stage.updates:
        report_codebooks(model)


def begin_update(model: BridleModel, num_updates: int) -> bool:
    """Move the model to an update, and begin its stage in the stage's first update; returns True in that case."""
    model.num_updates = num_updates
    if num_updates not in model.schedule.starts or model.begun_at == num_updates:
        return False  # in the middle of a stage, or begun by an earlier micro-batch of this update
    model.begun_at = num_updates
    model.begin_stage(model.stage)
    return True


def newly_trained_parameters(model: BridleModel) -> set[nn.Parameter]:
    """Parameters that learn in the present stage and did not in the one before, or were initialized again."""
    trained = _parameters(model.trained_parts(model.stage))
    initialized = model.stage.kind == "tokenizer" and model.settings.tokenizer_init != "continue"
    if model.stage_index == 0 or initialized:
        return trained
    return trained - _parameters(model.trained_parts(model.schedule.stages[model.stage_index - 1]))


def frozen_parameters(model: BridleModel) -> set[nn.Parameter]:
    """Parameters that must not change in the present update."""
    return set(model.parameters()) - _parameters(model.trained_parts(model.stage, model.stage_update))


def master_parameters(optimizer: FairseqOptimizer) -> Iterator[tuple[nn.Parameter, nn.Parameter]]:
    """Pairs of a model parameter and the parameter that the optimizer updates.

    They are the same tensor, except under fairseq's FP16Optimizer (``fp16``, ``bf16``), which updates float32 copies.
    """
    masters = getattr(optimizer, "fp32_params", None)
    if masters is None:
        for parameter in optimizer.params:
            yield parameter, parameter
    else:
        yield from zip(optimizer.fp16_params, masters, strict=True)


def reset_optimizer_state(optimizer: FairseqOptimizer, parameters: set[nn.Parameter]) -> None:
    """Drop the moments of these parameters, and copy their values to their float32 copies."""
    for parameter, master in master_parameters(optimizer):
        if parameter in parameters:
            optimizer.optimizer.state.pop(master, None)
            if master is not parameter:
                master.data.copy_(parameter.data)


def drop_gradients(optimizer: FairseqOptimizer, parameters: set[nn.Parameter]) -> None:
    """Set the gradients of these parameters to None, so that the optimizer skips them.

    Zero is not enough: momentum and weight decay would still change the parameters. fairseq's ``legacy_ddp`` and
    ``FP16Optimizer`` set zero gradients where a parameter took no part in the forward pass.
    """
    for parameter, master in master_parameters(optimizer):
        if parameter in parameters:
            parameter.grad = master.grad = None


def sync_only(wrapped: Any, parts: Iterable[nn.Module]) -> None:
    """Make fairseq's ``legacy_ddp`` sum only the gradients of these modules over the ranks.

    Otherwise ``legacy_ddp`` also sends zeros for frozen parameters, about half of all in ``base``. ``pytorch_ddp`` is
    built once for all parameters, and is left unchanged.

    Args:
        wrapped: a :class:`BridleModel` as fairseq wraps it, or without any wrapper.
        parts: modules of the model, the same on every rank.
    """
    while not isinstance(wrapped, (BridleModel, LegacyDistributedDataParallel)):
        wrapped = wrapped.module
    if isinstance(wrapped, BridleModel):
        return
    wanted = _parameters(parts)
    parameters = [parameter for parameter in wrapped.module.parameters() if parameter in wanted]
    size = sum(parameter.numel() for parameter in parameters)
    wrapped.per_device_params = [parameters]
    if wrapped.buffer_size != size:
        wrapped.buffer_size, wrapped.buffer = size, None


def report_codebooks(model: BridleModel) -> None:
    """Log the use of each codebook at the end of a stage, and warn if one has collapsed."""
    for level, use in enumerate(model.quantizer.statistics(), 1):
        text = f"stage {model.stage_index + 1} ends: level {level} uses {use.used_codes} codes"
        text += f", perplexity {use.perplexity:.1f}"
        logger.info(text)
        if use.perplexity < model.settings.codebook_size / 10:
            logger.warning(
                f"{text}, under a tenth of its {model.settings.codebook_size} codes: this level has collapsed"
            )


def _parameters(modules: Iterable[nn.Module]) -> set[nn.Parameter]:
    return {parameter for module in modules for parameter in module.parameters()}


def _amp_scale(optimizer: FairseqOptimizer) -> float:
    """Loss scale of ``common.amp``, which falls when gradients overflow; 1 without amp."""
    return optimizer.scaler.get_scale() if isinstance(optimizer, AMPOptimizer) else 1.0
