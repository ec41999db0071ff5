"""An encoder that is fine-tuned or frozen, with its front end: what all heads on top of it share."""

from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bridle_fairseq.nn.batch_augment import spec_augment
from bridle_fairseq.nn.encoder import Encoder
from bridle_fairseq.nn.frontend import Patches, front_end_of
from bridle_fairseq.nn.settings import BridleSettings
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.precision import autocast

# Real (not postponed) annotations: omegaconf 2.0, which fairseq pins, reads nothing newer.


@dataclass
class EncoderTuning:
    """Regularisation that keeps every patch; the defaults switch all of it off. Nothing of it acts in evaluation."""

    drop_path: float = field(
        default=0.0, metadata={"help": "stochastic depth: probability at the last block, rising linearly from 0"}
    )
    layer_decay: float = field(
        default=1.0, metadata={"help": "each block learns at this share of the next one's rate; 1: all alike"}
    )
    spec_augment_mel_bins: int = field(
        default=0, metadata={"help": "SpecAugment: hide a stretch of up to so many mel bins"}
    )
    spec_augment_frames: int = field(
        default=0, metadata={"help": "SpecAugment: hide a stretch of up to so many frames"}
    )


@dataclass
class FineTuning(EncoderTuning):
    """Regularisation of METHOD's fine-tuning of a classifier, which may leave patches out."""

    mask_time: float = field(default=0.0, metadata={"help": "share of the time steps of patches that is left out"})
    mask_frequency: float = field(
        default=0.0, metadata={"help": "share of the frequency rows of patches that is left out"}
    )


class LayerGroup(NamedTuple):
    """A parameter's ``param_group``, the attribute that fairseq carries over to its float32 copies of parameters."""

    lr_scale: float  # factor on the learning rate


def check_tuning(s: EncoderTuning, freeze_encoder: bool, modality: str = "audio") -> None:
    """Raise :class:`InputError` with one sentence for what cannot work or would have no effect."""
    off = {f.name: f.default for f in fields(s)}  # FineTuning has more of them

    def given(*names: str) -> dict[str, float]:
        return {name: getattr(s, name) for name in names if name in off}

    for name, value in given("drop_path", "mask_time", "mask_frequency").items():
        if not 0 <= value < 1:
            raise InputError(f"model.{name} is {value}; expected 0 or more and below 1")
    for name, value in given("spec_augment_mel_bins", "spec_augment_frames").items():
        if value < 0:
            raise InputError(f"model.{name} is {value}; expected 0 or more")
    if not 0 < s.layer_decay <= 1:
        raise InputError(f"model.layer_decay is {s.layer_decay}; expected more than 0 and at most 1")
    for name, value in given("spec_augment_mel_bins", "spec_augment_frames", "mask_time", "mask_frequency").items():
        if modality != "audio" and value:
            raise InputError(f"model.{name} is {value} with modality {modality}; expected 0: it is for sound")
    for name, value in given("drop_path", "layer_decay", "mask_time", "mask_frequency").items():
        if freeze_encoder and value != off[name]:
            raise InputError(
                f"model.{name} is {value} with model.freeze_encoder, which leaves the encoder as it is; "
                f"expected {off[name]}"
            )


def check_finetuning(s: FineTuning, pooling: str, freeze_encoder: bool, modality: str = "audio") -> None:
    """:func:`check_tuning` of a classifier that pools its patches like this."""
    check_tuning(s, freeze_encoder, modality)
    if pooling == "frequency" and s.mask_frequency:
        raise InputError(
            f"model.mask_frequency is {s.mask_frequency} with model.pooling frequency, which needs all rows; expected 0"
        )


def decay_learning_rates(encoder: nn.Module, blocks: nn.ModuleList, layer_decay: float) -> None:
    """Mark the encoder's parameters so that early layers learn more slowly (optimizer ``bridle_adamw``).

    The last block of n has ``layer_decay`` times the rate of norm and head, the first ``layer_decay ** n``, the patch
    embedding and the class token ``layer_decay ** (n + 1)`` (layer-wise decay of BEiT, arXiv 2106.08254, section 3.2).
    """
    layers = {id(p): number + 1 for number, block in enumerate(blocks) for p in block.parameters()}
    above = len(blocks) + 1
    for name, parameter in encoder.named_parameters():
        layer = above if name.startswith("norm.") else layers.get(id(parameter), 0)
        parameter.param_group = LayerGroup(layer_decay ** (above - layer))  # type: ignore[attr-defined]


class TunedEncoder(nn.Module):
    """Front end and encoder of a pretrained model.

    Args:
        settings: of the pretrained model.
        tuning: regularisation while training.
        freeze_encoder: the encoder gets no gradient and stays in eval mode.
    """

    def __init__(self, settings: BridleSettings, tuning: EncoderTuning, freeze_encoder: bool) -> None:
        super().__init__()
        s = self.settings = settings
        self.finetuning, self.freeze_encoder = tuning, freeze_encoder
        self.front_end = front_end_of(s)
        self.encoder = Encoder(
            self.front_end.patch_dim, s.encoder_width, s.encoder_depth, s.encoder_heads, drop_path=tuning.drop_path
        )
        if freeze_encoder:
            self.encoder.requires_grad_(False)
        elif tuning.layer_decay != 1:
            decay_learning_rates(self.encoder, self.encoder.blocks, tuning.layer_decay)

    def train(self, mode: bool = True) -> "TunedEncoder":
        """As of any module, but a frozen encoder stays in eval mode: fairseq's trainer calls this at every update."""
        super().train(mode)
        if self.freeze_encoder:
            self.encoder.eval()
        return self

    def patches(self, source: Tensor, padding_mask: Tensor | None = None) -> Patches:
        """Patches of a batch, with SpecAugment while training."""
        hides = self.finetuning.spec_augment_frames or self.finetuning.spec_augment_mel_bins
        return self.front_end(source, padding_mask, self._spec_augment if self.training and hides else None)

    def _spec_augment(self, x: Tensor, frame_padding: Tensor | None) -> Tensor:
        s = self.finetuning
        return spec_augment(x.squeeze(1), frame_padding, s.spec_augment_frames, s.spec_augment_mel_bins).unsqueeze(1)

    def encoding(self, device: torch.device) -> ExitStack:
        """The context in which the encoder runs: its precision, and no gradient where it is frozen."""
        context = ExitStack()
        if self.freeze_encoder:
            context.enter_context(torch.no_grad())
        context.enter_context(autocast(self.settings.precision, device))
        return context
