"""The configurations of ``examples/`` by name, and any configuration as fairseq-hydra-train composes it."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.packaged import packaged

if TYPE_CHECKING:
    from omegaconf import DictConfig

EXAMPLES = packaged("examples")
KINDS = ("pretraining", "finetuning", "")  # in this order for a name without one


class Config(NamedTuple):
    """A configuration as fairseq-hydra-train takes it."""

    folder: Path
    name: str


def config_names() -> list[str]:
    """Names of all configurations of ``examples/``: ``audio/small``, ``audio/finetuning/tiny`` ..."""
    names = []
    for path in sorted(EXAMPLES.glob("*/config/**/*.yaml")):
        group, _, *kind = path.relative_to(EXAMPLES).parent.parts
        if len(kind) <= 1:  # folders below hold what is added to a configuration
            names.append("/".join([group, *(name for name in kind if name != "pretraining"), path.stem]))
    return names


def find_config(name: str) -> Config:
    """The configuration of a name such as ``audio/small``, or the one in a file ``my/own.yaml``.

    ``audio/tiny`` is a configuration of pretraining; ``audio/finetuning/tiny`` one of fine-tuning.

    Raises:
        InputError: there is none; the sentence has the nearest names.
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name).absolute()
        if not path.is_file() or path.suffix != ".yaml":
            raise InputError(f"{name}: no such file; expected a configuration, *.yaml")
        return Config(path.parent, path.stem)
    group, *kind, stem = ("", *name.split("/")) if "/" not in name else name.split("/")
    group = {"image": "images", "videos": "video"}.get(group, group)
    for candidate in kind[:1] or KINDS:
        folder = EXAMPLES / group / "config" / candidate
        if len(kind) <= 1 and (folder / f"{stem}.yaml").is_file():
            return Config(folder, stem)
    raise InputError(f"no configuration {name!r}; expected {_suggestions(name)}, or a file *.yaml")


def _suggestions(name: str) -> str:
    names = config_names()
    same = [known for known in names if name in (known.split("/")[0], known.split("/")[-1])]
    near = same or difflib.get_close_matches(name, names, 3, 0.5)
    return f"one of {', '.join(near or names)}"


def compose(config: Config, overrides: Sequence[str]) -> DictConfig:
    """The configuration with its overrides, over the defaults of fairseq, of its task and of its model.

    Raises:
        Exception: of hydra and omegaconf, for mistakes in files and overrides.
    """
    from fairseq.dataclass.initialize import hydra_init
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra
    from hydra.experimental import compose as hydra_compose
    from hydra.experimental import initialize_config_dir

    import bridle_fairseq

    bridle_fairseq.register()
    hydra_init(config.name)
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(config_dir=str(config.folder)):
            return _with_defaults(hydra_compose(config.name, overrides=list(overrides)))
    finally:  # fairseq's schema of this configuration must not be merged into the next one's defaults
        GlobalHydra.instance().clear()
        del ConfigStore.instance().repo[f"{config.name}.yaml"]


def _with_defaults(cfg: DictConfig) -> DictConfig:
    """Task and model as fairseq completes them when it builds them: a model's modality is that of its task."""
    from fairseq.dataclass.utils import merge_with_parent
    from fairseq.models import MODEL_DATACLASS_REGISTRY
    from fairseq.tasks import TASK_DATACLASS_REGISTRY

    for part, known in (("task", TASK_DATACLASS_REGISTRY), ("model", MODEL_DATACLASS_REGISTRY)):
        defaults = known.get((cfg.get(part) or {}).get("_name"))
        if defaults is not None:
            cfg[part] = merge_with_parent(defaults(), cfg[part])
    return cfg
