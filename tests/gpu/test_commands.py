"""The real commands on the device: training in every precision, resuming, and what is done with a checkpoint."""

import json
import signal
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import bridle_fairseq
from bridle_fairseq import pretrained
from bridle_fairseq.cli import main as bridle
from bridle_fairseq.data.artifacts.codes import CachedCodes
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.training.log import read_log

bridle_fairseq.register()

ROOT = Path(__file__).resolve().parents[2]
DETERMINISTIC, WAITS = (ROOT / "tests/gpu" / name for name in ("deterministic.py", "waits.py"))
STAGES = [("encoder", 4), ("tokenizer", 4), ("encoder", 4), ("joint", 3)]
SAVED, UPDATES = 7, 15  # the run that is killed resumes in its second stage, in the middle of an epoch
MODEL = ["encoder_width=32", "encoder_depth=2", "encoder_heads=2", "decoder_width=16", "decoder_heads=2"]
MODEL += ["tokenizer_depth=2", "num_codebooks=2", "codebook_size=12", "codebook_dim=8", "precision=float32"]
# Largest relative distance of a loss from that of float32 on the same device, with the same masks: before the tokenizer
# learns, and from then on, where rounding gives some patches another code.
LOSSES = {"common.fp16": (2e-3, 0.1), "common.bf16": (5e-3, 0.2), "common.amp": (2e-3, 0.1)}
LOSSES |= {"model.precision": (5e-3, 0.2), "rank": (1e-5, 1e-5), "waits": (5e-3, 5e-3)}
SAME_RUN = (1e-5, 1e-5)


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """Tones of two classes in noise, with labels and transcripts."""
    folder, random = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    (folder / "labels.csv").write_text("index,mid,display_name\n0,low,low\n1,high,high\n")
    (folder / "dict.ltr.txt").write_text("| 3\nA 2\nB 1\n")
    for split, count in (("train", 24), ("valid", 8)):
        sizes = random.integers(5000, 16000, count)
        for number, size in enumerate(sizes):
            wave = 0.3 * np.sin(np.cumsum(np.full(size, 0.1 + 0.7 * (number % 2)))) + 0.02 * random.standard_normal(
                size
            )
            soundfile.write(folder / f"clip {split} {number}.flac", wave, 16000)
        names = [f"clip {split} {number}.flac" for number in range(count)]
        Manifest(str(folder), names, sizes.tolist()).write(folder / f"{split}.tsv")
        (folder / f"{split}.lbl").write_text("".join(f"{('low', 'high')[number % 2]}\n" for number in range(count)))
        (folder / f"{split}.ltr").write_text("".join(f"{'AB'[number % 2]} |\n" for number in range(count)))
    return folder


@pytest.fixture(scope="session")
def start(forker, device):
    """``start(folder, config, *overrides, **options)`` starts fairseq-hydra-train; options are its environment."""
    jobs = []

    def begin(folder, config, *overrides, before=DETERMINISTIC, **env):
        examples, kind = config.split("/")
        command = ["fairseq-hydra-train", "--config-dir", ROOT / "examples" / examples / "config" / kind]
        command += ["--config-name", "tiny", f"common.user_dir={ROOT / 'bridle_fairseq'}", "hydra.run.dir=."]
        command += [f"common.cpu={str(device.type == 'cpu').lower()}", "common.log_interval=1"]
        command += ["common.no_progress_bar=true", "dataset.num_workers=0", "dataset.batch_size=8", *overrides]
        if device.type == "cuda":
            env |= {"CUDA_VISIBLE_DEVICES": "0", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
        job = forker.start(command, folder, env=env, before=before)
        jobs.append(job)
        return job

    yield begin
    for job in jobs:
        if job.running():
            job.kill()


def pretraining(data):
    """Overrides of the pretraining runs."""
    stages = ",".join(f"{{kind:{kind},updates:{updates},lr:1e-3,tokenizer_every:2}}" for kind, updates in STAGES)
    options = [
        f"checkpoint.save_interval_updates={SAVED}",
        "checkpoint.keep_interval_updates=-1",
        "task.max_sample_size=8000",
    ]
    options += ["dataset.validate_interval_updates=0", "dataset.validate_interval=9", f"task.data={data}"]
    return [*options, f"model.stages=[{stages}]", *(f"model.{option}" for option in MODEL)]


def finished(job, folder):
    """Wait for a run; update -> loss."""
    codes = job.wait()
    assert codes == [0], f"exit codes {codes}:\n{job.log()[-3000:]}"
    return {record.update: record.values["loss"] for record in read_log(folder / "log") if record.split == "train"}


@pytest.fixture(scope="session")
def runs(start, data, device, tmp_path_factory):
    """Name -> (job, folder) of pretraining runs, which run at the same time."""
    base, common = tmp_path_factory.mktemp("runs"), pretraining(data)

    def begin(name, *overrides, **options):
        jobs[name] = start(base / name, "audio/pretraining", *common, *overrides, **options)

    jobs = {}
    begin("full")
    observer = str(ROOT / "tests/integration/observe.py")
    begin("killed", HOLD=str(base / "killed/held"), HOLD_AT=str(SAVED + 1), OBSERVER=observer)
    rank = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "15731"}
    backend = "nccl" if device.type == "cuda" else "gloo"
    begin("rank", f"distributed_training.distributed_backend={backend}", **rank)
    begin("waits", before=WAITS, WAITS=str(base / "waits.json"))
    for name in ("common.fp16", "common.bf16", "common.amp"):
        if name == "common.bf16" or device.type == "cuda":  # fairseq's fp16 and amp need a GPU
            begin(name, f"{name}=true", "common.fp16_init_scale=4")  # small: no update is skipped
    begin("model.precision", "model.precision=bfloat16")
    return {name: (job, base / name) for name, job in jobs.items()}


@pytest.fixture(scope="session")
def full(runs):
    """Losses of the run in float32, and its last checkpoint."""
    job, folder = runs["full"]
    losses = finished(job, folder)
    assert sorted(losses) == list(range(1, UPDATES + 1)) and np.isfinite(list(losses.values())).all()
    return losses, folder / "checkpoints/checkpoint_last.pt"


def compare(found, expected, bounds):
    assert found.keys() == expected.keys()
    distances = {update: abs(found[update] / expected[update] - 1) for update in expected}
    for update, distance in distances.items():
        assert distance < bounds[update > STAGES[0][1]], distances


def test_killed_run_resumes(runs, full, start, data):
    """Losses within 1e-5; equal codebooks and running averages."""
    job, folder = runs["killed"]
    while not (folder / "held.0").exists():
        assert job.running(), job.log()[-3000:]
        time.sleep(0.02)
    job.kill()
    assert job.codes and set(job.codes.values()) == {-signal.SIGKILL}
    resumed = start(folder, "audio/pretraining", *pretraining(data))
    compare(finished(resumed, folder), full[0], SAME_RUN)
    assert f"@ {SAVED} updates)" in resumed.log()
    ends = [folder / "checkpoints/checkpoint_last.pt", full[1]]
    states = [torch.load(path, weights_only=False, map_location="cpu")["model"] for path in ends]
    for name in ("quantizer.codebooks.codes", "quantizer.codebooks.usage", "latent_norm.mean", "teacher_norm.second"):
        torch.testing.assert_close(states[0][name], states[1][name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_precision_is_close_to_float32(runs, full, device, name):
    """``rank`` has a process group of one rank, ``waits`` sums in any order."""
    if name not in runs:
        pytest.skip("fairseq's fp16 and amp need a GPU")
    job, folder = runs[name]
    compare(finished(job, folder), full[0], LOSSES[name])
    state = torch.load(folder / "checkpoints/checkpoint_last.pt", weights_only=False, map_location="cpu")
    assert state["model"]["quantizer.codebooks.codes"].dtype == torch.float32
    if name == "rank":
        assert "initialized host" in job.log()


def test_updates_wait_in_the_trainer_only(runs, full):
    """Waits of an update are those of docs/performance.md: none in the model, the log's in one piece."""
    job, folder = runs["waits"]
    finished(job, folder)
    updates = [json.loads(line) for line in (folder.parent / "waits.json").read_text().splitlines()]
    assert len(updates) == UPDATES - 2 * len(STAGES)
    places = sorted({place for update in updates for place in update})
    most = max(sum(update.values()) for update in updates)
    text = f"= waits of an update, all in fairseq's trainer | {most} at most: {', '.join(places)} | 3"
    warnings.warn(text, stacklevel=1)  # scripts/gpu_check.sh takes it into its table
    assert 1 <= most <= 8, updates
    ours = [place for place in places if place.startswith("bridle_fairseq/")]
    assert not [place for place in ours if not place.startswith("bridle_fairseq/criterions/totals.py")], updates


def run(*command):
    assert bridle.main([str(part) for part in command]) == 0


def test_checkpoint_of_the_device_goes_on_on_the_cpu_and_back(full, start, data, device, tmp_path):
    """Two updates on the CPU, then two on the device, after the last checkpoint of the device."""
    saves = tmp_path / "checkpoints"
    saves.mkdir()
    (saved,) = full[1].parent.glob(f"checkpoint_*_{SAVED}.pt")
    (saves / "checkpoint_last.pt").write_bytes(saved.read_bytes())
    for end, where in ((SAVED + 2, ["common.cpu=true"]), (SAVED + 4, [])):
        options = [*pretraining(data), f"optimization.max_update={end}", *where]
        losses = finished(start(tmp_path, "audio/pretraining", *options), tmp_path)
        assert max(losses) == end and np.isfinite(list(losses.values())).all()
    assert 0.5 < losses[SAVED + 1] / full[0][SAVED + 1] < 2


def test_tokenize_and_features(full, data, device, relative, tmp_path):
    """Codes in float32 are those of the CPU, up to 2 % of the patches; features to 1e-3."""
    codes, features = [], []
    for place in ("cpu", device.type):
        out = tmp_path / place
        run("tokenize", full[1], data / "valid.tsv", "--out", out, "--device", place)
        run("features", full[1], data / "valid.tsv", "--out", out, "--device", place)
        cached = CachedCodes(out / "valid.codes", Manifest.read(data / "valid.tsv"))
        codes.append(np.concatenate([cached.item(row).reshape(-1, 2) for row in range(len(cached))]))
        (file,) = out.glob("*.npy")
        features.append(torch.from_numpy(np.load(file)))
    assert (codes[0] == codes[1]).all(1).mean() > 0.98
    assert relative(features[1], features[0]) < 1e-3


def test_probe(full, data, device, tmp_path):
    run("probe", full[1], data, "--out", tmp_path, "--device", device.type, "--probes", "ridge", "--test", "valid")
    rows = json.loads((tmp_path / "probe.json").read_text())["rows"]
    assert {"encoder", "untrained"} < {row["features"] for row in rows} and max(row["valid"] for row in rows) > 0.9


def test_export_pretrained_and_onnx(full, device, relative, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    run("export", full[1], tmp_path / "export", "--onnx")
    generator = torch.Generator().manual_seed(0)
    waveform = torch.rand(2, 9000, generator=generator).cumsum(1).sin() * 0.3
    models = [pretrained.load(tmp_path / "export", device=place) for place in ("cpu", device.type)]
    assert models[1].device.type == device.type
    features = [model.features(waveform, 16000, [9000, 5000]) for model in models]
    valid = ~features[0].padding_mask
    assert relative(features[1].x[valid.to(device)], features[0].x[valid]) < 1e-3
    codes = [model.codes(waveform, 16000).codes.cpu() for model in models]
    assert (codes[0] == codes[1]).float().mean() > 0.98
    session = onnxruntime.InferenceSession(str(tmp_path / "export/encoder.onnx"), providers=["CPUExecutionProvider"])
    padding = np.arange(9000) >= np.array([[9000], [5000]])
    found = session.run(None, {"waveform": waveform.numpy(), "padding_mask": padding})[0]
    assert relative(torch.from_numpy(found)[valid], features[0].x[valid]) < 1e-3


@pytest.mark.parametrize("kind", ["classification", "ctc"])
def test_finetuning(full, start, data, device, tmp_path, kind):
    """Trains, then is evaluated on the device and on the CPU with the same result."""
    config = "audio/finetuning" if kind == "classification" else "speech/finetuning"
    options = [f"task.data={data}", f"model.checkpoint={full[1]}", "optimization.max_update=6"]
    options += ["lr_scheduler.warmup_updates=2", "task.max_sample_size=16000"]
    losses = finished(start(tmp_path, config, *options), tmp_path)
    assert len(losses) == 6 and np.isfinite(list(losses.values())).all()
    tables = []
    for place in ("cpu", device.type):
        best = tmp_path / "checkpoints/checkpoint_last.pt"
        run("evaluate", best, data / "valid.tsv", "--out", tmp_path / place, "--device", place, "--workers", "0")
        name = "valid.predictions.csv" if kind == "classification" else "valid.transcripts.csv"
        tables.append([line.split(",")[:4] for line in (tmp_path / place / name).read_text().splitlines()])
    assert tables[0] == tables[1] and len(tables[0]) == 9
