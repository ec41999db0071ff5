"""fairseq tasks, one registered name a file."""

from bridle_fairseq.tasks import (  # noqa: F401
    bridle_classification,
    bridle_ctc,
    bridle_pretraining,
    bridle_reconstruction,
)
from bridle_fairseq.tasks.console import shorten_console

shorten_console()
