"""What is done with a checkpoint of the device: codes, features, probes, exports, fine-tuning. Each beside the CPU."""

import json

import numpy as np
import pytest
import torch

import bridle_fairseq
from bridle_fairseq import pretrained
from bridle_fairseq.cli import main as bridle
from bridle_fairseq.data.artifacts.codes import CachedCodes
from bridle_fairseq.data.manifests.manifest import Manifest

bridle_fairseq.register()

CONFIGS = {"classification": "audio/finetuning", "ctc": "speech/finetuning"}


@pytest.fixture(scope="module")
def checkpoint(start, pretraining, finished, tmp_path_factory):
    """The last checkpoint of a run through all stages."""
    folder = tmp_path_factory.mktemp("pretrained")
    finished(start(folder, "audio/pretraining", *pretraining), folder)
    return folder / "checkpoints/checkpoint_last.pt"


@pytest.fixture(scope="module", autouse=True)
def finetuned(checkpoint, start, data, tmp_path_factory):
    """Kind -> (job, folder) of fine-tuning runs, which run beside the other tests."""
    base = tmp_path_factory.mktemp("finetuned")
    options = [f"task.data={data}", f"model.checkpoint={checkpoint}", "optimization.max_update=6"]
    options += ["lr_scheduler.warmup_updates=2", "task.max_sample_size=16000"]
    return {kind: (start(base / kind, config, *options), base / kind) for kind, config in CONFIGS.items()}


def run(*command):
    assert bridle.main([str(part) for part in command]) == 0


def test_tokenize_and_features(checkpoint, data, device, relative, tmp_path):
    """Codes in float32 are those of the CPU, up to 2 % of the patches; features to 1e-3."""
    codes, features = [], []
    for place in ("cpu", device.type):
        out = tmp_path / place
        run("tokenize", checkpoint, data / "valid.tsv", "--out", out, "--device", place)
        run("features", checkpoint, data / "valid.tsv", "--out", out, "--device", place)
        cached = CachedCodes(out / "valid.codes", Manifest.read(data / "valid.tsv"))
        codes.append(np.concatenate([cached.item(row).reshape(-1, 2) for row in range(len(cached))]))
        (file,) = out.glob("*.npy")
        features.append(torch.from_numpy(np.load(file)))
    assert (codes[0] == codes[1]).all(1).mean() > 0.98
    assert relative(features[1], features[0]) < 1e-3


def test_probe(checkpoint, data, device, tmp_path):
    run("probe", checkpoint, data, "--out", tmp_path, "--device", device.type, "--probes", "ridge", "--test", "valid")
    rows = json.loads((tmp_path / "probe.json").read_text())["rows"]
    assert {"encoder", "untrained"} < {row["features"] for row in rows} and max(row["valid"] for row in rows) > 0.9


def test_export_pretrained_and_onnx(checkpoint, device, relative, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    run("export", checkpoint, tmp_path / "export", "--onnx")
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


@pytest.mark.parametrize("kind", CONFIGS)
def test_finetuning(finetuned, finished, data, device, tmp_path, kind):
    """Trains, then is evaluated on the device and on the CPU with the same result."""
    job, folder = finetuned[kind]
    assert len(finished(job, folder)) == 6
    tables = []
    for place in ("cpu", device.type):
        last, out = folder / "checkpoints/checkpoint_last.pt", tmp_path / place
        run("evaluate", last, data / "valid.tsv", "--out", out, "--device", place, "--workers", "0")
        name = {"classification": "valid.predictions.csv", "ctc": "valid.transcripts.csv"}[kind]
        tables.append([line.split(",")[:4] for line in (out / name).read_text().splitlines()])
    assert tables[0] == tables[1] and len(tables[0]) == 9
