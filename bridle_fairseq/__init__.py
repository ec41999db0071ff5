"""BRIDLE for fairseq: self-supervised pretraining with residual-quantized codes.

fairseq imports this package through ``common.user_dir``; its tasks, models, criterions, optimizers and schedulers then
register themselves. Without fairseq the package offers its modules alone; :func:`register` brings fairseq in when
asked.
"""

import importlib
import sys

__version__ = "0.1.0"


def register() -> None:
    """Register every task, model, criterion, optimizer and scheduler of the package with fairseq (idempotent)."""
    for part in ("tasks", "models", "criterions", "optim"):
        importlib.import_module(f"{__name__}.{part}")


# fairseq's import_user_module() imports this file and then only tasks/ and models/, and not even those when the package
# is already loaded. So everything is brought in here, but only when fairseq itself is the one importing.
if "fairseq" in sys.modules:
    register()
