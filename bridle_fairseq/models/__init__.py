"""fairseq models, one registered name a file."""

from bridle_fairseq.models import bridle  # noqa: F401
