"""Cached codes of a corpus: ``{split}.codes.{bin,idx,json}``, fairseq's memory-mapped indexed dataset in uint16."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np

from bridle_fairseq.data.manifest import Manifest, atomic_text
from bridle_fairseq.errors import InputError

VERSION = 1


@dataclasses.dataclass(frozen=True)
class CodesInfo:
    """What stands in ``{split}.codes.json``.

    Attributes:
        num_codebooks: K.
        codebook_size: C, at most 65536.
        frequency_patches: F, patches of a time step; a time step's F patches stand together.
        patch_frames: spectrogram frames of a patch.
        segment_samples: a clip is tokenised in consecutive segments of so many samples (the crop length).
        min_segment_samples: a shorter last segment is left out unless it is the only one.
        patches_per_segment: N of a full segment.
        sample_rate: of the samples, in Hz.
        checkpoint_sha256: of the checkpoint that made the codes.
        manifest_sha256: :meth:`Manifest.fingerprint` of the manifest.
        version: of this format.
    """

    num_codebooks: int
    codebook_size: int
    frequency_patches: int
    patch_frames: int
    segment_samples: int
    min_segment_samples: int
    patches_per_segment: int
    sample_rate: int
    checkpoint_sha256: str
    manifest_sha256: str
    version: int = VERSION


class CachedCodes:
    """Codes of a manifest's rows, one item a row: its segments one after the other, N x K each, row by row.

    Args:
        prefix: path up to and with ``{split}.codes``.
        manifest: the manifest they must belong to.

    Raises:
        InputError: files missing or damaged, another version, or codes of another manifest.
    """

    def __init__(self, prefix: str | os.PathLike[str], manifest: Manifest) -> None:
        self.prefix = os.fspath(prefix)
        self.info = read_info(self.prefix)
        if self.info.manifest_sha256 != manifest.fingerprint():
            raise InputError(
                f"{self.prefix}.json: codes of another manifest (sha256 {self.info.manifest_sha256[:12]}); "
                f"expected those of {manifest.name} ({manifest.fingerprint()[:12]}), the same rows and sizes"
            )
        self._items = open_items(self.prefix)
        if len(self._items) != len(manifest):
            raise InputError(f"{self.prefix}.idx: {len(self._items)} items; expected {len(manifest)}, one a row")

    def check_audio(self, manifest: Manifest, sample_rate: int, segment_samples: int, min_segment_samples: int) -> None:
        """See that crops of these settings are the segments that were tokenised."""
        wanted = {
            "manifest_sha256": manifest.fingerprint(),
            "sample_rate": sample_rate,
            "segment_samples": segment_samples,
            "min_segment_samples": min_segment_samples,
        }
        self.check(wanted)

    def check(self, wanted: dict[str, object]) -> None:
        """Raise InputError when a field of the json differs from what is wanted."""
        for field, value in wanted.items():
            found = getattr(self.info, field)
            if found != value:
                raise InputError(f"{self.prefix}.json: {field} {found!r}; expected {value!r}")

    def __len__(self) -> int:
        return len(self._items)

    def item(self, row: int) -> np.ndarray:
        """All codes of a row: n x K int64, n = 0 when the row was skipped."""
        return self._items[row].numpy().reshape(-1, self.info.num_codebooks)

    def segment(self, row: int, number: int) -> np.ndarray:
        """Codes of one segment of a row: n x K int64."""
        size = self.info.patches_per_segment
        return self.item(row)[number * size : (number + 1) * size]


def read_info(prefix: str) -> CodesInfo:
    """Read ``{prefix}.json``."""
    path = f"{prefix}.json"
    try:
        with open(path, encoding="utf-8") as file:
            fields = json.load(file)
        return CodesInfo(**fields)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path}: cannot read the description of these codes: {error}") from None


def open_items(prefix: str):  # type: ignore[no-untyped-def]
    """fairseq's MMapIndexedDataset of ``{prefix}.{bin,idx}``."""
    from fairseq.data.indexed_dataset import MMapIndexedDataset

    return MMapIndexedDataset(prefix)


def write_info(prefix: str, info: CodesInfo) -> None:
    """Write ``{prefix}.json``."""
    with atomic_text(Path(f"{prefix}.json")) as file:
        json.dump(dataclasses.asdict(info), file, indent=2)
