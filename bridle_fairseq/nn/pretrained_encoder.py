"""A pretrained encoder with its front end, fine-tuned or frozen: the base of classifier and transcriber."""

from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bridle_fairseq.nn.batch_augment import add_noise, spec_augment, warp_frequency
from bridle_fairseq.nn.encoder import Encoder
from bridle_fairseq.nn.frontend import Patches, front_end_of
from bridle_fairseq.nn.pooling_kinds import POOLINGS
from bridle_fairseq.nn.settings import BridleSettings
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.precision import autocast

# Evaluated annotations: omegaconf 2.0, which fairseq pins, supports nothing newer.


@dataclass
class EncoderRegularization:
    """Regularization of fine-tuning that keeps all patches. Off by default, and in evaluation."""

    drop_path: float = field(
        default=0.0, metadata={"help": "stochastic depth: probability at the last block, rising linearly from 0"}
    )
    layer_decay: float = field(
        default=1.0, metadata={"help": "layer-wise decay: learning rate of a block relative to the next one; 1: none"}
    )
    spec_augment_mel_bins: int = field(default=0, metadata={"help": "SpecAugment: largest number of mel bins to mask"})
    spec_augment_frames: int = field(default=0, metadata={"help": "SpecAugment: largest number of frames to mask"})
    warp_frequency: float = field(
        default=0.0, metadata={"help": "sound: scale frequencies by random factors up to 1 + this, as other voices do"}
    )
    noise: float = field(default=0.0, metadata={"help": "sound: fraction of the clips to which noise is added"})

    @property
    def changes_spectrum(self) -> bool:
        """Whether :meth:`PretrainedEncoder.augment` has something to do."""
        return bool(self.spec_augment_mel_bins or self.spec_augment_frames or self.warp_frequency)


@dataclass
class ClassifierRegularization(EncoderRegularization):
    """Regularization of a classifier, which can also leave out patches, or cut off parts of a clip at another rate."""

    warp_time: float = field(
        default=0.0, metadata={"help": "sound: play clips slower or faster by random factors up to 1 + this"}
    )
    mask_time: float = field(default=0.0, metadata={"help": "fraction of the time steps of patches to leave out"})
    mask_frequency: float = field(
        default=0.0, metadata={"help": "fraction of the frequency rows of patches to leave out"}
    )

    @property
    def changes_spectrum(self) -> bool:
        """Whether :meth:`Classifier.augment` has something to do."""
        return bool(self.warp_time) or super().changes_spectrum


class LayerGroup(NamedTuple):
    """Value of a parameter's attribute ``param_group``, which fairseq copies to its float32 copies of parameters."""

    lr_scale: float  # factor on the learning rate


def check_regularization(s: EncoderRegularization, freeze_encoder: bool, modality: str = "audio") -> None:
    """Check that settings are possible and have an effect.

    Raises:
        InputError: with one sentence for the first setting that is not or has none.
    """
    off = {f.name: f.default for f in fields(s)}  # a ClassifierRegularization has more fields

    def given(*names: str) -> dict[str, float]:
        return {name: getattr(s, name) for name in names if name in off}

    for name, value in given("drop_path", "mask_time", "mask_frequency").items():
        if not 0 <= value < 1:
            raise InputError(f"model.{name} is {value}; expected 0 or more and below 1")
    for name, value in given("spec_augment_mel_bins", "spec_augment_frames").items():
        if value < 0:
            raise InputError(f"model.{name} is {value}; expected 0 or more")
    for name, value in given("warp_frequency", "warp_time", "noise").items():
        if not 0 <= value <= 1:
            raise InputError(f"model.{name} is {value}; expected 0 to 1")
    if not 0 < s.layer_decay <= 1:
        raise InputError(f"model.layer_decay is {s.layer_decay}; expected more than 0 and at most 1")
    spectral = ("spec_augment_mel_bins", "spec_augment_frames", "mask_time", "mask_frequency")
    for name, value in given(*spectral, "warp_frequency", "warp_time", "noise").items():
        if modality != "audio" and value:
            raise InputError(f"model.{name} is {value} with modality {modality}; expected 0: it is for sound")
    for name, value in given("drop_path", "layer_decay", "mask_time", "mask_frequency").items():
        if freeze_encoder and value != off[name]:
            raise InputError(
                f"model.{name} is {value} with model.freeze_encoder, which leaves the encoder as it is; "
                f"expected {off[name]}"
            )


def check_classifier(s: ClassifierRegularization, pooling: str, freeze_encoder: bool, modality: str = "audio") -> None:
    """:func:`check_regularization` of a classifier with this pooling."""
    check_regularization(s, freeze_encoder, modality)
    if POOLINGS[pooling].by_row and s.mask_frequency:
        raise InputError(
            f"model.mask_frequency is {s.mask_frequency} with model.pooling {pooling}, which needs all rows; expected 0"
        )


def decay_learning_rates(encoder: nn.Module, blocks: nn.ModuleList, layer_decay: float) -> None:
    """Layer-wise learning rate decay, for the optimizer ``bridle_adamw``.

    Relative to norm and head, the last of n blocks has the rate ``layer_decay``, the first ``layer_decay ** n``, and
    patch embedding and class token ``layer_decay ** (n + 1)``.

    Source: BEiT (arXiv 2106.08254, section 3.2).
    """
    layers = {id(p): number + 1 for number, block in enumerate(blocks) for p in block.parameters()}
    above = len(blocks) + 1
    for name, parameter in encoder.named_parameters():
        layer = above if name.startswith("norm.") else layers.get(id(parameter), 0)
        parameter.param_group = LayerGroup(layer_decay ** (above - layer))  # type: ignore[attr-defined]  # for fairseq


class PretrainedEncoder(nn.Module):
    """Front end and encoder of a pretrained model.

    Args:
        settings: settings of the pretrained model.
        regularization: regularization of training.
        freeze_encoder: the encoder gets no gradient and stays in eval mode.
    """

    def __init__(self, settings: BridleSettings, regularization: EncoderRegularization, freeze_encoder: bool) -> None:
        super().__init__()
        s = self.settings = settings
        self.regularization, self.freeze_encoder = regularization, freeze_encoder
        self.front_end = front_end_of(s)
        sizes = (self.front_end.patch_dim, s.encoder_width, s.encoder_depth, s.encoder_heads)
        self.encoder = Encoder(*sizes, drop_path=regularization.drop_path)
        if freeze_encoder:
            self.encoder.requires_grad_(False)
        elif regularization.layer_decay != 1:
            decay_learning_rates(self.encoder, self.encoder.blocks, regularization.layer_decay)

    def train(self, mode: bool = True) -> "PretrainedEncoder":
        """Set the mode, but keep a frozen encoder in eval mode; fairseq's trainer calls this at every update."""
        super().train(mode)
        if self.freeze_encoder:
            self.encoder.eval()
        return self

    def patches(self, source: Tensor, padding_mask: Tensor | None = None) -> Patches:
        """Patches of a batch, in training with noise, other voices, other rates and SpecAugment."""
        s = self.regularization
        if self.training and s.noise:
            source = add_noise(source, padding_mask, s.noise)
        return self.front_end(source, padding_mask, self.augment if self.training and s.changes_spectrum else None)

    def augment(self, x: Tensor, frame_padding: Tensor | None) -> Tensor:
        """B x 1 x M x mel bins -> the same shape, with other voices and SpecAugment."""
        s, x = self.regularization, x.squeeze(1)
        if s.warp_frequency:
            x = warp_frequency(x, self.settings.sample_rate, s.warp_frequency)
        if s.spec_augment_frames or s.spec_augment_mel_bins:
            x = spec_augment(x, frame_padding, s.spec_augment_frames, s.spec_augment_mel_bins)
        return x.unsqueeze(1)

    def encoding(self, device: torch.device) -> ExitStack:
        """Context for the encoder's forward pass: its precision, and no gradient if it is frozen."""
        context = ExitStack()
        if self.freeze_encoder:
            context.enter_context(torch.no_grad())
        context.enter_context(autocast(self.settings.precision, device))
        return context
