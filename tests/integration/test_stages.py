"""Stages of a run: their logged metrics, and runs that start a stage from a checkpoint."""

import math
import shutil

import pytest
import torch

from bridle_fairseq.nn.schedule import Schedule
from bridle_fairseq.training.log import parse_board, series

MODALITIES = pytest.mark.modalities("audio", "image", "video")
LEVELS = (1, 2)
ALWAYS = {"loss", "stage", "clips_per_second", "lr", "gnorm"} | {
    f"{n}_{k}" for n in ("used", "perplexity") for k in LEVELS
}
ENCODER = {f"{name}_{k}" for name in ("loss", "acc") for k in LEVELS}
TOKENIZER = {"cosine", "codebook_loss", "commitment_loss"} | {f"residual_energy_{k}" for k in LEVELS}


@pytest.fixture(params=["full_run", "two_rank_run"])
def run(request, modality):
    return request.getfixturevalue(request.param)


def logged_in(stages, update, joint=True):
    """Index of the stage of update number ``update`` (from 0), and its logged metrics besides :data:`ALWAYS`."""
    schedule = Schedule(stages)
    index = schedule.index_at(update)
    stage = schedule.stages[index]
    every = stage.tokenizer_every
    both = stage.kind == "joint" and (joint or (update - schedule.starts[index]) % every == every - 1)
    keys = ENCODER if stage.trains_encoder else set()
    return index, keys | (TOKENIZER if both or stage.kind == "tokenizer" else set())


@MODALITIES
def test_updates_log_the_metrics_of_their_stage(run, stages):
    records = run.logged()
    assert sorted(records) == list(range(1, 41))
    for update, record in records.items():
        stage, keys = logged_in(stages, update - 1, joint=False)
        assert record["stage"] == stage + 1
        assert ALWAYS | keys <= record.keys()
        assert not (ENCODER | TOKENIZER) - keys & record.keys()
        assert all(math.isfinite(value) for value in record.values())


@MODALITIES
def test_validations_log_the_metrics_of_their_stage(run, stages):
    records = run.logged("valid")
    assert sorted(records) == list(range(1, 41))
    for update, record in records.items():
        stage, keys = logged_in(stages, update - 1)
        assert record["stage"] == stage + 1
        assert (ALWAYS - {"lr", "gnorm"}) | keys <= record.keys()
        assert not (ENCODER | TOKENIZER) - keys & record.keys()


@MODALITIES
def test_metrics_are_consistent(full_run, stages):
    for update, record in full_run.logged().items():
        for level in LEVELS:
            if update in (1, 14, 33):  # codebooks have just been initialized
                assert record[f"used_{level}"] == 0 and record[f"perplexity_{level}"] == 1
            else:
                assert 1 <= record[f"perplexity_{level}"] <= 12 and record[f"used_{level}"] >= 1
            assert record[f"used_{level}"] + record[f"dead_{level}"] == 12
            assert 0 <= record.get(f"acc_{level}", 0) <= 1
        if "residual_energy_1" in record:
            assert 1 > record["residual_energy_1"] > record["residual_energy_2"] > 0
        stage = logged_in(stages, update - 1)[0]
        if stages[stage]["kind"] == "encoder":
            assert record["loss"] == pytest.approx((record["loss_1"] + record["loss_2"]) / 2, abs=1e-3)
    first = full_run.logged()[1]
    assert first["loss_1"] == pytest.approx(math.log(12), rel=0.2)  # 12 codes, untrained model


def test_learning_rate_follows_the_schedule(full_run, stages):
    for update, record in full_run.logged().items():
        if update < 40:  # the logged rate is that of the next update
            assert record["lr"] == pytest.approx(Schedule(stages).learning_rate(update, 5e-4), rel=1e-4)


@MODALITIES
def test_losses_decrease_within_stages(full_run, modality):
    records = full_run.logged()
    # ten updates are too few for the tokenizer stage on images and for the second encoder stage on video
    spans = {"audio": [(1, 13), (14, 23), (24, 32)], "image": [(1, 13), (24, 32)], "video": [(1, 13), (14, 23)]}
    for first, last in spans[modality]:
        assert records[last]["loss"] < records[first]["loss"]


def test_best_checkpoint_is_from_the_last_stage(full_run):
    best = full_run.folder / "checkpoints/checkpoint_best.pt"
    updates = torch.load(best, weights_only=False)["optimizer_history"][-1]["num_updates"]
    losses = {u: record["loss"] for u, record in full_run.logged("valid").items() if u > 32}
    assert losses[updates] == min(losses.values())


def test_begin_and_end_of_each_stage_are_logged(full_run):
    for number, kind in enumerate(("encoder", "tokenizer", "encoder", "joint"), 1):
        assert full_run.log.count(f"stage {number} of 4 begins: Stage(kind='{kind}'") == 1
        for level in LEVELS:
            assert full_run.log.count(f"stage {number} ends: level {level} uses ") == 1


def test_tensorboard_has_the_logged_values(full_run):
    for tag in ("train_inner", "valid"):
        (path,) = (full_run.folder / "board" / tag).glob("events*")
        board = parse_board([path])
        for name in ALWAYS - ({"lr", "gnorm"} if tag == "valid" else set()) | ENCODER | TOKENIZER:
            logged = {u: record[name] for u, record in full_run.logged(tag).items() if name in record}
            values = dict(series(board, name, "valid" if tag == "valid" else "train"))
            assert sorted(values) == sorted(logged), name
            if name != "clips_per_second":
                assert values == pytest.approx(logged, abs=1e-3, rel=1e-3), name


@MODALITIES
@pytest.mark.parametrize("update", [10, 13, 40])
def test_new_tokenizer_stage_from_a_checkpoint(fairseq, full_run, compare, tmp_path, update):
    """At a learning rate of 1e-30 parameters do not change, so the checkpoint after the stage shows its start."""
    command = [f"checkpoint.finetune_from_model={full_run.path(update)}", "checkpoint.save_interval_updates=1"]
    options = {"stages": [{"kind": "tokenizer", "updates": 3, "lr": 1e-30}]}
    run = fairseq.train(tmp_path / "a", *command, **options)
    assert "stage 1 of 1 begins: Stage(kind='tokenizer'" in run.log and sorted(run.logged()) == [1, 2, 3]
    before, after = full_run.state(update)["model"], run.state(3)["model"]
    for name, tensor in before.items():
        if name.startswith(("encoder.", "decoder.", "projection.")):
            assert torch.equal(after[name], tensor), name
        if name.startswith("encoder."):
            assert torch.equal(after[f"tokenizer.{name}"], tensor), name
    assert after["tokenizer_ready"] and after["quantizer.codebooks.num_updates"] == 3
    assert {int(moments["step"]) for moments in run.state(3)["last_optimizer_state"]["state"].values()} == {3}
    if update == 13:  # a stopped run resumes from its own checkpoint
        fairseq.train(tmp_path / "b", *command, "optimization.max_update=2", **options)
        resumed = fairseq.train(tmp_path / "b", *command, **options)
        assert compare(resumed.state(3), run.state(3)) == []


def test_new_run_from_an_export_goes_on_without_it(fairseq, full_run, compare, tmp_path):
    fairseq.run(tmp_path, "bridle", "export", full_run.path(40), tmp_path / "export")
    command = [f"checkpoint.finetune_from_model={tmp_path / 'export'}", "checkpoint.save_interval_updates=1"]
    options = {"stages": [{"kind": "tokenizer", "updates": 2, "lr": 1e-30}]}
    run = fairseq.train(tmp_path / "a", *command, **options)
    fairseq.train(tmp_path / "b", *command, "optimization.max_update=1", **options)
    shutil.rmtree(tmp_path / "export")
    resumed = fairseq.train(tmp_path / "b", *command, **options)
    before, after = full_run.state(40)["model"], run.state(2)["model"]
    assert [name for name in before if name.startswith("encoder.") and not torch.equal(after[name], before[name])] == []
    assert after["tokenizer_ready"] and compare(resumed.state(2), run.state(2)) == []


def test_new_encoder_stage_uses_the_trained_tokenizer(fairseq, full_run, tmp_path):
    run = fairseq.train(
        tmp_path,
        f"checkpoint.finetune_from_model={full_run.path(23)}",
        stages=[{"kind": "encoder", "updates": 2}],
    )
    before, after = full_run.state(23)["model"], run.state()["model"]
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"encoder", "decoder", "quantizer"}
    assert [n for n in before if n.startswith("quantizer.") and not torch.equal(before[n], after[n])] == [
        "quantizer.codebooks.usage"
    ]


SHAPES = {
    "batches of one clip": ["dataset.batch_size=1"],
    "batches by length": ["dataset.batch_size=null", "dataset.max_tokens={}"],
}
ANY_SIZE = {  # modality -> overrides, max_tokens
    "audio": (
        [
            "model.num_mel_bins=80",
            "model.decoder_kind=attention",
            "model.decoder_window=[4,3]",
            "task.max_sample_size=32000",
        ],
        60000,
    ),
    "image": (["model.decoder_window=[4,3]", "task.image_size=0", "task.flip=true"], 3),
    "video": (["task.image_size=0", "task.flip=true", "model.masking=random"], 3),
}


@MODALITIES
@pytest.mark.parametrize("shape", SHAPES)
def test_clips_of_any_size_train_in_every_stage(fairseq, make_data, tmp_path, shape, modality):
    """5 rows of patches are not divisible by windows of 4 or 3. Some clips are shorter than a frame or a patch.

    Images and videos have various sizes and are padded in both directions.
    """
    grid, tokens = ANY_SIZE[modality]
    data = make_data(tmp_path / "data", train=[300, 401, 1500, 4000, 9000, 16000, 40000, 5000], valid=[200, 30000])
    stages = [
        {"kind": kind, "updates": 4, "tokenizer_every": 2} for kind in ("encoder", "tokenizer", "encoder", "joint")
    ]
    overrides = [override.format(tokens) for override in SHAPES[shape]]
    run = fairseq.train(tmp_path, *grid, *overrides, data=data, stages=stages)
    for tag, updates in (("train_inner", range(1, 17)), ("valid", [16])):
        assert sorted(run.logged(tag)) == list(updates)
        assert all(math.isfinite(record["loss"]) for record in run.logged(tag).values())
