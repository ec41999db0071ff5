"""fairseq models, one registered name a file."""

from bridle_fairseq.models import (  # noqa: F401
    bridle,
    bridle_classifier,
    bridle_ctc,
    bridle_mel_decoder,
    bridle_tokenizer,
)
