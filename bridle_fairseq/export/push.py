"""Upload an export to the Hugging Face Hub, in one commit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bridle_fairseq.export.model_card import HERE
from bridle_fairseq.export.write import CARD, FILES, check_folder
from bridle_fairseq.exported.hub import HUB_NAME, imported_hub, reason_of
from bridle_fairseq.utils.errors import InputError


def check_push(name: str) -> tuple[Any, str, str | None]:
    """What an upload needs, before the work that it ends: the module huggingface_hub, the model's name, its branch.

    Raises:
        InputError: ``name`` is not ``owner/name`` or ``owner/name@branch``, or huggingface_hub is not installed.
    """
    found = HUB_NAME.fullmatch(name)
    if found is None:
        raise InputError(f"--push {name}; expected owner/name or owner/name@branch of the Hugging Face Hub")
    return imported_hub(f"--push {name}"), found["repo"], found["revision"]


def push_export(folder: Path, name: str, private: bool = False) -> str:
    """Upload the files of an export; the model is made if there is none, and its card says its name.

    Files that an earlier export left there and this one lacks, such as ``encoder.onnx``, are removed in the same
    commit. Other files of the model stay.

    Args:
        folder: of the export.
        name: ``owner/name`` or ``owner/name@branch``.
        private: whether a model that is made is private.

    Returns:
        The address of the commit.

    Raises:
        InputError: no export, or it could not be uploaded.
    """
    from bridle_fairseq.pretrained import load

    hub, repo, branch = check_push(name)
    check_folder(folder)
    load(folder)
    present = sorted(path for path in folder.iterdir() if path.name in FILES)
    operations = [hub.CommitOperationAdd(path.name, _contents(path, name)) for path in present]
    try:
        api = hub.HfApi()
        api.create_repo(repo, private=private or None, exist_ok=True)
        if branch is not None:
            api.create_branch(repo, branch=branch, exist_ok=True)
        for missing in sorted(FILES - {path.name for path in present}):
            if api.file_exists(repo, missing, revision=branch):
                operations.append(hub.CommitOperationDelete(missing))
        title = f"Export of bridle_fairseq: {', '.join(path.name for path in present)}"
        return api.create_commit(repo, operations, commit_message=title, revision=branch).commit_url
    except Exception as error:  # of the network, the Hub or the account, of many kinds
        raise InputError(
            f"{folder} was not uploaded to {name} of the Hugging Face Hub ({reason_of(error)}); expected a name of "
            "yours or of your organization, and HF_TOKEN or hf auth login"
        ) from None


def _contents(path: Path, name: str) -> str | bytes:
    """The path of a file; or its contents, the card with the name on the Hub in place of the folder."""
    if path.name != CARD:
        return str(path)
    return path.read_text(encoding="utf-8").replace(HERE, name).encode()
