"""Cached codes of a corpus: ``{split}.codes.{bin,idx,json}``.

``.bin`` and ``.idx`` are fairseq's memory-mapped indexed dataset in uint16, one item a manifest row: the codes of the
row's segments one after the other, N x K flattened row by row, N time-major. A clip is tokenised in consecutive
segments of the training's crop length, so that a crop at a segment's boundary has its codes in one piece. A row that
could not be read has an empty item. ``.json`` (:class:`CodesInfo`) is written last: the codes are complete where it is.
"""

from __future__ import annotations

import dataclasses
import json
import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bridle_fairseq.data.artifacts.provenance import check_manifest
from bridle_fairseq.data.artifacts.sharding import Parts, replacing
from bridle_fairseq.data.manifests.manifest import Manifest, atomic_text
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.files import fields_of

VERSION = 1
INDEX_HEADER = struct.Struct("<9sQBQ")  # magic, version, type, items; then int32 sizes and int64 addresses
TYPES: dict[type[np.integer], int] = {np.int32: 4, np.uint16: 8}  # as fairseq numbers them


@dataclasses.dataclass(frozen=True)
class CodesInfo:
    """What stands in ``{split}.codes.json``.

    Attributes:
        num_codebooks: K.
        codebook_size: C, at most 65536.
        grid: what a patch's codes stand for, by name. In all modalities ``patches_per_segment``, N of a full segment.
            Sound: ``frequency_patches``, F, patches of one time step; ``patch_frames``, spectrogram frames of a patch;
            ``segment_samples``: a clip is tokenised in consecutive segments of so many samples, the crop length of
            training; ``min_segment_samples``: a shorter last segment is left out unless it is the only one;
            ``sample_rate`` of the samples, in Hz. Images: ``image_size``, ``valid_crop``, ``patch_height``,
            ``patch_width``, ``columns`` of patches; an image is one segment of length 1. Video: the same of the clip in
            the middle, and ``num_frames``, ``frame_stride``, ``patch_frames``, ``rows`` of patches.
        checkpoint_sha256: of the checkpoint that made the codes.
        manifest_sha256: :meth:`Manifest.fingerprint` of the manifest.
        version: of this format.
    """

    num_codebooks: int
    codebook_size: int
    grid: Mapping[str, Any]
    checkpoint_sha256: str
    manifest_sha256: str
    version: int = VERSION

    @property
    def segment(self) -> int:
        """Length of a segment, in the units of the modality's reader."""
        return int(self.grid.get("segment_samples", 1))

    @property
    def min_segment(self) -> int:
        """Length that a last segment must have, in the same units."""
        return int(self.grid.get("min_segment_samples", 1))


def read_info(prefix: str | os.PathLike[str]) -> CodesInfo:
    """Read ``{prefix}.json``.

    Raises:
        InputError: missing, damaged, or of another version.
    """
    with fields_of(prefix, "codes", VERSION) as fields:
        return CodesInfo(**{**fields, "grid": dict(fields["grid"])})


def write_info(prefix: str | os.PathLike[str], info: CodesInfo) -> None:
    """Write ``{prefix}.json``, all of it or nothing."""
    with atomic_text(f"{os.fspath(prefix)}.json") as file:
        json.dump(dataclasses.asdict(info), file, indent=2)
        file.write("\n")


def segment_count(num_samples: int, segment_samples: int, min_segment_samples: int) -> int:
    """Pieces of ``segment_samples`` in a clip; a last piece under the minimum counts only when it is alone."""
    full, rest = divmod(num_samples, segment_samples)
    return max(1, full + (rest >= max(1, min_segment_samples)))


class CachedCodes:
    """Codes of a manifest's rows, read from the memory map.

    Args:
        prefix: path up to and with ``{split}.codes``.
        manifest: to which they must belong; None: whichever they are of.

    Raises:
        InputError: files missing or damaged, another version, or codes of another manifest.
    """

    def __init__(self, prefix: str | os.PathLike[str], manifest: Manifest | None = None) -> None:
        self.prefix = os.fspath(prefix)
        self.info = read_info(self.prefix)
        if manifest is not None:
            check_manifest(self.prefix, "codes", self.info.manifest_sha256, manifest)
        self._items = open_items(self.prefix, np.uint16)
        if manifest is not None and len(self._items) != len(manifest):
            raise InputError(f"{self.prefix}.idx: {len(self._items)} items; expected {len(manifest)}, one a row")

    def check(self, **wanted: object) -> None:
        """See that the codes are what training needs, such as ``num_codebooks=4, segment_samples=163840``."""
        described = {**vars(self.info), **self.info.grid}
        for field, value in wanted.items():
            found = described.get(field)
            if found != value:
                raise InputError(f"{self.prefix}.json: codes with {field} {found!r}; expected {value!r}")

    def __len__(self) -> int:
        return len(self._items)

    @property
    def sizes(self) -> np.ndarray:
        """How many codes each row has, of all levels together: int32."""
        return self._items.sizes

    def item(self, row: int) -> np.ndarray:
        """All codes of a row: n x K int64; n = 0 when the row could not be tokenised.

        Raises:
            InputError: there are others than its codebooks have.
        """
        item = self._items[row].numpy()
        largest = int(item.max(initial=0))
        if largest >= self.info.codebook_size or len(item) % self.info.num_codebooks:
            raise InputError(
                f"{self.prefix}.bin, item {row + 1}: {len(item)} codes up to {largest}; expected codes below "
                f"{self.info.codebook_size}, {self.info.num_codebooks} a patch"
            )
        return item.reshape(-1, self.info.num_codebooks)

    def segment(self, row: int, number: int) -> np.ndarray:
        """Codes of one segment of a row: n x K int64."""
        size = self.info.grid["patches_per_segment"]
        return self.item(row)[number * size : (number + 1) * size]


def open_items(prefix: str, dtype: type[np.integer]) -> Any:
    """fairseq's dataset over the two files, which are checked first: it would fail on damaged ones with a traceback.

    Args:
        prefix: path without ``.bin`` and ``.idx``.
        dtype: of the items, a key of :data:`TYPES`.

    Raises:
        InputError: the files are missing, damaged, or of another type.
    """
    from fairseq.data.indexed_dataset import MMapIndexedDataset

    try:
        num_bytes = os.path.getsize(f"{prefix}.bin")
        with open(f"{prefix}.idx", "rb") as file:
            data = file.read()
    except OSError as error:
        raise InputError(f"{prefix}.idx: cannot read this index: {error}") from None
    header = data[: INDEX_HEADER.size].ljust(INDEX_HEADER.size)
    magic, version, kind, count = INDEX_HEADER.unpack(header)
    if (magic, version, kind, len(data)) != (b"MMIDIDX\0\0", 1, TYPES[dtype], INDEX_HEADER.size + 12 * count):
        raise InputError(
            f"{prefix}.idx: not an index of what is expected here; expected fairseq's memory-mapped format with "
            f"{np.dtype(dtype).name}"
        )
    sizes = np.frombuffer(data, dtype="<i4", count=count, offset=INDEX_HEADER.size)
    expected = np.dtype(dtype).itemsize * int(sizes.sum(dtype=np.int64))
    if num_bytes != expected or expected == 0:
        raise InputError(f"{prefix}.bin: {num_bytes} bytes; expected the {expected} that its .idx tells of, and some")
    return MMapIndexedDataset(prefix)


def write_index(prefix: str, sizes: Sequence[int], dtype: type[np.integer]) -> None:
    """Write ``{prefix}.idx``, all of it or nothing, of items of these sizes in ``{prefix}.bin``."""
    from fairseq.data.indexed_dataset import MMapIndexedDataset

    path = f"{prefix}.idx"
    with MMapIndexedDataset.Index.writer(f"{path}.new", dtype) as writer:
        writer.write(sizes)
    os.replace(f"{path}.new", path)


class Summary(NamedTuple):
    """What a finished corpus holds."""

    rows: int
    patches: int
    counts: np.ndarray  # int64, K x C: how often each code occurs
    residual_energy: np.ndarray  # float64, K: mean share of the energy left after each level
    skipped: list[tuple[int, str]]


class CodeParts(Parts):
    """Codes of chunks of rows.

    A part's arrays: ``codes`` (uint16, all rows' codes one after the other), ``sizes`` (int64, how many of them belong
    to each row; 0 for a skipped one) and ``energy`` (float64, K: sum over patches of the energy left after each level).
    """

    what = "codes"
    endings = ("bin", "idx")
    info: CodesInfo

    def stored_info(self) -> CodesInfo:
        """What the finished json says."""
        return read_info(self.prefix)

    def _join(self) -> Summary:
        summary, sizes = self._write_data()
        write_index(self.prefix, sizes, np.uint16)
        write_info(self.prefix, self.info)
        return summary

    def _write_data(self) -> tuple[Summary, list[int]]:
        sizes: list[int] = []
        skipped: list[tuple[int, str]] = []
        counts = np.zeros((self.info.num_codebooks, self.info.codebook_size), np.int64)
        energy = np.zeros(self.info.num_codebooks)
        with replacing(Path(f"{self.prefix}.bin")) as file:
            for number in range(len(self.chunks)):
                arrays, some = self.read(number, ("codes", "sizes", "energy"))
                file.write(arrays["codes"].astype("<u2").tobytes())
                sizes += arrays["sizes"].tolist()
                skipped += some
                energy += arrays["energy"]
                for level, codes in enumerate(arrays["codes"].reshape(-1, self.info.num_codebooks).T):
                    counts[level] += np.bincount(codes, minlength=self.info.codebook_size)
        patches = int(counts[0].sum())
        return Summary(len(sizes), patches, counts, energy / max(patches, 1), skipped), sizes
