"""Run the commands of examples/*/README.md in order and unchanged, with small models."""

import csv
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    *("dataset.num_workers=0", "dataset.batch_size=4", "common.log_interval=1"),
    "optimization.max_update=6",
]
SMALL_MEDIA = {
    "audio": ["task.max_sample_size=8000"],
    "images": ["task.image_size=32"],
    "video": ["task.image_size=32"],
    "speech": ["task.max_sample_size=20000"],
}
VARIABLE = {"audio": "SOUNDS", "images": "IMAGES", "video": "VIDEOS", "units": "SOUNDS", "speech": "SPEECH"}
SMALL_PRETRAINING = [
    *("model.encoder_width=32", "model.encoder_depth=2", "model.encoder_heads=2"),
    *("model.decoder_width=16", "model.decoder_depth=1", "model.decoder_heads=2"),
    *("model.tokenizer_depth=1", "model.num_codebooks=2", "model.codebook_size=12", "model.codebook_dim=8"),
    "model.precision=float32",
    "model.stages=[{kind:encoder,updates:2},{kind:tokenizer,updates:2},{kind:encoder,updates:2}]",
]  # fmt: skip
SMALL_DECODER = ["model.decoder_width=16", "model.decoder_depth=1", "model.decoder_heads=2"]
SMALL_LANGUAGE_MODEL = [
    *("model.decoder_embed_dim=16", "model.decoder_ffn_embed_dim=32", "model.decoder_layers=1"),
    "model.decoder_attention_heads=2",
]
SHIMS = {  # stand before the installed commands: forker.py runs them, which has imported fairseq
    "bridle": """#!/bin/sh
exec {relay} bridle "$@"
""",
    "fairseq-hydra-train": """#!/bin/sh
case "$*" in
*finetuning*) set -- "$@" {all} {media} ;;
*mel_decoder*) set -- "$@" {all} {media} {decoder} ;;
*language_model*) set -- "$@" {all} {language_model} ;;
*) set -- "$@" {all} {media} {pretraining} ;;
esac
exec {relay} fairseq-hydra-train "$@"
""",
}


def blocks(page, language):
    """The code blocks of a language, in order."""
    text = (ROOT / "examples" / page / "README.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def write_sounds(folder):
    """Write twenty clips of two classes (high and low tones) and their table."""
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


def write_images(folder):
    """Write twenty images of two classes (light and dark) in folders of splits and classes."""
    random = np.random.default_rng(0)
    for number in range(20):
        label, split = ("high", "low")[number % 2], ("train", "train", "train", "valid", "test")[number // 2 % 5]
        pixels = random.integers(0, 120, (30 + number, 50 - number, 3)) + 130 * (number % 2)
        (folder / split / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / split / label / f"{number}.jpg")


def write_speech(folder):
    """Write tones with transcripts, in the folders and .trans.txt files of LibriSpeech."""
    for speaker, (split, count) in enumerate({"train-clean-100": 8, "dev-other": 3, "test-other": 3}.items()):
        chapter, lines = folder / split / str(speaker) / "7", []
        chapter.mkdir(parents=True)
        for number in range(count):
            name, words = f"{speaker}-7-{number:04}", ("ONE TWO", "THREE", "DON'T WAIT")[number % 3]
            pitch = np.repeat([300 + 40 * (ord(letter) % 32) for letter in words], 1600)
            soundfile.write(chapter / f"{name}.flac", 0.3 * np.sin(2 * np.pi * np.cumsum(pitch) / 16000), 16000)
            lines.append(f"{name} {words}\n")
        (chapter / f"{speaker}-7.trans.txt").write_text("".join(lines))


def write_video(path, frames, brightness):
    """Write a video of grey frames with a moving bar."""
    av = pytest.importorskip("av")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 40, "yuv420p"
        for number in range(frames):
            pixels = np.full((40, 48, 3), brightness, np.uint8)
            pixels[:, 3 * number % 40 :][:, :6] = 255
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode())


def write_videos(folder):
    """Write twenty videos of two classes (light and dark) in folders of splits and classes."""
    for number in range(20):
        label, split = ("high", "low")[number % 2], ("train", "train", "train", "valid", "test")[number // 2 % 5]
        write_video(folder / split / label / f"{number}.mp4", 5 + number, 150 - 120 * (number % 2))


@pytest.fixture(scope="module", params=("audio", "images", "video"))
def page(request):
    """Folder of a page in examples."""
    return request.param


@pytest.fixture(scope="module")
def followed(page, follow, tmp_path_factory):
    """The folder of files and results after all commands of the page."""
    return follow(page, tmp_path_factory.mktemp("reader"))


@pytest.fixture(scope="module")
def follow(forker):
    """``follow(page, folder)`` runs all commands of a page and returns the folder."""
    with forker.relay() as port:
        yield lambda page, folder: run_commands(page, folder, port)


def run_commands(page, folder, port):
    writers = {"images": write_images, "video": write_videos, "speech": write_speech}
    writers.get(page, write_sounds)(folder / "media")
    parts = {"relay": [sys.executable, "-SE", Path(__file__).with_name("relay.py"), port]}
    parts |= {"all": SMALL, "media": SMALL_MEDIA.get(page, SMALL_MEDIA["audio"]), "pretraining": SMALL_PRETRAINING}
    parts |= {"decoder": SMALL_DECODER, "language_model": SMALL_LANGUAGE_MODEL}
    (folder / "bin").mkdir()
    for name, script in SHIMS.items():
        shim = folder / "bin" / name
        shim.write_text(script.format(**{part: shlex.join(map(str, words)) for part, words in parts.items()}))
        shim.chmod(0o755)
    first, *others = blocks(page, "sh")
    assert re.fullmatch(rf"{VARIABLE[page]}=\S+\nWORK=\S+\n", first)
    variables = f"{VARIABLE[page]}={shlex.quote(str(folder / 'media'))}\nWORK={shlex.quote(str(folder / 'work'))}\n"
    path = f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    for block in others:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", variables + block],
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


def test_commands_of_the_page_write_their_files(followed, page):
    work = followed / "work"
    for name in ("manifests/test.tsv", "manifests/test.lbl", "manifests/labels.csv", "pretrained/report.html"):
        assert (work / name).stat().st_size > 0
    assert (work / "codes" / "train.codes.idx").exists() and (work / "probe" / "probe.json").exists()
    assert (work / "features" / "test.features.json").exists()
    assert (work / "folds" / "crossval.json").exists() == (page == "audio")
    assert (work / "evaluation" / "test.predictions.csv").read_text().count("\n") == 5
    for kind in ("encoder", "classifier"):
        assert (work / "exported" / kind / "model.safetensors").exists()


def run_python_block(page, folder, more=""):
    """Run the page's Python code in a folder; return what it prints."""
    (code,) = blocks(page, "python")
    done = subprocess.run(
        [sys.executable, "-c", code + more],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_python_of_the_page_runs(followed, page):
    soundfile.write(followed / "sound.wav", np.zeros(12000), 24000)
    Image.new("RGB", (70, 40), "red").save(followed / "image.jpg")
    if page == "video":
        write_video(followed / "video.mp4", 9, 100)
    printed = run_python_block(page, followed, "print(vectors.shape)")
    assert "torch.Size([1, 32])" in printed and "high" in printed and "low" in printed


def test_units_page(follow, tmp_path):
    for module in ("sentencepiece", "torchaudio", "matplotlib"):
        pytest.importorskip(module)
    work = follow("units", tmp_path) / "work"
    printed = (tmp_path / "printed").read_text()
    for name in ("units/level1/train.counts", "units/level1/dict.km.txt", "pieces/2000.model", "heard/distances.png"):
        assert (work / name).stat().st_size > 0
    # a row for plain units and one per vocabulary; then unigram and language model
    table = printed[printed.index("vocabulary") :].splitlines()[1:4]
    assert [len(row.split()) for row in table] == [5, 5, 5] and table[0].split()[2] == "1.000"
    assert "language model  " in printed and "unigram  " in printed
    (row,) = list(csv.DictReader((work / "heard/distances.csv").open()))
    assert {"levels_0", "levels_1", "levels_2"} <= row.keys()
    for name in ("valid.0.levels1", "valid.1.levels2", "sampled.0.levels2"):
        samples, rate = soundfile.read(work / "heard" / f"{name}.wav")
        assert rate == 16000 and len(samples) > 1000 and np.isfinite(samples).all()
    nearest = printed[printed.rindex("\n0\n") :].splitlines()
    assert len([line for line in nearest if line.startswith("  ")]) == 5


def test_speech_page(follow, tmp_path):
    for module in ("sentencepiece", "jiwer"):
        pytest.importorskip(module)
    work = follow("speech", tmp_path) / "work"
    printed = (tmp_path / "printed").read_text()
    assert (work / "manifests/train.ltr").read_text().splitlines()[0] == "O N E | T W O |"
    assert {line.count("\u2581") for line in (work / "pieces/valid.spm").read_text().splitlines()} == {1, 2}
    assert "<h3>Word error rate</h3>" in (work / "finetuned/report.html").read_text()
    assert (work / "finetuned_pieces/checkpoint_best.pt").exists()
    with open(work / "evaluation/test.transcripts.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["reference"] for row in rows] == ["ONE TWO", "THREE", "DON'T WAIT"]
    assert re.search(r"^wer +[\d.]+  \d+ of 5$", printed, re.MULTILINE)
    files = [line for line in printed.splitlines() if line.endswith(".flac")]
    assert len(files) == 2 and all(str(tmp_path / "media/test-other") in line for line in files)
    assert not [path for path in work.rglob("skipped.tsv") if path.read_text()]
    shutil.copy(files[0], tmp_path / "sound.wav")  # soundfile detects the format from the content
    transcript = printed.splitlines()[printed.splitlines().index(files[0]) + 1].strip()
    assert run_python_block("speech", tmp_path) == f"{[transcript]}\n"
