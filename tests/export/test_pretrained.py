"""Exported models equal the trained ones, without fairseq; damaged exports are reported."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

from bridle_fairseq import pretrained
from bridle_fairseq.data.audio.decode import read_crop
from bridle_fairseq.data.audio.resample import resample_by_torch
from bridle_fairseq.nn.pooling import pool_patches
from bridle_fairseq.nn.pooling_kinds import OF_SOUND
from bridle_fairseq.utils.errors import InputError

NAMES = ["dog", "rain, heavy", "sea"]


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
    for pooling in OF_SOUND:
        expected = pool_patches(patches, patches.grid, patches.padding_mask, pooling)
        torch.testing.assert_close(loaded.embed(source, 16000, lengths, pooling=pooling), expected)


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


def break_config(**changes):
    return lambda folder: (folder / "config.json").write_text(
        json.dumps({**json.loads((folder / "config.json").read_text()), **changes})
    )


def break_settings(**changes):
    def change(folder):
        settings = json.loads((folder / "config.json").read_text())["settings"]
        break_config(settings={**settings, **changes})(folder)

    return change


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
    "other sizes": (break_settings(encoder_depth=3), "weights that do not fit config.json"),
    "other parts": (break_config(parts=["decoder"]), "parts[0] is 'decoder'; expected one of encoder, tokenizer"),
    "unhashable parts": (break_config(parts=[["encoder"]]), "parts[0] is ['encoder']; expected one of"),
    "another modality": (break_config(modality="video"), "modality is 'video'; expected audio, as in its settings"),
    "another rate": (break_config(sample_rate=8000), "sample_rate is 8000; expected 16000, as in its settings"),
    "odd hash": (break_config(checkpoint_sha256=["x"]), "checkpoint_sha256 is ['x']; expected a string"),
    "more blocks than weights": (break_settings(encoder_depth=1000), "weights for 1000 blocks"),
    "another width": (break_settings(encoder_width=32768), "[1, 1, 32768]"),
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


def test_missing_parts_are_reported(exported) -> None:
    with pytest.raises(InputError, match="holds encoder; expected one with tokenizer"):
        pretrained.load(exported / "encoder").codes(torch.zeros(400), 16000)
    with pytest.raises(InputError, match="holds tokenizer; expected one with encoder or classifier"):
        pretrained.load(exported / "tokenizer").embed(torch.zeros(400), 16000)


def test_all_layers_come_with_the_last_one(exported, sound) -> None:
    source, lengths, _ = sound
    loaded = pretrained.load(exported / "encoder")
    plain = loaded.features(source, 16000, lengths)
    found = loaded.features(source, 16000, lengths, layers="all")
    assert torch.equal(found.x, plain.x) and torch.equal(found.class_token, plain.class_token)
    assert torch.stack(found.layers).shape == (2, *plain.x.shape) and plain.layers == ()
    for number, layer in enumerate(found.layers, 1):
        assert torch.equal(layer, loaded.features(source, 16000, lengths, layer=number).x)
    (second,) = loaded.features(source, 16000, lengths, layers=[2]).layers
    assert torch.equal(second, found.layers[1])


def test_features_are_unpacked_pickled_and_placed(exported, sound) -> None:
    source, lengths, _ = sound
    features = pretrained.load(exported / "encoder").features(source, 16000, lengths, layers=[1])
    x, class_token, padding_mask, grid = features
    assert features[0] is x and features.class_token is class_token and features.padding_mask is padding_mask
    assert features.times.shape == features.bands.shape == (x.shape[1], 2) and grid == features.grid
    end = (np.diff(features.times[:, 1].unflatten(0, grid)[:, 0]) > 0).all() and features.times.max()
    assert 8840 / 16000 <= end <= 9000 / 16000
    again = pickle.loads(pickle.dumps(features))
    assert torch.equal(again.times, features.times) and torch.equal(again.layers[0], features.layers[0])
    assert torch.equal(again.x, x)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"layers": "last"}, "layers is 'last'; expected 'all', or numbers from 1 to 2"),
        ({"layers": [1, 3]}, "layers has 3; expected numbers from 1 to 2, or 'all'"),
        ({"layers": "all", "layer": 1}, "layer is 1 and layers 'all'; expected one of the two"),
        ({"frame_rate": 25.0}, "frame_rate is 25.0 with audio; expected more than 0, of video"),
    ],
)
def test_wrong_layers_and_rates_are_reported(exported, sound, options, sentence) -> None:
    with pytest.raises(InputError, match=sentence):
        pretrained.load(exported / "encoder").features(sound[0], 16000, **options)
