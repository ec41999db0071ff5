"""Checkpoints of a run in fairseq's other entry points."""

import ast
import re

import fairseq.checkpoint_utils
import numpy as np
import pytest
import soundfile
import torch

import bridle_fairseq
from bridle_fairseq.data.manifests.manifest import Manifest


def validate(fairseq, folder, checkpoint, *options):
    """The metrics that fairseq-validate prints for the split ``valid``."""
    printed = fairseq.run(
        folder,
        *("fairseq-validate", fairseq.data, "--user-dir", bridle_fairseq.__path__[0], "--task", "bridle_pretraining"),
        *("--path", checkpoint, "--valid-subset", "valid", "--batch-size", "4", "--cpu", "--log-format", "json"),
        *options,
    )
    (record,) = re.findall(r"\| INFO \| valid \| (\{.*\})", printed)
    return {name: float(value) for name, value in ast.literal_eval(record).items()}


@pytest.mark.parametrize("update", [12, 13, 23, 32, 40])
def test_fairseq_validate_equals_validation_of_the_run(fairseq, full_run, tmp_path, update):
    metrics = validate(fairseq, tmp_path, full_run.path(update))
    logged = full_run.logged("valid")[update]
    names = {"loss", "stage", "used_1", "perplexity_1"} | {n for n in logged if n.startswith(("acc_", "residual_"))}
    assert {n: metrics[f"valid_{n}"] for n in names} == pytest.approx({n: logged[n] for n in names}, abs=2e-4)


@pytest.fixture(scope="module")
def loaded(full_run):
    bridle_fairseq.register()
    (model,), cfg, task = fairseq.checkpoint_utils.load_model_ensemble_and_task([str(full_run.path(40))])
    return model.eval(), cfg, task


def test_model_and_task_load(loaded, full_run):
    model, cfg, task = loaded
    assert (type(model).__name__, type(task).__name__) == ("BridleModel", "BridlePretrainingTask")
    assert model.num_updates == 40 and model.stage.kind == "joint"
    assert cfg.model.codebook_size == model.settings.codebook_size == 12
    state = full_run.state(40)["model"]
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_loaded_model_makes_codes_and_features(loaded, data):
    model, _, task = loaded
    manifest = Manifest.read(data / "valid.tsv")
    clips = [torch.from_numpy(soundfile.read(manifest.path(row), dtype="float32")[0]) for row in range(3)]
    task.load_dataset("valid")
    dataset = task.dataset("valid")
    batch = dataset.collater([dataset[row] for row in range(3)])["net_input"]
    codes, padding, grid = model.tokenize(**batch)
    features = model.extract_features(**batch)
    assert codes.shape == (3, grid[0] * grid[1], 2) and features["x"].shape == (3, grid[0] * grid[1], 32)
    for row, clip in enumerate(clips):
        valid = ~padding[row]
        single = clip[None, :8000]
        assert torch.equal(model.tokenize(single)[0][0], codes[row][valid])
        torch.testing.assert_close(model.extract_features(single)["x"][0], features["x"][row][valid], atol=1e-5, rtol=0)
    assert len(np.unique(codes.numpy())) > 6


def test_cold_start_checkpoint_makes_codes(full_run, data):
    bridle_fairseq.register()
    (model,), _, _ = fairseq.checkpoint_utils.load_model_ensemble_and_task([str(full_run.path(5))])
    codes, _, _ = model.eval().tokenize(torch.randn(1, 8000))
    assert not model.tokenizer_ready and len(codes.unique()) > 2
