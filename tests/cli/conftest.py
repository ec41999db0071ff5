"""A small checkpoint and clips, for commands that read both."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from bridle_fairseq.data.artifacts import sharding
from bridle_fairseq.data.manifests.manifest import Manifest

SEGMENT = 8000
STAGES = [{"kind": "tokenizer", "updates": 10}]


def _save_checkpoint(path: Path, seed: int = 0) -> None:
    """A small model whose tokenizer has codebooks, as fairseq would save it."""
    from fairseq.dataclass.configs import CommonConfig
    from omegaconf import OmegaConf

    import bridle_fairseq

    bridle_fairseq.register()
    from bridle_fairseq.models.bridle import BridleModel
    from bridle_fairseq.nn.settings import BridleSettings
    from bridle_fairseq.tasks.stages import begin_update

    torch.manual_seed(seed)
    small = dict(encoder_width=32, encoder_depth=1, encoder_heads=2, decoder_width=32, decoder_depth=1, decoder_heads=2)
    small |= dict(
        tokenizer_depth=1, estimator_depth=1, codebook_dim=8, codebook_size=16, num_codebooks=3, stages=STAGES
    )
    settings = BridleSettings(**small)
    model = BridleModel(settings).train()
    begin_update(model, 0)
    model(torch.randn(4, 16000).cumsum(1).sin() * 0.3)
    model.commit()
    task = {"_name": "bridle_pretraining", "data": "", "modality": "audio", "sample_rate": 16000}
    task |= {"max_sample_size": SEGMENT, "seed": 1}
    common = OmegaConf.to_container(OmegaConf.structured(CommonConfig), enum_to_str=True)
    cfg = {"model": {"_name": "bridle", **dataclasses.asdict(settings)}, "task": task, "common": common}
    history = [{"optimizer_name": "", "lr_scheduler_state": {}, "num_updates": 1}]
    state = {"cfg": cfg, "args": None, "extra_state": {}, "optimizer_history": history}
    torch.save({**state, "model": model.state_dict()}, path)


def _write_corpus(folder: Path, lengths: list[int], rate: int = 16000) -> str:
    rng = np.random.default_rng(0)
    for number, length in enumerate(lengths):
        wave = 0.3 * np.sin(np.cumsum(rng.uniform(0.01, 0.6, length // 400 + 1).repeat(400)[:length]))
        soundfile.write(folder / f"clip {number}.wav", wave, rate)
    path = folder / "valid.tsv"
    Manifest(str(folder), [f"clip {n}.wav" for n in range(len(lengths))], lengths).write(path)
    return str(path)


@pytest.fixture(scope="session")
def save_checkpoint():
    """``save_checkpoint(path, seed=0)``: its crop length is SEGMENT samples."""
    return _save_checkpoint


@pytest.fixture(scope="session")
def write_corpus():
    """``write_corpus(folder, lengths, rate=16000)`` writes clips and valid.tsv, whose path it returns."""
    return _write_corpus


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("model") / "checkpoint.pt"
    _save_checkpoint(path)
    return str(path)


@pytest.fixture
def small_blocks(monkeypatch) -> None:
    """Three rows a block, so that a short manifest has several."""
    monkeypatch.setattr(sharding.plan_blocks, "__defaults__", (3, 1 << 27))
