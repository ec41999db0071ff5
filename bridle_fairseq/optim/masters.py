"""Model parameters and the copies that the optimizer really steps (float32 masters under ``fp16`` and ``bf16``)."""


def master_parameters(optimizer):
    """Yield (model parameter, optimizer's parameter): the same tensor, except under fairseq's FP16Optimizer.

    Args:
        optimizer: a fairseq optimizer with unflattened parameters.
    """
    masters = getattr(optimizer, "fp32_params", None)
    if masters is None:
        for parameter in optimizer.params:
            yield parameter, parameter
    else:
        yield from zip(optimizer.fp16_params, masters, strict=True)


def drop_gradients(optimizer, frozen) -> None:
    """Leave frozen parameters without gradient, so that the optimizer skips them.

    A zero gradient is not enough: momentum and weight decay would still move them, and fairseq's ``legacy_ddp`` and
    ``FP16Optimizer`` fill in zeros where a part took no part in the forward pass.
    """
    for parameter, master in master_parameters(optimizer):
        if parameter in frozen:
            parameter.grad = master.grad = None


def start_fresh(optimizer, newly_trained) -> None:
    """Forget the moments of parameters that begin to learn, and copy parameters that were set anew to their masters."""
    for parameter, master in master_parameters(optimizer):
        if parameter in newly_trained:
            optimizer.optimizer.state.pop(master, None)
            if master is not parameter:
                master.data.copy_(parameter.data)
