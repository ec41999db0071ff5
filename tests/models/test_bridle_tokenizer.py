"""Model ``bridle_tokenizer``: same codes as the model ``bridle`` of its checkpoint, and errors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from fairseq import checkpoint_utils, models, tasks
from fairseq.dataclass.configs import CommonConfig
from omegaconf import OmegaConf

import bridle_fairseq

bridle_fairseq.register()

from bridle_fairseq.models.bridle import BridleModel  # noqa: E402
from bridle_fairseq.models.bridle_tokenizer import BridleTokenizerModel  # noqa: E402
from bridle_fairseq.models.checkpoints import load_model  # noqa: E402
from bridle_fairseq.nn.settings import BridleSettings  # noqa: E402
from bridle_fairseq.tasks.stages import begin_update  # noqa: E402
from bridle_fairseq.utils.errors import InputError  # noqa: E402

SIZES = dict(encoder_width=32, encoder_depth=2, encoder_heads=2, decoder_width=16, decoder_depth=1, decoder_heads=2)
SIZES |= dict(tokenizer_depth=1, estimator_depth=1, codebook_dim=8, codebook_size=16, num_codebooks=3)


def save(path: Path, kind: str = "tokenizer", updates: int = 1, **settings) -> str:
    """A checkpoint as fairseq writes it, after ``updates`` updates of a stage."""
    cfg = {**SIZES, "stages": [{"kind": kind, "updates": 9}], "modality": "audio", "sample_rate": 16000, **settings}
    torch.manual_seed(0)
    model = BridleModel(BridleSettings(**cfg)).train()
    for number in range(updates):
        begin_update(model, number)
        model(torch.randn(4, 16000).cumsum(1).sin() * 0.3)
        model.commit()
    history = {"optimizer_name": "", "lr_scheduler_state": {}, "num_updates": updates}
    task = {"_name": "bridle_pretraining", "data": "", "modality": "audio", "sample_rate": 16000, "seed": 1}
    common = OmegaConf.to_container(OmegaConf.structured(CommonConfig), enum_to_str=True)
    state = {"cfg": {"model": {"_name": "bridle", **cfg}, "task": task, "common": common}, "args": None}
    state |= {"model": model.state_dict(), "extra_state": {}, "optimizer_history": [history]}
    torch.save(state, path)
    return str(path)


def full(path: str) -> BridleModel:
    (model,), _, _ = checkpoint_utils.load_model_ensemble_and_task([path])
    return model.eval()


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(5)
    source = torch.randn(3, 9000).cumsum(1).sin() * 0.2
    return source, torch.arange(9000) >= torch.tensor([9000, 4000, 900])[:, None]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["tokenizer", "encoder"])
def test_codes_equal_those_of_the_full_model(tmp_path, kind, precision) -> None:
    path = save(tmp_path / "bridle.pt", kind, precision=precision)
    tokenizer = models.build_model(OmegaConf.create({"_name": "bridle_tokenizer", "checkpoint": path}), None)
    expected, padding, grid = full(path).tokenize(*batch())
    found = tokenizer.encode(*batch())
    assert torch.equal(found[0], expected) and torch.equal(found[1], padding) and found[2] == grid
    assert len(expected.unique()) > 4


def test_decoded_features_equal_those_of_the_full_model(tmp_path) -> None:
    path = save(tmp_path / "bridle.pt")
    tokenizer, model = BridleTokenizerModel.from_checkpoint(path), full(path)
    codes, padding, grid = tokenizer.encode(*batch())
    with torch.no_grad():
        patches = model.front_end(*batch())
        quantized = model.quantizer(model.latents(patches, from_tokenizer=True), patches.padding_mask).quantized
        expected = model.estimator(quantized, grid, padding)
    found = tokenizer.decode(codes, grid, padding)
    assert found.shape == (*codes.shape[:2], 32)
    torch.testing.assert_close(found[~padding], expected[~padding], atol=1e-5, rtol=1e-4)
    alone, _, alone_grid = tokenizer.encode(batch()[0][1:2, :4000])
    features = tokenizer.decode(alone, alone_grid)
    torch.testing.assert_close(features[0], found[1, : features.shape[1]], atol=1e-5, rtol=1e-4)


def test_encoder_and_decoder_are_left_out(tmp_path) -> None:
    tokenizer = BridleTokenizerModel.from_checkpoint(save(tmp_path / "bridle.pt"))
    parts = {name.split(".")[1] for name in tokenizer.state_dict()}
    assert {"tokenizer", "quantizer", "estimator", "projection"} <= parts
    assert not parts & {"encoder", "decoder"}


def test_use_changes_no_state_and_training_is_an_error(tmp_path) -> None:
    tokenizer = BridleTokenizerModel.from_checkpoint(save(tmp_path / "bridle.pt"))
    before = {name: value.clone() for name, value in tokenizer.state_dict().items()}
    codes, padding, grid = tokenizer.encode(*batch())
    tokenizer.decode(codes, grid, padding)
    assert all(torch.equal(value, before[name]) for name, value in tokenizer.state_dict().items())
    with pytest.raises(InputError, match="not trained by itself"):
        tokenizer.train()
    assert not tokenizer.training and not any(p.requires_grad for p in tokenizer.parameters())


def test_training_run_ends_with_one_sentence(capsys) -> None:
    run = OmegaConf.create(
        {"task": {"_name": "bridle_pretraining", "data": ""}, "model": {"_name": "bridle_tokenizer"}}
    )
    with pytest.raises(SystemExit) as stop:
        tasks.setup_task(run.task)
    assert stop.value.code == 2
    assert "model bridle_tokenizer is taken from a checkpoint and not trained" in capsys.readouterr().err


def test_decoding_codes_of_the_cold_start_is_an_error(tmp_path) -> None:
    tokenizer = BridleTokenizerModel.from_checkpoint(save(tmp_path / "bridle.pt", "encoder"))
    codes, padding, grid = tokenizer.encode(*batch())
    with pytest.raises(InputError, match="codes are of the cold start; expected"):
        tokenizer.decode(codes, grid, padding)


def change(path: str, **what) -> None:
    state = torch.load(path, weights_only=False)
    for key, value in what.items():
        if key == "name":
            state["cfg"]["model"]["_name"] = value
        else:
            del state["model"][key.replace("__", ".")]
    torch.save(state, path)


def test_mistakes_are_errors_with_one_sentence(tmp_path) -> None:
    path = save(tmp_path / "bridle.pt")
    cases = {None: "model.checkpoint is not set", str(tmp_path / "none.pt"): "none.pt: no such checkpoint"}
    (tmp_path / "junk.pt").write_bytes(bytes(range(256)) * 9)
    cases[str(tmp_path / "junk.pt")] = "junk.pt: not a checkpoint that fairseq can load"
    half = tmp_path / "half.pt"
    half.write_bytes(Path(path).read_bytes()[:20000])
    cases[str(half)] = "half.pt: not a checkpoint that fairseq can load"
    torch.save({"weights": torch.zeros(3)}, tmp_path / "foreign.pt")
    cases[str(tmp_path / "foreign.pt")] = "foreign.pt: not a checkpoint that fairseq can load"
    change(other := save(tmp_path / "other.pt"), name="bridle_classifier")
    cases[other] = "other.pt: a checkpoint of the model 'bridle_classifier'; expected one of 'bridle'"
    change(less := save(tmp_path / "less.pt"), estimator__head__bias=None)
    cases[less] = "less.pt: its weights do not fit its settings .*estimator.head.bias"
    cases[save(tmp_path / "fresh.pt", updates=0)] = "fresh.pt: its codebooks have not been started"
    for wrong, sentence in cases.items():
        with pytest.raises(InputError, match=sentence) as error:
            BridleTokenizerModel.from_checkpoint(wrong)
        assert "\n" not in str(error.value)


def test_checkpoint_with_the_removed_decoder_is_an_error(tmp_path) -> None:
    path = save(tmp_path / "bridle.pt")
    state = torch.load(path)
    state["cfg"]["model"]["decoder_kind"] = "cross"
    torch.save(state, path)
    sentence = "model.decoder_kind is 'cross', which was removed because"
    with pytest.raises(InputError, match=rf"bridle\.pt: .*{sentence}"):
        BridleTokenizerModel.from_checkpoint(path)
    with pytest.raises(InputError, match=rf"bridle\.pt: .*{sentence}"):
        load_model(path)
