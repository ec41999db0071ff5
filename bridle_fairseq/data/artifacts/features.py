"""Features of a corpus: ``{split}.features.json`` and a memory-mapped ``.npy`` file for each layer and pooling.

``{split}.features.{name}.npy`` is rows x width for pooled features, line-aligned with the manifest; a row that could
not be read is all NaN. For features of patches it is all patches of all rows x width, each row's time-major, and
``{split}.features.offsets.npy`` (int64, rows + 1) says where rows begin: row i has ``offsets[i]`` to
``offsets[i + 1]``, a multiple of the patches of a step; a row that could not be read has none. The json
(:class:`FeaturesInfo`, the number of rows, the skipped ones) is written last: the features are complete where it is.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from bridle_fairseq.data.artifacts.codes import check_manifest
from bridle_fairseq.data.manifests.manifest import Manifest, atomic_text
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.files import fields_of

VERSION = 1
PATCHES = "patches"  # the pooling that is none


@dataclasses.dataclass(frozen=True)
class FeatureArray:
    """One ``.npy`` file.

    Attributes:
        source: what the features are of, such as ``encoder`` or ``log-mel``.
        pooling: ``mean``, ``frequency``, ``class_token``, ``patches``, or what a source has else.
        layer: block of the encoder, from 1; 0 where there is none.
        width: values of a row (or of a patch).
    """

    source: str
    pooling: str
    layer: int
    width: int

    @property
    def name(self) -> str:
        """As it stands in file names; what is not said is the encoder."""
        parts = [self.source] * (self.source != "encoder") + [self.pooling] + [f"layer{self.layer}"] * (self.layer > 0)
        return ".".join(parts)


@dataclasses.dataclass(frozen=True)
class FeaturesInfo:
    """What stands in ``{split}.features.json``.

    Attributes:
        arrays: the files.
        dtype: of their values, ``float16`` or ``float32``.
        grid: what a patch's features stand for, by name. Sound: ``sample_rate`` of the model, in Hz;
            ``frequency_patches``, F, patches of one time step; ``patch_frames``, spectrogram frames of a patch;
            ``chunk_patches``: time patches that are encoded at a time; shorter clips are encoded whole;
            ``overlap_patches``: time patches that two neighbouring chunks of a longer clip have in common. Images: as
            for codes (:class:`bridle_fairseq.data.artifacts.codes.CodesInfo`). In the json they stand beside the others.
        checkpoint_sha256: of the checkpoint, empty where there is none.
        manifest_sha256: :meth:`Manifest.fingerprint` of the manifest.
        version: of this format.
    """

    arrays: tuple[FeatureArray, ...]
    dtype: str
    grid: Mapping[str, Any]
    checkpoint_sha256: str
    manifest_sha256: str
    version: int = VERSION


def read_description(prefix: str | os.PathLike[str]) -> tuple[FeaturesInfo, list[tuple[int, str]]]:
    """The info in ``{prefix}.json``, and the skipped rows with their reasons.

    Raises:
        InputError: missing, damaged, or of another version.
    """
    with fields_of(prefix, "features", VERSION) as fields:
        fields.pop("rows")
        skipped = [(int(row), str(reason)) for row, reason in fields.pop("skipped")]
        for array in fields["arrays"]:
            array.pop("file")
        fields["arrays"] = tuple(FeatureArray(**array) for array in fields["arrays"])
        known = {field.name for field in dataclasses.fields(FeaturesInfo)}
        grid = {name: fields.pop(name) for name in set(fields) - known}
        return FeaturesInfo(**fields, grid=grid), skipped


def write_description(
    prefix: str | os.PathLike[str], info: FeaturesInfo, rows: int, skipped: list[tuple[int, str]]
) -> None:
    """Write ``{prefix}.json``, all of it or nothing."""
    prefix = os.fspath(prefix)
    fields: dict[str, Any] = dataclasses.asdict(info)
    fields |= fields.pop("grid")
    for array, described in zip(info.arrays, fields["arrays"], strict=True):
        described["file"] = os.path.basename(f"{prefix}.{array.name}.npy")
    with atomic_text(f"{prefix}.json") as file:
        json.dump({**fields, "rows": rows, "skipped": skipped}, file, indent=2)
        file.write("\n")


class Features:
    """Features of a manifest's rows, read from the memory map.

    Args:
        prefix: path up to and with ``{split}.features``.
        manifest: to which they must belong; None: whichever they are of.

    Raises:
        InputError: files missing or damaged, another version, or features of another manifest.
    """

    def __init__(self, prefix: str | os.PathLike[str], manifest: Manifest | None = None) -> None:
        self.prefix = os.fspath(prefix)
        self.info, self.skipped = read_description(self.prefix)
        if manifest is not None:
            check_manifest(self.prefix, "features", self.info.manifest_sha256, manifest)
        self._arrays = {array.name: self._open(array.name) for array in self.info.arrays}
        ragged = any(array.pooling == PATCHES for array in self.info.arrays)
        self._offsets = self._open("offsets") if ragged else None

    def _open(self, name: str) -> np.ndarray:
        path = f"{self.prefix}.{name}.npy"
        try:
            return np.load(path, mmap_mode="r")
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{path}: cannot read these features: {error}") from None

    def __getitem__(self, name: str) -> np.ndarray:
        """The array of this name (:attr:`FeatureArray.name`), memory-mapped."""
        return self._arrays[name]

    def patches(self, name: str, row: int) -> np.ndarray:
        """Features of a row's patches, T x F x D (images: rows x columns x D, video: T x rows x columns x D).

        The first axis is 0 where the row could not be read.
        """
        assert self._offsets is not None, "no features of patches were asked for"
        found = self._arrays[name][int(self._offsets[row]) : int(self._offsets[row + 1])]
        grid = self.info.grid
        shape = [int(grid[axis]) for axis in ("frequency_patches", "rows", "columns") if axis in grid]
        return found.reshape(-1, *shape, found.shape[-1])
