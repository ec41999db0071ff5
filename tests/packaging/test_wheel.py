"""What a wheel holds, and what the environment of these tests holds."""

import re
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(wheel_path):
    with zipfile.ZipFile(wheel_path) as archive:
        yield archive


def requirements(wheel):
    """Requirement -> the extra that asks for it, "" for the light install."""
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    lines = re.findall(r"^Requires-Dist: (.+)$", wheel.read(name).decode(), re.MULTILINE)
    extras = [re.search(r"extra == ['\"](\w+)['\"]", line) for line in lines]
    return [(line.split(";")[0].strip(), found[1] if found else "") for line, found in zip(lines, extras, strict=True)]


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


def test_the_wheel_holds_every_configuration_once(wheel):
    configs = {f"bridle_fairseq/{path.relative_to(ROOT)}" for path in (ROOT / "examples").glob("*/config/**/*.yaml")}
    assert len(configs) > 40 and {name for name in wheel.namelist() if name.endswith(".yaml")} == configs
    for name in configs:
        assert wheel.read(name) == (ROOT / name.removeprefix("bridle_fairseq/")).read_bytes()


def test_the_wheel_holds_the_weights(wheel):
    files = {f"bridle_fairseq/{path.relative_to(ROOT)}": path for path in (ROOT / "weights").glob("*/*")}
    assert len(files) >= 3 and {name for name in wheel.namelist() if "/weights/" in name} == set(files)
    assert all(wheel.read(name) == path.read_bytes() for name, path in files.items())


def test_the_wheel_of_the_sdist_is_the_same(wheel, wheel_of_sdist):
    with zipfile.ZipFile(wheel_of_sdist) as other:
        assert sorted(other.namelist()) == sorted(wheel.namelist())
        names = [name for name in wheel.namelist() if not name.endswith("RECORD")]
        assert [name for name in names if other.read(name) != wheel.read(name)] == []


def test_the_light_install_is_five_packages(wheel):
    light = [re.split(r"[<>=!]", line)[0] for line, extra in requirements(wheel) if not extra]
    assert sorted(light) == ["numpy", "safetensors", "soundfile", "soxr", "torch"]


def test_requirements_are_ranges_and_fairseq_is_the_stock_one(wheel):
    required = requirements(wheel)
    assert ("fairseq==0.12.2", "train") in required
    assert not [line for line, _ in required if "==" in line and not line.startswith("fairseq")]


def test_the_command_is_installed():
    (script,) = entry_points(group="console_scripts", name="bridle")
    assert script.value == "bridle_fairseq.cli.main:main"
