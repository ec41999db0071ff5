"""Real training on a GPU: `base_fast` and `small` from FLAC by stock fairseq-hydra-train, killed and resumed, probed.

    python benchmarks/gpu_run.py DATA --work WORK [--seconds 150] [--workers 12] [--dry-run]

DATA is a folder of gpu_data.py. `base_fast` (bfloat16, compiled) trains on clips of 10.24 s for a quarter of the time.
Its clips per second, without the beginning, stand beside those of the loader alone and of the update alone. `small`
then trains on words for as many updates as fit, is killed once and resumed, and its frozen encoder is probed beside an
untrained one and log-mel. --dry-run does all of it on a CPU with the smallest models; its timings are meaningless.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import ClassVar

import torch
from configs import model_settings
from gpu_step import SECONDS, Candidate, ours, seconds_of
from results import result
from runs import best_rows, bridle, measure_statistics
from train_step import COLD

from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.data.manifests.skipped import SkipLog
from bridle_fairseq.training.configs import EXAMPLES
from bridle_fairseq.training.launch import TrainingRun
from bridle_fairseq.training.loader_speed import LoaderOptions, measure_loader
from bridle_fairseq.training.log import Record, read_log

BATCH = 64
TINY = ["encoder_width=48", "encoder_depth=2", "encoder_heads=2", "decoder_width=32", "decoder_depth=2"]
TINY += ["decoder_heads=2", "tokenizer_depth=2", "estimator_depth=1", "codebook_size=16", "codebook_dim=16"]
BEGINNING = 0.5  # share of a run's updates that is left out of its speed: compiling, filling the loader's queues


class Card:
    """Samples the use and the memory of the GPU with nvidia-smi, twice a second, while the context lasts."""

    def __init__(self) -> None:
        self.samples: list[tuple[float, float, float]] = []  # time, percent in use, MiB

    def __enter__(self) -> Card:
        command = ["nvidia-smi", "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits"]
        self.process: subprocess.Popen[str] | None = None
        if shutil.which("nvidia-smi"):
            self.process = subprocess.Popen([*command, "-lms", "500"], stdout=subprocess.PIPE, text=True)
            threading.Thread(target=self._read, daemon=True).start()
        return self

    def _read(self) -> None:
        assert self.process is not None and self.process.stdout is not None
        for line in self.process.stdout:
            try:
                use, memory = (float(text) for text in line.split(","))
            except ValueError:  # "[N/A]"
                continue
            self.samples.append((time.time(), use, memory))

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process is not None:
            self.process.terminate()

    def text(self, begin: float, end: float) -> str:
        """Mean use and largest memory between two times."""
        chosen = [sample for sample in self.samples if begin <= sample[0] <= end]
        if not chosen:
            return "use and memory of the card not measured"
        use = statistics.mean(sample[1] for sample in chosen)
        return f"card {use:.0f} % in use, {max(sample[2] for sample in chosen) / 1024:.1f} GiB"


class Training:
    """A run of fairseq-hydra-train that may be killed; its output goes to a log, and to ours if it fails."""

    started: ClassVar[list[Training]] = []

    def __init__(self, args: argparse.Namespace, name: str, config: str, overrides: Sequence[str]) -> None:
        self.folder = args.work / name
        common = [
            "common.tensorboard_logdir=null",
            "common.log_interval=5" if args.dry_run else "common.log_interval=20",
        ]
        common += [f"dataset.num_workers={args.workers}", f"dataset.batch_size={4 if args.dry_run else BATCH}"]
        common += [f"model.{option}" for option in TINY] if args.dry_run else []
        run = TrainingRun(
            EXAMPLES / "audio" / "config" / "pretraining",
            config,
            save_dir=self.folder / "checkpoints",
            hydra_dir=self.folder,
            overrides=[*common, *overrides],
            cpu=args.dry_run,
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = self.folder / "stdout.log"
        self.process = subprocess.Popen(
            run.command(), stdout=self.log.open("a"), stderr=subprocess.STDOUT, start_new_session=True
        )
        self.started.append(self)

    def records(self) -> list[Record]:
        """What training has logged so far."""
        return [r for r in read_log(self.log) if r.split == "train" and r.logged_at is not None]

    def kill(self) -> None:
        """SIGKILL to the run and its loader processes."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def finish(self) -> list[Record]:
        """Wait for the end.

        Raises:
            SystemExit: the run failed.
        """
        code = self.process.wait()
        if code:
            raise SystemExit(f"{self.log} ends with exit code {code}:\n" + self.log.read_text()[-3000:])
        return self.records()


def speed(records: list[Record], batch: int) -> tuple[float, float, float]:
    """Clips per second without the beginning, and the times between which it was measured."""
    last = records[-1]
    first = next(record for record in records if record.update >= BEGINNING * last.update)
    if first is last:
        first = records[0]
    assert first.logged_at is not None and last.logged_at is not None
    elapsed = max(last.logged_at - first.logged_at, 1e-3)
    return (last.update - first.update) * batch / elapsed, first.logged_at, last.logged_at


def end_to_end(args: argparse.Namespace) -> None:
    """`base_fast` from FLAC, the loader alone and the update alone."""
    samples = 16000 if args.dry_run else round(16000 * SECONDS)
    options = [f"task.data={args.data / 'long'}", f"task.max_sample_size={samples}", "optimization.update_freq=[1]"]
    options += ["dataset.disable_validation=true", "checkpoint.no_save=true"]
    end = f"stop_time_hours={args.seconds / 4 / 3600:.6f}" if not args.dry_run else "max_update=20"
    options += [f"optimization.{end}", f"model.compile={str(not args.dry_run).lower()}"]
    with Card() as card:
        records = Training(args, "base_fast", "base_fast", options).finish()
    batch = 4 if args.dry_run else BATCH
    clips, begin, over = speed(records, batch)
    trained = f"{records[-1].update} updates, loss {records[-1].values['loss']:.2f}"
    manifest = args.data / "long/train.tsv"
    loader = LoaderOptions(
        str(manifest), "audio", batch, None, args.workers, 1 if args.dry_run else 6, [f"task.max_sample_size={samples}"]
    )
    found = Manifest.read(manifest)
    measured = measure_loader(loader, found, SkipLog(found, args.work / "skipped.tsv"))
    step_args = argparse.Namespace(
        **{"batch_size": batch, "seconds": samples / 16000, "dry_run": args.dry_run},
        **{"device": torch.device("cpu" if args.dry_run else "cuda"), "compile": True},
        backend="eager" if args.dry_run else "inductor",
    )
    run: Candidate = ours(step_args, COLD, cached=False, **model_settings("base_fast"))
    step = statistics.median(seconds_of(run.update, step_args.device, 2 if args.dry_run else 20) for _ in range(5))
    loads, steps = measured.clips / measured.seconds, batch / step
    share = f"{clips / min(loads, steps):.2f} of the slower of loader and update"
    result(
        f"base_fast from FLAC, {args.workers} loader processes",
        f"{clips:.0f} clips/s, {share}; {card.text(begin, over)}; {trained}",
        "0.90",
    )
    result("its loader alone, its update alone", f"{loads:.0f} clips/s, {steps:.0f} clips/s")


def train_small(args: argparse.Namespace) -> Path:
    """`small` on words for as many updates as fit, killed once and resumed; its last checkpoint."""
    words = args.data / "words"
    options = [f"task.data={words}", "dataset.train_subset=train_many", *measure_statistics(words / "train.tsv")]
    if args.dry_run:
        stages = "{kind: encoder, updates: 30, lr: 0.001}, {kind: tokenizer, updates: 10, lr: 0.0005}"
        options += [f"model.stages=[{stages}]", "checkpoint.save_interval_updates=10", "task.max_sample_size=4000"]
    else:
        options += [f"optimization.stop_time_hours={args.seconds * 0.3 / 3600:.6f}"]
    least = 15 if args.dry_run else 300
    with Card() as card:
        first = Training(args, "small", "small", options)
        while not (first.records() and first.records()[-1].update >= least):
            if first.process.poll() is not None:
                first.finish()
                raise SystemExit(f"{first.log}: ended before it could be killed")
            time.sleep(0.1)
        first.kill()
        second = Training(args, "small", "small", options)
        records = second.finish()
    if "Loaded checkpoint" not in second.log.read_text():
        raise SystemExit(f"{second.log}: the run that was killed did not resume")
    clips, begin, over = speed(records, 4 if args.dry_run else BATCH)
    last = records[-1]
    result(
        f"small on words, {args.workers} loader processes",
        f"{clips:.0f} clips/s; {card.text(begin, over)}; {last.update} updates, stage {last.values['stage']:.0f}, "
        f"loss {last.values['loss']:.2f}; killed after {least} updates and resumed",
    )
    return second.folder / "checkpoints" / "checkpoint_last.pt"


def probe(args: argparse.Namespace, checkpoint: Path) -> None:
    """Accuracy of the frozen encoder on the validation words."""
    out = args.work / "probe"
    bridle("probe", checkpoint, args.data / "words", "--out", out, "--probes", "ridge", "--test", "valid")
    rows = best_rows(out)
    names = {"encoder": "encoder", "untrained": "untrained", "input": "log-mel"}
    texts = [f"{names[kind]} {row['valid']:.3f}" for kind, row in rows.items()]
    result("probe of small, validation accuracy", ", ".join(texts), "over log-mel")


def main() -> None:
    """Train, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="folder for runs; emptied first")
    parser.add_argument("--seconds", type=float, default=150, help="of all together, about")
    parser.add_argument("--workers", type=int, default=12, help="loader processes")
    parser.add_argument("--dry-run", action="store_true", help="smallest models, on a CPU")
    args = parser.parse_args()
    args.data, args.work = args.data.absolute(), args.work.absolute()
    if args.dry_run:
        args.workers = 1
    shutil.rmtree(args.work, ignore_errors=True)
    args.work.mkdir(parents=True)
    try:
        end_to_end(args)
        probe(args, train_small(args))
    finally:  # also at a time limit
        for training in Training.started:
            if training.process.poll() is None:
                training.kill()


if __name__ == "__main__":
    main()
