"""The metadata of a model card: YAML between two lines of dashes, which the Hugging Face Hub reads."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

LIBRARY = "bridle_fairseq"
TAGS = ("bridle", "self-supervised-learning", "residual-quantization", "arxiv:2502.02118")
TASKS = {  # part -> modality -> task of the Hub
    "transcriber": {"audio": "automatic-speech-recognition"},
    "classifier": {modality: f"{modality}-classification" for modality in ("audio", "image", "video")},
    "encoder": {"audio": "feature-extraction", "image": "image-feature-extraction", "video": "feature-extraction"},
}
METRICS = ("accuracy", "mAP", "wer")  # of a classifier or a transcriber, as it logs them; so does the Hub name them
PLAIN = re.compile(r"[A-Za-z][\w.:/-]*")  # what YAML reads as a text without quotation marks ...
NOT_PLAIN = re.compile(r"y|n|yes|no|on|off|true|false|null|.*:", re.IGNORECASE)  # ... but for these


def metadata(
    config: Mapping[str, Any],
    license: str | None,
    datasets: Sequence[str],
    valid_subset: str,
    measured: Mapping[str, float],
) -> list[str]:
    """The lines of the metadata.

    Args:
        config: ``config.json`` of the export.
        license: of the weights.
        datasets: names on the Hub of the data sets of training.
        valid_subset: name of the clips of validation.
        measured: values of the last validation, by the names that are logged.
    """
    modality = config["modality"]
    task = next((TASKS[part].get(modality) for part in TASKS if part in config["parts"]), None)
    values: dict[str, Any] = {"license": license, "library_name": LIBRARY, "pipeline_tag": task}
    values |= {"tags": [modality, *TAGS], "datasets": list(datasets)}
    found = {name: measured[name] for name in METRICS if name in measured}
    if task and found and "encoder" not in config["parts"]:
        values["metrics"] = list(found)
        clips = {"name": valid_subset, "type": valid_subset}
        rows = [{"type": name, "value": value, "name": f"{name}, validation"} for name, value in found.items()]
        results = {"task": {"type": task}, "dataset": clips, "metrics": rows}
        values["model-index"] = [{"name": f"BRIDLE {config['parts'][0]}", "results": [results]}]
    return ["---", *_lines({name: value for name, value in values.items() if value}), "---", ""]


def _lines(value: Any, indent: str = "") -> list[str]:
    """A mapping or a list in YAML's block style."""
    pairs = [(f"{key}:", item) for key, item in value.items()] if isinstance(value, dict) else [("-", x) for x in value]
    lines = []
    for start, item in pairs:
        if not isinstance(item, dict | list):
            lines.append(f"{indent}{start} {_scalar(item)}")
        elif start == "-":
            first, *rest = _lines(item, f"{indent}  ")
            lines += [f"{indent}- {first.strip()}", *rest]
        else:
            lines += [f"{indent}{start}", *_lines(item, indent if isinstance(item, list) else f"{indent}  ")]
    return lines


def _scalar(value: str | float) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return value if PLAIN.fullmatch(value) and not NOT_PLAIN.fullmatch(value) else json.dumps(value)
