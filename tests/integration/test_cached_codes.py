"""Training from cached codes of ``bridle tokenize`` equals training with the live tokenizer."""

import json
import shutil

import numpy as np
import pytest
import torch

# The second encoder stage: its codes are those of the checkpoint at its start, because the tokenizer is frozen.
START, END = 23, 27
NO_AUGMENTATION = {
    "audio": ["task.roll=false", "task.gain=false", "task.segment_crops=true", f"optimization.max_update={END}"],
    "image": ["task.crop=false", "task.flip=false", f"optimization.max_update={END}"],
    "video": ["task.random_start=false", "task.crop=false", "task.flip=false", f"optimization.max_update={END}"],
}
OTHER_CROPS = {"audio": "task.segment_crops=false", "image": "task.flip=true", "video": "task.random_start=true"}
MODALITIES = pytest.mark.modalities("audio", "image", "video")


@pytest.fixture(scope="module")
def codes(fairseq, full_run, tmp_path_factory):
    """Folder with the codes of both splits."""
    folder = tmp_path_factory.mktemp("codes")
    for split in ("train", "valid"):
        fairseq.run(folder, "bridle", "tokenize", full_run.path(START), fairseq.data / f"{split}.tsv", "--out", folder)
    return folder


@pytest.fixture(scope="module")
def train_on(fairseq, full_run, stages, modality):
    def train(folder, *overrides, **options):
        restore = f"checkpoint.restore_file={full_run.path(START)}"
        return fairseq.train(folder, restore, *NO_AUGMENTATION[modality], *overrides, stages=stages, **options)

    return train


@MODALITIES
def test_cached_codes_give_the_losses_and_weights_of_live_codes(train_on, codes, tmp_path, modality):
    live, cached = train_on(tmp_path / "live"), train_on(tmp_path / "cached", f"task.codes={codes}")
    for tag, updates in (("train_inner", range(START + 1, END + 1)), ("valid", [END])):
        for update in updates:
            a, b = live.logged(tag)[update], cached.logged(tag)[update]
            for name in ("loss", "loss_1", "loss_2", "acc_1", "acc_2"):
                assert b[name] == pytest.approx(a[name], abs=1e-4), (tag, update, name)
    a, b = live.state()["model"], cached.state()["model"]
    for name in a:
        if name.startswith(("encoder.", "decoder.")):
            torch.testing.assert_close(b[name], a[name], atol=1e-6, rtol=1e-5)
    with pytest.raises(AssertionError):  # with other crops, two runs are not this close
        other = train_on(tmp_path / "other", OTHER_CROPS[modality])
        losses = [[run.logged()[n]["loss"] for n in range(START + 1, END + 1)] for run in (other, live)]
        assert losses[0] == pytest.approx(losses[1], abs=1e-4)


AUDIO_MISMATCHES = {
    "other crops": (["task.max_sample_size=4000"], "segment_samples 8000; expected 4000"),
    "other levels": (["model.num_codebooks=3"], "num_codebooks 2; expected 3"),
    "other codebooks": (["model.codebook_size=16"], "codebook_size 12; expected 16"),
    "other patches": (["model.patch_size=[16,16]"], "patch_frames 8; expected 16"),
    "other mel bins": (["model.num_mel_bins=32"], "frequency_patches 4; expected 2"),
}


@pytest.mark.parametrize("mismatch", AUDIO_MISMATCHES)
def test_mismatching_audio_codes_are_rejected(fairseq, codes, tmp_path, mismatch):
    overrides, sentence = AUDIO_MISMATCHES[mismatch]
    run = fairseq.train(tmp_path, *NO_AUGMENTATION["audio"], f"task.codes={codes}", *overrides, code=2)
    assert sentence in run.log and "Traceback" not in run.log


IMAGE_MISMATCHES = {
    "augmentation": (["task.flip=true"], "no augmentation"),
    "other size": (["task.image_size=16"], "image_size 24; expected 16"),
    "any size": (["task.image_size=0"], "expected task.image_size above 0"),
    "other patches": (["model.patch_size=[8,8]"], "patch_width 6; expected 8"),
}


@pytest.mark.modalities("image")
@pytest.mark.parametrize("mismatch", IMAGE_MISMATCHES)
def test_mismatching_image_codes_are_rejected(fairseq, codes, tmp_path, mismatch):
    overrides, sentence = IMAGE_MISMATCHES[mismatch]
    run = fairseq.train(tmp_path, *NO_AUGMENTATION["image"], f"task.codes={codes}", *overrides, code=2)
    assert sentence in run.log and "Traceback" not in run.log


VIDEO_MISMATCHES = {
    "random clips": (["task.random_start=true"], "expected task.random_start=false"),
    "augmentation": (["task.flip=true"], "no augmentation"),
    "other stride": (["task.frame_stride=1"], "frame_stride 2; expected 1"),
    "longer clips": (["task.num_frames=6"], "num_frames 4; expected 6"),
    "other patches": (["model.patch_size=[1,8,4]"], "patch_frames 2; expected 1"),
}


@pytest.mark.modalities("video")
@pytest.mark.parametrize("mismatch", VIDEO_MISMATCHES)
def test_mismatching_video_codes_are_rejected(fairseq, codes, tmp_path, mismatch):
    overrides, sentence = VIDEO_MISMATCHES[mismatch]
    run = fairseq.train(tmp_path, *NO_AUGMENTATION["video"], f"task.codes={codes}", *overrides, code=2)
    assert sentence in run.log and "Traceback" not in run.log


@pytest.mark.parametrize(("split", "workers"), [("train", 1), ("valid", 0)])
def test_damaged_codes_end_with_one_sentence(train_on, codes, tmp_path, split, workers):
    damaged = shutil.copytree(codes, tmp_path / "codes")
    values = np.memmap(damaged / f"{split}.codes.bin", np.uint16, "r+")
    values[:] = 12
    values.flush()
    run = train_on(tmp_path / "run", f"task.codes={damaged}", f"dataset.num_workers={workers}", code=2)
    error = f"bridle_fairseq: error: {damaged}/{split}.codes.bin, item "
    (line,) = [line for line in run.log.splitlines() if line.startswith(error)]
    assert line.endswith("codes up to 12; expected codes below 12, 2 a patch") and "Traceback" not in run.log


def test_codes_of_another_manifest_are_rejected(fairseq, codes, make_data, tmp_path):
    other = make_data(tmp_path / "data", train=[5000] * 9, valid=[5000])
    run = fairseq.train(tmp_path, *NO_AUGMENTATION["audio"], f"task.codes={codes}", data=other, code=2)
    assert "codes of another manifest" in run.log and "Traceback" not in run.log


def test_sounds_are_augmented_with_cached_codes(train_on, codes, tmp_path):
    plain = train_on(tmp_path / "plain", f"task.codes={codes}")
    augmented = train_on(tmp_path / "augmented", f"task.codes={codes}", "task.roll=true", "task.gain=true")
    assert augmented.logged()[END]["loss"] != plain.logged()[END]["loss"]


def test_codes_are_described(codes, full_run):
    info = json.loads((codes / "train.codes.json").read_text())
    assert (info["num_codebooks"], info["codebook_size"], info["grid"]["segment_samples"]) == (2, 12, 8000)
