"""fairseq criterions, one registered name a file."""

from bridle_fairseq.criterions import bridle, bridle_classification, bridle_ctc, bridle_reconstruction  # noqa: F401
