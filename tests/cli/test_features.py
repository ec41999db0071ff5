"""``bridle features``: files, shards, resuming after a kill, unreadable clips, invalid input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from bridle_fairseq.cli import main as bridle
from bridle_fairseq.data.artifacts import features as feature_files
from bridle_fairseq.data.artifacts import sharding
from bridle_fairseq.data.artifacts.features import CachedFeatures
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.inference.extractors import encoder_features
from bridle_fairseq.utils.errors import InputError

LENGTHS = [300, 5000, 8000, 9000, 30000, 16001, 7777, 12000]
ALL = ["--pooling", "mean", "frequency", "class_token", "patches"]


@pytest.fixture
def corpus(tmp_path, write_corpus) -> str:
    """Eight clips: shorter than a frame, of odd lengths, of several chunks."""
    return write_corpus(tmp_path, LENGTHS)


def features(*arguments: str) -> int:
    return bridle.main(["features", "--workers", "1", "--device", "cpu", *arguments])


def files(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.is_file()}


def test_arrays_match_index_and_encoder_features(checkpoint, corpus, tmp_path, capsys) -> None:
    from bridle_fairseq.models.checkpoints import load_model
    from bridle_fairseq.utils.files import file_sha256

    assert features(checkpoint, corpus, "--out", str(tmp_path / "out"), *ALL) == 0
    index = json.loads((tmp_path / "out/valid.features.json").read_text())
    assert (index["rows"], index["skipped"], index["dtype"]) == (8, [], "float32")
    assert index["checkpoint_sha256"] == file_sha256(checkpoint)
    manifest, model = Manifest.read(corpus), load_model(checkpoint)[0]
    stored = CachedFeatures(tmp_path / "out/valid.features", manifest)
    for array in index["arrays"]:
        found = np.load(tmp_path / "out" / array["file"], mmap_mode="r")
        assert found.shape[1] == array["width"] and found.dtype == np.float32
    short = [row for row, length in enumerate(LENGTHS) if length <= 8000]
    for row in short:
        clip = torch.from_numpy(soundfile.read(manifest.path(row), dtype="float32")[0])[None]
        for (pooling, layer), value in encoder_features(model, clip, poolings=ALL[1:4]).items():
            np.testing.assert_allclose(stored[f"{pooling}.layer{layer}"][row], value[0], atol=1e-5, rtol=1e-4)
        whole = model.extract_features(clip)
        patches = stored.patches("patches.layer1", row)
        assert patches.shape[:2] == whole["grid"]
        np.testing.assert_allclose(patches.reshape(-1, 32), whole["x"][0], atol=1e-5, rtol=1e-4)
    printed = capsys.readouterr().out
    assert "8 clips" in printed and "clips/s" in printed and "0 clips skipped" in printed


def test_dtype_and_layers(checkpoint, corpus, tmp_path) -> None:
    features(checkpoint, corpus, "--out", str(tmp_path / "a"), "--layers", "all")
    features(checkpoint, corpus, "--out", str(tmp_path / "b"), "--layers", "1", "--dtype", "float16")
    whole, half = (np.load(tmp_path / name / "valid.features.mean.layer1.npy") for name in "ab")
    assert half.dtype == np.float16
    np.testing.assert_allclose(half, whole, atol=1e-2)


def test_chunk_length_and_overlap(checkpoint, corpus, tmp_path) -> None:
    options = ["--chunk-seconds", "0.3", "--overlap-seconds", "0"]
    features(checkpoint, corpus, "--out", str(tmp_path / "a"), "--pooling", "patches", *options)
    info = CachedFeatures(tmp_path / "a/valid.features").info
    assert (info.grid["chunk_patches"], info.grid["overlap_patches"]) == (2, 0)
    steps = [len(CachedFeatures(tmp_path / "a/valid.features").patches("patches.layer1", row)) for row in range(8)]
    frames = [1 + max(length - 400, 0) // 160 for length in LENGTHS]
    assert steps == [-(-count // 16) for count in frames]


def test_shards_in_any_order_are_byte_identical(checkpoint, corpus, tmp_path, small_blocks, capsys) -> None:
    features(checkpoint, corpus, "--out", str(tmp_path / "whole"), *ALL)
    for shard in ("2/3", "0/3"):
        assert features(checkpoint, corpus, "--out", str(tmp_path / "out"), *ALL, "--shard", shard) == 0
        assert not (tmp_path / "out/valid.features.json").exists()
    assert "left to others" in capsys.readouterr().out
    assert features(checkpoint, corpus, "--out", str(tmp_path / "out"), *ALL, "--shard", "1/3") == 0
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    assert not [path for path in (tmp_path / "out").iterdir() if path.is_dir()]


def test_ranks_of_torchrun_are_shards(checkpoint, corpus, tmp_path, small_blocks, monkeypatch) -> None:
    features(checkpoint, corpus, "--out", str(tmp_path / "whole"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        assert not (tmp_path / "out/valid.features.json").exists()
        monkeypatch.setenv("RANK", rank)
        features(checkpoint, corpus, "--out", str(tmp_path / "out"))
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_resume_after_kill_is_byte_identical(checkpoint, tmp_path, write_corpus, small_blocks, monkeypatch):
    corpus = write_corpus(tmp_path, [12000, 8000, 100, 16000] * 6)
    features(checkpoint, corpus, "--out", str(tmp_path / "whole"), *ALL)
    out = tmp_path / "out"
    code = (
        "import sys; from bridle_fairseq.data.artifacts import sharding; "
        "sharding.plan_blocks.__defaults__ = (3, 1 << 27); "
        "from bridle_fairseq.inference import features; import time; make = features.FeatureMaker.make\n"
        "def slow(*a):\n    time.sleep(0.2)\n    return make(*a)\n"
        "features.FeatureMaker.make = slow; from bridle_fairseq.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "features", checkpoint, corpus, "--out", str(out), *ALL]
    process = subprocess.Popen([*command, "--device", "cpu"])
    deadline = time.monotonic() + 120
    while len(list(out.glob("*.parts-*/0*.npz"))) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = len(list(out.glob("*.parts-*/0*.npz")))
    assert 2 <= done < 8 and not (out / "valid.features.json").exists()
    made = []
    from bridle_fairseq.inference import features as engine

    make = engine.FeatureMaker.make
    record = lambda self, rows, bar: made.append(rows) or make(self, rows, bar)  # noqa: E731
    monkeypatch.setattr(engine.FeatureMaker, "make", record)
    assert features(checkpoint, corpus, "--out", str(out), *ALL) == 0
    assert made == [range(3 * n, 3 * n + 3) for n in range(done, 8)]
    assert files(out) == files(tmp_path / "whole")


def test_kill_while_joining_leaves_nothing_complete(checkpoint, corpus, tmp_path, monkeypatch) -> None:
    features(checkpoint, corpus, "--out", str(tmp_path / "whole"), *ALL)
    out = tmp_path / "out"
    write = feature_files.FeaturesJob._write_array
    left = [2]

    def dies(self, *arguments):
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        write(self, *arguments)

    monkeypatch.setattr(feature_files.FeaturesJob, "_write_array", dies)
    assert features(checkpoint, corpus, "--out", str(out), *ALL) == 130
    assert not (out / "valid.features.json").exists() and len(list(out.glob("*.npy"))) == 2
    monkeypatch.setattr(feature_files.FeaturesJob, "_write_array", write)
    assert features(checkpoint, corpus, "--out", str(out), *ALL) == 0
    assert files(out) == files(tmp_path / "whole")


def test_blocks_of_patch_features_are_bounded(checkpoint, corpus, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(feature_files, "BYTES_PER_BLOCK", 10_000)
    written = []
    write = sharding.ShardedJob.write
    monkeypatch.setattr(
        sharding.ShardedJob, "write", lambda self, n, result: written.append(result) or write(self, n, result)
    )
    features(checkpoint, corpus, "--out", str(tmp_path / "out"), "--pooling", "patches")
    biggest = [result.arrays["patches.layer1"].nbytes for result in written]
    assert len(biggest) > 1 and max(biggest) < 25_000  # a row is never cut


def test_complete_features_are_kept_unless_overwrite(checkpoint, save_checkpoint, corpus, tmp_path, capsys):
    save_checkpoint(tmp_path / "other.pt", seed=1)
    out = ["--out", str(tmp_path / "out")]
    features(checkpoint, corpus, *out)
    before = os.stat(tmp_path / "out/valid.features.mean.layer1.npy").st_mtime_ns
    assert features(checkpoint, corpus, *out) == 0
    assert "complete already" in capsys.readouterr().out
    assert os.stat(tmp_path / "out/valid.features.mean.layer1.npy").st_mtime_ns == before
    first = files(tmp_path / "out")
    assert features(str(tmp_path / "other.pt"), corpus, *out) == 2
    assert "checkpoint_sha256" in capsys.readouterr().err
    assert files(tmp_path / "out") == first
    assert features(str(tmp_path / "other.pt"), corpus, *out, "--overwrite") == 0
    assert files(tmp_path / "out") != first


def test_unreadable_clips_are_nan_and_listed(checkpoint, corpus, tmp_path, small_blocks, capsys) -> None:
    folder = Path(corpus).parent
    (folder / "clip 1.wav").write_bytes(b"RIFF, but no more")
    soundfile.write(folder / "clip 4.wav", np.full(30000, np.nan), 16000, subtype="FLOAT")
    soundfile.write(folder / "clip 6.wav", np.zeros(50), 16000)  # not the manifest's length
    out = str(tmp_path / "out")
    assert features(checkpoint, corpus, "--out", out, *ALL) == 2  # far more than 1 %
    assert "clip 1.wav" in capsys.readouterr().err
    assert features(checkpoint, corpus, "--out", out, *ALL, "--max-skipped", "0.5") == 0
    stored = CachedFeatures(f"{out}/valid.features", Manifest.read(corpus))
    bad = [1, 4, 6]
    assert [row for row, _ in stored.skipped] == bad
    for name in ("mean.layer1", "frequency.layer1", "class_token.layer1"):
        assert [row for row in range(8) if np.isnan(stored[name][row]).all()] == bad
        assert np.isfinite(np.delete(stored[name], bad, axis=0)).all()
    assert [row for row in range(8) if len(stored.patches("patches.layer1", row)) == 0] == bad
    assert "3 clips skipped" in capsys.readouterr().out
    listed = Path(f"{out}/valid.features.skipped.tsv").read_text().splitlines()
    assert [line.split("\t")[0] for line in listed] == ["1", "4", "6"]


def test_other_manifest_or_damaged_files_are_refused(checkpoint, corpus, tmp_path) -> None:
    features(checkpoint, corpus, "--out", str(tmp_path))
    other = Manifest(tmp_path, ["clip 0.wav"], [300])
    with pytest.raises(InputError, match="of another manifest"):
        CachedFeatures(tmp_path / "valid.features", other)
    (tmp_path / "valid.features.mean.layer1.npy").write_bytes(b"half")
    with pytest.raises(InputError, match="cannot read these features"):
        CachedFeatures(tmp_path / "valid.features")


MISTAKES = {
    "no checkpoint": (["{tmp}/none.pt", "{tsv}"], "none.pt: no such checkpoint"),
    "no manifest": (["{ckpt}", "{tmp}/none.tsv"], "none.tsv"),
    "no such layer": (["{ckpt}", "{tsv}", "--layers", "1", "7"], "--layers has '7'; expected numbers from 1 to 1"),
    "no such shard": (["{ckpt}", "{tsv}", "--shard", "2/2"], "'2/2'; expected I/N"),
    "no batch": (["{ckpt}", "{tsv}", "--batch-size", "0"], "--batch-size is 0"),
    "no chunk": (["{ckpt}", "{tsv}", "--chunk-seconds", "0"], "--chunk-seconds is 0"),
    "nothing but overlap": (["{ckpt}", "{tsv}", "--overlap-seconds", "0.5"], "less than the 0.5 s of a chunk"),
}


def test_folder_is_checked_before_the_work(checkpoint, corpus, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr("bridle_fairseq.inference.features.compute_blocks", None)  # not called
    (tmp_path / "file").touch()
    assert features(checkpoint, corpus, "--out", str(tmp_path / "file" / "out")) == 2
    assert capsys.readouterr().err.endswith("file/out: Not a directory\n")


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_sentence_and_exit_code_2(checkpoint, corpus, tmp_path, capsys, name) -> None:
    arguments, sentence = MISTAKES[name]
    filled = [text.format(tmp=tmp_path, tsv=corpus, ckpt=checkpoint) for text in arguments]
    assert features(*filled, "--out", str(tmp_path / "out")) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("bridle: error: ") and sentence in error
    assert not (tmp_path / "out").exists()
