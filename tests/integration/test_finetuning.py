"""Fine-tuning with the real commands: training, validation, evaluation, prediction and user errors."""

import ast
import csv
import os
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import bridle_fairseq

bridle_fairseq.register()

from bridle_fairseq.inference.extractors import encoder_features  # noqa: E402
from bridle_fairseq.models.bridle import BridleModel  # noqa: E402
from bridle_fairseq.nn.settings import BridleSettings  # noqa: E402

CONFIGS = Path(__file__).resolve().parents[2] / "examples/audio/config/finetuning"
USER_DIR = bridle_fairseq.__path__[0]
CLASSES = ["low", "high", "noise", "never"]
SIZES = dict(encoder_width=32, encoder_depth=2, encoder_heads=2, decoder_width=16, decoder_depth=1, decoder_heads=2)
SIZES |= dict(tokenizer_depth=1, estimator_depth=1, codebook_dim=8, codebook_size=16, fbank_mean=-8.0, fbank_std=4.0)
SIZES |= {
    "stages": [{"kind": "encoder", "updates": 9}],
    "modality": "audio",
    "sample_rate": 16000,
    "patch_size": [8, 32],
}
ALL_OPTIONS = ["task.weighted_sampling=true", "task.samples_per_epoch=24", "criterion.mixup=0.5"]
ALL_OPTIONS += ["criterion.label_smoothing=0.1", "model.drop_path=0.1", "model.layer_decay=0.75"]
ALL_OPTIONS += ["model.spec_augment_mel_bins=48", "model.spec_augment_frames=192"]
ALL_OPTIONS += ["model.mask_time=0.2", "model.mask_frequency=0.2", "optimizer.weight_decay=5.0e-4"]
METRICS = ["mAP", "mAUC", "d_prime"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Tones and noise with classes, one of them rare and one absent; and a randomly initialized encoder."""
    folder, random = tmp_path_factory.mktemp("finetuning"), np.random.default_rng(0)
    (folder / "labels.csv").write_text(
        "index,mid,display_name\n" + "".join(f"{number},{name},the {name}\n" for number, name in enumerate(CLASSES))
    )
    for split, kinds in (
        ("train", ["low"] * 12 + ["high"] * 6 + ["noise"] * 2),
        ("valid", ["low", "high", "noise"] * 3),
    ):
        rows = []
        for number, kind in enumerate(kinds):
            time = np.arange(random.integers(3000, 12000)) / 16000
            pitch_hz = {"low": random.uniform(200, 500), "high": random.uniform(2500, 6000), "noise": 0}[kind]
            wave = np.sin(2 * np.pi * pitch_hz * time) + (kind == "noise") * random.standard_normal(len(time))
            soundfile.write(folder / f"{split} {number}.wav", 0.2 * wave, 16000)
            rows.append(f"{split} {number}.wav\t{len(time)}\n")
        (folder / f"{split}.tsv").write_text("\n" + "".join(rows))
        (folder / f"{split}.lbl").write_text("".join(f"{kind}\n" for kind in kinds))
    torch.manual_seed(0)
    cfg = {"model": {"_name": "bridle", **SIZES}}
    cfg["task"] = {"_name": "bridle_pretraining", "data": str(folder), "modality": "audio", "sample_rate": 16000}
    state = {"cfg": cfg, "args": None, "model": BridleModel(BridleSettings(**SIZES)).state_dict(), "extra_state": {}}
    state |= {"optimizer_history": [{"optimizer_name": "", "lr_scheduler_state": {}}], "task_state": {}}
    torch.save(state, folder / "pretrained.pt")
    return folder


def finetune(fairseq, data, out, *overrides, ranks=1, code=0):
    """A run of nine updates, six per epoch, with a checkpoint after the fourth and the eighth."""
    command = ["fairseq-hydra-train", "--config-dir", CONFIGS, "--config-name", "tiny", f"common.user_dir={USER_DIR}"]
    command += [f"task.data={data}", f"model.checkpoint={data}/pretrained.pt", "hydra.run.dir=.", "common.cpu=true"]
    command += ["common.no_progress_bar=true", "common.log_interval=1", "dataset.num_workers=0", "dataset.batch_size=4"]
    command += ["optimization.max_update=9", "optimization.lr=[0.01]", "lr_scheduler.warmup_updates=2"]
    command += ["checkpoint.save_interval_updates=4", "task.max_sample_size=8000", *overrides]
    if ranks > 1:
        command += [f"distributed_training.distributed_world_size={ranks}"]
        command += ["distributed_training.distributed_backend=gloo"]
    job = fairseq.forker.start(command, out, ranks)
    codes = job.wait()
    assert set(codes) == {code}, f"exit codes {codes}:\n{job.log()[-4000:]}"
    return fairseq.run_in(out, ranks)


@pytest.fixture(scope="module")
def single(fairseq, folder, tmp_path_factory):
    """One class per clip, with all options."""
    return finetune(fairseq, folder, tmp_path_factory.mktemp("single") / "run", *ALL_OPTIONS)


@pytest.fixture(scope="module")
def several(fairseq, folder, tmp_path_factory):
    """Any number of classes per clip, on two ranks: the second rank has 2 of the 5 batches of the validation set."""
    options = ["task.multi_label=true", "checkpoint.best_checkpoint_metric=mAP", "dataset.batch_size_valid=2"]
    out = tmp_path_factory.mktemp("several") / "run"
    return finetune(fairseq, folder, out, *options, "criterion.mixup=0.5", "task.results=tables", ranks=2)


def validated(fairseq, folder, run, out, batch_size=5, ranks=1):
    """The metrics that fairseq-validate prints for the run's last checkpoint; they must be the same on every rank."""
    command = ["fairseq-validate", folder, "--user-dir", USER_DIR, "--task", "bridle_classification"]
    command += ["--path", run.path(), "--valid-subset", "valid", "--batch-size", batch_size, "--cpu"]
    command += ["--log-format", "json"]
    if ranks > 1:
        command += ["--distributed-world-size", ranks, "--distributed-backend", "gloo"]
    job = fairseq.forker.start(command, out, ranks)
    assert job.wait() == [0] * ranks, job.log()[-4000:]
    records = map(ast.literal_eval, re.findall(r"\| INFO \| valid \| (\{.*\})", job.log()))
    metrics = [{name.removeprefix("valid_"): float(value) for name, value in record.items()} for record in records]
    assert all(record[name] == metrics[0][name] for record in metrics for name in METRICS)
    return metrics[0]


def parse_metrics(printed):
    """Name -> value of the metrics that ``bridle evaluate`` prints."""
    return {name: float(value) for name, value in re.findall(r"^(\w+) +(-?[\d.]+|inf)$", printed, re.MULTILINE)}


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_single_label_metrics_are_the_same_in_every_command(fairseq, folder, single, tmp_path):
    logged = single.logged("valid")
    assert sorted(logged) == [4, 6, 8, 9]
    names = ["accuracy", *METRICS]
    expected = {name: logged[9][name] for name in names}
    metrics = validated(fairseq, folder, single, tmp_path / "validate")
    assert {name: metrics[name] for name in names} == pytest.approx(expected, abs=2e-5)
    assert metrics["loss"] == pytest.approx(logged[9]["loss"], abs=2e-4)
    printed = fairseq.run(tmp_path, "bridle", "evaluate", single.path(), folder / "valid.tsv", "--out", "tables")
    assert parse_metrics(printed) == pytest.approx(expected, abs=2e-5)
    assert "1 of 4 classes have no clip and are left out of mAP, mAUC and d_prime" in printed
    for name in ("valid.classes.csv", "valid.confusion.csv"):
        assert (tmp_path / "tables" / name).read_text() == (single.folder / "checkpoints" / name).read_text()

    rows = table(tmp_path / "tables" / "valid.predictions.csv")
    assert [row["path"] for row in rows] == [f"valid {number}.wav" for number in range(9)]
    assert [row["true"] for row in rows] == ["low", "high", "noise"] * 3
    assert all(row["predicted"] == max(CLASSES, key=lambda name: float(row[name])) for row in rows)
    assert sum(row["true"] == row["predicted"] for row in rows) / 9 == pytest.approx(expected["accuracy"], abs=1e-5)


def test_multi_label_metrics_do_not_depend_on_ranks(fairseq, folder, several, tmp_path):
    logged = several.logged("valid")[9]
    names = ["precision_at_1", *METRICS]
    expected = {name: logged[name] for name in names}
    for ranks in (1, 2):  # the second rank has 2 of 5 batches, and then an empty one
        metrics = validated(fairseq, folder, several, tmp_path / f"validate{ranks}", 2, ranks)
        assert {name: metrics[name] for name in names} == pytest.approx(expected, abs=2e-5)
    printed = fairseq.run(tmp_path, "bridle", "evaluate", several.path(), folder / "valid.tsv", "--batch-size", "1")
    assert parse_metrics(printed) == pytest.approx(expected, abs=2e-5)
    assert "valid: 9 clips; 1 of 4 classes have none of them" in several.log
    classes = table(several.folder / "tables" / "valid.classes.csv")
    assert [row["positives"] for row in classes] == ["3", "3", "3", "0"]
    assert float(np.mean([float(row["average_precision"]) for row in classes[:3]])) == pytest.approx(
        expected["mAP"], abs=2e-5
    )
    beside = several.folder / "checkpoints" / "evaluation"
    assert {path.name for path in beside.iterdir()} == {"valid.classes.csv", "valid.predictions.csv"}
    assert not (tmp_path / "validate1" / "tables").exists()


def test_best_checkpoint_has_the_highest_metric(several):
    best = max(record["mAP"] for record in several.logged("valid").values())
    state = torch.load(several.folder / "checkpoints" / "checkpoint_best.pt", weights_only=False)
    assert state["extra_state"]["best"] == pytest.approx(best)


def test_resume_mid_epoch_is_bit_identical(fairseq, folder, single, tmp_path, compare):
    restore = f"checkpoint.restore_file={single.folder}/checkpoints/checkpoint_2_8.pt"
    resumed = finetune(fairseq, folder, tmp_path / "run", *ALL_OPTIONS, restore)
    assert sorted(resumed.logged("train_inner")) == [9]
    assert compare(single.state(), resumed.state()) == []


def test_predict_on_files_of_any_rate_and_length(fairseq, folder, single, tmp_path):
    """Scores of a short file equal those of evaluation. Scores of a long file are the mean over its segments."""
    wave, _ = soundfile.read(folder / "valid 1.wav")
    soundfile.write(tmp_path / "three times.flac", np.tile(np.resize(wave, 8000), 3), 16000)
    soundfile.write(tmp_path / "one.wav", np.resize(wave, 8000), 16000)
    soundfile.write(tmp_path / "other.wav", np.stack([wave, wave], 1), 44100)
    soundfile.write(tmp_path / "a sample.wav", wave[:1], 8000)
    files = [folder / "valid 1.wav", "three times.flac", "one.wav", "other.wav", "a sample.wav"]
    printed = fairseq.run(tmp_path, "bridle", "predict", single.path(), *files, "--top", "3")
    scores_of = {
        name: {label: float(score) for score, label in re.findall(r"^  ([\d.]+)  (.*)$", text, re.MULTILINE)}
        for name, text in re.findall(r"^(\S.*\.(?:wav|flac))\n((?:  .*\n?)*)", printed, re.MULTILINE)
    }
    assert list(scores_of) == [str(path) for path in files]
    assert all(len(scores) == 3 for scores in scores_of.values())
    assert scores_of["three times.flac"] == pytest.approx(scores_of["one.wav"], abs=2e-4)
    fairseq.run(tmp_path, "bridle", "evaluate", single.path(), folder / "valid.tsv", "--out", ".")
    row = table(tmp_path / "valid.predictions.csv")[1]
    if len(wave) <= 8000:
        for label, score in scores_of[str(files[0])].items():
            assert score == pytest.approx(float(row[label.removeprefix("the ")]), abs=1e-4)


def test_features_are_those_of_the_finetuned_encoder(fairseq, folder, single, tmp_path):
    fairseq.run(tmp_path, "bridle", "features", single.path(), folder / "valid.tsv", "--out", ".", "--layers", "all")
    tuned, pretrained = (torch.load(path, weights_only=False) for path in (single.path(), folder / "pretrained.pt"))
    expected = []
    for state in (tuned, pretrained):
        model = BridleModel(BridleSettings(**SIZES)).eval()
        encoder = {name: value for name, value in state["model"].items() if name.startswith("encoder.")}
        model.load_state_dict(encoder, strict=False)
        waves = (torch.from_numpy(soundfile.read(folder / f"valid {n}.wav", dtype="float32")[0]) for n in range(9))
        rows = [encoder_features(model, wave[None, :8000], layers=[2])["mean", 2] for wave in waves]
        expected.append(torch.cat(rows))
    features = torch.from_numpy(np.load(tmp_path / "valid.features.mean.layer2.npy"))
    short = [row for row in range(9) if soundfile.info(folder / f"valid {row}.wav").frames <= 8000]
    assert short
    torch.testing.assert_close(features[short], expected[0][short], atol=1e-4, rtol=1e-3)
    assert (expected[1] - expected[0])[short].abs().max() > 0.01


def test_user_errors_of_evaluate_and_predict_end_with_one_sentence(fairseq, folder, single, tmp_path):
    (tmp_path / "half.pt").write_bytes(single.path().read_bytes()[: os.path.getsize(single.path()) // 2])
    (tmp_path / "loud.lbl").write_text("loud\n" * 9)
    (tmp_path / "two.lbl").write_text("low,high\n" * 9)
    (tmp_path / "bare.tsv").write_text(f"{folder}\n" + (folder / "valid.tsv").read_text().split("\n", 1)[1])
    (tmp_path / "text.wav").write_text("no sound")
    good, manifest = single.path(), folder / "valid.tsv"
    for arguments, sentence in (
        (
            ["evaluate", folder / "pretrained.pt", manifest],
            "the model 'bridle'; expected one of 'bridle_classifier'",
        ),
        (["evaluate", "half.pt", manifest], "half.pt: not a checkpoint that fairseq can load"),
        (["evaluate", "none.pt", manifest], "none.pt: no such checkpoint"),
        (["evaluate", good, "bare.tsv"], "bare.lbl: no such labels; expected the class ids of each row of bare.tsv"),
        (["evaluate", good, manifest, "--labels", "loud.lbl"], "loud.lbl, line 1: unknown class 'loud'; expected one"),
        (["evaluate", good, manifest, "--labels", "two.lbl"], "two.lbl, line 1: 2 classes; expected exactly 1"),
        (["predict", good, "text.wav"], "text.wav: not readable as sound"),
        (["predict", good, "gone.wav", folder / "valid 1.wav", "text.wav"], "2 of 3 files cannot be used; see above"),
        (["predict", good, "gone.wav"], "gone.wav: No such file"),
        (
            ["predict", folder / "pretrained.pt", folder / "valid 1.wav"],
            "expected one of 'bridle_classifier'",
        ),
    ):
        printed = fairseq.run(tmp_path, "bridle", *arguments, code=2)
        lines = [line for line in printed.splitlines() if line.startswith("bridle: error: ")]
        assert sentence in lines[-1] and "Traceback" not in printed, printed[-2000:]


def test_predict_goes_on_after_a_bad_file(fairseq, folder, single, tmp_path):
    (tmp_path / "text.wav").write_text("no sound")
    files = [folder / "valid 1.wav", "text.wav", folder / "valid 2.wav"]
    printed = fairseq.run(tmp_path, "bridle", "predict", single.path(), *files, "--top", "1", code=2).splitlines()
    at = [next(n for n, line in enumerate(printed) if str(file) in line) for file in files]
    assert at == sorted(at) and printed[at[1]].startswith("bridle: error: text.wav: not readable as sound")
    assert re.match(r"  [01]\.\d{4}  ", printed[at[2] + 1])


def test_undefined_metric_ends_with_one_sentence(fairseq, folder, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for name in ("labels.csv", "train.lbl", "pretrained.pt"):
        (data / name).symlink_to(folder / name)
    for split in ("train", "valid"):
        (data / f"{split}.tsv").write_text(f"{folder}{(folder / f'{split}.tsv').read_text()}")
    (data / "valid.lbl").write_text("low\n" * 9)
    run = finetune(fairseq, data, tmp_path / "run", "checkpoint.best_checkpoint_metric=mAUC", code=2)
    assert "valid.tsv: mAUC is not defined, as no class has both clips and other clips" in run.log
