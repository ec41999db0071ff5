"""What features are made of: an encoder's blocks, pooled or patch by patch, or statistics of the log-mel frames.

:class:`.features.FeatureMaker` runs extractors over a corpus; :func:`encoder_features` gives those of one batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from bridle_fairseq.data.artifacts.features import PATCHES, FeatureArray
from bridle_fairseq.exported.format import ExportedBridle
from bridle_fairseq.nn.bridle import Bridle
from bridle_fairseq.nn.encoder import EncoderOutput
from bridle_fairseq.nn.frontend import AudioFrontEnd, Patches
from bridle_fairseq.nn.pooling import log_mel_deviation, log_mel_segments, merge_chunks, pool_patches, pooled_width
from bridle_fairseq.nn.pooling_kinds import PROBED_PIXELS, PROBED_SOUND
from bridle_fairseq.nn.pretrained_encoder import PretrainedEncoder
from bridle_fairseq.nn.settings import BridleSettings
from bridle_fairseq.utils.errors import InputError

EncoderModel = Bridle | PretrainedEncoder | ExportedBridle  # the models whose features can be extracted


class SegmentBatch(NamedTuple):
    """A batch of segments as extractors take it."""

    source: Tensor  # B x S, B x 3 x height x width, or B x 3 x frames x height x width
    source_padding: Tensor | None
    patches: Patches
    left_out: Tensor | None  # B x N: patches that do not count; None: all count
    kept: list[tuple[int, int]]  # sound: [first, end) of each segment's time patches that count
    offset: Tensor | None  # B: time patches of the clip before each segment; None: all segments begin with their clip
    clip_steps: Tensor | None = None  # B: time patches of the whole clips; None: all segments are whole clips

    def sizes(self) -> list[int]:
        """Number of patches of each segment that count."""
        if self.left_out is None:
            return [self.patches.x.shape[1]] * len(self.patches.x)
        return (~self.left_out).sum(1).tolist()


class Extractor(Protocol):
    """Makes some arrays of features: extracts a result per segment, then merges the results per row."""

    arrays: tuple[FeatureArray, ...]

    def extract_batch(self, batch: SegmentBatch) -> list[Any]:
        """A result for each segment, on the CPU."""

    def merge_segments(self, segments: list[Any]) -> dict[str, np.ndarray]:
        """A row's features by array name."""


class EncoderFeatures:
    """Outputs of an encoder's blocks.

    Args:
        model: in eval mode, on its device.
        layers: numbers of blocks, from 1; the last block's output is normalized.
        poolings: names of :data:`.pooling_kinds.POOLINGS`, or ``patches`` for the features of each patch.
        source: name of the encoder in the arrays.
        patch_layers: further arrays: the patches of these layers.
    """

    def __init__(
        self,
        model: EncoderModel,
        layers: Sequence[int],
        poolings: Sequence[str],
        source: str = "encoder",
        patch_layers: Sequence[int] = (),
    ) -> None:
        assert model.encoder is not None, "an export without an encoder"
        self.encoder, width = model.encoder, model.settings.encoder_width
        widths = {p: width if p == PATCHES else pooled_width(model.front_end, width, p) for p in poolings}
        self.arrays = tuple(FeatureArray(source, p, layer, widths[p]) for p in poolings for layer in layers)
        self.arrays += tuple(FeatureArray(source, PATCHES, layer, width) for layer in patch_layers)

    def extract_batch(self, batch: SegmentBatch) -> list[tuple[int, dict[str, np.ndarray]]]:
        """(number of patches that count, features by array name) of each segment."""
        patches, left_out = batch.patches, batch.left_out
        out = self.encoder(patches.x, patches.grid, patches.padding_mask, with_layers=True, offset=batch.offset)
        pooled = {array.name: _pooled(out.of_layer(array.layer), batch, array.pooling) for array in self.arrays}
        results = []
        for number, count in enumerate(batch.sizes()):
            features = {array.name: pooled[array.name][number] for array in self.arrays}
            if left_out is not None:
                counts = (~left_out[number]).cpu().numpy()  # N
                features |= {a.name: features[a.name][counts] for a in self.arrays if a.pooling == PATCHES}
            results.append((count, features))
        return results

    def merge_segments(self, segments: list[tuple[int, dict[str, np.ndarray]]]) -> dict[str, np.ndarray]:
        """Patches one after the other; pooled features as those of all patches that count."""
        if len(segments) == 1:
            return segments[0][1]
        counts = [count for count, _ in segments]
        merged = {}
        for array in self.arrays:
            values = [features[array.name] for _, features in segments]
            if array.pooling == PATCHES:
                merged[array.name] = np.concatenate(values)
            else:
                merged[array.name] = merge_chunks(array.pooling, values, counts)
        return merged


def _pooled(out: EncoderOutput, batch: SegmentBatch, pooling: str) -> np.ndarray:
    if pooling == PATCHES:
        return out.x.float().cpu().numpy()
    pooled = pool_patches(out, batch.patches.grid, batch.left_out, pooling, batch.offset, batch.clip_steps)
    return pooled.cpu().numpy()


class LogMelFeatures:
    """Statistics of a clip's log-mel frames: the baseline for sound.

    Args:
        front_end: front end of the model.
    """

    def __init__(self, front_end: AudioFrontEnd) -> None:
        self.front_end = front_end
        bins = front_end.log_mel.num_mel_bins
        statistics = (("deviation", 2), ("segments", 4))
        self.arrays = tuple(FeatureArray("log-mel", name, 0, values * bins) for name, values in statistics)

    def extract_batch(self, batch: SegmentBatch) -> list[Tensor]:
        """The log-mel frames of each segment that count, m x bins."""
        fbank, padding = self.front_end.log_mel(batch.source, batch.source_padding)  # B x M x bins
        frames = self.front_end.patch_size[0]
        valid = fbank.shape[1:2] * len(fbank) if padding is None else (~padding).sum(1).tolist()
        segments = []
        for clip, count, (first, end) in zip(fbank.cpu(), valid, batch.kept, strict=True):
            segments.append(clip[first * frames : min(end * frames, count)])
        return segments

    def merge_segments(self, segments: list[Tensor]) -> dict[str, np.ndarray]:
        """Statistics over the frames of all segments."""
        clip = torch.cat(segments)[None]  # 1 x M x bins
        statistics = log_mel_deviation(clip, None), log_mel_segments(clip, None)
        return {array.name: value[0].numpy() for array, value in zip(self.arrays, statistics, strict=True)}


@torch.inference_mode()
def encoder_features(
    model: EncoderModel,
    source: Tensor,
    padding_mask: Tensor | None = None,
    poolings: Sequence[str] = ("mean", "frequency"),
    layers: Sequence[int] | None = None,
) -> dict[tuple[str, int], Tensor]:
    """Pooled features of some of a frozen encoder's blocks, in one pass.

    Args:
        model: in eval mode.
        source: what the front end takes.
        padding_mask: its padding, or None.
        poolings: see :func:`pool_patches`.
        layers: numbers of blocks from 1; all by default.

    Returns:
        (pooling, layer from 1) -> B x d; the last layer's are normalized.
    """
    assert model.encoder is not None, "an export without an encoder"
    patches = model.front_end(source, padding_mask)
    out = model.encoder(patches.x, patches.grid, patches.padding_mask, with_layers=True)
    return {
        (pooling, number): pool_patches(out.of_layer(number), patches.grid, patches.padding_mask, pooling)
        for number in layers or range(1, len(out.layers) + 1)
        for pooling in poolings
    }


def random_init_copy(model: EncoderModel, seed: int) -> Bridle:
    """A model of the same settings with random weights, in eval mode on the same device."""
    return random_init(model.settings, seed).to(next(model.parameters()).device).eval()


def random_init(settings: BridleSettings, seed: int) -> Bridle:
    """A model with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Bridle(settings)


def choose_layers(texts: Sequence[str], num_layers: int) -> list[int]:
    """Numbers of blocks, sorted, from numbers, ``all`` and ``last``, as ``--layers`` takes them.

    Raises:
        InputError: no such block.
    """
    chosen: set[int] = set()
    for text in ",".join(texts).split(","):
        if text == "all":
            chosen |= set(range(1, num_layers + 1))
        elif text == "last":
            chosen.add(num_layers)
        elif text.isdecimal() and 1 <= int(text) <= num_layers:
            chosen.add(int(text))
        else:
            raise InputError(f"--layers has {text!r}; expected numbers from 1 to {num_layers}, all, or last")
    return sorted(chosen)


def default_poolings(model: EncoderModel) -> tuple[str, ...]:
    """The poolings that are probed by default, by the model's modality."""
    return PROBED_PIXELS if model.front_end.rows is None else PROBED_SOUND
