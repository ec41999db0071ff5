"""Exports on the Hugging Face Hub. huggingface_hub is imported only when a name on the Hub is used.

What its users know holds here: ``HF_HOME`` is the cache, ``HF_TOKEN`` or ``hf auth login`` the account, ``HF_ENDPOINT``
another server, and ``HF_HUB_OFFLINE=1`` means that only the cache is read.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from bridle_fairseq.exported.format import CONFIG, WEIGHTS
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.optional import optional_import

HUB_NAME = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./-]+))?")
REASONS = {  # error of huggingface_hub -> what it means; the first that fits
    "GatedRepoError": "its authors want you to accept their terms on its page, and hf auth login",
    "RepositoryNotFoundError": "no such model there, or a private one of others: hf auth login",
    "RevisionNotFoundError": "no such revision",
}


def imported_hub(need: str) -> Any:
    """The module huggingface_hub.

    Args:
        need: the beginning of the sentence if it is not installed.

    Raises:
        InputError: it is not.
    """
    with optional_import(f"{need} needs huggingface_hub", "'bridle_fairseq[hub]'"):
        import huggingface_hub
    return huggingface_hub


def reason_of(error: Exception) -> str:
    """An error of huggingface_hub, the network or the cache, in a few words."""
    names = {kind.__name__ for kind in type(error).__mro__}
    known = next((text for name, text in REASONS.items() if name in names), None)
    said = (str(error).strip().splitlines() or [""])[0].split(". ")[0][:160]
    return known or said or type(error).__name__


@lru_cache
def download(repo: str, revision: str | None, expected: str) -> Path:
    """The folder of an export of the Hub, in the cache of huggingface_hub.

    Args:
        repo: ``owner/name``.
        revision: branch, tag or commit; None: ``main``.
        expected: the end of the sentence if there is none.

    Raises:
        InputError: huggingface_hub is missing, or there is no such model, or one that is no export.
    """
    name = repo if revision is None else f"{repo}@{revision}"
    hub = imported_hub(f"{name}: no such path, and a name on the Hub")
    try:
        folder = Path(hub.snapshot_download(repo, revision=revision, allow_patterns=[CONFIG, WEIGHTS]))
    except Exception as error:  # of many kinds
        raise InputError(
            f"{name}: no such path, and not to be had from the Hugging Face Hub ({reason_of(error)}); "
            f"expected {expected}"
        ) from None
    for file in (CONFIG, WEIGHTS):
        if not (folder / file).is_file():
            raise InputError(f"{name}: a model of the Hugging Face Hub without {file}; expected one of bridle export")
    return folder
