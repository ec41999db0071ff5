"""Small labelled corpora on which recipes of pretraining are compared: their manifests and options."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import keywords
import moving_digits
from runs import bridle, decode, read_table, write_labelled, write_manifest

SPEECH = {"arabic-speech-commands": "opus", "fsdd": "flac"}
OF_SOUND = ("mean", "statistics", "frequency", "frequency_statistics", "segments")
OF_PIXELS = ("mean", "statistics", "class_token", "regions")
LONGER = ("task.max_sample_size=80000", "model.patch_size=[16,16]", "dataset.max_tokens=2048000")


class Corpus(NamedTuple):
    """A set of clips."""

    prepare: Callable[[Path, Path], None]  # (data, work): write the manifests of pretraining and of the probe
    options: tuple[str, ...]  # overrides of `small`
    splits: tuple[str, str] = ("train", "valid")  # to which the probe is fitted; on which it is validated
    labels: tuple[str, ...] = ("",)  # folders of labelled manifests, below that of pretraining
    examples: str = "audio"
    poolings: tuple[str, ...] = OF_SOUND
    statistics: tuple[object, ...] = ()  # options of `bridle stats`
    finetuning: tuple[str, ...] = ()  # overrides of `finetuning/small`

    def probe(self, *arguments: object) -> None:
        """`bridle probe` with the ridge probe of these poolings."""
        bridle("probe", *arguments, "--probes", "ridge", "--layers", "3,4,5,6", "--pooling", *self.poolings, threads=1)


def prepare_keywords(data: Path, work: Path) -> None:
    """Spoken words: the speaker-disjoint splits of Arabic Speech Commands."""
    keywords.prepare(data, work, "flac")


def prepare_esc10(data: Path, work: Path) -> None:
    """Environmental sounds: folds 1 to 3 are fitted, 4 and 5 validate; speech is heard besides in pretraining."""
    tables = {part: read_table(data / part / "meta.csv") for part in ("esc10", *SPEECH)}
    sounds = work / "sounds"
    for part, kind in {"esc10": "opus", **SPEECH}.items():
        decode([data / part / kind / f"{row['name']}.{kind}" for row in tables[part]], sounds / part, "flac")
    speech = [f"{part}/{row['name']}.flac" for part in SPEECH for row in tables[part] if row["split"] == "train"]
    splits = {
        split: [(f"esc10/{row['name']}.flac", row["category"]) for row in tables["esc10"] if row["fold"] in folds]
        for split, folds in (("fitted", "123"), ("chosen", "45"))
    }
    write_labelled(work, sounds, splits)
    write_manifest(work / "train.tsv", sounds, [file for file, _ in splits["fitted"]] + speech)
    write_manifest(work / "valid.tsv", sounds, [file for file, _ in splits["chosen"]])  # fairseq opens it


def prepare_clothes(data: Path, work: Path) -> None:
    """Photographs: 15 % of the training images validate."""
    bridle("manifest", data, "--modality", "image", "--dest", work, "--valid-percent", "0.15", "--class-folders")


def prepare_digits(data: Path, work: Path) -> None:
    """Videos of moving digits, which are made in ``data``."""
    if not data.exists():
        making = data.with_name(f"{data.name}.making")
        shutil.rmtree(making, ignore_errors=True)
        moving_digits.make_videos(making, seed=1)
        making.rename(data)
    by_name = {"direction": ("--class-folders",), "digit": ("--labels", data / "digits.csv")}
    for name, labels in by_name.items():
        bridle("manifest", data, "--modality", "video", *labels, "--dest", work / name)
    for file in (work / "direction").glob("*.tsv"):
        shutil.copy(file, work)


CLIPS = ("task.image_size=32", "task.frame_stride=1")
CORPORA = {
    "keywords": Corpus(prepare_keywords, ("task.roll=false",), finetuning=("task.roll=false",)),
    "esc10": Corpus(prepare_esc10, LONGER, ("fitted", "chosen")),
    "clothes": Corpus(
        prepare_clothes,
        (),
        examples="images",
        poolings=OF_PIXELS,
        statistics=("--modality", "image", "--image-size", 64),
    ),
    "digits": Corpus(
        prepare_digits,
        (*CLIPS, "task.crop=false", "task.flip=false"),
        labels=("direction", "digit"),
        examples="video",
        poolings=OF_PIXELS,
        statistics=("--modality", "video", *moving_digits.CLIP_OPTIONS),
        finetuning=(*CLIPS, "task.crop=false", "task.flip=false"),
    ),
}
