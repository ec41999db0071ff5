"""Exported models equal the trained ones, without fairseq; damaged and unusable files are reported."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

import bridle_fairseq
from bridle_fairseq import pretrained
from bridle_fairseq.cli import main as bridle
from bridle_fairseq.data.audio.decode import read_crop
from bridle_fairseq.data.audio.resample import resample_by_torch
from bridle_fairseq.data.manifests.manifest import Manifest
from bridle_fairseq.nn.classifier import Classifier, pool_patches
from bridle_fairseq.nn.settings import BridleSettings
from bridle_fairseq.utils.errors import InputError

SIZES = dict(encoder_width=32, encoder_depth=2, encoder_heads=2, decoder_width=32, decoder_depth=1, decoder_heads=2)
SIZES |= dict(tokenizer_depth=1, estimator_depth=1, codebook_dim=8, codebook_size=16, num_codebooks=3, fbank_mean=-5.0)
SIZES |= {"stages": [{"kind": "tokenizer", "updates": 4}], "num_mel_bins": 64, "patch_size": [8, 16]}
NAMES = ["dog", "rain, heavy", "sea"]


def write_state(path: Path, model: dict, task: dict, weights: dict, **more) -> None:
    from fairseq.dataclass.configs import CommonConfig
    from omegaconf import OmegaConf

    common = OmegaConf.to_container(OmegaConf.structured(CommonConfig), enum_to_str=True)
    history = [{"optimizer_name": "", "lr_scheduler_state": {}, "num_updates": 3}]
    meters = {"valid": [(10, "loss", "AverageMeter", {"val": 1.0, "sum": 25.0, "count": 10, "round": 4})]}
    extra = {"metrics": meters, "previous_training_time": 7200.0}
    state = {
        "cfg": {"model": model, "task": task, "common": common, "dataset": {"train_subset": "train"}},
        "args": None,
    }
    torch.save({**state, "extra_state": extra, "optimizer_history": history, "model": weights, **more}, path)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Folder with a checkpoint of each model, and the models: (folder, bridle, classifier)."""
    bridle_fairseq.register()
    from bridle_fairseq.models.bridle import BridleModel
    from bridle_fairseq.tasks.stages import begin_update

    folder = tmp_path_factory.mktemp("made")
    torch.manual_seed(0)
    model = BridleModel(BridleSettings(**SIZES)).train()
    begin_update(model, 0)
    model(torch.randn(4, 16000).cumsum(1).sin() * 0.3)
    model.commit()
    soundfile.write(folder / "a.wav", np.zeros(800), 16000)
    Manifest(str(folder), ["a.wav"], [800]).write(folder / "train.tsv")
    task = {
        "_name": "bridle_pretraining",
        "data": str(folder),
        "sample_rate": 16000,
        "max_sample_size": 8000,
        "seed": 1,
    }
    settings = dataclasses.asdict(model.settings)
    write_state(folder / "bridle.pt", {"_name": "bridle", **settings}, task, model.state_dict())
    half = {name: value.half() if name.startswith("encoder.") else value for name, value in model.state_dict().items()}
    write_state(folder / "half.pt", {"_name": "bridle", **settings, "precision": "bfloat16"}, task, half)
    classifier = Classifier(model.settings, 3, "frequency").eval()
    config = {"_name": "bridle_classifier", "settings": settings, "pooling": "frequency"}
    classes = {"classes": {"ids": ["/m/1", "/m/2", "/m/3"], "names": NAMES}}
    task |= {"_name": "bridle_classification", "multi_label": False}
    write_state(folder / "classifier.pt", config, task, classifier.state_dict(), task_state=classes)
    return folder, model.eval(), classifier


@pytest.fixture(scope="module")
def exported(made):
    """Folders of exports by name; none may be changed."""
    folder = made[0]
    for name, options in (("all", []), ("encoder", ["--part", "encoder"]), ("tokenizer", ["--part", "tokenizer"])):
        assert bridle.main(["export", str(folder / "bridle.pt"), str(folder / name), *options]) == 0
    assert bridle.main(["export", str(folder / "half.pt"), str(folder / "half")]) == 0
    assert bridle.main(["export", str(folder / "classifier.pt"), str(folder / "classifier")]) == 0
    return folder


@pytest.fixture(scope="module")
def sound():
    """A batch of two clips, the second one shorter: B x S, lengths, padding mask."""
    source = torch.randn(2, 9000, generator=torch.Generator().manual_seed(1)).cumsum(1).sin() * 0.3
    return source, [9000, 5000], torch.arange(9000) >= torch.tensor([9000, 5000])[:, None]


def test_features_and_codes_equal_those_of_the_trained_model(made, exported, sound) -> None:
    model, (source, lengths, mask) = made[1], sound
    loaded = pretrained.load(exported / "all")
    for layer in (None, 1, 2):
        expected = model.extract_features(source, mask, layer)
        found = loaded.features(source, 16000, lengths, layer)
        valid = ~expected["padding_mask"]
        torch.testing.assert_close(found.x[valid], expected["x"][valid], rtol=0, atol=1e-6)
        assert torch.equal(found.padding_mask, expected["padding_mask"]) and found.grid == expected["grid"]
    codes, padding, grid = model.tokenize(source, mask)
    found = loaded.codes(source, 16000, lengths)
    assert torch.equal(found.codes[~padding], codes[~padding]) and found.grid == grid
    assert torch.equal(pretrained.load(exported / "tokenizer").codes(source, 16000, lengths).codes, found.codes)
    mean = pretrained.load(exported / "encoder").embed(source, 16000, lengths)
    x, valid = model.extract_features(source, mask)["x"], ~padding
    torch.testing.assert_close(mean, torch.stack([row[keep].mean(0) for row, keep in zip(x, valid, strict=True)]))


def test_classifier_has_its_logits_and_class_names(made, exported, sound) -> None:
    source, lengths, mask = sound
    loaded, logits = pretrained.load(exported / "classifier"), made[2](source, mask).detach()
    torch.testing.assert_close(loaded.logits(source, 16000, lengths), logits, rtol=0, atol=1e-6)
    best = loaded.classify(source, 16000, lengths, top=2)
    assert [[name for name, _ in row] for row in best] == [
        [NAMES[i] for i in row] for row in logits.topk(2).indices.tolist()
    ]
    assert sum(p for _, p in loaded.classify(source, 16000, lengths, top=9)[0]) == pytest.approx(1)
    patches = loaded.features(source, 16000, lengths)
    expected = pool_patches(patches, patches.grid, patches.padding_mask, "frequency")
    torch.testing.assert_close(loaded.embed(source, 16000, lengths, pooling="frequency"), expected)


def test_half_precision_weights_become_float32(made, exported, sound) -> None:
    loaded = pretrained.load(exported / "half")
    assert {p.dtype for p in loaded.module.parameters()} == {torch.float32}
    assert loaded.settings.precision == "float32"
    assert "| precision | float32; training with bfloat16" in (exported / "half/README.md").read_text()
    expected = pretrained.load(exported / "all").embed(sound[0], 16000)
    torch.testing.assert_close(loaded.embed(sound[0], 16000), expected, rtol=0.01, atol=0.01)


def test_sound_is_resampled_as_in_training(exported, tmp_path) -> None:
    wave = (np.sin(np.arange(7001) * 0.2) * 0.4).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", wave, 22050, subtype="FLOAT")
    loaded = pretrained.load(exported / "encoder")
    expected = loaded.embed(read_crop(str(tmp_path / "a.wav"), 16000), 16000)
    assert torch.equal(loaded.embed(wave, 22050), expected)
    both = loaded.embed([wave, wave[:4000]], 22050)  # clips of any lengths
    torch.testing.assert_close(both[:1], expected, rtol=0, atol=1e-6)
    padded = loaded.embed(np.stack([wave, np.pad(wave[:4000], (0, 3001), constant_values=9)]), 22050, [7001, 4000])
    assert torch.equal(padded, both)


LONELY = """
import sys
for name in ("fcntl", "resource", "termios", "pwd", "grp"):
    sys.modules[name] = None  # Windows has none of these
BLOCKED = {"fairseq", "hydra", "omegaconf", "fairseq_compat", "soundfile", "soxr", "sklearn", "tensorboardX", "tqdm"}
BLOCKED |= {"torchaudio", "matplotlib", "scipy", "onnx", "onnxruntime", "onnxscript", "google", "yaml", "antlr4"}
class Wall:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ImportError(f"{name} is not here")
for name in [n for n in sys.modules if n.split(".")[0] in BLOCKED]:
    del sys.modules[name]  # the environment's own start may have brought them in
sys.meta_path.insert(0, Wall())
import torch
torch.set_num_threads(1)
from bridle_fairseq import pretrained
source, lengths = torch.load(sys.argv[2])
model = pretrained.load(sys.argv[1])
found = {"embed": model.embed(source, 16000, lengths), "codes": model.codes(source, 16000, lengths).codes}
found["resampled"] = model.embed(source, 8000, lengths)
assert not {"torch._dynamo", "sympy"} & set(sys.modules)  # take seconds to import
assert not BLOCKED & {name.split(".")[0] for name in sys.modules}, sorted(sys.modules)
torch.save(found, sys.argv[3])
"""


def test_loading_imports_only_torch_numpy_and_safetensors(exported, sound, tmp_path) -> None:
    torch.save(sound[:2], tmp_path / "in.pt")
    command = [sys.executable, "-c", LONELY, str(exported / "all"), str(tmp_path / "in.pt"), str(tmp_path / "out.pt")]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    found, here = torch.load(tmp_path / "out.pt"), pretrained.load(exported / "all")
    torch.testing.assert_close(found["embed"], here.embed(sound[0], 16000, sound[1]), rtol=0, atol=1e-6)
    assert torch.equal(found["codes"], here.codes(sound[0], 16000, sound[1]).codes)
    clips = [resample_by_torch(clip[:length], 8000, 16000) for clip, length in zip(*sound[:2], strict=True)]
    torch.testing.assert_close(found["resampled"], here.embed(clips, 16000), rtol=0, atol=1e-6)


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


def break_config(**changes):
    return lambda folder: (folder / "config.json").write_text(
        json.dumps({**json.loads((folder / "config.json").read_text()), **changes})
    )


def retype(path):
    """One weight in float64: it would be loaded, and fail in the first matrix product."""
    weights = load_file(path)
    weights["encoder.norm.weight"] = weights["encoder.norm.weight"].double()
    save_file(weights, path)


DAMAGE = {
    "no folder": (lambda folder: [path.unlink() for path in folder.iterdir()] + [folder.rmdir()], "no such folder"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "configuration of an export: No such file"),
    "no json": (lambda folder: (folder / "config.json").write_text("{"), "config.json: cannot read this configuration"),
    "another file": (lambda folder: (folder / "config.json").write_text("[1]"), "not of this format"),
    "another version": (break_config(format_version=99), "version 99; expected 1"),
    "unknown setting": (break_config(settings={"depth": 3}), "unknown settings depth"),
    "wrong setting": (break_config(settings={"mask_ratio": 3}), "settings that cannot work"),
    "wrong kind of setting": (break_config(settings={"encoder_width": "a"}), "settings that cannot work"),
    "other sizes": (break_config(settings={**SIZES, "encoder_depth": 3}), "weights that do not fit config.json"),
    "other parts": (break_config(parts=["decoder"]), "parts[0] is 'decoder'; expected one of encoder, tokenizer"),
    "unhashable parts": (break_config(parts=[["encoder"]]), "parts[0] is ['encoder']; expected one of"),
    "another modality": (break_config(modality="video"), "modality is 'video'; expected audio, as in its settings"),
    "another rate": (break_config(sample_rate=8000), "sample_rate is 8000; expected 16000, as in its settings"),
    "odd hash": (break_config(checkpoint_sha256=["x"]), "checkpoint_sha256 is ['x']; expected a string"),
    "more blocks than weights": (break_config(settings={**SIZES, "encoder_depth": 1000}), "weights for 1000 blocks"),
    "another width": (break_config(settings={**SIZES, "encoder_width": 32768}), "[1, 1, 32768]"),
    "another type of weights": (lambda folder: retype(folder / "model.safetensors"), "is F64 [32]; expected F32 [32]"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors: No such file"),
    "half the weights": (lambda folder: os.truncate(folder / "model.safetensors", 3000), "damaged, no safetensors"),
    "a pickle": (lambda folder: torch.save({}, folder / "model.safetensors"), "damaged, no safetensors"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_exports_are_reported(exported, tmp_path, name) -> None:
    import shutil

    shutil.copytree(exported / "encoder", tmp_path / "copy")
    damage, sentence = DAMAGE[name]
    damage(tmp_path / "copy")
    with pytest.raises(InputError) as error:
        pretrained.load(tmp_path / "copy")
    assert sentence in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([torch.zeros(2, 3, 400), 16000], "2 axes of torch.float32; expected one axis"),
        ([torch.zeros(400, dtype=torch.int16), 16000], "torch.int16"),
        (
            [torch.zeros(16000, 2), 16000],
            "shape is 16000 x 2, clips of less than a frame of 400 samples",
        ),
        ([np.zeros((3, 399)), 16000], "pass x.mean(1) for mono, or x.T for a clip of each"),
        ([torch.zeros(2, 199), 8000], "less than a frame of 200 samples"),
        ([torch.full((400,), torch.nan), 16000], "waveform 0: sample 0 is nan"),
        ([[], 16000], "no waveforms"),
        ([torch.zeros(0), 16000], "no samples"),
        ([torch.zeros(1, 400), 0], "sample_rate is 0"),
        ([torch.zeros(1, 400), 16000, [401]], "lengths[0] is 401; expected 1 to its 400 samples"),
        ([torch.zeros(2, 400), 16000, [400]], "1 lengths of 2 waveforms"),
        ([torch.zeros(400), 16000, None, 3], "layer is 3; expected 1 to 2"),
        ([torch.zeros(400), 16000, None, None, "max"], "pooling is 'max'"),
        ([torch.zeros(400), 16000, None, 1, "class_token"], "expected layer None"),
    ],
)
def test_wrong_inputs_are_reported(exported, arguments, sentence) -> None:
    with pytest.raises(InputError) as error:
        pretrained.load(exported / "encoder").embed(*arguments)
    assert sentence in str(error.value)


def test_missing_parts_are_reported(exported) -> None:
    with pytest.raises(InputError, match="holds encoder; expected one with tokenizer"):
        pretrained.load(exported / "encoder").codes(torch.zeros(400), 16000)
    with pytest.raises(InputError, match="holds tokenizer; expected one with encoder or classifier"):
        pretrained.load(exported / "tokenizer").embed(torch.zeros(400), 16000)


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


def test_onnx_graph_gives_the_same_features(made, tmp_path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    out = tmp_path / "out"
    assert bridle.main(["export", str(made[0] / "bridle.pt"), str(out), "--part", "encoder", "--onnx"]) == 0
    session = onnxruntime.InferenceSession(str(out / "encoder.onnx"), providers=["CPUExecutionProvider"])
    model = pretrained.load(out)
    for clips, samples in ((1, 200), (3, 8000), (2, 70001)):
        source = torch.randn(clips, samples, generator=torch.Generator().manual_seed(3)).cumsum(1).sin() * 0.3
        lengths = [samples, samples // 2, samples // 3][:clips]
        mask = torch.arange(samples) >= torch.tensor(lengths)[:, None]
        found = session.run(None, {"waveform": source.numpy(), "padding_mask": mask.numpy()})
        features, token, padding = map(torch.from_numpy, found)
        expected = model.features(source, 16000, lengths)
        valid = ~padding
        assert torch.equal(padding, torch.zeros_like(padding) if clips == 1 else expected.padding_mask)
        torch.testing.assert_close(features[valid], expected.x[valid], rtol=0, atol=1e-3)
        torch.testing.assert_close(token, expected.class_token, rtol=0, atol=1e-3)
    assert "encoder.onnx" in (out / "README.md").read_text()


def test_torch_export_graph_of_a_loaded_model(made, exported, sound, tmp_path) -> None:
    loaded = pretrained.load(exported / "classifier")  # an encoder stands in it too
    torch.export.save(loaded.program(), tmp_path / "graph.pt2")
    found = torch.export.load(tmp_path / "graph.pt2").module()(sound[0], sound[2])
    expected = loaded.features(sound[0], 16000, sound[1])
    torch.testing.assert_close(found[0][~found[2]], expected.x[~expected.padding_mask], rtol=0, atol=1e-5)
    with pytest.raises(InputError, match="holds tokenizer; expected one with encoder"):
        pretrained.load(exported / "tokenizer").program()
