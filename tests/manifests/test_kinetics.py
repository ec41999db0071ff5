"""manifests/kinetics.py, on small copies of its layouts."""

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from bridle_fairseq.data.manifests.labels import Classes, Labels
from bridle_fairseq.data.manifests.manifest import Manifest

av = pytest.importorskip("av")
ROOT = Path(__file__).parents[2]


def video(path, frames):
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 9 * number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())


def run(*arguments):
    command = [sys.executable, str(ROOT / "manifests" / "kinetics.py"), *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def labelled(folder, split):
    """File name to (number of frames, class names)."""
    manifest, classes = Manifest.read(folder / f"{split}.tsv"), Classes.read(folder / "labels.csv")
    labels = Labels.read(folder / f"{split}.lbl", manifest, classes)
    return {name: (size, [classes.names[n] for n in labels[row]]) for row, (name, size) in enumerate(manifest)}


def test_class_folders_with_unreadable_files(tmp_path):
    source, dest = tmp_path / "in", tmp_path / "out"
    for number, name in enumerate(("train/dog/a.mp4", "train/cat/b.mkv", "val/dog/c.mp4"), start=3):
        video(source / name, number)
    (source / "train" / "cat" / "bad.mp4").write_bytes(b"<html>not found</html>")
    (source / "train" / "cat" / "empty.webm").touch()
    done = run(source, "--dest", dest, "--max-skipped", "0.5")
    assert done.returncode == 0 and "2 of 5 files cannot be read" in done.stderr
    assert labelled(dest, "train") == {"train/cat/b.mkv": (4, ["cat"]), "train/dog/a.mp4": (3, ["dog"])}
    assert labelled(dest, "valid") == {"val/dog/c.mp4": (5, ["dog"])}
    skipped = (dest / "skipped.tsv").read_text()
    assert "bad.mp4'\tnot readable as video: invalid data" in skipped and "empty.webm'\tempty file" in skipped


def test_official_lists(tmp_path):
    source, dest = tmp_path / "in", tmp_path / "out"
    for number, name in enumerate(("-AbCdEfGhI__000010_000020.mp4", "k400/abcdefghijk.mp4", "unlisted.mp4"), start=3):
        video(source / name, number)
    header = "label,youtube_id,time_start,time_end,split\n"
    (tmp_path / "train.csv").write_text(header + '"hands, shaking",-AbCdEfGhI_,10,20,train\n')
    (tmp_path / "val.csv").write_text(header + "juggling,abcdefghijk,0,10,validate\nlost,aaaaaaaaaaa,0,10,validate\n")
    lists = ("--train", tmp_path / "train.csv", "--valid", tmp_path / "val.csv")
    done = run(source, "--dest", dest, *lists)
    assert done.returncode == 0 and "skipped 1 file without a label" in done.stderr
    assert labelled(dest, "train") == {"-AbCdEfGhI__000010_000020.mp4": (3, ["hands, shaking"])}
    assert labelled(dest, "valid") == {"k400/abcdefghijk.mp4": (4, ["juggling"])}
    (tmp_path / "val.csv").write_text(header + "juggling,abcdefghijk,now,10,validate\n")
    done = run(source, "--dest", dest, *lists)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "val.csv, row 2" in done.stderr
