"""Statistics of a corpus, kept beside its manifest in ``{split}.stats.json``, so that a training run need not measure.

An entry is for one kind of input: the modality and the settings of a model on which the statistics depend. It counts
while the manifest has the same rows and sizes.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bridle_fairseq.data.artifacts.provenance import SHA256_LENGTH
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.files import atomic_text
from bridle_fairseq.utils.json_files import read_description
from bridle_fairseq.utils.schema import Anything, ListOf, Mapped, Real, String, Whole, described, record_of

VERSION = 1
WHAT = "statistics"
MODEL_SETTINGS = {  # on which statistics depend
    "audio": ("sample_rate", "num_mel_bins"),
    "image": ("image_size",),
    "video": ("image_size", "num_frames", "frame_stride"),
}
_COUNT = Whole(0, 1 << 62)
_VALUES = ListOf(Real(-1e30, 1e30), 1, 3)


@dataclass(frozen=True)
class KeptStatistics:
    """Statistics of each channel of the input, and what they were measured on.

    Attributes:
        input: modality, and settings of the model by name.
        manifest_sha256: fingerprint of the manifest.
        mean, deviation: of each channel.
        clips, skipped: number of clips that were measured, and of those that could not be read.
        sample: how the clips were chosen: max_clips, max_seconds, seed.
    """

    input: dict[str, Any] = described(Mapped({}, {}, Anything()))
    manifest_sha256: str = described(String(SHA256_LENGTH))
    mean: list[float] = described(_VALUES)
    deviation: list[float] = described(_VALUES)
    clips: int = described(_COUNT)
    skipped: int = described(_COUNT)
    sample: dict[str, Any] = described(Mapped({}, {}, Anything()))

    def overrides(self) -> list[str]:
        """The statistics as overrides of a training run."""
        if len(self.mean) == 1:
            return [f"model.fbank_mean={self.mean[0]:.4f}", f"model.fbank_std={self.deviation[0]:.4f}"]
        mean, deviation = (",".join(f"{value:.4f}" for value in values) for values in (self.mean, self.deviation))
        return [f"model.pixel_mean=[{mean}]", f"model.pixel_std=[{deviation}]"]


_FILE = Mapped({"version": Whole(VERSION, VERSION), "entries": ListOf(record_of(KeptStatistics), 0, 1000)})


def cache_path(manifest: str | Path) -> Path:
    """Path of the statistics of the manifest at a path."""
    return Path(manifest).with_suffix(".stats.json")


def read_statistics(path: str | Path, manifest: Manifest, input: dict[str, Any]) -> KeptStatistics | None:
    """The statistics of the manifest at ``path`` for this input; None if there are none.

    Raises:
        InputError: the file is damaged or of another version.
    """
    sha256 = manifest.fingerprint()
    fits = (entry for entry in _entries(path) if entry.input == input and entry.manifest_sha256 == sha256)
    return next(fits, None)


def write_statistics(path: str | Path, statistics: KeptStatistics) -> None:
    """Keep statistics of the manifest at ``path``. They replace those for the same input, and those of other rows."""
    try:
        entries = _entries(path)
    except InputError:  # damaged: written anew
        entries = []
    sha256 = statistics.manifest_sha256
    others = [e for e in entries if e.input != statistics.input and e.manifest_sha256 == sha256]
    listed = [dataclasses.asdict(entry) for entry in (statistics, *others)]
    with atomic_text(cache_path(path)) as file:
        json.dump({"version": VERSION, "entries": listed}, file, indent=1)
        file.write("\n")


def _entries(path: str | Path) -> list[KeptStatistics]:
    file = cache_path(path)
    if not file.exists():
        return []
    fields = read_description(file.with_suffix(""), WHAT, VERSION, _FILE)
    return [KeptStatistics(**entry) for entry in fields["entries"]]
