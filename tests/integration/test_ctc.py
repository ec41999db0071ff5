"""Fine-tuning on transcripts with the real commands: training, validation, evaluation, export and user errors."""

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import bridle_fairseq
from bridle_fairseq import pretrained
from bridle_fairseq.cli import main as bridle
from bridle_fairseq.nn.ctc import emitted_frames
from bridle_fairseq.utils.errors import InputError

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
    """Tones that spell words of two letters. One validation clip is too short for its transcript, one is too long."""
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


def finetune(fairseq, data, out, *overrides, code=0, ranks=1):
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
    job = fairseq.forker.start(command, out, ranks)
    codes = job.wait()
    assert set(codes) == {code}, f"exit codes {codes}:\n{job.log()[-4000:]}"
    return fairseq.run_in(out, ranks)


@pytest.fixture(scope="module")
def trained(fairseq, folder, tmp_path_factory):
    return finetune(fairseq, folder, tmp_path_factory.mktemp("trained") / "run")


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_learns_to_spell_and_logs_the_frame_length(folder, trained):
    assert "a frame is 20 ms: patches of 8 x 10 ms, each of which emits 4; 2 rows of patches" in trained.log
    last = trained.logged("valid")[160]
    assert last["wer"] <= 0.3 and last["uer"] < 0.15 and last["loss"] < 0.5


def test_unusable_clips_are_listed_once(folder, trained):
    lines = [line.split("\t") for line in (trained.folder / "skipped.tsv").read_text().splitlines()]
    reasons = {int(row): reason for row, _, reason in lines}
    assert len(lines) == 2 and reasons.keys() == {5, 6}
    symbols = (folder / "valid.ltr").read_text().splitlines()[5].split()
    repeats = sum(a == b for a, b in zip(symbols, symbols[1:]))  # noqa: B905
    needed = f"{len(symbols)} symbols need {len(symbols) + repeats} frames, the clip has 4"
    assert reasons[5].startswith(needed) and "model.upsample" in reasons[5]
    assert "samples, more than max_sample_size 40000" in reasons[6]


def test_fairseq_validate_equals_validation_of_the_run(fairseq, folder, trained, tmp_path):
    """On two ranks with other batches, some of them empty: a clip's loss does not depend on its padding."""
    expected = trained.logged("valid")[160]
    command = ["fairseq-validate", folder, "--user-dir", USER_DIR, "--task", "bridle_ctc", "--path", trained.path()]
    command += ["--valid-subset", "valid", "--batch-size", "2", "--cpu", "--log-format", "json"]
    command += ["--distributed-world-size", "2", "--distributed-backend", "gloo"]
    job = fairseq.forker.start(command, tmp_path, 2)
    assert job.wait() == [0, 0], job.log()[-4000:]
    records = re.findall(r"\| INFO \| valid \| (\{.*\})", job.log())
    assert records
    for record in records:
        metrics = {name.removeprefix("valid_"): value for name, value in json.loads(record.replace("'", '"')).items()}
        assert float(metrics["loss"]) == pytest.approx(expected["loss"], abs=2e-3)
        assert [float(metrics[name]) for name in ("uer", "wer")] == pytest.approx(
            [expected[name] for name in ("uer", "wer")], abs=1e-5
        )


def test_evaluate_and_predict(fairseq, folder, trained, tmp_path):
    printed = fairseq.run(
        tmp_path, "bridle", "evaluate", trained.path(), folder / "valid.tsv", "--out", ".", "--max-skipped", "0.2"
    )
    rates = {name: float(value) for name, value in re.findall(r"^(wer|cer|uer) +([\d.]+)", printed, re.MULTILINE)}
    rows = table(tmp_path / "valid.transcripts.csv")
    assert [int(row["row"]) for row in rows] == [0, 1, 2, 3, 4, 5]  # the last one is too long and skipped
    assert "valid: 6 clips, 1 skipped" in printed and "valid 6" in (tmp_path / "valid.skipped.tsv").read_text()
    expected = [line.replace(" ", "").replace("|", " ").strip() for line in (folder / "valid.ltr").open()]
    assert [row["reference"] for row in rows] == expected[:6]
    for name, part in (("wer", "word"), ("cer", "character")):
        edits, length = (sum(int(row[key]) for row in rows) for key in (f"{part}_edits", f"{part}s"))
        assert rates[name] == pytest.approx(edits / length, abs=1e-5)
    # validation skipped the clip whose transcript needs more frames than it has
    words = [row for row in rows if int(row["row"]) < 5]
    logged = trained.logged("valid")[160]["wer"]
    assert sum(int(row["word_edits"]) for row in words) / 10 == pytest.approx(logged, abs=1e-5)
    files = [folder / f"valid {number}.flac" for number in range(3)]
    printed_lines = fairseq.run(tmp_path, "bridle", "predict", trained.path(), *files).splitlines()
    assert printed_lines[-6:] == [
        line for file, row in zip(files, rows[:3], strict=True) for line in (str(file), f"  {row['hypothesis']}")
    ]


def test_report(trained, tmp_path, structure_of):
    run = tmp_path / "run"
    shutil.copytree(trained.folder, run)
    log = run / "hydra_train.log"
    early = json.dumps({"valid_wer": "2", "valid_uer": "2", "valid_num_updates": "3"})
    log.write_text(f"[2025-01-01 10:00:00,000][valid][INFO] - {early}\n{log.read_text()}")
    assert bridle.main(["report", str(run), "--out", str(tmp_path / "page.html")]) == 0
    text = (tmp_path / "page.html").read_text()
    titles = ["Loss", "Word error rate", "Symbol error rate", "Learning rate", "Speed", "Memory"]
    assert re.findall(r'<div class="card"><h3>([^<]*)', text) == titles
    last = f"{trained.logged('valid')[160]['wer']:.3f}"  # the lowest is the best
    assert f"<b>{last}</b><span>best wer, after 160</span></li><li><b>{last}</b><span>wer at the end</span>" in text
    assert "Transcripts of 7 symbols by CTC, a frame every 20 ms, frequency pooling" in text
    assert structure_of(text).open == []
    assert bridle.main(["report", str(run), str(run), "--out", str(tmp_path / "both.html")]) == 0
    assert "<th>word error rate (valid)</th>" in (tmp_path / "both.html").read_text()


def test_features_are_those_of_the_finetuned_encoder(folder, trained, tmp_path):
    (tmp_path / "two.tsv").write_text(f"{folder}\nvalid 0.flac\t{soundfile.info(folder / 'valid 0.flac').frames}\n")
    assert bridle.main(["features", str(trained.path()), str(tmp_path / "two.tsv"), "--out", str(tmp_path)]) == 0
    assert bridle.main(["export", str(trained.path()), str(tmp_path / "exported")]) == 0
    (stored,) = tmp_path.glob("two.features*.npy")
    samples, rate = soundfile.read(folder / "valid 0.flac", dtype="float32")
    model = pretrained.load(tmp_path / "exported")
    np.testing.assert_allclose(np.load(stored), model.embed([samples], rate).numpy(), atol=2e-4)


def test_export_transcribes_without_fairseq(folder, trained, tmp_path):
    assert bridle.main(["export", str(trained.path()), str(tmp_path / "exported"), "--license", "mit"]) == 0
    sounds = [soundfile.read(folder / f"valid {number}.flac", dtype="float32") for number in range(4)]
    code = (
        "import sys, soundfile\nfrom bridle_fairseq import pretrained\n"
        "model = pretrained.load('exported')\n"
        "for path in sys.argv[1:]: print(*model.transcribe(*soundfile.read(path, dtype='float32')))\n"
        "assert not {'fairseq', 'hydra', 'jiwer'} & set(sys.modules)\n"
    )
    files = [str(folder / f"valid {number}.flac") for number in range(4)]
    done = subprocess.run(
        [sys.executable, "-c", code, *files], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    with redirect_stdout(io.StringIO()) as printed:
        assert bridle.main(["predict", str(trained.path()), *files]) == 0
    assert done.stdout.splitlines() == [line.strip() for line in printed.getvalue().splitlines()[1::2]]
    model = pretrained.load(tmp_path / "exported")
    assert model.parts == ["transcriber"] and model.symbols == ["<s>", "<pad>", "</s>", "<unk>", "|", "A", "B"]
    sounds_16_khz = [samples for samples, rate in sounds if rate == 16000]
    batched = model.transcribe(sounds_16_khz, 16000)
    assert batched == [model.transcribe(samples, 16000)[0] for samples in sounds_16_khz] != ["", ""]
    emissions = model.emissions(sounds_16_khz, 16000)
    assert emissions.logits.shape[0] == 2 and emissions.lengths.tolist() == [
        emitted_frames(model.module.front_end, 4, len(samples)) for samples in sounds_16_khz
    ]
    with pytest.raises(InputError, match="this export holds transcriber; expected one with classifier"):
        model.classify(sounds_16_khz, 16000)
    card = (tmp_path / "exported" / "README.md").read_text()
    assert "model.transcribe(waveforms, sample_rate)" in card and "CTC, pooling frequency, a frame every 20 ms" in card
    config = json.loads((tmp_path / "exported" / "config.json").read_text())
    for change, sentence in (
        ({"labels": "phn"}, "config.json: labels is 'phn'; expected one of ltr, spm"),
        ({"symbols": config["symbols"][:-1]}, "weights that do not fit config.json"),
    ):
        (tmp_path / "exported" / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(InputError, match=sentence):
            pretrained.load(tmp_path / "exported")


def test_user_errors_end_with_one_sentence(fairseq, folder, trained, tmp_path):
    (tmp_path / "odd.ltr").write_text("A |\n" * 6 + "C |\n")
    good, manifest = trained.path(), folder / "valid.tsv"
    for arguments, sentence in (
        (
            ["evaluate", good, manifest, "--labels", "odd.ltr"],
            "odd.ltr, line 7: unknown symbol 'C'; expected one of the 3",
        ),
        (["evaluate", good, manifest, "--lm", "x.arpa"], "--lm or --lexicon without --beam-size"),
        (
            ["export", good, "exported", "--part", "encoder"],
            "--part encoder with a checkpoint of the model 'bridle_ctc'",
        ),
        (["tokenize", good, manifest, "--out", "."], "the model 'bridle_ctc'; expected one of 'bridle'"),
    ):
        printed = fairseq.run(tmp_path, "bridle", *arguments, code=2)
        assert sentence in printed and "Traceback" not in printed, printed[-2000:]


def test_resume_with_another_dictionary_is_rejected(fairseq, folder, trained, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(folder, data)
    (data / "dict.ltr.txt").write_text("| 3\nB 2\nA 1\n")
    restore = f"checkpoint.restore_file={trained.path()}"
    run = finetune(fairseq, data, tmp_path / "run", restore, code=2)
    assert "dict.ltr.txt, line 2: 'B'; expected 'A', as in " in run.log and "Traceback" not in run.log


FEW = (
    *("optimization.max_update=6", "dataset.batch_size=5", "lr_scheduler.warmup_updates=2"),
    *("checkpoint.save_interval_updates=4", "dataset.validate_interval=1"),
)
TWO_RANKS = "distributed_training.distributed_world_size=2", "distributed_training.distributed_backend=gloo"


def weights_of(path):
    return torch.load(path, weights_only=False)["model"]


def test_two_ranks_and_a_resumed_run_equal_one_run(fairseq, folder, tmp_path):
    """24 clips are five batches, so the second rank has no third one. Losses are normalized by symbols, not batches."""
    one = finetune(fairseq, folder, tmp_path / "one", *FEW, "optimization.update_freq=[2]")
    two = finetune(fairseq, folder, tmp_path / "two", *FEW, *TWO_RANKS, ranks=2)
    for tag in ("train_inner", "valid"):
        logged, expected = two.logged(tag), one.logged(tag)
        assert logged.keys() == expected.keys() != set()
        for update, record in expected.items():
            for name in {"loss", "uer", "wer"} & set(record):
                assert logged[update][name] == pytest.approx(record[name], rel=1e-3, abs=1e-4), (tag, update, name)
    (saved,) = one.folder.glob("checkpoints/checkpoint_*_4.pt")
    resumed = finetune(
        fairseq, folder, tmp_path / "again", *FEW, "optimization.update_freq=[2]", f"checkpoint.restore_file={saved}"
    )
    expected, weights = weights_of(one.path()), weights_of(resumed.path())
    assert all(torch.equal(weights[name], value) for name, value in expected.items())
    assert sorted(resumed.logged()) == [5, 6]


def test_bf16_learns_like_float32(fairseq, folder, tmp_path):
    expected = finetune(fairseq, folder, tmp_path / "full", *FEW).logged()
    half = finetune(fairseq, folder, tmp_path / "half", *FEW, "common.bf16=true").logged()
    assert half.keys() == expected.keys()
    for update, record in expected.items():
        assert half[update]["loss"] == pytest.approx(record["loss"], rel=0.05)
