"""Two ranks: one model on both, the same as one process would have with all their batches."""

import functools

import pytest
import torch

from bridle_fairseq.nn.schedule import Schedule

MODALITIES = pytest.mark.modalities("audio", "image", "video")


@MODALITIES
def test_both_ranks_hold_the_same_model_after_every_update(pair):
    first, second = pair.observed(0), pair.observed(1)
    assert list(first) == list(second) == list(range(1, 41))
    for update in first:
        for part in ("parameters", "buffers"):
            assert first[update][part] == second[update][part], (update, part)


@MODALITIES
def test_every_epoch_takes_each_clip_once_and_leaves_a_rank_without_a_batch(pair):
    first, second = pair.observed(0), pair.observed(1)
    for epoch in range(10):
        updates = range(4 * epoch + 1, 4 * epoch + 5)
        ids = [clip for run in (first, second) for u in updates for batch in run[u]["ids"] for clip in batch]
        assert sorted(ids) == list(range(26))
        assert [second[u]["ids"] for u in updates][-1] == [[]]


def test_the_loss_is_that_of_both_ranks(pair, whole):
    first, second = pair.observed(0), pair.observed(1)
    assert all(first[u]["loss"] == second[u]["loss"] for u in first)
    mean = [sum(run.observed()[u]["loss"] for u in range(33, 41)) / 8 for run in (pair, whole)]
    assert mean[0] == pytest.approx(mean[1], rel=0.1)  # other batches, other masks


# Clips of an update, ranks, settings. Clips come in the order of the data: the same ones whatever the ranks and
# micro-batches.
WAYS = {
    "two ranks": (8, 2, ["dataset.batch_size=4"]),
    "micro-batches": (8, 1, ["dataset.batch_size=4", "optimization.update_freq=[2]"]),
    "two ranks with micro-batches": (8, 2, ["dataset.batch_size=2", "optimization.update_freq=[2]"]),
    # Ten clips are left for the last update of an epoch: three micro-batches on one rank, two on the other.
    "a micro-batch that one rank lacks": (16, 2, ["dataset.batch_size=2", "optimization.update_freq=[4]"]),
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
def train_on(fairseq, whole, stages):
    """Go on for 6 updates of the tokenizer's stage, one and a half epochs or more, from a checkpoint within it."""

    def train(folder, ranks, overrides):
        overrides = [*overrides, "dataset.curriculum=100", "checkpoint.reset_dataloader=true"]
        overrides.append(
            "model.restart_threshold=0"
        )  # a last bit of rounding decides which vector a code restarts from
        overrides += [f"checkpoint.restore_file={whole.path(15)}", "optimization.max_update=21"]
        run = fairseq.train(folder, *overrides, stages=stages, ranks=ranks, observe=True)
        return run

    return train


@pytest.fixture(scope="module")
def joined(train_on, tmp_path_factory):
    return functools.cache(
        lambda clips: train_on(tmp_path_factory.mktemp("joined"), 1, [f"dataset.batch_size={clips}"])
    )


@pytest.mark.parametrize("way", WAYS)
def test_codebooks_and_losses_are_those_of_one_process(train_on, joined, whole, tmp_path, stages, way):
    clips_of_update, ranks, overrides = WAYS[way]
    joined = joined(clips_of_update)
    run = train_on(tmp_path, ranks, overrides)
    assert Schedule(stages).index_at(15) == Schedule(stages).index_at(20) == 1
    for update, expected in joined.observed().items():
        seen = [run.observed(rank)[update] for rank in range(ranks)]
        clips = sorted(clip for rank in seen for batch in rank["ids"] for clip in batch)
        assert clips == sorted(expected["ids"][0])
        for rank in seen:
            assert rank["loss"] == pytest.approx(expected["loss"], rel=1e-4)
            torch.testing.assert_close(
                torch.tensor(rank["codes"]), torch.tensor(expected["codes"]), atol=1e-5, rtol=1e-5
            )
    start, after, expected = (tokenizer_weights(state) for state in (whole.state(15), run.state(), joined.state()))
    assert (after - start).norm() > 100 * (after - expected).norm()


def tokenizer_weights(state):
    return torch.cat([v.flatten() for k, v in sorted(state["model"].items()) if k.startswith("tokenizer.")])


@pytest.fixture(scope="module")
def still(fairseq, whole, tmp_path_factory, stages):
    """One update that changes nothing on one rank and on two; three clips are validated in batches of one."""
    overrides = [
        f"checkpoint.restore_file={whole.path(25)}",
        "optimization.max_update=26",
        "checkpoint.reset_dataloader=true",
        "dataset.batch_size_valid=1",
        "+lr_scheduler.lr_clips=4",  # a batch of one rank
    ]
    slow = [{**stage, "lr": 1e-20} for stage in stages]
    folder = tmp_path_factory.mktemp("still")
    return [fairseq.train(folder / str(ranks), *overrides, stages=slow, ranks=ranks) for ranks in (1, 2)]


def test_validation_on_two_ranks_is_that_of_one(still):
    """In the second round a rank has no clip."""
    one, two = (run.logged("valid")[26] for run in still)
    for name in ("loss", "loss_1", "loss_2", "acc_1", "acc_2"):
        assert two[name] == pytest.approx(one[name], abs=2e-4), name


def test_rates_follow_the_ranks_that_torchrun_starts(still):
    """The configuration says distributed_world_size: 1, and fairseq takes their number from torchrun."""
    one, two = (run.logged()[26]["lr"] for run in still)
    assert 0 < one < 1e-20 and two == pytest.approx(2 * one, rel=1e-3, abs=0)
