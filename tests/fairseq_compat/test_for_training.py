"""Order of micro-batches. Its effect is tested on two ranks (tests/integration/test_ranks.py)."""

from types import SimpleNamespace

from fairseq_compat.for_training import sort_empty_batches_first


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
