"""Lets stock fairseq 0.12.2 (with its hydra-core 1.0.7) run on Python 3.10-3.13, NumPy >= 1.24 and torch >= 2.6.

``fairseq_compat.pth`` in site-packages imports this package at every interpreter start, also in spawned and
``torchrun`` workers. This file therefore only puts one lazy finder on ``sys.meta_path``. It imports nothing else until
a module in ``WATCHED`` is imported, and patches none unless fairseq 0.12 or hydra-core 1.0 is installed
(:mod:`fairseq_compat.versions`). The package is independent of BRIDLE.
"""

import sys

# The targets of fairseq_compat.patches.PATCHES, repeated here so that interpreter start does not import that module.
WATCHED = frozenset(
    {
        "_pytest.assertion.rewrite",
        "antlr4",
        "fairseq",
        "fairseq.checkpoint_utils",
        "fairseq.criterions.ctc",
        "fairseq.data.audio.raw_audio_dataset",
        "fairseq.data.codedataset",
        "fairseq.data.data_utils",
        "fairseq.data.iterators",
        "fairseq.data.token_block_dataset",
        "fairseq.distributed.utils",
        "fairseq.models.distributed_fairseq_model",
        "fairseq.models.fconv",
        "fairseq.models.fconv_lm",
        "fairseq.models.fconv_self_att",
        "fairseq.models.hubert.hubert",
        "fairseq.models.lightconv_lm",
        "fairseq.models.speech_to_text.s2t_wav_transformer",
        "fairseq.models.transformer_lm",
        "fairseq.models.wav2vec.wav2vec",
        "fairseq.models.wav2vec.wav2vec2",
        "fairseq.modules.dynamic_crf_layer",
        "fairseq.optim.adafactor",
        "fairseq.optim.adam",
        "fairseq.optim.adamax",
        "fairseq.optim.amp_optimizer",
        "fairseq.optim.cpu_adam",
        "fairseq.optim.fused_lamb",
        "fairseq.trainer",
        "fairseq.utils",
        "fairseq_cli",
        "fairseq_cli.hydra_train",
        "fairseq_cli.train",
        "hydra",
        "hydra._internal.utils",
        "hydra.core.plugins",
        "omegaconf.basecontainer",
        "torchaudio._extension.utils",
        "torchvision._meta_registrations",
    }
)


class PatchingFinder:
    """Meta path finder: the other finders locate a watched module, and its patches run around its execution."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        """The spec of a watched module, with a loader that applies its patches; None for all others."""
        if name not in WATCHED:
            return None
        from fairseq_compat import versions

        if not versions.is_patched(name):
            return None
        for finder in sys.meta_path:
            if finder is cls or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                from fairseq_compat import patches

                patches.patch_when_executed(spec)
                return spec
        return None


def install() -> None:
    """Put the finder first on ``sys.meta_path`` (idempotent)."""
    if PatchingFinder not in sys.meta_path:
        sys.meta_path.insert(0, PatchingFinder)


install()
