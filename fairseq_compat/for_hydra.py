"""Patch that answers a mistake in the command line or in a configuration with one sentence and the nearest name."""

from __future__ import annotations

import difflib
import importlib.util
import os
import re
import sys
from collections.abc import Iterable, Iterator
from types import FrameType, ModuleType
from typing import Any

from fairseq_compat.for_errors import RunError, print_and_exit

KINDS = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false"}
NAMES_SHOWN = 12


def explain_mistakes(module: ModuleType) -> None:
    """Needed on every version: a mistake in a configuration ends in omegaconf's classes or in a traceback.

    The patch of ``fairseq_cli.hydra_train`` checks the names of folder and configuration, of which fairseq takes any,
    and names errors of hydra and omegaconf. ``HYDRA_FULL_ERROR=1`` keeps the traceback.
    """
    from hydra._internal import utils

    main, report = module.cli_main, utils.run_and_report

    def cli_main() -> None:
        try:
            check_configuration_names(utils.get_args_parser().parse_known_args()[0])
        except RunError as error:
            print_and_exit(str(error))
        main()

    def run_and_report(function: Any) -> Any:
        def explained() -> Any:
            try:
                return function()
            except Exception as error:
                sentence = explain_mistake(error)
                if sentence:
                    print_and_exit(sentence)
                raise

        return report(explained)

    module.cli_main = cli_main  # type: ignore[attr-defined]
    utils.run_and_report = run_and_report


def check_configuration_names(args: Any) -> None:
    """Raise :class:`RunError` if ``--config-dir`` or ``--config-name`` does not exist."""
    import fairseq

    folder, name = args.config_dir, args.config_name
    if folder is not None and not os.path.isdir(folder):
        hint = "" if os.path.isabs(folder) else f" (here: {os.getcwd()})"
        raise RunError(f"--config-dir {folder}: no such folder{hint}; expected one with configurations (*.yaml)")
    if name is None or args.config_path is not None:
        return
    folders = [path for path in (folder, os.path.join(os.path.dirname(fairseq.__file__), "config")) if path]
    files = [os.path.join(path, f"{name.removesuffix('.yaml')}.yaml") for path in folders]
    if any(map(os.path.isfile, files)):
        return
    if folder is None:
        raise RunError(f"--config-name {name}, but --config-dir is missing; expected the folder of {name}.yaml")
    names = sorted(file.removesuffix(".yaml") for file in os.listdir(folder) if file.endswith(".yaml"))
    raise RunError(f"--config-name {name}: no such configuration in {folder}; {_choice(name, names)}")


def explain_mistake(error: BaseException) -> str:
    """The sentence of an error that follows from a wrong command line or configuration; empty for any other."""
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        return ""
    import yaml
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark
        return f"{mark.name}, line {mark.line + 1}: no YAML ({error.problem})" if mark else ""
    if isinstance(error, OmegaConfBaseException):
        return _of_value(error)
    if type(error).__module__ == "hydra.errors":
        return _of_hydra(error)
    return _of_fairseq(error)


def _of_hydra(error: BaseException) -> str:
    """Errors of hydra while it composes the configuration."""
    from omegaconf.errors import OmegaConfBaseException

    text = " ".join(str(error).split())
    kind = type(error).__name__
    if kind == "OverrideParseException":
        override = str(getattr(error, "override", ""))
        if "=" not in override:
            return f"{override!r} sets nothing; expected KEY=VALUE, without spaces around ="
        return (
            f"{override!r} cannot be read; expected KEY=VALUE, in quotes for the shell: "
            "'KEY=[1]' for a list, 'KEY=\"a=b, c\"' for a text with special characters"
        )
    if kind == "MissingConfigException":
        missing = getattr(error, "missing_cfg_file", None) or text
        options = getattr(error, "options", None) or []
        folder, _, name = str(missing).removesuffix(".yaml").rpartition("/")
        where = f"group {folder}" if folder else "the folders of configurations"
        return f"{missing}: no such configuration in {where}" + (f"; {_choice(name, options)}" if options else "")
    group = re.match(r"Could not override '([^']+)'\. No match in the defaults list", text)
    if group:
        return (
            f"{group[1]}=...: the configuration has no choice of {group[1]} among its defaults; "
            f"expected +{group[1]}=NAME, or a single value such as {group[1]}._name=NAME"
        )
    cause = error.__cause__
    return (_of_value(cause) if isinstance(cause, OmegaConfBaseException) else "") or text


def _of_value(error: Any) -> str:
    """Errors of omegaconf: an unknown key, a value of another type, an interpolation that leads nowhere."""
    path = str(error.full_key or error.key or "")
    group = _group_of(error.object_type)
    if group and not path.startswith(f"{group}."):
        path = f"{group}.{path}"
    text = " ".join(str(error.msg or error).partition("\n")[0].split())
    missing = re.search(r"interpolation key '(.*)' not found|Environment variable '(.*)' not found", text)
    if missing:
        return _interpolation(missing[1] or f"env:{missing[2]}")
    if type(error).__name__ in ("ConfigAttributeError", "ConfigKeyError") and text.startswith("Key "):
        return _unknown_key(path, error.parent_node, error.object_type)
    value = re.match(r"Value '(.*)' could not be converted to (\w+)", text)
    if value:
        return f"{path} is {value[1]}; expected {KINDS.get(value[2], value[2])}"
    if "is not a subclass of ListConfig or list" in text:
        return f"{path} is no list; expected one, such as '{path}=[1]'"
    return f"{path}: {text}" if path else text


def _interpolation(name: str) -> str:
    text = f"${{{name}}}"
    place = next((argument for argument in sys.argv if text in argument), text)
    resolver, colon, variable = name.partition(":")
    if resolver == "env" and colon:
        return f"{place}: there is no environment variable {variable}"
    if colon:
        return f"{place}: hydra 1.0 has no resolver {resolver}; expected a key of the configuration, or ${{env:NAME}}"
    return f"{place}: the configuration has no key {name}; expected one that it has, or ${{env:NAME}}"


def _unknown_key(path: str, parent: Any, kind: Any) -> str:
    prefix, dot, key = path.rpartition(".")
    known = _keys(parent, kind)
    if not known:
        return f"{path}: the configuration has no such key; expected one that sets {prefix} (--config-name)"
    plain = kind is dict or kind is None  # values of a file: options that it does not set are unknown to hydra
    hint = f" (an option that the configuration does not set needs a plus: +{path}=...)" if plain and prefix else ""
    return f"{path}: no such key; {_choice(key, known, prefix + dot)}{hint}"


def _keys(parent: Any, kind: Any) -> list[str]:
    fields = list(getattr(kind, "__dataclass_fields__", ()))
    try:
        return sorted({*map(str, parent.keys()), *fields} - {"_name"})
    except AttributeError:
        return sorted(set(fields) - {"_name"})


def _of_fairseq(error: BaseException) -> str:
    """Errors of fairseq that looks for what the configuration names."""
    frames = list(_frames(error))
    names = [frame.f_code.co_name for frame in frames]
    last = frames[-1] if frames else None
    if last is None:
        return ""
    if "import_user_module" in names and isinstance(error, (FileNotFoundError, ImportError)):
        given = getattr(frames[names.index("import_user_module")].f_locals.get("args"), "user_dir", "")
        if names[-1] == "import_user_module" and isinstance(error, FileNotFoundError):
            return f"common.user_dir is {given}: no such folder{_relative(given)}; {_user_dir()}"
        return f"common.user_dir is {given}, which cannot be imported ({error}); {_user_dir()}"
    text = str(error)
    if names[-1] == "setup_task" and text.startswith("Could not infer task type"):
        return _unregistered("task", last.f_locals.get("task_name"), frames)
    # fairseq formats its own message with the braces of the configuration in it: a KeyError
    if names[-1] == "build_model" and last.f_locals.get("model", 0) is None:
        return _unregistered("model", last.f_locals.get("model_type"), frames)
    if names[-1] == "build_x" and isinstance(error, KeyError):
        registry = last.f_locals
        return _unregistered(registry["registry_name"], registry["choice"], frames, registry["REGISTRY"])
    return ""


def _unregistered(group: str, name: Any, frames: list[FrameType], known: Iterable[str] = ()) -> str:
    """A name of a task, model, criterion, ... that nothing has registered."""
    from fairseq.models import MODEL_REGISTRY
    from fairseq.tasks import TASK_REGISTRY

    if name is None:
        return f"{group}._name is not set; expected a registered name, or a configuration (--config-name)"
    known = known or {"task": TASK_REGISTRY, "model": MODEL_REGISTRY}.get(group, ())
    user_dir = next((cfg.common.user_dir for cfg in map(_config, frames) if cfg is not None), None)
    if user_dir is None:
        return f"common.user_dir is missing: no {group} {name} in fairseq itself; {_user_dir()}"
    near = difflib.get_close_matches(str(name), list(known), 1, 0.8)
    expected = f"did you mean {near[0]}?" if near else _user_dir()
    return f"{group} {name}: not registered by fairseq or common.user_dir {user_dir}; {expected}"


def _config(frame: FrameType) -> Any:
    """The configuration of fairseq's main function; None for any other frame."""
    cfg = frame.f_locals.get("cfg")
    return cfg if frame.f_code.co_name == "main" and hasattr(cfg, "common") else None


def _frames(error: BaseException) -> Iterator[FrameType]:
    traceback = error.__traceback__
    while traceback is not None:
        yield traceback.tb_frame
        traceback = traceback.tb_next


def _group_of(kind: Any) -> str:
    """The group of a registered dataclass; empty for other types."""
    if not isinstance(kind, type) or "fairseq.registry" not in sys.modules:
        return ""
    from fairseq.models import MODEL_DATACLASS_REGISTRY
    from fairseq.registry import REGISTRIES
    from fairseq.tasks import TASK_DATACLASS_REGISTRY

    registries = {"task": TASK_DATACLASS_REGISTRY, "model": MODEL_DATACLASS_REGISTRY}
    registries |= {name: registry["dataclass_registry"] for name, registry in REGISTRIES.items()}
    return next((name for name, registry in registries.items() if kind in registry.values()), "")


def _relative(path: str) -> str:
    return "" if os.path.isabs(path) else f" below {os.getcwd()} (hydra changes the working directory)"


def _user_dir() -> str:
    """What is expected: the plugin that this package is installed with, if it is there."""
    spec = importlib.util.find_spec("bridle_fairseq")
    folders = list(spec.submodule_search_locations or []) if spec else []
    return f"expected common.user_dir={os.path.abspath(folders[0]) if folders else '/path/to/the/plugin'}"


def _choice(name: str, names: Iterable[str], prefix: str = "") -> str:
    """What was expected: the nearest name, else all of them if they are few."""
    names = list(names)
    near = difflib.get_close_matches(name, names, 1, 0.6)
    if near:
        return f"did you mean {prefix}{near[0]}?"
    shown = ", ".join(names[:NAMES_SHOWN])
    return f"expected one of {shown}{', ...' if len(names) > NAMES_SHOWN else ''}" if names else "there is none"
