"""fairseq models, one registered name a file."""

from bridle_fairseq.models import bridle, bridle_classifier, bridle_tokenizer  # noqa: F401
