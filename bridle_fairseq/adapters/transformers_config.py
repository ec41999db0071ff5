"""``config.json`` of an export as a configuration of transformers."""

from __future__ import annotations

from typing import Any

from bridle_fairseq.exported.format import CONFIG, MODEL_TYPE, check_config, settings_of
from bridle_fairseq.utils.optional import optional_import

with optional_import("bridle_fairseq.adapters.transformers needs transformers", "'bridle_fairseq[transformers]'"):
    from transformers import PretrainedConfig

OF_THE_FILE = ("checkpoint_sha256", "rounded_from_sha256", "onnx")  # untrue when the weights have been changed


class BridleConfig(PretrainedConfig):
    """``config.json`` of an export, with the names that transformers gives to classes and sizes.

    Attributes:
        parts, settings, classes, pooling ...: as in ``config.json``.
        id2label, label2id, num_labels, problem_type: of a classifier, from ``classes`` and ``multi_label``.
    """

    model_type = MODEL_TYPE

    def __init__(self, **values: Any) -> None:
        values = {name: value for name, value in values.items() if name not in OF_THE_FILE}
        values.pop("model_type", None)
        if "format" in values:
            check_config(values, CONFIG)
            settings_of(values, CONFIG)
            _name_classes(values)
        super().__init__(**values)

    @property
    def hidden_size(self) -> int:
        """Width of the encoder, D."""
        return self.settings["encoder_width"]

    @property
    def num_hidden_layers(self) -> int:
        """Number of the encoder's blocks."""
        return self.settings["encoder_depth"]

    @property
    def num_attention_heads(self) -> int:
        """Number of heads in each block."""
        return self.settings["encoder_heads"]

    def to_dict(self) -> dict[str, Any]:
        """The values as ``config.json`` of an export has them: classes are those of ``id2label``."""
        values = super().to_dict()
        if values.get("parts") == ["classifier"]:
            names = [str(self.id2label[number]) for number in range(self.num_labels)]
            former = values.get("classes", {})
            values["classes"] = former if former.get("names") == names else {"ids": names, "names": names}
            values["multi_label"] = self.problem_type == "multi_label_classification"
        return values


def _name_classes(values: dict[str, Any]) -> None:
    """Add transformers' names of the classes to the values of ``config.json``, unless others are asked for."""
    names = values.get("classes", {}).get("names", [])
    if not names or values.get("num_labels") not in (None, len(names)):
        return
    if values.get("id2label") is None:
        values["id2label"] = dict(enumerate(names))
        values["label2id"] = {name: number for number, name in enumerate(names)}
    if values.get("problem_type") is None and (values["multi_label"] or len(names) > 1):
        values["problem_type"] = f"{'multi' if values['multi_label'] else 'single'}_label_classification"
