"""Audio as a modality."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bridle_fairseq.data.audio.augment import AudioAugment
from bridle_fairseq.data.audio.dataset import AudioDataset, AudioReader
from bridle_fairseq.data.audio.decode import read_info
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.data.modality import Modality

if TYPE_CHECKING:
    from bridle_fairseq.nn.frontend import FrontEnd

DEFAULT_SEGMENT_SECONDS = 10.24


class AudioModality(Modality):
    """Sound files; sizes are samples."""

    name = "audio"
    files = "sound files"
    extensions = (
        *("wav", "flac", "ogg", "opus", "mp3", "aiff", "aif", "aifc", "au", "caf", "w64", "rf64", "oga", "snd"),
        *("m4a", "m4b", "aac", "wma", "amr", "mka", "wv", "tta"),  # by PyAV
    )
    other_extensions = (
        *("ac3", "aax", "ape", "dff", "dsf", "dts", "m4p", "mid", "mp2", "mpc", "ra", "shn", "spx"),
        *("mp4", "mov", "mkv", "webm", "avi", "3gp", "flv", "mpg", "wmv"),  # video with sound
    )

    def measure(self, path: str) -> int:
        """Number of samples at the file's own rate."""
        return read_info(path).num_frames

    def dataset(self, manifest: Manifest, cfg: Any, training: bool = False, **options: Any) -> AudioDataset:
        """See :meth:`Modality.dataset`."""
        roll = getattr(cfg, "roll", False)
        augment = AudioAugment(roll=roll, gain=cfg.gain) if training and (roll or cfg.gain) else None
        if training:
            options |= {
                "seed": cfg.seed,
                "num_buckets": cfg.num_buckets,
                "segment_crops": getattr(cfg, "segment_crops", False),
            }
        return AudioDataset(
            manifest,
            sample_rate=cfg.sample_rate,
            max_sample_size=getattr(cfg, "max_sample_size", None),
            min_sample_size=getattr(cfg, "min_sample_size", None),
            training=training,
            augment=augment,
            **options,
        )

    def reader(self, cfg: Any) -> AudioReader:
        """See :meth:`Modality.reader`."""
        return AudioReader(cfg.sample_rate)

    def segment(self, cfg: Any, seconds: float | None = None) -> int:
        """Number of samples at the model's rate."""
        if seconds is None:
            return int(getattr(cfg, "max_sample_size", None) or DEFAULT_SEGMENT_SECONDS * cfg.sample_rate)
        return round(seconds * cfg.sample_rate)

    def layout_of_codes(self, cfg: Any, front_end: FrontEnd, segment: int) -> dict[str, Any]:
        """See :meth:`Modality.layout_of_codes`."""
        steps, rows = front_end.grid((segment,))
        return {
            **front_end.layout,
            "segment_samples": segment,
            "min_segment_samples": int(getattr(cfg, "min_sample_size", None) or 1),
            "patches_per_segment": steps * rows,
            "sample_rate": cfg.sample_rate,
        }
