"""fairseq models, one registered name a file."""

import fairseq  # noqa: F401  (first, so that an error names it and no package of another extra)

from bridle_fairseq.models import (  # noqa: F401
    bridle,
    bridle_classifier,
    bridle_ctc,
    bridle_mel_decoder,
    bridle_tokenizer,
)
