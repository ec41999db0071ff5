"""Files of an earlier run in the same folder that do not fit the new manifests: renamed, so that none is used."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.utils.errors import InputError

SPLITS = ("train", "valid", "test")


def set_aside_splits(folder: Path, manifests: Mapping[str, Manifest]) -> None:
    """Rename the manifest of a split that is not written now, if it has clips of those that are; its labels, too.

    Args:
        folder: of the manifests.
        manifests: what is written now, by split.
    """
    if not any(split in manifests for split in SPLITS):
        return
    for split in SPLITS:
        path = folder / f"{split}.tsv"
        earlier = None if split in manifests else _read(path)
        if earlier is None:
            continue
        paths = {os.path.abspath(earlier.path(row)) for row in range(len(earlier))}
        common = sum(os.path.abspath(new.path(row)) in paths for new in manifests.values() for row in range(len(new)))
        if common:
            _rename(path, f"is of an earlier run, and {common} of its clips are in the new splits")
            if path.with_suffix(".lbl").exists():
                _rename(path.with_suffix(".lbl"), "belongs to it")


def set_aside_labels(path: Path, manifest: Manifest) -> None:
    """Rename the labels beside a manifest, which is about to be written without labels and with other rows.

    Args:
        path: of the manifest.
        manifest: what is written.
    """
    labels, earlier = path.with_suffix(".lbl"), _read(path)
    if labels.exists() and (earlier is None or earlier.fingerprint() != manifest.fingerprint()):
        _rename(labels, f"has the labels of other rows than {path.name} has now")


def _read(path: Path) -> Manifest | None:
    try:
        return Manifest.read(path)
    except InputError:
        return None


def _rename(path: Path, reason: str) -> None:
    os.replace(path, f"{path}.old")
    print(f"{path} {reason}: renamed to {path.name}.old", file=sys.stderr)
