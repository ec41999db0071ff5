"""The pretraining task: defaults, impossible settings, data sets."""

from pathlib import Path

import numpy as np
import pytest
import torch
from fairseq import tasks

from bridle_fairseq.utils.errors import InputError


def test_max_update_defaults_to_the_stages_sum(configure):
    cfg = configure()
    tasks.setup_task(cfg.task)
    assert cfg.optimization.max_update == 7
    cfg = configure(optimization={"max_update": 5})
    tasks.setup_task(cfg.task)
    assert cfg.optimization.max_update == 5


def test_half_precision_keeps_parameters_unflattened(configure):
    cfg = configure(common={"fp16": True})
    tasks.setup_task(cfg.task)
    assert cfg.common.fp16_no_flatten_grads


@pytest.mark.parametrize("half", ["fp16", "bf16"])
def test_half_precision_keeps_waveforms_exact(configure, half):
    def batch(common):
        task = tasks.setup_task(configure(common=common).task)
        task.load_dataset("valid")
        data = task.dataset("valid")
        return data.collater([data[0], data[1]])["net_input"]["source"]

    def as_the_trainer_casts(source):  # fairseq.trainer.Trainer._fp_convert_sample
        return (
            source.to(torch.float16 if half == "fp16" else torch.bfloat16) if source.dtype == torch.float32 else source
        )

    expected = batch({})
    assert expected.dtype == torch.float32
    assert torch.equal(as_the_trainer_casts(batch({half: True})).float(), expected)


def test_short_clips_are_left_out_with_a_warning(configure, caplog):
    task = tasks.setup_task(configure(min_sample_size=7000, max_sample_size=8000).task)
    task.load_dataset("train")
    data = task.dataset("train")
    long = np.flatnonzero(data.manifest.sizes >= 7000)
    assert sorted(data.row(slot) for slot in data.ordered_indices()) == long.tolist() and 0 < len(long) < 12
    assert f"{12 - len(long)} of 12 clips have less than task.min_sample_size 7000 samples" in caplog.text


def test_skips_listed_by_another_rank_count(configure):
    Path("skipped.tsv").write_text("5\tof an earlier run\tburnt\n")
    early, late = (tasks.setup_task(configure().task) for _ in range(2))
    early.load_dataset("train")
    early.media["train"].skips.add(3, "burnt")
    late.load_dataset("train")
    with pytest.raises(InputError, match="1 of 12 clips"):
        late.media["train"].skips.check(0)


SETTINGS = {
    "mask everything": ({"mask_ratio": 1.0}, "model.mask_ratio is 1.0"),
    "mask nothing": ({"mask_ratio": 0.0}, "model.mask_ratio is 0.0"),
    "heads of the encoder": ({"encoder_heads": 3}, "model.encoder_heads is 3; expected a divisor"),
    "heads of the decoder": ({"decoder_heads": 3}, "model.decoder_heads is 3; expected a divisor"),
    "one code": ({"codebook_size": 1}, "model.codebook_size is 1"),
    "patches of one axis": ({"patch_size": [8]}, "model.patch_size is [8]"),
    "metric": ({"codebook_metric": "manhattan"}, "model.codebook_metric is 'manhattan'"),
    "modality": ({"modality": "smell"}, "model.modality is 'smell'"),
    "no rate": ({"sample_rate": 0}, "sample_rate is 0"),
    "no stage": ({"stages": []}, "model.stages is empty"),
    "a word for stages": ({"stages": "encoder"}, "model.stages is 'encoder'"),
    "a word for a stage": ({"stages": ["encoder"]}, "model.stages[0] is 'encoder'"),
    "unknown field": (
        {"stages": [{"kind": "encoder", "updates": 3, "speed": 1}]},
        "model.stages[0].'speed' is unknown; expected only kind, ",
    ),
    "unknown kind": (
        {"stages": [{"kind": "encoder", "updates": 3}, {"kind": "decoder", "updates": 3}]},
        "model.stages[1].kind is 'decoder'; expected one of encoder, tokenizer, joint",
    ),
    "no updates": ({"stages": [{"kind": "encoder"}]}, "model.stages[0].updates is missing"),
    "updates in words": ({"stages": [{"kind": "encoder", "updates": "many"}]}, "model.stages[0].updates is 'many'"),
    "model for use only": ({"_name": "bridle_tokenizer"}, "bridle_tokenizer is taken from a checkpoint"),
}


@pytest.mark.parametrize("mistake", SETTINGS)
def test_impossible_settings_are_errors(configure, said, mistake):
    model, words = SETTINGS[mistake]
    assert words in said(tasks.setup_task, configure(model=model).task)


MANIFESTS = {
    "no manifest": (None, "train.tsv: cannot read this manifest: No such file"),
    "empty": ("", "train.tsv: no rows"),
    "no rows": ("\n", "train.tsv: no rows"),
    "no root": ("train-0.wav\t5000\n", "line 1: 'train-0.wav\\t5000'; expected the root folder"),
    "spaces for tabs": ("\ntrain-0.wav 5000\n", "line 2: 1 column in"),
    "three columns": ("\ntrain-0.wav\t5000\tdog\n", "line 2: 3 columns in"),
    "no number": ("\ntrain-0.wav\tlong\n", "line 2: size 'long'; expected a whole number"),
    "nothing": ("\ntrain-0.wav\t0\n", "line 2: size '0'; expected a whole number"),
    "missing file": ("\ntrain-0.wav\t5000\ngone.wav\t5000\n", "line 3: no such file: "),
    "no sound": ("\ntrain.tsv\t5000\n", "none of 1 files tried can be read"),
    "too little": ("\ntrain-0.wav\t500\n", "patches, fewer than model.codebook_size 8"),
}


@pytest.mark.parametrize("mistake", MANIFESTS)
def test_impossible_manifests_are_errors(configure, data, said, mistake):
    text, words = MANIFESTS[mistake]
    task = tasks.setup_task(configure().task)
    (data / "train.tsv").unlink() if text is None else (data / "train.tsv").write_text(text)
    assert words in said(task.load_dataset, "train")


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ({"data": "nowhere"}, "nowhere"),
        ({"data": "???"}, "task.data is not set"),
        ({"codes": "nowhere"}, "nowhere/train.codes.json: cannot read"),
        ({"max_sample_size": 0}, "max_sample_size 0"),
    ],
)
def test_impossible_data_settings_are_errors(configure, said, task, words):
    def load():
        tasks.setup_task(configure(**task).task).load_dataset("train")

    assert words in said(load)


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ({"knn_data": "somewhere"}, "task.knn_data is set and task.knn_every is 0; expected the updates"),
        ({"knn_every": 4}, "task.knn_every is set and task.knn_data is not; expected a folder"),
        ({"knn_every": -4, "knn_data": "somewhere"}, "task.knn_every is -4; expected a number of updates, or 0"),
    ],
)
def test_incomplete_knn_options_are_errors(configure, said, task, words):
    cfg = configure(**task)
    made = tasks.setup_task(cfg.task)
    assert words in said(made.build_model, cfg.model)
    made.build_model(cfg.model, from_checkpoint=True)  # what such a run left can be used


def best(metric, maximize=True):
    return {"best_checkpoint_metric": metric, "maximize_best_checkpoint_metric": maximize}


@pytest.mark.parametrize(
    ("kinds", "checkpoint", "words"),
    [
        (
            ("encoder", "tokenizer"),
            best("acc_1"),
            "one of loss, used_1, used_2, perplexity_1, perplexity_2, knn_accuracy",
        ),
        (("tokenizer",), best("acc_1"), "is 'acc_1'; expected what is logged in all stages of the run, one of loss,"),
        (("encoder",), best("acc_3"), "loss_1, loss_2, acc_1, acc_2, knn_accuracy"),
        (("encoder",), best("acc_1", False), "maximize_best_checkpoint_metric is false with acc_1; expected true"),
        (("tokenizer",), best("loss"), "maximize_best_checkpoint_metric is true with loss; expected false"),
        (("encoder",), best("knn_accuracy"), "is knn_accuracy with task.knn_every 0; expected 1, so that every"),
        (("encoder",), best("ridge_accuracy"), "is ridge_accuracy with task.knn_every 0; expected 1, so that every"),
    ],
)
def test_best_checkpoint_metric_that_is_not_always_logged_is_an_error(configure, said, kinds, checkpoint, words):
    cfg = configure(model={"stages": [{"kind": kind, "updates": 3} for kind in kinds]}, checkpoint=checkpoint)
    made = tasks.setup_task(cfg.task)
    assert words in said(made.build_model, cfg.model)
    made.build_model(cfg.model, from_checkpoint=True)


@pytest.mark.parametrize(("kind", "metric"), [("encoder", "acc_2"), ("joint", "acc_1"), ("tokenizer", "cosine")])
def test_best_checkpoint_metric_that_is_always_logged(configure, kind, metric):
    cfg = configure(model={"stages": [{"kind": kind, "updates": 3}]}, checkpoint=best(metric))
    tasks.setup_task(cfg.task).build_model(cfg.model)


def test_codebook_larger_than_the_data_is_an_error(configure, capsys):
    patches = 12 * 15000 // 1280 * 4
    task = tasks.setup_task(configure(model={"codebook_size": patches}).task)
    with pytest.raises(SystemExit):
        task.load_dataset("train")
    assert f"fewer than model.codebook_size {patches}" in capsys.readouterr().err
    task.load_dataset("valid")  # only the start of the codebooks needs that many


def test_train_splits_are_cropped_and_augmented(configure, data):
    (data / "train_more.tsv").write_text((data / "train.tsv").read_text())
    task = tasks.setup_task(configure().task)
    for split, training in (("train", True), ("train_more", True), ("valid", False)):
        task.load_dataset(split)
        dataset = task.dataset(split)
        assert dataset.training == training and (dataset.media.augment is not None) == training
        first, second = (dataset[0]["source"], dataset.set_epoch(2) or dataset[0]["source"])
        assert torch.equal(first, second) != training
        assert len(first) <= 8000


def test_augmentation_can_be_switched_off(configure):
    task = tasks.setup_task(configure(roll=False, gain=False).task)
    task.load_dataset("train")
    assert task.dataset("train").media.augment is None


def test_first_batch_is_readable(configure, data):
    """fairseq makes its dummy batch of it."""
    (data / "train-5.wav").write_bytes(b"RIFF")
    task = tasks.setup_task(configure(num_buckets=1).task)
    task.load_dataset("train")
    dataset = task.dataset("train")
    slots = {dataset.row(slot): slot for slot in dataset.ordered_indices()}
    batches = dataset.batch_by_size(np.array([slots[row] for row in (5, 3, 4, 1)]), max_sentences=1)
    assert [list(batch) for batch in batches] == [[slots[row]] for row in (3, 4, 1, 5)]
    for epoch in range(1, 80):  # other rows, but never an unreadable one alone
        dataset.set_epoch(epoch)
        assert dataset.collater([dataset[slot] for slot in batches[0]])
    with pytest.raises(SystemExit):
        dataset.batch_by_size(np.array([slots[5]]), max_sentences=1)
