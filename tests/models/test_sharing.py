"""What ranks send each other under ``legacy_ddp``: the gradients of what learns."""

import pytest
import torch
from fairseq.distributed import LegacyDistributedDataParallel, ModuleProxyWrapper, utils
from omegaconf import OmegaConf

import bridle_fairseq

bridle_fairseq.register()

from bridle_fairseq.models.bridle import BridleModel  # noqa: E402
from bridle_fairseq.models.sharing import share_gradients_of  # noqa: E402

SMALL = {"num_mel_bins": 32, "patch_size": [8, 8], "encoder_width": 16, "encoder_depth": 1, "encoder_heads": 2}
SMALL |= {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2, "tokenizer_depth": 1, "estimator_depth": 1}
SMALL |= {"num_codebooks": 2, "codebook_size": 8, "codebook_dim": 4}


@pytest.fixture
def wrapped(monkeypatch):
    """A model as fairseq wraps it for two ranks, the other of which has the same gradients; and what they send."""
    sent = []

    def all_reduce(tensor, group):
        sent.append(tensor.numel())
        tensor.mul_(2)

    monkeypatch.setattr(utils, "get_world_size", lambda group: 2)
    monkeypatch.setattr(utils, "all_reduce", all_reduce)
    model = BridleModel(OmegaConf.create({**SMALL, "stages": [{"kind": "encoder", "updates": 3}]}))
    return ModuleProxyWrapper(LegacyDistributedDataParallel(model, process_group=None)), model, sent


def test_gradients_of_the_named_parts_alone_are_sent(wrapped):
    wrapper, model, sent = wrapped
    for parts in ([model.encoder, model.decoder], [model.tokenizer, model.estimator], [model.encoder, model.decoder]):
        chosen = [parameter for part in parts for parameter in part.parameters()]
        for parameter in model.parameters():
            parameter.grad = None
        for parameter in chosen[1:]:
            parameter.grad = torch.randn_like(parameter)
        expected = {parameter: parameter.grad.clone() for parameter in chosen[1:]}
        expected[chosen[0]] = torch.zeros_like(chosen[0])
        share_gradients_of(wrapper, parts)
        wrapper.all_reduce_grads()
        assert sent.pop() == sum(parameter.numel() for parameter in chosen) and not sent
        for parameter in model.parameters():
            assert (parameter.grad is not None) == (parameter in expected)
        for parameter, grad in expected.items():
            assert torch.equal(parameter.grad, grad)


def test_a_model_of_one_process_has_nothing_to_send(wrapped):
    _, model, sent = wrapped
    share_gradients_of(model, [model.encoder])
    assert not sent
