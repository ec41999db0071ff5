"""fairseq criterions, one registered name a file."""

from bridle_fairseq.criterions import bridle  # noqa: F401
