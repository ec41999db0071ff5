"""Models that start from an export have the weights that they have from its checkpoint."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import torch
from fairseq import models
from omegaconf import OmegaConf

import bridle_fairseq

bridle_fairseq.register()

from bridle_fairseq import pretrained  # noqa: E402
from bridle_fairseq.models.bridle import BridleModel  # noqa: E402
from bridle_fairseq.models.bridle_tokenizer import BridleTokenizerModel  # noqa: E402
from bridle_fairseq.models.checkpoints import load_model, read_bridle, write_untrained  # noqa: E402
from bridle_fairseq.models.exports import start_from_export  # noqa: E402
from bridle_fairseq.nn.settings import BridleSettings  # noqa: E402
from bridle_fairseq.utils.errors import InputError  # noqa: E402
from bridle_fairseq.utils.files import file_sha256  # noqa: E402

WAVES = torch.randn(2, 5000, generator=torch.Generator().manual_seed(0)).cumsum(1).sin() * 0.3
FINE_TUNED = {
    "bridle_classifier": {"pooling": "mean"},
    "bridle_ctc": {"pooling": "frequency"},
    "bridle_mel_decoder": {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2},
}


def build(name: str, checkpoint):
    cfg = OmegaConf.merge(
        OmegaConf.structured(models.MODEL_DATACLASS_REGISTRY[name](checkpoint=str(checkpoint))), FINE_TUNED[name]
    )
    cfg._name = name
    task = SimpleNamespace(cfg=SimpleNamespace(sample_rate=16000), classes=range(3), vocabulary=range(7))
    torch.manual_seed(5)
    return models.build_model(cfg, task).eval()


@pytest.mark.parametrize("name", FINE_TUNED)
def test_initial_weights_of_fine_tuning_are_those_from_the_checkpoint(made, exported, name) -> None:
    folder = made[0]
    for checkpoint, export in (("bridle.pt", "all"), ("half.pt", "half")):
        model, other = build(name, folder / checkpoint), build(name, exported / export)
        assert other.settings == model.settings
        left, right = model.state_dict(), other.state_dict()
        used = [key for key in left if "teacher_norm" not in key]  # which only pretraining uses
        assert left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in used)
    if name == "bridle_mel_decoder":
        assert build(name, exported / "tokenizer").checkpoint_sha256 == file_sha256(str(folder / "bridle.pt"))


def test_codes_and_estimates_of_a_tokenizer(made, exported) -> None:
    codes, _, grid = BridleTokenizerModel.from_checkpoint(str(made[0] / "bridle.pt")).encode(WAVES)
    model = BridleTokenizerModel.from_checkpoint(str(exported / "tokenizer"))
    assert torch.equal(model.encode(WAVES)[0], codes)
    expected = BridleTokenizerModel.from_checkpoint(str(made[0] / "bridle.pt")).bridle.decode(codes, grid)
    assert torch.equal(model.bridle.decode(codes, grid), expected)


@pytest.mark.parametrize(
    ("name", "export", "part"),
    [
        ("bridle_classifier", "tokenizer", "encoder"),
        ("bridle_ctc", "classifier", "encoder"),
        ("bridle_mel_decoder", "encoder", "tokenizer"),
    ],
)
def test_an_export_without_the_part_is_refused(exported, name, export, part) -> None:
    with pytest.raises(InputError, match=f"{export}: this export holds {export}; expected one with {part}$"):
        build(name, exported / export)


def test_an_untrained_copy_of_an_export_is_that_of_its_checkpoint(made, exported, tmp_path) -> None:
    paths = [made[0] / "bridle.pt", exported / "encoder"]
    copies = [write_untrained(str(path), tmp_path / f"{number}.pt", 3) for number, path in enumerate(paths)]
    (settings, weights), (other_settings, other_weights) = map(read_bridle, copies)
    assert settings == other_settings and weights.keys() == other_weights.keys()
    assert all(torch.equal(weights[name], other_weights[name]) for name in weights)
    load_model(copies[1], overrides={"sample_rate": 16000})


@pytest.fixture
def run(tmp_path):
    """``run(name, **settings)``: the configuration of a run that starts from an export."""

    def configuration(name, **settings):
        values = {"save_dir": str(tmp_path), "restore_file": "checkpoint_last.pt", "checkpoint_suffix": ""}
        return OmegaConf.create({"checkpoint": {**values, "finetune_from_model": str(name), **settings}})

    return configuration


def test_pretraining_starts_from_an_export(made, exported, run, small, caplog) -> None:
    model = BridleModel(BridleSettings(**small))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    root = run(exported / "encoder")
    with caplog.at_level(logging.INFO):
        start_from_export(model, root)
    assert root.checkpoint.finetune_from_model is None and "initial weights: decoder, " in caplog.text
    for name, value in model.state_dict().items():
        expected = made[1].state_dict()[name] if name.startswith("encoder.") else before[name]
        assert torch.equal(value, expected), name


def test_a_run_that_goes_on_and_other_models_are_left_to_fairseq(exported, made, run, small, tmp_path) -> None:
    model = BridleModel(BridleSettings(**small))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for root in (run(made[0] / "bridle.pt"), run(exported / "all", restore_file="other.pt"), {}):
        start_from_export(model, root)
        assert not root or root.checkpoint.finetune_from_model
    (tmp_path / "checkpoint_last.pt").touch()
    start_from_export(model, run(tmp_path / "removed"))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_other_sizes_are_refused_in_one_sentence(exported, run, small) -> None:
    for changes in ({"encoder_width": 16}, {"encoder_depth": 1}):
        with pytest.raises(InputError, match="expected an export of a model with the same settings"):
            start_from_export(BridleModel(BridleSettings(**{**small, **changes})), run(exported / "all"))


def test_a_name_of_nothing_is_refused_and_one_of_own_weights_is_loaded(run, small, caplog) -> None:
    with pytest.raises(InputError, match="finetune_from_model is nothing, which does not exist; expected a checkpoint"):
        start_from_export(BridleModel(BridleSettings(**small)), run("nothing"))
    settings = pretrained.load("bridle-small-audio").settings
    root = run("bridle-small-audio")
    with caplog.at_level(logging.INFO):
        start_from_export(BridleModel(settings), root)
    assert root.checkpoint.finetune_from_model is None and "initial weights: decoder, " in caplog.text
