"""Order of micro-batches; what it is for is tested by two ranks (tests/integration/test_ranks.py)."""

from types import SimpleNamespace

from fairseq_compat.for_training import put_missing_batches_first


def test_batches_that_are_missing_come_first_and_the_others_keep_their_order():
    class Trainer:
        def train_step(self, samples, raise_oom=False):
            """Train."""
            return samples, raise_oom

    put_missing_batches_first(SimpleNamespace(Trainer=Trainer))
    first, second = {"id": 2}, {"id": 1}
    assert Trainer().train_step([first, {}, second, [], None], raise_oom=True) == ([{}, [], None, first, second], True)
    assert Trainer().train_step([[]]) == ([[]], False)
    assert Trainer.train_step.__doc__ == "Train."
