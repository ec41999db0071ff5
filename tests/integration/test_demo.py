"""``bridle demo`` from start to end on a few sounds, images and videos; other settings are refused in its folder."""

from __future__ import annotations

import csv
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from bridle_fairseq.cli import main as bridle
from bridle_fairseq.demo.motion import write_video

KINDS = {"hum": 0.04, "whistle": 0.4}


@pytest.fixture(scope="module", params=["audio", "images", "video"])
def kind(request) -> str:
    """The option that names the user's folder."""
    return request.param


@pytest.fixture(scope="module")
def media(kind, tmp_path_factory) -> tuple[Path, Path]:
    """Sixty short clips, images or videos of two kinds, and their table; three batches to learn from."""
    folder = tmp_path_factory.mktemp("media")
    rng = np.random.default_rng(0)
    rows = []
    for number in range(60):
        label = list(KINDS)[number % 2]
        if kind == "video":
            name = f"a clip {number}.mp4"
            frames = rng.integers(0, 60, (12 + number % 3, 48, 48, 3)) + [190, 0, 0] * np.array(number % 2)
            write_video(folder / name, frames.astype(np.uint8), "libx264", {"crf": "30"})
            rows.append((name, label))
            continue
        if kind == "images":
            pixels = rng.integers(0, 60, (50, 40 + number, 3)) + [190, 0, 0] * np.array(number % 2)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"a clip {number}.png")
            rows.append((f"a clip {number}.png", label))
            continue
        wave = 0.3 * np.sin(KINDS[label] * rng.uniform(0.8, 1.2) * np.arange(6000)) + 0.01 * rng.normal(size=6000)
        soundfile.write(folder / f"a clip {number}.wav", wave, 16000)
        rows.append((f"a clip {number}.wav", label))
    table = folder / "table.csv"
    with open(table, "w", newline="") as file:
        csv.writer(file).writerows([("file", "label"), *rows])
    return folder, table


@pytest.fixture(scope="module")
def demo(kind, media, forker, programs, tmp_path_factory) -> tuple[Path, str]:
    """A finished demo's folder, and what it printed."""
    place = tmp_path_factory.mktemp("demo")
    arguments = [f"--{kind}", media[0], "--labels", media[1], "--dir", place / "out", "--updates", "30"]
    job = forker.start(["bridle", "demo", *arguments], place, programs=programs, errors=place / "errors")
    assert job.wait() == [0], job.log() + (place / "errors").read_text()
    return place / "out", job.log()


def test_printed_files_exist(demo) -> None:
    folder, printed = demo
    for name in ("manifests/test.tsv", "checkpoints/checkpoint_last.pt", "codes/train.codes.bin", "report.html"):
        assert (folder / name).is_file()
    for name in ("manifests", "checkpoints/checkpoint_last.pt", "codes", "train.log", "report.html"):
        assert str(folder / name) in printed


BASELINE = {
    "audio": "log-mel: mean and deviation",
    "images": "pixels: colour histogram",
    "video": "pixels: colour histogram",
}


def test_one_table_of_all_features(demo, kind) -> None:
    _, printed = demo
    table = dict(re.findall(r"^  (\S.*?) {2,}(\d\.\d{3})", printed, re.MULTILINE))
    assert len([name for name in table if "pretrained" in name]) == 2
    assert len([name for name in table if "untrained" in name]) == 2
    assert float(table[BASELINE[kind]]) == 1.0  # a hum and a whistle, red and black
    assert 0.3 <= float(table["always the most frequent class"]) <= 0.7


def test_page_shows_what_was_trained(demo, kind) -> None:
    folder, printed = demo
    page = (folder / "report.html").read_text()
    assert page.count('class="chart"') >= 4 and page.count('class="clip card"') == 2 * 2  # codes, predictions
    assert page.count('alt="codes of level') == 2 * 4 and page.count('alt="predictions of level') == 2 * 4
    assert "Guessing among 256 codes would be right in 0.4 %" in page
    accuracy = re.search(rf"{BASELINE[kind]} +(\d\.\d+)", printed)
    assert accuracy and f'<td class="value">{accuracy[1]}</td>' in page
    assert page.count('<svg class="map"') == 2 and page.count('class="nearest"') == 2
    sentences = re.findall(r"^  (Of 100 test .*)$", printed, re.MULTILINE)
    assert len(sentences) == 2 and all(f"<p>{sentence}</p>" in page for sentence in sentences)
    assert "than an untrained encoder: with 95 % confidence between" in sentences[0]


def test_printed_commands_exist(demo) -> None:
    _, printed = demo
    commands = printed.split("what to run next")[1].splitlines()
    programs = {line.split()[0] for line in commands if line.startswith("  /")}
    assert {os.path.basename(program) for program in programs} == {"bridle", "fairseq-hydra-train"}
    assert all(os.access(program, os.X_OK) for program in programs)


def test_printed_codes_command_runs(demo, kind, capsys) -> None:
    import shlex

    folder, printed = demo
    line = next(line for line in printed.splitlines() if " tokenize " in line)
    assert bridle.main(shlex.split(line)[1:]) == 0
    many = {"audio": "sounds", "images": "images", "video": "videos"}[kind]
    assert (folder / f"codes_of_other_{many}" / "valid.codes.json").is_file()


def test_other_settings_are_refused_in_the_same_folder(demo, kind, media, capsys) -> None:
    folder, _ = demo
    before = (folder / "demo.json").read_text()
    assert bridle.main(["demo", f"--{kind}", str(media[0]), "--dir", str(folder), "--updates", "40"]) == 2
    assert "updates 30" in capsys.readouterr().err
    assert (folder / "demo.json").read_text() == before
    assert json.loads(before)["seconds"].keys() >= {"media", "stats", "training", "codes", "probe"}
