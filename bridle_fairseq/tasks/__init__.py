"""fairseq tasks, one registered name a file."""

from bridle_fairseq.tasks import bridle_classification, bridle_pretraining, bridle_reconstruction  # noqa: F401
