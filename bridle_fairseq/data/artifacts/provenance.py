"""Checks that an artifact was made from a given manifest and by a given checkpoint."""

from __future__ import annotations

import os

from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.files import file_sha256


def check_manifest(prefix: str, what: str, sha256: str, manifest: Manifest) -> None:
    """See that what lies at a prefix was made of this manifest.

    Args:
        prefix: path without ``.json``.
        what: lies there, for the error.
        sha256: of the manifest that it was made of.
        manifest: the one that it must have been made of.

    Raises:
        InputError: it was made of another one.
    """
    fingerprint = manifest.fingerprint()
    if sha256 != fingerprint:
        raise InputError(
            f"{prefix}.json: {what} of another manifest (sha256 {sha256[:12]}); expected "
            f"those of {manifest.name} ({fingerprint[:12]}), the same rows and sizes"
        )


def check_checkpoint(path: str, what: str, sha256: str, checkpoint: str) -> None:
    """See that what a file describes was made by this checkpoint.

    Args:
        path: of the file.
        what: it describes, for the error.
        sha256: of the checkpoint that made it.
        checkpoint: path of the one that must have made it.

    Raises:
        InputError: another one made it, or there is no such checkpoint.
    """
    if not os.path.isfile(checkpoint):
        raise InputError(f"{checkpoint}: no such checkpoint; expected a file that fairseq-hydra-train wrote")
    found = file_sha256(checkpoint)
    if sha256 != found:
        raise InputError(
            f"{path}: {what} of another checkpoint (sha256 {sha256[:12]}); expected those of {checkpoint} "
            f"({found[:12]})"
        )
