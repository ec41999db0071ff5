#!/bin/sh
# Writes requirements.lock: one version of each package, with its hashes, for all supported Pythons and platforms.
set -eu
cd "$(dirname "$0")/.."
torch=2.13.0
new=$(mktemp)
trap 'rm -f "$new"' EXIT
# uv installs the others; wheel is needed to build fairseq and antlr4 from source.
printf '%s\n' "torch==$torch" uv wheel | "${VENV:-.venv}/bin/python" -m uv pip compile --quiet --universal \
    --python-version 3.10 --upgrade --generate-hashes --no-header --no-annotate --extra dev setup.py - >"$new"
part() { # PICK: prints the packages of torch's CUDA build if PICK is 1, and all others if it is 0
    awk -v pick="$1" '/^[a-z]/ { cuda = /^(nvidia-|cuda-|triton==)/ } cuda == pick' "$new"
}
{
    echo "# Written by make lock for Python 3.10-3.13 on Linux and macOS; read by make setup, which checks every hash."
    echo "# The packages of torch's CUDA build are in requirements-cuda.lock, because a CPU build of torch wants none."
    part 0
} >requirements.lock
{
    echo "# Written by make lock: what PyPI's torch for Linux needs beside requirements.lock. make setup reads it as constraints."
    part 1
} >requirements-cuda.lock
"${VENV:-.venv}/bin/python" scripts/locked_requirements.py --record "$torch"
