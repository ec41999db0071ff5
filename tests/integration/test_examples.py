"""The commands of examples/audio/README.md, as they stand there and in their order; only the models are made small."""

import csv
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "examples" / "audio" / "README.md"
SMALL = [
    *("common.cpu=true", "dataset.num_workers=0", "dataset.batch_size=4", "common.log_interval=1"),
    *("task.max_sample_size=8000", "optimization.max_update=6"),
]
SMALL_PRETRAINING = [
    *("model.encoder_width=32", "model.encoder_depth=2", "model.encoder_heads=2"),
    *("model.decoder_width=16", "model.decoder_depth=1", "model.decoder_heads=2"),
    *("model.tokenizer_depth=1", "model.num_codebooks=2", "model.codebook_size=12", "model.codebook_dim=8"),
    "model.precision=float32",
    "model.stages=[{kind:encoder,updates:2},{kind:tokenizer,updates:2},{kind:encoder,updates:2}]",
]  # fmt: skip
SHIM = """#!/bin/sh
case "$*" in
*finetuning*) exec {real} "$@" {both} ;;
*) exec {real} "$@" {both} {pretraining} ;;
esac
"""


def blocks(language):
    """The code blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)


def write_sounds(folder):
    """Twenty clips of two classes, high and low tones, and their table."""
    random = np.random.default_rng(0)
    rows = [("file", "label", "split", "fold")]
    for number in range(20):
        label, split = ("high", "low")[number % 2], ("train", "train", "train", "valid", "test")[number // 2 % 5]
        wave = 0.3 * np.sin(np.arange(6000 + 300 * number) * (0.5 if number % 2 else 0.05))
        (folder / label).mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / label / f"{number}.wav", wave + 0.01 * random.standard_normal(len(wave)), 16000)
        rows.append((f"{label}/{number}.wav", label, split, number // 4 + 1))
    with open(folder / "labels.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """The folder in which a reader's sounds and results are, after all commands of the page."""
    folder = tmp_path_factory.mktemp("reader")
    write_sounds(folder / "sounds")
    bin_folder = Path(sys.executable).parent
    shim = folder / "bin" / "fairseq-hydra-train"
    shim.parent.mkdir()
    parts = {"real": [bin_folder / shim.name], "both": SMALL, "pretraining": SMALL_PRETRAINING}
    shim.write_text(SHIM.format(**{name: shlex.join(map(str, words)) for name, words in parts.items()}))
    shim.chmod(0o755)
    first, *others = blocks("sh")
    assert re.fullmatch(r"SOUNDS=\S+\nWORK=\S+\n", first)
    places = f"SOUNDS={shlex.quote(str(folder / 'sounds'))}\nWORK={shlex.quote(str(folder / 'work'))}\n"
    path = f"{shim.parent}:{bin_folder}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    for block in others:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", places + block],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout[-4000:]}"
        with open(folder / "printed", "a") as file:
            file.write(done.stdout)
    return folder


def test_every_command_leaves_what_the_page_says(followed):
    work = followed / "work"
    for name in ("manifests/test.tsv", "manifests/test.lbl", "manifests/labels.csv", "pretrained/report.html"):
        assert (work / name).stat().st_size > 0
    assert (work / "codes" / "train.codes.idx").exists() and (work / "probe" / "probe.json").exists()
    assert (work / "features" / "test.features.json").exists() and (work / "folds" / "crossval.json").exists()
    assert (work / "evaluation" / "test.predictions.csv").read_text().count("\n") == 5
    for kind in ("encoder", "classifier"):
        assert (work / "exported" / kind / "model.safetensors").exists()


def test_the_python_of_the_page(followed):
    soundfile.write(followed / "sound.wav", np.zeros(12000), 24000)
    (code,) = blocks("python")
    done = subprocess.run(
        [sys.executable, "-c", code + "print(vectors.shape)"],
        cwd=followed,
        env={**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "torch.Size([1, 32])" in done.stdout and "high" in done.stdout and "low" in done.stdout
