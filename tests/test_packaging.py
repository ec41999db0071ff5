"""What a wheel holds, and what the environment of these tests holds."""

import re
import subprocess
import sys
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel built without touching the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    commands = ["egg_info", "--egg-base", folder, "build", "--build-base", folder / "build"]
    commands += ["bdist_wheel", "--bdist-dir", folder / "wheel", "--dist-dir", folder / "dist"]
    done = subprocess.run([sys.executable, "setup.py", "-q", *commands], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = (folder / "dist").glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_the_pth_file_stands_at_the_top_of_the_wheel(wheel):
    assert wheel.read("fairseq_compat.pth").decode().strip() == "import fairseq_compat"


def test_the_wheel_holds_the_packages_and_nothing_beside_them(wheel):
    top = {name.split("/")[0] for name in wheel.namelist()}
    assert {name for name in top if not name.endswith(".dist-info")} == {
        "bridle_fairseq",
        "fairseq_compat",
        "fairseq_compat.pth",
    }
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "bridle_fairseq").rglob("*.py")}
    assert sources <= set(wheel.namelist())


def test_requirements_are_ranges_and_fairseq_is_the_stock_one(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    required = re.findall(r"^Requires-Dist: ([^;\n]+)$", wheel.read(name).decode(), re.MULTILINE)
    assert "fairseq==0.12.2" in required
    assert not [line for line in required if "==" in line and not line.startswith("fairseq")]


def test_the_command_is_installed():
    (script,) = entry_points(group="console_scripts", name="bridle")
    assert script.value == "bridle_fairseq.cli.main:main"
