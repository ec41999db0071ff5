"""Exports in transformers. Importing this module registers them with its Auto classes.

``AutoConfig``, ``AutoModel``, ``AutoModelForAudioClassification``, ``AutoModelForImageClassification``,
``AutoFeatureExtractor`` and ``AutoImageProcessor`` then take a folder of ``bridle export``, or its name on the Hub. The
weights are those of the same file, with the same names, so what ``save_pretrained`` writes is an export as well.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from bridle_fairseq.adapters.transformers_config import BridleConfig
from bridle_fairseq.adapters.transformers_inputs import BridleFeatureExtractor, BridleImageProcessor
from bridle_fairseq.exported.format import CONFIG, MODEL_TYPE, PARTS, new_module, settings_of
from bridle_fairseq.nn.encoder import EncoderOutput
from bridle_fairseq.nn.frontend import FrontEnd, Patches, front_end_of
from bridle_fairseq.nn.pooling import pool_patches
from bridle_fairseq.nn.position import sincos_position
from bridle_fairseq.nn.settings import BridleSettings
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.optional import optional_import

with optional_import("bridle_fairseq.adapters.transformers needs transformers", "'bridle_fairseq[transformers]'"):
    from transformers import (
        AutoConfig,
        AutoFeatureExtractor,
        AutoImageProcessor,
        AutoModel,
        AutoModelForAudioClassification,
        AutoModelForImageClassification,
        PreTrainedModel,
    )
    from transformers.modeling_outputs import SequenceClassifierOutput
    from transformers.utils import ModelOutput

NEW = {  # of a part that the export lacks
    "encoder": ("tokenizer_ready",),
    "classifier": ("norm.weight", "norm.bias", "head.weight", "head.bias"),
}


@dataclass
class BridleOutput(ModelOutput):
    """Features of all patches.

    Attributes:
        last_hidden_state: B x N x D, normalized, patches in row-major order of the grid.
        pooler_output: B x D, the mean of a clip's patches, as :meth:`.Pretrained.embed` computes it.
        class_token: B x D, normalized.
        padding_mask: B x N bool, True at padding; None without padding.
        hidden_states: if asked for, the input of the first block and the outputs of all blocks, B x N x D each, not
            normalized.
        grid: patches along each axis: sound (T, F), images (rows, columns).
    """

    last_hidden_state: Tensor | None = None
    pooler_output: Tensor | None = None
    class_token: Tensor | None = None
    padding_mask: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    grid: tuple[int, ...] | None = None


class BridlePreTrainedModel(PreTrainedModel):
    """The modules of an export, under their names in its weights' file.

    Attributes:
        export: the modules as :mod:`bridle_fairseq.exported.format` builds them; its tables of children and buffers
            are this model's own, so that both see the same tensors.
    """

    config_class = BridleConfig
    base_model_prefix = "bridle"
    _supports_sdpa = True
    _no_split_modules = ["Block"]
    _keys_to_ignore_on_load_unexpected = [
        r"^(tokenizer|quantizer|estimator|projection|latent_norm|norm|head|frame_head)\.",
        "^tokenizer_ready$",
    ]

    def __init__(self, config: BridleConfig, parts: Sequence[str]) -> None:
        super().__init__(config)
        former = getattr(config, "parts", [])
        if "format" not in config.__dict__:
            raise InputError("a BridleConfig without settings; expected one from_pretrained a folder of bridle export")
        if config.modality == "video":
            raise InputError("an export for video; expected one for sound or images: bridle_fairseq.pretrained has it")
        if former == ["tokenizer"]:
            raise InputError("this export holds tokenizer; expected one with encoder or classifier or transcriber")
        self.main_input_name = "input_values" if config.modality == "audio" else "pixel_values"
        config.parts = list(parts)
        self.may_lack = {name for part in parts if part not in former for name in NEW.get(part, ())}
        values = config.to_dict()
        settings = settings_of(values, CONFIG)
        self.__dict__["export"] = new_module(values, settings)
        self.export.front_end = _front_end(settings)
        for table in ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"):
            self.__dict__[table] = self.export.__dict__[table]
        self.post_init()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """As in transformers, from safetensors only, and in float32 unless another ``dtype`` is asked for.

        transformers builds a model without memory and fills it from the file. What is not in the file, such as mel
        filters, would be left undefined: it is computed again here.

        Raises:
            InputError: the weights do not fit ``config.json``.
        """
        asked, names = kwargs.pop("output_loading_info", False), ("dtype", "torch_dtype")
        dtype = next((value for value in [kwargs.pop(name, None) for name in names] if value is not None), "auto")
        kwargs |= {"use_safetensors": True, "dtype": torch.float32}
        model, found = super().from_pretrained(pretrained_model_name_or_path, *args, output_loading_info=True, **kwargs)
        other_size = {row[0] for row in found["mismatched_keys"]}  # only with ignore_mismatched_sizes
        for name in sorted(set(found["missing_keys"]) - model.may_lack - other_size):
            raise InputError(f"{pretrained_model_name_or_path}: weights that do not fit {CONFIG} ({name} is missing)")
        model._restore_unsaved(found["missing_keys"])
        if dtype != "auto":  # codebooks, averages and filters keep float32
            model = model.to(getattr(torch, dtype) if isinstance(dtype, str) else dtype)
            model.config.dtype = model.dtype
        return (model, found) if asked else model

    def _init_weights(self, module: torch.nn.Module) -> None:
        """Initialize a new head; all other modules have been initialized when they were built."""
        if module is getattr(self, "head", None):
            torch.nn.init.trunc_normal_(module.weight, std=0.02)
            torch.nn.init.zeros_(module.bias)
        elif module is getattr(self, "norm", None):
            torch.nn.init.ones_(module.weight)
            torch.nn.init.zeros_(module.bias)

    def _restore_unsaved(self, missing: Collection[str]) -> None:
        """Compute the buffers that are not in the file: those of the front end; sums of a batch begin at zero."""
        if "tokenizer_ready" in missing:
            self.export.tokenizer_ready = torch.tensor(False)
        device = next(self.parameters()).device
        self.export.front_end = _front_end(self.export.settings).to(device)
        for prefix, module in self.named_modules():
            for name in module._non_persistent_buffers_set:
                if not prefix.startswith("front_end"):
                    module._buffers[name] = torch.zeros_like(module._buffers[name], device=device)

    def _inputs(
        self, values: Tensor | None, mask: Tensor | None, pixels: Tensor | None, pixel_mask: Tensor | None
    ) -> Any:
        """The batch and its padding mask as the front end takes them."""
        source, valid = (values, mask) if self.config.modality == "audio" else (pixels, pixel_mask)
        if source is None:
            raise InputError(f"no {self.main_input_name}; expected them, as it is a model for {self.config.modality}")
        return source, None if valid is None else ~valid.bool()

    def _encoded(
        self, source: Tensor, padding: Tensor | None, with_layers: bool
    ) -> tuple[EncoderOutput, Patches, tuple[Tensor, ...] | None]:
        """Output of the encoder, the patches, and hidden states if they are asked for."""
        patches = self.front_end(source, padding)
        out = self.encoder(patches.x, patches.grid, patches.padding_mask, with_layers=with_layers)
        if not with_layers:
            return out, patches, None
        embed = self.encoder.patch_embed
        position = sincos_position(patches.grid, self.encoder.width, like=self.encoder.class_token)
        return out, patches, (embed(patches.x.to(embed.weight.dtype)) + position, *out.layers)


class BridleModel(BridlePreTrainedModel):
    """Encoder of an export, and its tokenizer if it has one."""

    def __init__(self, config: BridleConfig) -> None:
        super().__init__(config, [part for part in PARTS if part in getattr(config, "parts", ())] or ["encoder"])

    def forward(
        self,
        input_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        pixel_mask: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **others: Any,
    ) -> BridleOutput | tuple[Any, ...]:
        """Features of all patches.

        Args:
            input_values: sound: B x S waveforms in [-1, 1], at the model's rate.
            attention_mask: sound: B x S, 0 after the end of a shorter clip.
            pixel_values: images: B x 3 x height x width, from 0 to 1 (or uint8).
            pixel_mask: images: B x height x width, 0 outside a smaller image.
            output_hidden_states: also return the output of each block.
            return_dict: False: a tuple of what is not None.
            others: of transformers, without effect.

        Raises:
            InputError: inputs of the other modality.
        """
        source, padding = self._inputs(input_values, attention_mask, pixel_values, pixel_mask)
        with_layers = _either(output_hidden_states, self.config.output_hidden_states)
        out, patches, hidden = self._encoded(source, padding, with_layers)
        mean = pool_patches(out, patches.grid, patches.padding_mask, "mean")
        output = BridleOutput(out.x, mean, out.class_token, patches.padding_mask, hidden, patches.grid)
        return output if _either(return_dict, self.config.return_dict) else output.to_tuple()

    def tokenize(
        self,
        input_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        pixel_mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None, tuple[int, ...]]:
        """Codes of all patches: B x N x K, the padding mask of patches (B x N or None), and the grid.

        Args:
            input_values, attention_mask, pixel_values, pixel_mask: as in :meth:`forward`.

        Raises:
            InputError: an export without a tokenizer, or inputs of the other modality.
        """
        if "tokenizer" not in self.config.parts:
            raise InputError(f"this export holds {' and '.join(self.config.parts)}; expected one with tokenizer")
        return self.export.tokenize(*self._inputs(input_values, attention_mask, pixel_values, pixel_mask))


class BridleClassification(BridlePreTrainedModel):
    """A classifier of clips or images: that of an export, or a new head on its encoder."""

    modality = ""

    def __init__(self, config: BridleConfig) -> None:
        if getattr(config, "modality", self.modality) != self.modality:
            raise InputError(f"an export for {config.modality}; expected one for {self.modality}")
        config.pooling = getattr(config, "pooling", "mean")
        super().__init__(config, ["classifier"])

    def forward(
        self,
        input_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        pixel_mask: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **others: Any,
    ) -> SequenceClassifierOutput | tuple[Any, ...]:
        """Logits of the classes, B x classes, and the loss if there are labels.

        Args:
            input_values, attention_mask, pixel_values, pixel_mask: as in :meth:`BridleModel.forward`.
            labels: B class numbers; B x classes from 0 to 1 with ``problem_type`` "multi_label_classification".
            output_hidden_states, return_dict, others: as in :meth:`BridleModel.forward`.
        """
        source, padding = self._inputs(input_values, attention_mask, pixel_values, pixel_mask)
        with_layers = _either(output_hidden_states, self.config.output_hidden_states)
        out, patches, hidden = self._encoded(source, padding, with_layers)
        pooled = pool_patches(out, patches.grid, patches.padding_mask, self.config.pooling)
        logits = self.head(self.norm(pooled.to(self.head.weight.dtype))).float()
        output = SequenceClassifierOutput(self._loss(logits, labels), logits, hidden)
        return output if _either(return_dict, self.config.return_dict) else output.to_tuple()

    def _loss(self, logits: Tensor, labels: Tensor | None) -> Tensor | None:
        if labels is None:
            return None
        if self.config.problem_type == "multi_label_classification":
            return functional.binary_cross_entropy_with_logits(logits, labels.float())
        return functional.cross_entropy(logits, labels)


class BridleForAudioClassification(BridleClassification):
    """A classifier of sound."""

    modality = "audio"


class BridleForImageClassification(BridleClassification):
    """A classifier of images."""

    modality = "image"


def _either(given: bool | None, default: bool | None) -> bool:
    return bool(default if given is None else given)


def _front_end(settings: BridleSettings) -> FrontEnd:
    """A front end that is exact, whatever transformers has made the default dtype."""
    former = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        return front_end_of(settings)
    finally:
        torch.set_default_dtype(former)


AutoConfig.register(MODEL_TYPE, BridleConfig)
AutoModel.register(BridleConfig, BridleModel)
AutoModelForAudioClassification.register(BridleConfig, BridleForAudioClassification)
AutoModelForImageClassification.register(BridleConfig, BridleForImageClassification)
AutoFeatureExtractor.register(BridleConfig, BridleFeatureExtractor)
AutoImageProcessor.register(BridleConfig, slow_image_processor_class=BridleImageProcessor)
