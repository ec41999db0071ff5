"""The demo from beginning to end: sounds, manifests, statistics, pretraining, codes, probe, page."""

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
from bridle_fairseq.errors import InputError

CROP_SECONDS = 3.0
CLIPS_SHOWN = 4
SETTINGS_FILE = "demo.json"


@dataclass(frozen=True)
class Settings:
    """What a demo is made from; a folder holds one demo."""

    audio: str | None  # None: synthesised
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
        with self._step("sounds", "1/6  sounds and manifests"):
            audio, labels = self._sounds()
            splits = self._manifests(audio, labels)
        with self._step("stats", "2/6  mean and deviation of the log-mel"):
            statistics = _output_of("stats", str(self.manifests / "train.tsv")).split()
            print(f"  {' '.join(statistics)}")
        plan = training.stages(self.settings.updates)
        with self._step("training", f"3/6  pretraining, in three stages: {self._train_text(plan)}"):
            records = self._train(statistics, plan)
        checkpoint = training.newest_checkpoint(self.folder)
        with self._step("codes", "4/6  codes of all clips"):
            self._tokenize(checkpoint, splits)
        from bridle_fairseq.cli.checkpoint import choose_device, load_model

        model, _ = load_model(checkpoint, choose_device(None))
        comparison = None
        with self._step("probe", "5/6  linear probes of frozen features"):
            if "test" in splits:
                comparison = self._probe(model)
            else:
                print("  left out: no labels were given (--labels CSV with the columns file and label)")
        with self._step("page", "6/6  the page"):
            page = self._page(model, records, plan, splits, statistics, comparison)
        self._farewell(page, statistics)
        return page

    # -- steps -------------------------------------------------------------------------------------------------------

    def _sounds(self) -> tuple[str, str | None]:
        settings = self.settings
        if settings.audio is not None:
            return settings.audio, settings.labels
        from bridle_fairseq.demo.synthesize import CLASSES, synthesize

        labels = self.folder / "audio" / "labels.csv"
        if not labels.exists():
            print(f"  synthesising {len(CLASSES)} classes, {settings.clips_per_class} clips each", flush=True)
            synthesize(labels.parent, settings.clips_per_class, settings.seed)
        return str(labels.parent), str(labels)

    def _manifests(self, audio: str, labels: str | None) -> list[str]:
        from bridle_fairseq.demo.data import write_manifests

        return write_manifests(audio, labels, self.manifests, self.settings.seed)

    @staticmethod
    def _train_text(plan: Sequence[training.Stage]) -> str:
        return ", ".join(f"{stage.kind} {stage.updates}" for stage in plan) + " updates"

    def _train(self, statistics: Sequence[str], plan: Sequence[training.Stage]) -> Any:
        command = training.command(
            self.folder, self.manifests, statistics, plan, self.settings.seed, round(CROP_SECONDS * 16000)
        )
        print(f"  {shlex.join(command)}", flush=True)
        return training.train(command, self.folder / "train.log", sum(stage.updates for stage in plan))

    def _tokenize(self, checkpoint: str, splits: Sequence[str]) -> None:
        for split in splits:
            text = _output_of(
                "tokenize", checkpoint, str(self.manifests / f"{split}.tsv"), "--out", str(self.folder / "codes")
            )
            print("\n".join(f"  {line}" for line in text.splitlines()[: None if split == "train" else 1]), flush=True)

    def _probe(self, model: Any) -> Any:
        from bridle_fairseq.demo.probing import compare

        found = compare(model, self.manifests, round(CROP_SECONDS * 16000), self.settings.seed, print)
        width = max(len(row.name) for row in found.rows)
        print(f"\n  {'features':{width}}  accuracy  chosen on validation clips")
        for row in found.rows:
            print(f"  {row.name:{width}}  {row.accuracy:8.3f}  {row.chosen}{'  <- best' if row.best else ''}")
        return found

    def _page(self, model: Any, records: Any, plan: Any, splits: Any, statistics: Any, found: Any) -> Path:
        from bridle_fairseq.demo import contents
        from bridle_fairseq.demo.report import Page, render

        clips, sound = contents.sound_seconds(self.manifests, splits)
        page = Page(
            headline=contents.headline(found),
            summary=contents.summary(found, synthetic=self.settings.audio is None),
            facts=[
                (f"{clips}", "clips"),
                (in_words(sound), "of sound"),
                (f"{sum(stage.updates for stage in plan)}", "updates"),
                (in_words(self.seconds["training"]), "of training"),
                (in_words(sum(self.seconds.values())), "in all"),
            ],
            records=records,
            bands=contents.bands(plan),
            rows=[] if found is None else found.rows,
            table_note=contents.table_note(found),
            clips=contents.clips_with_codes(model, self.manifests, self.folder / "codes", splits[-1], CLIPS_SHOWN),
            codebooks=list(model.quantizer.codebooks.codes.cpu().numpy()),
            codebook_size=model.settings.codebook_size,
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
        audio = self.settings.audio or str(self.folder / "audio")
        return [
            ("sounds", audio),
            ("manifests", str(self.manifests)),
            ("checkpoint", str(self.folder / "checkpoints" / "checkpoint_last.pt")),
            ("codes", str(self.folder / "codes")),
            ("training log", str(self.folder / "train.log")),
            ("this page", str(self.folder / "report.html")),
        ]

    def next_commands(self, statistics: Sequence[str]) -> list[tuple[str, str]]:
        """What to run next: commands that work as they stand."""
        bin_folder = os.path.dirname(training.find_script())
        bridle = os.path.join(bin_folder, "bridle")
        larger = "small" if (training.CONFIGS / "small.yaml").exists() else "tiny"
        audio = self.settings.audio or str(self.folder / "audio")
        labels = self.settings.labels or (None if self.settings.audio else os.path.join(audio, "labels.csv"))
        own = [bridle, "demo", "--audio", audio, *(("--labels", labels) if labels else ())]
        train = [training.find_script(), "--config-dir", str(training.CONFIGS), "--config-name", larger]
        train += training.common_overrides(self.manifests, statistics)
        train += [f"checkpoint.save_dir={self.folder / larger}", f"hydra.run.dir={self.folder / larger / 'hydra'}"]
        checkpoint = str(self.folder / "checkpoints" / "checkpoint_last.pt")
        valid, out = str(self.manifests / "valid.tsv"), str(self.folder / "codes_of_other_sounds")
        return [
            ("The same with your own sounds: put your folder and your table (columns file, label) in place of these.",
             shlex.join([*own, "--dir", f"{self.folder}_own"])),
            (f"A longer training of the {larger} model on the same clips; it can be killed and run again.",
             shlex.join(train)),
            ("The codes of other sounds: any manifest that bridle manifest has made.",
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
