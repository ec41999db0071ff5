"""The demo's synthetic data, configuration and names for each modality."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bridle_fairseq.demo import motion, shapes, synthesize
from bridle_fairseq.training.configs import EXAMPLES

CROP_SECONDS = 3.0
IMAGE_SIZE = 64
FRAME_SIZE = 48


@dataclass(frozen=True)
class Media:
    """What the demo needs for a modality.

    Attributes:
        modality: its name.
        many, one: names of its files and items.
        made: description of the synthetic set, after "classes of".
        baseline: name of the baseline.
        shown: (title, text) above items with their codes.
        classes: number of classes of the synthetic set.
        make: (folder, items per class, seed) -> labels.csv of a synthetic set.
        statistics: fields of :class:`bridle_fairseq.prepare.statistics.StatisticsOptions`.
        overrides: overrides of the configuration ``tiny``.
        examples: folder of its configurations in ``examples``.
        larger: configuration for a longer training.
    """

    modality: str
    many: str
    one: str
    made: str
    baseline: str
    shown: tuple[str, str]
    classes: int
    make: Callable[[Path, int, int], Path]
    statistics: Mapping[str, int]
    overrides: tuple[str, ...]
    examples: str
    larger: str

    @property
    def configs(self) -> Path:
        """Its pretraining configurations."""
        return EXAMPLES / self.examples / "config" / "pretraining"


NEIGHBOURS = "Codes that lie close together in a level's codebook have similar colours."
MEDIA = {
    "audio": Media(
        modality="audio",
        many="sounds",
        one="clip",
        made="synthetic words: the same six phonemes in another order, each clip in another voice",
        baseline="log-mel",
        shown=(
            "Sound and its codes",
            f"Each clip's spectrogram above the codes of its patches, one map a level. {NEIGHBOURS}",
        ),
        classes=len(synthesize.CLASSES),
        make=synthesize.synthesize,
        statistics={},
        overrides=(f"task.max_sample_size={round(CROP_SECONDS * 16000)}",),
        examples="audio",
        larger="small",
    ),
    "image": Media(
        modality="image",
        many="images",
        one="image",
        made="drawn images, which differ in shape rather than in colour",
        baseline="histogram",
        shown=("Images and their codes", f"Each image beside the codes of its patches, one map a level. {NEIGHBOURS}"),
        classes=len(shapes.CLASSES),
        make=shapes.draw,
        statistics={"image_size": IMAGE_SIZE},
        # cropping or mirroring a shape can turn it into another class
        overrides=(f"task.image_size={IMAGE_SIZE}", "task.min_area=0.6", "task.flip=false"),
        examples="images",
        larger="tiny",
    ),
    "video": Media(
        modality="video",
        many="videos",
        one="video",
        made="drawn shapes, which differ in how they move: no single frame tells",
        baseline="histogram of single frames",
        shown=(
            "Videos and their codes",
            f"The first frame of each step of a clip, above the codes of its patches, one map a level. {NEIGHBOURS}",
        ),
        classes=len(motion.CLASSES),
        make=motion.film,
        statistics={"num_frames": 8, "frame_stride": 2, "image_size": FRAME_SIZE},
        # a crop adds a motion of its own, and mirroring turns a motion into another class
        overrides=(f"task.image_size={FRAME_SIZE}", "task.crop=false", "task.flip=false"),
        examples="video",
        larger="tiny",
    ),
}
