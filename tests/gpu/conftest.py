"""What a GPU computes, beside the same on the CPU. Without a GPU these tests are skipped.

With ``BRIDLE_TEST_DEVICE=cpu`` they compare the CPU with itself, so that they are known to work before there is a GPU.
"""

import contextlib
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.nn.bridle import Bridle
from bridle_fairseq.nn.masking import MASKINGS, Mask, Targets, choose_targets
from bridle_fairseq.nn.settings import BridleSettings
from bridle_fairseq.training.log import read_log

ROOT = Path(__file__).resolve().parents[2]
DETERMINISTIC = ROOT / "tests/gpu/deterministic.py"
DEVICE = os.environ.get("BRIDLE_TEST_DEVICE", "cuda")
SIZES = {"encoder_width": 64, "encoder_depth": 2, "encoder_heads": 4, "tokenizer_depth": 2, "estimator_depth": 1}
SIZES |= {"decoder_width": 32, "decoder_depth": 2, "decoder_heads": 4, "mask_ratio": 0.6}
SIZES |= {"num_codebooks": 3, "codebook_size": 16, "codebook_dim": 16}
MODALITIES = {
    "audio": {"num_mel_bins": 64, "patch_size": [8, 16]},
    "image": {"modality": "image", "patch_size": [8, 8], "decoder_window": [2, 3]},
    "video": {"modality": "video", "patch_size": [2, 8, 8], "decoder_window": []},
}
SHAPES = {"audio": (4, 12000), "image": (4, 3, 48, 40), "video": (3, 3, 6, 32, 24)}


@pytest.fixture(scope="session", autouse=True)
def device():
    """The device that is tested."""
    if DEVICE == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU; BRIDLE_TEST_DEVICE=cpu runs these tests on the CPU")
    return torch.device(DEVICE)


@pytest.fixture
def no_waits(device):
    """``with no_waits():`` a call that synchronizes with a GPU raises."""

    @contextlib.contextmanager
    def watch():
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            if device.type == "cuda":
                torch.cuda.set_sync_debug_mode("default")

    return watch


@pytest.fixture(scope="session")
def make():
    """``make(modality, **settings)``: a model on the CPU, always of the same weights."""

    def build(modality="audio", **settings):
        torch.manual_seed(0)
        return Bridle(BridleSettings(**{**SIZES, **MODALITIES[modality], **settings})).train()

    return build


@pytest.fixture(scope="session")
def batch():
    """``batch(modality, seed)``: inputs and their padding mask, on the CPU."""

    def draw(modality="audio", seed=0):
        generator = torch.Generator().manual_seed(seed)
        shape = SHAPES[modality]
        if modality == "audio":
            source = 0.3 * torch.rand(shape, generator=generator).cumsum(1).sin()
            source += 0.03 * torch.randn(shape, generator=generator)
        else:
            source = torch.rand(shape, generator=generator)
        padding = torch.zeros(shape[0], *shape[min(len(shape) - 1, 2) :] if modality != "audio" else shape[1:]).bool()
        padding[-1, ..., shape[-1] * 2 // 3 :] = True
        return source.masked_fill(padding if modality == "audio" else padding.unsqueeze(1), 0.0), padding

    return draw


def moved(values, device):
    return type(values)(*(None if value is None else value.to(device) for value in values))


@pytest.fixture
def same_masks(monkeypatch):
    """Masks and targets are drawn on the CPU, so that every device has the same."""

    def drawn_on_cpu(mask_of):
        def draw(batch, grid, ratio, *, padding_mask=None, device=None, generator=None):
            padding = None if padding_mask is None else padding_mask.cpu()
            generator = torch.Generator().manual_seed(0)
            return moved(mask_of(batch, grid, ratio, padding_mask=padding, generator=generator), device)

        return draw

    def targets_drawn_on_cpu(mask, share=1.0, generator=None):
        generator = torch.Generator().manual_seed(1)
        return moved(choose_targets(moved(mask, "cpu"), share, generator), mask.masked.device)

    assert all(field in Mask._fields + Targets._fields for field in ("masked", "places"))
    for name, mask_of in list(MASKINGS.items()):
        monkeypatch.setitem(MASKINGS, name, drawn_on_cpu(mask_of))
    monkeypatch.setattr("bridle_fairseq.nn.bridle.choose_targets", targets_drawn_on_cpu)


def distance(found, expected):
    """Norm of the difference of two tensors or lists of tensors, relative to that of the expected values."""
    if isinstance(found, torch.Tensor):
        found, expected = [found], [expected]
    found, expected = (torch.cat([t.detach().double().cpu().flatten() for t in ts]) for ts in (found, expected))
    assert found.isfinite().all()
    return float((found - expected).norm() / expected.norm())


@pytest.fixture(scope="session")
def relative():
    """See :func:`distance`."""
    return distance


# -- commands --------------------------------------------------------------------------------------------------------

STAGES = [("encoder", 4), ("tokenizer", 4), ("encoder", 4), ("joint", 3)]
SAVED = 7  # in the second stage, in the middle of an epoch
MODEL = ["encoder_width=32", "encoder_depth=2", "encoder_heads=2", "decoder_width=16", "decoder_heads=2"]
MODEL += ["tokenizer_depth=2", "num_codebooks=2", "codebook_size=12", "codebook_dim=8", "precision=float32"]


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """Tones of two classes in noise, with labels and transcripts."""
    folder, random = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    (folder / "labels.csv").write_text("index,mid,display_name\n0,low,low\n1,high,high\n")
    (folder / "dict.ltr.txt").write_text("| 3\nA 2\nB 1\n")
    for split, count in (("train", 24), ("valid", 8)):
        sizes = random.integers(5000, 16000, count)
        for number, size in enumerate(sizes):
            wave = 0.3 * np.sin(np.arange(size) * (0.1 + 0.7 * (number % 2))) + 0.02 * random.standard_normal(size)
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


@pytest.fixture(scope="session")
def pretraining(data):
    """Overrides of the pretraining runs."""
    stages = ",".join(f"{{kind:{kind},updates:{updates},lr:1e-3,tokenizer_every:2}}" for kind, updates in STAGES)
    options = [f"checkpoint.save_interval_updates={SAVED}", "checkpoint.keep_interval_updates=-1"]
    options += ["task.max_sample_size=8000", "dataset.validate_interval_updates=0", "dataset.validate_interval=9"]
    return [*options, f"task.data={data}", f"model.stages=[{stages}]", *(f"model.{option}" for option in MODEL)]


def losses_of(job, folder):
    """Wait for a run; update -> loss."""
    codes = job.wait()
    assert codes == [0], f"exit codes {codes}:\n{job.log()[-3000:]}"
    losses = {record.update: record.values["loss"] for record in read_log(folder / "log") if record.split == "train"}
    assert losses and np.isfinite(list(losses.values())).all()
    return losses


@pytest.fixture(scope="session")
def finished():
    """See :func:`losses_of`."""
    return losses_of
