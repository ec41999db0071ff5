"""HEAR 2021: the three functions of its common API, and the model that they pass on.

hear-validator and heareval take this module's name: ``hear-validator bridle_fairseq.adapters.hear -m work/exported``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bridle_fairseq.adapters.frames import ExportFrames
from bridle_fairseq.nn.pooling import pooled_width


class HearModel(nn.Module):
    """An export with the attributes that HEAR asks for.

    Attributes:
        frames: vectors of time steps.
        pooling: of a clip, see :meth:`.Pretrained.embed`.
        sample_rate: in Hz.
        scene_embedding_size, timestamp_embedding_size: values of a clip and of a time step.
    """

    def __init__(self, frames: ExportFrames, pooling: str) -> None:
        super().__init__()
        self.frames, self.pooling, self.sample_rate = frames, pooling, frames.sampling_rate
        model = frames.model
        self.scene_embedding_size = pooled_width(model.module.front_end, model.settings.encoder_width, pooling)
        self.timestamp_embedding_size = frames.output_dim


def load_model(
    model_file_path: str = "bridle-small-audio",
    pooling: str = "mean",
    rows: str = "frequency",
    layer: int | None = None,
) -> HearModel:
    """Load an export.

    Args:
        model_file_path: folder, name of weights of this package, or name on the Hub.
        pooling: of a clip, see :meth:`.Pretrained.embed`.
        rows, layer: see :class:`.ExportFrames`.

    Raises:
        InputError: as :class:`.ExportFrames`, or no such pooling.
    """
    return HearModel(ExportFrames(model_file_path, rows, layer), pooling)


def get_timestamp_embeddings(audio: Tensor, model: HearModel) -> tuple[Tensor, Tensor]:
    """Vectors of time steps, n x T x D, and their centres in ms, n x T.

    Args:
        audio: n x S waveforms in [-1, 1] at ``model.sample_rate``.
        model: of :func:`load_model`.
    """
    embeddings = model.frames(audio)
    centres = model.frames.centres(embeddings.shape[1]).to(embeddings.device)
    return embeddings, centres.expand(len(embeddings), -1)


@torch.no_grad()
def get_scene_embeddings(audio: Tensor, model: HearModel) -> Tensor:
    """A vector of each clip, n x D; arguments as in :func:`get_timestamp_embeddings`."""
    return model.frames.model.embed(audio, model.sample_rate, layer=model.frames.layer, pooling=model.pooling)
