"""Which patch belongs to which module, and when it runs: before the module's code or after it."""

from __future__ import annotations

from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import NamedTuple

from fairseq_compat import for_numpy, for_pytest, for_python, for_resuming, for_torch, for_training


class Patch(NamedTuple):
    """``apply(module)`` runs right before or right after the code of the module called ``target``."""

    target: str
    when: str
    apply: Callable[[ModuleType], None]


PATCHES: tuple[Patch, ...] = (
    Patch("hydra", "before", for_python.allow_config_defaults),
    Patch("fairseq", "before", for_python.allow_config_defaults),
    Patch("antlr4", "before", for_python.restore_typing_io),
    Patch("hydra._internal.utils", "after", for_python.mend_hydra_error_report),
    Patch("hydra.core.plugins", "after", for_python.mend_hydra_plugin_scan),
    Patch("fairseq.data.data_utils", "after", for_numpy.restore_builtin_aliases),
    Patch("fairseq.data.token_block_dataset", "after", for_numpy.restore_builtin_aliases),
    Patch("fairseq.modules.dynamic_crf_layer", "after", for_numpy.restore_builtin_aliases),
    Patch("fairseq.distributed.utils", "after", for_torch.gather_lists_without_cuda),
    Patch("fairseq.distributed.utils", "after", for_torch.close_process_groups),
    Patch("fairseq.models.distributed_fairseq_model", "after", for_torch.wrap_cpu_models_for_ddp),
    Patch("fairseq", "after", for_torch.allow_checkpoint_types),
    Patch("fairseq_cli.train", "after", for_resuming.leave_finished_runs_alone),
    Patch("fairseq.data.iterators", "after", for_training.join_reader_threads_at_exit),
    Patch("fairseq.trainer", "after", for_training.put_missing_batches_first),
    Patch("fairseq.optim.amp_optimizer", "after", for_training.unscale_gradients_once),
    Patch("_pytest.assertion.rewrite", "after", for_pytest.leave_watched_modules_alone),
    Patch("torchaudio._extension.utils", "after", for_torch.import_torchaudio_beside_cpu_torch),
    Patch("torchvision._meta_registrations", "before", for_torch.import_torchvision_beside_cpu_torch),
)


def run(when: str, module: ModuleType) -> None:
    """Run the patches of ``module`` that are due ``when`` ("before" or "after")."""
    for patch in PATCHES:
        if patch.target == module.__name__ and patch.when == when:
            patch.apply(module)


def patch_when_executed(spec: ModuleSpec) -> None:
    """Have the patches of the module run around its execution.

    The loader object stays the module's own (its class is looked at by importlib.resources and by hydra); only its
    ``exec_module`` is covered, and given back on first use.
    """
    loader = spec.loader
    if loader is None:
        return
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        del loader.exec_module  # type: ignore[union-attr]
        run("before", module)
        execute(module)
        run("after", module)

    loader.exec_module = exec_module  # type: ignore[method-assign]
