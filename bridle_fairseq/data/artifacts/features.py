"""Features of a corpus: ``{split}.features.json`` and a memory-mapped ``.npy`` file for each layer and pooling.

Pooled features: ``{split}.features.{name}.npy`` is rows x width, in the order of the manifest. A row whose clip could
not be read is all NaN.

Patch features: the file is patches of all rows x width, each row's patches time-major. Row i is
``offsets[i]:offsets[i + 1]`` of ``{split}.features.offsets.npy`` (int64, rows + 1). A row whose clip could not be read
has no patches.

The json (:class:`FeaturesInfo`, the number of rows, the skipped rows) is written last. The features are complete if it
is there.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from bridle_fairseq.data.artifacts.arrays import open_array
from bridle_fairseq.data.artifacts.patch_rows import PatchRows
from bridle_fairseq.data.artifacts.provenance import check_manifest
from bridle_fairseq.data.artifacts.sharding import SAMPLES_PER_BLOCK, BlockResult, ShardedJob, plan_blocks
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.utils.bounds import DEPTH, GRID, HASH, NAME, OTHER_GRID, ROWS, SKIPPED
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.files import atomic_binary, atomic_text
from bridle_fairseq.utils.json_files import read_description
from bridle_fairseq.utils.schema import ListOf, Mapped, OneOf, String, Whole, described, record_of

VERSION = 1
PATCHES = "patches"  # the pooling that keeps all patches
BYTES_PER_BLOCK = 1 << 28
FRAMES_PER_SECOND = 100


@dataclasses.dataclass(frozen=True)
class FeatureArray:
    """One ``.npy`` file.

    Attributes:
        source: where the features come from, such as ``encoder`` or ``log-mel``.
        pooling: ``mean``, ``frequency``, ``class_token``, ``patches``, or another one of the source.
        layer: block of the encoder, from 1; 0 if the source has no layers.
        width: values per row (or per patch).
    """

    source: str = described(NAME)
    pooling: str = described(NAME)
    layer: int = described(Whole(0, DEPTH.high))
    width: int = described(Whole(1, 1 << 24))

    @property
    def name(self) -> str:
        """The name in file names; the source ``encoder`` and the layer 0 are omitted."""
        words = [self.source] * (self.source != "encoder") + [self.pooling] + [f"layer{self.layer}"] * (self.layer > 0)
        return ".".join(words)


_ARRAY = Mapped(record_of(FeatureArray).required, {"file": String()})


@dataclasses.dataclass(frozen=True)
class FeaturesInfo:
    """Content of ``{split}.features.json``.

    Attributes:
        arrays: the files.
        dtype: type of their values, ``float16`` or ``float32``.
        grid: geometry of the patches, by name; in the json these fields stand beside the others. Audio:
            ``sample_rate`` of the model in Hz; ``frequency_patches``, F, patches per time step; ``patch_frames``,
            spectrogram frames per patch; ``chunk_patches``, time patches of a chunk (a shorter clip is one chunk);
            ``overlap_patches``, time patches that neighbouring chunks share. Images and video: as for codes
            (:class:`.codes.CodesInfo`).
        checkpoint_sha256: SHA-256 of the checkpoint; empty if there is none.
        manifest_sha256: :meth:`Manifest.fingerprint` of the manifest.
        version: version of this format.
    """

    arrays: tuple[FeatureArray, ...] = described(ListOf(_ARRAY, 1, 10_000))
    dtype: str = described(OneOf(("float16", "float32")))
    grid: Mapping[str, Any] = described(Mapped({}, GRID, OTHER_GRID))
    checkpoint_sha256: str = described(HASH)
    manifest_sha256: str = described(HASH)
    version: int = described(Whole(VERSION, VERSION), default=VERSION)

    @property
    def has_patches(self) -> bool:
        """Whether some array keeps all patches."""
        return any(array.pooling == PATCHES for array in self.arrays)


class Description(NamedTuple):
    """Content of ``{split}.features.json``."""

    info: FeaturesInfo
    rows: int
    skipped: list[tuple[int, str]]  # (row, reason)


_INFO = record_of(FeaturesInfo)
_BESIDE_GRID = {name: kind for name, kind in _INFO.required.items() if name != "grid"}
_CONTENT = Mapped({**_BESIDE_GRID, "rows": ROWS, "skipped": SKIPPED}, {**_INFO.optional, **GRID}, OTHER_GRID)


def read_features_info(prefix: str | os.PathLike[str]) -> Description:
    """Read ``{prefix}.json``.

    Raises:
        InputError: missing, damaged, or of another version.
    """
    fields = read_description(prefix, "features", VERSION, _CONTENT)
    rows, skipped = fields.pop("rows"), [(row, reason) for row, reason in fields.pop("skipped")]
    for array in fields["arrays"]:
        array.pop("file", None)
    fields["arrays"] = tuple(FeatureArray(**array) for array in fields["arrays"])
    grid = {name: fields.pop(name) for name in set(fields) - {field.name for field in dataclasses.fields(FeaturesInfo)}}
    if {"num_frames", "image_size", "patch_height"} <= set(grid):  # video: "rows" are those of the manifest
        grid["rows"] = -(-grid["image_size"] // grid["patch_height"])
    if not 0 <= grid.get("overlap_patches", 0) < grid.get("chunk_patches", 1):
        raise InputError(
            f"{os.fspath(prefix)}.json: overlap_patches is {grid.get('overlap_patches')}; expected at least 0, and "
            f"less than chunk_patches {grid.get('chunk_patches')}"
        )
    return Description(FeaturesInfo(**fields, grid=grid), rows, skipped)


def write_description(
    prefix: str | os.PathLike[str], info: FeaturesInfo, rows: int, skipped: list[tuple[int, str]]
) -> None:
    """Write ``{prefix}.json`` atomically."""
    prefix = os.fspath(prefix)
    fields: dict[str, Any] = dataclasses.asdict(info)
    grid = fields.pop("grid")
    both = set(grid) & {*fields, "skipped"}
    assert not both, f"{both} are names of a description, so they cannot be fields of its grid"
    for array, array_fields in zip(info.arrays, fields["arrays"], strict=True):
        array_fields["file"] = os.path.basename(f"{prefix}.{array.name}.npy")
    with atomic_text(f"{prefix}.json") as file:
        json.dump({**fields, **grid, "rows": rows, "skipped": skipped}, file, indent=2)
        file.write("\n")


class CachedFeatures:
    """Features of a manifest's rows, read from the memory map.

    Args:
        prefix: path up to and including ``{split}.features``.
        manifest: the one that they must belong to; None: not checked.

    Raises:
        InputError: files missing or damaged, another version, or features of another manifest.
    """

    def __init__(self, prefix: str | os.PathLike[str], manifest: Manifest | None = None) -> None:
        self.prefix = os.fspath(prefix)
        self.info, rows, self.skipped = read_features_info(self.prefix)
        if manifest is not None:
            check_manifest(self.prefix, "features", self.info.manifest_sha256, manifest)
            if rows != len(manifest):
                raise InputError(f"{self.prefix}.json: {rows} rows; expected {len(manifest)}, those of {manifest.name}")
        self._offsets = self._read_offsets(rows) if self.info.has_patches else None
        patches = 0 if self._offsets is None else int(self._offsets[-1])
        self._arrays = {
            array.name: self._open(
                array.name, self.info.dtype, patches if array.pooling == PATCHES else rows, array.width
            )
            for array in self.info.arrays
        }

    def _open(self, name: str, dtype: str, *shape: int) -> np.ndarray:
        return open_array(f"{self.prefix}.{name}.npy", "these features", dtype, shape)

    def _read_offsets(self, rows: int) -> np.ndarray:
        """Where the patches of each row begin, and where the last ones end."""
        offsets = self._open("offsets", "int64", rows + 1)
        sizes = np.diff(offsets)
        if offsets[0] != 0 or (sizes < 0).any() or (sizes % math.prod(self._patch_axes())).any():
            raise InputError(f"{self.prefix}.offsets.npy: damaged; expected ascending numbers from 0, whole time steps")
        return offsets

    def _patch_axes(self) -> list[int]:
        """Patches along each axis but the first."""
        return [self.info.grid[axis] for axis in ("frequency_patches", "rows", "columns") if axis in self.info.grid]

    def __getitem__(self, name: str) -> np.ndarray:
        """The array of this name (:attr:`FeatureArray.name`), memory-mapped."""
        return self._arrays[name]

    def patches(self, name: str, row: int) -> np.ndarray:
        """Features of a row's patches; the first axis is 0 if the clip could not be read.

        Audio: T x F x D. Images: rows x columns x D. Video: T x rows x columns x D.
        """
        assert self._offsets is not None, "these features are pooled"
        flat = self._arrays[name][int(self._offsets[row]) : int(self._offsets[row + 1])]
        return flat.reshape(-1, *self._patch_axes(), flat.shape[-1])

    def patch_rows(self, name: str) -> PatchRows:
        """Features of the patches of all rows, memory-mapped."""
        assert self._offsets is not None, "these features are pooled"
        return PatchRows.of_counts(self._arrays[name], np.diff(self._offsets))


class FeaturesSummary(NamedTuple):
    """What the complete features hold."""

    rows: int
    patches: int
    skipped: list[tuple[int, str]]


class FeaturesJob(ShardedJob):
    """Features, block by block.

    Arrays of a block: one for each of ``info.arrays``, by its name (rows x width, or patches x width), and ``sizes``
    (int64): patches of each row, 0 for a skipped one.
    """

    what = "features"
    info: FeaturesInfo

    def __init__(
        self, prefix: str | os.PathLike[str], info: FeaturesInfo, manifest: Manifest, overwrite: bool = False
    ) -> None:
        names = [array.name for array in info.arrays] + ["offsets"] * info.has_patches
        self.endings = [f"{name}.npy" for name in names]
        blocks = plan_blocks(manifest.sizes, samples=_samples_per_block(info))
        super().__init__(prefix, info, manifest, overwrite, blocks)

    def stored_info(self) -> FeaturesInfo:
        """The content of the complete json."""
        return read_features_info(self.prefix).info

    def _join(self) -> FeaturesSummary:
        results = [self._sizes_of_block(number) for number in range(len(self.blocks))]
        skipped = [entry for result in results for entry in result.skipped]
        sizes = np.concatenate([result.arrays["sizes"] for result in results])
        offsets = np.concatenate([np.zeros(1, np.int64), sizes.cumsum()])
        for array in self.info.arrays:
            rows = int(offsets[-1]) if array.pooling == PATCHES else len(sizes)
            values = (self._values_of_block(n, array, results[n].arrays["sizes"]) for n in range(len(self.blocks)))
            self._write_array(array.name, (rows, array.width), np.dtype(self.info.dtype), values)
        if self.info.has_patches:
            self._write_array("offsets", offsets.shape, offsets.dtype, [offsets])
        write_description(self.prefix, self.info, len(sizes), skipped)
        return FeaturesSummary(len(sizes), int(offsets[-1]), skipped)

    def _sizes_of_block(self, number: int) -> BlockResult:
        result = self.read(number, ["sizes"])
        self.check_sizes(number, result.arrays["sizes"])
        return result

    def _values_of_block(self, number: int, array: FeatureArray, sizes: np.ndarray) -> np.ndarray:
        values = self.read(number, [array.name]).arrays[array.name]
        shape = (int(sizes.sum()) if array.pooling == PATCHES else len(sizes), array.width)
        if values.dtype.kind != "f" or values.shape != shape:
            raise self.damaged(number, f"features of another type or shape; expected {shape[0]} x {shape[1]}")
        return values

    def _write_array(self, name: str, shape: tuple[int, ...], dtype: np.dtype, values: Iterable[np.ndarray]) -> None:
        """Write a ``.npy`` file of this shape from consecutive arrays, one in memory at a time."""
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        with atomic_binary(f"{self.prefix}.{name}.npy") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for array in values:
                file.write(np.ascontiguousarray(array, dtype).data)


def _samples_per_block(info: FeaturesInfo) -> int:
    """Limit of a block, in the manifest's unit, so that its patch features take at most :data:`BYTES_PER_BLOCK`."""
    width = sum(array.width for array in info.arrays if array.pooling == PATCHES)
    if not width:
        return SAMPLES_PER_BLOCK
    bytes_per_patch, grid = width * np.dtype(info.dtype).itemsize, info.grid
    if "sample_rate" in grid:
        patches = FRAMES_PER_SECOND / grid["patch_frames"] * grid["frequency_patches"] / grid["sample_rate"]
    else:
        patches = grid["patches_per_segment"]
    return max(1, min(SAMPLES_PER_BLOCK, int(BYTES_PER_BLOCK / (patches * bytes_per_patch))))
