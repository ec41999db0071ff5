"""Cached codes of a corpus: ``{split}.codes.{bin,idx,json}``.

``.bin`` and ``.idx`` are fairseq's memory-mapped indexed dataset (:mod:`.indexed`) in uint16, with one item per
manifest row. An item holds the row's segments one after the other: per segment an N x K array, patches in time-major
order, flattened. The item of a row that could not be read is empty.

A clip is tokenized in consecutive segments of the training's crop length. A crop at a segment's boundary therefore has
exactly the codes of that segment.

``.json`` (:class:`CodesInfo`) is written last. The codes are complete if it is there.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from bridle_fairseq.data.artifacts.indexed import IndexedItems, write_index
from bridle_fairseq.data.artifacts.provenance import check_manifest
from bridle_fairseq.data.artifacts.sharding import ShardedJob
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.utils.bounds import ALL_CODES, CODEBOOKS, CODES, GRID, HASH, OTHER_GRID
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.files import atomic_binary, atomic_text
from bridle_fairseq.utils.json_files import read_description
from bridle_fairseq.utils.schema import Mapped, Whole, check_product, described, record_of

VERSION = 1


@dataclasses.dataclass(frozen=True)
class CodesInfo:
    """Content of ``{split}.codes.json``.

    Attributes:
        num_codebooks: K.
        codebook_size: C, at most 65536.
        grid: layout of the segments, by name; see below.
        checkpoint_sha256: SHA-256 of the checkpoint that made the codes.
        manifest_sha256: :meth:`Manifest.fingerprint` of the manifest.
        version: version of this format.

    Layout of all modalities:
        patches_per_segment: N of a full segment.

    Audio:
        segment_samples: length of a segment, the crop length of training.
        min_segment_samples: a shorter last segment is left out unless it is the only one.
        sample_rate: rate of these samples in Hz.
        frequency_patches: F, patches per time step.
        patch_frames: spectrogram frames per patch.

    Images and video (an image, or the clip in the middle of a video, is one segment of length 1):
        image_size: height and width in pixels.
        valid_crop: side of the centre crop, as a fraction of the shorter side.
        patch_height, patch_width: size of a patch in pixels.
        columns: patches of a row.

    Video:
        num_frames: frames of the clip.
        frame_stride: step from one frame of the clip to the next.
        patch_frames: frames per patch.
        rows: rows of patches in a frame.
    """

    num_codebooks: int = described(CODEBOOKS)
    codebook_size: int = described(CODES)
    grid: Mapping[str, Any] = described(Mapped({"patches_per_segment": GRID["patches_per_segment"]}, GRID, OTHER_GRID))
    checkpoint_sha256: str = described(HASH)
    manifest_sha256: str = described(HASH)
    version: int = described(Whole(VERSION, VERSION), default=VERSION)

    @property
    def segment_length(self) -> int:
        """Length of a segment, in the units of the modality's reader."""
        return int(self.grid.get("segment_samples", 1))

    @property
    def min_segment_length(self) -> int:
        """Minimum length of a last segment, in the same units."""
        return int(self.grid.get("min_segment_samples", 1))


CODES_INFO = record_of(CodesInfo)


def read_info(prefix: str | os.PathLike[str]) -> CodesInfo:
    """Read ``{prefix}.json``.

    Raises:
        InputError: missing, damaged, or of another version.
    """
    return info_of(read_description(prefix, "codes", VERSION, CODES_INFO), f"{os.fspath(prefix)}.json")


def info_of(fields: Mapping[str, Any], source: str) -> CodesInfo:
    """The description of codes in the checked fields of a file.

    Raises:
        InputError: more codes than any model has.
    """
    sizes = {name: fields[name] for name in ("num_codebooks", "codebook_size")}
    check_product(ALL_CODES, sizes, source)
    return CodesInfo(**fields)


def write_info(prefix: str | os.PathLike[str], info: CodesInfo) -> None:
    """Write ``{prefix}.json`` atomically."""
    with atomic_text(f"{os.fspath(prefix)}.json") as file:
        json.dump(dataclasses.asdict(info), file, indent=2)
        file.write("\n")


def segment_count(num_samples: int, segment_samples: int, min_segment_samples: int) -> int:
    """Number of segments of a clip; a last segment under the minimum counts only if it is the only one."""
    full, rest = divmod(num_samples, segment_samples)
    return max(1, full + (rest >= max(1, min_segment_samples)))


class CachedCodes:
    """Codes of a manifest's rows, read from the memory map.

    Args:
        prefix: path up to and including ``{split}.codes``.
        manifest: the one that they must belong to; None: not checked.

    Raises:
        InputError: files missing or damaged, another version, or codes of another manifest.
    """

    def __init__(self, prefix: str | os.PathLike[str], manifest: Manifest | None = None) -> None:
        self.prefix = os.fspath(prefix)
        self.info = read_info(self.prefix)
        if manifest is not None:
            check_manifest(self.prefix, "codes", self.info.manifest_sha256, manifest)
        self._items = IndexedItems(self.prefix, np.uint16)
        if manifest is not None and len(self._items) != len(manifest):
            raise InputError(f"{self.prefix}.idx: {len(self._items)} items; expected {len(manifest)}, one per row")

    def check(self, **expected: object) -> None:
        """Check that the codes are what training needs, such as ``num_codebooks=4, segment_samples=163840``.

        Raises:
            InputError: a field has another value.
        """
        stored = {**vars(self.info), **self.info.grid}
        for field, value in expected.items():
            if stored.get(field) != value:
                raise InputError(f"{self.prefix}.json: codes with {field} {stored.get(field)!r}; expected {value!r}")

    def __len__(self) -> int:
        return len(self._items)

    @property
    def sizes(self) -> np.ndarray:
        """Number of codes of each row, all levels together: int32."""
        return self._items.sizes

    def item(self, row: int) -> np.ndarray:
        """All codes of a row: n x K int64; n = 0 if the row could not be tokenized.

        Raises:
            InputError: codes that the codebooks do not have.
        """
        item = self._items[row]
        largest = int(item.max(initial=0))
        if largest >= self.info.codebook_size or len(item) % self.info.num_codebooks:
            raise InputError(
                f"{self.prefix}.bin, item {row + 1}: {len(item)} codes up to {largest}; expected codes below "
                f"{self.info.codebook_size}, {self.info.num_codebooks} a patch"
            )
        return item.reshape(-1, self.info.num_codebooks)  # n x K

    def segment_codes(self, row: int, number: int) -> np.ndarray:
        """Codes of one segment of a row: n x K int64."""
        size = self.info.grid["patches_per_segment"]
        return self.item(row)[number * size : (number + 1) * size]


class CodesSummary(NamedTuple):
    """What the complete codes hold."""

    rows: int
    patches: int
    counts: np.ndarray  # int64, K x C: how often each code occurs
    residual_energy: np.ndarray  # float64, K: mean share of the energy left after each level
    skipped: list[tuple[int, str]]


class CodesJob(ShardedJob):
    """Codes, block by block.

    Arrays of a block: ``codes`` (uint16, all rows' codes one after the other), ``sizes`` (int64, number of codes of
    each row; 0 for a skipped one) and ``energy`` (float64, K: sum over patches of the energy left after each level).
    """

    what = "codes"
    endings = ("bin", "idx")
    info: CodesInfo

    def stored_info(self) -> CodesInfo:
        """The content of the complete json."""
        return read_info(self.prefix)

    def _join(self) -> CodesSummary:
        summary, sizes = self._write_data()
        write_index(self.prefix, sizes, np.uint16)
        write_info(self.prefix, self.info)
        return summary

    def _write_data(self) -> tuple[CodesSummary, list[int]]:
        """Write ``.bin``; a summary, and the number of codes of each row."""
        sizes: list[int] = []
        skipped: list[tuple[int, str]] = []
        counts = np.zeros((self.info.num_codebooks, self.info.codebook_size), np.int64)
        energy = np.zeros(self.info.num_codebooks)
        with atomic_binary(f"{self.prefix}.bin") as file:
            for number in range(len(self.blocks)):
                arrays, skipped_rows = self.read(number, ("codes", "sizes", "energy"))
                self._check_block(number, **arrays)
                file.write(arrays["codes"].astype("<u2").tobytes())
                sizes += arrays["sizes"].tolist()
                skipped += skipped_rows
                energy += arrays["energy"]
                for level, codes in enumerate(arrays["codes"].reshape(-1, self.info.num_codebooks).T):  # K x patches
                    counts[level] += np.bincount(codes, minlength=self.info.codebook_size)
        patches = int(counts[0].sum())
        return CodesSummary(len(sizes), patches, counts, energy / max(patches, 1), skipped), sizes

    def _check_block(self, number: int, codes: np.ndarray, sizes: np.ndarray, energy: np.ndarray) -> None:
        """Check the arrays of a stored block, before they are counted."""
        self.check_sizes(number, sizes)
        if codes.dtype.kind + energy.dtype.kind != "uf" or energy.shape != (self.info.num_codebooks,):
            raise self.damaged(number, "arrays of other types or shapes")
        if (sizes % self.info.num_codebooks).any() or codes.shape != (sizes.sum(),):
            raise self.damaged(number, "sizes that are not those of the codes")
        if codes.max(initial=0) >= self.info.codebook_size:
            raise self.damaged(number, f"code {codes.max()}; expected codes below {self.info.codebook_size}")
