"""Video as a modality."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bridle_fairseq.data.image.modality import ImageModality
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.data.video.dataset import ClipReader, VideoDataset
from bridle_fairseq.data.video.reader import EXTENSIONS, count_frames

if TYPE_CHECKING:
    from bridle_fairseq.nn.frontend import FrontEnd


class VideoModality(ImageModality):
    """Video files; sizes are frames. A clip is one segment, and its frames are cropped as images are."""

    name = "video"
    files = "videos"
    extensions = EXTENSIONS
    other_extensions = ("3g2", "asf", "divx", "f4v", "m2ts", "mts", "m2v", "mxf", "rm", "rmvb", "vob", "wtv")

    def measure(self, path: str) -> int:
        """Number of frames."""
        return count_frames(path)

    def dataset(self, manifest: Manifest, cfg: Any, training: bool = False, **options: Any) -> VideoDataset:
        """See :meth:`Modality.dataset`."""
        clip = {"num_frames": cfg.num_frames, "frame_stride": cfg.frame_stride, "random_start": cfg.random_start}
        return VideoDataset(manifest, **clip, **self._pixel_options(cfg, training), **options)

    def reader(self, cfg: Any) -> ClipReader:
        """See :meth:`Modality.reader`."""
        return ClipReader(cfg.num_frames, cfg.frame_stride, cfg.image_size, cfg.valid_crop)

    def layout_of_codes(self, cfg: Any, front_end: FrontEnd, segment: int) -> dict[str, Any]:
        """See :meth:`Modality.layout_of_codes`."""
        layout = super().layout_of_codes(cfg, front_end, segment)
        rows = front_end.grid(self._item_sizes(cfg))[1]
        return {**layout, "num_frames": cfg.num_frames, "frame_stride": cfg.frame_stride, "rows": rows}

    def _item_sizes(self, cfg: Any) -> tuple[int, ...]:
        return cfg.num_frames, cfg.image_size, cfg.image_size
