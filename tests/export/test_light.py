"""The light install: commands on exported folders import torch, numpy, safetensors, soundfile and soxr, and no more."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from bridle_fairseq.data.manifests.manifest import Manifest

REFUSED = ("fairseq", "fairseq_cli", "hydra", "omegaconf", "sklearn", "scipy", "PIL", "tqdm", "tensorboardX", "pandas")
REFUSED += (
    "fairseq_compat",
    "torchaudio",
    "torchvision",
    "av",
    "huggingface_hub",
    "transformers",
    "pyarrow",
    "matplotlib",
)
SCRIPT = """
import json, sys

class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in REFUSED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

REFUSED = json.loads(sys.argv[1])
there = set(REFUSED) & set(sys.modules)
assert there <= {"fairseq_compat"}, there  # which Python's start imports where it is installed
sys.meta_path.insert(0, Refusing())
from bridle_fairseq.cli.main import main
for argv in json.loads(sys.argv[2]):
    print(argv[0], main(argv))
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("light")
    for number, rate in enumerate((16000, 44100)):
        soundfile.write(folder / f"{number}.wav", 0.1 * np.random.default_rng(number).standard_normal(rate), rate)
    Manifest(str(folder), ["0.wav", "1.wav"], [16000, 44100]).write(folder / "split.tsv")
    return folder


def test_commands_on_exports_need_the_light_install_only(exported, corpus, tmp_path) -> None:
    tsv, clip = str(corpus / "split.tsv"), str(corpus / "1.wav")
    commands = [
        ["features", str(exported / "encoder"), tsv, "--out", str(tmp_path / "features")],
        ["tokenize", str(exported / "all"), tsv, "--out", str(tmp_path / "codes")],
        ["similar", str(tmp_path / "features"), clip, "--checkpoint", str(exported / "encoder")],
        ["similar", str(tmp_path / "codes"), clip, "--checkpoint", str(exported / "all")],
        ["embed", str(corpus), "--model", str(exported / "encoder"), "--out", str(tmp_path / "x.npy")],
        ["embed", clip, "--model", str(exported / "classifier"), "--out", str(tmp_path / "x.csv")],
        ["predict", str(exported / "classifier"), clip],
        ["predict", str(exported / "ctc"), clip],
    ]
    argv = [sys.executable, "-c", SCRIPT, json.dumps(REFUSED), json.dumps(commands)]
    environment = dict(os.environ, CUDA_VISIBLE_DEVICES="")
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [f"{command[0]} 0" in done.stdout for command in commands] == [True] * len(commands), done
    assert (tmp_path / "features/split.features.json").exists() and (tmp_path / "codes/split.codes.bin").exists()
