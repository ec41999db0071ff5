"""Checks of what an artifact was made from: manifest, settings."""

from __future__ import annotations

import dataclasses
from typing import Any

from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.utils.errors import InputError

SHA256_LENGTH = 64


def check_manifest(prefix: str, what: str, sha256: str, manifest: Manifest) -> None:
    """Check that an artifact was made from this manifest.

    Args:
        prefix: path of the artifact without ``.json``.
        what: name of the artifact in messages.
        sha256: fingerprint of the manifest it was made from.
        manifest: the expected one.

    Raises:
        InputError: it was made from another manifest.
    """
    expected = manifest.fingerprint()
    if sha256 != expected:
        raise InputError(
            f"{prefix}.json: {what} of another manifest (sha256 {sha256[:12]}); expected "
            f"those of {manifest.name} ({expected[:12]}), the same rows and sizes"
        )


def check_settings(prefix: str, what: str, stored: Any, expected: Any) -> None:
    """Check that an artifact that is already there was made with the same settings.

    Args:
        prefix: path of the artifact without ``.json``.
        what: name of the artifact in messages.
        stored, expected: descriptions, dataclasses of one type.

    Raises:
        InputError: a setting differs.
    """
    stored_fields = _flat_fields(stored)
    for name, value in _flat_fields(expected).items():
        if stored_fields[name] != value:
            raise InputError(
                f"{prefix}.json: {what} with {name} {_shown(stored_fields[name])} are there; expected {_shown(value)}, "
                "or none: choose another --out, or replace them with --overwrite"
            )


def _flat_fields(info: Any) -> dict[str, Any]:
    """The fields of a dataclass by name; those of a nested dataclass stand among them."""
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(info):
        value = getattr(info, field.name)
        fields |= _flat_fields(value) if dataclasses.is_dataclass(value) else {field.name: value}
    return fields


def _shown(value: object) -> str:
    """A value as messages show it, shortened."""
    text = str(value)
    return text[:12] if len(text) == SHA256_LENGTH else text[:80]
