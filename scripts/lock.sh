#!/bin/sh
# Writes requirements.lock: one version of each package for all supported Pythons and platforms.
set -eu
cd "$(dirname "$0")/.."
torch=2.13.0
new=$(mktemp)
trap 'rm -f "$new"' EXIT
echo "torch==$torch" | "${VENV:-.venv}/bin/python" -m uv pip compile --quiet --universal --python-version 3.10 --upgrade \
    --no-header --no-annotate --extra dev setup.py - >"$new"
{
    echo "# Written by make lock for Python 3.10-3.13 on Linux and macOS; read by make setup."
    echo "# The CUDA parts of torch are left out: torch itself names their exact versions, and a CPU build of torch wants none."
    grep -vE '^(nvidia-|cuda-|triton==)' "$new"
} >requirements.lock
