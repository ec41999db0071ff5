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
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bridle_fairseq.data.artifacts.provenance import check_manifest
from bridle_fairseq.data.artifacts.sharding import SAMPLES_OF_CHUNK, Parts, cut, replacing
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
            for codes (:class:`.codes.CodesInfo`). In the json they stand beside the others.
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


BYTES_OF_CHUNK = 1 << 28
FRAMES_A_SECOND = 100


class Summary(NamedTuple):
    """What a finished corpus holds."""

    rows: int
    patches: int
    skipped: list[tuple[int, str]]


class FeatureParts(Parts):
    """Features of chunks of rows.

    A part's arrays: one for each of ``info.arrays``, by its name (rows x width; patches x width for features of
    patches), and ``sizes`` (int64): patches of each row, 0 for a skipped one.
    """

    what = "features"
    info: FeaturesInfo

    def __init__(
        self, prefix: str | os.PathLike[str], info: FeaturesInfo, manifest: Manifest, overwrite: bool = False
    ) -> None:
        self.endings = [f"{name}.npy" for name in _files(info)]
        super().__init__(prefix, info, manifest, overwrite, cut(manifest.sizes, samples=_samples_of_chunk(info)))

    def stored_info(self) -> FeaturesInfo:
        """What the finished json says."""
        return read_description(self.prefix)[0]

    def _join(self) -> Summary:
        parts = [self.read(number, ["sizes"]) for number in range(len(self.chunks))]
        skipped = [entry for part in parts for entry in part.skipped]
        sizes = np.concatenate([part.arrays["sizes"] for part in parts])
        offsets = np.concatenate([np.zeros(1, np.int64), sizes.cumsum()])
        for array in self.info.arrays:
            rows = int(offsets[-1]) if array.pooling == PATCHES else len(sizes)
            pieces = (self.read(number, [array.name]).arrays[array.name] for number in range(len(self.chunks)))
            self._write_array(array.name, (rows, array.width), np.dtype(self.info.dtype), pieces)
        if "offsets.npy" in self.endings:
            self._write_array("offsets", offsets.shape, offsets.dtype, [offsets])
        write_description(self.prefix, self.info, len(sizes), skipped)
        return Summary(len(sizes), int(offsets[-1]), skipped)

    def _write_array(self, name: str, shape: tuple[int, ...], dtype: np.dtype, pieces: Iterable[np.ndarray]) -> None:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        with replacing(Path(f"{self.prefix}.{name}.npy")) as file:
            np.lib.format.write_array_header_1_0(file, header)
            for piece in pieces:
                file.write(np.ascontiguousarray(piece, dtype).data)


def _files(info: FeaturesInfo) -> list[str]:
    ragged = any(array.pooling == PATCHES for array in info.arrays)
    return [array.name for array in info.arrays] + ["offsets"] * ragged


def _samples_of_chunk(info: FeaturesInfo) -> int:
    """A chunk's size, in the manifest's unit, so small that the features of its patches fit into memory easily."""
    width = sum(array.width for array in info.arrays if array.pooling == PATCHES)
    if not width:
        return SAMPLES_OF_CHUNK
    bytes_a_patch, grid = width * np.dtype(info.dtype).itemsize, info.grid
    if "sample_rate" in grid:
        patches = FRAMES_A_SECOND / grid["patch_frames"] * grid["frequency_patches"] / grid["sample_rate"]
    else:
        patches = grid["patches_per_segment"]
    return max(1, min(SAMPLES_OF_CHUNK, int(BYTES_OF_CHUNK / (patches * bytes_a_patch))))
