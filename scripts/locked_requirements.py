"""Print requirements.lock for this interpreter: with torch's wheel of a folder in PIP_FIND_LINKS if there is one.

The lock has the hashes of PyPI. A CPU build of torch (2.13.0+cpu) is another version with another hash, and PyPI does
not have it. A wheel whose name is in scripts/torch_wheels.sha256 must have the hash recorded there. Any other wheel of
the locked version is taken as it is, because you chose its folder: its hash is printed.
"""

import hashlib
import os
import platform
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RECORDED = Path(__file__).resolve().with_name("torch_wheels.sha256")
BLOCK = re.compile(r"^torch==(\S+) \\\n(?: {4}--hash=\S+(?: \\)?\n)+", re.MULTILINE)


def main():
    lock = (ROOT / "requirements.lock").read_text()
    found = BLOCK.search(lock)
    if not found:
        sys.exit("setup: requirements.lock has no torch with hashes: run make lock.")
    tags = f"cp{sys.version_info[0]}{sys.version_info[1]}", platform.machine()
    wheel = next((path for path in local_wheels(found[1]) if all(tag in path.name for tag in tags)), None)
    if wheel:
        version = wheel.name.split("-")[1]
        hashes = set(re.findall(r"sha256:(\w+)", found[0])) if version == found[1] else set()
        line = f"torch=={version}" + "".join(f" \\\n    --hash=sha256:{h}" for h in sorted(hashes | {trusted(wheel)}))
        lock = lock[: found.start()] + line + "\n" + lock[found.end() :]
    sys.stdout.write(lock)


def record(version):
    """Add the wheels of this torch version in PIP_FIND_LINKS to the recorded ones (make lock)."""
    known = recorded()
    with RECORDED.open("a") as file:
        file.writelines(f"{sha256(path)}  {path.name}\n" for path in local_wheels(version) if path.name not in known)


def local_wheels(version):
    """Paths of the wheels of this torch version in the folders of PIP_FIND_LINKS."""
    name = re.compile(rf"torch-{re.escape(version)}(\+[\w.]+)?-\w+-\w+-\w+\.whl")
    folders = [Path(place) for place in os.environ.get("PIP_FIND_LINKS", "").split()]
    paths = [path for folder in folders if folder.is_dir() for path in sorted(folder.iterdir())]
    return [path for path in paths if name.fullmatch(path.name)]


def recorded():
    """Name -> hash of the recorded wheels."""
    rows = (row.split() for row in RECORDED.read_text().splitlines() if not row.startswith("#"))
    return {name: value for value, name in rows}


def sha256(path):
    """The hash of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def trusted(wheel):
    """The hash of a wheel. Exits if another hash is recorded for its name."""
    found, wanted = sha256(wheel), recorded().get(wheel.name)
    if wanted is None:
        print(f"setup: {wheel} has no recorded hash and is trusted: sha256 {found}", file=sys.stderr)
    elif wanted != found:
        sys.exit(f"setup: {wheel} was changed: its sha256 is {found}, but {RECORDED.name} has {wanted}.")
    return found


if __name__ == "__main__":
    record(sys.argv[2]) if sys.argv[1:2] == ["--record"] else main()
