"""``bridle tokenize``: codes, batches, shards, resuming after a kill, unreadable clips, invalid input."""

from __future__ import annotations

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
from bridle_fairseq.data.artifacts.codes import CachedCodes, read_info
from bridle_fairseq.data.manifests.manifest import Manifest

SEGMENT = 8000


@pytest.fixture
def corpus(tmp_path, write_corpus) -> str:
    """Eight clips: shorter than a frame, of odd lengths, of several segments."""
    return write_corpus(tmp_path, [300, 5000, 8000, 9000, 30000, 16001, 7777, 12000])


def tokenize(*arguments: str) -> int:
    return bridle.main(["tokenize", "--workers", "1", "--device", "cpu", *arguments])


def result(folder) -> bytes:
    return b"".join((Path(folder) / f"valid.codes.{end}").read_bytes() for end in ("bin", "idx", "json"))


def load(checkpoint: str):
    from bridle_fairseq.models.checkpoints import load_model

    return load_model(checkpoint)[0]


def test_codes_equal_those_of_single_segments(checkpoint, corpus, tmp_path, capsys) -> None:
    assert tokenize(checkpoint, corpus, "--out", str(tmp_path / "out")) == 0
    manifest, model = Manifest.read(corpus), load(checkpoint)
    codes = CachedCodes(tmp_path / "out" / "valid.codes", manifest)
    assert (codes.info.num_codebooks, codes.info.codebook_size) == (3, 16)
    for row in range(len(manifest)):
        wave = torch.from_numpy(soundfile.read(manifest.path(row), dtype="float32")[0])
        alone = [model.tokenize(piece[None])[0][0] for piece in wave.split(SEGMENT)]
        np.testing.assert_array_equal(codes.item(row), torch.cat(alone).numpy())
        np.testing.assert_array_equal(codes.segment_codes(row, len(alone) - 1), alone[-1].numpy())
    printed = capsys.readouterr().out
    assert "8 clips" in printed and "0 clips skipped" in printed and "clips/s" in printed
    patches = sum(len(codes.item(row)) for row in range(8))
    assert f"{patches} patches" in printed


@pytest.mark.parametrize("options", [["--batch-size", "1"], ["--max-tokens", "9000"], ["--batch-size", "3"]])
def test_codes_do_not_depend_on_the_batch(checkpoint, corpus, tmp_path, options) -> None:
    tokenize(checkpoint, corpus, "--out", str(tmp_path / "one"))
    tokenize(checkpoint, corpus, "--out", str(tmp_path / "other"), *options)
    assert result(tmp_path / "one") == result(tmp_path / "other")


def test_codes_of_a_bfloat16_model_do_not_depend_on_the_batch(checkpoint, corpus, tmp_path):
    state = torch.load(checkpoint, weights_only=False)
    state["cfg"]["model"]["precision"] = "bfloat16"
    torch.save(state, tmp_path / "bf16.pt")
    tokenize(str(tmp_path / "bf16.pt"), corpus, "--out", str(tmp_path / "one"))
    tokenize(checkpoint, corpus, "--out", str(tmp_path / "other"))
    assert (tmp_path / "one/valid.codes.bin").read_bytes() == (tmp_path / "other/valid.codes.bin").read_bytes()


def test_printed_statistics(checkpoint, corpus, tmp_path, capsys) -> None:
    tokenize(checkpoint, corpus, "--out", str(tmp_path / "out"))
    manifest = Manifest.read(corpus)
    codes = CachedCodes(tmp_path / "out" / "valid.codes", manifest)
    everything = np.concatenate([codes.item(row) for row in range(len(manifest))])
    lines = capsys.readouterr().out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("level"))
    energies = []
    for level, line in enumerate(lines[start + 1 : start + 4]):
        number, used, perplexity, bits, energy = line.split()
        share = np.bincount(everything[:, level]) / len(everything)
        entropy = -sum(s * np.log2(s) for s in share if s)
        assert (int(number), used) == (level + 1, f"{(share > 0).sum()}/16")
        assert float(bits) == pytest.approx(entropy, abs=0.01)
        assert float(perplexity) == pytest.approx(2**entropy, abs=0.1)
        energies.append(float(energy))
    assert 1 > energies[0] > energies[1] > energies[2] > 0
    model, left = load(checkpoint), 0.0
    for row in range(len(manifest)):
        wave = torch.from_numpy(soundfile.read(manifest.path(row), dtype="float32")[0])
        for piece in wave.split(SEGMENT):
            patches = model.front_end(piece[None])
            left = left + model.quantizer(model.latents(patches, True)).residual_energy * patches.x.shape[1]
    assert energies == pytest.approx((left / len(everything)).tolist(), abs=1e-3)


def test_shards_in_any_order_are_byte_identical(checkpoint, corpus, tmp_path, small_blocks, capsys) -> None:
    tokenize(checkpoint, corpus, "--out", str(tmp_path / "whole"))
    for shard in ("2/3", "0/3"):
        assert tokenize(checkpoint, corpus, "--out", str(tmp_path / "out"), "--shard", shard) == 0
        assert not (tmp_path / "out/valid.codes.json").exists()
    assert "left to others" in capsys.readouterr().out
    assert tokenize(checkpoint, corpus, "--out", str(tmp_path / "out"), "--shard", "1/3") == 0
    assert result(tmp_path / "out") == result(tmp_path / "whole")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        f"valid.codes.{end}" for end in ("bin", "idx", "json")
    ]


def test_ranks_of_torchrun_are_shards(checkpoint, corpus, tmp_path, small_blocks, monkeypatch) -> None:
    tokenize(checkpoint, corpus, "--out", str(tmp_path / "whole"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        assert not (tmp_path / "out/valid.codes.json").exists()
        monkeypatch.setenv("RANK", rank)
        tokenize(checkpoint, corpus, "--out", str(tmp_path / "out"))
    assert result(tmp_path / "out") == result(tmp_path / "whole")


def test_resume_after_kill_is_byte_identical(checkpoint, tmp_path, write_corpus, small_blocks, monkeypatch):
    corpus = write_corpus(tmp_path, [12000, 8000, 100, 16000] * 6)
    tokenize(checkpoint, corpus, "--out", str(tmp_path / "whole"))
    out = tmp_path / "out"
    code = (
        "import sys; from bridle_fairseq.data.artifacts import sharding; "
        "sharding.plan_blocks.__defaults__ = (3, 1 << 27); "
        "from bridle_fairseq.inference import codes as corpus; import time; make = corpus.CodeMaker.make\n"
        "def slow(*a):\n    time.sleep(0.2)\n    return make(*a)\n"
        "corpus.CodeMaker.make = slow; from bridle_fairseq.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, "tokenize", checkpoint, corpus, "--out", str(out)])
    deadline = time.monotonic() + 120
    while len(list(out.glob("*.parts-*/0*.npz"))) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = len(list(out.glob("*.parts-*/0*.npz")))
    assert 2 <= done < 8
    made = []
    from bridle_fairseq.inference import codes as engine

    make = engine.CodeMaker.make
    monkeypatch.setattr(engine.CodeMaker, "make", lambda self, rows, bar: made.append(rows) or make(self, rows, bar))
    assert tokenize(checkpoint, corpus, "--out", str(out)) == 0
    assert made == [range(3 * n, 3 * n + 3) for n in range(done, 8)]
    assert result(out) == result(tmp_path / "whole")


def test_complete_codes_are_kept(checkpoint, corpus, tmp_path, capsys) -> None:
    tokenize(checkpoint, corpus, "--out", str(tmp_path))
    before = os.stat(tmp_path / "valid.codes.bin").st_mtime_ns
    assert tokenize(checkpoint, corpus, "--out", str(tmp_path)) == 0
    assert "complete already" in capsys.readouterr().out
    assert os.stat(tmp_path / "valid.codes.bin").st_mtime_ns == before


def test_other_codes_are_replaced_only_with_overwrite(checkpoint, save_checkpoint, corpus, tmp_path, capsys) -> None:
    save_checkpoint(tmp_path / "other.pt", seed=1)
    tokenize(checkpoint, corpus, "--out", str(tmp_path))
    before = result(tmp_path)
    assert tokenize(str(tmp_path / "other.pt"), corpus, "--out", str(tmp_path)) == 2
    assert "checkpoint_sha256" in capsys.readouterr().err
    assert result(tmp_path) == before
    assert tokenize(str(tmp_path / "other.pt"), corpus, "--out", str(tmp_path), "--overwrite") == 0
    assert result(tmp_path) != before


def test_unreadable_clips_are_empty_items_and_listed_once(checkpoint, corpus, tmp_path, small_blocks, capsys) -> None:
    folder = Path(corpus).parent
    (folder / "clip 1.wav").write_bytes(b"RIFF, but no more")
    soundfile.write(folder / "clip 4.wav", np.full(30000, np.nan), 16000, subtype="FLOAT")
    soundfile.write(folder / "clip 6.wav", np.zeros(50), 16000)  # not the manifest's length
    assert tokenize(checkpoint, corpus, "--out", str(tmp_path / "out")) == 2  # far more than 1 %
    assert "clip 1.wav" in capsys.readouterr().err
    for _ in range(3):  # no matter how often, not even when all chunks are there
        assert tokenize(checkpoint, corpus, "--out", str(tmp_path / "out")) == 2
        assert "3 of 8 clips had to be skipped" in capsys.readouterr().err
    assert not (tmp_path / "out" / "valid.codes.json").exists()
    assert tokenize(checkpoint, corpus, "--out", str(tmp_path / "out"), "--max-skipped", "0.5") == 0
    codes = CachedCodes(tmp_path / "out" / "valid.codes", Manifest.read(corpus))
    assert [len(codes.item(row)) > 0 for row in range(8)] == [True, False, True, True, False, True, False, True]
    assert "3 clips skipped" in capsys.readouterr().out
    listed = (tmp_path / "out/valid.codes.skipped.tsv").read_text().splitlines()
    assert [line.split("\t")[0] for line in listed] == ["1", "4", "6"]
    assert " is nan" in listed[1] and "50 samples, the manifest says 7777" in listed[2]


def test_resampling_and_downmix_as_in_training(checkpoint, tmp_path) -> None:
    from bridle_fairseq.data.audio.dataset import AudioDataset

    time_axis = np.arange(9000) / 22050
    wave = np.stack([np.sin(2000 * time_axis), np.sin(9000 * time_axis)], axis=1) * 0.4
    soundfile.write(tmp_path / "a.flac", wave, 22050)
    Manifest(str(tmp_path), ["a.flac"], [9000]).write(tmp_path / "valid.tsv")
    tokenize(checkpoint, str(tmp_path / "valid.tsv"), "--out", str(tmp_path))
    manifest = Manifest.read(tmp_path / "valid.tsv")
    item = AudioDataset(manifest, max_sample_size=SEGMENT)[0]["source"]
    expected = load(checkpoint).tokenize(item[None])[0][0]
    np.testing.assert_array_equal(CachedCodes(tmp_path / "valid.codes", manifest).item(0), expected.numpy())


def test_segment_length(checkpoint, corpus, tmp_path) -> None:
    tokenize(checkpoint, corpus, "--out", str(tmp_path / "out"), "--segment-seconds", "0.25")
    info = read_info(tmp_path / "out" / "valid.codes")
    assert (info.segment_length, info.grid["patches_per_segment"]) == (4000, 2 * 8)
    codes = CachedCodes(tmp_path / "out" / "valid.codes", Manifest.read(corpus))
    assert len(codes.item(2)) == 2 * 16


MISTAKES = {
    "no checkpoint": (["{tmp}/none.pt", "{tsv}"], "none.pt: no such checkpoint"),
    "a folder for a checkpoint": (["{tmp}", "{tsv}"], "no such checkpoint"),
    "junk checkpoint": (["{tmp}/junk.pt", "{tsv}"], "junk.pt: not a checkpoint that fairseq can load"),
    "no manifest": (["{ckpt}", "{tmp}/none.tsv"], "none.tsv"),
    "empty manifest": (["{ckpt}", "{tmp}/empty.tsv"], "no rows"),
    "no such shard": (["{ckpt}", "{tsv}", "--shard", "2/2"], "'2/2'; expected I/N"),
    "no such device": (["{ckpt}", "{tsv}", "--device", "abacus"], "--device abacus"),
    "no batch": (["{ckpt}", "{tsv}", "--batch-size", "0"], "--batch-size is 0"),
    "no segment": (["{ckpt}", "{tsv}", "--segment-seconds", "0"], "--segment-seconds is 0"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_sentence_and_exit_code_2(checkpoint, corpus, tmp_path, capsys, name) -> None:
    (tmp_path / "junk.pt").write_bytes(np.random.default_rng(0).bytes(1000))
    (tmp_path / "empty.tsv").write_text(f"{tmp_path}\n")
    arguments, sentence = MISTAKES[name]
    filled = [text.format(tmp=tmp_path, tsv=corpus, ckpt=checkpoint) for text in arguments]
    assert bridle.main(["tokenize", *filled, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("bridle: error: ") and sentence in error
    assert not (tmp_path / "out").exists()
