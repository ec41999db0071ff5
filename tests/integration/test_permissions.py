"""Permissions of everything that is written: those that open() and mkdir() give, which follow the umask."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from bridle_fairseq.cli.main import main


def class_folders(clips: Path, folder: Path) -> None:
    """Twelve clips, in a folder for each of two classes."""
    for number, path in enumerate(sorted(clips.glob("train*"))[:12]):
        (folder / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / "ab"[number % 2] / f"{number}.wav")


def commands(sounds: Path, checkpoint: Path, out: Path) -> list[list[str]]:
    """Command lines that write files, in this order."""
    tsv, to = str(out / "train.tsv"), ["--out", str(out)]
    layers = ["--layers", "1", "--pooling", "mean", "patches"]
    probe = ["--valid", "train", "--test", "train", "--no-baselines", "--probes", "knn", "--resamples", "0"]
    return [
        ["manifest", str(sounds), "--dest", str(out), "--class-folders"],
        ["tokenize", str(checkpoint), tsv, *to],
        ["units", str(out / "train.codes"), *to],
        ["features", str(checkpoint), tsv, *to, *layers],
        ["embed", tsv, "--model", str(checkpoint), "--out", str(out / "x.npy")],
        ["embed", tsv, "--model", str(checkpoint), "--out", str(out / "x.parquet")],
        ["probe", str(checkpoint), str(out), *to, *probe],
        ["export", str(checkpoint), str(out / "model")],
        ["export", str(checkpoint), str(out / "model")],  # replaces the former
    ]


@pytest.mark.parametrize("umask", [0o022, 0o027])
def test_all_that_is_written_follows_the_umask(fairseq, data, tmp_path, umask) -> None:
    (tmp_path / "umask.py").write_text(f"import os\nos.umask({umask})\n")
    settings = ["optimization.max_update=2", "model.stages=[{kind:tokenizer,updates:2}]"]
    run, sounds, out = (tmp_path / name for name in ("run", "sounds", "out"))
    job = fairseq.forker.start(fairseq.command(*settings), run, before=tmp_path / "umask.py")
    assert job.wait() == [0], job.log()[-3000:]
    class_folders(data / "clips", sounds)
    before = os.umask(umask)
    try:
        for argv in commands(sounds, run / "checkpoints" / "checkpoint_last.pt", out):
            assert main(argv) == 0, argv
        assert main(["report", str(run)]) == 0
    finally:
        os.umask(before)
    written = [path for folder in (run, out) for path in folder.rglob("*") if path != job.log_path]
    names = {path.name for path in written}
    assert {"checkpoint_last.pt", "train.codes.bin", "train.km", "probe.json", "model.safetensors"} <= names
    wrong = {
        str(path.relative_to(tmp_path)): oct(path.stat().st_mode & 0o777)
        for path in written
        if path.stat().st_mode & 0o777 != (0o777 if path.is_dir() else 0o666) & ~umask
    }
    assert wrong == {}
