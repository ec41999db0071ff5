"""Which packages the patches are for: fairseq 0.12 and hydra-core 1.0. Beside others, nothing is patched."""

from __future__ import annotations

import os
import re
import sys

from fairseq_compat import PatchingFinder

PATCHED = {"fairseq": "0.12.", "hydra": "1.0."}  # package -> beginning of its version
NEEDED_BY = {  # of modules of other packages: who needs the patch
    "_pytest": "hydra",
    "antlr4": "hydra",
    "fairseq_cli": "fairseq",
    "omegaconf": "hydra",
    "torchaudio": "fairseq",
    "torchvision": "fairseq",
}
_VERSION = re.compile(r"""^(?:__version__ = ["'])?(\d+\.\d+\.)""", re.MULTILINE)


def is_patched(module: str) -> bool:
    """Whether a module is patched here: its package, or the one that needs its patch, has the version in ``PATCHED``.

    The version is read from the package that an import would find, without importing it.
    """
    package = module.partition(".")[0]
    package = NEEDED_BY.get(package, package)
    return version_of(package) == PATCHED[package]


def version_of(package: str) -> str | None:
    """First two numbers of a package's version, such as "0.12."; None if it is not installed or says none."""
    folder = _folder_of(package)
    for name in ("version.py", "version.txt", "__init__.py") if folder else ():
        try:
            with open(os.path.join(folder, name), encoding="utf-8") as file:  # type: ignore[arg-type]
                found = _VERSION.search(file.read())
        except (OSError, UnicodeDecodeError):
            continue
        if found:
            return found[1]
    return None


def _folder_of(package: str) -> str | None:
    """Folder of a package that is imported, or that an import would find."""
    if package in sys.modules:
        places = getattr(sys.modules[package], "__path__", None)
        return next(iter(places or ()), None)
    for finder in sys.meta_path:
        if finder is PatchingFinder or not hasattr(finder, "find_spec"):
            continue
        spec = finder.find_spec(package, None, None)
        if spec is not None:
            return next(iter(spec.submodule_search_locations or ()), None)
    return None
