"""A small pretraining run on generated clips, and the sentence with which a process ends."""

import numpy as np
import pytest
import soundfile
from omegaconf import OmegaConf

import bridle_fairseq

bridle_fairseq.register()

from bridle_fairseq.data.manifests.manifest import Manifest  # noqa: E402
from bridle_fairseq.nn.settings import BridleSettings  # noqa: E402
from bridle_fairseq.tasks.bridle_pretraining import BridlePretrainingConfig  # noqa: E402

SMALL = {"num_mel_bins": 32, "patch_size": [8, 8], "encoder_width": 16, "encoder_depth": 1, "encoder_heads": 2}
SMALL |= {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2, "tokenizer_depth": 1, "estimator_depth": 1}
SMALL |= {"num_codebooks": 2, "codebook_size": 8, "codebook_dim": 4}
STAGES = [{"kind": "encoder", "updates": 3}, {"kind": "tokenizer", "updates": 4}]


@pytest.fixture
def data(tmp_path):
    """12 clips to train on and 3 to validate, of 0.3 to 0.9 s."""
    random = np.random.default_rng(0)
    for split, count in (("train", 12), ("valid", 3)):
        sizes = random.integers(5000, 15000, count).tolist()
        for number, size in enumerate(sizes):
            soundfile.write(tmp_path / f"{split}-{number}.wav", 0.3 * random.standard_normal(size), 16000)
        Manifest("", [f"{split}-{number}.wav" for number in range(count)], sizes).write(tmp_path / f"{split}.tsv")
    return tmp_path


@pytest.fixture
def configure(data, monkeypatch):
    """``configure(model={...}, common={...}, **task)`` -> a run's whole configuration."""
    monkeypatch.chdir(data)

    def make(model=None, common=None, optimization=None, checkpoint=None, **task):
        model = {**vars(BridleSettings(**SMALL)), "stages": STAGES, "_name": "bridle", **(model or {})}
        changes = {"_name": "bridle_pretraining", "data": str(data), "max_sample_size": 8000, "seed": 1, **task}
        task = {**vars(BridlePretrainingConfig()), **changes}
        common = {"fp16": False, "fp16_no_flatten_grads": False, **(common or {})}
        optimization = {"max_update": 0, **(optimization or {})}
        checkpoint = {"best_checkpoint_metric": "loss", "maximize_best_checkpoint_metric": False, **(checkpoint or {})}
        return OmegaConf.create(
            {"task": task, "model": model, "common": common, "optimization": optimization, "checkpoint": checkpoint}
        )

    return make


@pytest.fixture
def said(capsys):
    """``said(action, *arguments)`` -> the one sentence with which ``action`` ends the process."""

    def ended_with(action, *arguments):
        with pytest.raises(SystemExit) as ended:
            action(*arguments)
        assert ended.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("bridle_fairseq: error: ")
        return line

    return ended_with
