"""An upstream for s3prl, by its interface, and with its own featurizer if it is installed."""

from __future__ import annotations

import sys

import pytest
import torch

from bridle_fairseq import pretrained
from bridle_fairseq.adapters.s3prl import UpstreamExpert, register
from bridle_fairseq.utils.errors import InputError


def test_hidden_states_are_those_of_the_blocks(exported, waves) -> None:
    upstream, wavs = UpstreamExpert(str(exported / "all"), refresh=True), [torch.from_numpy(wave) for wave in waves]
    out, own = upstream(wavs), pretrained.load(exported / "all").features(waves, 16000, layers="all")
    assert len(out["hidden_states"]) == 2
    for found, expected in zip((*out["hidden_states"], out["last_hidden_state"]), (*own.layers, own.x), strict=True):
        expected = expected.masked_fill(own.padding_mask.unsqueeze(-1), 0).unflatten(1, own.grid).flatten(2)
        assert torch.equal(found, expected)
    rate = upstream.get_downsample_rates("hidden_states")
    assert rate == 1280 and abs(out["last_hidden_state"].shape[1] - round(24000 / rate)) < 5


def test_its_featurizer_takes_the_upstream(exported, waves) -> None:
    interfaces = pytest.importorskip("s3prl.upstream.interfaces", reason="s3prl is not installed: make adapters")
    upstream, wavs = UpstreamExpert(str(exported / "all")), [torch.from_numpy(wave) for wave in waves]
    featurizer = interfaces.Featurizer(upstream, upstream_device="cpu")
    assert (featurizer.output_dim, featurizer.downsample_rate, featurizer.layer_num) == (128, 1280, 2)
    for found, wave in zip(featurizer(wavs, upstream(wavs)), waves, strict=True):
        assert found.shape == (round(len(wave) / 1280), 128) and bool(found.isfinite().all())


def test_without_s3prl_registering_says_so(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "s3prl", None)
    with pytest.raises(InputError, match="register needs s3prl .*install it: pip install s3prl"):
        register()
