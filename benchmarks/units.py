"""What codes are worth as units: pieces, language models over them, and how far from the sound they are.

    python benchmarks/units.py DATA --work WORK [--seed 1] [--methods rq vq] [--jobs 2]

DATA is a folder of two sets: arabic-speech-commands (its own splits) and esc10 (folds 1 to 3 to train, 4 to validate,
5 to test), each with meta.csv and opus/. Encoder and tokenizer are pretrained on the training parts of both, once
with 4 x 256 codes (rq) and once with 1 x 1024 (vq). Then, for each set:

* pieces: SentencePiece on the units of the training part; tokens of a second, and bits of a second on the test part.
* language models over pieces, by fairseq, beside unigrams: fitted on the training part, chosen on the validation part,
  measured on the test part.
* a decoder from codes to log-mel, trained on both sets: mean distance on the test part by the number of levels.

It also sees that codes -> text -> pieces -> text -> codes gives the same bytes for all clips. What is finished is not
done again.
"""

from __future__ import annotations

import argparse
import filecmp
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from runs import EXAMPLES, bridle, command, decode, measure_statistics, read_table, train, write_manifest

SETS = ("arabic-speech-commands", "esc10")
SPLITS = {"train": "train", "valid": "val", "test": "test"}
FOLDS = {"1": "train", "2": "train", "3": "train", "4": "val", "5": "test"}
METHODS = {"rq": [], "vq": ["+variant=vq"]}  # 4 x 256 codes, 1 x 1024
PRETRAINING = (
    "task.roll=false",
    "model.stages=[{kind: encoder, updates: 400, lr: 1.0e-3, warmup_updates: 60}, "
    "{kind: tokenizer, updates: 200, lr: 5.0e-4, warmup_updates: 20}]",
)
VOCABULARIES = {  # of each method's levels; language models are trained on the first one
    "rq": {"1": (1024, 512, 2048, 4096), "all": (2048, 4096, 8192)},
    "vq": {"all": (2048, 4096, 8192)},
}
LANGUAGE_MODEL = (
    "dataset.max_tokens=4096",
    "optimization.max_update=300",
    "lr_scheduler.warmup_updates=50",
    "model.decoder_embed_dim=128",
    "model.decoder_ffn_embed_dim=512",
    "model.decoder_layers=2",
)
DECODER = ("optimization.max_update=300",)


def prepare(data: Path, work: Path) -> None:
    """Decode all sounds; manifests of each set's splits, and of both training splits together."""
    together: dict[str, list[str]] = {split: [] for split in SPLITS}
    for name in SETS:
        rows = read_table(data / name / "meta.csv")
        decode([data / name / "opus" / f"{row['name']}.opus" for row in rows], work / "sounds" / name)
        for split, called in SPLITS.items():
            part = [row for row in rows if (FOLDS[row["fold"]] if "fold" in row else row["split"]) == called]
            files = [f"{name}/{row['name']}.wav" for row in part]
            write_manifest(work / name / f"{split}.tsv", work / "sounds", files)
            together[split] += files
    for split in ("train", "valid"):
        write_manifest(work / "pretraining" / f"{split}.tsv", work / "sounds", together[split])


def pretrain(work: Path, method: str, seed: int, statistics: list[str], threads: int) -> Path:
    """An encoder and its tokenizer; their last checkpoint."""
    own = [f"common.seed={seed}", f"task.data={work / 'pretraining'}", *statistics]
    folder = train(work / f"{method}-{seed}", "pretraining/tiny", [*METHODS[method], *own, *PRETRAINING], threads)
    return folder / "checkpoint_last.pt"


def script(name: str, *arguments: object) -> str:
    """Run a script of examples/units; what it printed."""
    line = [sys.executable, str(EXAMPLES / "units" / f"{name}.py"), *map(str, arguments)]
    return subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True).stdout


class Units:
    """The units of a level of a set, and what is made of them.

    Args:
        work: where everything is.
        method, seed, name, level: whose.
    """

    def __init__(self, work: Path, method: str, seed: int, name: str, level: str) -> None:
        self.manifests, self.seed = work / name, seed
        self.codes = work / f"{method}-{seed}" / name / "codes"
        self.folder = work / f"{method}-{seed}" / name / f"level-{level}"
        self.level, self.vocabularies = level, VOCABULARIES[method][level]
        self.title = f"{name}, {method}, {'all levels' if level == 'all' and method == 'rq' else 'level 1'}"

    def of(self, split: str) -> Path:
        """The units of a split."""
        return self.folder / f"{split}.units"

    def make(self, checkpoint: Path) -> None:
        """Codes, units, models of pieces, and lines of the first one's pieces."""
        for split in SPLITS:
            bridle("tokenize", checkpoint, self.manifests / f"{split}.tsv", "--out", self.codes)
        codes = [self.codes / f"{split}.codes" for split in SPLITS]
        bridle("units", *codes, "--level", self.level, "--format", "text", "--out", self.folder)
        missing = [size for size in self.vocabularies if not (self.folder / f"{size}.model").exists()]
        if missing:
            script("pieces", "train", self.of("train"), "--vocab-size", *missing, "--out", self.folder)
        lines, model = self.folder / "lines", self.folder / f"{self.vocabularies[0]}.model"
        if not (lines / "bin" / "test.idx").exists():
            script("pieces", "encode", model, *map(self.of, SPLITS), "--out", lines)
            parts = [f"--{split}pref={lines / split}.pieces" for split in SPLITS]
            self._preprocess(["--only-source", f"--srcdict={lines / 'dict.txt'}", f"--destdir={lines / 'bin'}", *parts])

    def _preprocess(self, arguments: Sequence[str]) -> None:
        line = [command("fairseq-preprocess"), *arguments]
        subprocess.run(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)

    def round_trip(self) -> str:
        """What codes -> text -> pieces -> text -> codes gives of all splits."""
        model, again = self.folder / f"{self.vocabularies[0]}.model", self.folder / "again"
        for split in SPLITS:
            pieces = self.folder / "lines" / f"{split}.pieces"
            script("pieces", "decode", model, pieces, "--like", self.of(split), "--out", again)
            bridle("units", "--back", again / f"{split}.units", "--out", again)
        if self.level == "all":
            endings = [f"{split}.codes.{ending}" for split in SPLITS for ending in ("bin", "idx", "json")]
            return "the same bytes" if all(self._same(again / name) for name in endings) else "OTHER BYTES"
        rows = [row for split in SPLITS for row in self._levels(again / f"{split}.codes")]
        return "the same codes" if all(np.array_equal(*pair) for pair in rows) else "OTHER CODES"

    def _same(self, path: Path) -> bool:
        return filecmp.cmp(self.codes / path.name, path, shallow=False)

    def _levels(self, path: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(this level's codes, those at a path) of each clip."""
        from bridle_fairseq.data.codes import CachedCodes

        mine, theirs = CachedCodes(self.codes / path.name), CachedCodes(path)
        for row in range(len(mine)):
            yield mine.item(row)[:, int(self.level) - 1 :][:, :1], theirs.item(row)

    def report(self) -> str:
        """The table of vocabularies."""
        models = [self.folder / f"{size}.model" for size in sorted(self.vocabularies)]
        options = ["--manifest", self.manifests / "test.tsv"]
        return script("pieces", "report", self.of("train"), self.of("test"), *models, *options)

    def language_model(self, threads: int) -> str:
        """The table of a language model beside a unigram."""
        data = self.folder / "lines" / "bin"
        overrides = [f"common.seed={self.seed}", f"task.data={data}", *LANGUAGE_MODEL]
        best = train(self.folder / "language-model", "./language_model", overrides, threads, "units")
        options = ["--split", "test", "--manifest", self.manifests / "test.tsv"]
        return script("language_model", "score", best / "checkpoint_best.pt", data, *options)


def decoder(work: Path, method: str, seed: int, checkpoint: Path, threads: int) -> Path:
    """A decoder from a method's codes to log-mel."""
    own = [f"common.seed={seed}", f"task.data={work / 'pretraining'}", f"model.checkpoint={checkpoint}"]
    folder = work / f"{method}-{seed}" / "decoder"
    return train(folder, "./mel_decoder", [*own, *DECODER], threads, "units") / "checkpoint_best.pt"


def main() -> None:
    """Pretrain, then everything that is made of the codes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, of one thread each (1: two threads)")
    args = parser.parse_args()
    work, seed = args.work.resolve(), args.seed
    prepare(args.data.resolve(), work)
    statistics = measure_statistics(work / "pretraining" / "train.tsv")
    threads = 1 if args.jobs > 1 else 2
    with ThreadPoolExecutor(args.jobs) as pool:
        pretrained = list(pool.map(lambda method: pretrain(work, method, seed, statistics, threads), args.methods))
        checkpoints = dict(zip(args.methods, pretrained, strict=True))
        of_method = {
            m: [Units(work, m, seed, n, level) for n in SETS for level in VOCABULARIES[m]] for m in checkpoints
        }
        for method, units in of_method.items():
            for some in units:
                some.make(checkpoints[method])
                print(f"\n{some.title}: round trip: {some.round_trip()}")
                print(some.report(), flush=True)
        decoders = list(pool.map(lambda m: decoder(work, m, seed, checkpoints[m], threads), checkpoints))
        for name in SETS:
            options = ["--manifest", work / name / "test.tsv", "--out", work / f"distance-{name}"]
            print(f"\n{name}: log-mel distance\n{script('hear', 'distance', *decoders, *options)}", flush=True)
        everything = [some for units in of_method.values() for some in units]
        for some, table in zip(everything, pool.map(lambda s: s.language_model(threads), everything), strict=True):
            print(f"\n{some.title}: {some.vocabularies[0]} pieces\n{table}", flush=True)


if __name__ == "__main__":
    main()
