"""Stages of a run: what is logged about them, and stages of a run of their own."""

import math
import struct

import pytest
import torch

from bridle_fairseq.nn.schedule import Schedule

MODALITIES = pytest.mark.modalities("audio", "image", "video")
LEVELS = (1, 2)
ALWAYS = {"loss", "stage", "clips_per_second", "lr", "gnorm"} | {
    f"{n}_{k}" for n in ("used", "perplexity") for k in LEVELS
}
ENCODER = {f"{name}_{k}" for name in ("loss", "acc") for k in LEVELS}
TOKENIZER = {"cosine", "codebook_loss", "commitment_loss"} | {f"residual_energy_{k}" for k in LEVELS}


@pytest.fixture(params=["whole", "pair"])
def run(request, modality):
    return request.getfixturevalue(request.param)


def logged_in(stages, update, joint=True):
    """What update number ``update`` (from 0) logs besides :data:`ALWAYS`, and its stage."""
    schedule = Schedule(stages)
    index = schedule.index_at(update)
    stage = schedule.stages[index]
    every = stage.tokenizer_every
    both = stage.kind == "joint" and (joint or (update - schedule.starts[index]) % every == every - 1)
    keys = ENCODER if stage.trains_encoder else set()
    return index, keys | (TOKENIZER if both or stage.kind == "tokenizer" else set())


@MODALITIES
def test_every_update_logs_its_stage(run, stages):
    records = run.logged()
    assert sorted(records) == list(range(1, 41))
    for update, record in records.items():
        stage, keys = logged_in(stages, update - 1, joint=False)
        assert record["stage"] == stage
        assert ALWAYS | keys <= record.keys()
        assert not (ENCODER | TOKENIZER) - keys & record.keys()
        assert all(math.isfinite(value) for value in record.values())


@MODALITIES
def test_every_stage_is_validated(run, stages):
    records = run.logged("valid")
    assert sorted(records) == list(range(1, 41))
    for update, record in records.items():
        stage, keys = logged_in(stages, update - 1)
        assert record["stage"] == stage
        assert (ALWAYS - {"lr", "gnorm"}) | keys <= record.keys()
        assert not (ENCODER | TOKENIZER) - keys & record.keys()


@MODALITIES
def test_values_are_what_they_are_called(whole, stages):
    for update, record in whole.logged().items():
        for level in LEVELS:
            if update in (1, 14, 33):  # codebooks that have just been started
                assert record[f"used_{level}"] == 0 and record[f"perplexity_{level}"] == 1
            else:
                assert 1 <= record[f"perplexity_{level}"] <= record[f"used_{level}"] <= 12
            assert 0 <= record.get(f"acc_{level}", 0) <= 1
        if "residual_energy_1" in record:
            assert 1 > record["residual_energy_1"] > record["residual_energy_2"] > 0
        stage = logged_in(stages, update - 1)[0]
        if stages[stage]["kind"] == "encoder":
            assert record["loss"] == pytest.approx((record["loss_1"] + record["loss_2"]) / 2, abs=1e-3)
    first = whole.logged()[1]
    assert first["loss_1"] == pytest.approx(math.log(12), rel=0.2)  # of 12 codes, before anything is learned


def test_learning_rate_warms_up_and_falls_in_each_stage(whole, stages):
    for update, record in whole.logged().items():
        if update < 40:  # logged is the rate of the next update
            assert record["lr"] == pytest.approx(Schedule(stages).learning_rate(update, 5e-4), rel=1e-4)


@MODALITIES
def test_losses_fall_within_stages(whole, modality):
    records = whole.logged()
    # ten updates are too few for the tokenizer of images, and for the second encoder stage of video
    calm = {"audio": [(1, 13), (14, 23), (24, 32)], "image": [(1, 13), (24, 32)], "video": [(1, 13), (14, 23)]}
    for first, last in calm[modality]:
        assert records[last]["loss"] < records[first]["loss"]


def test_the_best_checkpoint_is_the_best_of_the_last_stage(whole):
    best = whole.folder / "checkpoints/checkpoint_best.pt"
    updates = torch.load(best, weights_only=False)["optimizer_history"][-1]["num_updates"]
    losses = {u: record["loss"] for u, record in whole.logged("valid").items() if u > 32}
    assert losses[updates] == min(losses.values())


def test_each_stage_says_when_it_begins_and_how_its_codebooks_ended(whole):
    for number, kind in enumerate(("encoder", "tokenizer", "encoder", "joint"), 1):
        assert whole.log.count(f"stage {number} of 4 begins: Stage(kind='{kind}'") == 1
        for level in LEVELS:
            assert whole.log.count(f"stage {number} ends: level {level} uses ") == 1


def test_tensorboard_has_what_is_logged(whole):
    for tag in ("train_inner", "valid"):
        (path,) = (whole.folder / "board" / tag).glob("events*")
        found = scalars(path)
        for name in ALWAYS - ({"lr", "gnorm"} if tag == "valid" else set()) | ENCODER | TOKENIZER:
            logged = {u: record[name] for u, record in whole.logged(tag).items() if name in record}
            assert sorted(found[name]) == sorted(logged), name
            if name != "clips_per_second":
                assert found[name] == pytest.approx(logged, abs=1e-3, rel=1e-3), name


def scalars(path):
    """{name: {step: value}} of a tensorboard file: records of length, checksum, event, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    found, data = {}, path.read_bytes()
    while data:
        (length,) = struct.unpack_from("<Q", data)
        event = Event.FromString(data[12 : 12 + length])
        for value in event.summary.value:
            found.setdefault(value.tag, {})[event.step] = value.simple_value
        data = data[16 + length :]
    return found


@MODALITIES
@pytest.mark.parametrize("update", [10, 13, 40])
def test_a_stage_of_its_own_from_a_checkpoint(fairseq, whole, compare, tmp_path, update):
    """Nothing moves at a rate of 1e-30, so what it started from is still there after its updates."""
    command = [f"checkpoint.finetune_from_model={whole.path(update)}", "checkpoint.save_interval_updates=1"]
    options = {"stages": [{"kind": "tokenizer", "updates": 3, "lr": 1e-30}]}
    run = fairseq.train(tmp_path / "a", *command, **options)
    assert "stage 1 of 1 begins: Stage(kind='tokenizer'" in run.log and sorted(run.logged()) == [1, 2, 3]
    before, after = whole.state(update)["model"], run.state(3)["model"]
    for name, tensor in before.items():
        if name.startswith(("encoder.", "decoder.", "projection.")):
            assert torch.equal(after[name], tensor), name
        if name.startswith("encoder."):
            assert torch.equal(after[f"tokenizer.{name}"], tensor), name
    assert after["tokenizer_ready"] and after["quantizer.codebooks.num_updates"] == 3
    assert {int(moments["step"]) for moments in run.state(3)["last_optimizer_state"]["state"].values()} == {3}
    if update == 13:  # stopped early, it goes on from its own checkpoint, not from the one it started from
        fairseq.train(tmp_path / "b", *command, "optimization.max_update=2", **options)
        again = fairseq.train(tmp_path / "b", *command, **options)
        assert compare(again.state(3), run.state(3)) == []


def test_targets_of_an_encoder_stage_of_its_own_come_from_the_trained_tokenizer(fairseq, whole, tmp_path):
    run = fairseq.train(
        tmp_path,
        f"checkpoint.finetune_from_model={whole.path(23)}",
        stages=[{"kind": "encoder", "updates": 2}],
    )
    before, after = whole.state(23)["model"], run.state()["model"]
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"encoder", "decoder", "quantizer"}
    assert [n for n in before if n.startswith("quantizer.") and not torch.equal(before[n], after[n])] == [
        "quantizer.codebooks.usage"
    ]


SHAPES = {
    "batches of one clip": ["dataset.batch_size=1"],
    "batches by length": ["dataset.batch_size=null", "dataset.max_tokens={}"],
}
ANY_SIZE = {  # and max_tokens
    "audio": (["model.num_mel_bins=80", "model.decoder_window=[4,3]", "task.max_sample_size=32000"], 60000),
    "image": (["model.decoder_window=[4,3]", "task.image_size=0", "task.flip=true"], 3),
    "video": (["task.image_size=0", "task.flip=true", "model.masking=random"], 3),
}


@MODALITIES
@pytest.mark.parametrize("shape", SHAPES)
def test_any_length_and_grid_goes_through_every_stage(fairseq, make_data, tmp_path, shape, modality):
    """5 rows of patches are no multiple of a window of 4 or 3; some clips are shorter than a frame or than a patch.

    Images and videos are of all sizes, padded in both directions.
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
