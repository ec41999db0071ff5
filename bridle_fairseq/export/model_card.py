"""The model card of an export, from what its checkpoint says."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bridle_fairseq.export.card_metadata import metadata
from bridle_fairseq.nn.fbank import FRAME_SHIFT_MS
from bridle_fairseq.nn.settings import BridleSettings
from bridle_fairseq.utils.errors import InputError

if TYPE_CHECKING:
    from bridle_fairseq.models.checkpoints import Checkpoint

USES = {
    "encoder": "vectors = model.embed({inputs})  # B x D, pooling='mean'\n"
    "features = model.features({inputs})  # .x B x N x D, .class_token, .grid, .times ...",
    "tokenizer": "codes = model.codes({inputs})  # .codes B x N x K, .padding_mask, .grid",
    "classifier": "model.classify({inputs}, top=5)  # [[(class, probability), ...], ...]",
    "transcriber": "model.transcribe({inputs})  # [text, ...]",
}
NEEDS = {
    "audio": [
        "Needs torch, numpy and safetensors. With soxr, sound of another rate is resampled as in training.",
        "Waveforms are mono, in [-1, 1].",
    ],
    "image": [
        "Needs torch, numpy and safetensors; Pillow to read files.",
        "Images are RGB, 3 x height x width, uint8 or from 0 to 1.",
    ],
    "video": [
        "Needs torch, numpy and safetensors; PyAV and Pillow to read files.",
        "Clips are RGB, frames x height x width x 3, uint8 or from 0 to 1.",
    ],
}
INPUTS = {"audio": "waveforms, sample_rate", "image": "images", "video": "clips"}
READ = {  # an import, and how files are read
    "image": (
        "from bridle_fairseq.pretrained import read_image",
        'images = [read_image(path, model.image_size, model.valid_crop) for path in ("a.jpg", "b.png")]',
    ),
    "video": (
        "from bridle_fairseq.pretrained import read_clip",
        "shown = model.num_frames, model.frame_stride, model.image_size, model.valid_crop",
        'clips = [read_clip(path, *shown) for path in ("a.mp4", "b.webm")]',
    ),
}
HERE = "this/folder"  # of the export, in the commands of its card
NOT_SHOWN = ("wps", "ups", "wpb", "bsz", "wall", "train_wall", "clips_per_second", "stage")


def model_card(
    checkpoint: Checkpoint,
    config: Mapping[str, Any],
    license: str | None,
    about: str = "",
    datasets: Sequence[str] = (),
) -> str:
    """The text of ``README.md`` in an export.

    Args:
        checkpoint: that was exported.
        config: its ``config.json``.
        license: license of the weights.
        about: Markdown that stands below the introduction.
        datasets: names on the Hub of the data sets of training, for its metadata.
    """
    what, modality = " and ".join(config["parts"]), checkpoint.settings.modality
    values = {
        name.removeprefix("valid "): value
        for name, value in _measured(checkpoint)
        if name.startswith("valid ") and math.isfinite(value)
    }
    lines = [
        *metadata(config, license, datasets, _valid_subset(checkpoint), values),
        f"# BRIDLE: {what}",
        "",
        f"Exported by bridle_fairseq {config['bridle_fairseq']} from a checkpoint of the model `{config['model']}`,",
        "trained with residual-quantized codes after arXiv 2502.02118.",
        "",
        *([about.strip(), ""] if about.strip() else []),
        "## Use",
        "",
        *NEEDS[modality],
        "",
        "```python",
        "from bridle_fairseq import pretrained",
        *READ.get(modality, ())[:1],
        "",
        f'model = pretrained.load("{HERE}", device="cpu")',
        *READ.get(modality, ())[1:],
        *[USES[part].format(inputs=INPUTS[modality]) for part in config["parts"]],
        "```",
        "",
    ]
    if config["parts"] != ["tokenizer"]:
        lines += [f"A vector for each file: `bridle embed FILES --model {HERE} --out vectors.npy`", ""]
    auto = _auto_class(config)
    if auto:
        lines += ["In transformers (`pip install 'bridle_fairseq[transformers]'`):", "", "```python"]
        lines += [f"from transformers import {auto}", "", "import bridle_fairseq.adapters.transformers", ""]
        lines += [f'model = {auto}.from_pretrained("{HERE}")', "```", ""]
    for title, rows in (
        ("Model", _model(checkpoint, config)),
        ("Data", _data(checkpoint)),
        ("Training", _training(checkpoint)),
        ("Metrics at this checkpoint", _metrics(checkpoint)),
        ("Licence", [("of the weights", license or "not stated")]),
    ):
        lines += [f"## {title}", "", "| | |", "|---|---|", *[f"| {name} | {value} |" for name, value in rows], ""]
    return "\n".join(lines)


def _auto_class(config: Mapping[str, Any]) -> str | None:
    """The class of transformers that loads the export; None if none does."""
    if config["modality"] not in ("audio", "image") or config["parts"] == ["tokenizer"]:
        return None
    return f"AutoModelFor{config['modality'].title()}Classification" if "classes" in config else "AutoModel"


def _model(checkpoint: Checkpoint, config: Mapping[str, Any]) -> list[tuple[str, str]]:
    s = checkpoint.settings
    rows = _input(s, config)
    if config["parts"] != ["tokenizer"]:
        rows.append(("encoder", f"{s.encoder_depth} blocks, width {s.encoder_width}, {s.encoder_heads} heads"))
    if "tokenizer" in config["parts"]:
        rows.append(("tokenizer", f"{s.tokenizer_depth} blocks, width {s.encoder_width}"))
        rows.append(("codes", f"{s.num_codebooks} x {s.codebook_size}, width {s.codebook_dim}, {s.codebook_metric}"))
        if not bool(checkpoint.weights["tokenizer_ready"]):
            rows.append(("note", "its codes are those of the cold start's random projection"))
    if "classes" in config:
        names = config["classes"]["names"]
        shown = ", ".join(names[:20]) + (" ..." if len(names) > 20 else "")
        rows.append(("classes", f"{len(names)}: {shown}".replace("|", "\\|")))
        how_many = "any number of classes" if config["multi_label"] else "one class"
        rows.append(("head", f"pooling {config['pooling']}, {how_many} a clip"))
    if "symbols" in config:
        kind = {"ltr": "letters", "spm": "pieces of words"}[config["labels"]]
        rows.append(
            ("symbols", f"{len(config['symbols'])}: {kind}, and the four that fairseq's dictionaries begin with")
        )
        frame = s.patch_size[0] * FRAME_SHIFT_MS / config["upsample"]
        rows.append(("head", f"CTC, pooling {config['pooling']}, a frame every {frame:g} ms"))
    if "onnx" in config:
        text = "`encoder.onnx`: waveform and padding_mask to features, class_token and feature_padding"
        rows.append(("ONNX", f"{text}; differed from torch by {config['onnx']['largest_difference']:.1g} at most"))
    if s.precision != "float32":
        rows.append(("precision", f"float32; training with {s.precision} may have rounded its products to bfloat16"))
    if "rounded_from_sha256" in config:
        rows.append(("weights", "rounded to float16; computations are in float32"))
    return [*rows, ("checkpoint", f"sha256 {config.get('checkpoint_sha256') or config['rounded_from_sha256']}")]


def _input(s: BridleSettings, config: Mapping[str, Any]) -> list[tuple[str, str]]:
    sizes = " x ".join(map(str, s.patch_size))
    if s.modality == "audio":
        text = f"{s.sample_rate} Hz, {s.num_mel_bins} mel bins, mean {s.fbank_mean:g}, deviation {s.fbank_std:g}"
        return [("input", text), ("patches", f"{s.patch_size[0]} frames of 10 ms x {s.patch_size[1]} mel bins")]
    of_colours = (", ".join(f"{value:g}" for value in values) for values in (s.pixel_mean, s.pixel_std))
    size = f"{config['image_size']} x {config['image_size']} pixels" if config["image_size"] else "pixels"
    if s.modality == "video":
        size = f"{config['num_frames']} frames, every {config['frame_stride']}. of a file, of {size}"
    patches = f"{sizes} pixels" if s.modality == "image" else f"{sizes}: frames, and pixels of each"
    return [("input", "{}, mean {}, deviation {}".format(size, *of_colours)), ("patches", patches)]


def _data(checkpoint: Checkpoint) -> list[tuple[str, str]]:
    """The manifests by folder and name, with their number of clips if they still exist."""
    from bridle_fairseq.data.manifests.manifest import Manifest
    from bridle_fairseq.models.checkpoint_config import manifests_of_run

    rows = []
    for path in [path for subset in ("train", "valid") for path in manifests_of_run(checkpoint.cfg, subset)]:
        name = _shown(path)
        text = "number of clips not known: the manifest was not there at the export"
        if os.path.isfile(path):  # the name is from a file, so it can be that of a pipe
            with contextlib.suppress(InputError):
                manifest = Manifest.read(path)
                text = f"{len(manifest)} clips, sha256 {manifest.fingerprint()}"
        rows.append((f"`{name}`", text))
    return rows or [("data", "not known")]


def _training(checkpoint: Checkpoint) -> list[tuple[str, str]]:
    updates = checkpoint.updates
    rows = [("updates", "not known" if updates is None else str(updates))]
    if checkpoint.model == "bridle":
        schedule = checkpoint.settings.schedule()
        for start, stage in zip(schedule.starts, schedule.stages, strict=True):
            done = stage.updates if updates is None else min(max(updates - start, 0), stage.updates)
            rows.append((f"stage: {stage.kind}", f"{done} of {stage.updates} updates"))
    hours = (checkpoint.value((int, float), "extra_state", "previous_training_time") or 0) / 3600
    return [*rows, ("time", f"{hours:.2f} h")] if hours else rows


def _cell(text: str) -> str:
    """Text from a file as a table's cell: in one line, of limited length."""
    return " ".join(text[:200].split()).replace("|", "\\|")


def _valid_subset(checkpoint: Checkpoint) -> str:
    """Folder and name of the manifest of validation, as the card has it."""
    from bridle_fairseq.models.checkpoint_config import manifests_of_run

    return next((_shown(path) for path in manifests_of_run(checkpoint.cfg, "valid")), "validation")


def _shown(path: str) -> str:
    return _cell("/".join(Path(os.path.normpath(path)).parts[-2:])).replace("`", "'")


def _measured(checkpoint: Checkpoint) -> list[tuple[str, float]]:
    """Averages of the last validation, else of the last training updates, as stored in the checkpoint."""
    for split in ("valid", "train"):
        found = []
        for number in range(len(checkpoint.value(list, "extra_state", "metrics", split) or [])):
            where = "extra_state", "metrics", split, number
            name, kind = (checkpoint.value(str, *where, place) or "" for place in (1, 2))
            total, count = (checkpoint.value((int, float), *where, 3, key) for key in ("sum", "count"))
            if kind == "AverageMeter" and count and total is not None and not name.startswith("_"):
                if name not in NOT_SHOWN:
                    found.append((f"{split} {name}", total / count))
        if found:
            return found
    return []


def _metrics(checkpoint: Checkpoint) -> list[tuple[str, str]]:
    rows = [(_cell(name), f"{value:.4g}") for name, value in _measured(checkpoint)]
    return rows or [("metrics", "none in the checkpoint")]
