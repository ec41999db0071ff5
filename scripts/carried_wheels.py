"""Creates an environment from a folder of wheels, on top of this Python's packages; scripts/gpu_check.sh runs it.

    python3 scripts/carried_wheels.py WHEELS ENVIRONMENT

Needs neither the internet nor pip, which rejects omegaconf 2.0.6 from 24.1 on. This Python may be that of an
environment itself: its packages (torch, say) are visible in the new one, which venv's --system-site-packages does not
do. The checkout is installed as by ``pip install -e .``: the commands are beside the new Python.
"""

from __future__ import annotations

import configparser
import shutil
import site
import sys
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OURS = "[console_scripts]\nbridle = bridle_fairseq.cli.main:main\n"


def write_commands(text: str, folder: Path, python: Path) -> None:
    """Write the console scripts of an ``entry_points.txt``."""
    points = configparser.ConfigParser(delimiters=("=",))
    points.optionxform = str  # type: ignore[assignment,method-assign]
    points.read_string(text)
    for name, target in points["console_scripts"].items() if "console_scripts" in points else ():
        module, function = target.split(":")
        command = folder / name
        command.write_text(f"#!{python}\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n")
        command.chmod(0o755)


def main() -> None:
    """Create the environment."""
    wheels, folder = sorted(Path(sys.argv[1]).glob("*.whl")), Path(sys.argv[2]).absolute()
    if not wheels:
        sys.exit(f"{sys.argv[1]}: no wheels; expected those of scripts/gpu_check.sh --prepare")
    version = f"{sys.version_info[0]}{sys.version_info[1]}"
    for wheel in wheels:
        tag = wheel.name.split("-")[-3]
        if tag.startswith("cp") and version not in tag:
            sys.exit(f"{wheel.name} is for another Python; this is Python {sys.version.split()[0]}")
    venv.create(folder, system_site_packages=True, clear=True, symlinks=True)  # a copy may not find its library
    packages = folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    python = folder / "bin" / "python"
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(packages)
            for name in archive.namelist():
                if name.endswith(".dist-info/entry_points.txt"):
                    write_commands(archive.read(name).decode(), python.parent, python)
    write_commands(OURS, python.parent, python)
    beneath = [path for path in site.getsitepackages() if Path(path).is_dir()]
    lines = [str(ROOT), *(f"import site; site.addsitedir({path!r})" for path in beneath)]
    (packages / "carried.pth").write_text("".join(f"{line}\n" for line in lines))
    shutil.copy(ROOT / "fairseq_compat" / "fairseq_compat.pth", packages / "zz_fairseq_compat.pth")


if __name__ == "__main__":
    main()
