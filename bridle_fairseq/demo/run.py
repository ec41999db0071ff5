"""The demo from start to end: media, manifests, statistics, pretraining, codes, probe, page."""

from __future__ import annotations

import json
import math
import os
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bridle_fairseq.demo import training
from bridle_fairseq.demo.media import MEDIA
from bridle_fairseq.nn.schedule import Stage
from bridle_fairseq.training.launch import TrainingRun, find_script, override
from bridle_fairseq.training.log import Record
from bridle_fairseq.training.progress import train_with_bar
from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.files import atomic_text
from bridle_fairseq.utils.json_files import parse_json
from bridle_fairseq.utils.packaged import packaged

if TYPE_CHECKING:
    from bridle_fairseq.demo.probing import Comparison
    from bridle_fairseq.nn.bridle import Bridle
    from bridle_fairseq.tasks.base import MediaTask

CLIPS_SHOWN, PREDICTIONS_SHOWN = 4, 2
SETTINGS_FILE = "demo.json"
say = partial(print, flush=True)


@dataclass(frozen=True)
class DemoSettings:
    """Settings of a demo; a folder holds one demo."""

    modality: str
    media: str | None  # folder of the user's files; None: synthetic ones
    labels: str | None
    updates: int
    clips_per_class: int
    seed: int


class Demo:
    """One demo in its folder. An interrupted demo is resumed.

    Args:
        folder: for all files of the demo.
        settings: see :class:`DemoSettings`.

    Raises:
        InputError: the folder holds a demo with other settings, or something else.
    """

    def __init__(self, folder: str, settings: DemoSettings) -> None:
        self.folder, self.settings = Path(folder).absolute(), settings
        self.media = MEDIA[settings.modality]
        self.manifests = self.folder / "manifests"
        self.seconds: dict[str, float] = {}
        self._claim_folder()

    def _claim_folder(self) -> None:
        override("checkpoint.save_dir", self.folder)  # fail at once if training could not use it
        path = self.folder / SETTINGS_FILE
        if path.exists():
            settings, self.seconds = _stored(path)
            if settings != asdict(self.settings):
                raise InputError(
                    f"{self.folder} holds a demo with other settings ({_listed(settings)}); expected "
                    f"{_listed(asdict(self.settings))}, or another --dir, or none there"
                )
        elif self.folder.is_dir() and any(self.folder.iterdir()):
            raise InputError(f"{self.folder} holds something that is no demo; expected a new or empty folder for --dir")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._store()

    def _store(self) -> None:
        with atomic_text(self.folder / SETTINGS_FILE) as file:
            json.dump({"settings": asdict(self.settings), "seconds": self.seconds}, file, indent=2)
            file.write("\n")

    @contextmanager
    def _step(self, name: str, text: str) -> Iterator[None]:
        """Announce a step, and add up its duration over all runs of this demo."""
        say(f"\n{text}")
        begun = time.monotonic()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - begun
        self._store()

    def run(self) -> Path:
        """Run all steps that are not finished.

        Returns:
            The path of the HTML page.
        """
        with self._step("media", f"1/6  {self.media.many} and manifests"):
            splits = self._write_manifests(*self._media_and_labels())
        with self._step("stats", "2/6  mean and deviation of what goes in"):
            statistics = self._measure_statistics()
        plan = training.stages(self.settings.updates)
        listed = ", ".join(f"{stage.kind} {stage.updates}" for stage in plan)
        with self._step("training", f"3/6  pretraining: {listed} updates"):
            records = self._train(statistics, plan)
        checkpoint = training.newest_checkpoint(self.folder)
        from bridle_fairseq.models.checkpoints import load_model
        from bridle_fairseq.utils.device import choose_device

        device = choose_device(None)
        model, task = load_model(checkpoint, device)
        with self._step("codes", "4/6  codes of all clips"):
            self._tokenize(checkpoint, model, task, device, splits)
        comparison = None
        with self._step("probe", "5/6  linear probes of frozen features"):
            if "test" in splits:
                comparison = self._probe(model, task)
            else:
                say("  left out: no labels were given (--labels CSV with the columns file and label)")
        with self._step("page", "6/6  the page"):
            page = self._write_page(model, task, records, plan, splits, statistics, comparison)
        self._print_ending(page, statistics)
        return page

    # -- steps -------------------------------------------------------------------------------------------------------

    def _media_and_labels(self) -> tuple[str, str | None]:
        """Folder of the files and path of their labels; the synthetic set is written if it is not there."""
        settings = self.settings
        if settings.media is not None:
            return settings.media, settings.labels
        labels = Path(self._media_folder()) / "labels.csv"
        if not labels.exists():
            say(f"  synthesizing {self.media.classes} classes, {settings.clips_per_class} {self.media.one}s each")
            self.media.make(labels.parent, settings.clips_per_class, settings.seed)
        return str(labels.parent), str(labels)

    def _media_folder(self) -> str:
        return self.settings.media or str(self.folder / self.media.examples)

    def _write_manifests(self, media: str, labels: str | None) -> list[str]:
        from bridle_fairseq.demo.data import write_manifests

        return write_manifests(media, labels, self.manifests, self.settings.seed, self.media.modality)

    def _measure_statistics(self) -> list[str]:
        from bridle_fairseq.prepare.statistics import StatisticsOptions, measure_overrides

        options = StatisticsOptions(self.media.modality, **self.media.statistics)
        say_clips = partial(print, file=sys.stderr)
        overrides = measure_overrides(str(self.manifests / "train.tsv"), options, say=say_clips)
        say(f"  {' '.join(overrides)}")
        return overrides

    def _train(self, statistics: Sequence[str], plan: Sequence[Stage]) -> list[Record]:
        run = training.pretraining(
            self.folder,
            self.manifests,
            statistics,
            plan,
            self.settings.seed,
            self.media.overrides,
            self.media.configs,
        )
        say(f"  {shlex.join(run.command())}")
        return train_with_bar(run, self.folder / "train.log", sum(stage.updates for stage in plan))

    def _tokenize(self, checkpoint: str, model: Bridle, task: MediaTask, device: str, splits: Sequence[str]) -> None:
        from bridle_fairseq.data.manifests.manifest import Manifest
        from bridle_fairseq.inference.codes import describe_codes, summary_text, tokenize_corpus
        from bridle_fairseq.inference.pipeline import BatchOptions

        for split in splits:
            manifest = Manifest.read(self.manifests / f"{split}.tsv")
            prefix = str(self.folder / "codes" / f"{split}.codes")
            info = describe_codes(model, task.cfg, manifest, checkpoint)
            outcome = tokenize_corpus(model, task.cfg, manifest, prefix, info, BatchOptions(device=device))
            if outcome.was_complete:
                say(f"  {prefix}.bin is complete already: codes of this checkpoint and manifest")
                continue
            say(f"  {outcome.throughput(split, device)}")
            if split == "train":
                say("\n".join(f"  {line}" for line in summary_text(outcome.summary, prefix).splitlines()))

    def _probe(self, model: Bridle, task: MediaTask) -> Comparison:
        from bridle_fairseq.demo.contents import differences
        from bridle_fairseq.demo.probing import compare

        comparison = compare(model, task, self.manifests, self.settings.seed, say)
        width = max(len(row.name) for row in comparison.rows)
        say(f"\n  {'features':{width}}  accuracy  chosen on validation clips")
        for row in comparison.rows:
            say(f"  {row.name:{width}}  {row.accuracy:8.3f}  {row.chosen}{'  <- best' if row.best else ''}")
        for sentence in differences(comparison, self.media):
            say(f"  {sentence}")
        return comparison

    def _write_page(
        self,
        model: Bridle,
        task: MediaTask,
        records: Sequence[Record],
        plan: Sequence[Stage],
        splits: Sequence[str],
        statistics: Sequence[str],
        comparison: Comparison | None,
    ) -> Path:
        from bridle_fairseq.data.artifacts.codes import CachedCodes
        from bridle_fairseq.demo import clips as shown
        from bridle_fairseq.demo import contents
        from bridle_fairseq.demo.report import Page, render
        from bridle_fairseq.report.examples import Items
        from bridle_fairseq.report.run import stage_bands

        model = model.cpu()
        split = "test" if "test" in splits else splits[-1]
        items = Items(str(self.manifests / f"{split}.tsv"), task.cfg)
        codes = CachedCodes(self.folder / "codes" / f"{split}.codes", items.manifest)
        rows = shown.chosen_rows(items, codes, CLIPS_SHOWN)
        encoder = self._after_encoder_stage(plan)
        maps = {} if comparison is None else shown.maps(comparison, items)
        clips, sound = contents.clips_and_seconds(self.manifests, splits, self.media.modality)
        page = Page(
            headline=contents.headline(comparison, self.media),
            summary=contents.summary(comparison, self.media, synthetic=self.settings.media is None),
            facts=[
                (f"{clips}", f"{self.media.one}s"),
                *([(duration_text(sound), "of sound")] if sound else []),
                (f"{sum(stage.updates for stage in plan)}", "updates"),
                (duration_text(self.seconds["training"]), "of training"),
                (duration_text(sum(self.seconds.values())), "in all"),
            ],
            records=records,
            bands=stage_bands(plan),
            bars=contents.bars(comparison, self.media),
            rows=[] if comparison is None else comparison.rows,
            table_note=contents.table_note(comparison),
            differences=contents.differences(comparison, self.media),
            maps=contents.named_maps(comparison, maps, self.media),
            neighbours=[] if comparison is None else shown.neighbours(comparison, items, model, self.settings.seed),
            clips=shown.drawn(model, items, rows),
            shown=self.media.shown,
            codebooks=list(model.quantizer.codebooks.codes.numpy()),
            codebook_size=model.settings.codebook_size,
            predictions=shown.drawn(encoder, items, rows[:PREDICTIONS_SHOWN]) if encoder else [],
            mask_ratio=model.settings.mask_ratio,
            one=self.media.one,
            method=(packaged("docs") / "method.svg").read_text(encoding="utf-8"),
            files=self.files(),
            commands=self.next_commands(statistics),
            footer=f"Made by bridle demo, seed {self.settings.seed}.",
        )
        path = self.folder / "report.html"
        with atomic_text(path) as file:
            file.write(render(page))
        say(f"  {page.headline}")
        return path

    def _after_encoder_stage(self, plan: Sequence[Stage]) -> Bridle | None:
        """The model whose decoder knows its codes; those of the tokenizer's stage are new to it."""
        from bridle_fairseq.models.checkpoints import load_model

        path = training.checkpoint_after(self.folder, plan[0].updates)
        return None if path is None else load_model(path, "cpu")[0]

    # -- files and next commands --------------------------------------------------------------------------------------

    def files(self) -> list[tuple[str, str]]:
        """(description, path) of the demo's files."""
        return [
            (self.media.many, self._media_folder()),
            ("manifests", str(self.manifests)),
            ("checkpoint", str(self.folder / "checkpoints" / "checkpoint_last.pt")),
            ("codes", str(self.folder / "codes")),
            ("training log", str(self.folder / "train.log")),
            ("this page", str(self.folder / "report.html")),
        ]

    def next_commands(self, statistics: Sequence[str]) -> list[tuple[str, str]]:
        """(description, command) of what to run next; each command works as printed."""
        bridle = os.path.join(os.path.dirname(find_script()), "bridle")
        media, larger, many = self._media_folder(), self.media.larger, self.media.many
        labels = self.settings.labels or (None if self.settings.media else os.path.join(media, "labels.csv"))
        own = [bridle, "demo", f"--{self.media.examples}", media, *(("--labels", labels) if labels else ())]
        saves, hydra = self.folder / larger, self.folder / larger / "hydra"
        data = [override("task.data", self.manifests), *statistics]
        train = TrainingRun(self.media.configs, larger, saves, hydra, data).command()
        checkpoint = str(self.folder / "checkpoints" / "checkpoint_last.pt")
        valid, out = str(self.manifests / "valid.tsv"), str(self.folder / f"codes_of_other_{many}")
        return [
            (f"The same with your own {many}: put your folder and your table (columns file, label) in place of these.",
             shlex.join([*own, "--dir", f"{self.folder}_own"])),
            (f"A longer training, {larger} as it is configured, on the same {many}; it can be killed and run again.",
             shlex.join(train)),
            (f"The codes of other {many}: any manifest that bridle manifest has made.",
             shlex.join([bridle, "tokenize", checkpoint, valid, "--out", out])),
        ]  # fmt: skip

    def _print_ending(self, page: Path, statistics: Sequence[str]) -> None:
        say(f"\ndone in {duration_text(sum(self.seconds.values()))}")
        for what, where in self.files():
            say(f"  {what:13} {where}")
        say("\nwhat to run next")
        for text, command in self.next_commands(statistics):
            say(f"  # {text}\n  {command}\n")
        say(f"open {page}")


def _stored(path: Path) -> tuple[dict[str, Any], dict[str, float]]:
    """Settings of a demo, and the seconds of its steps so far."""
    try:
        stored = parse_json(path.read_bytes())
        seconds = {str(name): float(value) for name, value in stored["seconds"].items()}
        if not math.isfinite(sum(seconds.values())):
            raise ValueError("seconds are not finite")
        return dict(stored["settings"]), seconds
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise InputError(
            f"{path}: cannot read the settings of this demo ({error!r}); expected JSON that bridle demo wrote: remove "
            "the file's folder, or choose another --dir"
        ) from None


def duration_text(seconds: float) -> str:
    """A duration for readers: 75 -> ``1 min 15 s``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _listed(settings: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items() if value is not None)
