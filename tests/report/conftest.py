"""Folders of runs as fairseq-hydra-train writes them, made by hand in a second."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

SIZES = dict(encoder_width=16, encoder_depth=1, encoder_heads=2, decoder_width=16, decoder_depth=1, decoder_heads=2)
SIZES |= dict(tokenizer_depth=1, estimator_depth=1, codebook_dim=8, codebook_size=16, num_codebooks=2)
STAGES = [{"kind": "encoder", "updates": 6}, {"kind": "tokenizer", "updates": 6}, {"kind": "encoder", "updates": 9}]


def write_sounds(folder: Path, clips: int = 9) -> None:
    rng = np.random.default_rng(0)
    rows, labels = [], []
    for number in range(clips):
        wave = 0.3 * np.sin(np.cumsum(rng.uniform(0.01, 0.6, 20).repeat(400)))
        soundfile.write(folder / f"{number}.wav", wave, 16000)
        rows.append(f"{number}.wav\t8000\n")
        labels.append("ab"[number % 2] + "\n")
    (folder / "valid.tsv").write_text(f"{folder}\n{''.join(rows)}")
    (folder / "valid.lbl").write_text("".join(labels))
    (folder / "labels.csv").write_text("index,mid,display_name\n0,a,a <dog>\n1,b,rain\n")


def log_lines(levels: int, updates: int = 16) -> str:
    lines = []
    for update in range(2, updates + 1, 2):
        values = {
            "loss": f"{5 - update / 10}",
            "clips_per_second": "9.5",
            "memory_gb": "0.62",
            "wall": f"{update}",
            "num_updates": f"{update}",
        }
        for k in range(1, levels + 1):
            values |= {f"perplexity_{k}": "9", f"used_{k}": "14", f"dead_{k}": "2", f"revived_{k}": "0.5"}
            values |= {f"residual_energy_{k}": f"{0.5**k}"} if 6 < update <= 12 else {f"acc_{k}": f"{update / 99}"}
        lines.append(f"[2025-01-01 10:00:{update:02},000][train_inner][INFO] - {json.dumps(values)}")
        if update % 4 == 0:
            valid = {f"valid_{name}": value for name, value in values.items()} | {"valid_knn_accuracy": "0.5"}
            valid["valid_ridge_accuracy"] = "0.625"
            lines.append(f"[2025-01-01 10:00:{update:02},500][valid][INFO] - {json.dumps(valid)}")
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="session")
def make_run():
    """``make_run(folder, **sizes)``: a run in that folder, with its sounds beside its log."""

    def make(folder: Path, **sizes) -> Path:
        from fairseq.dataclass.configs import CommonConfig
        from omegaconf import OmegaConf

        import bridle_fairseq

        bridle_fairseq.register()
        from bridle_fairseq.models.bridle import BridleModel
        from bridle_fairseq.nn.settings import BridleSettings
        from bridle_fairseq.tasks.stages import begin_update

        (folder / "checkpoints").mkdir(parents=True)
        write_sounds(folder)
        torch.manual_seed(0)
        settings = BridleSettings(**SIZES | sizes, stages=STAGES)
        model = BridleModel(settings).train()
        begin_update(model, 6)
        model(torch.randn(4, 16000).cumsum(1).sin() * 0.3)
        model.commit()
        common = OmegaConf.to_container(OmegaConf.structured(CommonConfig), enum_to_str=True)
        task = {
            "_name": "bridle_pretraining",
            "data": str(folder),
            "sample_rate": 16000,
            "max_sample_size": 8000,
            "seed": 1,
        }
        cfg = {"model": {"_name": "bridle", **dataclasses.asdict(settings)}, "task": task, "common": common}
        history = [{"optimizer_name": "", "lr_scheduler_state": {}, "num_updates": 16}]
        state = {"cfg": cfg, "args": None, "extra_state": {}, "optimizer_history": history, "model": model.state_dict()}
        torch.save(state, folder / "checkpoints" / "checkpoint_last.pt")
        (folder / "hydra_train.log").write_text(log_lines(settings.num_codebooks))
        return folder

    return make


@pytest.fixture(scope="session")
def runs(make_run, tmp_path_factory) -> tuple[Path, Path]:
    """Two runs that differ in their codebooks."""
    folder = tmp_path_factory.mktemp("runs")
    return make_run(folder / "rq"), make_run(folder / "vq", num_codebooks=1, codebook_metric="cosine")


@pytest.fixture(scope="session")
def finetuned(tmp_path_factory) -> Path:
    """What a fine-tuning run leaves, made by hand."""
    from fairseq.dataclass.configs import CommonConfig
    from omegaconf import OmegaConf

    import bridle_fairseq

    bridle_fairseq.register()
    from bridle_fairseq.data.manifests.labels import Classes
    from bridle_fairseq.evaluation.classification import evaluate, write_tables
    from bridle_fairseq.nn.classifier import Classifier
    from bridle_fairseq.nn.settings import BridleSettings

    run = tmp_path_factory.mktemp("finetuned")
    (run / "checkpoints").mkdir(parents=True)
    lines = "".join(f"{number},{name},{name}\n" for number, name in enumerate(["dog <small>", "rain", "sea"]))
    (run / "labels.csv").write_text(f"index,mid,display_name\n{lines}")
    settings = BridleSettings(**SIZES, stages=STAGES)
    torch.manual_seed(0)
    model = {"_name": "bridle_classifier", "pooling": "mean", "checkpoint": "pretrained.pt"}
    cfg = {
        "model": {**model, "settings": dataclasses.asdict(settings)},
        "task": {"_name": "bridle_classification", "data": str(run), "sample_rate": 16000, "max_sample_size": 8000},
        "common": OmegaConf.to_container(OmegaConf.structured(CommonConfig), enum_to_str=True),
        "checkpoint": {"best_checkpoint_metric": "accuracy", "maximize_best_checkpoint_metric": True},
    }
    history = [{"optimizer_name": "", "lr_scheduler_state": {}, "num_updates": 12}]
    weights = Classifier(settings, 3).state_dict()
    state = {"cfg": cfg, "args": None, "extra_state": {}, "optimizer_history": history, "model": weights}
    names = ["dog <small>", "rain", "sea"]
    state["task_state"] = {"classes": {"ids": names, "names": names}}
    torch.save(state, run / "checkpoints" / "checkpoint_last.pt")
    lines = []
    for update, loss, accuracy in ((4, 1.1, 0.4), (8, 0.9, 0.75), (12, 0.8, 0.5)):
        values = {"loss": f"{loss}", "accuracy": f"{accuracy}", "num_updates": f"{update}"}
        for kind, prefix in (("train_inner", ""), ("valid", "valid_")):
            named = {prefix + name: value for name, value in values.items()} | {"wall": f"{update}"}
            lines.append(f"[2025-01-01 10:00:{update:02},000][{kind}][INFO] - {json.dumps(named)}\n")
    (run / "hydra_train.log").write_text("".join(lines))
    predicted, true = np.eye(3)[[0, 1, 1, 1, 2, 0]], np.array([0, 0, 0, 1, 2, 2])
    write_tables(str(run / "checkpoints"), "valid", evaluate(predicted, true), Classes.read(run / "labels.csv"))
    return run
