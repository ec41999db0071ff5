"""The demo from beginning to end: media, manifests, statistics, pretraining, codes, probe, page."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bridle_fairseq.demo import training
from bridle_fairseq.demo.media import MEDIA
from bridle_fairseq.nn.schedule import Stage
from bridle_fairseq.training.launch import TrainingRun, find_script
from bridle_fairseq.utils.errors import InputError

CLIPS_SHOWN = 4
SETTINGS_FILE = "demo.json"


@dataclass(frozen=True)
class Settings:
    """What a demo is made from; a folder holds one demo."""

    modality: str
    media: str | None  # None: synthesised
    labels: str | None
    updates: int
    clips_per_class: int
    seed: int


class Demo:
    """One demo in its folder. A demo that was interrupted goes on where it was.

    Args:
        folder: for everything the demo makes.
        settings: see :class:`Settings`.

    Raises:
        InputError: the folder holds a demo of other settings.
    """

    def __init__(self, folder: str, settings: Settings) -> None:
        self.folder, self.settings = Path(folder).absolute(), settings
        self.media = MEDIA[settings.modality]
        self.manifests = self.folder / "manifests"
        self.seconds: dict[str, float] = {}
        self._claim_folder()

    def _claim_folder(self) -> None:
        path = self.folder / SETTINGS_FILE
        if path.exists():
            kept = json.loads(path.read_text(encoding="utf-8"))
            if kept["settings"] != asdict(self.settings):
                raise InputError(
                    f"{self.folder} holds a demo with other settings ({_in_words(kept['settings'])}); expected "
                    f"{_in_words(asdict(self.settings))}, or another --dir, or none there"
                )
            self.seconds = kept["seconds"]
        elif self.folder.is_dir() and any(self.folder.iterdir()):
            raise InputError(f"{self.folder} holds something that is no demo; expected a new or empty folder for --dir")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._keep()

    def _keep(self) -> None:
        text = json.dumps({"settings": asdict(self.settings), "seconds": self.seconds}, indent=2)
        (self.folder / SETTINGS_FILE).write_text(text + "\n", encoding="utf-8")

    @contextmanager
    def _step(self, name: str, text: str) -> Iterator[None]:
        """Say what begins; keep how long it took, over all runs of this demo."""
        print(f"\n{text}", flush=True)
        begun = time.monotonic()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - begun
        self._keep()

    def run(self) -> Path:
        """Do all that is still to be done.

        Returns:
            The path of the HTML page.
        """
        with self._step("media", f"1/6  {self.media.many} and manifests"):
            splits = self._manifests(*self._files())
        with self._step("stats", "2/6  mean and deviation of what goes in"):
            statistics = _output_of("stats", str(self.manifests / "train.tsv"), *self.media.stats).split()
            print(f"  {' '.join(statistics)}")
        plan = training.stages(self.settings.updates)
        with self._step("training", f"3/6  pretraining, in three stages: {self._train_text(plan)}"):
            records = self._train(statistics, plan)
        checkpoint = training.newest_checkpoint(self.folder)
        with self._step("codes", "4/6  codes of all clips"):
            self._tokenize(checkpoint, splits)
        from bridle_fairseq.models.checkpoints import load_model
        from bridle_fairseq.utils.device import choose_device

        model, task = load_model(checkpoint, choose_device(None))
        comparison = None
        with self._step("probe", "5/6  linear probes of frozen features"):
            if "test" in splits:
                comparison = self._probe(model, task)
            else:
                print("  left out: no labels were given (--labels CSV with the columns file and label)")
        with self._step("page", "6/6  the page"):
            page = self._page(model, task, records, plan, splits, statistics, comparison)
        self._farewell(page, statistics)
        return page

    # -- steps -------------------------------------------------------------------------------------------------------

    def _files(self) -> tuple[str, str | None]:
        settings = self.settings
        if settings.media is not None:
            return settings.media, settings.labels
        labels = Path(self._media_folder()) / "labels.csv"
        if not labels.exists():
            each = f"{settings.clips_per_class} {self.media.one}s each"
            print(f"  synthesising {self.media.classes} classes, {each}", flush=True)
            self.media.make(labels.parent, settings.clips_per_class, settings.seed)
        return str(labels.parent), str(labels)

    def _media_folder(self) -> str:
        return self.settings.media or str(self.folder / self.media.examples)

    def _manifests(self, media: str, labels: str | None) -> list[str]:
        from bridle_fairseq.demo.data import write_manifests

        return write_manifests(media, labels, self.manifests, self.settings.seed, self.media.modality)

    @staticmethod
    def _train_text(plan: Sequence[Stage]) -> str:
        return ", ".join(f"{stage.kind} {stage.updates}" for stage in plan) + " updates"

    def _train(self, statistics: Sequence[str], plan: Sequence[Stage]) -> Any:
        run = training.pretraining(
            self.folder,
            self.manifests,
            statistics,
            plan,
            self.settings.seed,
            self.media.overrides,
            self.media.configs,
        )
        print(f"  {shlex.join(run.command())}", flush=True)
        return training.train_with_bar(run, self.folder / "train.log", sum(stage.updates for stage in plan))

    def _tokenize(self, checkpoint: str, splits: Sequence[str]) -> None:
        for split in splits:
            text = _output_of(
                "tokenize", checkpoint, str(self.manifests / f"{split}.tsv"), "--out", str(self.folder / "codes")
            )
            print("\n".join(f"  {line}" for line in text.splitlines()[: None if split == "train" else 1]), flush=True)

    def _probe(self, model: Any, task: Any) -> Any:
        from bridle_fairseq.demo.probing import compare

        found = compare(model, task, self.manifests, self.settings.seed, print)
        width = max(len(row.name) for row in found.rows)
        print(f"\n  {'features':{width}}  accuracy  chosen on validation clips")
        for row in found.rows:
            print(f"  {row.name:{width}}  {row.accuracy:8.3f}  {row.chosen}{'  <- best' if row.best else ''}")
        return found

    def _page(self, model: Any, task: Any, records: Any, plan: Any, splits: Any, statistics: Any, found: Any) -> Path:
        from bridle_fairseq.demo import contents
        from bridle_fairseq.demo.report import Page, render

        clips, sound = contents.clips_and_seconds(self.manifests, splits, self.media.modality)
        page = Page(
            headline=contents.headline(found, self.media),
            summary=contents.summary(found, self.media, synthetic=self.settings.media is None),
            facts=[
                (f"{clips}", f"{self.media.one}s"),
                *([(in_words(sound), "of sound")] if sound else []),
                (f"{sum(stage.updates for stage in plan)}", "updates"),
                (in_words(self.seconds["training"]), "of training"),
                (in_words(sum(self.seconds.values())), "in all"),
            ],
            records=records,
            bands=contents.bands(plan),
            rows=[] if found is None else found.rows,
            table_note=contents.table_note(found),
            clips=contents.clips_with_codes(
                model.cpu(), task, self.manifests, self.folder / "codes", splits[-1], CLIPS_SHOWN
            ),
            shown=self.media.shown,
            codebooks=list(model.quantizer.codebooks.codes.cpu().numpy()),
            codebook_size=model.settings.codebook_size,
            mask_ratio=model.settings.mask_ratio,
            places=self.places(),
            commands=self.next_commands(statistics),
            footer=f"Made by bridle demo, seed {self.settings.seed}.",
        )
        path = self.folder / "report.html"
        path.write_text(render(page), encoding="utf-8")
        print(f"  {page.headline}")
        return path

    # -- where things are, what comes next ------------------------------------------------------------------------

    def places(self) -> list[tuple[str, str]]:
        """What the demo made, and where."""
        return [
            (self.media.many, self._media_folder()),
            ("manifests", str(self.manifests)),
            ("checkpoint", str(self.folder / "checkpoints" / "checkpoint_last.pt")),
            ("codes", str(self.folder / "codes")),
            ("training log", str(self.folder / "train.log")),
            ("this page", str(self.folder / "report.html")),
        ]

    def next_commands(self, statistics: Sequence[str]) -> list[tuple[str, str]]:
        """What to run next: commands that work as they stand."""
        bridle = os.path.join(os.path.dirname(find_script()), "bridle")
        media, larger, many = self._media_folder(), self.media.larger, self.media.many
        labels = self.settings.labels or (None if self.settings.media else os.path.join(media, "labels.csv"))
        own = [bridle, "demo", f"--{self.media.examples}", media, *(("--labels", labels) if labels else ())]
        saves, hydra = self.folder / larger, self.folder / larger / "hydra"
        data = [f"task.data={self.manifests}", *statistics]
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

    def _farewell(self, page: Path, statistics: Sequence[str]) -> None:
        print(f"\ndone in {in_words(sum(self.seconds.values()))}")
        for what, where in self.places():
            print(f"  {what:13} {where}")
        print("\nwhat to run next")
        for text, command in self.next_commands(statistics):
            print(f"  # {text}\n  {command}\n")
        print(f"open {page}")


def _output_of(*arguments: str) -> str:
    """What a bridle command prints; its mistakes are ours.

    Raises:
        InputError: the command ended with its own sentence, which stands on stderr.
    """
    from bridle_fairseq.cli.main import build_parser

    args = build_parser().parse_args(arguments)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        code = args.run(args)
    if code != 0:
        raise InputError(f"bridle {arguments[0]} ended with exit code {code}; expected 0")
    return printed.getvalue().strip()


def in_words(seconds: float) -> str:
    """Seconds as people say them: 75 -> ``1 min 15 s``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _in_words(settings: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items() if value is not None)
