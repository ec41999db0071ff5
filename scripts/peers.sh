#!/bin/sh
# Installs the packages that the benchmarks compare with into the folder peers, outside the environment.
set -eu
cd "$(dirname "$0")/.."
venv=${VENV:-.venv}
packages="timm==1.0.31 huggingface-hub==0.36.0 requests==2.32.5 urllib3==2.5.0 idna==3.10 certifi==2025.8.3 charset-normalizer==3.4.3 vector-quantize-pytorch==1.32.0 einops==0.8.2 einx==0.4.3 frozendict==2.5.1 loguru==0.7.3 torch-einops-utils==0.2.0"

[ ! -f peers/.installed ] || [ "$(cat peers/.installed)" != "$packages" ] || exit 0
rm -rf peers
# Without dependencies: the environment already has torch, and it must not be replaced.
# shellcheck disable=SC2086
"$venv/bin/python" -m uv pip install --quiet --no-deps --python "$venv/bin/python" --target peers $packages
echo "$packages" >peers/.installed
