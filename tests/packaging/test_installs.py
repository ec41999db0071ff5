"""The wheel and the sdist in fresh environments: pip and the light install, uv and training, beside hydra-core 1.3.

They are skipped without a package index. The packages are those of the environment of these tests, which uv has in its
cache; torch may come from a folder in PIP_FIND_LINKS.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import soundfile

from bridle_fairseq import pretrained

ROOT = Path(__file__).resolve().parents[2]
UNREACHABLE = ("dns error", "error sending request", "Failed to fetch", "Could not connect", "tcp connect")
LOCKED = re.compile(r"^([a-z][^ =]*==[^ ]+)( ; .*?)? \\$", re.MULTILINE)
STAGES = "model.stages=[{kind:encoder,updates:12,warmup_updates:2},{kind:tokenizer,updates:4,warmup_updates:2}]"


class Environment:
    """A virtual environment in a folder."""

    def __init__(self, folder):
        self.folder = folder
        uv("venv", "--python", sys.executable, folder)

    def install(self, *packages):
        """Install with uv, in the locked versions."""
        torch = f"torch=={version('torch')}"
        locked = (ROOT / "requirements.lock").read_text()
        lines = ["".join(line) for line in LOCKED.findall(locked) if not line[0].startswith("torch==")]
        (self.folder / "constraints.txt").write_text("\n".join([*lines, torch]))
        folders = [folder for folder in os.environ.get("PIP_FIND_LINKS", "").split() if os.path.exists(folder)]
        links = [text for folder in folders for text in ("--find-links", folder)]
        options = ["--constraint", self.folder / "constraints.txt", "--build-constraint", ROOT / "requirements.lock"]
        uv("pip", "install", "--python", self.folder / "bin" / "python", *links, *options, *packages)
        self._link_bytecode()

    def _link_bytecode(self):
        """Link what Python has compiled for these tests: torch and fairseq would take half a minute to compile again.

        uv links the source files of both environments to its cache. Python ignores the bytecode of other files.
        """
        ours, (theirs,) = Path(np.__file__).parents[1], self.folder.glob("lib/python*/site-packages")
        for compiled in ours.rglob("__pycache__/*.pyc"):
            link = theirs / compiled.relative_to(ours)
            if link.parents[1].is_dir() and not link.exists():
                link.parent.mkdir(exist_ok=True)
                with contextlib.suppress(OSError):  # on another file system
                    os.link(compiled, link)

    def command(self, name, *arguments):
        return [str(self.folder / "bin" / name), *map(str, arguments)]

    def run(self, name, *arguments, cwd=None):
        return run(self.command(name, *arguments), cwd or self.folder)


def outside():
    """The environment variables of a shell that knows nothing of the checkout."""
    hidden = ("PYTHONPATH", "VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE")  # torch is compiled once, not in each process
    return {name: value for name, value in os.environ.items() if name not in hidden} | {"CUDA_VISIBLE_DEVICES": ""}


def run(command, cwd):
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=outside(), timeout=300)


def uv(*arguments):
    done = run([sys.executable, "-m", "uv", *map(str, arguments)], ROOT)
    if done.returncode and any(text in done.stderr for text in UNREACHABLE):
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def light(tmp_path_factory, wheel_path):
    """The light install by pip, in its newest version."""
    environment = Environment(tmp_path_factory.mktemp("light"))
    environment.install("torch", "numpy", "safetensors", "soundfile", "soxr", "pip")  # uv has them in its cache
    done = environment.run("pip", "install", "--quiet", wheel_path)
    assert done.returncode == 0, done.stderr
    return environment


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sounds")
    random = np.random.default_rng(0)
    for number in range(12):
        soundfile.write(folder / f"{number:02d}.wav", 0.1 * random.standard_normal(16000), 16000)
    return folder


@pytest.fixture(scope="module")
def manifests(light, sounds):
    """The folder of manifests that the installed command writes."""
    done = light.run("bridle", "manifest", sounds, "--dest", "data")
    assert done.returncode == 0, done.stderr
    return light.folder / "data"


def test_pip_installs_the_wheel_and_nothing_is_missing(light):
    assert light.run("pip", "check").returncode == 0
    installed = light.run("pip", "list", "--format", "freeze").stdout
    assert "bridle_fairseq==" in installed
    assert not re.search(r"^(fairseq|hydra-core|omegaconf|scikit-learn|tqdm|pillow)==", installed, re.MULTILINE | re.I)


def test_two_lines_of_python_give_embeddings(light, exported, sounds):
    models = [str(exported / "encoder"), "bridle-small-audio"]  # an export, and weights that the wheel holds
    code = f"""
import numpy, soundfile
from bridle_fairseq import pretrained
samples, rate = soundfile.read({str(sounds / "00.wav")!r})
numpy.savez("x.npz", *[pretrained.load(name).embed([samples], rate).numpy() for name in {models!r}])
"""
    done = light.run("python", "-c", code)
    assert done.returncode == 0, done.stderr
    samples, rate = soundfile.read(sounds / "00.wav")
    for found, name in zip(np.load(light.folder / "x.npz").values(), models, strict=True):
        np.testing.assert_array_equal(found, pretrained.load(name).embed([samples], rate).numpy())


def test_commands_of_the_light_install(light, exported, sounds, manifests, tmp_path):
    for command in (f"embed {sounds} --model {exported}/encoder --out {tmp_path}/x.npy", "--version"):
        done = light.run("bridle", *command.split())
        assert done.returncode == 0, (command, done.stderr)
    assert np.load(tmp_path / "x.npy").shape[0] == 12
    commands = (  # in one process, which imports torch once
        f"features {exported}/encoder {manifests}/train.tsv --out {tmp_path}/features",
        f"tokenize {exported}/all {manifests}/train.tsv --out {tmp_path}/codes",
        f"predict {exported}/classifier {sounds}/01.wav",
    )
    code = "import sys; from bridle_fairseq.cli.main import main; sys.exit(max(main(c.split()) for c in sys.argv[1:]))"
    done = light.run("python", "-c", code, *commands)
    assert done.returncode == 0, done.stderr
    assert light.run("python", "-m", "bridle_fairseq").stdout.startswith("usage: bridle ")


def test_what_the_light_install_lacks_is_one_sentence(light, made, sounds, tmp_path):
    for command, extra in (
        (f"train audio/tiny {sounds} --run {tmp_path}/run", "train"),
        (f"features {made[0]}/bridle.pt {made[0]}/train.tsv --out {tmp_path}/f", "train"),
        (f"demo --dir {tmp_path}/demo", "train"),
        ("completion bash", "completion"),
    ):
        done = light.run("bridle", *command.split())
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
        assert f"'bridle_fairseq[{extra}]'" in done.stderr


def test_hydra_of_today_is_left_alone(wheel_path, tmp_path_factory):
    """In the environment of another project: ``import hydra``, its pytest plugin, and nothing patched."""
    environment = Environment(tmp_path_factory.mktemp("hydra"))
    environment.install("pytest")
    uv("pip", "install", "--python", environment.folder / "bin" / "python", "hydra-core==1.3.2", "omegaconf==2.3.0")
    uv("pip", "install", "--python", environment.folder / "bin" / "python", "--no-deps", wheel_path)
    code = (
        "import dataclasses, hydra, omegaconf, sys; print(hydra.__version__, omegaconf.__version__, "
        "dataclasses.dataclass.__module__, 'fairseq_compat' in sys.modules, 'fairseq_compat.patches' in sys.modules)"
    )
    assert environment.run("python", "-c", code).stdout.split() == ["1.3.2", "2.3.0", "dataclasses", "True", "False"]
    (environment.folder / "test_x.py").write_text("def test_x(hydra_restore_singletons):\n    assert True\n")
    done = environment.run("python", "-m", "pytest", "-q", "test_x.py")
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout


def test_training_from_the_sdist_is_killed_and_goes_on(light, sdist_path, manifests):
    """``uv pip install 'bridle_fairseq[train]'`` over the light install, then pretraining without a checkout."""
    light.install(f"bridle_fairseq[train] @ {sdist_path.as_uri()}")
    folder = light.folder
    settings = [STAGES, "dataset.batch_size=4", "task.max_sample_size=16000", "dataset.num_workers=0"]
    settings += ["common.log_interval=1", "checkpoint.save_interval_updates=4"]
    command = light.command("bridle", "train", "audio/tiny", manifests, "--run", "run", *settings)
    with open(folder / "first.err", "w") as stderr:
        first = subprocess.Popen(command, cwd=folder, env=outside(), stdout=subprocess.DEVNULL, stderr=stderr)
        last, deadline = folder / "run" / "checkpoint_last.pt", time.monotonic() + 120
        while not last.exists() and first.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        first.send_signal(signal.SIGKILL)
        first.wait()
    assert last.exists(), (folder / "first.err").read_text()
    done = run(command, folder)
    assert done.returncode == 0, done.stderr
    assert f"site-packages{os.sep}bridle_fairseq" in done.stdout and "run/checkpoint_last.pt: 16 updates" in done.stdout
    log = (folder / "run" / "train.log").read_text()
    assert "Loaded checkpoint" in log and "16/16" in done.stderr
