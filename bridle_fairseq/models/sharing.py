"""Which gradients ranks send each other."""

from fairseq.distributed import LegacyDistributedDataParallel

from bridle_fairseq.models.bridle import BridleModel


def share_gradients_of(model, parts) -> None:
    """Let fairseq's ``legacy_ddp`` sum over the ranks the gradients of these modules alone.

    It sums those of all parameters, and sends zeros for what is frozen: half of ``base`` and more. ``pytorch_ddp``
    is built once for all parameters and stays as it is.

    Args:
        model: what fairseq has wrapped around a :class:`BridleModel`, or one that nothing is wrapped around.
        parts: modules of it; the same on every rank.
    """
    while not isinstance(model, (BridleModel, LegacyDistributedDataParallel)):
        model = model.module
    if isinstance(model, BridleModel):
        return
    wanted = {parameter for part in parts for parameter in part.parameters()}
    parameters = [parameter for parameter in model.module.parameters() if parameter in wanted]
    size = sum(parameter.numel() for parameter in parameters)
    model.per_device_params = [parameters]
    if model.buffer_size != size:
        model.buffer_size, model.buffer = size, None
