"""mteb: an encoder of sound for the audio tasks of MTEB (MAEB)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import numpy as np

from bridle_fairseq.adapters.frames import sound_encoder
from bridle_fairseq.exported.source import model_sha256
from bridle_fairseq.nn.pooling import pooled_width
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.optional import optional_import

with optional_import("bridle_fairseq.adapters.mteb needs mteb", "mteb"):
    from mteb.models import ModelMeta
    from mteb.models.abs_encoder import AbsEncoder


class MtebEncoder(AbsEncoder):
    """The encoder of an export for sound. Clips of other rates are resampled as in training.

    Args:
        model_name: folder, name of weights of this package, or name on the Hub.
        revision: not used: ``owner/name@revision`` names one on the Hub.
        device: of the model.
        pooling, layer: what the vector of a clip is, see :meth:`.Pretrained.embed`.
        others: of mteb, without effect.

    Raises:
        InputError: as :func:`.pretrained.load`; no encoder for sound, or no such pooling.
    """

    def __init__(
        self,
        model_name: str,
        revision: str | None = None,
        device: str | None = None,
        pooling: str = "mean",
        layer: int | None = None,
        **others: Any,
    ) -> None:
        self.model = sound_encoder(model_name, device or "cpu")
        self.pooling, self.layer = pooling, layer
        width = pooled_width(self.model.module.front_end, self.model.settings.encoder_width, pooling)
        what = f"{PurePath(model_name).name.replace('@', '-')}-{pooling}" + ("" if layer is None else f"-{layer}")
        values = {"name": f"bridle_fairseq/{what}", "revision": model_sha256(model_name)[:12], "embed_dim": width}
        count = sum(parameter.numel() for parameter in self.model.module.parameters())
        values |= {"modalities": ["audio"], "framework": ["PyTorch"], "n_parameters": count}
        self.mteb_model_meta = ModelMeta.create_empty(values)

    def encode(self, inputs: Any, **others: Any) -> np.ndarray:
        """Vectors of the clips of a data loader, clips x D float32.

        Args:
            inputs: a loader whose rows have ``audio``, a mapping with ``array`` and ``sampling_rate``.
            others: of mteb, without effect.

        Raises:
            InputError: another modality than sound, or unusable samples.
        """
        inputs.collate_fn = list
        return np.concatenate([self._vectors(rows) for rows in inputs])

    def _vectors(self, rows: Sequence[dict[str, Any]]) -> np.ndarray:
        """Vectors of a batch; clips of one rate are encoded together."""
        if "audio" not in rows[0]:
            raise InputError(f"rows with {', '.join(rows[0])}; expected audio, as it is a model for sound")
        clips = [np.asarray(row["audio"]["array"], np.float32) for row in rows]
        clips = [clip.mean(0) if clip.ndim > 1 else clip for clip in clips]
        rates = [int(row["audio"]["sampling_rate"]) for row in rows]
        batches = [(clips, rates[0])] if len(set(rates)) == 1 else [([x], r) for x, r in zip(clips, rates, strict=True)]
        return np.concatenate(
            [
                self.model.embed(batch, rate, layer=self.layer, pooling=self.pooling).cpu().numpy()
                for batch, rate in batches
            ]
        )
