"""``bridle export`` writes a whole export or none; unusable arguments are reported."""

from __future__ import annotations

import os

import pytest
import torch
from safetensors.torch import load_file

from bridle_fairseq import pretrained
from bridle_fairseq.cli import main as bridle
from bridle_fairseq.exported.source import model_sha256
from bridle_fairseq.utils.files import file_sha256


def test_model_card_has_the_known_facts_and_no_path(exported, made, tmp_path) -> None:
    bridle.main(["export", str(made[0] / "bridle.pt"), str(tmp_path / "out"), "--license", "cc-by-4.0"])
    card = (tmp_path / "out/README.md").read_text()
    for text in (
        "license: cc-by-4.0",
        "1 clips",
        "| updates | 3 |",
        "3 of 4 updates",
        "| valid loss | 2.5 |",
        "3 x 16",
    ):
        assert text in card
    for name in ("README.md", "config.json"):
        assert str(made[0].parent) not in (tmp_path / "out" / name).read_text()
    assert "not stated" in (exported / "all/README.md").read_text()
    assert "rain, heavy" in (exported / "classifier/README.md").read_text()


def test_model_card_has_the_text_of_about(made, tmp_path, capsys) -> None:
    about = tmp_path / "about.md"
    about.write_text("**Good for** whales.\n", encoding="utf-8")
    command = ["export", str(made[0] / "bridle.pt"), str(tmp_path / "out"), "--about", str(about)]
    assert bridle.main(command) == 0
    card = (tmp_path / "out/README.md").read_text()
    assert card.index("arXiv 2502.02118") < card.index("\n\n**Good for** whales.\n\n## Use") < card.index("## Model")
    capsys.readouterr()
    about.write_bytes(b"**Gut f\xfcr** Wale")
    assert bridle.main(command) == 2
    assert "about.md, line 1" in capsys.readouterr().err
    assert (tmp_path / "out/README.md").read_text() == card


def test_export_replaces_only_another_export(made, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    checkpoint = str(made[0] / "bridle.pt")
    out.mkdir()
    assert bridle.main(["export", checkpoint, str(out), "--part", "encoder"]) == 0
    assert bridle.main(["export", checkpoint, str(out), "--part", "tokenizer"]) == 0
    assert pretrained.load(out).parts == ["tokenizer"]
    (out / "thesis.txt").write_text("mine")
    before = sorted((path.name, path.stat().st_mtime_ns) for path in out.iterdir())
    assert bridle.main(["export", checkpoint, str(out)]) == 2
    assert "thesis.txt" in capsys.readouterr().err
    assert sorted((path.name, path.stat().st_mtime_ns) for path in out.iterdir()) == before
    assert os.listdir(tmp_path) == ["out"]  # nothing half-written is left


def test_failed_export_leaves_no_file(made, tmp_path, monkeypatch) -> None:
    from bridle_fairseq.export import write as export
    from bridle_fairseq.models.checkpoints import read_checkpoint

    monkeypatch.setattr(export, "model_card", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export.write_export(read_checkpoint(str(made[0] / "bridle.pt")), tmp_path / "out")
    assert os.listdir(tmp_path) == []


def test_interrupted_replacement_leaves_the_earlier_export(tmp_path, monkeypatch) -> None:
    """Ctrl-C after the earlier export was moved away, and before the new one is in its place."""
    from bridle_fairseq.export.write import replace_folder

    new, folder = tmp_path / "new", tmp_path / "out"
    for path in (new, folder):
        path.mkdir()
        (path / "text").write_text(path.name)
    replace, calls = os.replace, []

    def interrupted(source, target) -> None:
        calls.append(target)
        if len(calls) == 2:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        replace_folder(new, folder)
    assert (folder / "text").read_text() == "out"
    assert sorted(os.listdir(tmp_path)) == ["new", "out"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["none.pt", "out"], "none.pt: no such checkpoint"),
        (["junk.pt", "out"], "junk.pt: not a checkpoint that fairseq can load"),
        (["half-written.pt", "out"], "half-written.pt: not a checkpoint that fairseq can load"),
        (["unfit.pt", "out"], "unfit.pt: its weights do not fit its settings"),
        (["bridle.pt", "junk.pt"], "junk.pt is a file"),
        (
            ["classifier.pt", "out", "--part", "encoder"],
            "--part encoder with a checkpoint of the model 'bridle_classifier'",
        ),
        (["bridle.pt", "out", "--part", "tokenizer", "--onnx"], "--onnx with --part tokenizer"),
    ],
)
def test_wrong_arguments_are_reported_in_one_sentence(made, tmp_path, capsys, arguments, sentence) -> None:
    for name in ("bridle.pt", "classifier.pt"):
        os.symlink(made[0] / name, tmp_path / name)
    (tmp_path / "junk.pt").write_bytes(b"junk" * 99)
    whole = (made[0] / "bridle.pt").read_bytes()
    (tmp_path / "half-written.pt").write_bytes(whole[: len(whole) // 2])
    state = torch.load(made[0] / "bridle.pt", weights_only=False)
    state["cfg"]["model"]["encoder_width"] = 64
    torch.save(state, tmp_path / "unfit.pt")
    checkpoint, out, *options = arguments
    assert bridle.main(["export", str(tmp_path / checkpoint), str(tmp_path / out), *options]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("bridle: error: ") and sentence in error and ". " not in error
    assert not (tmp_path / "out").exists()


def test_float16_rounds_the_matrices_alone(made, exported, sound, tmp_path, capsys) -> None:
    """Half the file; the model computes in float32 with rounded weights, and has an identity of its own."""
    checkpoint, out = str(made[0] / "bridle.pt"), tmp_path / "out"
    assert bridle.main(["export", checkpoint, str(out), "--dtype", "float16"]) == 0
    stored, full = load_file(out / "model.safetensors"), load_file(exported / "all" / "model.safetensors")
    for name, value in full.items():
        rounded = value.dim() > 1 and value.is_floating_point() and not name.startswith("quantizer.")
        assert torch.equal(stored[name], value.half() if rounded else value), name
    small, large = pretrained.load(out), pretrained.load(exported / "all")
    assert {p.dtype for p in small.module.parameters()} == {torch.float32}
    for name, value in small.module.state_dict().items():
        assert torch.equal(value, stored[name].to(value.dtype)), name
    found, expected = (model.embed(sound[0], 16000) for model in (small, large))
    torch.testing.assert_close(found, expected, rtol=0.01, atol=0.01)
    assert not torch.equal(found, expected)
    assert model_sha256(str(exported / "all")) == file_sha256(checkpoint)
    assert model_sha256(str(out)) == file_sha256(str(out / "model.safetensors"))
    assert file_sha256(checkpoint) in (out / "README.md").read_text()
    assert "rounded to float16" in (out / "README.md").read_text()


def test_weights_beyond_float16_are_refused(made, tmp_path, capsys) -> None:
    content = torch.load(made[0] / "bridle.pt", weights_only=False)
    content["model"]["encoder.patch_embed.weight"][0, 0] = 7e4
    torch.save(content, tmp_path / "large.pt")
    assert bridle.main(["export", str(tmp_path / "large.pt"), str(tmp_path / "out"), "--dtype", "float16"]) == 2
    assert "encoder.patch_embed.weight has values above 65504" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
