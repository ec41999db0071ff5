"""The models in ``weights/``: pretrain on the sets of DATA, export in float16, measure, write the card.

    python benchmarks/weights.py audio DATA --work WORK
    python benchmarks/weights.py image DATA --work WORK

DATA holds audio/esc10, audio/arabic-speech-commands, audio/fsdd and speech for ``audio``, images/clothing10 for
``image``; each set has its licence in a README. No clip that a figure of the card is measured on is used in
pretraining. A run that was stopped is resumed; a finished one is not repeated.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from runs import (
    ROOT,
    best_rows,
    bridle,
    decode,
    measure_statistics,
    read_table,
    train,
    write_labelled,
    write_manifest,
)

from bridle_fairseq.exported.source import model_sha256

SAMPLING_PLUS = ("1-40730-A-1", "2-96460-A-1")  # of ESC-10, by that licence: left out
ABOUT = {
    "audio": """\
A small encoder of sound to start from, for clips of up to 10 s at 16 kHz.

**Good for** short spoken words: frozen, it is far ahead of an untrained encoder and of log-mel. **Not for** other
sounds without a test of your own: on the environmental sounds and the digits below, the test clips do not tell it from
an untrained encoder. It has heard an hour of sound.

**Data**, without labels: 2160 spoken words in Arabic of 18 speakers (Arabic Speech Commands, A. Ghandoura et al. 2021,
CC BY 4.0), 318 environmental sounds of 5 s (folds 1 to 4 of ESC-10, K. J. Piczak 2015, CC BY 3.0; the clips are CC0 or
CC BY, by the authors that its list of files names), 24 English sentences (LJSpeech and LibriVox, public domain;
LibriSpeech, CC BY 4.0).
""",
    "image": """\
A small encoder of images to start from, for 64 x 64 pixels.

**Good for** small photographs of clothes: frozen, it is ahead of an untrained encoder and of a histogram of edges.
**Not for** anything else without a test of your own: it has seen 950 photographs.

**Data**, without labels: 950 photographs of clothes (Clothing dataset, A. Grigorev et al. 2020, CC0 1.0).
""",
}
FIGURES = """
**What the frozen encoder is worth**: accuracy of a linear probe (ridge) on test clips, with the layer, the pooling and
the regularization that are best on validation clips. The untrained encoder and statistics of the input (log-mel, or
pixels) are probed alike. The difference is that of the two encoders on the same clips. Brackets: 95 % intervals over
test clips.

"""
MADE = """
**Made** by `python benchmarks/weights.py {kind} DATA --work WORK`, without a GPU. The package has it by name:
`pretrained.load("bridle-small-{kind}")`, `model.checkpoint=bridle-small-{kind}`.
"""
PROBE = ("--probes", "ridge", "--layers", "3,4,5,6")


def prepare_audio(data: Path, work: Path) -> dict[str, str]:
    """Decode the sounds and write all manifests; the labelled sets, folder -> title in the card."""
    folders = {name: data / "audio" / name for name in ("esc10", "arabic-speech-commands", "fsdd")}
    tables = {name: read_table(folder / "meta.csv") for name, folder in folders.items()}
    sounds = work / "sounds"
    for name, kind in (("esc10", "opus"), ("arabic-speech-commands", "opus"), ("fsdd", "flac")):
        decode([folders[name] / kind / f"{row['name']}.{kind}" for row in tables[name]], sounds / name, "flac")
    decode(sorted((data / "speech").rglob("*.flac")), sounds / "speech", "flac")

    def files(name: str, label: str, wanted: Callable[[dict[str, str]], bool]) -> list[tuple[str, str]]:
        rows = [row for row in tables[name] if wanted(row)]
        return [(f"{name}/{row['name']}.flac", row[label]) for row in rows]

    words = {
        split: files("arabic-speech-commands", "keyword", lambda row, name=name: row["split"] == name)
        for split, name in (("train", "train"), ("valid", "val"), ("test", "test"))
    }
    esc = {
        split: files("esc10", "category", lambda row, folds=folds: row["fold"] in folds)
        for split, folds in (("train", "123"), ("valid", "4"), ("test", "5"))
    }
    digits = {
        split: files("fsdd", "digit", lambda row, numbers=numbers: int(row["index"]) in numbers)
        for split, numbers in (("train", range(5, 13)), ("valid", range(13, 15)), ("test", range(5)))
    }
    heard = [
        file for file, _ in (*words["train"], *esc["train"], *esc["valid"]) if Path(file).stem not in SAMPLING_PLUS
    ]
    heard += [f"speech/{path.name}" for path in sorted((sounds / "speech").iterdir())]
    write_manifest(work / "pretraining" / "train.tsv", sounds, heard)
    write_manifest(work / "pretraining" / "valid.tsv", sounds, [file for file, _ in words["valid"][::4]])
    for name, splits in (("keywords", words), ("esc10", esc), ("fsdd", digits)):
        write_labelled(work / name, sounds, splits)
    return {
        "keywords": "40 spoken words, speakers that it has not heard",
        "esc10": "ESC-10, fold 5",
        "fsdd": "10 English digits (fsdd), which it has not heard; test speakers are in training",
    }


def prepare_image(data: Path, work: Path) -> dict[str, str]:
    """Write all manifests; the labelled set, folder -> title in the card."""
    source = data / "images" / "clothing10"
    options = ("--modality", "image", "--dest")
    bridle("manifest", source / "train", *options, work / "pretraining", "--valid-percent", "0.05")
    bridle("manifest", source, *options, work / "clothes", "--valid-percent", "0.15", "--class-folders")
    return {"clothes": "10 classes of clothes, test photographs"}


class Recipe(NamedTuple):
    """How a model is made.

    Attributes:
        prepare: (DATA, WORK) -> labelled sets.
        examples: folder of the configuration.
        overrides: of `small`.
        updates: of the encoder, of the tokenizer.
        license: of the weights.
        statistics: options of `bridle stats`.
    """

    prepare: Callable[[Path, Path], dict[str, str]]
    examples: str
    overrides: tuple[str, ...]
    updates: tuple[int, int]
    license: str
    statistics: tuple[object, ...] = ()

    def stages(self) -> str:
        """The stages as an override."""
        encoder, tokenizer = self.updates
        return (
            f"model.stages=[{{kind: encoder, updates: {encoder}, lr: 1.0e-3, warmup_updates: {encoder // 12}}}, "
            f"{{kind: tokenizer, updates: {tokenizer}, lr: 5.0e-4, warmup_updates: {tokenizer // 10}}}]"
        )


SOUND = ("task.max_sample_size=160000", "dataset.max_tokens=1024000", "dataset.num_workers=1")
PIXELS = ("--modality", "image", "--image-size", 64)
RECIPES = {
    "audio": Recipe(prepare_audio, "audio", SOUND, (10000, 600), "cc-by-4.0"),
    "image": Recipe(prepare_image, "images", ("dataset.num_workers=1",), (5000, 300), "cc0-1.0", PIXELS),
}


def figures(work: Path, sets: Mapping[str, str], exported: Path) -> str:
    """Probe the export on the labelled sets; the table."""
    head = ["", "pretrained", "untrained", "difference", "statistics of the input", "chosen"]
    rows = [head, ["---"] * len(head)]
    for name, title in sets.items():
        out = work / "probe" / name
        if not _is_of(out / "probe.json", exported):
            bridle("probe", exported, work / name, "--out", out, *PROBE, threads=1)
        content = json.loads((out / "probe.json").read_text(encoding="utf-8"))
        (ahead,) = (one for one in content["differences"] if one["second"].startswith("untrained"))
        encoder, untrained, of_input = (best_rows(out)[kind] for kind in ("encoder", "untrained", "input"))
        values = [
            *(_cell(row["test"], *row["interval"]) for row in (encoder, untrained)),
            _cell(ahead["value"], ahead["low"], ahead["high"]),
            _cell(of_input["test"], *of_input["interval"]),
        ]
        chosen = f"`{encoder['pooling']}`, layer {encoder['layer']}"
        rows.append([f"{title}: {content['clips']['test']}", *values, chosen])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _is_of(path: Path, exported: Path) -> bool:
    """Whether these are the figures of this model."""
    if not path.exists():
        return False
    return json.loads(path.read_text(encoding="utf-8"))["checkpoint_sha256"] == model_sha256(str(exported))


def _cell(value: float, low: float, high: float) -> str:
    return f"{value:.3f} ({low:.3f} to {high:.3f})"


def make(kind: str, data: Path, work: Path, out: Path, overrides: Sequence[str]) -> Path:
    """Pretrain, export, measure; the folder of the export."""
    recipe = RECIPES[kind]
    sets, manifest = recipe.prepare(data, work), work / "pretraining" / "train.tsv"
    own = [*measure_statistics(manifest, *recipe.statistics), f"task.data={manifest.parent}"]
    own += [*recipe.overrides, recipe.stages(), *overrides]
    checkpoints = train(work / "run", "pretraining/small", own, 1, recipe.examples, earlier=False)
    exported = out / f"bridle-small-{kind}"
    about = work / "about.md"
    last = (checkpoints / "checkpoint_last.pt", exported, "--dtype", "float16", "--license", recipe.license)
    bridle("export", *last)
    text = ABOUT[kind] + FIGURES + figures(work, sets, exported) + "\n" + MADE.format(kind=kind)
    about.write_text(text, encoding="utf-8")
    bridle("export", *last, "--about", about)
    return exported


def main() -> None:
    """Make one of the models."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=list(RECIPES))
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=ROOT / "weights", help="gets a folder (weights/)")
    parser.add_argument("--overrides", nargs="*", default=[], help="further overrides of the configuration")
    args = parser.parse_args()
    print(make(args.kind, args.data.resolve(), args.work.resolve() / args.kind, args.out.resolve(), args.overrides))


if __name__ == "__main__":
    main()
