"""Order of micro-batches. Its effect is tested on two ranks (tests/integration/test_ranks.py)."""

from types import SimpleNamespace

import pytest

from fairseq_compat.for_training import explain_bad_updates, sort_empty_batches_first


def test_empty_batches_come_first_and_others_keep_order():
    class Trainer:
        def train_step(self, samples, raise_oom=False):
            """Train."""
            return samples, raise_oom

    sort_empty_batches_first(SimpleNamespace(Trainer=Trainer))
    first, second = {"id": 2}, {"id": 1}
    assert Trainer().train_step([first, {}, second, [], None], raise_oom=True) == ([{}, [], None, first, second], True)
    assert Trainer().train_step([[]]) == ([[]], False)
    assert Trainer.train_step.__doc__ == "Train."


def test_bad_update_is_explained_by_tasks_that_can():
    class Trainer:
        task = SimpleNamespace()

        def train_step(self, samples, raise_oom=False):
            if samples:
                raise FloatingPointError("gradients are Nan/Inf")
            return samples, raise_oom

    explain_bad_updates(SimpleNamespace(Trainer=Trainer))
    told = []
    assert Trainer().train_step([], raise_oom=True) == ([], True)
    with pytest.raises(FloatingPointError):
        Trainer().train_step([{"id": 1}])
    Trainer.task.explain_bad_update = lambda samples, error: told.append((samples, str(error)))
    with pytest.raises(FloatingPointError):
        Trainer().train_step([{"id": 1}])
    assert told == [([{"id": 1}], "gradients are Nan/Inf")]
