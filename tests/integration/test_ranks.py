"""Training on two ranks: the same model on both, equal to that of one process with all batches."""

import functools

import pytest
import torch

from bridle_fairseq.nn.schedule import Schedule

MODALITIES = pytest.mark.modalities("audio", "image", "video")


@MODALITIES
def test_ranks_hold_the_same_model_after_every_update(two_rank_run):
    first, second = two_rank_run.observed(0), two_rank_run.observed(1)
    assert list(first) == list(second) == list(range(1, 41))
    for update in first:
        for part in ("parameters", "buffers"):
            assert first[update][part] == second[update][part], (update, part)


@MODALITIES
def test_epochs_use_each_clip_once_on_uneven_ranks(two_rank_run):
    first, second = two_rank_run.observed(0), two_rank_run.observed(1)
    epochs = []
    for epoch in range(10):
        updates = range(4 * epoch + 1, 4 * epoch + 5)
        batches = [batch for run in (first, second) for u in updates for batch in run[u]["ids"]]
        assert sorted(clip for batch in batches for clip in batch) == list(range(26))
        assert [second[u]["ids"] for u in updates][-1] == [[]]
        epochs.append({frozenset(batch) for batch in batches if batch})
    # Of seven batches, one or two are of short sounds, whose buckets are as small as a batch.
    assert all(len(batches & before) <= 3 for number, batches in enumerate(epochs) for before in epochs[:number])


def test_loss_is_the_mean_over_ranks(two_rank_run, full_run):
    first, second = two_rank_run.observed(0), two_rank_run.observed(1)
    assert all(first[u]["loss"] == second[u]["loss"] for u in first)
    mean = [sum(run.observed()[u]["loss"] for u in range(33, 41)) / 8 for run in (two_rank_run, full_run)]
    assert mean[0] == pytest.approx(mean[1], rel=0.1)  # batches and masks differ


# name -> clips per update, ranks, overrides. Clips come in the order of the data, so an update has the same clips for
# any number of ranks and micro-batches.
LAYOUTS = {
    "two ranks": (8, 2, ["dataset.batch_size=4"]),
    "micro-batches": (8, 1, ["dataset.batch_size=4", "optimization.update_freq=[2]"]),
    "two ranks with micro-batches": (8, 2, ["dataset.batch_size=2", "optimization.update_freq=[2]"]),
    # The last update of an epoch has ten clips: three micro-batches on one rank, two on the other.
    "fewer micro-batches on one rank": (16, 2, ["dataset.batch_size=2", "optimization.update_freq=[4]"]),
    "pytorch_ddp with micro-batches": (
        8,
        2,
        [
            "dataset.batch_size=2",
            "optimization.update_freq=[2]",
            "distributed_training.ddp_backend=pytorch_ddp",
            "distributed_training.find_unused_parameters=true",
        ],
    ),
}


@pytest.fixture(scope="module")
def train_on(fairseq, full_run, stages):
    """Continue the tokenizer stage from a checkpoint for 6 updates, which are at least one and a half epochs."""

    def train(folder, ranks, overrides):
        overrides = [*overrides, "dataset.curriculum=100", "checkpoint.reset_dataloader=true"]
        overrides.append("model.restart_threshold=0")  # rounding decides which vector a code restarts from
        overrides += [f"checkpoint.restore_file={full_run.path(15)}", "optimization.max_update=21"]
        return fairseq.train(folder, *overrides, stages=stages, ranks=ranks, observe=True)

    return train


@pytest.fixture(scope="module")
def one_process(train_on, tmp_path_factory):
    """``one_process(clips)`` -> the run of one process with this many clips per batch."""
    return functools.cache(
        lambda clips: train_on(tmp_path_factory.mktemp("one_process"), 1, [f"dataset.batch_size={clips}"])
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_codebooks_and_losses_equal_one_process(train_on, one_process, full_run, tmp_path, stages, layout):
    clips_of_update, ranks, overrides = LAYOUTS[layout]
    reference = one_process(clips_of_update)
    run = train_on(tmp_path, ranks, overrides)
    assert Schedule(stages).index_at(15) == Schedule(stages).index_at(20) == 1
    for update, expected in reference.observed().items():
        records = [run.observed(rank)[update] for rank in range(ranks)]
        clips = sorted(clip for record in records for batch in record["ids"] for clip in batch)
        assert clips == sorted(expected["ids"][0])
        for record in records:
            assert record["loss"] == pytest.approx(expected["loss"], rel=1e-4)
            torch.testing.assert_close(
                torch.tensor(record["codes"]), torch.tensor(expected["codes"]), atol=1e-5, rtol=1e-5
            )
    start, after, expected = (
        tokenizer_weights(state) for state in (full_run.state(15), run.state(), reference.state())
    )
    assert (after - start).norm() > 100 * (after - expected).norm()


def tokenizer_weights(state):
    return torch.cat([v.flatten() for k, v in sorted(state["model"].items()) if k.startswith("tokenizer.")])


@pytest.fixture(scope="module")
def frozen_runs(fairseq, full_run, tmp_path_factory, stages):
    """Runs on one rank and on two with an update that changes nothing. Three clips are validated in batches of one."""
    overrides = [
        f"checkpoint.restore_file={full_run.path(25)}",
        "optimization.max_update=26",
        "checkpoint.reset_dataloader=true",
        "dataset.batch_size_valid=1",
        "+lr_scheduler.lr_clips=4",  # the batch size of one rank
    ]
    slow = [{**stage, "lr": 1e-20} for stage in stages]
    folder = tmp_path_factory.mktemp("frozen_runs")
    return [fairseq.train(folder / str(ranks), *overrides, stages=slow, ranks=ranks) for ranks in (1, 2)]


def test_validation_does_not_depend_on_ranks(frozen_runs):
    """One rank has no clip in the second batch."""
    one, two = (run.logged("valid")[26] for run in frozen_runs)
    for name in ("loss", "loss_1", "loss_2", "acc_1", "acc_2"):
        assert two[name] == pytest.approx(one[name], abs=2e-4), name


def test_learning_rate_scales_with_the_ranks_of_torchrun(frozen_runs):
    """The configuration has distributed_world_size: 1, but fairseq takes the number of ranks from torchrun."""
    one, two = (run.logged()[26]["lr"] for run in frozen_runs)
    assert 0 < one < 1e-20 and two == pytest.approx(2 * one, rel=1e-3, abs=0)
