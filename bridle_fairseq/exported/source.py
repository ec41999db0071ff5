"""Which export a name stands for: a folder of ``bridle export``, weights of this package, or a model of the Hub."""

from __future__ import annotations

import os
import re
from pathlib import Path

from bridle_fairseq.exported.format import CONFIG, WEIGHTS, read_config
from bridle_fairseq.exported.hub import HUB_NAME, download
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.files import file_sha256
from bridle_fairseq.utils.packaged import packaged

EXPECTED = "a checkpoint of fairseq-hydra-train, a folder of bridle export, or owner/name of the Hugging Face Hub"
OWN_WEIGHTS = packaged("weights")
OWN_NAME = re.compile(r"bridle-[a-z0-9-]+")


def find_export(source: str | os.PathLike[str], revision: str | None = None) -> Path | None:
    """The folder of the export that a name stands for. None: it names a file, or nothing that is there.

    Args:
        source: path of a folder or a file; else the name of weights of this package, such as ``bridle-small-audio``;
            else ``owner/name`` or ``owner/name@revision`` on the Hub, which is downloaded.
        revision: branch, tag or commit of a name on the Hub.

    Raises:
        InputError: a folder that is no export, a name that neither this package nor the Hub knows, or a revision of
            something that is not on the Hub.
    """
    source = os.fspath(source)
    found = None if os.path.lexists(source) or source.endswith(".pt") else HUB_NAME.fullmatch(source)
    if revision is not None and (found is None or found["revision"] not in (None, revision)):
        raise InputError(f"{source}: revision is {revision!r}; expected it with owner/name of the Hub, and once")
    if os.path.isdir(source):
        if not os.path.isfile(os.path.join(source, CONFIG)):
            raise InputError(f"{source}: no such checkpoint, but a folder without {CONFIG}; expected {EXPECTED}")
        return Path(source)
    if OWN_NAME.fullmatch(source) and not os.path.lexists(source):
        names = own_weights()
        if source not in names:
            raise InputError(f"{source}: no such path, and no weights of this package; expected {' or '.join(names)}")
        return OWN_WEIGHTS / source
    return None if found is None else download(found["repo"], revision or found["revision"], EXPECTED)


def own_weights() -> list[str]:
    """Names of the exports that come with this package."""
    return sorted(path.parent.name for path in OWN_WEIGHTS.glob(f"*/{CONFIG}"))


def model_sha256(source: str) -> str:
    """The identity of a model in files of codes and features: the sha256 of its checkpoint.

    An export has that of the checkpoint it was made from: its codes and features are the same.

    Raises:
        InputError: there is no such model.
    """
    folder = find_export(source)
    if folder is not None:
        return read_config(folder).get("checkpoint_sha256") or file_sha256(str(folder / WEIGHTS))
    if not os.path.isfile(source):
        raise InputError(f"{source}: no such checkpoint; expected {EXPECTED}")
    return file_sha256(source)


def check_checkpoint(path: str, what: str, sha256: str, checkpoint: str) -> None:
    """Check that an artifact was made by this model.

    Args:
        path: path of the file that describes the artifact.
        what: name of the artifact in messages.
        sha256: identity of the model that made it.
        checkpoint: the expected one, see :func:`model_sha256`.

    Raises:
        InputError: it was made by another model, or there is no such model.
    """
    expected = model_sha256(checkpoint)
    if sha256 != expected:
        raise InputError(
            f"{path}: {what} of another checkpoint (sha256 {sha256[:12]}); expected those of {checkpoint} "
            f"({expected[:12]})"
        )
