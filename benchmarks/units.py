"""What codes are worth as units: pieces, language models over them, how far from the sound they are, and nearest clips.

    python benchmarks/units.py DATA --work WORK [--seed 1] [--methods rq vq] [--threads 1]

DATA holds two sets, here or in a folder `audio`: arabic-speech-commands (its own splits, by speaker) and esc10 (folds 1
to 3 to train, 4 to validate, 5 to test), each with meta.csv and opus/. Encoder and tokenizer (`tiny`) are pretrained on
the training parts of both, once with 4 x 256 codes (rq) and once with 1 x 1024 (vq). Then, for each set:

* codes: how many of them the test part uses.
* pieces: SentencePiece on the units of the training part; tokens of a second, and bits of a second on the test part;
  and whether codes -> text -> pieces -> text -> codes gives the same bytes for all clips.
* a decoder from codes to log-mel, trained on both sets: mean distance on the test part by the number of levels, and a
  plot (WORK/distance-SET/distances.png).
* nearest clips: how many of the first 1 and 5 training clips that `bridle similar` finds for each test clip have its
  label; by embeddings of the encoder, of the same encoder untrained, and by codes.
* language models over pieces, by fairseq, beside unigrams: fitted on the training part, chosen on the validation part,
  measured on the test part.

Everything is done in turn. What is finished is not done again: other settings want another WORK.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from runs import EXAMPLES, bridle, command, decode, measure_statistics, read_table, train, untrained, write_manifest

SETS = {"arabic-speech-commands": "keyword", "esc10": "category"}  # and their labels
SPLITS = {"train": "train", "valid": "val", "test": "test"}
FOLDS = {"1": "train", "2": "train", "3": "train", "4": "val", "5": "test"}
METHODS = {"rq": [], "vq": ["+variant=vq"]}  # 4 x 256 codes, 1 x 1024
PRETRAINING = (
    *("task.roll=false", "dataset.batch_size=20", "dataset.validate_interval_updates=750"),
    "model.stages=[{kind: encoder, updates: 600, lr: 5.0e-4, warmup_updates: 60}, "
    "{kind: tokenizer, updates: 150, lr: 5.0e-4, warmup_updates: 15}]",
)
VOCABULARIES = {  # of each method's levels
    "rq": {"1": (300, 500, 1000, 2000, 4000), "all": (1200, 2000, 4000, 8000)},
    "vq": {"all": (1200, 2000, 4000, 8000)},
}
OF_LANGUAGE_MODEL = {"1": 1000, "all": 2000}  # the vocabulary that language models are trained on
LANGUAGE_MODEL = (
    *("dataset.max_tokens=4096", "optimization.max_update=100", "lr_scheduler.warmup_updates=20"),
    *("model.decoder_embed_dim=128", "model.decoder_ffn_embed_dim=512", "model.decoder_layers=2"),
)
DECODER = ("optimization.max_update=300", "dataset.batch_size=16", "dataset.validate_interval_updates=300")
POOLINGS = ("mean", "frequency")


def once(path: Path, make: Callable[[], str]) -> str:
    """What a file says, which is made where it is not there."""
    if not path.exists():
        text = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return path.read_text(encoding="utf-8")


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


def tokenize(folder: Path, checkpoint: Path, manifests: Path) -> Path:
    """Codes of all splits; their folder."""
    for split in SPLITS:
        if not (folder / f"{split}.codes.json").exists():
            bridle("tokenize", checkpoint, manifests / f"{split}.tsv", "--out", folder)
    return folder


def use_of_codes(folder: Path) -> str:
    """How many codes of each level the test part uses."""
    import torch

    from bridle_fairseq.data.artifacts.codes import CachedCodes
    from bridle_fairseq.quantization.statistics import code_counts, level_statistics

    codes = CachedCodes(folder / "test.codes")
    every = torch.from_numpy(np.concatenate([codes.item(row) for row in range(len(codes))]))
    lines = ["level   codes used  perplexity  bits"]
    for use in level_statistics(code_counts(every, codes.info.codebook_size)):
        lines.append(
            f"{use.level:5}  {use.used_codes:4} / {use.codebook_size:4}  {use.perplexity:10.1f}  {use.entropy_bits:.2f}"
        )
    return "\n".join(lines)


class Units:
    """The units of a level of a set, and what is made of them.

    Args:
        work: where everything is.
        method, seed, name, level: whose.
    """

    def __init__(self, work: Path, method: str, seed: int, name: str, level: str) -> None:
        self.manifests, self.seed, self.level = work / name, seed, level
        self.codes = work / f"{method}-{seed}" / name / "codes"
        self.folder = work / f"{method}-{seed}" / name / f"level-{level}"
        self.vocabularies, self.pieces = VOCABULARIES[method][level], OF_LANGUAGE_MODEL[level]
        self.lines, self.model = self.folder / "lines", self.folder / f"{self.pieces}.model"
        self.title = f"{name}, {method}, {'all levels' if level == 'all' and method == 'rq' else 'level 1'}"

    def of(self, split: str) -> Path:
        """The units of a split."""
        return self.folder / f"{split}.units"

    def make(self) -> None:
        """Units, models of pieces, and lines of the pieces that a language model takes."""
        codes = [self.codes / f"{split}.codes" for split in SPLITS]
        bridle("units", *codes, "--level", self.level, "--format", "text", "--out", self.folder)
        missing = [size for size in self.vocabularies if not (self.folder / f"{size}.model.json").exists()]
        if missing:
            script("pieces", "train", self.of("train"), "--vocab-size", *missing, "--out", self.folder)
        if not (self.lines / "bin" / "test.idx").exists():
            script("pieces", "encode", self.model, *map(self.of, SPLITS), "--out", self.lines)
            parts = [f"--{split}pref={self.lines / split}.pieces" for split in SPLITS]
            files = [f"--srcdict={self.lines / 'dict.txt'}", f"--destdir={self.lines / 'bin'}", *parts]
            line = [command("fairseq-preprocess"), "--only-source", *files]
            subprocess.run(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)

    def round_trip(self) -> str:
        """What codes -> text -> pieces -> text -> codes gives of all splits."""
        again = self.folder / "again"
        for split in SPLITS:
            options = ["--like", self.of(split), "--out", again]
            script("pieces", "decode", self.model, self.lines / f"{split}.pieces", *options)
        bridle("units", "--back", *(again / f"{split}.units" for split in SPLITS), "--out", again)
        if self.level == "all":
            names = [f"{split}.codes.{ending}" for split in SPLITS for ending in ("bin", "idx", "json")]
            same = all(filecmp.cmp(self.codes / name, again / name, shallow=False) for name in names)
        else:
            same = all(np.array_equal(*pair) for split in SPLITS for pair in self._levels(again / f"{split}.codes"))
        return f"round trip: {'the same' if same else 'OTHER'} codes\n"

    def _levels(self, path: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(this level's codes, those at a path) of each clip."""
        from bridle_fairseq.data.artifacts.codes import CachedCodes

        mine, theirs = CachedCodes(self.codes / path.name), CachedCodes(path)
        for row in range(len(mine)):
            yield mine.item(row)[:, int(self.level) - 1 :][:, :1], theirs.item(row)

    def report(self) -> str:
        """The table of vocabularies."""
        models = [self.folder / f"{size}.model" for size in self.vocabularies]
        options = ["--manifest", self.manifests / "test.tsv"]
        return script("pieces", "report", self.of("train"), self.of("test"), *models, *options)

    def language_model(self, threads: int) -> str:
        """The table of a language model beside a unigram."""
        data = self.lines / "bin"
        overrides = [f"common.seed={self.seed}", f"task.data={data}", *LANGUAGE_MODEL]
        best = train(self.folder / "language-model", "./language_model", overrides, threads, "units")
        options = ["--split", "test", "--manifest", self.manifests / "test.tsv"]
        return script("language_model", "score", best / "checkpoint_best.pt", data, *options)


def decoder(work: Path, method: str, seed: int, checkpoint: Path, threads: int) -> Path:
    """A decoder from a method's codes to log-mel."""
    own = [f"common.seed={seed}", f"task.data={work / 'pretraining'}", f"model.checkpoint={checkpoint}"]
    folder = work / f"{method}-{seed}" / "decoder"
    return train(folder, "./mel_decoder", [*own, *DECODER], threads, "units") / "checkpoint_best.pt"


class Retrieval:
    """Labels of the training clips that are nearest to the test clips of a set.

    Args:
        data, work: where the set and everything else is.
        name: of the set.
    """

    def __init__(self, data: Path, work: Path, name: str) -> None:
        self.manifest, column = work / name / "train.tsv", SETS[name]
        self.labels = {row["name"]: row[column] for row in read_table(data / name / "meta.csv")}
        self.index, self.queries = (self._files(work / name / f"{split}.tsv") for split in ("train", "test"))

    @staticmethod
    def _files(manifest: Path) -> list[Path]:
        root, *rows = manifest.read_text(encoding="utf-8").splitlines()
        return [Path(root, row.split("\t")[0]) for row in rows]

    def precision(self, index: Path, checkpoint: Path, *options: object) -> str:
        """Mean share of neighbours with the query's label, among the first 1 and 5."""
        own = ["--manifest", self.manifest, "--checkpoint", checkpoint, "--top", 5, *options]
        lines = bridle("similar", index, *self.queries, *own).splitlines()
        found = [self.labels[Path(line.split(maxsplit=1)[-1]).stem] for line in lines]
        answers = np.array(found).reshape(len(self.queries), 6)  # the query and its neighbours
        right = answers[:, 1:] == answers[:, :1]
        return f"{right[:, 0].mean():.3f}  {right.mean():.3f}"

    def embeddings(self, folder: Path, checkpoint: Path) -> list[str]:
        """Precision by each pooling of the encoder's last block."""
        bridle("features", checkpoint, self.manifest, "--pooling", *POOLINGS, "--out", folder)
        names = {p: next(folder.glob(f"train.features.{p}.*.npy")).name.split(".", 2)[2][:-4] for p in POOLINGS}
        return [f"{p:10} {self.precision(folder, checkpoint, '--array', names[p])}" for p in POOLINGS]

    def chance(self) -> str:
        """Of a neighbour that is drawn."""
        counts = Counter(self.labels[path.stem] for path in self.index)
        share = np.mean([counts[self.labels[path.stem]] for path in self.queries]) / len(self.index)
        return f"{share:.3f}  {share:.3f}"

    def table(self, folder: Path, checkpoint: Path, codes: Path, seed: int) -> str:
        """One line for each way to compare clips."""
        fresh = untrained(folder / "untrained", checkpoint, seed)
        lines = [f"encoder    {line}" for line in self.embeddings(folder / "features", checkpoint)]
        lines += [f"untrained  {line}" for line in self.embeddings(folder / "untrained", fresh)]
        lines += [f"codes                 {self.precision(codes / 'train.codes', checkpoint)}"]
        return "\n".join(["                      first  five", *lines, f"chance                {self.chance()}\n"])


def main() -> None:
    """Pretrain, then everything that is made of the codes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(args.threads)  # of the commands
    data, work, seed = args.data.resolve(), args.work.resolve(), args.seed
    data = data if (data / next(iter(SETS))).is_dir() else data / "audio"
    prepare(data, work)
    sounds = work / "pretraining" / "train.tsv"
    statistics = once(work / "statistics.txt", lambda: " ".join(measure_statistics(sounds))).split()
    checkpoints = {method: pretrain(work, method, seed, statistics, args.threads) for method in args.methods}

    import bridle_fairseq

    bridle_fairseq.register()

    def show(title: str, path: Path, make: Callable[[], str]) -> None:
        print(f"\n{title}\n{once(path, make)}", flush=True)

    of_all = []
    for method, checkpoint in checkpoints.items():
        for name in SETS:
            codes = tokenize(work / f"{method}-{seed}" / name / "codes", checkpoint, work / name)
            print(f"\n{name}, {method}: codes of the test part\n{use_of_codes(codes)}", flush=True)
            for level in VOCABULARIES[method]:
                units = Units(work, method, seed, name, level)
                units.make()
                show(units.title, units.folder / "pieces.txt", lambda u=units: u.round_trip() + u.report())
                of_all.append(units)
    decoders = [decoder(work, method, seed, checkpoint, args.threads) for method, checkpoint in checkpoints.items()]
    for name in SETS:
        folder = work / f"distance-{name}"
        more = ["--manifest", work / name / "test.tsv", "--out", folder]
        title, path = f"{name}: log-mel distance", folder / "printed.txt"
        show(title, path, lambda m=more: script("hear", "distance", *decoders, *m))
    for units in of_all:
        title = f"{units.title}: language model of {units.pieces} pieces"
        show(title, units.folder / "language-model.txt", lambda u=units: u.language_model(args.threads))
    for method, checkpoint in checkpoints.items():
        for name in SETS:
            folder = work / f"{method}-{seed}" / name
            found = Retrieval(data, work, name)
            path, title = folder / "nearest.txt", f"{name}, {method}: nearest clips"
            show(title, path, lambda r=found, f=folder, c=checkpoint: r.table(f, c, f / "codes", seed))


if __name__ == "__main__":
    main()
