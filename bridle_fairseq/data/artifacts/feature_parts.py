"""The parts of ``{split}.features.*``, whose format is in :mod:`.feature_files`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bridle_fairseq.data.artifacts.features import PATCHES, FeaturesInfo, read_description, write_description
from bridle_fairseq.data.artifacts.sharding import SAMPLES_OF_CHUNK, Parts, cut, replacing
from bridle_fairseq.data.manifests.manifest import Manifest

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
