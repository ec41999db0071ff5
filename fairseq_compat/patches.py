"""The list of patches: the module that each one patches, and whether it runs before or after the module's code."""

from __future__ import annotations

from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import NamedTuple

from fairseq_compat import (
    for_checkpoints,
    for_errors,
    for_hydra,
    for_numpy,
    for_omegaconf,
    for_pytest,
    for_python,
    for_resuming,
    for_saving,
    for_torch,
    for_training,
)


class Patch(NamedTuple):
    """``apply(module)`` runs right before or right after the code of the module ``target``."""

    target: str
    when: str
    apply: Callable[[ModuleType], None]


EVALUATING = (  # modules of fairseq that evaluate strings of a configuration
    "fairseq.criterions.ctc",
    "fairseq.data.audio.raw_audio_dataset",
    "fairseq.data.codedataset",
    "fairseq.models.fconv",
    "fairseq.models.fconv_lm",
    "fairseq.models.fconv_self_att",
    "fairseq.models.hubert.hubert",
    "fairseq.models.lightconv_lm",
    "fairseq.models.speech_to_text.s2t_wav_transformer",
    "fairseq.models.transformer_lm",
    "fairseq.models.wav2vec.wav2vec",
    "fairseq.models.wav2vec.wav2vec2",
    "fairseq.optim.adafactor",
    "fairseq.optim.adam",
    "fairseq.optim.adamax",
    "fairseq.optim.cpu_adam",
    "fairseq.optim.fused_lamb",
    "fairseq.utils",
)
PATCHES: tuple[Patch, ...] = (
    Patch("hydra", "before", for_python.allow_config_defaults),
    Patch("fairseq", "before", for_python.allow_config_defaults),
    Patch("fairseq_cli", "before", for_errors.end_imports_at_interrupt),
    Patch("omegaconf.basecontainer", "after", for_omegaconf.copy_without_parents),
    Patch("antlr4", "before", for_python.restore_typing_io),
    Patch("hydra._internal.utils", "after", for_python.fix_hydra_error_report),
    Patch("hydra.core.plugins", "after", for_python.fix_hydra_plugin_scan),
    Patch("fairseq.data.data_utils", "after", for_numpy.restore_builtin_aliases),
    Patch("fairseq.data.token_block_dataset", "after", for_numpy.restore_builtin_aliases),
    Patch("fairseq.modules.dynamic_crf_layer", "after", for_numpy.restore_builtin_aliases),
    Patch("fairseq.distributed.utils", "after", for_torch.gather_lists_without_cuda),
    Patch("fairseq.distributed.utils", "after", for_torch.close_process_groups),
    Patch("fairseq.distributed.utils", "after", for_errors.name_known_errors),
    Patch("fairseq.models.distributed_fairseq_model", "after", for_torch.wrap_cpu_models_for_ddp),
    Patch("fairseq", "after", for_checkpoints.allow_checkpoint_types),
    Patch("fairseq.checkpoint_utils", "after", for_checkpoints.name_refused_checkpoints),
    Patch("fairseq.checkpoint_utils", "after", for_saving.save_atomically),
    Patch("fairseq_cli.hydra_train", "after", for_hydra.explain_mistakes),
    Patch("fairseq_cli.train", "after", for_saving.guard_save_dir),
    Patch("fairseq_cli.train", "after", for_resuming.skip_finished_runs),
    Patch("fairseq.data.iterators", "after", for_training.join_reader_threads_at_exit),
    Patch("fairseq.trainer", "after", for_training.sort_empty_batches_first),
    Patch("fairseq.trainer", "after", for_training.explain_bad_updates),
    Patch("fairseq.trainer", "after", for_training.keep_dummy_batch),
    Patch("fairseq.optim.amp_optimizer", "after", for_training.unscale_gradients_once),
    Patch("_pytest.assertion.rewrite", "after", for_pytest.exclude_watched_modules),
    Patch("torchaudio._extension.utils", "after", for_torch.allow_torchaudio_without_cuda),
    Patch("torchvision._meta_registrations", "before", for_torch.allow_torchvision_without_cuda),
    *(Patch(name, "after", for_checkpoints.evaluate_literals_only) for name in EVALUATING),
)


def run(when: str, module: ModuleType) -> None:
    """Run the patches of ``module`` for ``when`` ("before" or "after")."""
    for patch in PATCHES:
        if patch.target == module.__name__ and patch.when == when:
            patch.apply(module)


def patch_when_executed(spec: ModuleSpec) -> None:
    """Run the patches of the module around its execution.

    importlib.resources and hydra check the class of the loader, so the loader object stays the same. Only its
    ``exec_module`` is replaced, and restored on first use.
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
