"""User errors end with one sentence and exit code 2. Bad clips are skipped."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

ERROR = "bridle_fairseq: error: "
RUN_ERROR = "fairseq: error: "  # from fairseq_compat


def error_of(run, prefix=ERROR):
    """The error message in the last line of the log, which must be the only one."""
    lines = [line for line in run.log.splitlines() if line.startswith(prefix)]
    assert len(lines) == 1 and "Traceback" not in run.log, run.log[-3000:]
    assert run.log.rstrip().splitlines()[-1] == lines[0]
    return lines[0].removeprefix(prefix)


# All errors are covered by the tests of the task. These cover the path from the command to its exit code.
MANIFESTS = {
    "no manifest": (None, "train.tsv: cannot read this manifest: No such file"),
    "empty": ("", "train.tsv: no rows"),
    "spaces instead of tabs": ("{root}\nclips/train_0.wav 5000\n", "line 2: 1 column in"),
    "missing file": ("{root}\nclips/train 0.wav\t5000\nclips/gone.wav\t5000\n", "line 3: no such file: "),
    "too few clips": ("{root}\nclips/train 0.wav\t5000\n", "fewer than model.codebook_size 256"),
}


@pytest.mark.parametrize("mistake", MANIFESTS)
def test_bad_manifest_ends_with_one_sentence(fairseq, make_data, tmp_path, mistake):
    text, expected = MANIFESTS[mistake]
    data = make_data(tmp_path / "data", train=[5000], valid=[5000])
    if text is None:
        (data / "train.tsv").unlink()
    else:
        (data / "train.tsv").write_text(text.format(root=data))
    run = fairseq.train(tmp_path, "model.codebook_size=256", data=data, code=2)
    assert expected in error_of(run)
    assert not list((tmp_path / "checkpoints").glob("*.pt*"))


SETTINGS = {
    "model.mask_ratio=1": "model.mask_ratio is 1",
    "model.encoder_heads=5": "model.encoder_heads is 5; expected a divisor of model.encoder_width 32",
    "model.stages=[]": "model.stages is empty",
    "dataset.max_tokens=999": "dataset.max_tokens is 999; expected at least ",
    "dataset.max_tokens_valid=999": "dataset.max_tokens_valid is 999; expected at least ",
    "model.stages=[{kind:encoder,updates:3,speed:1}]": "model.stages[0].'speed' is unknown",
}


@pytest.mark.parametrize("override", SETTINGS)
def test_bad_setting_ends_with_one_sentence(fairseq, tmp_path, override):
    assert SETTINGS[override] in error_of(fairseq.train(tmp_path, override, code=2))


def test_console_script_ends_with_one_sentence(fairseq, tmp_path):
    """As typed in a shell: a new process that runs the console script."""
    name, *arguments = fairseq.command(data=tmp_path / "none")
    done = subprocess.run(
        [Path(sys.executable).parent / name, *map(str, arguments)],
        cwd=tmp_path,
        env=dict(os.environ, CUDA_VISIBLE_DEVICES=""),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith(f"{ERROR}task.data is {tmp_path}/none")
    assert "Traceback" not in done.stderr + done.stdout


@pytest.fixture
def corrupted(make_data, tmp_path, modality):
    """20 clips, some of them bad in different ways, and {row: part of the reason} of the bad ones."""
    data = make_data(tmp_path / "data", train=[6000] * 20, valid=[6000, 5000])
    return data, {"audio": corrupt_sounds, "image": corrupt_images, "video": corrupt_videos}[modality](data)


def corrupt_images(data):
    image = str(data / "clips/train {}.png").format
    content = Path(image(0)).read_bytes()
    Path(image(2)).write_bytes(content[: len(content) // 2])
    Path(image(5)).write_bytes(np.random.default_rng(0).bytes(5000))
    Image.new("RGB", (1, 1)).save(image(7))
    Image.new("1", (20000, 20000)).save(image(11))
    manifest = (data / "train.tsv").read_text()
    (data / "train.tsv").write_text(manifest.replace("train 13.png\t1", "train 13.png\t5999"))
    Path(image(17)).write_bytes(b"")
    return {2: "corrupt", 5: "not readable", 7: "1 x 1 pixels", 11: "far more pixels", 13: "5999", 17: "empty file"}


def corrupt_videos(data):
    video = str(data / "clips/train {}.mp4").format
    content = Path(video(0)).read_bytes()
    Path(video(2)).write_bytes(content[: len(content) // 3])
    Path(video(5)).write_bytes(np.random.default_rng(0).bytes(5000))
    soundfile.write(data / "sound.ogg", np.zeros(8000), 16000)
    Path(video(7)).write_bytes((data / "sound.ogg").read_bytes())
    Path(video(17)).write_bytes(b"")
    return {2: "not readable", 5: "not readable", 7: "no video stream", 17: "empty file"}


def corrupt_sounds(data):
    clip = str(data / "clips/train {}.wav").format
    content = Path(clip(0)).read_bytes()
    Path(clip(2)).write_bytes(content[: len(content) // 3])
    Path(clip(5)).write_bytes(np.random.default_rng(0).bytes(5000))
    soundfile.write(clip(7), np.zeros(0), 16000)
    soundfile.write(clip(11), np.full(6000, np.nan), 16000, subtype="FLOAT")
    soundfile.write(clip(13), np.zeros(5999), 16000)
    Path(clip(17)).write_bytes(b"")
    return {2: "", 5: "not readable", 7: "0 samples", 11: " is nan", 13: "5999 samples", 17: "empty file"}


@pytest.mark.modalities("audio", "image", "video")
@pytest.mark.parametrize(("workers", "batch_size"), [(0, 1), (1, 3)])
def test_bad_clips_are_skipped_and_listed_once(fairseq, corrupted, tmp_path, workers, batch_size):
    data, bad = corrupted
    stages = [{"kind": "encoder", "updates": 20}, {"kind": "tokenizer", "updates": 22}]
    overrides = ["task.max_skipped=0.4", f"dataset.num_workers={workers}", f"dataset.batch_size={batch_size}"]
    run = fairseq.train(tmp_path, *overrides, data=data, stages=stages)
    assert sorted(run.logged()) == list(range(1, 43))
    lines = [line.split("\t") for line in (tmp_path / "skipped.tsv").read_text().splitlines()]
    assert sorted(int(row) for row, _, _ in lines) == sorted(bad)
    for row, path, reason in lines:
        assert path.rpartition(".")[0] == f"{data}/clips/train {row}" and bad[int(row)] in reason


@pytest.mark.parametrize("ranks", [1, 2])
def test_too_many_bad_clips_abort_the_run(fairseq, corrupted, tmp_path, ranks):
    data, bad = corrupted
    job = fairseq.start(tmp_path, "task.max_skipped=0.1", "dataset.num_workers=1", data=data, ranks=ranks)
    codes = job.wait()
    assert 2 in codes and 0 not in codes
    if ranks == 1:
        error = error_of(fairseq.run_in(tmp_path))
        assert "of 20 clips had to be skipped, more than the 5 allowed (a share of 0.1; " in error
        assert str(tmp_path / "skipped.tsv") in error
    listed = [int(line.split("\t")[0]) for line in (tmp_path / "skipped.tsv").read_text().splitlines()]
    assert 6 <= len(listed) == len(set(listed)) and set(listed) <= set(bad)


def test_unreadable_first_batch_is_harmless(fairseq, make_data, tmp_path):
    """fairseq makes its dummy batch from the first batch, and uses it in place of empty batches."""
    data = make_data(tmp_path / "data", train=[6000] * 5 + [7000], valid=[6000])
    (data / "clips/train 5.wav").write_bytes(b"RIFF")  # the longest clip, which comes first
    stages = [{"kind": "encoder", "updates": 12}]
    run = fairseq.train(tmp_path, "task.max_skipped=0.2", "dataset.batch_size=1", data=data, stages=stages)
    assert sorted(run.logged()) == list(range(1, 13))


def test_no_readable_clip_aborts_the_run(fairseq, make_data, tmp_path):
    data = make_data(tmp_path / "data", train=[6000] * 4, valid=[6000])
    for number in range(4):
        soundfile.write(data / f"clips/train {number}.wav", np.full(6000, np.nan), 16000, subtype="FLOAT")
    run = fairseq.train(tmp_path, data=data, code=2)
    assert " is nan" in error_of(run)


def test_loss_that_is_not_finite_names_its_clips(fairseq, make_data, tmp_path):
    data = make_data(tmp_path / "data", train=[9000] * 4, valid=[5000])
    stages = [{"kind": "encoder", "updates": 6, "lr": 1e30}]
    run = fairseq.train(tmp_path, "dataset.batch_size=2", data=data, stages=stages, code=2)
    error = run.log.rstrip().splitlines()[-1]
    assert error.startswith(ERROR) and "Traceback" not in run.log
    assert "train.tsv in the update: " in error and error.count(".wav") == 2


def wait_for(job, path):
    """Wait until observe.py holds a run."""
    while not path.exists():
        assert job.running(), job.log()[-3000:]


def test_second_run_in_a_folder_ends_with_one_sentence(fairseq, tmp_path):
    job = fairseq.start(tmp_path, hold=2)
    wait_for(job, tmp_path / "held.0")
    (tmp_path / "checkpoints/checkpoint_last.pt.tmp").touch()  # as if it was saving
    save_dir = f"checkpoint.save_dir={tmp_path / 'checkpoints'}"
    error = error_of(fairseq.train(tmp_path / "second", save_dir, code=2), RUN_ERROR)
    assert f"in which process {job.pids[0]} on " in error
    assert (tmp_path / "checkpoints/checkpoint_last.pt.tmp").exists()
    job.kill()
    fairseq.train(tmp_path / "second", save_dir, "optimization.max_update=1")
    assert not (tmp_path / "checkpoints/checkpoint_last.pt.tmp").exists()


def test_save_dir_that_is_a_file_ends_with_one_sentence(fairseq, tmp_path):
    (tmp_path / "checkpoints").touch()
    error = error_of(fairseq.train(tmp_path, code=2), RUN_ERROR)
    assert error.startswith(f"checkpoint.save_dir is {tmp_path}/checkpoints: Not a directory")


@pytest.mark.parametrize(("number", "line"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "stopped by SIGTERM")])
def test_signal_ends_a_run_and_its_workers_with_one_line(fairseq, tmp_path, number, line):
    job = fairseq.start(tmp_path, "dataset.num_workers=1", hold=2)
    wait_for(job, tmp_path / "held.0")
    threads = Path(f"/proc/{job.pids[0]}/task").iterdir()
    workers = [pid for thread in threads for pid in (thread / "children").read_text().split()]
    os.kill(job.pids[0], number)
    assert job.wait() == [128 + number]
    assert job.log().splitlines()[-1] == f"fairseq: {line}" and "Traceback" not in job.log()
    assert workers and not any(Path(f"/proc/{worker}").exists() for worker in workers)


def test_lost_rank_is_named(fairseq, tmp_path):
    job = fairseq.start(tmp_path, stages=[{"kind": "encoder", "updates": 100000}], ranks=2)
    while '"num_updates": "3"' not in job.log():
        assert job.running(), job.log()[-3000:]
    os.kill(job.pids[1], signal.SIGKILL)
    assert job.wait() == [1, -9]
    error = error_of(fairseq.run_in(tmp_path), RUN_ERROR)
    assert error.startswith("rank 0 of 2 lost its connection to rank 1 (")


def test_clips_that_disappear_end_the_run(fairseq, make_data, tmp_path):
    data = make_data(tmp_path / "data", train=[6000] * 26, valid=[6000] * 3)
    stages = [{"kind": "encoder", "updates": 100000}]
    job = fairseq.start(tmp_path, "task.max_skipped=1.0", data=data, stages=stages)
    while '"num_updates": "3"' not in job.log():
        assert job.running(), job.log()[-3000:]
    shutil.rmtree(data / "clips")
    assert job.wait() == [2]
    assert "files in a row have disappeared, such as" in error_of(fairseq.run_in(tmp_path))
