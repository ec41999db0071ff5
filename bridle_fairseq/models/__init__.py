"""fairseq models, one registered name a file."""

from bridle_fairseq.models import bridle, bridle_classifier, bridle_mel_decoder, bridle_tokenizer  # noqa: F401
