"""Codes as discrete units: SentencePiece compression, language models, log-mel distance and retrieval.

    python benchmarks/units.py DATA --work WORK [--seed 1] [--methods rq vq] [--threads 1]

DATA or DATA/audio holds two sets, each with meta.csv and opus/: arabic-speech-commands (its own splits, by speaker) and
esc10 (folds 1 to 3 are training, 4 validation, 5 test). Encoder and tokenizer (`tiny`) are pretrained on the training
splits of both, once with 4 x 256 codes (rq) and once with 1 x 1024 codes (vq). Then, for each set:

* codes: number of codes that the test split uses.
* pieces: SentencePiece trained on the units of the training split; tokens/s and bits/s on the test split; and whether
  codes -> text -> pieces -> text -> codes is lossless for all clips.
* a decoder from codes to log-mel, trained on both sets: mean distance on the test split by number of levels, and a plot
  (WORK/distance-SET/distances.png).
* nearest clips: precision at 1 and at 5 of the training clips that `bridle similar` retrieves for each test clip; by
  embeddings of the encoder, by embeddings of the untrained encoder, and by codes.
* fairseq language models over pieces, compared with unigrams: fitted on the training split, chosen on the validation
  split, measured on the test split.

Everything runs in turn. Finished steps are not repeated: use another WORK for other settings.
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

SETS = {"arabic-speech-commands": "keyword", "esc10": "category"}  # set -> column of its labels
SPLITS = {"train": "train", "valid": "val", "test": "test"}
FOLDS = {"1": "train", "2": "train", "3": "train", "4": "val", "5": "test"}
METHODS = {"rq": [], "vq": ["+variant=vq"]}  # 4 x 256 codes, 1 x 1024
PRETRAINING = (
    *("task.roll=false", "dataset.batch_size=20", "dataset.validate_interval_updates=750"),
    "model.stages=[{kind: encoder, updates: 600, lr: 5.0e-4, warmup_updates: 60}, "
    "{kind: tokenizer, updates: 150, lr: 5.0e-4, warmup_updates: 15}]",
)
VOCABULARIES = {  # method -> level -> vocabulary sizes
    "rq": {"1": (300, 500, 1000, 2000, 4000), "all": (1200, 2000, 4000, 8000)},
    "vq": {"all": (1200, 2000, 4000, 8000)},
}
LANGUAGE_MODEL_PIECES = {"1": 1000, "all": 2000}  # level -> vocabulary size of its language model
LANGUAGE_MODEL = (
    *("dataset.max_tokens=4096", "optimization.max_update=100", "lr_scheduler.warmup_updates=20"),
    *("model.decoder_embed_dim=128", "model.decoder_ffn_embed_dim=512", "model.decoder_layers=2"),
)
DECODER = ("optimization.max_update=300", "dataset.batch_size=16", "dataset.validate_interval_updates=300")
POOLINGS = ("mean", "frequency")


def once(path: Path, make: Callable[[], str]) -> str:
    """The text of a file. If the file does not exist, ``make`` returns the text and it is written."""
    if not path.exists():
        text = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return path.read_text(encoding="utf-8")


def prepare(data: Path, work: Path) -> None:
    """Decode all sounds; write manifests of each set's splits and of both sets together."""
    all_files: dict[str, list[str]] = {split: [] for split in SPLITS}
    for name in SETS:
        rows = read_table(data / name / "meta.csv")
        decode([data / name / "opus" / f"{row['name']}.opus" for row in rows], work / "sounds" / name)
        for split, column_value in SPLITS.items():
            kept = [row for row in rows if (FOLDS[row["fold"]] if "fold" in row else row["split"]) == column_value]
            files = [f"{name}/{row['name']}.wav" for row in kept]
            write_manifest(work / name / f"{split}.tsv", work / "sounds", files)
            all_files[split] += files
    for split in ("train", "valid"):
        write_manifest(work / "pretraining" / f"{split}.tsv", work / "sounds", all_files[split])


def pretrain(work: Path, method: str, seed: int, statistics: list[str], threads: int) -> Path:
    """Pretrain an encoder and its tokenizer; return the last checkpoint."""
    own = [f"common.seed={seed}", f"task.data={work / 'pretraining'}", *statistics]
    folder = train(work / f"{method}-{seed}", "pretraining/tiny", [*METHODS[method], *own, *PRETRAINING], threads)
    return folder / "checkpoint_last.pt"


def run_script(name: str, *arguments: object) -> str:
    """Run a script of examples/units; return what it prints."""
    line = [sys.executable, str(EXAMPLES / "units" / f"{name}.py"), *map(str, arguments)]
    return subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True).stdout


def tokenize(folder: Path, checkpoint: Path, manifests: Path) -> Path:
    """Make the codes of all splits; return their folder."""
    for split in SPLITS:
        if not (folder / f"{split}.codes.json").exists():
            bridle("tokenize", checkpoint, manifests / f"{split}.tsv", "--out", folder)
    return folder


def code_usage(folder: Path) -> str:
    """A table of the codes of each level that the test split uses."""
    import torch

    from bridle_fairseq.data.artifacts.codes import CachedCodes
    from bridle_fairseq.quantization.statistics import code_counts, level_statistics

    codes = CachedCodes(folder / "test.codes")
    patches = torch.from_numpy(np.concatenate([codes.item(row) for row in range(len(codes))]))  # N x K
    lines = ["level   codes used  perplexity  bits"]
    for use in level_statistics(code_counts(patches, codes.info.codebook_size)):
        lines.append(
            f"{use.level:5}  {use.used_codes:4} / {use.codebook_size:4}  {use.perplexity:10.1f}  {use.entropy_bits:.2f}"
        )
    return "\n".join(lines)


class Units:
    """The units of one level (or all levels) of a set, and the pieces and language model over them.

    Args:
        work: folder of the benchmark.
        method, seed: of the model.
        name: of the set.
        level: number of the level, or "all".
    """

    def __init__(self, work: Path, method: str, seed: int, name: str, level: str) -> None:
        self.manifests, self.seed, self.level = work / name, seed, level
        self.codes = work / f"{method}-{seed}" / name / "codes"
        self.folder = work / f"{method}-{seed}" / name / f"level-{level}"
        self.vocabularies, self.pieces = VOCABULARIES[method][level], LANGUAGE_MODEL_PIECES[level]
        self.lines, self.model = self.folder / "lines", self.folder / f"{self.pieces}.model"
        self.title = f"{name}, {method}, {'all levels' if level == 'all' and method == 'rq' else 'level 1'}"

    def units(self, split: str) -> Path:
        """Path of the units of a split."""
        return self.folder / f"{split}.units"

    def make(self) -> None:
        """Write the units, the SentencePiece models, and the preprocessed lines of pieces for a language model."""
        codes = [self.codes / f"{split}.codes" for split in SPLITS]
        bridle("units", *codes, "--level", self.level, "--format", "text", "--out", self.folder)
        missing = [size for size in self.vocabularies if not (self.folder / f"{size}.model.json").exists()]
        if missing:
            run_script("pieces", "train", self.units("train"), "--vocab-size", *missing, "--out", self.folder)
        if not (self.lines / "bin" / "test.idx").exists():
            run_script("pieces", "encode", self.model, *map(self.units, SPLITS), "--out", self.lines)
            splits = [f"--{split}pref={self.lines / split}.pieces" for split in SPLITS]
            files = [f"--srcdict={self.lines / 'dict.txt'}", f"--destdir={self.lines / 'bin'}", *splits]
            line = [command("fairseq-preprocess"), "--only-source", *files]
            subprocess.run(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)

    def round_trip(self) -> str:
        """Whether codes -> text -> pieces -> text -> codes is lossless for all splits."""
        decoded = self.folder / "again"
        for split in SPLITS:
            options = ["--like", self.units(split), "--out", decoded]
            run_script("pieces", "decode", self.model, self.lines / f"{split}.pieces", *options)
        bridle("units", "--back", *(decoded / f"{split}.units" for split in SPLITS), "--out", decoded)
        if self.level == "all":
            names = [f"{split}.codes.{ending}" for split in SPLITS for ending in ("bin", "idx", "json")]
            same = all(filecmp.cmp(self.codes / name, decoded / name, shallow=False) for name in names)
        else:
            same = all(np.array_equal(*pair) for split in SPLITS for pair in self._levels(decoded / f"{split}.codes"))
        return f"round trip: {'the same' if same else 'DIFFERENT'} codes\n"

    def _levels(self, path: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(original codes of this level, decoded codes) of each clip."""
        from bridle_fairseq.data.artifacts.codes import CachedCodes

        originals, decoded = CachedCodes(self.codes / path.name), CachedCodes(path)
        for row in range(len(originals)):
            yield originals.item(row)[:, int(self.level) - 1 :][:, :1], decoded.item(row)

    def report(self) -> str:
        """The table of vocabulary sizes."""
        models = [self.folder / f"{size}.model" for size in self.vocabularies]
        options = ["--manifest", self.manifests / "test.tsv"]
        return run_script("pieces", "report", self.units("train"), self.units("test"), *models, *options)

    def language_model(self, threads: int) -> str:
        """Train a language model; return its table, which includes a unigram."""
        data = self.lines / "bin"
        overrides = [f"common.seed={self.seed}", f"task.data={data}", *LANGUAGE_MODEL]
        best = train(self.folder / "language-model", "./language_model", overrides, threads, "units")
        options = ["--split", "test", "--manifest", self.manifests / "test.tsv"]
        return run_script("language_model", "score", best / "checkpoint_best.pt", data, *options)


def train_decoder(work: Path, method: str, seed: int, checkpoint: Path, threads: int) -> Path:
    """Train a decoder from a method's codes to log-mel; return its best checkpoint."""
    own = [f"common.seed={seed}", f"task.data={work / 'pretraining'}", f"model.checkpoint={checkpoint}"]
    folder = work / f"{method}-{seed}" / "decoder"
    return train(folder, "./mel_decoder", [*own, *DECODER], threads, "units") / "checkpoint_best.pt"


class Retrieval:
    """Precision of the training clips retrieved for the test clips of a set.

    Args:
        data: folder of the sets.
        work: folder of the benchmark.
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
        """Precision at 1 and at 5: the mean fraction of neighbours that have the label of the query."""
        own = ["--manifest", self.manifest, "--checkpoint", checkpoint, "--top", 5, *options]
        lines = bridle("similar", index, *self.queries, *own).splitlines()
        labels = [self.labels[Path(line.split(maxsplit=1)[-1]).stem] for line in lines]
        table = np.array(labels).reshape(len(self.queries), 6)  # queries x (the query and its 5 neighbours)
        correct = table[:, 1:] == table[:, :1]
        return f"{correct[:, 0].mean():.3f}  {correct.mean():.3f}"

    def embeddings(self, folder: Path, checkpoint: Path) -> list[str]:
        """Precision with each pooling of the encoder's last block."""
        bridle("features", checkpoint, self.manifest, "--pooling", *POOLINGS, "--out", folder)
        names = {p: next(folder.glob(f"train.features.{p}.*.npy")).name.split(".", 2)[2][:-4] for p in POOLINGS}
        return [f"{p:10} {self.precision(folder, checkpoint, '--array', names[p])}" for p in POOLINGS]

    def chance(self) -> str:
        """Expected precision of random neighbours."""
        counts = Counter(self.labels[path.stem] for path in self.index)
        share = np.mean([counts[self.labels[path.stem]] for path in self.queries]) / len(self.index)
        return f"{share:.3f}  {share:.3f}"

    def table(self, folder: Path, checkpoint: Path, codes: Path, seed: int) -> str:
        """A row for each way to compare clips."""
        random_init = untrained(folder / "untrained", checkpoint, seed)
        lines = [f"encoder    {line}" for line in self.embeddings(folder / "features", checkpoint)]
        lines += [f"untrained  {line}" for line in self.embeddings(folder / "untrained", random_init)]
        lines += [f"codes                 {self.precision(codes / 'train.codes', checkpoint)}"]
        return "\n".join(["                      p@1    p@5", *lines, f"chance                {self.chance()}\n"])


def main() -> None:
    """Pretrain, then run all comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(args.threads)  # for the commands
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

    all_units = []
    for method, checkpoint in checkpoints.items():
        for name in SETS:
            codes = tokenize(work / f"{method}-{seed}" / name / "codes", checkpoint, work / name)
            print(f"\n{name}, {method}: codes of the test split\n{code_usage(codes)}", flush=True)
            for level in VOCABULARIES[method]:
                units = Units(work, method, seed, name, level)
                units.make()
                show(units.title, units.folder / "pieces.txt", lambda u=units: u.round_trip() + u.report())
                all_units.append(units)
    decoders = [
        train_decoder(work, method, seed, checkpoint, args.threads) for method, checkpoint in checkpoints.items()
    ]
    for name in SETS:
        folder = work / f"distance-{name}"
        options = ["--manifest", work / name / "test.tsv", "--out", folder]
        title, path = f"{name}: log-mel distance", folder / "printed.txt"
        show(title, path, lambda o=options: run_script("hear", "distance", *decoders, *o))
    for units in all_units:
        title = f"{units.title}: language model of {units.pieces} pieces"
        show(title, units.folder / "language-model.txt", lambda u=units: u.language_model(args.threads))
    for method, checkpoint in checkpoints.items():
        for name in SETS:
            folder = work / f"{method}-{seed}" / name
            retrieval = Retrieval(data, work, name)
            path, title = folder / "nearest.txt", f"{name}, {method}: nearest clips"
            show(title, path, lambda r=retrieval, f=folder, c=checkpoint: r.table(f, c, f / "codes", seed))


if __name__ == "__main__":
    main()
