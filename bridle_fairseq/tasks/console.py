"""The console shows a run's configuration and model in a line each; the log file has them in full."""

import copy
import logging
from collections.abc import Iterator

from omegaconf import DictConfig
from torch import nn

TRAINING = "fairseq_cli.train"  # the logger of fairseq's command, which prints both at the start of a run


class ShortConsole(logging.Filter):
    """Shortens the console's records if the root logger also writes a file, so that nothing is lost."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep the record, and see to the console: hydra sets up the handlers after this package is imported."""
        file = next((h.baseFilename for h in logging.root.handlers if isinstance(h, logging.FileHandler)), None)
        for handler in logging.root.handlers if file else ():
            if type(handler) is logging.StreamHandler and not isinstance(handler.formatter, _Short):
                handler.setFormatter(_Short(handler.formatter or logging.Formatter(), str(file)))
        return True


class _Short(logging.Formatter):
    def __init__(self, full: logging.Formatter, file: str) -> None:
        super().__init__()
        self.full, self.file = full, file

    def format(self, record: logging.LogRecord) -> str:
        if isinstance(record.msg, (DictConfig, nn.Module)):
            record = copy.copy(record)
            text = summary(record.msg) if isinstance(record.msg, nn.Module) else "configuration"
            record.msg = f"{text} (in full: {self.file})"
        return self.full.format(record)


def summary(model: nn.Module) -> str:
    """Class, parameters, and the parts with their parameters, in one line."""
    total = sum(parameter.numel() for parameter in model.parameters())
    return f"{type(model).__name__}, {total / 1e6:.1f} M parameters: {', '.join(_parts(model))}"


def _parts(model: nn.Module) -> Iterator[str]:
    for name, part in model.named_children():
        count = sum(parameter.numel() for parameter in part.parameters())
        if count:
            yield f"{name} {count / 1e6:.2g} M"


def shorten_console() -> None:
    """Install :class:`ShortConsole` (idempotent)."""
    logger = logging.getLogger(TRAINING)
    if not any(isinstance(each, ShortConsole) for each in logger.filters):
        logger.addFilter(ShortConsole())
