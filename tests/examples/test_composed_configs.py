"""The composed configurations of examples/ are recorded, so that a change of `base` cannot change `tiny` unnoticed.

composed_configs.json has a line for each setting of a folder that differs from fairseq's default: its value, or the
configurations that have each value. After an intended change, write the file again and read its diff:

    UPDATE_CONFIGS=1 python -m pytest tests/examples/test_composed_configs.py
"""

import difflib
import json
import os
from pathlib import Path

import pytest
from fairseq.dataclass.configs import FairseqConfig
from omegaconf import OmegaConf

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
RECORD = Path(__file__).with_name("composed_configs.json")
OPTIONS = {  # group options that no configuration includes, each with a configuration to use it with
    "audio/pretraining": ["small +variant=fast", "small +variant=plain", "small +variant=vq"],
    "audio/finetuning": ["audioset_20k +probe=audioset_20k", "audioset_2m +probe=audioset_2m"],
    "images/finetuning": ["imagenet +probe=imagenet"],
    "video/finetuning": ["kinetics +probe=kinetics"],
}


def config_folders() -> dict[str, Path]:
    """``audio/pretraining`` and the like -> folder."""
    folders = sorted({path.parent for path in EXAMPLES.glob("*/config/**/*.yaml")})
    folders = [folder for folder in folders if folder.name not in ("variant", "probe")]
    return {str(folder.relative_to(EXAMPLES)).replace("/config", ""): folder for folder in folders}


def flatten(config: dict, prefix: str = "") -> dict:
    """Nested settings -> ``model.encoder_depth`` and the like -> value."""
    values = {}
    for name, value in config.items():
        values |= flatten(value, f"{prefix}{name}.") if isinstance(value, dict) and value else {prefix + name: value}
    return values


def settings_lines(configs: dict[str, dict], defaults: dict) -> list[str]:
    """A line of JSON for each setting: its value, or ``{"configuration, configuration": value, ...}``."""
    names = {name for config in configs.values() for name, value in config.items() if defaults.get(name, ...) != value}
    lines = []
    for name in sorted(names):
        having: dict[str, list[str]] = {}  # value -> configurations
        for config, settings in configs.items():
            if name in settings:
                having.setdefault(json.dumps(settings[name]), []).append(config)
        groups = ", ".join(f"{json.dumps(', '.join(names))}: {value}" for value, names in having.items())
        same = list(having.values()) == [list(configs)]
        lines.append(f"  {json.dumps(name)}: " + (next(iter(having)) if same else "{" + groups + "}"))
    return lines


def test_composed_configs_are_as_recorded(compose_config) -> None:
    defaults = flatten(OmegaConf.to_container(OmegaConf.structured(FairseqConfig), enum_to_str=True))
    folders = []
    for name, folder in config_folders().items():
        commands = sorted(path.stem for path in folder.glob("*.yaml")) + OPTIONS.get(name, [])
        configs = {command: compose_config(*f"{name}/{command}".split()) for command in commands}
        configs = {c: flatten(OmegaConf.to_container(config, enum_to_str=True)) for c, config in configs.items()}
        folders.append(f"{json.dumps(name)}: {{\n" + ",\n".join(settings_lines(configs, defaults)) + "\n}")
    text = "{\n" + ",\n".join(folders) + "\n}\n"
    if os.environ.get("UPDATE_CONFIGS"):
        RECORD.write_text(text, encoding="utf-8")
    recorded = RECORD.read_text(encoding="utf-8")
    diff = list(
        difflib.unified_diff(recorded.splitlines(), text.splitlines(), "recorded", "composed", lineterm="", n=0)
    )
    if diff:
        pytest.fail("\n".join([*diff, "If this is intended: UPDATE_CONFIGS=1, as this file's first lines say"]), False)


def test_every_option_is_composed() -> None:
    for name, folder in config_folders().items():
        used = "\n".join(path.read_text(encoding="utf-8") for path in folder.glob("*.yaml"))
        for path in (*folder.glob("variant/*.yaml"), *folder.glob("probe/*.yaml")):
            group, option = path.parent.name, path.stem
            included = f"- {group}: {option}\n" in used or f"- {group}/{option}" in used
            assert included or any(c.endswith(f" +{group}={option}") for c in OPTIONS.get(name, [])), path
