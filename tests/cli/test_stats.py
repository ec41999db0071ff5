"""``bridle stats``: statistics of sound, images and video, unreadable clips, invalid options."""

import re

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from bridle_fairseq.cli.main import main
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.nn.fbank import LogMel


@pytest.fixture
def manifest(tmp_path):
    """Path of a manifest of 5 clips of 0.03 to 1 s, from quiet to loud."""
    random = np.random.default_rng(0)
    sizes = [480, 5000, 16000, 9000, 12345]
    for number, size in enumerate(sizes):
        soundfile.write(tmp_path / f"{number}.wav", 0.1**number * random.standard_normal(size), 16000, subtype="FLOAT")
    Manifest(tmp_path, [f"{number}.wav" for number in range(5)], sizes).write(tmp_path / "train.tsv")
    return tmp_path / "train.tsv"


def numbers(text):
    found = re.fullmatch(r"model\.fbank_mean=(-?\d+\.\d{4}) model\.fbank_std=(\d+\.\d{4})\n", text)
    return [float(number) for number in found.groups()]


def test_statistics_of_all_valid_frames(manifest, capsys):
    assert main(["stats", str(manifest), "--workers", "0", "--batch-size", "2"]) == 0
    frames = []
    for number in range(5):
        samples, _ = soundfile.read(manifest.parent / f"{number}.wav", dtype="float32")
        frames.append(LogMel()(torch.from_numpy(samples)[None])[0][0].double())
    expected = torch.cat(frames)
    said = capsys.readouterr()
    assert numbers(said.out) == pytest.approx([float(expected.mean()), float(expected.std(correction=0))], abs=1e-4)
    assert f"5 clips, {len(expected)} frames; 0 skipped" in said.err


def test_workers_batches_and_seed(manifest, capsys):
    printed = []
    for arguments in (["--workers", "0"], ["--workers", "2", "--batch-size", "3"]):
        assert main(["stats", str(manifest), *arguments]) == 0
        printed.append(numbers(capsys.readouterr().out))
    assert printed[0] == pytest.approx(printed[1], abs=1e-4)
    chosen = set()
    for seed in ("1", "1", "2", "3", "4"):
        assert main(["stats", str(manifest), "--workers", "0", "--max-clips", "2", "--seed", seed]) == 0
        said = capsys.readouterr()
        assert "2 clips, " in said.err
        chosen.add(said.out)
    assert 1 < len(chosen) < 5


def test_sample_rate_and_mel_bins(manifest, capsys):
    arguments = ["--sample-rate", "8000", "--num-mel-bins", "40", "--max-seconds", "0.1"]
    assert main(["stats", str(manifest), "--workers", "0", *arguments]) == 0
    assert " 33 frames" in capsys.readouterr().err  # 1 frame of 0.03 s, 4 times 8 of 0.1 s


@pytest.mark.parametrize("value", [np.nan, 1e25])
def test_unreadable_clips_are_reported(manifest, capsys, value):
    soundfile.write(manifest.parent / "1.wav", np.full(5000, value), 16000, subtype="FLOAT")
    assert main(["stats", str(manifest), "--workers", "0", "--max-skipped", "0.3"]) == 0
    said = capsys.readouterr()
    assert (
        f"1.wav: sample 0 is {value:g}; expected" in said.err
        and "4 clips" in said.err
        and np.isfinite(numbers(said.out)).all()
    )
    soundfile.write(manifest.parent / "2.wav", np.full(5000, value), 16000, subtype="FLOAT")
    assert main(["stats", str(manifest), "--workers", "2"]) == 2
    said = capsys.readouterr()
    assert (
        f"1.wav: sample 0 is {value:g}; expected" in said.err
        and "2 of 5 clips cannot be read" in said.err
        and said.out == ""
    )


def test_a_mean_that_is_not_finite_is_an_error(manifest, capsys, monkeypatch):
    soundfile.write(manifest.parent / "1.wav", np.tile([1e25, -1e25], 2500), 16000, subtype="FLOAT")
    monkeypatch.setattr("bridle_fairseq.data.audio.samples.MAX_SAMPLE", 1e38)
    assert main(["stats", str(manifest), "--workers", "0"]) == 2
    said = capsys.readouterr()
    assert "the mean of the values is not finite" in said.err and said.out == ""


@pytest.mark.parametrize(
    "option", ["--max-clips 0", "--max-seconds 0.0", "--batch-size 0", "--workers -1", "--num-frames 0"]
)
def test_numbers_out_of_range_are_refused(manifest, capsys, option):
    assert main(["stats", str(manifest), *option.split()]) == 2
    assert f"bridle: error: {option.replace(' ', ' is ')}; expected" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--max-seconds nan", "--max-seconds is nan; expected more than 0 and at most 1e+09"),
        ("--sample-rate 1000000000000", "--sample-rate is 1000000000000; expected at least 100"),
        (
            "--sample-rate 1000000 --num-mel-bins 4096",
            "--sample-rate 1000000 and --num-mel-bins 4096; expected a product",
        ),
        ("--workers 1000000000000", "--workers is 1000000000000; expected at least 0 and at most 4096"),
        ("--seed -1", "--seed is -1; expected at least 0"),
    ],
)
def test_numbers_have_bounds(manifest, capsys, options, sentence):
    assert main(["stats", str(manifest), *options.split()]) == 2
    assert sentence in capsys.readouterr().err


def test_missing_manifest_is_one_line(tmp_path, capsys):
    assert main(["stats", str(tmp_path / "none.tsv")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_statistics_of_images_per_channel(tmp_path, capsys):
    random = np.random.default_rng(0)
    for number in range(4):
        pixels = random.integers(0, 256, (10, 10, 3)) * np.array([1.0, 0.5, 0.0]) + np.array([0, 20 * number, 51])
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{number}.png")
    Manifest(tmp_path, [f"{number}.png" for number in range(4)], [1] * 4).write(tmp_path / "train.tsv")
    arguments = ["--modality", "image", "--image-size", "10", "--workers", "0", "--batch-size", "3"]
    assert main(["stats", str(tmp_path / "train.tsv"), *arguments]) == 0
    said = capsys.readouterr()
    found = re.fullmatch(r"model\.pixel_mean=\[([\d.,]+)\] model\.pixel_std=\[([\d.,]+)\]\n", said.out)
    pixels = np.stack([np.asarray(Image.open(tmp_path / f"{number}.png")) for number in range(4)]).reshape(-1, 3) / 255
    assert [float(value) for value in found[1].split(",")] == pytest.approx(pixels.mean(0), abs=1e-4)
    assert [float(value) for value in found[2].split(",")] == pytest.approx(pixels.std(0), abs=1e-4)
    assert "4 images, 400 pixels; 0 skipped" in said.err


def test_statistics_of_video_over_all_frames(tmp_path, capsys):
    av = pytest.importorskip("av")
    for number in range(2):
        with av.open(str(tmp_path / f"{number}.mp4"), "w") as file:
            stream = file.add_stream("libx264rgb", rate=25, options={"crf": "0"})
            stream.width, stream.height, stream.pix_fmt = 16, 16, "rgb24"
            for frame in range(3):
                pixels = np.full((16, 16, 3), (40 * frame, 100 * number, 51), np.uint8)
                file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            file.mux(stream.encode())
    Manifest(tmp_path, ["0.mp4", "1.mp4"], [3, 3]).write(tmp_path / "train.tsv")
    arguments = ["--modality", "video", "--image-size", "16", "--num-frames", "3", "--frame-stride", "1"]
    assert main(["stats", str(tmp_path / "train.tsv"), *arguments, "--workers", "0"]) == 0
    said = capsys.readouterr()
    values = [[float(value) for value in text.split(",")] for text in re.findall(r"\[([\d.,]+)\]", said.out)]
    assert values[0] == pytest.approx([40 / 255, 50 / 255, 51 / 255], abs=2e-4)
    assert values[1] == pytest.approx([np.std([0, 40, 80]) / 255, 50 / 255, 0], abs=2e-4)
    assert "2 clips, 1536 pixels; 0 skipped" in said.err


def test_what_is_no_image_is_named_once_and_counted(tmp_path, capsys):
    names = [f"{number}.png" for number in range(30)]
    for name in names[1:]:
        (tmp_path / name).write_bytes(b"no image")
    Manifest(tmp_path, names[1:], [1] * 29).write(tmp_path / "train.tsv")
    command = ["stats", str(tmp_path / "train.tsv"), "--workers", "0", "--image-size", "8", "--modality", "image"]
    assert main(command) == 2
    assert "none of 29 clips can be read, such as " in capsys.readouterr().err
    Image.new("RGB", (8, 8)).save(tmp_path / names[0])
    Manifest(tmp_path, names, [1] * 30).write(tmp_path / "train.tsv")
    assert main(command) == 2
    said = capsys.readouterr().err
    assert said.count(": not readable as an image\n") == 20 and "left out: 9 more\n" in said
