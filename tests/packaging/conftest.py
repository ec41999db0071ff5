"""A wheel and an sdist, built without touching the checkout."""

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def build_wheel(source, folder):
    """Path of a wheel of the checkout or unpacked sdist in ``source``."""
    commands = ["egg_info", "--egg-base", folder, "build", "--build-base", folder / "build"]
    commands += ["bdist_wheel", "--bdist-dir", folder / "wheel", "--dist-dir", folder / "dist"]
    run_setup(source, commands)
    (path,) = (folder / "dist").glob("*.whl")
    return path


def run_setup(source, commands):
    done = subprocess.run([sys.executable, "setup.py", "-q", *commands], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def wheel_path(tmp_path_factory):
    return build_wheel(ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def sdist_path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sdist")
    run_setup(ROOT, ["egg_info", "--egg-base", folder, "sdist", "--dist-dir", folder])
    (path,) = folder.glob("*.tar.gz")
    return path


@pytest.fixture(scope="session")
def wheel_of_sdist(sdist_path, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist_path) as archive:
        archive.extractall(folder, filter="data") if hasattr(tarfile, "data_filter") else archive.extractall(folder)
    (source,) = folder.iterdir()
    path = build_wheel(source, tmp_path_factory.mktemp("wheel_of_sdist"))
    shutil.rmtree(folder)
    return path
