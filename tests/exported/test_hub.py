"""Exports on the Hugging Face Hub, from a server on loopback: revisions, cache, no network, commands, hostile files.

huggingface_hub reads its environment when it is imported, so each environment is a fork of a process that has not done
so.
"""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch

from bridle_fairseq import pretrained
from bridle_fairseq.exported.hub import download, reason_of
from bridle_fairseq.exported.source import find_export
from bridle_fairseq.utils.errors import InputError

STEPS = """
import json, os, sys
import numpy as np
from bridle_fairseq import pretrained
from bridle_fairseq.cli import main as bridle
from bridle_fairseq.utils.errors import InputError

def load(name, revision=None):
    try:
        model = pretrained.load(name, revision=revision)
    except InputError as error:
        return print(json.dumps(str(error)))
    wave = np.sin(np.arange(8000) * 0.1, dtype=np.float32)
    print(json.dumps(model.embed(wave, 16000)[0].tolist() if "encoder" in model.parts else model.parts))

assert "huggingface_hub" not in sys.modules
for environment, calls in json.loads(sys.argv[1]):
    sys.stdout.flush()
    if os.fork() == 0:
        os.environ.update(environment)
        for call in calls:
            load(*call[1:]) if call[0] == "load" else print(json.dumps(bridle.main(call)))
        sys.stdout.flush()
        os._exit(0)
    os.wait()
"""


def run(*steps) -> list:
    """What each call of each ``(environment, calls)`` printed in its last line."""
    argv = [sys.executable, "-c", STEPS, json.dumps(steps)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith(("[", '"', "0", "2"))]


def test_names_of_the_hub(hub_server, exported, tmp_path) -> None:
    for branch, name in (("main", "all"), ("v1", "tokenizer")):
        hub_server.add("owner/name", {p.name: p.read_bytes() for p in (exported / name).iterdir()}, branch)
    files = {p.name: p.read_bytes() for p in (exported / "encoder").iterdir()}
    hub_server.add("owner/half", {**files, "model.safetensors": files["model.safetensors"][:-1]})
    hub_server.add("owner/other", {"config.json": b'{"model_type": "bert"}', "model.safetensors": b""})
    hub_server.add("owner/code", {"config.json": files["config.json"], "pytorch_model.bin": b"a pickle"})
    soundfile.write(tmp_path / "a.wav", np.zeros(8000), 16000)
    sha, _ = hub_server.commit_of("owner/name", "v1")
    online = hub_server.environment(tmp_path / "home")
    gone = {**online, "HF_ENDPOINT": "http://127.0.0.1:9"}  # nobody listens there
    offline = {**gone, "HF_HUB_OFFLINE": "1"}
    embed = ["embed", str(tmp_path / "a.wav"), "--model", "owner/name", "--out", str(tmp_path / "out.npy")]
    tokenize = ["tokenize", "owner/name", str(exported / "train.tsv"), "--out", str(tmp_path / "codes")]
    refused = [["load", f"owner/{name}"] for name in ("none", "half", "other", "code")]
    found = run(
        (online, [["load", "owner/name"], ["load", "owner/name", "v1"], ["load", "owner/name", "v2"], *refused]),
        (gone, [["load", "owner/name", sha], ["load", "owner/none"]]),
        (offline, [["load", "owner/name"], ["load", "owner/name@v1"], ["load", "owner/name", "v2"], embed, tokenize]),
    )
    wave = np.sin(np.arange(8000) * 0.1, dtype=np.float32)
    vector, tokenizer = pretrained.load(exported / "all").embed(wave, 16000)[0].tolist(), ["tokenizer"]
    for said, expected in zip(
        found,
        (
            vector,
            tokenizer,
            "owner/name@v2: no such path, and not to be had from the Hugging Face Hub (no such revision); expected a",
            "no such model there, or a private one of others: hf auth login",
            "model.safetensors: damaged, no safetensors file",
            "config.json: not of this format; expected one that bridle export wrote",
            "owner/code: a model of the Hugging Face Hub without model.safetensors",
            tokenizer,
            "Connection refused",
            vector,
            tokenizer,
            "outgoing traffic has been disabled",
            0,
            0,
        ),
        strict=True,
    ):
        assert said == expected or isinstance(said, str) and expected in said and "\n" not in said, said
    assert np.load(tmp_path / "out.npy").shape == (1, 32)
    assert not [path for _, path in hub_server.asked if path.endswith((".bin", ".md"))]


@pytest.mark.parametrize(
    ("name", "revision"), [("bridle-small-audio", "v1"), ("{folder}", "v1"), ("owner/name@v1", "v2"), ("a.pt", "v1")]
)
def test_a_revision_is_of_a_name_of_the_hub(exported, name, revision) -> None:
    name = name.format(folder=exported / "all")
    with pytest.raises(InputError, match=f"revision is '{revision}'; expected it with owner/name of the Hub"):
        pretrained.load(name, revision=revision)


def test_without_huggingface_hub_the_sentence_names_the_extra(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    download.cache_clear()
    with pytest.raises(InputError) as error:
        find_export("owner/name")
    assert str(error.value).startswith("owner/name: no such path, and a name on the Hub needs huggingface_hub (")
    assert str(error.value).endswith("; install it: pip install 'bridle_fairseq[hub]'")


def test_an_error_without_words_is_named() -> None:
    assert reason_of(TimeoutError()) == "TimeoutError"


def test_fine_tuning_reads_the_same_settings_and_weights(exported, monkeypatch) -> None:
    """``model.checkpoint=owner/name``."""
    import huggingface_hub

    from bridle_fairseq.models.checkpoints import read_bridle

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(exported / "encoder"))
    download.cache_clear()
    (settings, weights), (other, expected) = (read_bridle(name) for name in ("owner/name", str(exported / "encoder")))
    assert settings == other and all(torch.equal(weights[name], value) for name, value in expected.items())
    download.cache_clear()
