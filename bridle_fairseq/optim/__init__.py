"""fairseq optimizers and learning rate schedulers, one registered name a file."""

from bridle_fairseq.optim import bridle_adamw, bridle_interleaved  # noqa: F401
