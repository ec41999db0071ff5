"""Fine-tuning on transcripts by the real commands: training, a validation that others repeat, a user's mistakes."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import bridle_fairseq

bridle_fairseq.register()

from bridle_fairseq.models.bridle import BridleModel  # noqa: E402
from bridle_fairseq.nn.settings import BridleSettings  # noqa: E402

pytest.importorskip("jiwer")

CONFIGS = Path(__file__).resolve().parents[2] / "examples/speech/config/finetuning"
USER_DIR = bridle_fairseq.__path__[0]
SIZES = dict(encoder_width=32, encoder_depth=1, encoder_heads=2, decoder_width=16, decoder_depth=1, decoder_heads=2)
SIZES |= dict(tokenizer_depth=1, estimator_depth=1, codebook_dim=8, codebook_size=16, fbank_mean=-8.0, fbank_std=4.0)
SIZES |= {"stages": [{"kind": "encoder", "updates": 9}], "modality": "audio", "sample_rate": 16000}
SIZES |= {"patch_size": [8, 64]}
PITCHES_HZ = {"A": 300, "B": 3000, " ": 0}


def save_pretrained(path, **changes):
    torch.manual_seed(0)
    sizes = {**SIZES, **changes}
    cfg = {"model": {"_name": "bridle", **sizes}}
    state = {"cfg": cfg, "args": None, "model": BridleModel(BridleSettings(**sizes)).state_dict(), "extra_state": {}}
    state |= {"optimizer_history": [{"optimizer_name": "", "lr_scheduler_state": {}}], "task_state": {}}
    torch.save(state, path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Tones that spell words of two letters; in validation one that is too short for its words and one too long."""
    folder, random = tmp_path_factory.mktemp("ctc"), np.random.default_rng(0)
    (folder / "dict.ltr.txt").write_text("| 3\nA 2\nB 1\n")
    for split, count in (("train", 24), ("valid", 7)):
        rows, lines = [], []
        for number in range(count):
            text = " ".join(random.choice(["A", "B", "AB", "BA", "ABA", "BAB"], 2))
            text, rate = "AA BB" if split == "valid" and number >= 5 else text, (8000, 16000)[number % 2]
            pitch = np.repeat([PITCHES_HZ[letter] for letter in text], int(0.16 * rate))
            wave = 0.2 * np.sin(2 * np.pi * np.cumsum(pitch) / rate) + 0.001 * random.standard_normal(len(pitch))
            if split == "valid" and number >= 5:
                wave = wave[: int(0.05 * rate)] if number == 5 else np.tile(wave, 9)
            soundfile.write(folder / f"{split} {number}.flac", wave, rate)
            rows.append(f"{split} {number}.flac\t{len(wave)}\n")
            lines.append(" ".join(f"{text} ".replace(" ", "|")) + "\n")
        (folder / f"{split}.tsv").write_text("\n" + "".join(rows))
        (folder / f"{split}.ltr").write_text("".join(lines))
    save_pretrained(folder / "pretrained.pt")
    return folder


def finetune(fairseq, data, out, *overrides, code=0):
    command = ["fairseq-hydra-train", "--config-dir", CONFIGS, "--config-name", "tiny", f"common.user_dir={USER_DIR}"]
    command += [f"task.data={data}", f"model.checkpoint={data}/pretrained.pt", "hydra.run.dir=.", "common.cpu=true"]
    command += ["common.no_progress_bar=true", "common.log_interval=1", "dataset.num_workers=0", "dataset.batch_size=8"]
    command += [
        "optimization.max_update=160",
        "optimization.lr=[0.01]",
        "dataset.validate_interval=100",
        "lr_scheduler.warmup_updates=9",
    ]
    command += ["task.max_sample_size=40000", "task.max_skipped=0.3", *overrides]
    job = fairseq.forker.start(command, out, 1)
    codes = job.wait()
    assert set(codes) == {code}, f"exit codes {codes}:\n{job.log()[-4000:]}"
    return fairseq.left_by(out)


@pytest.fixture(scope="module")
def trained(fairseq, folder, tmp_path_factory):
    return finetune(fairseq, folder, tmp_path_factory.mktemp("trained") / "run")


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_it_learns_to_spell_and_says_how_finely(folder, trained):
    assert "a frame is 20 ms: patches of 8 x 10 ms, each of which emits 4; 2 rows of patches" in trained.log
    last = trained.logged("valid")[160]
    assert last["wer"] <= 0.3 and last["uer"] < 0.15 and last["loss"] < 0.5


def test_what_cannot_be_used_is_counted_and_listed(folder, trained):
    """Once each, however often the data were validated."""
    lines = [line.split("\t") for line in (trained.folder / "skipped.tsv").read_text().splitlines()]
    reasons = {int(row): reason for row, _, reason in lines}
    assert len(lines) == 2 and reasons.keys() == {5, 6}
    symbols = (folder / "valid.ltr").read_text().splitlines()[5].split()
    repeats = sum(a == b for a, b in zip(symbols, symbols[1:]))  # noqa: B905
    needed = f"{len(symbols)} symbols need {len(symbols) + repeats} frames, the clip has 4"
    assert reasons[5].startswith(needed) and "model.upsample" in reasons[5]
    assert "samples, more than max_sample_size 40000" in reasons[6]


def test_the_validation_is_repeated_by_fairseq_validate(fairseq, folder, trained, tmp_path):
    """On two ranks, in other batches, some of them of nothing: a clip's loss does not depend on its padding."""
    expected = trained.logged("valid")[160]
    command = ["fairseq-validate", folder, "--user-dir", USER_DIR, "--task", "bridle_ctc", "--path", trained.path()]
    command += ["--valid-subset", "valid", "--batch-size", "2", "--cpu", "--log-format", "json"]
    command += ["--distributed-world-size", "2", "--distributed-backend", "gloo"]
    job = fairseq.forker.start(command, tmp_path, 2)
    assert job.wait() == [0, 0], job.log()[-4000:]
    records = re.findall(r"\| INFO \| valid \| (\{.*\})", job.log())
    assert records
    for record in records:
        found = {name.removeprefix("valid_"): value for name, value in json.loads(record.replace("'", '"')).items()}
        assert float(found["loss"]) == pytest.approx(expected["loss"], abs=2e-3)
        assert [float(found[name]) for name in ("uer", "wer")] == pytest.approx(
            [expected[name] for name in ("uer", "wer")], abs=1e-5
        )


def test_evaluate_and_predict(fairseq, folder, trained, tmp_path):
    printed = fairseq.run(
        tmp_path, "bridle", "evaluate", trained.path(), folder / "valid.tsv", "--out", ".", "--max-skipped", "0.2"
    )
    rates = {name: float(value) for name, value in re.findall(r"^(wer|cer|uer) +([\d.]+)", printed, re.MULTILINE)}
    rows = table(tmp_path / "valid.transcripts.csv")
    assert [int(row["row"]) for row in rows] == [0, 1, 2, 3, 4, 5]  # the last one is too long, and listed
    assert "valid: 6 clips, 1 skipped" in printed and "valid 6" in (tmp_path / "valid.skipped.tsv").read_text()
    expected = [line.replace(" ", "").replace("|", " ").strip() for line in (folder / "valid.ltr").open()]
    assert [row["reference"] for row in rows] == expected[:6]
    for name, part in (("wer", "word"), ("cer", "character")):
        edits, length = (sum(int(row[key]) for row in rows) for key in (f"{part}_edits", f"{part}s"))
        assert rates[name] == pytest.approx(edits / length, abs=1e-5)
    # validation left out the one whose transcript needs more frames than it has
    words = [row for row in rows if int(row["row"]) < 5]
    logged = trained.logged("valid")[160]["wer"]
    assert sum(int(row["word_edits"]) for row in words) / 10 == pytest.approx(logged, abs=1e-5)
    files = [folder / f"valid {number}.flac" for number in range(3)]
    shown = fairseq.run(tmp_path, "bridle", "predict", trained.path(), *files).splitlines()
    assert shown[-6:] == [
        line for file, row in zip(files, rows[:3], strict=True) for line in (str(file), f"  {row['hypothesis']}")
    ]


def test_mistakes_end_in_a_sentence(fairseq, folder, trained, tmp_path):
    (tmp_path / "odd.ltr").write_text("A |\n" * 6 + "C |\n")
    good, manifest = trained.path(), folder / "valid.tsv"
    for arguments, sentence in (
        (
            ["evaluate", good, manifest, "--labels", "odd.ltr"],
            "odd.ltr, line 7: unknown symbol 'C'; expected one of the 3",
        ),
        (["evaluate", good, manifest, "--lm", "x.arpa"], "--lm or --lexicon without --beam-size"),
        (["export", good, "exported"], "a checkpoint of the model 'bridle_ctc'; expected one of"),
        (["features", good, manifest, "--out", "."], "BridleCtcModel; expected one of the model"),
    ):
        printed = fairseq.run(tmp_path, "bridle", *arguments, code=2)
        assert sentence in printed and "Traceback" not in printed, printed[-2000:]


def test_a_run_does_not_go_on_with_another_dictionary(fairseq, folder, trained, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(folder, data)
    (data / "dict.ltr.txt").write_text("| 3\nB 2\nA 1\n")
    restore = f"checkpoint.restore_file={trained.path()}"
    run = finetune(fairseq, data, tmp_path / "run", restore, code=2)
    assert "dict.ltr.txt, line 2: 'B'; expected 'A', as in " in run.log and "Traceback" not in run.log
