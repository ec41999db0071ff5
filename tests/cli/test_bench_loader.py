"""``bridle bench-loader``: printed figures, CPU time of workers, overrides, invalid options."""

import re

import numpy as np
import pytest
import soundfile
from PIL import Image

from bridle_fairseq.cli.main import main
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.training import loader_speed

FIGURES = re.compile(
    r"(\d+) clips in (\d+\.\d) s, (.*); (\d+) skipped\n(\d+\.\d) clips/s, (\d+\.\d) MB/s of files, (\d+\.\d+) ms "
    r"of CPU a clip\na GPU that trains on (\d+) clips/s needs (\d+\.\d) cores like these for it\n"
)


@pytest.fixture
def manifest(tmp_path):
    """Path of a manifest of 9 sounds, one of which is none."""
    for number in range(8):
        soundfile.write(tmp_path / f"{number}.wav", np.zeros(8000) + 0.1 * number, 16000)
    (tmp_path / "8.wav").write_bytes(b"no sound")
    Manifest(tmp_path, [f"{number}.wav" for number in range(9)], [8000] * 9).write(tmp_path / "train.tsv")
    return tmp_path / "train.tsv"


@pytest.mark.parametrize("workers", [0, 2])
def test_printed_figures_are_consistent(manifest, capsys, workers) -> None:
    options = ["--workers", str(workers), "--batch-size", "4", "--seconds", "0.3", "--gpu-clips-per-second", "500"]
    assert main(["bench-loader", str(manifest), *options]) == 0
    said = capsys.readouterr()
    clips, seconds, how, skipped, rate, megabytes, cpu, wanted, cores = FIGURES.search(said.out).groups()
    assert float(seconds) >= 0.3 and int(clips) > 8 and how == ("2 workers" if workers else "no workers")
    assert float(rate) == pytest.approx(int(clips) / float(seconds), rel=0.2)  # seconds are rounded
    assert float(megabytes) == pytest.approx(float(rate) * 16044 / 1e6, abs=0.06)
    assert wanted == "500" and float(cores) == pytest.approx(500 * float(cpu) / 1000, abs=0.06)
    assert float(cpu) > 0 and skipped == "1"
    assert said.err.count("skipped: ") == 1 and "8.wav" in said.err


def test_cpu_time_includes_workers(manifest, monkeypatch) -> None:
    """All of it is theirs, here: each clip keeps one busy for a while."""
    from bridle_fairseq.data.audio.dataset import AudioDataset

    def busy(self, row, random, load=AudioDataset._load):
        begun = loader_speed._cpu_seconds()
        while loader_speed._cpu_seconds() - begun < 0.02:
            pass
        return load(self, row, random)

    monkeypatch.setattr(AudioDataset, "_load", busy)
    options = loader_speed.LoaderOptions(str(manifest), workers=1, seconds=0.5, batch_size=2)
    speed = loader_speed.measure_loader(options, Manifest.read(manifest))
    assert 0.02 <= speed.cpu_seconds / speed.clips < 0.2


def test_task_overrides(tmp_path, monkeypatch, capsys) -> None:
    for number in range(3):
        Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / f"{number}.png")
    Manifest(tmp_path, [f"{number}.png" for number in range(3)], [1] * 3).write(tmp_path / "train.tsv")
    seen = []
    monkeypatch.setattr(
        loader_speed, "_epochs", lambda batches, epochs=loader_speed._epochs: kept(epochs(batches), seen)
    )
    arguments = [
        "bench-loader",
        str(tmp_path / "train.tsv"),
        "--modality",
        "image",
        "--workers",
        "0",
        "--seconds",
        "0.05",
    ]
    assert main([*arguments, "--", "task.image_size=12", "task.flip=false"]) == 0
    assert {tuple(batch["net_input"]["source"].shape) for batch in seen} == {(3, 3, 12, 12)}
    assert "no workers" in capsys.readouterr().out


def kept(batches, seen):
    for batch in batches:
        seen.append(batch)
        yield batch


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--batch-size", "0"], "--batch-size is 0; expected at least 1"),
        (["--workers", "-1"], "--workers is -1; expected at least 0"),
        (["--workers", "1000000000000"], "--workers is 1000000000000; expected at least 0 and at most 4096"),
        (["--seconds", "0"], "--seconds is 0.0; expected more than 0"),
        (["--", "model.precision=auto"], "'model.precision=auto' after --; expected settings of reading"),
        (["--", "task.sample_rate"], "'task.sample_rate' after --"),
        (["--", "task.rate=3"], "'rate' not in"),
        (["--", "task.sample_rate=x"], "'x' could not be converted"),
    ],
)
def test_mistakes_are_one_sentence(manifest, capsys, options, sentence) -> None:
    assert main(["bench-loader", str(manifest), *options]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1].startswith("bridle: error: ") and sentence in said[-1]


def test_no_readable_file(tmp_path, capsys) -> None:
    (tmp_path / "a.wav").write_bytes(b"no sound")
    Manifest(tmp_path, ["a.wav"], [8000]).write(tmp_path / "train.tsv")
    assert main(["bench-loader", str(tmp_path / "train.tsv"), "--workers", "0", "--seconds", "0.1"]) == 2
    assert "a.wav" in capsys.readouterr().err
